"""The capacity of one service: which exchanges have a place there, which wait for one, and which are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

from ..exchange import states
from ..policy.clients import NOWHERE
from ..policy.shares import ADDRESS, FULL, TENANT, Owner, Places, Shares
from ..wire.clock import CoarseClock
from ..wire.rate_limited_log import RateLimitedLog
from .ports import Forwarded, PlaceSeeker
from .tunnel import Tunnels

# Besides the reasons of `policy.shares`: no place was free in time.
TIMEOUT: Final = "timeout"
# And: the process has no file descriptor left for a connection.
DESCRIPTORS: Final = "descriptors"
REASONS: Final = (FULL, ADDRESS, TENANT, TIMEOUT, DESCRIPTORS)
# How many of those who wait get their places in one turn: each may need a new connection.
_GRANTED: Final = 32
_REFUSED: Final = {
    FULL: "all of its max_connections are in use, and its queue is full",
    ADDRESS: "one address has as many connections as shares.address allows, or the last ones of its tenant are"
    " others', and nobody waits (timeouts.queue)",
    TENANT: "one tenant has as many requests waiting as shares.tenant allows",
    TIMEOUT: "none of its connections was free within timeouts.queue",
}
_NO_TUNNEL: Final = {
    FULL: "as many tunnels are open as requests.max_tunnels allows",
    ADDRESS: "one address has as many tunnels as shares.address allows, or the last ones of its tenant are others'",
    TENANT: "one tenant has as many tunnels as shares.tenant allows",
}


def owner_of(relay: Forwarded) -> Owner:
    """The client address and the tenant that an exchange counts for. A trusted proxy that names no client stands for
    many, and so does a peer without an address (on a UNIX socket): no share bounds them."""
    context = relay.exchange.context
    address = context.address.decode("ascii")
    many = address == NOWHERE or context.policy.proxies.trusts(address)
    return Owner(b"" if many else context.key, relay.exchange.tenant)


class Capacity:
    """The places of one service, and its tunnels among `tunnels`.

    `allow` sets the shares of one client address and one tenant, and `timeout`, the seconds that an exchange waits
    for a place (0: none waits). `refused` counts those that got none, by reason. `later` calls in the reactor's next
    turn. The owner calls `sweep`.
    """

    log = Logger()

    def __init__(
        self,
        name: str,
        limit: int,
        tunnels: Tunnels,
        clock: CoarseClock,
        later: Callable[[Callable[[], object]], object],
    ) -> None:
        self.places: Places[PlaceSeeker] = Places(limit, Shares(limit, limit), owner_of, self._serve_later)
        self.timeout = 2.0
        self.refused = dict.fromkeys(REASONS, 0)
        self._name = name
        self._tunnels = tunnels
        self._clock = clock
        self._later = later
        self._fault_log = RateLimitedLog(clock, self.log.warn)

    def allow(self, shares: Shares, timeout: float) -> None:
        """Set the bounds, from now on."""
        self.timeout = timeout
        self.places.set_shares(shares)

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self.places.queue)

    @property
    def empty(self) -> bool:
        """Whether no exchange has a place or waits for one."""
        return not self.places.held and not self.places.queue

    def wait(self, relay: PlaceSeeker) -> bool:
        """Queue an exchange for a place; False where the queue has no room and the exchange has ended."""
        owner = owner_of(relay)
        reason = self._wait(relay) if self.timeout else self.places.refusal(owner) or FULL
        if reason:
            self._refuse(relay, reason)
            return False
        relay.waits(self._clock.now + self.timeout)
        alone = Owner(owner.address, b"")
        if len(self.places.queue.line(owner.address)) == 1 and self.places.refusal(alone) == ADDRESS:
            self._tell(
                relay, f"connections ({self.places.shares.address} of {self.places.limit}); its other requests wait"
            )
        return True

    def _wait(self, relay: PlaceSeeker) -> str:
        """Queue it; where there is no room, it may displace the last one of the address that has most there. Returns
        why it was not queued, else ""."""
        reason = self.places.wait(relay)
        # One may be too few: an address that holds few takes a place that is kept for it beside a full queue.
        while reason and (other := self.places.in_the_way(relay, reason)) is not None:
            self._refuse(other, reason)
            reason = self.places.wait(relay)
        return reason

    def _serve_later(self) -> None:
        # In a later turn: what may still follow the response that has freed the place is read before the connection
        # serves another exchange, or it would become that one's response.
        self._later(self._serve)

    def _serve(self) -> None:
        self.places.serve(_go, _GRANTED)

    def tunnel_refusal(self, relay: PlaceSeeker) -> str:
        """Why there is no place for this exchange's tunnel, and then it counts as refused; "" where there is one."""
        tunnels = self._tunnels
        reason = tunnels.refusal(owner_of(relay))
        if not reason:
            return ""
        self._count(reason)
        if reason == ADDRESS and tunnels.has_share(owner_of(relay)):
            self._tell(relay, f"tunnels ({tunnels.shares.address} of {tunnels.limit}); further ones are refused")
        return _NO_TUNNEL[reason]

    def sweep(self, now: float) -> None:
        """Refuse those who have waited for too long."""
        queue = self.places.queue
        for relay in [relay for relay in queue if relay.deadline <= now] if queue else ():
            if relay in queue:
                self._refuse(relay, TIMEOUT)
        self._fault_log.sweep(now)

    def _refuse(self, relay: PlaceSeeker, reason: str) -> None:
        self._count(reason)
        relay.failed(states.FULL, _REFUSED[reason])

    def no_descriptor(self) -> None:
        """There was a place, but no connection could be made for want of a file descriptor."""
        self._count(DESCRIPTORS)

    def _count(self, reason: str) -> None:
        self.refused[reason] += 1

    def _tell(self, relay: PlaceSeeker, what: str) -> None:
        peer = relay.exchange.peer.decode("ascii")
        self._fault_log.warn(f"service {self._name}: {peer} has reached its share of {what} (shares.address)")


def _go(relay: PlaceSeeker) -> None:
    relay.granted()
