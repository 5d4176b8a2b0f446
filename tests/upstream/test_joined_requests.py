"""While writes wait for the end of the turn: no request waits that would fail if its service closed meanwhile."""

from __future__ import annotations

import pytest

from koder_gateway.reactor.turns import turns_of
from tests.kit.memory import MemoryGateway, request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


@pytest.mark.parametrize(
    ("method", "body", "kept", "busy", "at_once"),
    [
        # It is not sent once more where a kept connection turns out to be closed.
        (b"POST", b"x", True, True, True),
        # These are.
        (b"GET", b"", True, True, False),
        (b"PUT", b"x", True, True, False),
        # No service closes a connection that it has just accepted.
        (b"POST", b"x", False, True, False),
        # Nothing waits then.
        (b"POST", b"x", True, False, True),
    ],
)
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_a_request_that_is_sent_only_once_does_not_wait_on_a_kept_connection(
    gateway: MemoryGateway, method: bytes, body: bytes, kept: bool, busy: bool, at_once: bool, secure: bool
) -> None:
    turns_of(gateway.reactor).joined.wanted = busy
    client = gateway.connect(secure=secure)
    if kept:
        client.send(request())
        gateway.origin().only.send(OK)
        gateway.origin().only.take()
    client.send_in_turn(request(method, b"/v1/users", b"Content-Length: %d" % len(body), body=body))
    if kept:
        assert gateway.origin().only.received.startswith(method) == at_once
    client.turn()
    assert gateway.origin().only.received.startswith(method)
