"""When a worker that has died is started again: at once if it had served for a while, else after a growing pause."""

from __future__ import annotations

from typing import Final

# Seconds after which a worker has proved itself.
PROVEN: Final = 10.0
# The first pause in seconds, which doubles up to the longest.
_FIRST: Final = 0.1
_LONGEST: Final = 10.0
# So many starts in a row may fail while no other worker serves.
_HOPELESS: Final = 6


class RestartPolicy:
    """The restarts of one worker; times are monotonic seconds."""

    def __init__(self) -> None:
        self._failures = 0

    def died(self, lived: float) -> float:
        """It has died after so many seconds. Returns the pause before its next start."""
        if lived >= PROVEN:
            self._failures = 0
            return 0.0
        self._failures += 1
        return float(min(_FIRST * 2 ** (self._failures - 1), _LONGEST))

    @property
    def hopeless(self) -> bool:
        """Whether it has died at once again and again."""
        return self._failures >= _HOPELESS
