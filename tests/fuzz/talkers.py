"""Clients and services of one conversation, whose every byte says whose it is.

A `Tag` stands in the target, the request id and the body of a request, and in the head and the body of the answer. It
has a checksum, so that a byte that was changed does not make another one of it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from twisted.internet.address import IPv4Address

from tests.fuzz.paths import Answer, read_answers
from tests.kit.http1 import IncompleteError, Message, read_message
from tests.kit.http2_frames import frames_of
from tests.kit.memory import MemoryGateway, Peer, join

_TAG = re.compile(rb"T([0-9]{4})([0-9a-f]{8})T")
PEER = "192.0.2.1"
# The type of a frame.
_HEADERS = 1


def _sum(number: bytes) -> bytes:
    return hashlib.sha256(number).hexdigest()[:8].encode()


def tag_of(number: int) -> bytes:
    """The tag of a request, by its number."""
    digits = b"%04d" % number
    return b"T%b%bT" % (digits, _sum(digits))


def tags_in(data: bytes) -> set[bytes]:
    """Every whole and unspoilt tag."""
    return {match[0] for match in _TAG.finditer(data) if match[2] == _sum(match[1])}


def _filled(tag: bytes, length: int) -> bytes:
    return (tag * (length // len(tag) + 1))[:length]


@dataclass
class Asked:
    """A request as its client means it, and its answer as the service means it. `reaches`: whether a service may get
    it. `length` is that of its body, `answer_length` of the answer's, at least. `trailer`: whether the request has
    one, `answer_trailer` whether the answer has."""

    tag: bytes
    method: bytes
    tenant: bytes
    reaches: bool
    length: int
    answer_length: int = 0
    trailer: bool = False
    answer_trailer: bool = False

    @property
    def body(self) -> bytes:
        return _filled(self.tag, self.length)

    @property
    def target(self) -> bytes:
        return b"/v1/users/" + self.tag

    def answer_body(self) -> bytes:
        # Numbered, so that a piece of it that comes twice or not at all is seen.
        lines = (b"%b %d\n" % (self.tag, number) for number in range(self.answer_length // 16))
        return b"".join(lines) + self.tag + b" " + self.tenant


@dataclass
class Client:
    """A client over HTTP/1.1. `waiting` has what it is going to send, `asked` its requests, in order. It is `honest`
    until some of its bytes are changed, and `late` once time has passed while some of them waited."""

    gateway: MemoryGateway
    asked: list[Asked] = field(default_factory=list)
    waiting: bytes = b""
    honest: bool = True
    late: bool = False
    http2 = False
    told_to_go = False

    def __post_init__(self) -> None:
        self.peer: Peer = self.gateway.connect(PEER)
        # How much it has sent and is going to send, and where its requests begin in that.
        self.sent = self._planned = 0
        self._begins: list[int] = []

    @property
    def over(self) -> bool:
        """Whether its connection is gone, from whichever side."""
        return bool(self.peer.gone or self.peer.closed)

    def ask(self, asked: Asked, *, chunked: bool, extra: bytes = b"") -> bytes:
        """The bytes of a request."""
        self.asked.append(asked)
        lines = b"Host: %b.id.koder.dev\r\nX-Request-ID: %b\r\n%b" % (asked.tenant, asked.tag, extra)
        body = asked.body
        if chunked:
            lines += b"Transfer-Encoding: chunked\r\n"
            half = len(body) // 2
            parts = [part for part in (body[:half], body[half:]) if part]
            trailer = b"X-Trailer: %b\r\n" % asked.tag if asked.trailer else b""
            body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n%b\r\n" % trailer
        elif body:
            lines += b"Content-Length: %d\r\n" % len(body)
        head = b"%b %b HTTP/1.1\r\n%b\r\n" % (asked.method, asked.target, lines)
        self._begins.append(self._planned)
        self._planned += len(head) + len(body)
        return head + body

    def flow(self, size: int) -> None:
        """Send so much of what waits."""
        self.flow_in_turn(size)
        self.gateway.reactor.advance(0)

    def flow_in_turn(self, size: int) -> None:
        """Send so much of what waits; others send in the same turn."""
        if not self.over:
            piece, self.waiting = self.waiting[:size], self.waiting[size:]
            self.sent += len(piece)
            self.peer.send_in_turn(piece)

    def _methods(self) -> list[bytes]:
        """Those of its requests as far as they have been sent: what is no method yet gets an answer with a body."""
        begins = zip(self.asked, self._begins, strict=True)
        return [asked.method if self.sent >= begin + len(asked.method) else b"" for asked, begin in begins]

    def hear(self) -> None:
        """Read what has come."""

    def outcomes(self) -> list[tuple[Asked, Answer]]:
        """What came of each request, as far as it was answered; raises AssertionError for what no client may get."""
        assert tags_in(self.peer.received) <= {asked.tag for asked in self.asked}, "somebody else's bytes"
        if not self.honest:
            return []
        closed = "reset" if self.peer.closed == "reset" else "clean"
        messages: list[Message] = []
        answers = read_answers(self.peer.received, self._methods(), closed, messages)
        for asked, message in zip(self.asked, messages, strict=False):
            if asked.answer_trailer and message.status == 200 and message.complete:
                assert message.trailers == [(b"X-A", asked.tag)], f"its trailer: {message.trailers}"
            # A head that has not come whole has no id of its own yet.
            assert message.value(b"x-request-id") == asked.tag or message.status == 408, f"not in order: {message!r}"
        return list(zip(self.asked, answers, strict=False))

    def finished(self) -> bool:
        """Whether nothing is left to be answered."""
        return self.over or not self.honest or self.told_to_go or len(self.outcomes()) == len(self.asked)


class Http2Talker(Client):
    """A client over HTTP/2: the library h2 judges each frame that it gets."""

    http2 = True
    told_to_go = False

    def __post_init__(self) -> None:
        gateway = self.gateway
        channel = gateway.site.buildProtocol(IPv4Address("TCP", PEER, 50000))
        self.peer = join(gateway.reactor, channel, peer=PEER, secure=True)
        gateway.clients.append(self.peer)
        near: Any = self.peer.near
        near.negotiatedProtocol = b"h2"
        channel.handshakeCompleted()
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self._h2.initiate_connection()
        self._streams: dict[int, Asked] = {}
        self._given_up: set[int] = set()
        self._answers: dict[int, list[Any]] = {}
        self._trailed: set[int] = set()
        self._unread = b""
        self.sent = 0
        self._all = b""
        self.waiting = self._h2.data_to_send()

    def ask(self, asked: Asked, *, chunked: bool, extra: bytes = b"") -> bytes:
        self.asked.append(asked)
        if not self.honest or self.over or self.told_to_go:
            return b""
        fields = [
            (b":method", asked.method),
            (b":scheme", b"https"),
            (b":path", asked.target),
            (b":authority", asked.tenant + b".id.koder.dev"),
            (b"x-request-id", asked.tag),
        ]
        for line in filter(None, extra.split(b"\r\n")):
            name, _, value = line.partition(b": ")
            fields.append((name.lower(), value))
        body = asked.body
        if body and not chunked:
            fields.append((b"content-length", b"%d" % len(body)))
        try:
            stream = self._h2.get_next_available_stream_id()
            self._h2.send_headers(stream, fields, end_stream=not body)
            if body:
                self._h2.send_data(stream, body, end_stream=True)
        except h2.exceptions.ProtocolError:
            # It has no room, or has been told to ask nothing more.
            self.asked.pop()
            return self._h2.data_to_send()
        self._streams[stream] = asked
        return self._h2.data_to_send()

    def give_up(self, which: int) -> None:
        """Reset one of its streams."""
        living = [stream for stream in self._streams if self._answers.get(stream, [0, b"", ""])[2] == ""]
        if living and self.honest and not self.over:
            stream = living[which % len(living)]
            try:
                self._h2.reset_stream(stream)
            except h2.exceptions.ProtocolError:
                return
            self._given_up.add(stream)
            self._answers.setdefault(stream, [0, b"", ""])[2] = "given up"
            self.waiting += self._h2.data_to_send()

    def hear(self) -> None:
        came = self.peer.take()
        self._all += came
        if not self.honest or not came:
            return
        self._unread += came
        while len(self._unread) >= 9 and len(self._unread) >= (size := 9 + int.from_bytes(self._unread[:3], "big")):
            frame, self._unread = self._unread[:size], self._unread[size:]
            if frame[3] == _HEADERS and int.from_bytes(frame[5:9], "big") in self._given_up:
                # On its way when the stream was reset. h2 takes an interim response then for a fault.
                self._h2.decoder.decode(frame[9:])
                continue
            for event in self._h2.receive_data(frame):
                self._hear(event)
        self.waiting += self._h2.data_to_send()

    def _hear(self, event: h2.events.Event) -> None:
        stream: int = getattr(event, "stream_id", 0) or 0
        answer = self._answers.setdefault(stream, [0, b"", ""])
        if isinstance(event, h2.events.ResponseReceived):
            fields = {bytes(name): bytes(value) for name, value in event.headers}
            answer[0] = int(fields[b":status"])
            assert fields[b"x-request-id"] == self._streams[stream].tag, "the answer of another request"
        elif isinstance(event, h2.events.DataReceived):
            answer[1] += event.data
            self._h2.acknowledge_received_data(event.flow_controlled_length, stream)
        elif isinstance(event, h2.events.TrailersReceived):
            asked = self._streams[stream]
            assert not asked.answer_trailer or list(event.headers) == [(b"x-a", asked.tag)], event.headers
            self._trailed.add(stream)
        elif isinstance(event, h2.events.StreamEnded):
            if answer[0] == 200 and self._streams[stream].answer_trailer:
                assert stream in self._trailed, "a trailer is lost"
            assert not answer[2], "a second end"
            answer[2] = "complete"
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.told_to_go = True
            # Streams that were opened before it go on (RFC 9113 section 6.8), of which this library knows nothing.
            self._h2.state_machine.state = h2.connection.ConnectionState.CLIENT_OPEN
        elif isinstance(event, h2.events.StreamReset):
            answer[2] = answer[2] or "reset"

    def outcomes(self) -> list[tuple[Asked, Answer]]:
        self.hear()
        assert tags_in(self._all) <= {asked.tag for asked in self.asked}, "somebody else's bytes"
        if not self.honest:
            for frame in frames_of(self._all):
                assert len(frame.payload) <= 16384
            return []
        return [
            (asked, Answer(*self._answers[stream]))
            for stream, asked in self._streams.items()
            if self._answers.get(stream, [0, b"", ""])[2]
        ]


class ServiceEnd:
    """The service's end of one of its connections. `heard` are the requests that it got whole."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.waiting = b""
        self.heard: list[Message] = []
        self.all = b""
        self.unanswered: list[Message] = []
        self.spoilt = False
        # How many of the last bytes that wait go out with the one before them: what is behind an answer's end. In a
        # later turn they could not be told from the answer to a next request.
        self.surplus = 0
        self.closes = False

    @property
    def over(self) -> bool:
        return bool(self.peer.gone or self.peer.closed)

    def hear(self) -> Iterator[Message]:
        """The requests that are whole by now."""
        while self.peer.received:
            try:
                message, rest = read_message(self.peer.received)
            except IncompleteError:
                return
            self.all += self.peer.received[: len(self.peer.received) - len(rest)]
            self.peer.received = rest
            self.heard.append(message)
            self.unanswered.append(message)
            yield message

    def flow(self, size: int) -> None:
        """Send so much of what waits."""
        self.flow_in_turn(size)
        # What a paused connection has not read yet is lost with it, in memory.
        if self.closes and not self.waiting and not self.over and not self.peer.near.paused:
            self.peer.close()
        self.peer.turn()

    def flow_in_turn(self, size: int) -> None:
        """Send so much of what waits; others send in the same turn."""
        if self.over:
            return
        if size >= len(self.waiting) - self.surplus:
            size, self.surplus = len(self.waiting), 0
        piece, self.waiting = self.waiting[:size], self.waiting[size:]
        self.peer.send_in_turn(piece)
