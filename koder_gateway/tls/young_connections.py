"""Connections whose handshake has just been completed: those that last do not keep its memory."""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

# How many give memory back at one tick: each takes 3 microseconds.
_A_TICK: Final = 512


class Settling(Protocol):
    """A connection whose handshake is complete."""

    def give_back(self) -> bool:
        """Give back what only the handshake needed; False if there is nothing to do."""
        ...


class YoungConnections:
    """They are settled at a tick, not at once: when new connections are what the gateway is busy with, most of them
    are gone by then, and have not taken the time. No more wait here than are open or have ended since the last ticks.
    """

    def __init__(self) -> None:
        self._waiting: deque[Settling] = deque()
        self.add = self._waiting.append
        """Wait for the next tick."""

    def sweep(self) -> None:
        """Settle those that have lasted until now."""
        waiting, left = self._waiting, _A_TICK
        while waiting and left:
            left -= waiting.popleft().give_back()
