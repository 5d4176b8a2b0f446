"""A short soak: a hundred connections, every fault once. `make soak` runs it with thousands for minutes."""

from __future__ import annotations

from pathlib import Path

from tests.soak import faults
from tests.soak.run import Plan, soak
from tests.soak.stage import Stage


def test_every_fault_passes_and_leaves_nothing_in_two_workers(tmp_path: Path) -> None:
    with Stage(tmp_path, 2) as stage:
        result = soak(stage, Plan(2, connections=100, think=0.6, calm=1), print)
    assert result.broken == []


def test_faults_leave_nothing_in_a_single_process(tmp_path: Path) -> None:
    few = (faults.service_dies, faults.configuration_reloads, faults.descriptors_run_out)
    with Stage(tmp_path, 1) as stage:
        result = soak(stage, Plan(1, connections=100, think=0.6, calm=1, faults=few), print)
    assert result.broken == []
