"""The flood budget of a client: how many useless frames it may send before it gets ENHANCE_YOUR_CALM.

It is a token bucket that is also refilled by served requests, so that a busy client has more of it. Replies that the
gateway's own frames ask for are free: a client that opens its window after each frame that it gets, as proxies do,
only replies to what it was sent, however small.

The client that uses the budget up need not be one with requests in flight: a proxy carries many clients on one
connection. So the connection accepts no further stream, and gets the same budget once more for frames on their way
and for the streams in flight. If that is used up as well, nothing more is read.
"""

from __future__ import annotations

from typing import Final

from .http2_frames import ENHANCE_YOUR_CALM, Http2Error

# The size of the budget, and how much is refilled each second.
BUDGET: Final = 2000
_A_SECOND: Final = 200.0
# The cost of a useless frame, and of one that ends or changes a stream or the connection.
FRAME: Final = 1.0
RESET: Final = 10.0
# A WINDOW_UPDATE for as many bytes as a client may well have read costs little, a smaller one as much as any frame.
WINDOW: Final = 0.1
WORTH_WHILE: Final = 256
# The cost of a field block over the limits: for each of its headers, and for each of its bytes.
EXCESS_FIELD: Final = 1 / 16
EXCESS_BYTE: Final = 1 / 4096
# What a completely sent response refills, and what a useful frame of one refills.
SERVED: Final = 10.0
DATA_SENT: Final = 2.0
# The replies that a frame of the gateway asks for: DATA for a WINDOW_UPDATE of its stream, one of the connection, and
# the PING by which clients measure the data in transit; SETTINGS and PING for their ACK.
REPLIES_TO_DATA: Final = 3
REPLY: Final = 1
# So many may be outstanding.
REPLIES: Final = 4096


class FloodContinues(Http2Error):
    """The client has gone on flooding after GOAWAY: nothing more is read from it."""

    def __init__(self) -> None:
        super().__init__(ENHANCE_YOUR_CALM, "too many frames without any use after GOAWAY")


class FloodBudget:
    """The budget of one connection; `now` is monotonic seconds. `replies` is the number of expected replies; the code
    that sends frames which ask for some adds to it."""

    __slots__ = ("_at", "_left", "replies")

    def __init__(self, now: float) -> None:
        self.replies = 0
        self._left: float = BUDGET
        self._at = now

    def spend(self, cost: float, now: float) -> None:
        """Charge `cost`. Raises Http2Error if the budget is used up."""
        self._left -= cost
        if self._left < 0:
            self._left = min(BUDGET, self._left + (now - self._at) * _A_SECOND)
            self._at = now
            if self._left < 0:
                raise Http2Error(ENHANCE_YOUR_CALM, "too many frames without any use")

    def reply(self, cost: float, now: float) -> None:
        """A frame that may be a reply: it costs only if no reply is expected. Raises Http2Error."""
        if self.replies > 0:
            self.replies = min(self.replies, REPLIES) - 1
        else:
            self.spend(cost, now)

    def renew(self, now: float) -> None:
        """Refill it completely."""
        self._left = BUDGET
        self._at = now

    def earn(self, amount: float) -> None:
        """Refill a part."""
        self._left = min(BUDGET, self._left + amount)
