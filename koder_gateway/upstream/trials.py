"""The trials of an address that was ejected: one request a second, each of another client where there are others.

A client may know a request on which the service fails. If any request could be the trial, that client alone would
keep the address out for as long as it likes. So a client whose request was a trial has to wait longer for each
further one, and an address fails again only for as many clients as it takes to eject it.
"""

from __future__ import annotations

import math
from typing import Final

from .failure_window import CLIENTS

# Seconds between two trials.
_PAUSE: Final = 1.0
# Seconds between two trials of one client, doubled each time, up to the second value.
_FIRST_REST: Final = 2.0
_LONGEST_REST: Final = 30.0
# So many clients are remembered, the latest.
_REMEMBERED: Final = 64


class Trials:
    """The trials since an ejection. `now` is monotonic seconds."""

    __slots__ = ("_failed", "_next", "_rests")

    def __init__(self) -> None:
        self._next = -math.inf
        # When each client may have its next trial, and how long it rests after that.
        self._rests: dict[bytes, tuple[float, float]] = {}
        self._failed: set[bytes] = set()

    def allowed(self, client: bytes, now: float) -> bool:
        """Whether a request of this client may be a trial now; b"" stands for clients that cannot be told apart."""
        if now < self._next:
            return False
        rest = self._rests.get(client)
        return rest is None or rest[0] <= now

    def begin(self, client: bytes, now: float) -> None:
        """A request of this client is a trial."""
        self._next = now + _PAUSE
        if not client:
            return
        _, rest = self._rests.pop(client, (0.0, _FIRST_REST))
        if len(self._rests) >= _REMEMBERED:
            del self._rests[next(iter(self._rests))]
        self._rests[client] = now + rest, min(2 * rest, _LONGEST_REST)

    def failed(self, client: bytes) -> str:
        """Count a request of this client that has failed. Returns what speaks against the address, "" if that is not
        enough."""
        self._failed.add(client)
        return f"it failed again for {CLIENTS} clients" if len(self._failed) >= CLIENTS else ""
