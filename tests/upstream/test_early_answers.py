"""A service that refuses an upload in its midst, and closes with the rest unread: its answer is what the client gets.

Such a close resets the connection, while the gateway still writes to it. Whether it reads the answer first, or fails
to write, is a matter of microseconds, so each case is tried many times.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.kit.authority import Authority
from tests.kit.clients import HOST, Client
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.http2_client import Http2Client
from tests.kit.http2_frames import DEFAULT_FRAME, DEFAULT_WINDOW, INITIAL_WINDOW_SIZE, block, data, headers
from tests.kit.secure_services import SecureService, Talk
from tests.kit.services import Origin, Peer, answer
from tests.kit.waiting import until

TIMES = 15
SIZE = 4 << 20
PIECE = b"z" * 65536
REFUSAL = b"too much" * 1000


def refuses(peer: Peer, number: int) -> None:
    """Reads a little, answers, and closes."""
    assert peer.head() is not None
    assert peer.more()
    peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.send(answer(REFUSAL, status="413 Content Too Large"))


def refuses_secretly(talk: Talk) -> None:
    # Else its own kernel may still have the answer when it resets the connection.
    talk.secured.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    talk.head()
    talk.body(1)
    talk.send(answer(REFUSAL, status="413 Content Too Large"))
    talk.cut()


@dataclass
class Served:
    """A gateway before one service of each kind."""

    gateway: GatewayProcess
    exchanges: int = 0


@pytest.fixture(scope="module", params=["uvloop", "epoll"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("early")
    authority = Authority(folder / "authority")
    with Origin(refuses) as origin, SecureService(authority.issue("127.0.0.1"), refuses_secretly) as secure:
        table = f"""
            [services.tls]
            url = "https://127.0.0.1:{secure.port}"
            ca = "{authority.path}"
            [[routes]]
            path = "/tls"
            service = "tls"
        """
        config = configuration({"plain": origin.url}, extra=table)
        ports = (GatewayProcess.PLAIN, GatewayProcess.TLS)
        with GatewayProcess(folder, config, ports=ports, reactor=request.param) as gateway:
            yield Served(gateway)


def upload(client: Client, path: str, *, chunked: bool) -> None:
    """All of it, as far as it is taken."""
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {SIZE}"
    with contextlib.suppress(OSError):  # the test closes the connection meanwhile
        taken = client.send(f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\n{framing}\r\n\r\n".encode())
        for _ in range(SIZE // len(PIECE)):
            taken = taken and client.send(b"%x\r\n%b\r\n" % (len(PIECE), PIECE) if chunked else PIECE)


def ask(gateway: GatewayProcess, path: str, *, chunked: bool) -> tuple[int, bytes, bool]:
    with gateway.connect() as client:
        sender = threading.Thread(target=upload, args=(client, path), kwargs={"chunked": chunked})
        sender.start()
        seen = client.read("POST")
        client.abort()
        sender.join()
        return seen.status, seen.body, seen.complete


def ask_http2(gateway: GatewayProcess, path: str) -> tuple[int, bytes, bool]:
    host = HOST.encode()
    fields = [(b":method", b"POST"), (b":scheme", b"https"), (b":path", path.encode()), (b":authority", host)]
    with Http2Client.connect(gateway.ports[1], host).start() as client:
        client.send(headers(1, block([*fields, (b"content-length", b"%d" % SIZE)]), end=False))
        initial = client.settings.get(INITIAL_WINDOW_SIZE, DEFAULT_WINDOW)
        sent = 0
        while not client.answers[1].over:
            room = min(DEFAULT_WINDOW + client.given.get(0, 0), initial + client.given.get(1, 0), SIZE) - sent
            if room <= 0:
                assert client.next() is not None, client.described()
                continue
            size = min(room, DEFAULT_FRAME)
            client.send(data(1, bytes(size)))
            sent += size
        seen = client.answers[1]
        return seen.status, seen.body, seen.complete


@pytest.mark.parametrize("framing", ["length", "chunked", "http2"])
@pytest.mark.parametrize("service", ["plain", "tls"])
def test_the_answer_reaches_the_client(served: Served, service: str, framing: str) -> None:
    gateway = served.gateway
    for _ in range(TIMES):
        served.exchanges += 1
        if framing == "http2":
            seen = ask_http2(gateway, f"/{service}")
        else:
            seen = ask(gateway, f"/{service}", chunked=framing == "chunked")
        assert seen == (413, REFUSAL, True)
    until(lambda: len(gateway.access()) == served.exchanges, "each exchange has its line")
    assert {(line["status"], line["code"]) for line in gateway.access()} == {(413, "")}
    assert [line for line in gateway.log().splitlines() if "#warn" in line and ": limits: " not in line] == []
