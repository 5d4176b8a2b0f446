"""The base of the gateway's requests: a real `twisted.web.server.Request` and the client's side of an exchange.

What is written to the client is `http1`'s and `http2`'s; what becomes of the exchange is the same for both. On the
way to a service only that half is used and the stock one costs nothing: what a stock request has (headers, arguments,
cookies, a body in a file) is made when a stock resource is about to answer (`hand_over`). So any `IResource` can be
mounted in the tree beside the proxying leaf.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.resource import IResource

from ..errors import INTERNAL_ERROR, UPSTREAM_TIMEOUT, Refusal
from ..exchange.ending import goes_unanswered
from ..exchange.ports import BodySink, Producer
from ..exchange.refusing import refusal_response
from ..exchange.states import (
    ANSWERED,
    ANSWERS,
    CLIENT_GONE,
    ENDED,
    HELD,
    RELAYING,
    TIMEOUT,
    TUNNELLING,
    Exchange,
)
from ..wire.response import CONTINUE
from .forwarded_headers import forwarded_headers, sign_anew
from .ports import ClientRequest, RequestChannel, Segments

_log = Logger()


class GatewayRequest(server.Request, ClientRequest):
    """One request of a gateway channel. `body`, `body_done` and `trailers` are what has arrived with the head.

    Subclasses write: a response of the gateway's own (`_write_answer`), and nothing at all to a client that gets no
    more answers (`_end_unanswered`).
    """

    # Only for stock requests' sake: the gateway never parses forms.
    _parsePOSTFormSubmission = False
    protocol: bytes
    # None once the exchange is over; nothing uses it then.
    channel: RequestChannel  # type: ignore[assignment]
    site: Any
    _asked_for_body = False

    def __init__(
        self,
        channel: RequestChannel,
        exchange: Exchange,
        body: bytes,
        done: bool,
        trailers: list[bytes],
    ) -> None:
        # The stock half's own __init__ is called by `_become_stock`, for a request that a stock resource answers. No
        # `__getattr__` does that: a class with one has every look at an attribute pay for it.
        self.channel = channel
        self.exchange = exchange
        self.body = body
        self.body_done = done
        self.trailers = trailers
        self.sink: BodySink | None = None
        self._produced_by: object = None

    def hand_over(self) -> Segments:
        """Become what stock resources expect: all that a stock request has, and segments to descend by."""
        self._become_stock()
        self.prepath = []
        self.postpath = [unquote_to_bytes(segment) for segment in self.path[1:].split(b"/")]
        return cast(Segments, self)

    @property
    def _is_stock(self) -> bool:
        return "requestHeaders" in self.__dict__

    def _become_stock(self) -> None:
        """Make all that only a stock request has; nothing for one that has it."""
        if self._is_stock:
            return
        head = self.exchange.head
        server.Request.__init__(self, self.channel, parsePOSTFormSubmission=False)
        self.method = head.method
        self.uri = head.target
        self.path = head.path
        self.requestHeaders = forwarded_headers(self.exchange)
        self.site = self.channel.site
        self.sitepath: list[bytes] = []
        self.clientproto = self.protocol if head.minor else b"HTTP/1.0"
        self.args = http.parse_qs(self.uri.partition(b"?")[2], 1)
        self.parseCookies()

    @property
    def gateway(self) -> GatewayRequest:
        """The client's side of the exchange, as guards and leaf look for it on any kind of request."""
        return self

    # -- a stock resource answers

    def render_stock(self, resource: IResource) -> None:
        """Have an ordinary resource render, once the whole body is there."""
        if self.body_done:
            self.content = BytesIO(self.body)
            self._render_now(resource)
        else:
            self.sink = _BodyCollector(self, resource)
            if not self.body:
                self.ask_for_body()

    def _render_now(self, resource: IResource) -> None:
        self._become_stock()
        # The body may have come late.
        sign_anew(self.exchange, self.requestHeaders)
        try:
            self.render(resource)
        except Exception:
            self.processingFailed(Failure())

    def _cleanup(self) -> None:
        """The stock response is complete: `finish` calls this."""
        if self.producer is not None:
            self.unregisterProducer()
        exchange = self.exchange
        exchange.status = self.code
        exchange.bytes_out += int(self.sentLength)
        exchange.move(ANSWERED)
        self.content = None
        notifications, self.notifications = self.notifications, []
        for deferred in notifications:
            deferred.callback(None)
        self._over()

    # -- the client's side of an exchange (exchange.ports.Client)

    def half_closed(self) -> None:
        """The client sends no more raw bytes."""
        if self.sink is not None:
            self.sink.body_ended([])
            if self.exchange.phase is ENDED:
                self._over()

    def _end_tunnel(self) -> None:
        """The service sends no more raw bytes. Where that cannot be said by itself, it is all over."""
        channel = self.channel
        if self._produced_by is not None:
            self._produced_by = None
            channel.unregisterProducer()
        if not channel.end_sending():
            self.half_closed()

    def refuse(self, refusal: Refusal) -> None:
        """Answer with a refusal, in the shape that its reader expects."""
        exchange = self.exchange
        if goes_unanswered(exchange, refusal):
            self._end_unanswered()
            return
        if refusal.close:
            self.channel.keep_alive = False
            self.channel.lingers = True
        fields, body = refusal_response(exchange, refusal)
        self.answer(refusal.status, refusal.title.encode("ascii"), fields, body)

    def _end_unanswered(self) -> None:
        """This client has had so many refusals that it gets no more of them."""

    def answer(self, status: int, reason: bytes, fields: bytes, body: bytes) -> None:
        """Answer from the gateway itself and end the exchange."""
        exchange = self.exchange
        exchange.end()
        exchange.status = status
        if exchange.head.method != b"HEAD":
            exchange.bytes_out += len(body)
        self._write_answer(status, reason, fields, body)
        self._over()

    def _write_answer(self, status: int, reason: bytes, fields: bytes, body: bytes) -> None:
        """Send a response of the gateway's own."""

    def now(self) -> float:
        """Monotonic seconds."""
        # In two steps, as in `tls.stream`.
        time = self.channel.site.time
        return time()

    def ask_for_body(self) -> None:
        """Send a 100 to a client that waits for it before it sends its body."""
        if self.exchange.head.expects and not self._asked_for_body:
            self._asked_for_body = True
            self.interim(CONTINUE)

    def taking(self) -> bool:
        """Whether the client takes what is on its way to it."""
        return self.channel.taking()

    @property
    def crowded(self) -> bool:
        """Whether many clients wait for something."""
        return self.channel.site.crowded

    def stream_from(self, producer: Producer) -> None:
        """Pause and resume `producer` as the client takes the response."""
        self._produced_by = producer
        self.channel.registerProducer(producer, True)

    def pause_body(self) -> None:
        """Take no more of the body from the client."""
        self.channel.hold_body()

    def resume_body(self) -> None:
        """Take the body again."""
        self.channel.release_body()

    # -- the end

    def lost(self, reason: Failure) -> None:
        """The client's connection is gone in the midst of the exchange."""
        if self.exchange.phase is ENDED:
            return
        self.exchange.broken_off(self.body_done)
        sink = self.sink
        if sink is None:
            self.exchange.move(CLIENT_GONE)
        else:
            if self.exchange.phase is TUNNELLING and reason.check(ConnectionDone):
                sink.body_ended([])
            if self.exchange.phase is not ENDED:
                sink.client_failed(CLIENT_GONE)
        self._over(finished=False)
        self._tell_stock(reason)

    @property
    def head_sent(self) -> bool:
        """Whether the client has the head of its response, or what stands for one: a tunnel."""
        return bool(self.startedWriting) or self.exchange.phase in (RELAYING, TUNNELLING)

    def give_up(self, refusal: Refusal, code: str = TIMEOUT) -> None:
        """The gateway waits no longer. `code` is that of a response which has begun and is cut."""
        if self.sink is not None:
            self.sink.abandon()
        exchange = self.exchange
        if exchange.phase is ENDED:
            return
        if not self.head_sent:
            self.refuse(refusal)
        else:
            exchange.end(code)
            self.cut()
        self._tell_stock(Failure(ConnectionAborted()))

    def too_slow(self) -> None:
        """The client takes less of the response than it has to."""
        exchange, sink = self.exchange, self.sink
        if sink is not None and exchange.phase is TUNNELLING:
            # A plain end would pass for a good one.
            sink.client_failed(TIMEOUT)
        elif sink is not None:
            sink.abandon()
        if exchange.phase is not ENDED:
            exchange.end(TIMEOUT)
        self.cut(at_once=True)
        self._tell_stock(Failure(ConnectionAborted()))

    def _tell_stock(self, reason: Failure) -> None:
        """A stock resource that renders this request learns that its client is gone."""
        if self._is_stock:
            http.Request.connectionLost(self, reason)

    def expire(self) -> None:
        """The whole exchange has had its time; a tunnel has deadlines of its own."""
        if self.exchange.phase is not TUNNELLING:
            self.give_up(UPSTREAM_TIMEOUT)

    # -- the body

    def body_came(self, data: bytes, done: bool, trailers: list[bytes]) -> None:
        """More of the body has come; `done`: that was the last of it."""
        if done:
            self.body_done = True
            self.trailers = trailers
        sink = self.sink
        if sink is not None:
            if data:
                sink.body_received(data)
            if done and self.sink is sink:
                sink.body_ended(trailers)

    def body_failed(self, event: str, refusal: Refusal | None = None) -> None:
        """The body is late, broken or too large. `refusal` is for a client that waits for its response, if it is more
        than the event's."""
        if self.sink is not None:
            self.sink.client_failed(event)
        else:
            self.refuse(refusal or ANSWERS[event])

    def begin(self) -> None:
        """Have the site answer."""
        try:
            self.channel.site.dispatch(self)
        except Exception:
            _log.failure("the resource tree failed")
            self.crashed()

    def go_on(self, resource: IResource) -> None:
        """The exchange has waited for a decision: have the tree from `resource` on answer."""
        try:
            self.channel.site.walk(self, resource)
        except Exception:
            _log.failure("the resource tree failed")
            self.crashed()

    def crashed(self) -> None:
        """Something in the tree raised: the client gets a 500 if it has got nothing yet."""
        if self.exchange.phase is HELD and not self.startedWriting:
            self.refuse(INTERNAL_ERROR)
        elif self.exchange.phase is not ENDED:
            self.exchange.end()
            self.cut()

    def _over(self, finished: bool = True) -> None:
        """The exchange has ended: once, whatever the way."""
        channel = self.channel
        if not channel:
            return
        self.sink = None
        if self._produced_by is not None:
            self._produced_by = None
            channel.unregisterProducer()
        # In two steps, as in `tls.stream`.
        finished_with = channel.site.finished
        finished_with(self.exchange)
        channel.exchange_over(finished)
        self.channel = None  # type: ignore[assignment]


class _BodyCollector(BodySink):
    """Collects a body for a resource that wants it whole; its size was limited on the way."""

    streams = False
    connection = None

    def __init__(self, request: GatewayRequest, resource: IResource) -> None:
        self._request = request
        self._resource = resource
        self._file = BytesIO(request.body)
        self._file.seek(0, 2)

    def body_room(self) -> int:
        return 0

    def body_received(self, data: bytes) -> None:
        self._file.write(data)

    def body_ended(self, trailers: list[bytes]) -> None:
        request = self._request
        request.sink = None
        self._file.seek(0)
        request.content = self._file
        request._render_now(self._resource)

    def client_leaves(self) -> None:
        """See `BodySink`: what is collected is always read."""

    def client_failed(self, event: str) -> None:
        request = self._request
        request.sink = None
        if event == CLIENT_GONE:
            request.exchange.move(CLIENT_GONE)
        else:
            request.refuse(ANSWERS[event])

    def abandon(self) -> None:
        """Nothing is held but memory."""
