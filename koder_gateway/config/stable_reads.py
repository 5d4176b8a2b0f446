"""Reading a file that may be half written: a changed file is accepted only when two looks at it agree."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .document import read_bytes
from .faults import ConfigurationError

# Seconds between two looks when a caller waits for the result, and the most looks.
SETTLE: Final = 0.5
LOOKS: Final = 8


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a file. `state` is the result of `file_state`; `content` is a digest, or the fault found when it
    was read."""

    state: object
    content: bytes | str


@dataclass(frozen=True, slots=True)
class FileRead:
    """The result of one look: the version, and the bytes of the file or why there are none."""

    version: Version
    found: bytes | ConfigurationError

    def data(self) -> bytes:
        """The bytes; raises the ConfigurationError."""
        if isinstance(self.found, ConfigurationError):
            raise self.found
        return self.found


@dataclass(frozen=True, slots=True)
class StableReading:
    """For reading a file again: `known` is the version that two looks agreed on before; `wait` waits for this many
    seconds."""

    known: Version | None
    wait: Callable[[float], object]


def file_state(path: Path) -> object:
    """The metadata of a file; cheap, and enough to see that it has changed."""
    try:
        status = path.stat()
    except OSError as error:
        return error.errno
    return status.st_ino, status.st_mtime_ns, status.st_size


def read_once(path: Path, name: str, limit: int) -> FileRead:
    """Look once at a file of at most `limit` bytes; messages call it `name`."""
    # Taken before the file is read, so that no change is missed.
    state = file_state(path)
    try:
        _check_kind(path, name)
        data = read_bytes(path, name, limit)
    except ConfigurationError as error:
        return FileRead(Version(state, str(error)), error)
    return FileRead(Version(state, hashlib.sha256(data).digest()), data)


def _check_kind(path: Path, name: str) -> None:
    """A pipe or a terminal would let the reader wait for ever."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return  # which the reading tells in its own words
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ConfigurationError([f"{name}: is a pipe, a socket or a device; name a file"])


def read_stable(path: Path, name: str, limit: int, caution: StableReading | None) -> FileRead:
    """The look that agrees with the one before it, or with what is known; without caution the first.

    Raises ConfigurationError for a file that changes at every look.
    """
    look = read_once(path, name, limit)
    if caution is None or look.version == caution.known:
        return look
    for _ in range(LOOKS - 1):
        before = look.version
        caution.wait(SETTLE)
        look = read_once(path, name, limit)
        if look.version == before:
            return look
    raise ConfigurationError([f"{name}: is still being written; reload again when it is complete"])
