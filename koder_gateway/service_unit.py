"""The settings of the systemd unit that a check depends on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from .config import parse_duration

# The folders of a unit and its overrides, those that win last (systemd.unit(5)).
UNIT_FOLDERS: Final = ("/usr/lib/systemd/system", "/lib/systemd/system", "/etc/systemd/system")
# The parent folder of a unit's StateDirectory (systemd.exec(5)).
STATE: Final = Path("/var/lib")
_UNIT: Final = "koder-gateway.service"
# The value of the packaged unit.
_STOP: Final = 45.0


def stop_timeout(folders: Iterable[str]) -> tuple[float, str]:
    """The seconds, and the file that sets them; the packaged unit's if none is installed."""
    found = _STOP, "the packaged unit"
    for path, text in _values(folders, "TimeoutStopSec"):
        found = _seconds(text, found[0]), str(path)
    return found


def descriptor_limit(folders: Iterable[str]) -> tuple[int, str] | None:
    """The most descriptors that the unit allows, and the file that sets it; None if no unit is installed, or it has
    no number."""
    found = None
    for path, text in _values(folders, "LimitNOFILE"):
        # Soft and hard: the gateway raises the soft limit to the hard one.
        hard = text.rpartition(":")[2]
        if hard.isascii() and hard.isdecimal():
            found = int(hard), f"LimitNOFILE in {path}"
    return found


def state_directory(folders: Iterable[str]) -> Path | None:
    """The folder that systemd creates for the service at each start, and passes as STATE_DIRECTORY; the first of
    several. None if no unit is installed, or it names none."""
    names: list[str] = []
    for _, text in _values(folders, "StateDirectory"):
        # An empty value resets the list; others are added to it.
        names = [*names, *text.split()] if text else []
    return STATE / names[0].partition(":")[0] if names else None


def _values(folders: Iterable[str], key: str) -> Iterator[tuple[Path, str]]:
    """Each value of that key, and its file, those that win last."""
    for folder in map(Path, folders):
        paths = [folder / _UNIT]
        with suppress(OSError):
            paths += sorted((folder / f"{_UNIT}.d").glob("*.conf"))
        for path in paths:
            with suppress(OSError, UnicodeDecodeError):
                for text in re.findall(rf"^{key}=(.*)$", path.read_text(), re.MULTILINE):
                    yield path, text.strip()


def _seconds(text: str, otherwise: float) -> float:
    """A time span of systemd (systemd.time(7)), in the forms that are usual for this key."""
    if text in ("infinity", "0"):
        return float("inf")
    words = re.findall(r"([0-9.]+)\s*([a-z]*)", text.replace("min", "m").replace("sec", "s"))
    try:
        return sum(parse_duration(number + (unit or "s")) for number, unit in words) if words else otherwise
    except ValueError:
        return otherwise
