"""Patience with a client: what it may do that costs work and brings none, before it is asked to calm down.

A token bucket whose tokens also come back with what is served, so that a busy client has more of it.
"""

from __future__ import annotations

from .frames import ENHANCE_YOUR_CALM, Http2Error

# What there is of it, and how much comes back each second.
PATIENCE = 2000
_A_SECOND = 200.0
# What a frame costs that nothing comes of, and one that ends or changes a stream or the connection.
FRAME = 1.0
RESET = 10.0
# A WINDOW_UPDATE of as many bytes as somebody may well have taken costs little, a smaller one as much as any frame.
WINDOW = 0.1
WORTH_WHILE = 256
# What comes back with an answer that was sent to its end, and with a frame of one that was worth while.
SERVED = 10.0
DATA_SENT = 2.0


class Patience:
    """The patience with one connection; `now` is monotonic seconds."""

    __slots__ = ("_at", "_left")

    def __init__(self, now: float) -> None:
        self._left: float = PATIENCE
        self._at = now

    def spend(self, cost: float, now: float) -> None:
        """Take some. Raises Http2Error when it is used up."""
        self._left -= cost
        if self._left < 0:
            self._left = min(PATIENCE, self._left + (now - self._at) * _A_SECOND)
            self._at = now
            if self._left < 0:
                raise Http2Error(ENHANCE_YOUR_CALM, "too many frames that nothing comes of")

    def earn(self, amount: float) -> None:
        """Give some back."""
        self._left = min(PATIENCE, self._left + amount)
