"""One connection to a service: sends a request, reads one answer, and is used again if nothing is in doubt."""

from __future__ import annotations

import contextlib
import re
import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from ..layers.direct_reads import deliver_straight
from ..layers.last_words import hear_last_words
from ..layers.reading import MUCH, read_bounded, read_freely
from ..layers.turns import FULL_READ, end_turn
from ..wire.exchange import CLOSED, INVALID
from ..wire.response import ResponseError, ResponseHead
from ..wire.upgrade import KEY, fault
from .chunked_answer import ChunkedAnswer

if TYPE_CHECKING:
    from .pool import Address
    from .relay import Relay
    from .tunnel import Tunnel, Tunnels

# What the connection is in the midst of. IDLE: pooled. HEAD: waits for an answer's head. WHOLE: the answer has come
# to its end, with nothing behind it.
IDLE, HEAD, LENGTH, CHUNKED, UNTIL_CLOSE, WHOLE, GONE = range(7)

_MAX_HEAD: Final = 65536
_MAX_INTERIM: Final = 32
# A service may send one small chunk an event, for days: framing may outweigh data by this many bytes.
_CHUNK_SLACK: Final = 1 << 20
# So many may be closing while their services take what is left for them; what is too many is reset.
_MAX_LEAVING: Final = 1024
# What one read of a tunnel brings, about.
_TUNNEL_READ: Final = 32768
# What the kernel keeps of an answer, in bytes and for each connection, which is what its first read brings at most;
# and once much has come and its client takes it, for bulk to go on at full speed.
_ANSWER_READ: Final = 65536
# What waits to be sent to a service before its client is paused.
_UNSENT: Final = 16384
_BULK_READ: Final = 1 << 20
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_VERSION: Final = b"HTTP/1."
# A 408 that is the first word on a kept connection, so many seconds behind a request, may speak of the time
# before it.
_GAVE_UP_WITHIN: Final = 1.0


@implementer(IPushProducer)
class UpstreamConnection(Protocol):
    """Belongs to one address of one service. `reused`: it has served an exchange before. `heard`: bytes of the
    present answer have come. `begun` is when the present request was sent (monotonic seconds), `kept_for` how many
    the service keeps an idle connection, None where it has not said. `tunnel` is in the place of `relay` once the
    service has switched protocols. As a push producer it is paused while the client does not take the answer."""

    begun = 0.0
    kept_for: int | None = None
    _bounded = False
    _exact = False
    _wide = False

    def __init__(self, address: Address) -> None:
        self.address = address
        self.relay: Relay | None = None
        self.tunnel: Tunnel | None = None
        self.reused = False
        self.heard = False
        self.idle_since = 0.0
        # Whose request it served last.
        self.tenant = b""
        self._poll: Callable[[int], object] | None = None
        self._state = IDLE
        self._buffer: bytes | bytearray = b""
        self._remaining = 0
        self._chunks: ChunkedAnswer | None = None
        self._keep_alive = False
        self._interim = 0
        self._pulling = False
        self._tunnels: Tunnels | None = None
        self.paused = False

    def connectionMade(self) -> None:
        """Connected: from now on the transport calls this protocol itself. Twisted's endpoints put a wrapper between,
        which has done what it is for."""
        transport: Any = self.transport
        if getattr(getattr(transport, "protocol", None), "_wrappedProtocol", None) is self:
            transport.protocol = self
        hear_last_words(transport)
        self._receive(_ANSWER_READ)
        # Beyond what the kernel holds, as of clients.
        transport.bufferSize = _UNSENT
        deliver_straight(transport, self, self.dataReceived)

    # -- the request

    def begin(self, relay: Relay, data: bytes) -> None:
        """Take up an exchange: `data` is the request as far as it is there."""
        self.relay = relay
        self.heard = False
        self._interim = 0
        self._state = HEAD
        # In two steps, as in `tls.stream`.
        transport: Any = self.transport
        write = transport.write
        write(data)

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
        """Whether the service has closed, or sent what was not asked for: worth one system call before each request,
        of which that would become the answer."""
        try:
            poll = self._poll or self._watched()
            if not poll(0):
                return False
            # Over TLS it may be a ticket, which the transport can read, and then tell.
            settle = getattr(self.transport, "settle", None)
            return settle is None or not settle()
        except (AttributeError, OSError, ValueError):
            return self._state == GONE

    def _watched(self) -> Callable[[int], object]:
        transport: Any = self.transport
        poller = select.poll()
        poller.register(transport.getHandle().fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
        self._poll = poll = poller.poll
        return poll

    # -- the answer

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the service, in pieces of any size."""
        relay = self.relay
        if relay is None:
            # Nobody asked: whatever this is, no later request may get it.
            self.abort()
            return
        self.heard = True
        state = self._state
        if state == HEAD:
            self._read_head(relay, data)
        elif state == LENGTH:
            self._read_length(relay, data)
        elif self._chunks is not None:
            self._chunks.take(data)
        else:
            relay.body(data)
        if len(data) >= MUCH:
            self._read_much(len(data))

    def _read_much(self, size: int) -> None:
        """What is read of a large answer waits for its client: no more of it at once than the client has room for."""
        if self.relay is not None and self.relay.client.crowded:
            self.bound_reads()
        elif not self._wide:
            self._wide = True
            self._receive(_BULK_READ)
        if size >= FULL_READ:
            end_turn(self.transport)

    def _receive(self, size: int) -> None:
        """Have the kernel keep about so many bytes of the service's, and as many again for its own keeping."""
        transport: Any = self.transport
        with contextlib.suppress(AttributeError, OSError):
            transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    def bound_reads(self) -> None:
        """Read no more at once of this answer than there is room for on its way to the client."""
        if not self._bounded and self.transport is not None:
            self._bounded = True
            read_bounded(self.transport, self._room)

    def read_what_fits(self) -> bool:
        """Read nothing that does not leave at once; whether this transport can do that to the byte."""
        exactly = getattr(self.transport, "read_exactly", None)
        if exactly is None:
            self.bound_reads()
        elif not self._exact:
            self._bounded = self._exact = True
            exactly(self._room)
        return self._exact

    def _room(self) -> int:
        source = self.relay or self.tunnel
        return 0 if source is None else source.client.room()

    def _read_head(self, relay: Relay | None, data: bytes) -> None:
        buffer = self._buffer
        if buffer:
            assert isinstance(buffer, bytearray)
            before = len(buffer)
            buffer += data
            if buffer.find(b"\r\n\r\n", max(0, before - 3)) < 0:
                self._look_at_partial(buffer, max(0, before - 1))
                return
            data = bytes(buffer)
            self._buffer = b""
        while relay is not None:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = bytearray(data)
                self._look_at_partial(self._buffer, 0)
                return
            end += 4
            raw, data = (data, b"") if end == len(data) else (data[:end], data[end:])
            exchange = relay.exchange
            try:
                if end > _MAX_HEAD:
                    raise ResponseError("its head is over the limit")
                reader = self.address.service.reader
                head = reader.read(
                    raw, exchange.head.method == b"HEAD", exchange.limited, exchange.drops_hsts, exchange.readable
                )
                if head.status == 101:
                    self._check_switch(relay, head)
                elif exchange.head.upgrade is not None and 200 <= head.status < 300 and relay.client.connects:
                    raise ResponseError(f"it answered a CONNECT with {head.status} instead of switching protocols")
            except ResponseError as error:
                relay.failed(INVALID, str(error))
                return
            if head.status >= 200:
                if head.status == 408 and self._may_have_crossed(head) and relay.may_repeat():
                    self.heard = False
                    relay.failed(CLOSED, "it closed a kept-alive connection with 408 as the request arrived")
                    return
                self._buffer = b""
                self._begin_body(relay, head, data)
                return
            if head.status == 101:
                self._buffer = b""
                relay.switched(head, data)
                return
            self._interim += 1
            if self._interim > _MAX_INTERIM:
                relay.failed(INVALID, "it sent too many interim responses")
                return
            relay.interim(head)
            relay = self.relay
            if not data:
                self._buffer = b""
                return

    def _may_have_crossed(self, head: ResponseHead) -> bool:
        """Whether this 408 may be about the time in which the connection was idle, as services say it that close then
        (RFC 9110 section 15.5.9). It looks the same where the service has read the request, so a request is repeated
        only where that does no harm; for any other the 408 is its answer."""
        unasked = self.reused and not head.keep_alive and not self._interim
        return unasked and self.address.service.clock.now - self.begun < _GAVE_UP_WITHIN

    @staticmethod
    def _check_switch(relay: Relay, head: ResponseHead) -> None:
        request = relay.exchange.head
        key = request.value(KEY)
        reason = fault(request.upgrade, key and key.strip(b" \t"), head.upgrade, head.lines)
        if reason:
            raise ResponseError(reason)

    def _look_at_partial(self, so_far: bytearray, position: int) -> None:
        """What has come of a head, from `position` on not looked at yet."""
        fault = None
        if not so_far.startswith(_VERSION[: len(so_far)]):
            fault = "it does not begin with an HTTP/1 status line"
        elif _BARE_LF.search(so_far, position):
            fault = "a line of its head ends without CR LF"
        elif len(so_far) > _MAX_HEAD:
            fault = "its head is over the limit"
        if fault is not None and self.relay is not None:
            self.relay.failed(INVALID, fault)

    def _begin_body(self, relay: Relay, head: ResponseHead, data: bytes) -> None:
        """The final head is here, with `data` after it."""
        self._keep_alive = head.keep_alive
        self.kept_for = head.kept_for
        length = head.length
        if length is not None:
            surplus = len(data) - length
            if surplus >= 0:
                if surplus:
                    # Bytes after the end of an answer: the connection is not used again.
                    data = data[:length]
                    self._keep_alive = False
                else:
                    self._state = WHOLE
                relay.answered(head, data, True, self._keep_alive)
                return
            self._state = LENGTH
            self._remaining = -surplus
            relay.answered(head, data, False, False)
        elif head.chunked:
            self._state = CHUNKED
            service = self.address.service
            decoder = service.reader.body_decoder(head, _CHUNK_SLACK)
            self._chunks = ChunkedAnswer(self, relay, decoder, service.turns)
            self._chunks.begin(head, data)
        else:
            self._state = UNTIL_CLOSE
            relay.answered(head, data, False, False)

    def _read_length(self, relay: Relay, data: bytes) -> None:
        remaining = self._remaining - len(data)
        self._remaining = remaining
        if remaining > 0:
            relay.body(data)
            return
        relay.body(data[:remaining] if remaining else data)
        if self.relay is relay:
            if not remaining:
                self._state = WHOLE
            relay.ended([], self._keep_alive and not remaining)

    def chunks_ended(self, relay: Relay, trailers: list[bytes], surplus: bool) -> None:
        """The last chunk has been read."""
        if not surplus and self._state == CHUNKED:
            self._state = WHOLE
        relay.ended(trailers, self._keep_alive and not surplus)

    # -- a tunnel

    def tunnel_through(self, tunnel: Tunnel) -> None:
        """The service has switched protocols: what it sends is the tunnel's, and each direction ends by itself."""
        self.relay = None
        self.tunnel = tunnel
        self.address.lost(self)
        # A client that does not read holds no more than this.
        self._receive(_TUNNEL_READ)
        self.dataReceived = tunnel.body  # type: ignore[assignment, method-assign]
        deliver_straight(self.transport, self, tunnel.body)
        # Whoever still stands between is what the transport asks in place of this.
        outer = getattr(self.transport, "protocol", None) if self._half_closes() else None
        if hasattr(type(outer), "readConnectionLost"):
            alsoProvides(outer, IHalfCloseableProtocol)

    def end_sending(self) -> bool:
        """Tell the service that no more will come; False where this transport has no half-closed connections."""
        self._stop_pulling()
        if not self._half_closes():
            return False
        transport: Any = self.transport
        transport.loseWriteConnection()
        return True

    def _half_closes(self) -> bool:
        # Asked of the class: a wrapper that passes on what it does not know would half-close beneath itself.
        return hasattr(type(self.transport), "loseWriteConnection")

    def readConnectionLost(self) -> None:
        """The service sends no more, but may still read."""
        if self.tunnel is not None:
            self.tunnel.ended(gone=False)

    def writeConnectionLost(self) -> None:
        """All that was written has been sent, and the end of it."""

    def _forget_tunnel(self) -> None:
        if self.tunnel is not None:
            self.tunnel = None
            del self.dataReceived

    def finish(self, tunnels: Tunnels) -> None:
        """Close once the service has taken what was written, if it takes it in time."""
        self._stop_pulling()
        transport: Any = self._leave()
        if transport is not None:
            tunnels.leaving[self] = tunnels.clock.now + tunnels.ending
            self._tunnels = tunnels
            transport.loseConnection()

    def abandon(self) -> None:
        """The service did not take it in time."""
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()

    # -- the end

    @property
    def idle(self) -> bool:
        """Whether no message is under way, so that the connection's end cuts none short."""
        return self._state == IDLE

    def kept_long_enough(self, now: float) -> bool:
        """Whether the service is about to close the idle connection, by what it has said."""
        return self.kept_for is not None and self.idle_since + self.kept_for <= now

    def end(self, keep_alive: bool, in_order: bool = False) -> None:
        """The exchange is over: back to the pool, or away. `in_order`: the request is whole, so that where the answer
        is too the service has done nothing to be reset for."""
        if self._pulling:
            self._stop_pulling()
        self.relay = None
        self._buffer = b""
        if self._bounded:
            self._bounded = self._exact = False
            read_freely(self.transport)
        if self._wide:
            self._wide = False
            self._receive(_ANSWER_READ)
        chunks, self._chunks = self._chunks, None
        held = self.paused or (chunks is not None and chunks.holding)
        self.paused = False
        if held and keep_alive:
            self._resume()
        if keep_alive and self._state != GONE:
            self._state = IDLE
            self.reused = True
            self.address.release(self)
        elif in_order and self._state == WHOLE and len(self.address.service.tunnels.leaving) < _MAX_LEAVING:
            self.finish(self.address.service.tunnels)
        else:
            self.abort()

    def abort(self) -> None:
        """Close at once; nothing more is sent or read."""
        transport: Any = self._leave()
        if transport is not None:
            transport.abortConnection()

    def close(self) -> None:
        """Close an idle connection in order."""
        # A service may have answered before it took all of the request.
        self.finish(self.address.service.tunnels)

    def _leave(self) -> object:
        """Out of the pool, so that nobody takes the connection while its end is on the way."""
        if self._state == GONE:
            return None
        self._state = GONE
        self.relay = None
        self._forget_tunnel()
        self.address.lost(self)
        return self.transport

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone, by whomever."""
        state, relay, tunnel = self._state, self.relay, self.tunnel
        half_closes = tunnel is not None and self._half_closes()
        self._state = GONE
        self._pulling = False
        self.relay = None
        self._forget_tunnel()
        self.address.lost(self)
        self.transport = None
        if self._tunnels is not None:
            self._tunnels.leaving.pop(self, None)
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
            relay.connection = None
            relay.ended([], False)
        elif state == HEAD and self._buffer:
            relay.failed(INVALID, "the connection closed within its head")
        else:
            relay.failed(CLOSED, reason.getErrorMessage())

    # -- IPushProducer, for the client's transport

    def pauseProducing(self) -> None:
        """The client does not take the answer as fast as it comes."""
        if (self.relay is not None or self.tunnel is not None) and not self.paused:
            self.paused = True
            self.hold()

    def hold(self) -> None:
        """Read nothing until there is a turn."""
        transport: Any = self.transport
        if transport is not None:
            transport.pauseProducing()

    def resumeProducing(self) -> None:
        """The client takes the answer again."""
        if self.paused:
            self.paused = False
            source = self.relay or self.tunnel
            if source is not None:
                source.progressed()
            if self._chunks is None or not self._chunks.go_on():
                self._resume()

    def read_on(self) -> None:
        """What has been read is passed on: read more, unless the client does not take it."""
        if not self.paused:
            self._resume()

    def _resume(self) -> None:
        transport: Any = self.transport
        if transport is not None and self._state != GONE:
            transport.resumeProducing()

    def stopProducing(self) -> None:
        """The client's transport is going away; its protocol says so to the relay."""


@implementer(IPushProducer)
class _BodyValve:
    """The client's body as a push producer, for the transport to the service."""

    def __init__(self, source: Relay | Tunnel) -> None:
        self._source = source

    def pauseProducing(self) -> None:
        self._source.client.pause_body()

    def resumeProducing(self) -> None:
        self._source.progressed()
        self._source.client.resume_body()

    def stopProducing(self) -> None:
        """The connection to the service is going away; it says so itself."""
