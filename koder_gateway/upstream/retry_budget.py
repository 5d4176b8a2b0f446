"""How many requests may be sent to a service a second time: retries must not multiply the load of one that fails.

The window has two halves, as that of `failure_window`.
"""

from __future__ import annotations

from typing import Final

# The part of the responses in the window, and how many there may be in any case: three a second.
SHARE: Final = 0.2
LEAST: Final = 30
_HALF: Final = 5.0


class RetryBudget:
    """The retries of one service. `answered` is in each call how many responses it has sent so far, and `now` is
    monotonic seconds. `denied` counts the retries that there were not."""

    __slots__ = ("_before", "_began", "_mark", "_mark_before", "_present", "denied")

    def __init__(self) -> None:
        self.denied = 0
        self._began = 0.0
        self._before = self._present = 0
        self._mark_before = self._mark = 0

    def turn(self, now: float, answered: int) -> None:
        """Begin the next half if it is time to; called now and then."""
        passed = now - self._began
        if passed < _HALF:
            return
        late = passed >= 2 * _HALF
        self._before = 0 if late else self._present
        self._mark_before = answered if late else self._mark
        self._present = 0
        self._mark = answered
        self._began = now

    def take(self, answered: int) -> bool:
        """Whether one more retry is within the budget, which then counts."""
        most = max(LEAST, SHARE * (answered - self._mark_before))
        if self._before + self._present + 1 > most:
            self.denied += 1
            return False
        self._present += 1
        return True
