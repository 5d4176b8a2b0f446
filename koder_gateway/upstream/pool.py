"""One service: its addresses, which of them the next exchange goes to, and the log of its failures.

Idle connections are used last in, first out, so that the pool shrinks in a quiet hour.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger

from ..errors import SERVICE_UNAVAILABLE
from ..reactor.turns import Turns
from ..wire.clock import CoarseClock
from ..wire.response import ResponseReader
from .address import Address, AddressOwner
from .address_choice import choose
from .attempt import Attempt, ConnectionSeeker
from .capacity import Capacity
from .failure_window import Ejection
from .named_addresses import NamedAddresses
from .retry_budget import RetryBudget
from .trust import Trust
from .tunnel import Tunnels

_LOG_EVERY: Final = 1.0
# After so many seconds without another failure the log says how many were left out.
_LOG_REST: Final = 5.0


class ServiceTimeouts(NamedTuple):
    """Timeouts towards a service in seconds: for its response, for a side without progress, and for an idle
    connection."""

    response: float
    idle: float
    keepalive: float


class Service(AddressOwner):
    """One service: its addresses, its deadlines (seconds) and its counters. `tunnels` are shared with others.
    `trust` is what the endpoints of its https addresses were made with, None where it has none; `turns` are the
    reactor's, None where no response waits for others. With `isolate` a connection serves one tenant alone. `named`
    has the addresses of which the host is a name, by address: once that is known, it is replaced by what it stands
    for. `ejection` and `slow_start` (seconds) are about addresses that fail; `retry_after` is for clients while
    probes say that there is none (seconds), and `draw` returns numbers from 0 to 1.

    An exchange has one of its `max_connections` places (`capacity`) from when it is forwarded to its end. `later`
    calls in the reactor's next turn. `sole` is the only address, None where there is something to choose.
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
        named: Mapping[str, NamedAddresses] | None = None,
        ejection: Ejection = Ejection(),  # noqa: B008 - immutable
        slow_start: float = 10.0,
        retry_after: int = 5,
        draw: Callable[[], float] = random.random,
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
        self.ejection = ejection
        self.slow_start = slow_start
        self.unavailable = replace(SERVICE_UNAVAILABLE, fields=b"Retry-After: %d\r\n" % retry_after)
        self.draw = draw
        self.retry_budget = RetryBudget()
        self.ejections = 0
        self.sole: Address | None = None
        self._named = named or {}
        self._configured = addresses
        self.addresses = [Address(self, url, endpoint) for url, endpoint in addresses]
        # Addresses that their name has no more, until they are empty; and what all earlier ones have responded.
        self._leaving: list[Address] = []
        self._answered_before = 0
        self._all_out = False
        self.settle()
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

    # -- its addresses

    def next_address(self, client: bytes) -> Address | None:
        """Where this client's next exchange goes; None if probes say that each address is unhealthy."""
        if self.sole is not None:
            return self.sole
        self._turn += 1
        return choose(self.addresses, client, self.clock.now, self._turn, self.draw)

    def settle(self) -> None:
        """The addresses, or the health of one, have changed."""
        addresses = self.addresses
        self.sole = addresses[0] if len(addresses) == 1 and addresses[0].healthy else None
        all_out = bool(addresses) and not any(address.healthy for address in addresses)
        if all_out and not self._all_out:
            self.log.error(
                "service {service}: no address is healthy, so requests are refused (503)", service=self.name
            )
        self._all_out = all_out

    @property
    def description(self) -> str:
        """The addresses in words, with why one is out of use."""
        outages = {address.url: address.outage(self.clock.now) for address in self.addresses}
        return ", ".join(f"{url} (out of use: {outage})" if outage else url for url, outage in outages.items())

    def may_eject(self, address: Address) -> bool:
        """Whether the service can do without this address: another one is available, and no more than half of them
        are ejected."""
        now = self.clock.now
        others = [other for other in self.addresses if other is not address]
        ejected = 1 + sum(other.ejected_until > now for other in others)
        return 2 * ejected <= len(self.addresses) and any(other.available(now) for other in others)

    def _follow_names(self) -> None:
        """Take up the present addresses of names. An address that stays keeps its connections and its state."""
        changes = [named.changed() for named in self._named.values()]
        if True not in changes:
            return
        before = {address.url: address for address in self.addresses}
        present: dict[str, Address] = {}
        for url, endpoint in self._configured:
            named = self._named.get(url)
            for label, make in (named.endpoints() if named is not None else {url: None}).items():
                if label in present:
                    continue
                old = before.pop(label, None)
                if old is None and make is None:
                    old = Address(self, url, endpoint)
                elif old is None and named is not None and make is not None:
                    old = Address(self, label, make(), named.unreachable)
                assert old is not None, "an address is either configured or made from a name"
                present[label] = old
        self._replace(present, before)

    def _replace(self, present: Mapping[str, Address], gone: Mapping[str, Address]) -> None:
        stay = any(address in self.addresses for address in present.values())
        for address in present.values():
            if stay and address not in self.addresses:
                address.starts_slowly(self.clock.now)
        self.addresses = list(present.values())
        for address in gone.values():
            self._answered_before += address.answered
            self._leaving.append(address)
            address.leave()
        self.log.info(
            "service {service}: its addresses are {urls}", service=self.name, urls=", ".join(present) or "none"
        )
        self.settle()

    @property
    def answered(self) -> int:
        """Responses so far."""
        return self._answered_before + sum(address.answered for address in self.addresses)

    def may_retry(self) -> bool:
        """Whether one more request may be sent a second time; that then counts."""
        return self.retry_budget.take(self.answered)

    @property
    def busy(self) -> bool:
        """Whether any exchange has a place, or waits for one."""
        return bool(self.places.held or self.places.queue)

    @property
    def active(self) -> int:
        """Connections that serve an exchange or are being made for one."""
        return sum(address.pending for address in (*self.addresses, *self._leaving))

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
            address.attempts.add(attempt)
        return attempt

    def keep_counts(self, before: Service) -> None:
        """Take over what the service of the same name has counted that this one replaces."""
        self.capacity.refused = before.capacity.refused
        self.failures = before.failures
        self.ejections = before.ejections
        self.retry_budget.denied = before.retry_budget.denied

    # -- the sweep

    def sweep(self, now: float) -> None:
        """Expire what has passed its deadline; called once a tick."""
        if self._named:
            self._follow_names()
        for address in (*self.addresses, *self._leaving):
            address.sweep(now)
        if self._leaving:
            self._leaving = [address for address in self._leaving if not address.empty]
        self.retry_budget.turn(now, self.answered)
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
            address.close_idle()

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
