"""A request that must not be sent twice is not, whatever a service says on the connection that it reuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.kit.clients import HOST, request
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.http2_client import Http2Client
from tests.kit.http2_frames import DEFAULT_FRAME, DEFAULT_WINDOW, INITIAL_WINDOW_SIZE, block, data, headers
from tests.kit.services import Origin, Peer, answer

GIVEN_UP = answer(b"too late", "Connection: close", status="408 Request Timeout")
PIECE = 16000
FRAMINGS = ("length", "chunked", "http2 length", "http2")


@dataclass
class Served:
    """A gateway before a service that answers the first request on a connection, and gives up at the second once it
    has read all of it. `requests`: the connection, method and body's size of each."""

    gateway: GatewayProcess
    requests: list[tuple[int, str, int]] = field(default_factory=list)

    def play(self, peer: Peer, number: int) -> None:
        """The service's side."""
        turn = 0
        while (received := peer.head()) is not None:
            self.requests.append((number, received.method.decode(), len(peer.body(received))))
            if turn:
                peer.send(GIVEN_UP)
                return
            peer.send(answer(b"first"))
            turn += 1

    def ask(self, framing: str, method: str, size: int = 0) -> tuple[int, bytes]:
        """The answer's status and body."""
        if framing.startswith("http2"):
            return self._ask_http2(method, size, announced="length" in framing)
        with self.gateway.connect() as client:
            if framing == "chunked":
                chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces(size))
                head = f"{method} /a HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n"
                client.send(head.encode() + chunks + b"0\r\n\r\n")
            else:
                client.send(request(method, "/a", body=bytes(size)))
            seen = client.read(method)
            assert seen.complete
            return seen.status, seen.body

    def _ask_http2(self, method: str, size: int, *, announced: bool) -> tuple[int, bytes]:
        host = HOST.encode()
        fields = [(b":method", method.encode()), (b":scheme", b"https"), (b":path", b"/a"), (b":authority", host)]
        if announced:
            fields.append((b"content-length", b"%d" % size))
        with Http2Client.connect(self.gateway.ports[1], host).start() as client:
            client.send(headers(1, block(fields), end=not size))
            initial = client.settings.get(INITIAL_WINDOW_SIZE, DEFAULT_WINDOW)
            sent = 0
            while sent < size:
                room = min(DEFAULT_WINDOW + client.given.get(0, 0), initial + client.given.get(1, 0)) - sent
                piece = min(room, DEFAULT_FRAME, size - sent)
                if piece > 0:
                    sent += piece
                    client.send(data(1, bytes(piece), end=sent == size))
                else:
                    assert client.next() is not None, client.described()
            seen = client.answer(1)
            assert seen.complete
            return seen.status, bytes(seen.body)


def pieces(size: int) -> Iterator[bytes]:
    """A body of this size."""
    for start in range(0, size, PIECE):
        yield bytes(min(PIECE, size - start))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Origin() as origin:
        ports = (GatewayProcess.PLAIN, GatewayProcess.TLS)
        with GatewayProcess(tmp_path, configuration({"a": origin.url}), ports=ports) as gateway:
            served = Served(gateway)
            origin.play = served.play
            yield served


def test_what_is_not_idempotent_gets_the_408_and_is_not_sent_again(served: Served) -> None:
    expected = []
    for number, (framing, size) in enumerate((framing, size) for framing in FRAMINGS for size in (4, 100_000)):
        assert served.ask(framing, "GET") == (200, b"first")
        assert served.ask(framing, "POST", size) == (408, b"too late"), (framing, size)
        expected += [(number, "GET", 0), (number, "POST", size)]
    assert served.requests == expected


@pytest.mark.parametrize("framing", ["length", "http2"])
def test_what_is_idempotent_is_sent_once_more(framing: str, served: Served) -> None:
    assert served.ask(framing, "GET") == (200, b"first")
    assert served.ask(framing, "PUT", 4) == (200, b"first")
    assert served.requests == [(0, "GET", 0), (0, "PUT", 4), (1, "PUT", 4)]
