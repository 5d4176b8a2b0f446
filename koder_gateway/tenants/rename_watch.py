"""How a file got its name: renamed to it, and so complete, or created there, and perhaps still being written."""

from __future__ import annotations

import ctypes
import os
import struct
import weakref
from pathlib import Path
from typing import Final

# inotify(7): the events that are requested, and the one that reports an overflow.
_MOVED_TO: Final = 0x80
_CREATED: Final = 0x100
_OVERFLOW: Final = 0x4000
# The descriptor, mask, cookie and length of the name that follows.
_EVENT: Final = struct.Struct("iIII")
_READ: Final = 64 << 10


class RenameWatch:
    """Watches one name. If the folder cannot be watched (not Linux, no watches left, a network file system), it
    reports nothing."""

    def __init__(self, path: Path) -> None:
        self._name = os.fsencode(path.name)
        self._descriptor = _watched(path.parent)
        self._close = weakref.finalize(self, _close, self._descriptor)

    def close(self) -> None:
        """Stop watching."""
        self._close()
        self._descriptor = -1

    def latest(self) -> bool | None:
        """Whether the latest file since the last call was renamed to the name; None if there was none, or if it is
        unknown."""
        came: bool | None = None
        while self._descriptor >= 0:
            try:
                events = os.read(self._descriptor, _READ)
            except OSError:
                break
            came = last_rename(events, self._name, came)
        return came


def last_rename(events: bytes, name: bytes, came: bool | None) -> bool | None:
    """Whether the last of the kernel's events for this name was a rename; `came` if there is none for it."""
    at = 0
    while at < len(events):
        _, mask, _, length = _EVENT.unpack_from(events, at)
        at += _EVENT.size + length
        if mask & _OVERFLOW:
            # Events were lost: assume that the file was written in place.
            came = False
        elif events[at - length : at].rstrip(b"\0") == name:
            came = bool(mask & _MOVED_TO)
    return came


def _watched(folder: Path) -> int:
    """The descriptor to read events from; -1 for none."""
    try:
        library = ctypes.CDLL(None)
        descriptor: int = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    except (AttributeError, OSError):
        return -1
    if descriptor >= 0 and library.inotify_add_watch(descriptor, os.fsencode(folder), _MOVED_TO | _CREATED) < 0:
        os.close(descriptor)
        return -1
    return descriptor


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)
