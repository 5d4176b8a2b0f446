"""A request that came over HTTP/1.1: the client's side of its exchange, written in one go wherever that can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.python.failure import Failure

from ..downstream.ports import RequestChannel
from ..downstream.request import GatewayRequest
from ..exchange.states import TUNNELLING
from ..policy.limit_keys import address_key
from ..reactor.read_sizes import room_of
from ..wire.body import chunk, last_chunk
from ..wire.refusal_writer import OWN_FIELDS
from ..wire.response import ResponseHead

_CLOSE = b"Connection: close\r\n"
_KEEP_ALIVE = b"Connection: keep-alive\r\n"
_NO_BODY = frozenset((204, 304))
# Status and reason, Date, the fields of the answer and of its exchange, length and persistence; the body.
_OWN_ANSWER = b"HTTP/1.1 %d %b\r\n%b%b" + OWN_FIELDS + b"%b%b%b\r\n%b"


class RequestConnection(RequestChannel, Protocol):
    """What a request asks of its connection. `write` sends bytes to the client at the address `peer`."""

    peer: str
    write: Callable[[bytes], object]

    def settle_rest(self) -> None:
        """A response is about to be sent before its request's body has come: decide whether to keep the
        connection."""

    def write_last(self, data: bytes) -> None:
        """Send the last bytes to the client: the connection is closed next."""

    def tunnel(self) -> None:
        """The service has switched protocols: pass on to it what has waited and whatever comes."""


class Http1Request(GatewayRequest):
    """One request of an HTTP/1.1 connection."""

    protocol = b"HTTP/1.1"
    paused_early = False
    channel: RequestConnection
    # Whether the response is sent in chunks.
    _chunking = False

    def lose(self, reason: Failure) -> None:
        """The connection is gone, and the exchange ends with it: late in a turn of the reactor in a later one, since
        thousands of clients may be lost together. Until then what a service sends is forgotten."""
        channel = self.channel
        turns = channel.site.turns
        if turns.time() >= turns.ends and not self._is_stock and turns.over():
            turns.later(lambda: self.lost(reason), address_key(channel.peer))
        else:
            self.lost(reason)

    @property
    def connects(self) -> bool:
        """Whether a 2xx would tell the client that a tunnel stands: not here, where Upgrade asks for it."""
        return False

    def room(self) -> int:
        """Bytes of the response that its transport takes at once."""
        return room_of(self.channel.transport)

    def respond(self, head: ResponseHead, body: bytes, done: bool) -> None:
        """Send the service's head, and what there is of its body, in one write."""
        exchange = self.exchange
        channel = self.channel
        exchange.bytes_out += len(body)
        text = head.text
        if text is None:
            text = head.text = b"HTTP/1.1 %d %b\r\n%b" % (head.status, head.reason, b"".join(head.lines))
        lines = [text]
        if not head.dated:
            lines.append(channel.site.date_line)
        lines.append(exchange.fields)
        if head.stated is not None:
            lines.append(b"Content-Length: %d\r\n" % head.stated)
        elif not done:
            if exchange.head.minor:
                self._chunking = True
                lines.append(b"Transfer-Encoding: chunked\r\n")
                if body:
                    body = chunk(body)
            else:
                channel.keep_alive = False
        lines.append(self._persistence(done))
        lines.append(b"\r\n")
        lines.append(body)
        if done and not channel.keep_alive and self.body_done and not channel.lingers:
            channel.write_last(b"".join(lines))
        else:
            write = channel.write
            write(b"".join(lines))
        if done:
            self._over()

    def _persistence(self, done: bool) -> bytes:
        """The Connection field that says what becomes of the client's connection."""
        channel = self.channel
        if done and not self.body_done:
            channel.settle_rest()
        if not channel.keep_alive:
            return _CLOSE
        return b"" if self.exchange.head.minor else _KEEP_ALIVE

    def send_body(self, data: bytes) -> None:
        """Send more of the response."""
        self.exchange.bytes_out += len(data)
        self.channel.write(chunk(data) if self._chunking else data)

    def switch(self, head: ResponseHead, data: bytes) -> None:
        """Say that the service has switched protocols, and carry raw bytes from here on."""
        channel = self.channel
        self.exchange.bytes_out += len(data)
        lines = (b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason), *head.lines, self.exchange.fields)
        switched = b"Connection: Upgrade\r\nUpgrade: %b\r\n\r\n" % (head.upgrade or b"")
        channel.write(b"".join((*lines, switched, data)))
        channel.tunnel()

    def raw_writer(self) -> Callable[[bytes], None]:
        """What sends raw bytes to the client: it does nothing else, since a tunnel may carry many small messages."""
        exchange, channel = self.exchange, self.channel

        def write_raw(data: bytes) -> None:
            exchange.bytes_out += len(data)
            write = channel.write
            write(data)

        return write_raw

    def end_body(self, trailers: list[bytes]) -> None:
        """The response is complete; of a tunnel, what the service sends."""
        if self.exchange.phase is TUNNELLING:
            self._end_tunnel()
            return
        if self._chunking:
            self.channel.write(last_chunk(trailers))
        if not self.body_done:
            self.channel.keep_alive = False
        self._over()

    def interim(self, head: ResponseHead) -> None:
        """Relay a 1xx answer (RFC 9110 section 15.2): never to HTTP/1.0."""
        if self.exchange.head.minor:
            self.channel.write(b"".join((b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason), *head.lines, b"\r\n")))

    def _write_answer(self, status: int, reason: bytes, fields: bytes, body: bytes) -> None:
        exchange = self.exchange
        length = b"" if status in _NO_BODY else b"Content-Length: %d\r\n" % len(body)
        persistence = self._persistence(True)
        self.channel.write(
            _OWN_ANSWER
            % (
                status,
                reason,
                self.channel.site.date_line,
                fields,
                exchange.fields,
                length,
                persistence,
                b"" if exchange.head.method == b"HEAD" else body,
            )
        )

    def _end_unanswered(self) -> None:
        """This client has had so many refusals that it gets no more of them: its connection ends, behind the
        responses that it has coming."""
        channel = self.channel
        self.exchange.end()
        channel.keep_alive = False
        self._over(finished=False)
        channel.cut(True)

    def cut(self, *, at_once: bool = False) -> None:
        """End the client's message so that it is seen to be incomplete; `at_once`: what was sent may be lost."""
        channel = self.channel
        # With a length or chunks a plain close shows; without them only a reset does.
        plain = not at_once and (self._chunking or self.exchange.head.minor == 1)
        self._over(finished=False)
        channel.cut(plain)
