"""The tree's entry for stock `twisted.web` requests: gives them an exchange, and a client's side.

A `GatewayRequest` brings both. A stock `server.Request` of another application's `Site` gets them here: its head is
parsed by the same reader as any other, so that what is refused at the gateway's own channel is refused here too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

from twisted.web import server
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from ..downstream.ports import Segments, TreeRequest
from ..downstream.refusal_resource import RefusalResource
from ..downstream.site import tls_presence
from ..errors import Refusal
from ..exchange.admission import before_tree
from ..exchange.opening import SingleHead, open_exchange
from ..exchange.states import Exchange
from ..policy.certificates import TlsInfo
from ..policy.clients import plain_host
from ..policy.decision import Policy
from ..wire.request_reader import RequestReader
from .client import StockClient

# The stock channel has framed the body already, and met the one expectation that there is.
_FRAMING = frozenset((b"content-length", b"transfer-encoding", b"trailer"))
_MET = b"100-continue"


@implementer(IResource)
class SiteAdapter:
    """The root of the tree. What it leads to, and under which policy, is replaced as one by a reload."""

    isLeaf = False
    streams_body = True

    def __init__(
        self,
        inner: IResource,
        policy: Policy,
        reader: RequestReader,
        finished: Callable[[Exchange], object],
        clock: Callable[[], float] = time.monotonic,
        secured: Callable[[Any], TlsInfo | None] = tls_presence,
    ) -> None:
        self.inner = inner
        self.policy = policy
        self.reader = reader
        self._finished = finished
        self._clock = clock
        self._secured = secured
        # Those whose exchange has begun and not ended.
        self.clients: set[StockClient] = set()

    def getChildWithDefault(self, name: bytes, request: server.Request) -> IResource:
        """What the tree has for the request, or the response of a filter."""
        answer = self._admit(request)
        if answer is not None:
            return answer
        segments = cast(Segments, request)
        segments.postpath.insert(0, segments.prepath.pop())
        return self.inner

    def render(self, request: server.Request) -> int | bytes:
        """The tree is mounted at the very path that was asked for."""
        answer = self._admit(request) or self.inner
        rendered: int | bytes = answer.render(request)
        return rendered

    def putChild(self, path: bytes, child: object) -> None:
        """The tree is composed from the configuration."""
        raise TypeError("the gateway's tree is composed from its configuration")

    def _established(self, request: server.Request) -> TlsInfo | None:
        """What TLS has established: the connection's own state, or what a stock request was configured to report
        (`forceSSL`)."""
        established = self._secured(request.transport)
        return TlsInfo() if established is None and request.isSecure() else established

    def _admit(self, request: server.Request) -> IResource | None:
        """Give a stock request its exchange; a resource when it goes no further. It may come by more than once."""
        if hasattr(request, "gateway"):
            return None
        body = b"" if request.content is None else request.content.read()
        head = self.reader.read(_raw_head(request, body))
        head.upgrade = None  # a stock request's connection cannot switch protocols
        peer = plain_host(getattr(request.getClientAddress(), "host", None))
        source = SingleHead(peer, self._established(request))
        exchange = open_exchange(source, head, head.refusal, None, self.policy, self._clock())
        exchange.bytes_in = len(body)
        client = StockClient(request, exchange, body, self._finished, self._clock)
        # From here on it is a `TreeRequest`.
        request.gateway = client  # type: ignore[attr-defined]
        self.clients.add(client)
        request.notifyFinish().addBoth(lambda _: self.clients.discard(client))
        answer = before_tree(exchange)
        if isinstance(answer, Refusal):
            return RefusalResource(answer)
        return None if answer is None else _Empty(answer.fields)


@implementer(IResource)
class _Empty:
    """A 204 with these field lines."""

    isLeaf = True

    def __init__(self, fields: bytes) -> None:
        self._fields = fields

    def render(self, request: TreeRequest) -> int:
        request.gateway.answer(204, b"No Content", self._fields, b"")
        return NOT_DONE_YET

    def getChildWithDefault(self, name: bytes, request: TreeRequest) -> _Empty:
        return self

    def putChild(self, path: bytes, child: object) -> None:
        raise TypeError("an empty answer has no children")


def _raw_head(request: server.Request, body: bytes) -> bytes:
    """A stock request's head as it would have come, with the length that its body turned out to have."""
    lines = [b"%b %b %b\r\n" % (request.method, request.uri, request.clientproto)]
    framed = False
    for name, values in request.requestHeaders.getAllRawHeaders():
        lower = name.lower()
        if lower in _FRAMING:
            framed = True
            continue
        met = lower == b"expect"
        lines += [b"%b: %b\r\n" % (name, value) for value in values if not (met and value.lower() == _MET)]
    if framed:
        lines.append(b"Content-Length: %d\r\n" % len(body))
    return b"".join((*lines, b"\r\n"))
