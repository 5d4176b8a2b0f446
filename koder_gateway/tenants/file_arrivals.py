"""How a file came under its name: renamed to it, and so whole, or made there, and perhaps not written to its end."""

from __future__ import annotations

import ctypes
import os
import struct
import weakref
from pathlib import Path
from typing import Final

# inotify(7): what is asked for, and what is told besides when there was too much.
_MOVED_TO: Final = 0x80
_CREATED: Final = 0x100
_OVERFLOW: Final = 0x4000
# A descriptor, a mask, a cookie and the length of the name that follows.
_EVENT: Final = struct.Struct("iIII")
_READ: Final = 64 << 10


class Arrivals:
    """Watches one name. A folder that cannot be watched (not Linux, out of watches, a file system of another
    machine) tells nothing."""

    def __init__(self, path: Path) -> None:
        self._name = os.fsencode(path.name)
        self._descriptor = _watched(path.parent)
        self._close = weakref.finalize(self, _close, self._descriptor)

    def close(self) -> None:
        """Watch no more."""
        self._close()
        self._descriptor = -1

    def latest(self) -> bool | None:
        """Whether the file that came last since this was asked before was renamed to the name; None when none came,
        or nobody knows."""
        came: bool | None = None
        while self._descriptor >= 0:
            try:
                events = os.read(self._descriptor, _READ)
            except OSError:
                break
            came = last_arrival(events, self._name, came)
        return came


def last_arrival(events: bytes, name: bytes, came: bool | None) -> bool | None:
    """Whether the last of the kernel's events for this name was a rename; `came` where none is for it."""
    at = 0
    while at < len(events):
        _, mask, _, length = _EVENT.unpack_from(events, at)
        at += _EVENT.size + length
        if mask & _OVERFLOW:
            # Anything may have come: the careful answer.
            came = False
        elif events[at - length : at].rstrip(b"\0") == name:
            came = bool(mask & _MOVED_TO)
    return came


def _watched(folder: Path) -> int:
    """The descriptor to read events from; -1 where there is none."""
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
