"""One client and its services in memory, for whatever bytes one of them sends: what must hold, and what came of it.

Each conversation is played twice, with its bytes at once and in pieces, and must come to the same.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import hpack
from twisted.logger import LogLevel, capturedLogs, formatEvent

from koder_gateway.policy.tenants import Registry, Tenant
from tests.kit.http1 import Ended, Fields, Message, Reader, is_whole, read_message
from tests.kit.http2_frames import DATA, END_STREAM, GOAWAY, HEADERS, RST_STREAM, WINDOW_UPDATE, Frame, frames_of
from tests.kit.http2_memory import Http2
from tests.kit.memory import HOST, MemoryGateway, Peer, settings_with

TENANTS = (Tenant("koder"), Tenant("acme"), Tenant("gone", status="suspended"))
HOSTS = {b"koder.id.koder.dev": b"koder", b"acme.id.koder.dev": b"acme", b"gone.id.koder.dev": b"gone"}
# Whatever the gateway may wait for has come to its end by then.
LONG = 400.0
# The sizes of pieces; which one is used depends on the bytes.
_SIZES = (1, 2, 3, 7, 19, 64, 301)
_HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
_LARGEST_FRAME = 16384


class Forwarded(NamedTuple):
    """A request as a service got it."""

    service: str
    method: bytes
    target: bytes
    body: bytes


class Answer(NamedTuple):
    """An answer as the client got it: how it ended says `Message.ended`, over HTTP/2 the frame that ended it."""

    status: int
    body: bytes
    ended: str


def pieces_of(data: bytes) -> Iterator[bytes]:
    """`data` in pieces of a size that depends on it."""
    size = _SIZES[zlib.crc32(data) % len(_SIZES)]
    return (data[start : start + size] for start in range(0, len(data), size))


def pass_time(gateway: MemoryGateway, seconds: float = LONG, steps: int = 8) -> None:
    """Let time pass in a few large steps: there is a sweep after each."""
    for _ in range(steps):
        gateway.reactor.advance(seconds / steps)
        gateway.sweep()


_SETTINGS = settings_with(requests={"allow_trailers": ("X-Trailer",)})
_REGISTRY = Registry(TENANTS)


@contextmanager
def playing() -> Iterator[MemoryGateway]:
    """A gateway with three tenants, one of them suspended; raises AssertionError if it logs a failure."""
    with capturedLogs() as events:
        gateway = MemoryGateway(_SETTINGS, tenants=_REGISTRY)
        # Slices of work end by count alone: a conversation that is played again goes the same way.
        gateway.site.turns.time = gateway.reactor.seconds
        yield gateway
    failed = [event for event in events if "log_failure" in event or event["log_level"] is LogLevel.critical]
    assert not failed, [formatEvent(event) or event.get("log_failure") for event in failed]


# -- services


def check_forwarded(message: Message) -> None:
    """A request that a service got names the tenant of its Host, and nothing that a client may not say."""
    host = message.one(b"host").lower().partition(b":")[0].removesuffix(b".")
    tenant = HOSTS.get(host) or message.one(b"x-tenant-id")
    assert message.values(b"x-tenant-id") == [tenant], message.raw
    assert message.values(b"x-forwarded-for") == [b"192.0.2.1"], message.raw
    assert not [name for name in message.names() if b"_" in name or name in (b"keep-alive", b"te", b"proxy")]
    hops = [value.lower() for value in message.values(b"connection")]
    assert hops == ([b"upgrade"] if b"upgrade" in message.names() else []), message.raw


def serve_all(gateway: MemoryGateway, answer: bytes = _HELLO) -> list[Forwarded]:
    """Have every service answer each whole request; what they got, in the order of services and connections."""
    got: list[Forwarded] = []
    progress = True
    while progress:
        progress = False
        for name in gateway.services:
            for connection in gateway.origin(name).connections:
                while not connection.gone and connection.received and is_whole(connection.received):
                    message, connection.received = read_message(connection.received)
                    check_forwarded(message)
                    got.append(Forwarded(name, message.method, message.target, message.body))
                    progress = True
                    short = message.method == b"HEAD"
                    connection.send(answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if short else answer)
    return got


# -- what clients get


def read_answers(
    received: bytes, methods: list[bytes], closed: str, messages: list[Message] | None = None
) -> list[Answer]:
    """The final answers in what a client got, read strictly; `methods` are those of its requests. `messages` gets
    them as they came."""
    pieces = [received] if received else []

    def receive() -> bytes:
        if not pieces:
            raise Ended("reset" if closed == "reset" else "closed")
        return pieces.pop()

    reader = Reader(receive)
    answers = []
    for method in methods:
        answer = reader.answer(method)
        if not answer.start:
            break
        answers.append(Answer(answer.status, _told(answer), answer.ended))
        if messages is not None:
            messages.append(answer)
        if answer.ended != "complete":
            break
    assert not reader.rest, f"nobody has asked for {reader.rest!r}"
    return answers


def _told(answer: Message) -> bytes:
    """The body of a service's answer, the code of the gateway's own."""
    return (answer.code.encode() if answer.body and answer.complete else b"") or answer.body


def _settle(gateway: MemoryGateway, client: Peer) -> None:
    """Let time pass until nothing is left of a client's connection."""
    pass_time(gateway)
    client.reset()
    gateway.hang_up()
    assert not gateway.site.in_flight
    assert not gateway.site.buffered.total


# -- the two paths over HTTP/1.1


def check_request_path(data: bytes) -> None:
    """Whatever a client sends. Of a head that is refused and a body that is broken either may be found first."""
    (got, answers), (got_cut, cut) = _play_client([data]), _play_client(list(pieces_of(data)))
    refused = [bool(each) and each[-1].status >= 400 for each in (answers, cut)]
    if all(refused):
        answers, cut = answers[:-1], cut[:-1]
    assert (got, answers) == (got_cut, cut), f"in pieces of {data!r}: {got_cut}, {cut}, at once: {got}, {answers}"


def _play_client(pieces: list[bytes]) -> tuple[list[Forwarded], list[Answer]]:
    with playing() as gateway:
        client = gateway.connect()
        got: list[Forwarded] = []
        for piece in pieces:
            client.send(piece)
            got += serve_all(gateway)
        pass_time(gateway, 1, 4)
        got += serve_all(gateway)
        received, closed = client.received, client.closed
        methods = [exchange.head.method for exchange in gateway.exchanges]
        answers = read_answers(received, methods, closed)
        assert len(answers) == len(methods)
        _settle(gateway, client)
    return got, answers


FIRST = b"POST /v1/users/first HTTP/1.1\r\nHost: %b\r\nContent-Length: 3\r\n\r\nabc" % HOST
SECOND = b"GET /v1/users/second HTTP/1.1\r\nHost: %b\r\n\r\n" % HOST
_OWN = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nSECOND"


def check_response_path(data: bytes) -> None:
    """Whatever a service sends: the first answer may be of its bytes, the second one has none of them. What is broken
    further on is found before the answer has begun, or cuts it."""
    for method in (b"GET", b"HEAD", b"POST"):
        first = FIRST if method == b"POST" else SECOND.replace(b"GET", method).replace(b"second", b"first")
        plays = [_play_service(pieces, first, method) for pieces in ([data], list(pieces_of(data)))]
        for answers in plays:
            assert len(answers) <= 2
            assert answers[1:] in ([], [Answer(200, b"SECOND", "complete")]), answers
        one, two = (answers[0] if answers else None for answers in plays)
        broken = [
            each is not None and (each.ended == "cut" or each.body == b"upstream_invalid") for each in (one, two)
        ]
        assert one == two or all(broken), f"in pieces of {data!r}: {two}, at once: {one}"


def _play_service(pieces: list[bytes], first: bytes, method: bytes) -> list[Answer]:
    with playing() as gateway:
        client = gateway.connect()
        client.send(first)
        service = gateway.origin().only
        service.take()
        service.send_in(pieces)
        if not client.closed:
            client.send(SECOND)
        if not service.closed and b"/second" in service.received:
            # Its first answer was whole, nothing came behind it, and the connection is used again.
            service.take()
            service.send(_OWN)
        service.close()
        serve_all(gateway, _OWN)
        answers = read_answers(client.received, [method, b"GET"], client.closed)
        _settle(gateway, client)
    return answers


# -- HTTP/2


def check_http2(data: bytes) -> None:
    """Whatever a client sends behind its preface and its SETTINGS. What comes of a stream that one side resets, or of
    a connection that one side ends, depends on when that happens."""
    whole, cut = _play_frames([data]), _play_frames(list(pieces_of(data)))
    ends = {RST_STREAM, GOAWAY}
    if ends.isdisjoint(frame.kind for frame in frames_of(data)) and ends.isdisjoint(whole[2] | cut[2]):
        assert whole == cut, f"in pieces of {data!r}: {cut}, at once: {whole}"


def _play_frames(pieces: list[bytes]) -> tuple[list[Forwarded], list[tuple[int, Answer]], set[int]]:
    with playing() as gateway:
        client = Http2(gateway, (4, 65535))
        frames = [*client.first]
        got: list[Forwarded] = []
        for piece in [*pieces, b""]:
            client.peer.send(piece)
            got += serve_all(gateway)
        pass_time(gateway, 1, 4)
        got += serve_all(gateway)
        frames += frames_of(client.peer.take())
        answers = judge_frames(frames)
        _settle(gateway, client.peer)
    return sorted(got), answers, {frame.kind for frame in frames}


def judge_frames(frames: list[Frame]) -> list[tuple[int, Answer]]:
    """The answers in what the gateway sent, by their streams; raises AssertionError for frames that may not come."""
    decoder = hpack.Decoder()
    heads: dict[int, Fields] = {}
    bodies: dict[int, bytes] = {}
    ended: dict[int, str] = {}
    for kind, flags, stream, payload in frames:
        assert len(payload) <= _LARGEST_FRAME
        if kind in (DATA, HEADERS):
            assert stream % 2, f"a frame on stream {stream}"
            assert stream not in ended, f"a frame behind the end of stream {stream}"
        if kind == HEADERS:
            assert flags & 0x4, "a block in one frame"
            fields = [(bytes(name), bytes(value)) for name, value in decoder.decode(payload, raw=True)]
            status = next((value for name, value in fields if name == b":status"), b"")
            assert bool(status) != (stream in heads), "one final response"
            if not status.startswith(b"1"):
                heads[stream] = [*heads.get(stream, []), *fields]
        elif kind == DATA:
            assert stream in heads, "no body before its head"
            bodies[stream] = bodies.get(stream, b"") + payload
        elif kind == RST_STREAM:
            ended.setdefault(stream, f"reset {int.from_bytes(payload, 'big')}")
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            ended[stream] = "complete"
        if kind == WINDOW_UPDATE:
            assert int.from_bytes(payload, "big") > 0
    answers = {
        stream: _http2_answer(heads.get(stream), bodies.get(stream, b""), how) for stream, how in ended.items()
    }
    return sorted(answers.items())


def _http2_answer(head: Fields | None, body: bytes, how: str) -> Answer:
    fields = dict(head or [])
    said = fields.get(b":status", b"0")
    if fields.get(b"content-type") == b"application/problem+json":
        body = body.partition(b'"code":"')[2].partition(b'"')[0]
    return Answer(int(said), body, how)
