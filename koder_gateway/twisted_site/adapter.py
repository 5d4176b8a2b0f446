"""The tree's way in for stock `twisted.web` requests: gives them an exchange, and a client's side.

A `GatewayRequest` brings both. A stock `server.Request` of somebody else's `Site` gets them here: its head is
read by the same reader as any other, so that what is refused at the gateway's own channel is refused here too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from ..downstream.forwarded_headers import forwarded_headers
from ..downstream.ports import Segments, TreeClient, TreeRequest
from ..downstream.refused import Refused
from ..downstream.site import only_whether
from ..downstream.stock_fields import is_ours
from ..errors import Refusal
from ..exchange.admission import before_tree
from ..exchange.ending import goes_unanswered
from ..exchange.opening import SingleHead, open_exchange
from ..exchange.ports import BodySink, Producer
from ..exchange.states import ANSWERED, CLIENT_GONE, ENDED, HELD, TIMEOUT, WAITING, Exchange, IllegalMove
from ..policy.certificates import Secured
from ..policy.clients import plain_host
from ..policy.decision import Policy
from ..wire.problem import problem
from ..wire.request_reader import RequestReader
from ..wire.response import ResponseHead

# The stock channel has framed the body already, and met the one expectation that there is.
_FRAMING = frozenset((b"content-length", b"transfer-encoding", b"trailer"))
_MET = b"100-continue"


class StockClient(TreeClient):
    """The client's side of an exchange (exchange.ports.Client) over a stock request, whose body is complete."""

    paused_early = False

    def __init__(
        self,
        request: server.Request,
        exchange: Exchange,
        body: bytes,
        finished: Callable[[Exchange], object],
    ) -> None:
        self.exchange = exchange
        self.body = body
        self.body_done = True
        self.trailers: list[bytes] = []
        self.sink: BodySink | None = None
        self._request = request
        self._finished = finished
        self._producing = False
        request.notifyFinish().addCallbacks(self._answered, self._gone)

    def hand_over(self) -> Segments:
        """A mounted resource answers: the stock request itself, with the fields that every answer carries."""
        request = self._request
        if request.content is not None:
            request.content.seek(0)
        request.requestHeaders = forwarded_headers(self.exchange)
        self._add_fields(self.exchange.fields)
        request.responseHeaders = _MountedHeaders(request, self.exchange.drops_hsts)
        return cast(Segments, request)

    def respond(self, head: ResponseHead, body: bytes, done: bool) -> None:
        """Give the stock request the service's head and what there is of its body."""
        request = self._request
        request.setResponseCode(head.status, head.reason)
        self._add_fields(b"".join(head.lines) + self.exchange.fields)
        if head.stated is not None:
            request.responseHeaders.setRawHeaders(b"content-length", [b"%d" % head.stated])
        self.send_body(body)
        if done:
            self.end_body([])

    def _add_fields(self, lines: bytes) -> None:
        headers = self._request.responseHeaders
        headers.removeHeader(b"content-type")
        own = {b"date", b"server"}
        for line in lines.split(b"\r\n")[:-1]:
            name, _, value = line.partition(b": ")
            if name.lower() in own:
                # The stock request has set its own; the service's takes its place.
                own.discard(name.lower())
                headers.removeHeader(name)
            headers.addRawHeader(name, value)

    def send_body(self, data: bytes) -> None:
        """Send more of the answer."""
        self.exchange.bytes_out += len(data)
        self._request.write(data)

    def end_body(self, trailers: list[bytes]) -> None:
        """The answer is complete; a stock request cannot send trailers."""
        self._unregister()
        request = self._request
        self._finished(self.exchange)
        request.finish()

    def interim(self, head: ResponseHead) -> None:
        """A stock request cannot send interim answers."""

    @property
    def connects(self) -> bool:
        """A stock request opens no tunnel."""
        return False

    def switch(self, head: ResponseHead, data: bytes) -> None:
        """Never asked for: the head of a stock request has no Upgrade (`Entrance`)."""
        raise IllegalMove("a stock request's connection cannot switch protocols")

    def raw_writer(self) -> Callable[[bytes], None]:
        """Never asked for, nor is this."""
        raise IllegalMove("a stock request's connection carries no raw bytes")

    def refuse(self, refusal: Refusal) -> None:
        """Answer with a problem (RFC 9457)."""
        exchange = self.exchange
        if goes_unanswered(exchange, refusal):
            self._end_unanswered()
            return
        fields, body = problem(refusal, exchange.request_id)
        self.answer(refusal.status, refusal.title.encode("ascii"), fields, body)

    def _end_unanswered(self) -> None:
        """This client has had so many refusals that it gets no more of them."""
        self.exchange.end()
        self._finished(self.exchange)
        channel = self._request.channel
        if channel is not None:
            channel.loseConnection()

    def answer(self, status: int, reason: bytes, fields: bytes, body: bytes) -> None:
        """Answer from the gateway itself and end the exchange."""
        exchange, request = self.exchange, self._request
        self.exchange.end()
        exchange.status = status
        request.setResponseCode(status, reason)
        self._add_fields(fields + exchange.fields)
        if status != 204:
            request.responseHeaders.setRawHeaders(b"content-length", [b"%d" % len(body)])
        if request.method != b"HEAD":
            self.send_body(body)
        self.end_body([])

    def cut(self, *, at_once: bool = False) -> None:
        """End the client's message so that it is seen to be incomplete."""
        self._unregister()
        self._finished(self.exchange)
        transport: Any = self._request.transport
        if transport is not None:
            transport.abortConnection()

    def give_up(self, refusal: Refusal, code: str = TIMEOUT) -> None:
        """The gateway waits no longer. `code` is that of an answer which has begun and is cut."""
        waiting = self.exchange.phase is WAITING
        if self.sink is not None:
            self.sink.abandon()
        if self.exchange.phase is ENDED:
            return
        if waiting:
            self.refuse(refusal)
        else:
            # What a mounted resource has begun is its own: it hears that nobody listens any more.
            self.exchange.end(code)
            self.cut()

    def taking(self) -> bool:
        """A stock request does not show what its client has taken."""
        return False

    # What stock sites hold is theirs to bound.
    crowded = True

    def room(self) -> int:
        """Nor what it takes at once."""
        return 0

    def stream_from(self, producer: Producer) -> None:
        """Pause and resume `producer` as the client takes the answer."""
        self._producing = True
        self._request.registerProducer(producer, True)

    def pause_body(self) -> None:
        """The body is here already."""

    def resume_body(self) -> None:
        """The body is here already."""

    def _unregister(self) -> None:
        if self._producing:
            self._producing = False
            self._request.unregisterProducer()

    def _answered(self, result: object) -> None:
        """The stock request is finished: by us, or by a mounted resource."""
        exchange = self.exchange
        if exchange.phase is HELD:
            exchange.move(ANSWERED)
            exchange.status = self._request.code
            exchange.bytes_out = int(self._request.sentLength)
            self._finished(exchange)

    def _gone(self, reason: Failure) -> None:
        self._producing = False
        if self.exchange.phase is ENDED:
            return
        if self.sink is not None:
            self.sink.client_failed(CLIENT_GONE)
        else:
            self.exchange.move(CLIENT_GONE)
        self._finished(self.exchange)


class _MountedHeaders(Headers):
    """The head of a mounted resource's answer, but for what is the gateway's to say, as on its own ports."""

    __slots__ = ("_drops_hsts", "_request")

    def __init__(self, request: Any, drops_hsts: bool) -> None:
        super().__init__()
        for name, values in request.responseHeaders.getAllRawHeaders():
            super().setRawHeaders(name, values)
        self._request = request
        self._drops_hsts = drops_hsts

    def getAllRawHeaders(self) -> Iterator[tuple[bytes, Sequence[bytes]]]:
        """What is sent: the stock request says here that it has begun to send in chunks, which is no field of the
        resource's."""
        yield from super().getAllRawHeaders()
        if self._request.chunked:
            yield b"Transfer-Encoding", [b"chunked"]

    def setRawHeaders(self, name: Any, values: Any) -> None:
        """Take these values for the field, unless it is the gateway's."""
        if not self._is_ours(name):
            super().setRawHeaders(name, values)

    def addRawHeader(self, name: Any, value: Any) -> None:
        """Take one more value for the field, unless it is the gateway's."""
        if not self._is_ours(name):
            super().addRawHeader(name, value)

    def _is_ours(self, name: Any) -> bool:
        lower = name.lower() if isinstance(name, bytes) else name.lower().encode("latin-1", "replace")
        return is_ours(lower, self._drops_hsts)


@implementer(IResource)
class Entrance:
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
        secured: Callable[[Any], Secured | None] = only_whether,
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
        """What the tree has for the request, or the answer of a filter."""
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

    def _established(self, request: server.Request) -> Secured | None:
        """What TLS has established: the connection's own, or what a stock request was told to say (`forceSSL`)."""
        established = self._secured(request.transport)
        return Secured() if established is None and request.isSecure() else established

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
        client = StockClient(request, exchange, body, self._finished)
        # From here on it is a `TreeRequest`.
        request.gateway = client  # type: ignore[attr-defined]
        self.clients.add(client)
        request.notifyFinish().addBoth(lambda _: self.clients.discard(client))
        answer = before_tree(exchange)
        if isinstance(answer, Refusal):
            return Refused(answer)
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
