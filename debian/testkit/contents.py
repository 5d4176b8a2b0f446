"""What is in the package, and what is not: `debian/expected-files` has a pattern for each kind of file."""

from __future__ import annotations

import fnmatch
import subprocess
import tarfile
from pathlib import Path

from .saying import expect, say

EXPECTED = Path(__file__).parents[1] / "expected-files"
# Bytes: of the package, and installed.
LARGEST, LARGEST_INSTALLED = 8 << 20, 36 << 20
# What only builds, tests or caches, whatever the patterns say.
UNWANTED = (
    *("*/test/*", "*/tests/*", "*/__pycache__/*", "*.pyc", "*.egg-info/*"),
    *("*.h", "*.c", "*.pyx", "*.pxd", "*.pxi"),
    *("*/pip/*", "*/setuptools/*", "*/shtab/*", "*/activate*", "*/RECORD", "*/direct_url.json"),
)


def files_of(package: Path) -> dict[str, int]:
    """The files and links of a package, with their bytes."""
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as archive,
    ):
        return {member.name.removeprefix("./"): member.size for member in archive if not member.isdir()}


def patterns(text: str) -> list[str]:
    """Those of a file, without its comments."""
    return [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]


def faults_of(files: dict[str, int], wanted: list[str]) -> list[str]:
    """Files that no pattern expects, that nobody wants, and patterns without a file."""
    names = sorted(files)
    found = {pattern: fnmatch.filter(names, pattern) for pattern in wanted}
    expected = {name for matching in found.values() for name in matching}
    faults = [f"nothing expects {name}" for name in names if name not in expected]
    faults += [f"{pattern} is not there" for pattern, matching in found.items() if not matching]
    return faults + [f"{name} does not belong there" for each in UNWANTED for name in fnmatch.filter(names, each)]


def check_contents(package: Path) -> None:
    """Failed with every fault of what the package has in it."""
    files = files_of(package)
    size, installed = package.stat().st_size, sum(files.values())
    say(f"{len(files)} files, {size / 1e6:.1f} MB, installed {installed / 1e6:.1f} MB")
    faults = faults_of(files, patterns(EXPECTED.read_text()))
    expect(size <= LARGEST, f"the package has {size} bytes")
    expect(installed <= LARGEST_INSTALLED, f"the files have {installed} bytes")
    expect(not faults, "\n".join(faults))
