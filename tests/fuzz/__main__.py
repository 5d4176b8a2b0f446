"""Runs the targets of fuzzing for a bounded time: `python -m tests.fuzz [--seconds N] [TARGET ...]`.

Each target gets an equal part of the time, in a process of its own. What it finds goes into `build/fuzz`: new inputs,
which the next run begins with, and those that failed. One more, `conversations`, plays whole conversations at random,
some hundreds at a time (tests/fuzz/test_conversations.py). Exits 1 if one has failed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.names import CORPUS, NAMES

FOUND = Path("build/fuzz")
# Bytes of an input, seconds for one, and MiB of memory for all of a process.
_LONGEST, _SLOWEST, _MEMORY = 4096, 30, 1536
# Seconds that a process may take beyond its time: to start, and for its last input.
_GRACE = 120
_CONVERSATIONS = "conversations"
_BATCH = 250


def _command(name: str, seconds: int) -> list[str]:
    flags = [
        f"-max_total_time={seconds}",
        f"-max_len={_LONGEST}",
        f"-timeout={_SLOWEST}",
        f"-rss_limit_mb={_MEMORY}",
        f"-dict={CORPUS.parent / 'tokens.dict'}",
        f"-artifact_prefix={FOUND}/failed-{name}-",
        "-print_final_stats=1",
    ]
    return [sys.executable, "-m", "tests.fuzz.fuzzer", name, *flags, str(FOUND / name), str(CORPUS / name)]


def run(name: str, seconds: int) -> bool:
    """Fuzz one target, and print a line about it; what failed where something did."""
    (FOUND / name).mkdir(parents=True, exist_ok=True)
    log = FOUND / f"{name}.log"
    with log.open("wb") as output:
        try:
            done = subprocess.run(
                _command(name, seconds), stdout=output, stderr=output, timeout=seconds + _GRACE, check=False
            )
            code: int | str = done.returncode
        except subprocess.TimeoutExpired:
            code = "no end"
    text = log.read_text("utf-8", "replace")
    runs = re.findall(r"stat::number_of_executed_units: +(\d+)", text)
    covered = re.findall(r" cov: (\d+)", text)
    print(f"{name:14} {int(runs[-1]) if runs else 0:9,} inputs, {covered[-1] if covered else 0} branches", flush=True)
    if code == 0:
        return True
    inputs = re.findall(r"Test unit written to (\S+)", text)
    reason = re.findall(
        r"^(?:\w+\.)*\w*(?:Error|Exception)\b.*$|^==\d+== ?ERROR: .*$|^ERROR: .*$", text, re.MULTILINE
    )
    print(f"  failed: {reason[0] if reason else code}")
    print(
        f"  read {log}; the input is {inputs[-1] if inputs else 'not known'}; once mended, keep it in {CORPUS / name}"
    )
    return False


def converse(seconds: int) -> bool:
    """Play conversations, others each time, and print a line about them; the one that failed where one did."""
    log = FOUND / f"{_CONVERSATIONS}.log"
    FOUND.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "--color=no", "tests/fuzz/test_conversations.py"]
    environment = {**os.environ, "KODER_FUZZ_EXAMPLES": str(_BATCH)}
    end = time.monotonic() + seconds
    played, good = 0, True
    while good and (not played or time.monotonic() < end):
        with log.open("wb") as output:
            done = subprocess.run(
                command, env=environment, stdout=output, stderr=output, timeout=20 * _GRACE, check=False
            )
        played, good = played + _BATCH, done.returncode == 0
    print(f"{_CONVERSATIONS:14} {played:9,} conversations at most", flush=True)
    if not good:
        print(f"  failed: read {log}; its last lines are the conversation")
    return good


def main() -> None:
    """See the module."""
    known = [*NAMES, _CONVERSATIONS]
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"one of {', '.join(known)}; default: all")
    options = parser.parse_args()
    unknown = set(options.targets) - set(known)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}; choose from {', '.join(known)}")
    names = options.targets or known
    seconds = max(1, options.seconds // len(names))
    failed = [name for name in names if not (converse(seconds) if name == _CONVERSATIONS else run(name, seconds))]
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
