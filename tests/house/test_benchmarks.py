"""The benchmarks' code, run once: what is measured now and then must still fit what it measures."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from peer_cases import CASES
from peer_servers import KINDS, OURS
from servers import find

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
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


measures = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="a benchmark needs two processors: one for the server, one for the load"
)


def run(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """A benchmark as its target in the Makefile starts it."""
    command = [sys.executable, str(BENCHMARKS / f"{script}.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)


@measures
def test_floods_runs() -> None:
    done = run("floods", "--cases", "drip-100/tls", "--attackers", "1", "--seconds", "0.2", "--no-go")
    # Whether a mark is over tells of the machine's other work as well.
    assert done.stdout.rstrip().endswith(("every mark holds", "marks are over")), done.stdout + done.stderr


@measures
@pytest.mark.skipif(not (shutil.which("wrk") and shutil.which("h2load")), reason="needs wrk and h2load")
def test_scale_runs(tmp_path: Path) -> None:
    done = run("scale", "--quick", "--curves", "routes", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "routes" in json.loads((tmp_path / "scale.json").read_text())


@measures
@pytest.mark.skipif(not shutil.which("wrk"), reason="needs wrk")
def test_workers_runs() -> None:
    done = run("workers", "--seconds", "1", "--connections", "4")
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = map(json.loads, done.stdout.splitlines())
    assert (one["workers"], two["workers"], len(two["parts"])) == (1, 2, 2)
    # Sessions are resumed by whichever worker they meet.
    assert (one["full"], two["full"]) == (0, 0)


@measures
def test_echo_runs() -> None:
    done = run("echo", "--seconds", "0.1", "--rounds", "1", "--starts", "1", "--connections", "2", "--go", "")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "messages/s" in done.stdout


@measures
@pytest.mark.skipif(not (shutil.which("wrk") and shutil.which("h2load")), reason="needs wrk and h2load")
def test_shared_limits_runs() -> None:
    done = run("shared_limits", "--seconds", "1", "--rounds", "1")
    # Whether a mark holds tells of the machine's other work as well.
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert "times the 99th percentile at 2,000 requests a second" in done.stdout


@measures
@pytest.mark.skipif(not (shutil.which("wrk") and shutil.which("h2load")), reason="needs wrk and h2load")
def test_tracing_runs() -> None:
    done = run("tracing", "--seconds", "1", "--rounds", "1")
    # Whether the mark holds tells of the machine's other work as well.
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert "all: " in done.stdout


@measures
@pytest.mark.skipif(not (shutil.which("pebble") and shutil.which("h2load")), reason="needs pebble and h2load")
def test_acme_domains_runs() -> None:
    done = run("acme_domains", "--domains", "40", "--rate", "20", "--seconds", "1", "--rounds", "1")
    # Whether the mark holds tells of the machine's other work as well.
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert "40 new domains: " in done.stdout


def _peers() -> list[str]:
    """Those that are installed; Go once its standard library has been built, which takes a minute."""
    installed = [name for name, kind in KINDS.items() if name != OURS and find(kind.program)]
    return [name for name in installed if name != "go" or (ROOT / "build/go").exists()]


def test_every_peer_that_is_installed_does_what_is_measured() -> None:
    done = run("peers", "--check", "--peers", ",".join(_peers()))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith(", ".join([OURS, *_peers()]))


@measures
def test_peers_runs(tmp_path: Path) -> None:
    kept = tmp_path / "peers.json"
    cases = "limited,p50,p99,rss"
    done = run("peers", "--peers", "", "--cases", cases, "--rounds", "1", "--seconds", "1", "--json", str(kept))
    assert done.returncode == 0, done.stdout + done.stderr
    table, _, costs = done.stdout.partition("\n\n")
    rows = [line.split(" | ")[0].lstrip("| ") for line in table.splitlines()]
    assert rows[2:] == cases.split(",")
    assert "| limited | us |" in costs
    assert [case["case"] for case in json.loads(kept.read_text())["cases"]] == cases.split(",")


def test_the_documented_table_has_the_cases_of_the_benchmark() -> None:
    text = (ROOT / "docs/performance.md").read_text().partition("## What a request costs")[0]
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    assert rows == ["case", *(case.name for case in CASES)]


def test_what_is_not_installed_says_what_brings_it() -> None:
    kind = dataclasses.replace(KINDS["haproxy"], program="no-such-program")
    assert kind.missing() == "haproxy is left out: it is not installed; apt-get install haproxy"
    assert dataclasses.replace(kind, program=sys.executable).missing() is None
