"""Holds the hot functions to the figures kept in the repository.

Absolute times tell of the machine; what is kept is each case's time as a multiple of a loop's (`test_hot.measure`). A
case that has become slower by more than `SLACK` fails the run; `--keep-figures` writes new ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FIGURES = Path(__file__).with_name("figures.json")
# The name of that multiple in the `extra_info` of each case.
RATIO = "ratio"
# What a shared machine's noise may move it by.
SLACK = 1.35


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--keep-figures", action="store_true", help="write benchmarks/figures.json from this run")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    benchmarks: Any = getattr(session.config, "_benchmarksession", None)
    cases = {case.name.removeprefix("test_"): case for case in (benchmarks.benchmarks if benchmarks else [])}
    if not cases or exitstatus != 0:
        return
    measured = {name: case.stats.min for name, case in cases.items()}
    ratios = {name: case.extra_info[RATIO] for name, case in cases.items()}
    if session.config.getoption("--keep-figures"):
        FIGURES.write_text(json.dumps(ratios, indent=1, sort_keys=True) + "\n")
    kept: dict[str, float] = json.loads(FIGURES.read_text())
    session.config.stash[REPORT] = lines = []
    for name, ratio in ratios.items():
        change = ratio / kept[name] if name in kept else 1.0
        verdict = "slower" if change > SLACK else ""
        figures = f"{measured[name] * 1e6:>10.2f} us{ratio:>10.3f}{kept.get(name, 0):>10.3f}{change:>9.2f}"
        lines.append(f"{name:<34}{figures} {verdict}")
    if any(line.endswith("slower") for line in lines):
        session.exitstatus = 1


REPORT = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    lines = config.stash.get(REPORT, None)
    if lines:
        terminalreporter.section("beside the figures kept (times of a loop)")
        terminalreporter.write_line(f"{'case':<34}{'best':>13}{'now':>10}{'kept':>10}{'change':>9}")
        for line in lines:
            terminalreporter.write_line(line)
