"""The flood budget of a client: what it may do that costs work and brings none, before it is asked to calm down.

A token bucket whose tokens also come back with what is served, so that a busy client has more of it. Beside it stand
the replies that the gateway's own frames ask for: a client that returns its window for each frame that it gets, as
proxies do, answers what it was sent, however small that was. Only frames that nothing asked for are paid for.

Who uses it up need not be who is under way: a proxy brings the requests of many on one connection. So it begins no
further stream, and has the same once more for what is on its way and for what the streams under way need. Only who
uses that up as well is not read any more.
"""

from __future__ import annotations

from typing import Final

from .http2_frames import ENHANCE_YOUR_CALM, Http2Error

# What there is of it, and how much comes back each second.
BUDGET: Final = 2000
_A_SECOND: Final = 200.0
# What a frame costs that nothing comes of, and one that ends or changes a stream or the connection.
FRAME: Final = 1.0
RESET: Final = 10.0
# A WINDOW_UPDATE of as many bytes as somebody may well have taken costs little, a smaller one as much as any frame.
WINDOW: Final = 0.1
WORTH_WHILE: Final = 256
# What a field block costs that was over the limits: for each of its fields, and for each of its bytes.
EXCESS_FIELD: Final = 1 / 16
EXCESS_BYTE: Final = 1 / 4096
# What comes back with an answer that was sent to its end, and with a frame of one that was worth while.
SERVED: Final = 10.0
DATA_SENT: Final = 2.0
# The replies that a frame of ours asks for: DATA for a WINDOW_UPDATE of its stream, one of the connection, and the
# PING by which clients measure how much is on its way; SETTINGS and PING for their ACK.
REPLIES_TO_DATA: Final = 3
REPLY: Final = 1
# So many may be outstanding.
REPLIES: Final = 4096


class FloodContinues(Http2Error):
    """A client that was told to calm down has not: nothing more is read of it."""

    def __init__(self) -> None:
        super().__init__(ENHANCE_YOUR_CALM, "too many frames without any use after GOAWAY")


class FloodBudget:
    """The budget of one connection; `now` is monotonic seconds. `replies` are those that were asked for and have
    not come; whoever sends what asks for some adds to them."""

    __slots__ = ("_at", "_left", "replies")

    def __init__(self, now: float) -> None:
        self.replies = 0
        self._left: float = BUDGET
        self._at = now

    def spend(self, cost: float, now: float) -> None:
        """Take some. Raises Http2Error when it is used up."""
        self._left -= cost
        if self._left < 0:
            self._left = min(BUDGET, self._left + (now - self._at) * _A_SECOND)
            self._at = now
            if self._left < 0:
                raise Http2Error(ENHANCE_YOUR_CALM, "too many frames without any use")

    def reply(self, cost: float, now: float) -> None:
        """A frame has come that may be a reply: it costs only where none is outstanding. Raises Http2Error."""
        if self.replies > 0:
            self.replies = min(self.replies, REPLIES) - 1
        else:
            self.spend(cost, now)

    def renew(self, now: float) -> None:
        """Give all of it back."""
        self._left = BUDGET
        self._at = now

    def earn(self, amount: float) -> None:
        """Give some back."""
        self._left = min(BUDGET, self._left + amount)
