"""When the failures of an address are reason enough to send it no requests for a while.

A client may be able to make any address fail: by a request on which the service dies, or for which it takes too long.
So failures count only where several clients have them, few of each client count, and they must be at least as many as
the responses of the same time. An address that fails for everybody is found out at once; to have one ejected that
serves others, an attacker needs half as many client addresses as it has responses.

The window has two halves: when one is over it becomes the other. So what counts is the last half to whole window.
"""

from __future__ import annotations

from typing import Final, NamedTuple

# So many clients must have failures, and so many failures of each count in half a window.
CLIENTS: Final = 3
OF_EACH: Final = 2
# So many clients are told apart in half a window; the failures of others do not count.
_TOLD_APART: Final = 4096


class Ejection(NamedTuple):
    """What counts: `failures` in `window` seconds (0: none does), and the statuses that are failures too."""

    failures: int = 5
    window: float = 10.0
    statuses: frozenset[int] = frozenset()


class FailureWindow:
    """The failures of one address. `answered` is in each call how many responses it has sent so far, and `now` is
    monotonic seconds."""

    __slots__ = ("_before", "_began", "_half", "_mark", "_mark_before", "_needed", "_present")

    def __init__(self, ejection: Ejection) -> None:
        self._needed = ejection.failures
        self._half = ejection.window / 2
        self._began = 0.0
        # The counted failures of each client, in the half before and in the present one; `answered` as these began.
        self._before: dict[bytes, int] = {}
        self._present: dict[bytes, int] = {}
        self._mark_before = self._mark = 0

    def turn(self, now: float, answered: int) -> None:
        """Begin the next half if it is time to; called now and then, also while nothing fails."""
        passed = now - self._began
        if passed < self._half:
            return
        late = passed >= 2 * self._half
        self._before = {} if late else self._present
        self._mark_before = answered if late else self._mark
        self._present = {}
        self._mark = answered
        self._began = now

    def restart(self, now: float, answered: int) -> None:
        """Forget what has been."""
        self._before = {}
        self._present = {}
        self._mark_before = self._mark = answered
        self._began = now

    def add(self, client: bytes, answered: int) -> str:
        """Count a failure that this client has had. Returns what speaks against the address, "" if that is not
        enough."""
        present = self._present
        if client in present:
            present[client] = min(present[client] + 1, OF_EACH)
        elif len(present) < _TOLD_APART:
            present[client] = 1
        failures = sum(present.values()) + sum(self._before.values())
        responses = answered - self._mark_before
        if not self._needed or failures < self._needed or failures < responses:
            return ""
        clients = len(present.keys() | self._before.keys())
        if clients < CLIENTS:
            return ""
        return f"{failures} failures for {clients} clients, and {responses} responses"
