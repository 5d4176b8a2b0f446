"""The benchmarks' code, run once: what is measured now and then must still fit what it measures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("*.py") if path.stem not in ("conftest", "test_hot"))


def test_every_micro_benchmark_runs() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--benchmark-disable", str(BENCHMARKS)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=BENCHMARKS.parent, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_can_be_read(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {script}"], capture_output=True, text=True, cwd=BENCHMARKS, timeout=60
    )
    assert done.returncode == 0, done.stderr
