"""Runs the targets of fuzzing for a bounded time: `python -m tests.fuzz [--seconds N] [TARGET ...]`.

Each target gets an equal part of the time, in a process of its own. What it finds goes into `build/fuzz`: new inputs,
which the next run begins with, and those that failed. Exits 1 if one has failed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

from tests.fuzz.names import CORPUS, NAMES

FOUND = Path("build/fuzz")
# Bytes of an input, seconds for one, and MiB of memory for all of a process.
_LONGEST, _SLOWEST, _MEMORY = 4096, 30, 1536
# Seconds that a process may take beyond its time: to start, and for its last input.
_GRACE = 120


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


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"one of {', '.join(NAMES)}; default: all")
    options = parser.parse_args()
    unknown = set(options.targets) - set(NAMES)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}; choose from {', '.join(NAMES)}")
    names = options.targets or NAMES
    seconds = max(1, options.seconds // len(names))
    failed = [name for name in names if not run(name, seconds)]
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
