"""Requests to an authority: trusted, bounded in size and in time."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trustme

from koder_gateway.acme.bounded_http import LONGEST_ANSWER, BoundedHttp, UnreachableError

Handle = Callable[[ssl.SSLSocket], None]


class Server:
    """TLS on loopback; each connection is handled by the test's function."""

    def __init__(self, handle: Handle, authority: trustme.CA) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self._context)
        self._server = socket.create_server(("127.0.0.1", 0))
        self._handle = handle
        self.url = f"https://127.0.0.1:{self._server.getsockname()[1]}/directory"
        self.connections = 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                self.connections += 1
                with suppress(OSError), self._context.wrap_socket(connection, server_side=True) as secure:
                    self._handle(secure)

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return ca


@pytest.fixture
def serve(authority: trustme.CA) -> Iterator[Callable[[Handle], Server]]:
    servers: list[Server] = []

    def make(handle: Handle) -> Server:
        servers.append(Server(handle, authority))
        return servers[-1]

    yield make
    for each in servers:
        each.close()


Make = Callable[..., BoundedHttp]


@pytest.fixture
def client(tmp_path: Path, authority: trustme.CA) -> Iterator[Make]:
    made: list[BoundedHttp] = []

    def make(ca: str = str(tmp_path / "ca.pem"), **options: float) -> BoundedHttp:
        made.append(BoundedHttp(ca, "koder-gateway/0", **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def ok(connection: ssl.SSLSocket) -> None:
    while connection.recv(4096):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nReplay-Nonce: x\r\n\r\n{}")


def fault(http: BoundedHttp, url: str) -> str:
    with pytest.raises(UnreachableError) as told:
        http.request("GET", url, {}, None)
    return str(told.value)


def test_a_connection_is_kept(client: Make, serve: Callable[[Handle], Server]) -> None:
    server = serve(ok)
    http = client()
    for _ in range(3):
        response = http.request("POST", server.url, {"Content-Type": "application/jose+json"}, "{}")
        assert (response.status_code, response.json(), response.headers["Replay-Nonce"]) == (200, {}, "x")
    assert server.connections == 1
    http.close()
    assert http.request("GET", server.url, {}, None).ok


def test_one_that_was_closed_meanwhile_is_made_anew(client: Make, serve: Callable[[Handle], Server]) -> None:
    def once(connection: ssl.SSLSocket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    server = serve(once)
    http = client()
    assert [http.request("GET", server.url, {}, None).status_code for _ in range(2)] == [200, 200]
    assert server.connections == 2


@pytest.mark.parametrize(
    "answer",
    [b"Content-Length: 5\r\n\r\n{}", b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", b"Content-Length: 5\r\n\r\n"],
)
def test_an_answer_that_is_cut_off_is_none(client: Make, serve: Callable[[Handle], Server], answer: bytes) -> None:
    def cut(connection: ssl.SSLSocket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + answer)

    assert fault(client(), serve(cut).url) == "its answer is cut off"


def test_an_answer_has_a_bound(client: Make, serve: Callable[[Handle], Server]) -> None:
    def huge(connection: ssl.SSLSocket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (2 * LONGEST_ANSWER))

    http = client()
    assert fault(http, serve(huge).url) == "its answer has more than 256 KiB"


def test_an_answer_that_drips_has_a_deadline(client: Make, serve: Callable[[Handle], Server]) -> None:
    """Each byte comes in time, and the answer never."""
    over = threading.Event()

    def drip(connection: ssl.SSLSocket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while not over.wait(0.02):
            connection.sendall(b"x")

    http = client(timeout=0.5)
    try:
        assert fault(http, serve(drip).url) == "it has not answered within 0.5 seconds"
    finally:
        over.set()


def test_what_else_goes_wrong_is_told(client: Make, serve: Callable[[Handle], Server]) -> None:
    def no_http(connection: ssl.SSLSocket) -> None:
        connection.recv(4096)
        connection.sendall(b"220 mail.example ESMTP\r\n")

    server = serve(ok)
    trusting, stranger = client(), client("")
    assert fault(stranger, server.url).startswith("its certificate is not trusted: ")
    assert fault(trusting, serve(no_http).url) == "its answer is no HTTP"
    assert fault(trusting, "http://127.0.0.1/") == "it names a URL that is not https"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert fault(trusting, f"https://127.0.0.1:{port}/") == "it cannot be reached: connection refused"


def test_a_redirect_is_not_followed(client: Make, serve: Callable[[Handle], Server]) -> None:
    def redirect(connection: ssl.SSLSocket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")

    http = client()
    assert http.request("GET", serve(redirect).url, {}, None).status_code == 302
