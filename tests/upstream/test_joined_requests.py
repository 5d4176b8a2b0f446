"""While writes wait for the end of the turn: no request waits that would fail if its service closed meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from koder_gateway.reactor.turns import turns_of
from tests.kit.memory import MemoryGateway, request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


@pytest.mark.parametrize(
    ("method", "body", "kept", "busy", "flushed"),
    [
        # It is not sent once more where a kept connection turns out to be closed.
        (b"POST", b"x", True, True, 1),
        # These are.
        (b"GET", b"", True, True, 0),
        (b"PUT", b"x", True, True, 0),
        # No service closes a connection that it has just accepted.
        (b"POST", b"x", False, True, 0),
        # Nothing waits then.
        (b"POST", b"x", True, False, 0),
    ],
)
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_a_request_that_is_sent_only_once_does_not_wait_on_a_kept_connection(
    gateway: MemoryGateway, method: bytes, body: bytes, kept: bool, busy: bool, flushed: int, secure: bool
) -> None:
    turns_of(gateway.reactor).joined.wanted = busy
    client = gateway.connect(secure=secure)
    origin = gateway.origin()
    flushes: list[bytes] = []
    if kept:
        client.send(request())
        origin.connections[-1].send(OK)
        service = origin.connections[-1]
        service.take()
        near: Any = service.near
        near.flush = lambda: flushes.append(service.take())
    client.send(request(method, b"/v1/users", b"Content-Length: %d" % len(body), body=body))
    # Once it is written.
    assert [sent[: len(method)] for sent in flushes] == [method] * flushed
