"""How many workers "auto" means: the processors that this process may use, by its affinity and its control group."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_CGROUPS: Final = Path("/proc/self/cgroup")


def processors(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUPS) -> int:
    """The processors that this process may use, at least 1: those of its affinity (sched_setaffinity(2)), or fewer if
    its control group, or one above it, has a quota (cpu.max; cpu.cfs_quota_us of the first version). A part of a
    processor counts as one."""
    quotas = [math.ceil(quota) for quota in _quotas(cgroups, own)]
    return max(1, min([len(os.sched_getaffinity(0)), *quotas]))


def _quotas(cgroups: Path, own: Path) -> Iterator[float]:
    """The quotas, in processors."""
    for line in _text(own).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            for folder in _upwards(cgroups, path):
                yield from _quota(_text(folder / "cpu.max"))
        elif "cpu" in controllers.split(","):
            # A container sees its own group as the root of the hierarchy.
            for root in (cgroups / controllers, cgroups / "cpu"):
                for folder in _upwards(root, path):
                    quota, period = (_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
                    yield from _quota(f"{quota} {period}")


def _upwards(root: Path, path: str) -> list[Path]:
    """The folder of a control group, and those above it up to the root of the hierarchy."""
    below = Path(path.lstrip("/"))
    return [root / each for each in (below, *below.parents)] if ".." not in below.parts else [root]


def _quota(text: str) -> Iterator[float]:
    """A quota and its period in microseconds, as in "150000 100000"; "max" and -1 are none."""
    words = text.split()
    if len(words) == 2 and all(word.isascii() and word.isdecimal() for word in words) and int(words[1]) > 0:
        yield int(words[0]) / int(words[1])


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
