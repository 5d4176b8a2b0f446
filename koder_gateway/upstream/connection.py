"""One connection to a service: sends a request, reads its response, and is used again if both were complete."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any, Final
from typing import Protocol as TypingProtocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ..exchange.states import CLOSED
from ..reactor.bytes_before_reset import deliver_bytes_before_reset
from ..reactor.direct_reads import deliver_directly
from ..reactor.joined_writes import send_joined
from ..reactor.read_sizes import read_bounded, read_freely
from .connection_reader import GONE, HEAD, IDLE, UNTIL_CLOSE, WHOLE, ConnectionReader
from .graceful_close import ClosingConnection, GracefulCloses
from .ports import RespondingService, ResponseReceiver, TunnelEnd

# How much may wait to be sent to a service before its client is paused.
_UNSENT: Final = 16384
# The line of connections that wait for a turn in which they are reset.
_ABORTED: Final = "aborted"


class ConnectedService(RespondingService, TypingProtocol):
    """A service as its connections see it."""

    graceful_closes: GracefulCloses

    def failed(self, event: str, detail: str) -> None:
        """Count an exchange that failed by the service's fault."""


class ConnectionOwner(TypingProtocol):
    """The address that a connection belongs to. `answered` counts the responses that have begun."""

    service: ConnectedService
    answered: int

    def release(self, connection: UpstreamConnection) -> None:
        """An exchange is over and the connection can serve another."""

    def lost(self, connection: UpstreamConnection) -> None:
        """The connection serves no exchange any more, and will serve no other."""

    def failed(self, client: bytes, begun: float) -> None:
        """A whole request of this client, sent at `begun` (monotonic seconds), has got no proper response."""


class UpstreamConnection(ConnectionReader, ClosingConnection):
    """Belongs to one address of one service."""

    def __init__(self, address: ConnectionOwner) -> None:
        super().__init__(address.service)
        self.address = address
        self.idle_since = 0.0
        # Whose request it served last.
        self.tenant = b""
        self._poll: Callable[[int], object] | None = None
        self._pulling = False
        # By what its transport is known to those who read early.
        self._early = -1

    def connectionMade(self) -> None:
        """Connected: from now on the transport calls this protocol itself. Twisted's endpoints put a wrapper between,
        which has done what it is for."""
        transport: Any = self.transport
        if getattr(getattr(transport, "protocol", None), "_wrappedProtocol", None) is self:
            transport.protocol = self
        deliver_bytes_before_reset(transport)
        # Beyond what the kernel holds, as of clients.
        transport.bufferSize = _UNSENT
        deliver_directly(transport, self, self.dataReceived)
        if self._service.turns is not None:
            self._early = self._service.turns.early.watch(transport)

    # -- the request

    def begin(self, relay: ResponseReceiver, data: bytes) -> None:
        """Take up an exchange: `data` is the request as far as it is there."""
        self.relay = relay
        self.heard = False
        self._interim = 0
        self._state = HEAD
        turns = self._service.turns
        if turns is not None:
            turns.early.sent += 1
        # In two steps, as in `tls.stream`.
        transport: Any = self.transport
        write = transport.write
        write(data)
        if turns is not None and turns.joined.wanted and self.reused and not relay.may_repeat():
            # Closed by the service meanwhile, it would fail: so it does not wait for the end of the turn.
            send_joined(transport)

    def send(self, data: bytes) -> None:
        """Send bytes of the request."""
        transport: Any = self.transport
        write = transport.write
        write(data)

    def pull_from_client(self) -> None:
        """Let this connection's transport pause the client while the service does not take the request."""
        transport: Any = self.transport
        if not self._pulling and transport is not None:
            self._pulling = True
            source = self.relay or self.tunnel
            assert source is not None
            transport.registerProducer(_BodyValve(source), True)

    def request_ended(self) -> None:
        """No more of the request will come."""
        self._stop_pulling()

    def _stop_pulling(self) -> None:
        if self._pulling:
            self._pulling = False
            transport: Any = self.transport
            if transport is not None:
                transport.unregisterProducer()

    def stale(self) -> bool:
        """Whether the service has closed it, or sent data without a request, which would become the next response:
        worth a system call before each request. Over TLS it may be a ticket, which the transport reads, and then
        says so."""
        try:
            poll = self._poll or self._poller()
            if not poll(0):
                return False
            settle = getattr(self.transport, "settle", None)
            return settle is None or not settle()
        except (AttributeError, OSError, ValueError):
            return self._state == GONE

    def _poller(self) -> Callable[[int], object]:
        transport: Any = self.transport
        poller = select.poll()
        poller.register(transport.getHandle().fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
        self._poll = poll = poller.poll
        return poll

    # -- a tunnel

    def tunnel_through(self, tunnel: TunnelEnd) -> None:
        """The service has switched protocols: what it sends is the tunnel's, and each direction ends by itself."""
        self.relay = None
        self.tunnel = tunnel
        self.address.lost(self)
        self._stop_early_reads()
        transport: Any = self.transport
        deliver_directly(transport, self, tunnel.body)
        self.bound_reads()
        if self._half_closes() and hasattr(transport, "protocol"):
            transport.protocol = _HalfClosing(self)

    def end_sending(self) -> bool:
        """Half-close towards the service; False if this transport does not support half-closed connections."""
        self._stop_pulling()
        if not self._half_closes():
            return False
        transport: Any = self.transport
        transport.loseWriteConnection()
        return True

    def _stop_early_reads(self) -> None:
        turns = self._service.turns
        if turns is not None and self._early >= 0:
            turns.early.forget(self._early, self.transport)
            self._early = -1

    def _half_closes(self) -> bool:
        # Asked of the class: a wrapper that passes on what it does not know would half-close beneath itself.
        return hasattr(type(self.transport), "loseWriteConnection")

    def finish(self) -> None:
        """Close once the service has taken what was written, if it takes it in time."""
        self._stop_pulling()
        transport: Any = self._leave()
        if transport is not None:
            self.address.service.graceful_closes.add(self)
            transport.loseConnection()

    def abandon(self) -> None:
        """The service has not read it in time: reset the connection."""
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()

    # -- the end

    @property
    def idle(self) -> bool:
        """Whether no message is under way, so that the connection's end cuts none short."""
        return self._state == IDLE

    @property
    def unheard(self) -> bool:
        """Whether it was kept alive, and no byte of the present response has come."""
        return self.reused and not self.heard

    def kept_long_enough(self, now: float) -> bool:
        """Whether the service is about to close the idle connection, by what it has said."""
        return self.kept_for is not None and self.idle_since + self.kept_for <= now

    def end(self, keep_alive: bool, in_order: bool = False) -> None:
        """The exchange is over: go back to the pool, or close. `in_order`: the request is complete. Where the
        response is complete too, the connection closes gracefully; else it is reset."""
        if self._pulling:
            self._stop_pulling()
        self.relay = None
        self._buffer = b""
        if self._bounded or self._large:
            self._read_as_before()
        chunks, self._chunks = self._chunks, None
        held = self.paused or (chunks is not None and chunks.holding)
        self.paused = False
        if held and keep_alive:
            self._resume()
        if keep_alive and self._state != GONE:
            self._state = IDLE
            self.reused = True
            self.address.release(self)
        elif in_order and self._state == WHOLE and not self.address.service.graceful_closes.full:
            self.finish()
        else:
            self.abort()

    def _read_as_before(self) -> None:
        """The next response may be another client's: nothing is known yet of what that takes."""
        self._bounded = self._exact = self._large = False
        if self._bulky:
            # A large one may begin with a whole buffer of the reactor's.
            read_bounded(self.transport)
        else:
            read_freely(self.transport)

    def abort(self) -> None:
        """Close at once; nothing more is sent or read."""
        transport: Any = self._leave()
        if transport is None:
            return
        turns = self.address.service.turns
        if turns is not None and turns.time() >= turns.ends and turns.over():
            # A client that leaves may have a thousand of them: the others have their turn meanwhile.
            turns.later(transport.abortConnection, _ABORTED)
        else:
            transport.abortConnection()

    def close(self) -> None:
        """Close an idle connection in order."""
        # A service may have answered before it took all of the request.
        self.finish()

    def _leave(self) -> object:
        """Leave the pool, so that the connection is not used while it closes."""
        if self._state == GONE:
            return None
        self._state = GONE
        self._late = b""
        self.relay = None
        self.tunnel = None
        self.address.lost(self)
        return self.transport

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is closed, by either side."""
        if self._late:
            self._read_late()
        state, relay, tunnel = self._state, self.relay, self.tunnel
        half_closes = tunnel is not None and self._half_closes()
        self._state = GONE
        self._pulling = False
        self.relay = None
        self.tunnel = None
        self.address.lost(self)
        self._stop_early_reads()
        self.transport = None
        self.address.service.graceful_closes.discard(self)
        if self._chunks is not None and relay is not None and self._chunks.read_all():
            return
        if tunnel is not None:
            if reason.check(ConnectionDone):
                tunnel.ended(gone=True)
            else:
                tunnel.failed(reason.getErrorMessage(), reset=half_closes)
        if relay is None:
            return
        if state == UNTIL_CLOSE and reason.check(ConnectionDone):
            relay.ended([], False)
        elif state == HEAD and self._buffer:
            # Nothing in it is wrong so far: the service has died rather than misspoken.
            relay.failed(CLOSED, "the connection closed within the head of its response")
        else:
            relay.failed(CLOSED, reason.getErrorMessage())


@implementer(IHalfCloseableProtocol)
class _HalfClosing(Protocol):
    """Stands before the connection of a tunnel: to the transport it is a protocol whose directions end by themselves,
    which of a connection without a tunnel none does."""

    def __init__(self, connection: UpstreamConnection) -> None:
        self._connection = connection

    def dataReceived(self, data: bytes) -> None:
        self._connection.dataReceived(data)

    def readConnectionLost(self) -> None:
        tunnel = self._connection.tunnel
        if tunnel is not None:
            tunnel.ended(gone=False)

    def writeConnectionLost(self) -> None:
        """All that was written has been sent, and the end of it."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._connection.connectionLost(reason)


@implementer(IPushProducer)
class _BodyValve:
    """The client's body as a push producer, for the transport to the service."""

    __slots__ = ("_source",)

    def __init__(self, source: ResponseReceiver | TunnelEnd) -> None:
        self._source = source

    def pauseProducing(self) -> None:
        self._source.client.pause_body()

    def resumeProducing(self) -> None:
        self._source.progressed()
        self._source.client.resume_body()

    def stopProducing(self) -> None:
        """The connection to the service is going away; it says so itself."""
