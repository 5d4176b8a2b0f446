"""What the systemd unit that starts the gateway says, as far as a check depends on it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from .config import parse_duration

# Where a unit and its overrides are, those that win last (systemd.unit(5)).
UNIT_FOLDERS: Final = ("/usr/lib/systemd/system", "/lib/systemd/system", "/etc/systemd/system")
# Below which folder a unit's StateDirectory is (systemd.exec(5)).
STATE: Final = Path("/var/lib")
_UNIT: Final = "koder-gateway.service"
# That of the packaged unit.
_STOP: Final = 45.0


def stop_timeout(folders: Iterable[str]) -> tuple[float, str]:
    """Seconds, and in which file they stand; the packaged unit's where none is installed."""
    found = _STOP, "the packaged unit"
    for path, text in _values(folders, "TimeoutStopSec"):
        found = _seconds(text, found[0]), str(path)
    return found


def descriptor_limit(folders: Iterable[str]) -> tuple[int, str] | None:
    """The most descriptors that the unit lets the gateway have, and in which file that stands; None where no unit is
    installed, or it says nothing that is a number."""
    found = None
    for path, text in _values(folders, "LimitNOFILE"):
        # Soft and hard: the gateway raises the one to the other.
        hard = text.rpartition(":")[2]
        if hard.isascii() and hard.isdecimal():
            found = int(hard), f"LimitNOFILE in {path}"
    return found


def state_directory(folders: Iterable[str]) -> Path | None:
    """The folder that systemd makes for the service at each start, and calls STATE_DIRECTORY; the first of several.
    None where no unit is installed, or it names none."""
    names: list[str] = []
    for _, text in _values(folders, "StateDirectory"):
        # An empty one takes back those before it; others are added to them.
        names = [*names, *text.split()] if text else []
    return STATE / names[0].partition(":")[0] if names else None


def _values(folders: Iterable[str], key: str) -> Iterator[tuple[Path, str]]:
    """Each value of that key, and where it stands, those that win last."""
    for folder in map(Path, folders):
        paths = [folder / _UNIT]
        with suppress(OSError):
            paths += sorted((folder / f"{_UNIT}.d").glob("*.conf"))
        for path in paths:
            with suppress(OSError, UnicodeDecodeError):
                for text in re.findall(rf"^{key}=(.*)$", path.read_text(), re.MULTILINE):
                    yield path, text.strip()


def _seconds(text: str, otherwise: float) -> float:
    """A time span of systemd's (systemd.time(7)): of its forms, those that people write for this."""
    if text in ("infinity", "0"):
        return float("inf")
    words = re.findall(r"([0-9.]+)\s*([a-z]*)", text.replace("min", "m").replace("sec", "s"))
    try:
        return sum(parse_duration(number + (unit or "s")) for number, unit in words) if words else otherwise
    except ValueError:
        return otherwise
