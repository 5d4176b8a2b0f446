"""Connections of the admin port: one small request after the other, with tight bounds, so that none can block the
port.

Bodies have no use here, so they are at most 1 KiB and are not kept. Timeouts are absolute: a slow head, an unread
response and an idle connection end. A new connection beyond the bound replaces the one that has been quiet for
longest, so that a probe always gets its response. Pipelined requests are handled one in each iteration of the event
loop, in turn with other work.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IPushProducer, ISSLTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import BAD_FRAMING, BODY_TOO_LARGE, HEAD_TOO_LARGE, REQUEST_TIMEOUT, Refusal
from ..reactor.turns import turns_of
from ..wire.body import BodyError, ChunkedDecoder
from ..wire.problem import DOCS_URL
from ..wire.refusal_writer import NOSNIFF, OWN_FIELDS
from ..wire.request_head import RequestHead
from ..wire.request_reader import RequestReader
from .admin import AdminResponse, Pages, admin_answer, admin_problem

# Bytes of a head and of a body.
MAX_HEAD: Final = 16_384
MAX_TARGET: Final = 12_288
MAX_BODY: Final = 1024
# Connections at once.
MAX_CONNECTIONS: Final = 256
# Seconds for a request to arrive, and for a response to be read; for an idle connection; and after the last response,
# so that the client can read it.
PATIENCE: Final = 10.0
IDLE: Final = 75.0
LINGER: Final = 2.0
# Another site's page may be open in the operator's browser: it must not get a page of this port into its process, not
# even as a script or an image (Fetch standard, Cross-Origin-Resource-Policy).
_OWN_ORIGIN: Final = b"Cross-Origin-Resource-Policy: same-origin\r\n"
_KEPT_FIELDS: Final = NOSNIFF + _OWN_ORIGIN
_FIELDS: Final = OWN_FIELDS + _OWN_ORIGIN
# Bytes that are read and dropped in the meantime.
_FORGOTTEN: Final = 1 << 20

_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)+")
_TOO_LONG: Final = BODY_TOO_LARGE.because(f"A body here is at most {MAX_BODY} bytes.")


@implementer(IPushProducer, IHalfCloseableProtocol)
class AdminChannel(Protocol):
    """One connection."""

    def __init__(self, factory: AdminFactory, hosts: Collection[bytes] | None) -> None:
        self._admin = factory
        self._hosts = hosts
        self._buffer = b""
        # The request whose body is still to come: how much is missing, or its decoder.
        self._head: RequestHead | None = None
        self._body: int | ChunkedDecoder = 0
        self._waiting = False
        self._full = False
        self._last = False
        self._over = False
        self._forgotten = 0
        self._deadline: Any = None

    # -- the transport

    def connectionMade(self) -> None:
        """See IProtocol."""
        wire: Any = self.transport
        self._wire = wire
        wire.registerProducer(self, True)
        self._admin.opened(self)
        self._allow(PATIENCE)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See IProtocol."""
        self._over = True
        self._buffer = b""
        self._admin.closed(self)
        self._allow(None)

    def readConnectionLost(self) -> None:
        """See IHalfCloseableProtocol. Earlier requests still get their responses."""
        self._last = True
        if not self._waiting and not self._full:
            self._close()

    def writeConnectionLost(self) -> None:
        """See IHalfCloseableProtocol."""

    def dataReceived(self, data: bytes) -> None:
        """See IProtocol."""
        if self._over:
            self._forgotten += len(data)
            if self._forgotten > _FORGOTTEN:
                self._wire.pauseProducing()
            return
        if not self._buffer and self._head is None and not self._waiting:
            self._allow(PATIENCE)
        self._admin.moved(self)
        self._buffer += data
        if not self._waiting and not self._full:
            if self._admin.turns.over():
                self._later(len(data))
            else:
                self._work()

    def pauseProducing(self) -> None:
        """See IPushProducer: the client does not read."""
        self._full = True
        self._allow(PATIENCE)
        self._wire.pauseProducing()

    def resumeProducing(self) -> None:
        """See IPushProducer: it reads again."""
        self._full = False
        if not self._over and not self._waiting:
            self._later()

    def stopProducing(self) -> None:
        """See IPushProducer."""

    def abort(self) -> None:
        """End at once, with unsent data."""
        self._over = True
        self._wire.abortConnection()

    def _allow(self, seconds: float | None) -> None:
        """End after so many seconds from now."""
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None if seconds is None else self._admin.reactor.callLater(seconds, self._expired)

    def _expired(self) -> None:
        if self._over or self._full or not (self._buffer or self._head):
            self.abort()
            return
        self._send(None, admin_problem(REQUEST_TIMEOUT, self._admin.docs_url()))
        self._close()

    # -- requests

    def _later(self, size: int = MAX_HEAD) -> None:
        """Continue in a later iteration, reading nothing until then; `size` bytes have just arrived."""
        self._waiting = True
        self._wire.pauseProducing()
        self._admin.turns.arrived(size, None, self._turn)

    def _turn(self) -> None:
        self._waiting = False
        if not self._over and not self._full:
            self._work()
            if not (self._over or self._full or self._waiting):
                self._wire.resumeProducing()

    def _work(self) -> None:
        """Respond to the requests that have arrived, until this iteration's time is over."""
        ends = self._admin.turns.slice()
        while not self._over and not self._full and self._step():
            if self._admin.turns.time() >= ends and self._buffer:
                self._later()
                return
        if self._last and not self._over and not self._full:
            self._close()

    def _step(self) -> bool:
        """Process one part of a request; False if more of it must arrive."""
        if self._head is not None:
            return self._take_body(self._head)
        empty = _EMPTY_LINES.match(self._buffer)
        if empty is not None:
            self._buffer = self._buffer[empty.end() :]
        end = self._buffer.find(b"\r\n\r\n", 0, MAX_HEAD)
        if end < 0:
            if len(self._buffer) >= MAX_HEAD:
                self._send(None, admin_problem(HEAD_TOO_LARGE, self._admin.docs_url()))
                self._close()
            return False
        raw, self._buffer = self._buffer[: end + 4], self._buffer[end + 4 :]
        self._take_head(self._admin.reader.read(raw))
        return True

    def _take_head(self, head: RequestHead) -> None:
        if head.refusal is not None and not head.keep_alive:
            self._answer(head, closing=True)
        elif head.length is not None and head.length > MAX_BODY:
            self._send(head, admin_problem(_TOO_LONG, self._admin.docs_url()))
            self._close()
        elif head.expects and (head.chunked or head.length):
            # No 100 response: the body has no use.
            self._answer(head, closing=True)
        else:
            self._head = head
            self._body = ChunkedDecoder(MAX_BODY) if head.chunked else head.length or 0

    def _take_body(self, head: RequestHead) -> bool:
        data, self._buffer = self._buffer, b""
        if isinstance(self._body, ChunkedDecoder):
            refusal = _fed(self._body, data)
            if refusal is not None:
                self._send(head, admin_problem(refusal, self._admin.docs_url()))
                self._close()
            if refusal is not None or not self._body.done:
                return False
            self._buffer = self._body.rest
        else:
            taken = min(len(data), self._body)
            self._buffer = data[taken:]
            self._body -= taken
            if self._body:
                return False
        self._head = None
        self._answer(head, closing=not head.keep_alive)
        return True

    def _answer(self, head: RequestHead, closing: bool) -> None:
        answer = admin_answer(self._admin.pages, self._hosts, head, self._admin.docs_url())
        self._send(head, answer, closing=closing)
        if closing:
            self._close(unread=head.expects or head.refusal is not None)
        elif not self._buffer and not self._full:
            self._allow(IDLE)
        else:
            self._allow(PATIENCE)

    def _send(self, head: RequestHead | None, answer: AdminResponse, closing: bool = True) -> None:
        status = HTTPStatus(answer.status)
        phrase = status.phrase.encode("ascii")
        connection = b"close" if closing else b"keep-alive"
        body = b"" if head is not None and head.method == b"HEAD" else answer.body
        self._wire.write(
            b"HTTP/1.1 %d %b\r\nDate: %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%bConnection: %b\r\n%b\r\n%b"
            % (
                status,
                phrase,
                formatdate(usegmt=True).encode("ascii"),
                answer.content_type,
                len(answer.body),
                _KEPT_FIELDS if answer.kept else _FIELDS,
                connection,
                answer.fields,
                body,
            )
        )

    def _close(self, *, unread: bool = True) -> None:
        """End once the client has got what was sent.

        If some of its bytes may be `unread`, closing would reset the connection and the client would lose the
        response: then its bytes are read and dropped for a while.
        """
        if self._over:
            return
        self._over = True
        unread = unread or bool(self._buffer)
        self._buffer, self._head = b"", None
        self._wire.unregisterProducer()
        self._allow(LINGER)
        # A TLS connection is not half-closed.
        half = hasattr(self._wire, "loseWriteConnection") and not ISSLTransport.providedBy(self._wire)
        if half and unread and not self._last:
            self._wire.loseWriteConnection()
            self._wire.resumeProducing()
        else:
            self._wire.loseConnection()


def _fed(decoder: ChunkedDecoder, data: bytes) -> Refusal | None:
    """Read more of a body, and drop it; returns the refusal of one that is too long or malformed."""
    try:
        decoder.feed(data)
    except BodyError as error:
        return BAD_FRAMING.because(f"The body is malformed: {error}.")
    return _TOO_LONG if decoder.received > MAX_BODY else None


class AdminFactory(Factory):
    """The connections of an admin port. `hosts` returns the names by which it may be reached, besides localhost and
    addresses; `docs_url`: see `wire.problem`."""

    noisy = False

    def __init__(
        self,
        pages: Pages,
        reactor: Any,
        hosts: Callable[[], Sequence[str]] = tuple,
        docs_url: Callable[[], str] = lambda: DOCS_URL,
    ) -> None:
        self.pages = pages
        self.docs_url = docs_url
        self.reactor = reactor
        # Its own turns, so that a probe does not wait behind clients.
        self.turns = turns_of(reactor).beside()
        self.reader = RequestReader(
            b"X-Tenant-ID", max_target=MAX_TARGET, max_fields=100, upgrades=False, nameless=True
        )
        self._hosts = hosts
        # In the order of the last activity, the quietest first.
        self._open: dict[AdminChannel, None] = {}

    def __len__(self) -> int:
        """How many connections there are."""
        return len(self._open)

    def buildProtocol(self, addr: IAddress | None) -> AdminChannel:
        """See IProtocolFactory."""
        hosts = frozenset(host.encode("ascii") for host in self._hosts())
        return AdminChannel(self, None if isinstance(addr, UNIXAddress) else hosts)

    def stopFactory(self) -> None:
        """See IProtocolFactory: the connections end with the port."""
        for channel in list(self._open):
            channel.abort()

    def opened(self, channel: AdminChannel) -> None:
        """A connection begins; it may replace another one."""
        self._open[channel] = None
        if len(self._open) > MAX_CONNECTIONS:
            quiet = next(iter(self._open))
            self.closed(quiet)
            quiet.abort()

    def moved(self, channel: AdminChannel) -> None:
        """A connection has sent something."""
        if self._open.pop(channel, self) is None:
            self._open[channel] = None

    def closed(self, channel: AdminChannel) -> None:
        """A connection has ended."""
        self._open.pop(channel, None)
