"""The uvloop reactor passes Twisted's own reactor tests, but for those that docs/transports.md gives reasons for."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "tests" / "transports" / "reactor_suite" / "suite.py"
ROW = re.compile(r"^\| `(\w+\.\w+)` \| (.+) \|$", re.MULTILINE)

# Twisted 26.10 has 300 of them; a suite that shrinks to nothing would pass, too.
AT_LEAST = 250


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    folder = tmp_path_factory.mktemp("suite")
    finished = subprocess.run(
        [sys.executable, str(SUITE)], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


def test_twisteds_own_tests_pass(outcomes: Any) -> None:
    assert outcomes["failed"] == {}
    assert outcomes["passed"] >= AT_LEAST


def test_what_is_skipped_is_documented_with_its_reason(outcomes: Any) -> None:
    documented = dict(ROW.findall((ROOT / "docs" / "transports.md").read_text()))
    # Twisted's own reasons go by the machine and the user: no IPv6, not root.
    ours = {name: why for name, why in outcomes["skipped"].items() if why in documented.values()}
    assert ours == documented
