"""What the process does with memory that it no longer needs."""

from __future__ import annotations

import ctypes
import gc
from typing import Any

# A storm is over when this many connections have gone.
_WORTH_IT = 256


def settle() -> None:
    """After the start: what lives as long as the process is not looked at by the garbage collector again."""
    gc.collect()
    gc.freeze()


class Trimmer:
    """Gives memory back to the system after a storm of connections; the C library would keep it for the next."""

    def __init__(self) -> None:
        self._peak = 0
        try:
            self._trim: Any = ctypes.CDLL(None).malloc_trim
        except (AttributeError, OSError):  # a C library without it
            self._trim = None

    def look(self, connections: int) -> bool:
        """Tell how many connections there are, once a second or so; true when memory was given back."""
        if connections > self._peak:
            self._peak = connections
        if self._trim is None or self._peak - connections < _WORTH_IT:
            return False
        self._peak = connections
        self._trim(0)
        return True
