"""The same head again on one connection is the same request, however large it is and whatever became of the first."""

from __future__ import annotations

import pytest
from http2_frames import block, data, in_frames
from memory import HOST, MemoryGateway, read_messages
from test_http2_streams import Http2

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
OWN = {b"x-request-id", b"traceparent"}
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
