"""The link to the store: one connection, made again by itself whenever it ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import uniform
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..wire.clock import CoarseClock
from ..wire.rate_limited_log import RateLimitedLog
from .connection import Answered, StoreConnection
from .greeting import Greeting

# Seconds of the first pause before a new connection, and of the longest.
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0
# After so many seconds a connection was a good one: the next pause is a short one again.
_STEADY: Final = 10.0
# Seconds that a connection and its greeting may take.
OPENING: Final = 2.0
# Pauses do not double any more after so many.
_DOUBLINGS: Final = 10
# Reasons that are logged until it is back, and characters of one.
_REASONS: Final = 5
_LONGEST: Final = 400


class Link:
    """The link to a store at `endpoint`, which the log calls `name`.

    `up`: commands can be sent at present. The pause before a new connection doubles with each that fails, and is
    spread, so that a fleet does not come back at once. The owner calls `start`, `sweep` about every second, and in
    the end `close`.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        name: str,
        endpoint: IStreamClientEndpoint,
        greeting: Callable[[], Greeting],
        *,
        timeout: float,
        time: Callable[[], float],
        clock: CoarseClock,
    ) -> None:
        self._reactor = reactor
        self._name = name
        self._endpoint = endpoint
        self._greeting = greeting
        self._timeout = timeout
        self._time = time
        self._told = RateLimitedLog(clock, self.log.warn)
        self._told_good = RateLimitedLog(clock, self.log.info)
        self.up = False
        self._connection: StoreConnection | None = None
        self._connecting: Deferred[Any] | None = None
        self._timer: Any = None
        self._failures = 0
        self._since = -math.inf
        # Why it is not up: the reasons that have been logged since it was.
        self._reasons: set[str] = set()
        self._closed: Deferred[None] | None = None

    def start(self) -> None:
        """Connect; nothing where it has begun to. One that was closed may be started again, once it is."""
        if self._closed is not None and self._closed.called:
            self._closed = None
        if self._connection is None and self._connecting is None and self._timer is None and self._closed is None:
            self._connect()

    def send(self, text: bytes, answered: Answered) -> bool:
        """Send a command, see `StoreConnection.ask`; False where that is not possible, and nobody is called."""
        connection = self._connection
        return self.up and connection is not None and connection.ask(text, answered)

    def doubt(self, reason: str) -> None:
        """An answer makes no sense: there may be anybody at the other end."""
        if self._connection is not None:
            self._connection.fail(reason)

    def sweep(self, now: float) -> None:
        """Log how many lines were left out; `now` is that of the clock."""
        self._told.sweep(now)
        self._told_good.sweep(now)

    def close(self) -> Deferred[None]:
        """End it. The Deferred fires when all that was sent is answered, or the time for that is over."""
        if self._closed is None:
            self._closed = Deferred()
            self._stop_timer()
            connection, connecting = self._connection, self._connecting
            if connecting is not None:
                connecting.cancel()
            elif connection is None:
                self._closed.callback(None)
            elif self.up:
                connection.close()
            else:
                connection.fail("closed")
        return self._closed

    # -- the connection

    def _connect(self) -> None:
        self._timer = self._reactor.callLater(OPENING, self._too_slow)
        self._connecting = connecting = self._endpoint.connect(_Connections(self._new_connection))
        connecting.addCallbacks(self._connected, self._not_connected)

    def _new_connection(self) -> StoreConnection:
        return StoreConnection(
            self._reactor,
            self._time,
            self._greeting(),
            self._timeout,
            ready=self._ready,
            lost=self._lost,
        )

    def _connected(self, connection: StoreConnection) -> None:
        self._connecting = None
        self._connection = connection
        if connection.reason:
            self._lost(connection, connection.reason)

    def _not_connected(self, failure: Failure) -> None:
        self._connecting = None
        late = failure.check(CancelledError) is not None
        self._down(f"no connection within {OPENING:g} seconds" if late else _in_one_line(failure))

    def _too_slow(self) -> None:
        self._timer = None
        if self._connecting is not None:
            self._connecting.cancel()
        elif self._connection is not None:
            self._connection.fail(f"it has not answered the greeting within {OPENING:g} seconds")

    def _ready(self, connection: StoreConnection) -> None:
        self._stop_timer()
        self.up = True
        self._since = self._time()
        self._reasons.clear()
        self._told_good.warn(f"{self._name}: limits are shared there from now on")

    def _lost(self, connection: StoreConnection, reason: str) -> None:
        if connection is self._connection:
            self._connection = None
            self._down(reason)

    def _down(self, reason: str) -> None:
        """It is away, and is tried again. Each reason for that is logged once until it is back."""
        self._stop_timer()
        now = self._time()
        if self.up and now - self._since >= _STEADY:
            self._failures = 0
        self.up = False
        if self._closed is not None:
            # In a turn of its own: what was waited for is answered by then, and the socket is closed.
            self._reactor.callLater(0, self._closed.callback, None)
            return
        pause = min(FIRST_PAUSE * 2**self._failures, LONGEST_PAUSE)
        self._failures = min(self._failures + 1, _DOUBLINGS)
        self._timer = self._reactor.callLater(pause * uniform(0.5, 1.0), self._connect)  # noqa: S311 (no secret)
        if reason not in self._reasons and len(self._reasons) < _REASONS:
            self._reasons.add(reason)
            self._told.warn(f"{self._name}: {reason}; until it is back each limit acts as its on_failure says")

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()


class _Connections(Factory):
    noisy = False

    def __init__(self, make: Callable[[], StoreConnection]) -> None:
        self._make = make

    def buildProtocol(self, addr: IAddress | None) -> StoreConnection:
        return self._make()


def _in_one_line(failure: Failure) -> str:
    text = " ".join(failure.getErrorMessage().split())
    return text[:_LONGEST].rstrip(".") or type(failure.value).__name__
