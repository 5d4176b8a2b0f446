"""One GET at a time, off the data path: a connection for each, bounded in bytes, cut off at once when cancelled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast
from urllib.parse import urlsplit

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import Agent, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from ..reactor.descriptor_shortage import shortage
from ..reactor.turns import FULL_READ, turns_of

# Bytes of a head, besides those of the body: Twisted bounds a line of it, not their number.
_HEAD: Final = 65_536
# Bytes that are handed on at once: compressed, they can become a thousand times as many before they are counted.
_PIECE: Final = 1024


class Fetched(NamedTuple):
    """A response: its status, its ETag ("": none that can be sent back), its body (None: over the limit), and the
    values of its Link headers."""

    status: int
    etag: str
    body: bytes | bytearray | None
    links: tuple[str, ...] = ()


class FetchError(Exception):
    """No usable response; the text says why in one line."""


class NotSentError(FetchError):
    """Nor was there a request, for want of a file descriptor."""


class _Meter(ProtocolWrapper):
    """A connection that ends after so many bytes, and hands them on a slice of a turn's work at a time."""

    def __init__(self, factory: _Metered, wrapped: Any, fetcher: Fetcher, limit: int) -> None:
        super().__init__(factory, wrapped)
        self._fetcher = fetcher
        self._turns = fetcher.turns
        self._left = limit
        self._severed = False
        # Bytes that the head, and those before it, may still have; infinite once the body has begun.
        self.head_left: float = _HEAD
        # What has come and is not handed on yet, from `_at` on; whether that waits for a turn; whether the protocol
        # wants nothing; and how the connection ended meanwhile.
        self._rest = b""
        self._at = 0
        self._waiting = False
        self._stopped = False
        self._lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        """Hand on what is within the limit, in pieces."""
        if self._severed:
            return
        self._rest = self._rest[self._at :] + data if self._rest else data
        self._at = 0
        if not self._waiting:
            self._hand_on()
            if len(data) >= FULL_READ and not (self._waiting or self._severed):
                # There is more to read, and others go first.
                self._yield_turn()

    def _hand_on(self) -> None:
        rest, turns = self._rest, self._turns
        until = turns.slice()
        while self._at < len(rest):
            piece = rest[self._at : self._at + _PIECE]
            self._at += len(piece)
            if not self._fits(len(piece)):
                self._fetcher.exceeded = True
                self.sever()
                return
            super().dataReceived(piece)
            if self._severed:
                return
            if self._at < len(rest) and turns.time() >= until:
                self._yield_turn()
                return
        self._rest, self._at = b"", 0

    def _fits(self, size: int) -> bool:
        self._left -= size
        self.head_left -= size
        return self._left >= 0 and self.head_left >= 0

    def _yield_turn(self) -> None:
        if not self._waiting:
            self._waiting = True
            cast(Any, self.transport).pauseProducing()
        self._turns.later(self._next_turn)

    def _next_turn(self) -> None:
        if self._severed:
            return
        self._hand_on()
        if self._rest or self._severed:
            return
        self._waiting = False
        if self._lost is not None:
            self._end(self._lost)
        elif not self._stopped:
            cast(Any, self.transport).resumeProducing()

    def pauseProducing(self) -> None:
        """The protocol takes nothing until it resumes."""
        self._stopped = True
        cast(Any, self.transport).pauseProducing()

    def resumeProducing(self) -> None:
        """The protocol wants more: first what has come already."""
        self._stopped = False
        if not self._waiting:
            cast(Any, self.transport).resumeProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone; what came before is handed on all the same."""
        if self._waiting and not self._severed:
            self._lost = reason
        else:
            self._end(reason)

    def _end(self, reason: Failure) -> None:
        self._severed = True
        self._rest = b""
        self._fetcher.lost(self)
        super().connectionLost(reason)

    def sever(self) -> None:
        """Reset the connection (a TLS peer may never answer close_notify)."""
        if self._severed or self.transport is None:
            return
        self._severed = True
        lost, self._lost = self._lost, None
        if lost is None:
            cast(Any, self.transport).abortConnection()
        else:
            self._end(lost)


class _Metered(WrappingFactory[_Meter]):
    noisy = False

    def __init__(self, wrapped: Any, fetcher: Fetcher, limit: int) -> None:
        super().__init__(wrapped)
        wrapped.noisy = False
        self._fetcher = fetcher
        self._limit = limit

    def buildProtocol(self, addr: Any) -> _Meter:
        return _Meter(self, self.wrappedFactory.buildProtocol(addr), self._fetcher, self._limit)


class _Body(Protocol):
    """Collects a body; `finished` has it, or None as soon as it is over the limit.

    It grows in place: joining its parts at the end would block the reactor.
    """

    def __init__(self, limit: int) -> None:
        self.finished: Deferred[bytearray | None] = Deferred()
        self._limit = limit
        self._body = bytearray()

    def dataReceived(self, data: bytes) -> None:
        """See IProtocol."""
        if self.finished.called:
            return
        if len(self._body) + len(data) <= self._limit:
            self._body += data
        else:
            self._body = bytearray()
            self.finished.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See IProtocol. A body that only its connection's end delimits is a whole one (RFC 9112 section 6.3)."""
        if self.finished.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.finished.callback(self._body)
        else:
            self.finished.errback(reason)


@implementer(IStreamClientEndpoint, IAgentEndpointFactory)
class Fetcher:
    """Asks for one URL, or others of the same server, each time on a connection of its own to `endpoint`, whatever
    the URL's host.

    Neither redirects nor cookies are followed. `limit` bounds the body, in bytes, before and after decompression.
    `host` is the Host field, "" for the URL's.
    """

    def __init__(self, reactor: Any, endpoint: IStreamClientEndpoint, url: str, limit: int, host: str = "") -> None:
        self._reactor = reactor
        self.turns = turns_of(reactor)
        self._endpoint = endpoint
        parts = urlsplit(url)
        self._host = host or parts.netloc
        self._url = _local(url)
        self._limit = limit
        self._agent = Agent.usingEndpointFactory(reactor, self)
        self._asking: Deferred[Any] | None = None
        self._connection: _Meter | None = None
        self._cutting = False
        self._body_begun = False
        self.exceeded = False

    def get(self, headers: Mapping[str, str], url: str = "") -> Deferred[Fetched]:
        """The response of the URL, "" for the one of its own.

        Fails with Unfetched, and with CancelledError after `cut`, which the caller's own deadline decides on.
        Asking again cuts off what was asked before.
        """
        self.cut()
        self.exceeded = self._body_begun = False
        asking = Deferred.fromCoroutine(self._get(headers, _local(url) if url else self._url))
        self._asking = asking
        return asking

    async def _get(self, headers: Mapping[str, str], url: str) -> Fetched:
        try:
            response, body = await self._answer(headers, url)
        except Exception:
            self._sever()
            if self._cutting:
                raise CancelledError from None
            failure = Failure()
            missing = shortage(failure.value)
            if missing:
                raise NotSentError(missing) from None
            raise FetchError(self._excess() if self.exceeded else _why(failure)) from None
        if body is None:
            self._sever()
        etags = response.headers.getRawHeaders(b"etag", [])
        etag = etags[0].decode("ascii") if len(etags) == 1 and etags[0].isascii() else ""
        links = tuple(value.decode("latin-1") for value in response.headers.getRawHeaders(b"link", []))
        return Fetched(response.code, etag, body, links)

    def _excess(self) -> str:
        """Why the response is too long. That of a body is mostly seen before, but its framing counts too."""
        return f"is longer than {self._limit} bytes" if self._body_begun else "its head is too long"

    async def _answer(self, headers: Mapping[str, str], url: str) -> tuple[Any, bytearray | None]:
        # A client of its own for each, so that no cookie comes along with the next.
        fields = Headers({"Host": [self._host], "User-Agent": ["koder-gateway"]})
        for name, value in headers.items():
            fields.setRawHeaders(name, [value])
        response: Any = await HTTPClient(self._agent).get(
            url, headers=fields, allow_redirects=False, unbuffered=True, reactor=self._reactor
        )
        self._body_begun = True
        if self._connection is not None:
            self._connection.head_left = math.inf
        if isinstance(response.length, int) and response.length > self._limit:
            return response, None
        collector = _Body(self._limit)
        response.deliverBody(collector)
        return response, await collector.finished

    def cut(self) -> None:
        """Cancel the request in flight, and close a connection that the other side has not closed after its
        response."""
        asking, self._asking = self._asking, None
        if asking is not None:
            self._cutting = True
            asking.cancel()
            self._cutting = False
        self._sever()

    def _sever(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.sever()

    def lost(self, connection: _Meter) -> None:
        """A connection has ended."""
        if self._connection is connection:
            self._connection = None

    # -- what the agent asks for

    def endpointForURI(self, uri: Any) -> IStreamClientEndpoint:
        """See IAgentEndpointFactory."""
        return self

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """See IStreamClientEndpoint."""
        connecting: Deferred[Any] = self._endpoint.connect(_Metered(protocolFactory, self, self._limit + _HEAD))
        return connecting.addCallback(self._connected)

    def _connected(self, connection: _Meter) -> Any:
        self._connection = connection
        return connection.wrappedProtocol


def _local(url: str) -> str:
    """A URL for the agent, whose parser takes no IPv6 literal (it would encode it by IDNA); the connection needs no
    host of it."""
    return urlsplit(url)._replace(netloc="localhost").geturl()


def _why(failure: Failure) -> str:
    """What made a request fail, in one line; the agent wraps the reason in a list of failures."""
    reasons = getattr(failure.value, "reasons", None)
    if reasons:
        return _why(reasons[0])
    return " ".join(failure.getErrorMessage().split()) or type(failure.value).__name__
