"""Looks at a file that may be half written: one that has changed is taken only when two of them agree."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .document import read_bytes
from .faults import ConfigurationError

# Seconds between two looks for somebody who waits for what was read, and how many there are at most.
SETTLE: Final = 0.5
LOOKS: Final = 8


@dataclass(frozen=True, slots=True)
class Version:
    """What tells one version of a file from the next. `state` is `file_state`'s; `content` is a digest, or what was
    wrong when it was read."""

    state: object
    content: bytes | str


@dataclass(frozen=True, slots=True)
class Look:
    """What one look has found: the version, and the bytes of the file or why there are none."""

    version: Version
    found: bytes | ConfigurationError

    def data(self) -> bytes:
        """The bytes; raises the ConfigurationError."""
        if isinstance(self.found, ConfigurationError):
            raise self.found
        return self.found


@dataclass(frozen=True, slots=True)
class Caution:
    """For reading a file again: `known` is the version that two looks have agreed on before, and `wait` lets so many
    seconds pass."""

    known: Version | None
    wait: Callable[[float], object]


def file_state(path: Path) -> object:
    """What a file's folder says of it; cheap, and enough to see that it is another one."""
    try:
        status = path.stat()
    except OSError as error:
        return error.errno
    return status.st_ino, status.st_mtime_ns, status.st_size


def look_at(path: Path, name: str, limit: int) -> Look:
    """Look once at a file of at most so many bytes that messages call `name`."""
    # Asked before it is read, so that no change is missed.
    state = file_state(path)
    try:
        data = read_bytes(path, name, limit)
    except ConfigurationError as error:
        return Look(Version(state, str(error)), error)
    return Look(Version(state, hashlib.sha256(data).digest()), data)


def settled_look(path: Path, name: str, limit: int, caution: Caution | None) -> Look:
    """The look that agrees with the one before it, or with what is known. Without caution, the first. Raises
    ConfigurationError for a file that is never the same twice."""
    look = look_at(path, name, limit)
    if caution is None or look.version == caution.known:
        return look
    for _ in range(LOOKS - 1):
        before = look.version
        caution.wait(SETTLE)
        look = look_at(path, name, limit)
        if look.version == before:
            return look
    raise ConfigurationError([f"{name}: is still being written; reload again when it is complete"])
