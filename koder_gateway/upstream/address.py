"""One address of a service: its connections, and whether it gets requests.

An address is out of use while its probes fail (`healthy`), for a while after a connection to it could not be made,
and for a while after too many requests to it have failed (it is *ejected*). Whenever it comes back, it first has to
prove itself: one connection at a time after a failed connection, one request a second after an ejection (`Trials`),
until one has succeeded. From then on its share of the requests rises during the slow start.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger

from .attempt import Attempt, ConnectingService, TargetAddress
from .connection import UpstreamConnection
from .failure_window import Ejection, FailureWindow
from .trials import Trials

# How long an address is not used after a failed connection, or is ejected, in seconds; doubled each time, up to the
# second value.
_BACKOFF_FIRST: Final = 1.0
_BACKOFF_LAST: Final = 30.0
# An ejection lasts up to a quarter longer, so that gateways that eject together do not come back together.
_JITTER: Final = 0.25
# The share of the requests with which a slow start begins.
_LEAST_SHARE: Final = 0.1


class AddressOwner(ConnectingService, Protocol):
    """The service that an address belongs to."""

    name: str
    isolate: bool
    closing: bool
    sole: Address | None
    max_idle: int
    keepalive_timeout: float
    slow_start: float
    ejection: Ejection
    ejections: int
    draw: Callable[[], float]

    def tell_reached(self, url: str) -> bool:
        """Log that an address is reachable again; False if that was logged just now, of this or another one."""

    def may_eject(self, address: Address) -> bool:
        """Whether the service can do without this address."""

    def settle(self) -> None:
        """The health of an address has changed."""


class Address(TargetAddress):
    """One address of a service and its connections. `url` is what logs and metrics call it, `unreachable` is called
    when no connection to it could be made. `answered` counts the responses that have begun."""

    log = Logger()

    def __init__(
        self,
        service: AddressOwner,
        url: str,
        endpoint: IStreamClientEndpoint,
        unreachable: Callable[[], object] = lambda: None,
    ) -> None:
        self.service: AddressOwner = service
        self.url = url
        self.endpoint = endpoint
        self.idle: list[UpstreamConnection] = []
        self.busy: set[UpstreamConnection] = set()
        self.attempts: set[Attempt] = set()
        self.answered = 0
        self.healthy = True
        # Not one of the service's addresses any more: it ends with its last connection.
        self.leaving = False
        self.down_until = 0.0
        self.ejected_until = self._back_at = -math.inf
        self._unreachable = unreachable
        self._backoff = _BACKOFF_FIRST
        self._lost = False
        # From an ejection until a response.
        self._trials: Trials | None = None
        self._ejected_before = 0
        self._answered_then = 0
        self._failures = FailureWindow(service.ejection)

    # -- whether it gets requests

    def available(self, now: float, client: bytes = b"") -> bool:
        """Whether a new exchange, of this client or of any, may go here."""
        if self.out(now):
            return False
        if self._lost and self.attempts:
            return False
        return self._trials is None or self._proven() or self._trials.allowed(client, now)

    def out(self, now: float) -> bool:
        """Whether it is out of use."""
        return not self.healthy or self.down_until > now or self.ejected_until > now

    def outage(self, now: float) -> str:
        """Why it is out of use, "" where it is not."""
        if not self.healthy:
            return "its health probes fail"
        if self.ejected_until > now:
            return "its requests have failed"
        return "a connection has failed" if self.down_until > now else ""

    @property
    def out_until(self) -> float:
        """When it may be tried again, as far as that depends on requests."""
        return max(self.down_until, self.ejected_until)

    @property
    def pending(self) -> int:
        """Exchanges that it serves, or that a connection is being made for."""
        return len(self.busy) + len(self.attempts)

    def share(self, now: float) -> float:
        """The part of its requests that it gets, less than 1 during its slow start."""
        slow = self.service.slow_start
        passed = now - self._back_at
        return 1.0 if passed >= slow else max(_LEAST_SHARE, passed / slow)

    def chosen(self, client: bytes, now: float) -> None:
        """It is given an exchange of this client."""
        if self._trials is not None:
            self._trials.begin(client, now)

    def _proven(self) -> bool:
        """Whether it has responded since it was ejected."""
        if self.answered == self._answered_then:
            return False
        if self._trials is not None:
            self._trials = None
            self.log.info(
                "service {service}: {url} has responded, and gets requests again",
                service=self.service.name,
                url=self.url,
            )
        return True

    def starts_slowly(self, now: float) -> None:
        """Its slow start begins."""
        self._back_at = now

    # -- what happens to it

    def judge(self, healthy: bool, now: float) -> None:
        """Its probes have changed their mind."""
        if healthy and not self.healthy:
            self.starts_slowly(now)
        self.healthy = healthy
        self.service.settle()

    def refused(self, now: float) -> None:
        """A connection could not be made: do not use the address for a while."""
        if not self._lost and self.service.sole is None:
            self.log.warn(
                "service {service}: {url} cannot be reached, and gets no requests until it can",
                service=self.service.name,
                url=self.url,
            )
        self._lost = True
        self.down_until = now + self._backoff
        self._backoff = min(self._backoff * 2, _BACKOFF_LAST)
        self._unreachable()

    def reached(self) -> None:
        """A connection has been made."""
        if self._lost:
            if self.down_until:
                self.starts_slowly(self.service.clock.now)
            self._lost = not self.service.tell_reached(self.url)
        self.down_until = 0.0
        self._backoff = _BACKOFF_FIRST

    def failed(self, client: bytes, begun: float) -> None:
        """A whole request of this client, sent at `begun`, has got no proper response."""
        now = self.service.clock.now
        if begun < self.ejected_until:
            # It has been judged for the requests of that time.
            return
        if self._trials is not None and not self._proven():
            fault = self._trials.failed(client)
        else:
            self._failures.turn(now, self.answered)
            fault = self._failures.add(client, self.answered)
        if fault and self.service.may_eject(self):
            self._eject(now, fault)

    def _eject(self, now: float, fault: str) -> None:
        service = self.service
        if now - self.ejected_until > _BACKOFF_LAST:
            self._ejected_before = 0
        longest = _BACKOFF_LAST / (1 + _JITTER)
        seconds = min(_BACKOFF_FIRST * 2**self._ejected_before, longest) * (1 + _JITTER * service.draw())
        self._ejected_before = min(self._ejected_before + 1, 8)
        self.ejected_until = self._back_at = now + seconds
        self._trials = Trials()
        self._answered_then = self.answered
        self._failures.restart(now, self.answered)
        service.ejections += 1
        self.log.warn(
            "service {service}: {url} gets no requests for {seconds:.0f} s: {fault}",
            service=service.name,
            url=self.url,
            seconds=seconds,
            fault=fault,
        )

    def sweep(self, now: float) -> None:
        """Expire what has passed its deadline; called once a tick."""
        for attempt in list(self.attempts):
            attempt.sweep(now)
        for connection in [c for c in self.busy if c.relay is not None and c.relay.deadline <= now]:
            if connection.relay is not None and connection.relay.deadline <= now:
                connection.relay.expired()
        oldest = now - self.service.keepalive_timeout
        for connection in [c for c in self.idle if c.idle_since <= oldest or c.kept_long_enough(now)]:
            connection.close()
        self._failures.turn(now, self.answered)
        if self._trials is not None:
            self._proven()

    # -- its connections

    def checkout(self, tenant: bytes) -> UpstreamConnection | None:
        """An idle connection that the service has neither closed nor sent anything on; None when a new one has to be
        made."""
        idle = self.idle
        while idle:
            connection = self._pop_of(tenant) if self.service.isolate else idle.pop()
            if connection is None:
                return None
            if not connection.stale():
                self.busy.add(connection)
                return connection
            connection.abort()
        return None

    def _pop_of(self, tenant: bytes) -> UpstreamConnection | None:
        """The idle connection that has served this tenant last."""
        for index in range(len(self.idle) - 1, -1, -1):
            if self.idle[index].tenant == tenant:
                return self.idle.pop(index)
        return None

    def release(self, connection: UpstreamConnection) -> None:
        """An exchange is over and the connection can serve another."""
        service = self.service
        self.busy.discard(connection)
        if service.isolate and self.idle and len(self.idle) >= service.max_idle:
            # All idle connections may belong to other tenants: the one that was idle for longest makes room.
            self.idle.pop(0).close()
        if service.closing or self.leaving or len(self.idle) >= service.max_idle or not service.keepalive_timeout:
            connection.close()
            return
        connection.idle_since = service.clock.now
        self.idle.append(connection)

    def lost(self, connection: UpstreamConnection) -> None:
        """The connection is gone."""
        if connection in self.busy:
            self.busy.remove(connection)
        elif connection in self.idle:
            self.idle.remove(connection)

    def leave(self) -> None:
        """It is not one of the service's addresses any more: what it serves goes on, and nothing is added."""
        self.leaving = True
        self.close_idle()

    def close_idle(self) -> None:
        """Close every idle connection."""
        for connection in list(self.idle):
            connection.close()

    @property
    def empty(self) -> bool:
        """Whether it has no connection, and none is being made."""
        return not (self.busy or self.attempts or self.idle)
