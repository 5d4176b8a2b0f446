"""Returning unused memory to the system."""

from __future__ import annotations

import ctypes
import gc
import math
import os
from collections.abc import Callable
from typing import Any, Final

# When returning memory is worth it: so many free bytes, and this part of all bytes of the C library. Returning them,
# and getting them again from the system, takes less than a millisecond.
_WORTH_IT: Final = 1 << 20
_PART: Final = 8
# Seconds between two attempts, and the longest pause after several that returned nothing.
_PAUSE: Final = 5.0
_LONGEST: Final = 80.0


class CLibrary:
    """The heap of the C library, which keeps freed memory for later unless it is told not to."""

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
        # Read for the first time here: a system without it gets no trimmer.
        self.resident()

    def sizes(self) -> tuple[int, int]:
        """Bytes that are free, some of which may have been returned already, and bytes of the whole heap."""
        info = self._info()
        return info.fordblks, info.arena

    def resident(self) -> int:
        """Resident bytes of the process. Raises OSError, also where no descriptor is left."""
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * self._page

    def trim(self) -> None:
        """Return every free page. Takes about 0.1 milliseconds for each MiB returned."""
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
    """The C library's heap, None if it cannot be queried."""
    try:
        return CLibrary()
    except (AttributeError, OSError):
        return None


def freeze_long_lived(heap: Callable[[], CLibrary | None] = c_library) -> None:
    """After the start: exclude long-lived objects from garbage collection, and return what only the start needed."""
    gc.collect()
    gc.freeze()
    library = heap()
    if library is not None:
        library.trim()


class Trimmer:
    """Returns memory to the system after a burst has left much of it free.

    Memory that was returned still counts as free in the C library, so the trimmer looks at how much has become free
    since the last time, and at how much the process has grown since then (a burst may come and go between two looks).
    It runs at most once in `_PAUSE` seconds, and less often while nothing is returned.
    """

    def __init__(self, heap: Callable[[], CLibrary | None] = c_library) -> None:
        self._heap = heap()
        self._due = -math.inf
        self._pause = _PAUSE
        # The least free bytes, and the size of the process, since the last time.
        self._least: float = math.inf
        self._settled: float = math.inf

    def look(self, now: float) -> bool:
        """Check whether it is worth it, about once a second; True if memory was returned. `now`: monotonic
        seconds."""
        try:
            return self._heap is not None and self._look(self._heap, now)
        except OSError:
            return False  # no descriptor is left: the next look may have one

    def _look(self, heap: CLibrary, now: float) -> bool:
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
