"""The connections to one service: which are idle, which address is next, and when a service is down.

Idle connections are used last in, first out, so that the pool shrinks in a quiet hour. Addresses take turns; one that
cannot be connected to is skipped for a while, unless all are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger

from ..reactor.turns import Turns
from ..wire.clock import CoarseClock
from ..wire.response import ResponseReader
from .attempt import Attempt, ConnectingService, ConnectionSeeker, TargetAddress
from .capacity import Capacity
from .connection import UpstreamConnection
from .trust import Trust
from .tunnel import Tunnels

# How long a failed address is not used, in seconds; doubled each time, up to the second value.
_BACKOFF_FIRST: Final = 1.0
_BACKOFF_LAST: Final = 30.0
_LOG_EVERY: Final = 1.0
# After so many seconds without another failure the log says how many were left out.
_LOG_REST: Final = 5.0


class ServiceTimeouts(NamedTuple):
    """Timeouts towards a service in seconds: for its response, for a side without progress, and for an idle
    connection."""

    response: float
    idle: float
    keepalive: float


class Address(TargetAddress):
    """One address of a service and its idle connections."""

    def __init__(self, service: Service, url: str, endpoint: IStreamClientEndpoint) -> None:
        self.service = service
        self.url = url
        self.endpoint = endpoint
        self.idle: list[UpstreamConnection] = []
        self.busy: set[UpstreamConnection] = set()
        self.down_until = 0.0
        self._backoff = _BACKOFF_FIRST
        self._lost = False
        self.healthy = True

    def available(self, now: float) -> bool:
        """Whether a new exchange may go here."""
        return self.healthy and self.down_until <= now

    def refused(self, now: float) -> None:
        """A connection could not be made: do not use the address for a while."""
        self._lost = True
        self.down_until = now + self._backoff
        self._backoff = min(self._backoff * 2, _BACKOFF_LAST)

    def reached(self) -> None:
        """A connection has been made."""
        if self._lost:
            self._lost = not self.service.tell_reached(self.url)
        self.down_until = 0.0
        self._backoff = _BACKOFF_FIRST

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
        if service.closing or len(self.idle) >= service.max_idle or not service.keepalive_timeout:
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


class Service(ConnectingService):
    """One service: its addresses, its deadlines (seconds) and its counters. `tunnels` are shared with others.
    `trust` is what the endpoints of its https addresses were made with, None where it has none; `turns` are the
    reactor's, None where no response waits for others. With `isolate` a connection serves one tenant alone.

    An exchange has one of its `max_connections` places (`capacity`) from when it is forwarded to its end. `later`
    calls in the reactor's next turn.
    """

    log = Logger()

    def __init__(
        self,
        name: str,
        addresses: Sequence[tuple[str, IStreamClientEndpoint]],
        reader: ResponseReader,
        clock: CoarseClock,
        *,
        later: Callable[[Callable[[], object]], object],
        timeouts: ServiceTimeouts,
        max_connections: int,
        tunnels: Tunnels,
        max_idle: int = 256,
        trust: Trust | None = None,
        isolate: bool = False,
        turns: Turns | None = None,
    ) -> None:
        self.name = name
        self.isolate = isolate
        self.turns = turns
        self.trust = trust
        self.reader = reader
        self.clock = clock
        self.set_timeouts(timeouts)
        self.max_connections = max_connections
        self.tunnels = tunnels
        self.graceful_closes = self.tunnels.graceful_closes
        self.capacity = Capacity(name, max_connections, self.tunnels, clock, later)
        self.places = self.capacity.places
        self.max_idle = max_idle
        self.closing = False
        self.addresses = [Address(self, url, endpoint) for url, endpoint in addresses]
        self.attempts: set[Attempt] = set()
        self.opened = 0
        self.retried = 0
        self.failures: dict[str, int] = {}
        self._turn = 0
        self._logged_at = float("-inf")
        self._unlogged = 0
        self._unlogged_last = ("", "")
        self._reached_at = float("-inf")

    def set_timeouts(self, timeouts: ServiceTimeouts) -> None:
        """Set the deadlines of what begins from now on."""
        self.response_timeout, self.idle_timeout, self.keepalive_timeout = timeouts

    # -- choosing

    def _choose(self, addresses: list[Address]) -> Address:
        """The next one available, in turn, or else the one that failed longest ago."""
        now = self.clock.now
        for _ in addresses:
            self._turn = (self._turn + 1) % len(addresses)
            if addresses[self._turn].available(now):
                return addresses[self._turn]
        # None is available; they still take turns, the ones that failed longest ago first.
        self._turn = (self._turn + 1) % len(addresses)
        return min((*addresses[self._turn :], *addresses[: self._turn]), key=lambda address: address.down_until)

    def next_address(self) -> Address:
        """Where the next exchange goes."""
        addresses = self.addresses
        return addresses[0] if len(addresses) == 1 else self._choose(addresses)

    @property
    def busy(self) -> bool:
        """Whether any exchange has a place, or waits for one."""
        return bool(self.places.held or self.places.queue)

    @property
    def active(self) -> int:
        """Connections that serve an exchange or are being made for one."""
        return len(self.attempts) + sum(len(address.busy) for address in self.addresses)

    @property
    def idle(self) -> int:
        """Connections that wait for their next exchange."""
        return sum(len(address.idle) for address in self.addresses)

    @property
    def has_other_address(self) -> bool:
        """Whether a failed attempt can be repeated at another address."""
        return any(address.available(self.clock.now) for address in self.addresses)

    def connect(self, address: Address, relay: ConnectionSeeker) -> Attempt:
        """Begin to make a connection for `relay`, which hears of it by `connected` or `failed`."""
        attempt = Attempt(address, relay)
        if not attempt.done:
            self.attempts.add(attempt)
        return attempt

    # -- the sweep

    def sweep(self, now: float) -> None:
        """Expire what has passed its deadline; called once a tick."""
        for attempt in list(self.attempts):
            attempt.sweep(now)
        oldest = now - self.keepalive_timeout
        for address in self.addresses:
            for connection in [c for c in address.busy if c.relay is not None and c.relay.deadline <= now]:
                if connection.relay is not None and connection.relay.deadline <= now:
                    connection.relay.expired()
            for connection in [c for c in address.idle if c.idle_since <= oldest or c.kept_long_enough(now)]:
                connection.close()
        self.capacity.sweep(now)
        if self._unlogged and now - self._logged_at >= _LOG_REST:
            self._log_rest(now)

    def _log_rest(self, now: float) -> None:
        """Log how many failures were left out, once there has been none for a while."""
        self.log.warn(
            "service {service}: {more} more failures since, the last one: {event}: {detail}",
            service=self.name,
            more=self._unlogged,
            event=self._unlogged_last[0],
            detail=self._unlogged_last[1],
        )
        self._logged_at = now
        self._unlogged = 0

    def close_idle(self) -> None:
        """Close every idle connection, and keep none from now on."""
        self.closing = True
        for address in self.addresses:
            for connection in list(address.idle):
                connection.close()

    def tell_reached(self, url: str) -> bool:
        """Log that an address is reachable again; False if that was logged just now, of this or another one."""
        now = self.clock.now
        if now - self._reached_at < _LOG_EVERY:
            return False
        self._reached_at = now
        self.log.info("service {service}: {url} is reachable again", service=self.name, url=url)
        return True

    def failed(self, event: str, detail: str) -> None:
        """Count an exchange that failed because of the service, and log it at most once a second."""
        self.failures[event] = self.failures.get(event, 0) + 1
        now = self.clock.now
        detail = detail or "no response within its deadline"
        if now - self._logged_at < _LOG_EVERY:
            self._unlogged += 1
            self._unlogged_last = event, detail
            return
        self.log.warn(
            "service {service}: {event}: {detail}{more}",
            service=self.name,
            event=event,
            detail=detail,
            more=f" (and {self._unlogged} more since)" if self._unlogged else "",
        )
        self._logged_at = now
        self._unlogged = 0
