"""A request that came over HTTP/2: the client's side of its exchange, written as frames of its stream."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

from twisted.internet.error import ConnectionAborted
from twisted.python.failure import Failure

from ..downstream.ports import RequestChannel
from ..downstream.request import GatewayRequest
from ..errors import NOT_IMPLEMENTED
from ..exchange.states import TUNNELLING, Exchange
from ..wire.hpack import encode_field, encode_lines, encode_status
from ..wire.http2_frames import ENHANCE_YOUR_CALM, Http2Error
from ..wire.refusal_writer import OWN_FIELDS
from ..wire.response import ResponseHead
from .answer_producer import HeldAnswer
from .ports import Connection
from .send_window import SendWindow

_NO_BODY = frozenset((204, 304))
_OWN = encode_lines(OWN_FIELDS)


@lru_cache(maxsize=4)
def _encoded_date(line: bytes) -> bytes:
    return encode_lines(line)


@lru_cache(maxsize=256)
def _encoded_length(length: int) -> bytes:
    return encode_field(b"content-length", b"%d" % length)


@lru_cache(maxsize=256)
def _encoded_context(fields: bytes) -> bytes:
    return encode_lines(fields)


def _encoded_fields(exchange: Exchange) -> bytes:
    """The exchange's own fields. Those of its context are the same for many responses, and encoded once."""
    fields, context = exchange.fields, exchange.context.fields
    if not context:
        return encode_lines(fields)
    before, same, behind = fields.partition(context)
    # A preflight's have others in their place.
    return b"%b%b%b" % (encode_lines(before), _encoded_context(same), encode_lines(behind))


class RequestStream(RequestChannel, Protocol):
    """What a request asks of its stream. `upgrading`: whether an extended CONNECT has opened it."""

    connection: Connection
    send_window: SendWindow
    upgrading: bool

    def tunnel(self) -> None:
        """The service has switched protocols: pass on to it what has waited and whatever comes."""

    def over(self, code: int | None) -> None:
        """The stream is closed; with a code the client is told."""


class Http2Request(GatewayRequest, HeldAnswer):
    """One request of an HTTP/2 stream."""

    protocol = b"HTTP/2"
    channel: RequestStream  # type: ignore[assignment]

    @property
    def paused_early(self) -> bool:
        """Whether too much waits for the client already, on all its streams."""
        channel = self.channel
        return channel.connection.out.full if channel else False

    def room(self) -> int:
        """Bytes of the response that windows and transport let go at once."""
        channel = self.channel
        return channel.send_window.room if channel else 0

    def hold_answer(self) -> None:
        """There is no room any more: a service that has been asked and has not begun to answer is paused too."""
        connection = None if self.sink is None else self.sink.connection
        if connection is not None:
            self.stream_from(connection)

    @property
    def connects(self) -> bool:
        """Whether it is an extended CONNECT (RFC 8441 section 4)."""
        channel = self.channel
        return channel.upgrading if channel else False

    def _head(self, head: ResponseHead) -> bytes:
        """The field block of a service's response. What of it is the service's is encoded once for each head."""
        fixed = head.block
        if fixed is None:
            fixed = encode_status(head.status) + encode_lines(b"".join(head.lines))
            if head.stated is not None:
                fixed += _encoded_length(head.stated)
            head.block = fixed
        own = _encoded_fields(self.exchange)
        return fixed + own if head.dated else b"%b%b%b" % (fixed, _encoded_date(self.channel.site.date_line), own)

    def respond(self, head: ResponseHead, body: bytes, done: bool) -> None:
        """Send the service's head, and what there is of its body."""
        channel = self.channel
        self.exchange.bytes_out += len(body)
        block = self._head(head)
        if done:
            if body:
                channel.send_window.send_whole(block, body)
            else:
                channel.send_window.send_head(block, True)
            self._over()
            return
        channel.send_window.send_head(block, False)
        if body:
            channel.send_window.send_body(body, False)

    def switch(self, head: ResponseHead, data: bytes) -> None:
        """Say that the tunnel stands (RFC 8441 section 5), and carry raw bytes from here on."""
        channel = self.channel
        self.exchange.bytes_out += len(data)
        lines = [line for line in head.lines if line[:21].lower() != b"sec-websocket-accept:"]
        channel.send_window.send_head(
            encode_status(200) + encode_lines(b"".join(lines) + self.exchange.fields), False
        )
        if data:
            channel.send_window.send_body(data, False)
        channel.tunnel()

    def raw_writer(self) -> Callable[[bytes], None]:
        """What sends raw bytes to the client."""
        return self.send_body

    def send_body(self, data: bytes) -> None:
        """Send more of the response."""
        self.exchange.bytes_out += len(data)
        self.channel.send_window.send_body(data, False)

    def end_body(self, trailers: list[bytes]) -> None:
        """The response is complete; of a tunnel, what the service sends."""
        if self.exchange.phase is TUNNELLING:
            self._end_tunnel()
            return
        if trailers:
            self.channel.send_window.send_trailers(trailers)
        else:
            self.channel.send_window.send_body(b"", True)
        self._over()

    def interim(self, head: ResponseHead) -> None:
        """Relay a 1xx answer (RFC 9113 section 8.1)."""
        self.channel.send_window.send_head(encode_status(head.status) + encode_lines(b"".join(head.lines)), False)

    def _write_answer(self, status: int, reason: bytes, fields: bytes, body: bytes) -> None:
        channel = self.channel
        parts = [
            encode_status(status),
            _encoded_date(channel.site.date_line),
            _OWN,
            encode_lines(fields + self.exchange.fields),
        ]
        if status not in _NO_BODY:
            parts.append(_encoded_length(len(body)))
        if body and self.exchange.head.method != b"HEAD":
            channel.send_window.send_whole(b"".join(parts), body)
        else:
            channel.send_window.send_head(b"".join(parts), True)

    def _end_unanswered(self) -> None:
        """This client has had so many refusals that it gets no more of them: its connection ends, but of a trusted
        proxy's only the stream, since others are on that."""
        channel = self.channel
        self.exchange.end()
        self._over(finished=False)
        channel.over(ENHANCE_YOUR_CALM)
        connection = channel.connection
        if not self.exchange.context.policy.proxies.trusts(connection.peer):
            connection.lifecycle.turn_away(Http2Error(ENHANCE_YOUR_CALM, "too many refused requests"))

    def cut(self, *, at_once: bool = False) -> None:
        """End the client's message so that it is seen to be incomplete; `at_once`: what was sent may be lost."""
        channel = self.channel
        self._over(finished=False)
        channel.cut(not at_once)

    def render_stock(self, resource: Any) -> None:
        """Have an ordinary resource render; where a tunnel was asked for it has none to give."""
        if self.connects:
            self.refuse(NOT_IMPLEMENTED.because("No service that could open a tunnel handles this path."))
        else:
            super().render_stock(resource)

    def broken(self, event: str) -> None:
        """The stream violated the protocol: the exchange ends without a response, and the caller resets the
        stream."""
        if self.sink is not None:
            self.sink.abandon()
        exchange = self.exchange
        exchange.broken_off(self.body_done)
        exchange.end(event)
        self._over(finished=False)
        self._tell_stock(Failure(ConnectionAborted()))
