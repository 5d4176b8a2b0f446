"""The client's side of an exchange over a stock `twisted.web` request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.resource import IResource, getChildForRequest

from ..downstream.forwarded_headers import forwarded_headers
from ..downstream.ports import Segments, TreeClient
from ..errors import Refusal
from ..exchange.ending import goes_unanswered
from ..exchange.ports import BodySink, Producer
from ..exchange.refusing import refusal_response
from ..exchange.states import ANSWERED, CLIENT_GONE, ENDED, HELD, TIMEOUT, WAITING, Exchange, IllegalMove
from ..wire.refusal_writer import OWN_FIELDS
from ..wire.response import ResponseHead
from .headers import MountedHeaders


class StockClient(TreeClient):
    """The client's side of an exchange (exchange.ports.Client) over a stock request, whose body is complete."""

    paused_early = False

    def __init__(
        self,
        request: server.Request,
        exchange: Exchange,
        body: bytes,
        finished: Callable[[Exchange], object],
        clock: Callable[[], float],
    ) -> None:
        self.exchange = exchange
        self.body = body
        self.body_done = True
        self.trailers: list[bytes] = []
        self.sink: BodySink | None = None
        self._request = request
        self._finished = finished
        self._clock = clock
        self._producing = False
        request.notifyFinish().addCallbacks(self._answered, self._gone)

    def hand_over(self) -> Segments:
        """A mounted resource answers: the stock request itself, with the fields that every response carries."""
        request = self._request
        if request.content is not None:
            request.content.seek(0)
        request.requestHeaders = forwarded_headers(self.exchange)
        self._add_fields(self.exchange.fields)
        request.responseHeaders = MountedHeaders(request, self.exchange.drops_hsts)
        return cast(Segments, request)

    def go_on(self, resource: IResource) -> None:
        """The exchange has waited for a decision: have the tree from `resource` on answer, as a stock request is
        processed."""
        request = self._request
        try:
            request.render(resource if resource.isLeaf else getChildForRequest(resource, request))
        except Exception:
            request.processingFailed(Failure())

    def respond(self, head: ResponseHead, body: bytes, done: bool) -> None:
        """Give the stock request the service's head and what there is of its body."""
        request = self._request
        # A type that the service does not state is not the stock request's to guess.
        request.defaultContentType = None
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
        """Send more of the response."""
        self.exchange.bytes_out += len(data)
        self._request.write(data)

    def end_body(self, trailers: list[bytes]) -> None:
        """The response is complete; a stock request cannot send trailers."""
        self._unregister()
        request = self._request
        self._finished(self.exchange)
        request.finish()

    def interim(self, head: ResponseHead) -> None:
        """A stock request cannot send interim answers."""

    def ask_for_body(self) -> None:
        """The body is here already."""

    def now(self) -> float:
        """Monotonic seconds."""
        return self._clock()

    @property
    def connects(self) -> bool:
        """A stock request opens no tunnel."""
        return False

    def switch(self, head: ResponseHead, data: bytes) -> None:
        """Never asked for: the head of a stock request has no Upgrade (`SiteAdapter`)."""
        raise IllegalMove("a stock request's connection cannot switch protocols")

    def raw_writer(self) -> Callable[[bytes], None]:
        """Never asked for, nor is this."""
        raise IllegalMove("a stock request's connection carries no raw bytes")

    def refuse(self, refusal: Refusal) -> None:
        """Answer with a refusal, in the shape that its reader expects."""
        exchange = self.exchange
        if goes_unanswered(exchange, refusal):
            self._end_unanswered()
            return
        fields, body = refusal_response(exchange, refusal)
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
        self._add_fields(fields + OWN_FIELDS + exchange.fields)
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
        """The gateway waits no longer. `code` is that of a response which has begun and is cut."""
        # As long as it waits for a decision or for a service, no response has begun.
        waiting = self.sink is not None and self.exchange.phase in (HELD, WAITING)
        if self.sink is not None:
            self.sink.abandon()
            self.sink = None
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
        """Pause and resume `producer` as the client takes the response."""
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
