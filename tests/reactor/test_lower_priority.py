"""A helper's priority, as the kernel has it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.waiting import PATIENCE

PROGRAM = """
import os, pathlib
from koder_gateway.reactor.lower_priority import lower_priority
lower_priority(5)
group = pathlib.Path("/proc/self/autogroup")
print(os.getpriority(os.PRIO_PROCESS, 0), group.read_text() if group.exists() else "")
"""


@pytest.fixture
def told() -> list[str]:
    """What a process in a session of its own has after it."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        start_new_session=True,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_the_process_is_below(told: list[str]) -> None:
    assert int(told[0]) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5)


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="needs a kernel that groups by session")
def test_its_session_is_too(told: list[str]) -> None:
    assert told[1:] == [told[1], "nice", "5"]


def test_a_kernel_without_groups_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("koder_gateway.reactor.lower_priority._GROUP", Path("/nowhere/autogroup"))
    from koder_gateway.reactor.lower_priority import lower_priority

    lower_priority(0)
