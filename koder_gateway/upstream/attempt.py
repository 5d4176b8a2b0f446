"""One connection to a service that is being made for an exchange: directly where the reactor can, else by the
endpoint, and in either case given up in time."""

from __future__ import annotations

import math
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError, TimeoutError
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from ..exchange.states import FULL, TIMEOUT, UNREACHABLE, UNTRUSTED
from ..reactor.descriptor_shortage import shortage
from ..reactor.direct_connections import Seeker
from ..wire.clock import CoarseClock
from .capacity import Capacity
from .connection import ConnectedService, ConnectionOwner, UpstreamConnection
from .direct_endpoint import begin
from .ports import Forwarded
from .tls_endpoint import UntrustedError


class ConnectionSeeker(Forwarded, Protocol):
    """An exchange for which a connection is made; where that cannot be, it hears so by `failed`."""

    __slots__ = ()

    def connected(self, connection: UpstreamConnection) -> None:
        """The connection is made, for this exchange alone."""


class ConnectingService(ConnectedService, Protocol):
    """A service to which connections are made; `opened` counts those."""

    clock: CoarseClock
    capacity: Capacity
    opened: int


class TargetAddress(ConnectionOwner, Protocol):
    """The address that is connected to. `attempts` are the connections that are being made."""

    service: ConnectingService
    url: str
    endpoint: IStreamClientEndpoint
    busy: set[UpstreamConnection]
    attempts: set[Attempt]

    def refused(self, now: float) -> None:
        """A connection could not be made: do not use the address for a while."""

    def reached(self) -> None:
        """A connection has been made."""


class _Factory(ClientFactory):
    """Makes the connections of one address."""

    noisy = False

    def __init__(self, address: TargetAddress) -> None:
        self._address = address

    def buildProtocol(self, addr: IAddress | None) -> UpstreamConnection:
        """A connection that is about to be made."""
        return UpstreamConnection(self._address)


class Attempt(Seeker):
    """A connection that is being made for an exchange, which may cancel it. The owner calls `sweep`."""

    __slots__ = ("_deadline", "_deferred", "_pending", "_relay", "address", "done")

    def __init__(self, address: TargetAddress, relay: ConnectionSeeker) -> None:
        self.address = address
        self.done = False
        self._relay: ConnectionSeeker | None = relay
        self._deadline = math.inf
        self._deferred: Deferred[Any] | None = None
        self._pending = begin(address.endpoint, self)
        if self._pending is None:
            self._connect()

    def _connect(self) -> None:
        """By the endpoint, which knows what there is to know, also about what goes wrong."""
        self._deferred = self.address.endpoint.connect(_Factory(self.address))
        self._deferred.addCallbacks(self._connected, self._failed)

    def _connected(self, protocol: UpstreamConnection) -> None:
        # What is made directly has this already.
        set_no_delay = getattr(protocol.transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            set_no_delay(True)
        self._made(protocol)

    # -- directly

    def build(self) -> UpstreamConnection:
        """See `Seeker`."""
        return UpstreamConnection(self.address)

    def made(self, protocol: UpstreamConnection) -> None:
        """See `Seeker`."""
        self._pending = None
        self._made(protocol)

    def refused(self, error: OSError) -> None:
        """See `Seeker`: there may be another way, by the endpoint, which else says why not."""
        self._pending = None
        self._connect()

    def sweep(self, now: float) -> None:
        """Give up what takes too long; `now` is monotonic seconds."""
        if self._pending is None:
            return
        endpoint: Any = self.address.endpoint
        if self._deadline == math.inf:
            # Not counted from the last tick, which may have been long before.
            self._deadline = now + endpoint.timeout
        elif self._deadline <= now:
            self._stop()
            endpoint.late()
            self._failed(Failure(TimeoutError(string=f"no connection within {endpoint.timeout:g} seconds")))

    def _stop(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.give_up()

    # -- the outcome

    def _made(self, protocol: UpstreamConnection) -> None:
        service = self.address.service
        self.done = True
        self.address.attempts.discard(self)
        self.address.reached()
        relay, self._relay = self._relay, None
        if relay is None or protocol.transport is None:
            protocol.abort()
            return
        service.opened += 1
        self.address.busy.add(protocol)
        relay.connected(protocol)

    def _failed(self, failure: Failure) -> None:
        service = self.address.service
        self.done = True
        self.address.attempts.discard(self)
        relay, self._relay = self._relay, None
        if relay is None or failure.check(CancelledError, ConnectingCancelledError):
            return
        missing = shortage(failure.value)
        if missing:
            # Nothing is wrong with the service.
            service.capacity.no_descriptor()
            relay.failed(FULL, missing)
            return
        self.address.refused(service.clock.now)
        event = UNREACHABLE
        if failure.check(TimeoutError):
            event = TIMEOUT
        elif failure.check(UntrustedError):
            event = UNTRUSTED
        relay.failed(event, f"{self.address.url}: {failure.getErrorMessage()}")

    def cancel(self) -> None:
        """The connection is not wanted any more."""
        self._relay = None
        self.address.attempts.discard(self)
        self._stop()
        if self._deferred is not None:
            self._deferred.cancel()
