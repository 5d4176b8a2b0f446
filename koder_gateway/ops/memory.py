"""What the process does with memory that it no longer needs."""

from __future__ import annotations

import ctypes
import gc
import math
import os
from collections.abc import Callable
from typing import Any, Final

# What is worth giving back: so many bytes that are free, and this part of all that the C library has.
_WORTH_IT: Final = 8 << 20
_PART: Final = 8
# Seconds from one time to the next, and at most after several that brought nothing.
_PAUSE: Final = 5.0
_LONGEST: Final = 80.0


def settle() -> None:
    """After the start: what lives as long as the process is not looked at by the garbage collector again."""
    gc.collect()
    gc.freeze()


class CLibrary:
    """The heap of the C library, which keeps what is freed for the next storm unless it is told not to."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        try:
            self._info: Any = library.mallinfo2
            number: Any = ctypes.c_size_t
        except AttributeError:  # before glibc 2.33: counts that wrap around at 4 GiB
            self._info = library.mallinfo
            number = ctypes.c_uint

        class Info(ctypes.Structure):
            _fields_ = [(name, number) for name in _INFO]

        self._info.restype = Info
        self._info.argtypes = []
        self._trim: Any = library.malloc_trim
        self._trim.argtypes = [ctypes.c_size_t]
        self._page = os.sysconf("SC_PAGE_SIZE")
        # Read for the first time here: a system without it has no trimmer.
        self.resident()

    def sizes(self) -> tuple[int, int]:
        """Bytes that are free, of which some may be given back already, and of the whole heap."""
        info = self._info()
        return info.fordblks, info.arena

    def resident(self) -> int:
        """Bytes of the process that are in memory."""
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * self._page

    def trim(self) -> None:
        """Give back every free page. Takes milliseconds: some 0.1 for each MiB that comes of it."""
        self._trim(0)


# The members of glibc's struct mallinfo2, in their order.
_INFO: Final = (
    "arena",
    "ordblks",
    "smblks",
    "hblks",
    "hblkhd",
    "usmblks",
    "fsmblks",
    "uordblks",
    "fordblks",
    "keepcost",
)


def c_library() -> CLibrary | None:
    """The C library's heap, None where there is no way to ask it."""
    try:
        return CLibrary()
    except (AttributeError, OSError):
        return None


class Trimmer:
    """Gives memory back to the system once a storm has left much of it free.

    What the C library calls free stays free after it has been given back, so what counts is what has become free
    since the last time, or by how much the process has grown since then (a storm may come and go between two looks).
    Never more than once in `_PAUSE` seconds, and less and less often while nothing comes of it.
    """

    def __init__(self, heap: Callable[[], CLibrary | None] = c_library) -> None:
        self._heap = heap()
        self._due = -math.inf
        self._pause = _PAUSE
        # The least that was free, and the process's size, since the last time.
        self._least: float = math.inf
        self._settled: float = math.inf

    def look(self, now: float) -> bool:
        """See whether it is worth it, once a second or so; true when memory was given back. `now`: monotonic
        seconds."""
        heap = self._heap
        if heap is None:
            return False
        free, whole = heap.sizes()
        self._least = min(self._least, free)
        if now < self._due or free < _WORTH_IT or free * _PART < whole:
            return False
        before = heap.resident()
        self._settled = min(self._settled, before)
        if free - self._least < _WORTH_IT and before - self._settled < _WORTH_IT:
            return False
        heap.trim()
        after = heap.resident()
        self._least, self._settled = heap.sizes()[0], after
        gone = before - after >= _WORTH_IT // 4
        self._pause = _PAUSE if gone else min(2 * self._pause, _LONGEST)
        self._due = now + self._pause
        return gone
