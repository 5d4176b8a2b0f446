"""Large heads: kept once while their service has them, and the same head again on one connection is the same request,
whatever became of the first."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

import pytest

from koder_gateway.wire.upgrade import KEY, accept
from tests.kit.http1 import read_messages
from tests.kit.http2_frames import block, data, in_frames
from tests.kit.http2_memory import Http2
from tests.kit.memory import HOST, MemoryGateway

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
OWN = {b"x-request-id", b"traceparent"}
KIB = 1024
STREAMS = 99
MAX_HEAD = 32 * KIB
SIZES = [1_000, 3_000, 9_000, 30_000]
METHODS = [b"GET", b"POST"]


def forwarded(gateway: MemoryGateway, *, answer: bool) -> list[tuple[object, ...]]:
    """What the service has received, without what is each request's own; each is answered if they are to be."""
    requests = []
    for connection in gateway.origin().connections:
        for message in read_messages(connection.take()):
            fields = [(name.lower(), value) for name, value in message.fields if name.lower() not in OWN]
            requests.append((message.start, fields, message.body))
            if answer:
                connection.send(OK)
    return requests


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("body", [b"", b"x"], ids=["empty", "body"])
@pytest.mark.parametrize("answered", [True, False], ids=["in turn", "at once"])
def test_over_http2(size: int, method: bytes, body: bytes, answered: bool) -> None:
    gateway = MemoryGateway()
    client = Http2(gateway)
    fields = [(b":method", method), (b":scheme", b"https"), (b":path", b"/v1/users"), (b":authority", HOST)]
    asked = block([*fields, (b"cookie", b"c" * size), (b"authorization", b"Bearer one")])
    requests = []
    for stream in (1, 3, 5):
        client.send(in_frames(stream, asked, end=method == b"GET"))
        if method == b"POST":
            client.send(data(stream, body, end=True))
        requests += forwarded(gateway, answer=answered)
    gateway.hang_up()
    check(requests, size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", METHODS)
def test_over_http1(size: int, method: bytes) -> None:
    gateway = MemoryGateway()
    client = gateway.connect(secure=True)
    requests = []
    for _ in range(3):
        client.send(
            b"%b /v1/users HTTP/1.1\r\nHost: %b\r\nCookie: %b\r\nAuthorization: Bearer one\r\n%b\r\n"
            % (method, HOST, b"c" * size, b"Content-Length: 1\r\n" if method == b"POST" else b"")
            + (b"x" if method == b"POST" else b"")
        )
        requests += forwarded(gateway, answer=True)
    gateway.hang_up()
    check(requests, size)


def check(requests: list[tuple[object, ...]], size: int) -> None:
    first, second, third = requests
    assert first == second == third
    assert isinstance(first[1], list)
    said = dict(first[1])
    assert (said[b"host"], said[b"cookie"], said[b"authorization"]) == (HOST, b"c" * size, b"Bearer one")


# -- what is kept of them while a service does not answer


def pseudo(method: bytes) -> list[tuple[bytes, bytes]]:
    return [(b":method", method), (b":scheme", b"https"), (b":path", b"/v1/users"), (b":authority", HOST)]


def held(gateway: MemoryGateway, steps: list[Callable[[], object]]) -> int:
    """Bytes that are held after these steps and were not before, what the service has received left out."""
    gc.collect()
    tracemalloc.start()
    try:
        for step in steps:
            step()
        for connection in gateway.origin().connections:
            connection.take()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("fields", [1, 7, 90])
@pytest.mark.parametrize("size", [2_000, 4_000, 9_000, 31_000])
@pytest.mark.parametrize("method", METHODS)
def test_http2_keeps_them_once(fields: int, size: int, method: bytes) -> None:
    """No connection holds more than the heads that it may send, and 512 KiB."""
    gateway = MemoryGateway()
    client = Http2(gateway)
    asked = []
    for number in range(STREAMS + 1):
        more = [(b"x-%d" % n, (b"%d-" % number).ljust((size - 200) // fields - 6, b"v")) for n in range(fields)]
        sent = in_frames(2 * number + 1, block([*pseudo(method), *more]), end=method == b"GET")
        asked.append(sent + (data(2 * number + 1, b"x") if method == b"POST" else b""))
    client.send(asked[0])
    steps = [lambda sent=sent: client.send(sent) for sent in asked[1:]]  # type: ignore[misc]
    kept = held(gateway, steps)  # type: ignore[arg-type]
    assert len(client.channel.streams) == STREAMS + 1
    assert len(gateway.origin().connections) == STREAMS + 1
    assert kept < STREAMS * MAX_HEAD + 512 * KIB
    if size > 9_000:
        assert kept < STREAMS * (size + 9 * KIB)
    gateway.hang_up()


@pytest.mark.parametrize("framing", [b"", b"Content-Length: 9\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_http1_keeps_them_once(framing: bytes) -> None:
    gateway = MemoryGateway()
    clients = [gateway.connect(secure=True) for _ in range(20)]
    start = b"POST" if framing else b"GET"
    line = b"%b /v1/users HTTP/1.1\r\nHost: %b\r\n%b" % (start, HOST, framing)
    asked = [line + b"Cookie: %d" % n + b"c" * 31_000 + b"\r\n\r\n" + b"1\r\nx" * bool(framing) for n in range(20)]
    steps = [lambda pair=pair: pair[0].send(pair[1]) for pair in zip(clients, asked, strict=True)]  # type: ignore[misc]
    assert held(gateway, steps) < len(clients) * (31_000 + 20 * KIB)  # type: ignore[arg-type]
    assert len(gateway.origin().connections) == len(clients)
    gateway.hang_up()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("way", ["http1", "http2"])
def test_a_websocket_opens_with_one(way: str, size: int) -> None:
    """Its key is there when the service answers."""
    gateway = MemoryGateway()
    if way == "http2":
        client = Http2(gateway)
        fields = [(b":protocol", b"websocket"), (b"sec-websocket-version", b"13"), (b"cookie", b"c" * size)]
        client.send(in_frames(1, block([*pseudo(b"CONNECT"), *fields]), end=False))
    else:
        peer = gateway.connect(secure=True)
        peer.send(
            b"GET /v1/users HTTP/1.1\r\nHost: %b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nCookie: %b\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % (HOST, b"c" * size)
        )
    (message,) = read_messages(gateway.origin().only.take())
    assert message.one(b"cookie") == b"c" * size
    switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    gateway.origin().only.send(switch + b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept(message.one(KEY)))
    if way == "http2":
        came = client.after(0)
        assert came[0].payload.startswith(b"\x20\x88")
    else:
        assert peer.take().startswith(b"HTTP/1.1 101 ")
    gateway.hang_up()
