"""Whether a name leads here, with real peers that do this or that."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import pytest

from koder_gateway.acme.issued import challenge_certificate
from koder_gateway.acme.layout import Layout
from koder_gateway.acme.resolving import ResolutionError
from koder_gateway.acme.self_check import Held, SelfCheck, is_own_address
from koder_gateway.acme.state_folder import StateFolder

NAME, BASE = "login.example", "id.example"


class Resolver:
    """Knows what a test says."""

    def __init__(self, **known: list[str]) -> None:
        self.known = {name.replace("_", "."): addresses for name, addresses in known.items()}

    def addresses(self, name: str) -> Sequence[str]:
        """See `Resolver`."""
        if name not in self.known:
            raise ResolutionError("does not exist")
        return self.known[name]


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    return StateFolder(Layout(tmp_path), "me")


class Peer:
    """Listens on a loopback address, and does with each connection what the test says."""

    def __init__(self, handle: Callable[[socket.socket], None], port: int = 0) -> None:
        self._server = socket.create_server(("127.0.0.1", port))
        self.port = int(self._server.getsockname()[1])
        self._handle = handle
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                with connection, suppress(OSError):
                    self._handle(connection)

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


class Peers(Protocol):
    """Makes one."""

    def __call__(self, handle: Callable[[socket.socket], None], port: int = 0) -> Peer:
        """A peer that does this, on a port of the kernel's choice if it is 0."""


@pytest.fixture
def peer() -> Iterator[Peers]:
    peers: list[Peer] = []

    def make(handle: Callable[[socket.socket], None], port: int = 0) -> Peer:
        peers.append(Peer(handle, port))
        return peers[-1]

    yield make
    for each in peers:
        each.close()


def look(folder: StateFolder, port: int, challenge: str = "tls-alpn-01", **known: list[str]) -> Held | None:
    known = known or {"login_example": ["127.0.0.1"]}
    waited: list[float] = []
    check = SelfCheck(
        challenge,
        port,
        BASE,
        Resolver(**known),
        folder,
        is_own=lambda address: address == "127.0.1.9",
        now=lambda: sum(waited),
    )
    return check.look(NAME, waited.append)


def answer_alpn(folder: StateFolder) -> Callable[[socket.socket], None]:
    """As a gateway with that folder."""

    def handle(connection: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["acme-tls/1"])
        path = folder.layout.alpn_challenge(NAME)
        assert path is not None
        context.load_cert_chain(path)
        with context.wrap_socket(connection, server_side=True):
            pass

    return handle


def answer_http(folder: StateFolder, status: str = "200 OK") -> Callable[[socket.socket], None]:
    def handle(connection: socket.socket) -> None:
        request = connection.recv(4096).decode()
        path = folder.layout.http_challenge(request.split(" ")[1].rpartition("/")[2])
        assert path is not None
        connection.sendall(f"HTTP/1.1 {status}\r\n\r\n".encode() + path.read_bytes())

    return handle


@pytest.mark.parametrize(
    "known",
    [
        {"login_example": ["127.0.1.9"]},
        {"login_example": ["127.0.2.1"], "id_example": ["127.0.2.1", "127.0.2.2"]},
        {"login_example": ["127.0.1.9", "127.0.2.2"], "id_example": ["127.0.2.2"]},
    ],
)
def test_an_address_of_this_machine_or_of_the_base_domain_is_enough(
    folder: StateFolder, known: dict[str, list[str]]
) -> None:
    assert look(folder, 1, **known) is None


def test_an_address_that_is_right_is_waited_for_until_it_answers(folder: StateFolder, peer: Peers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
    tries: list[float] = []
    seen: list[str] = []

    def answer(connection: socket.socket) -> None:
        seen.append("asked")
        answer_alpn(folder)(connection)

    def wait(seconds: float) -> None:
        tries.append(seconds)
        if len(tries) == 3:
            peer(answer, port)

    resolver = Resolver(login_example=["127.0.0.1"], id_example=["127.0.0.1"])
    check = SelfCheck("tls-alpn-01", port, BASE, resolver, folder, now=lambda: sum(tries))
    assert check.look(NAME, wait) is None
    assert (len(tries), seen) == (3, ["asked"])
    # Not for each name, once it has.
    assert check.look(NAME, wait) is None
    assert seen == ["asked"]


def test_an_address_that_is_right_is_taken_at_its_word_in_the_end(folder: StateFolder) -> None:
    """A router may keep its own clients out."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
    tries: list[float] = []
    resolver = Resolver(login_example=["127.0.0.1"], id_example=["127.0.0.1"])
    check = SelfCheck("tls-alpn-01", port, BASE, resolver, folder, now=lambda: sum(tries))
    assert check.look(NAME, tries.append) is None
    waited = sum(tries)
    assert 5 < waited < 30
    assert check.look(NAME, tries.append) is None
    assert sum(tries) == waited


def test_any_other_must_answer(folder: StateFolder, peer: Peers) -> None:
    assert look(folder, peer(answer_alpn(folder)).port) is None
    assert look(folder, peer(answer_http(folder)).port, "http-01") is None
    assert not list(folder.layout.alpn_challenges.iterdir())
    assert not list(folder.layout.http_challenges.iterdir())


def test_each_of_its_addresses_must(folder: StateFolder, peer: Peers) -> None:
    held = look(folder, peer(answer_alpn(folder)).port, login_example=["127.0.1.9", "127.0.0.1", "127.0.0.2"])
    assert held is not None
    assert "127.0.0.2" in held.words


def test_what_is_said_of_those_that_do_not(folder: StateFolder, peer: Peers) -> None:
    def plain(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    def ends(connection: socket.socket) -> None:
        connection.recv(4096)

    for handle, challenge, words in (
        (plain, "tls-alpn-01", "TLS fails"),
        (ends, "tls-alpn-01", "TLS fails"),
        (plain, "http-01", "something else answers (400)"),
        (ends, "http-01", "something answers that is no HTTP"),
        (answer_http(folder, "301 Moved"), "http-01", "something else answers (301)"),
    ):
        port = peer(handle).port
        held = look(folder, port, challenge)
        assert held is not None
        assert held.words.startswith(f"{NAME} leads to 127.0.0.1:{port}, where {words}"), held.words
        assert held.advice == f"let {NAME} lead to this gateway, as by a CNAME to {BASE}"


def test_another_gateway_with_that_protocol_is_not_this_one(folder: StateFolder, tmp_path: Path, peer: Peers) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(challenge_certificate(NAME, "another")[0])

    def handle(connection: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["acme-tls/1"])
        context.load_cert_chain(other)
        with context.wrap_socket(connection, server_side=True):
            pass

    held = look(folder, peer(handle).port)
    assert held is not None
    assert "another gateway answers the challenge" in held.words


def test_where_nobody_is(folder: StateFolder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
    held = look(folder, port)
    assert held is not None
    assert "nothing answers (connection refused)" in held.words
    for address in ("169.254.169.254", "224.0.0.1", "0.0.0.0"):
        held = look(folder, port, login_example=[address])
        assert held is not None
        assert "nobody can be reached" in held.words
    held = look(folder, port, other_example=["127.0.0.1"])
    assert held == Held(f"{NAME} does not exist", f"let {NAME} lead to this gateway, as by a CNAME to {BASE}")
    held = look(folder, port, login_example=[f"192.0.2.{number}" for number in range(9)])
    assert held is not None
    assert held.words == f"{NAME} has 9 addresses"


def test_a_loopback_address_is_not_where_others_come() -> None:
    assert not is_own_address("127.0.0.1")
    assert not is_own_address("::1")
    assert not is_own_address("192.0.2.77")
    assert not is_own_address("::ffff:127.0.0.1")
