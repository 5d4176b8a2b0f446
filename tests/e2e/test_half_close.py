"""Clients that end their side of the connection once they have asked, as nc and some HTTP stacks do, are answered.

An end within a request, a reset, and with `listen.half_close = false` any end, is a goodbye: the service hears of it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL

from tests.kit.clients import HOST, Client, request
from tests.kit.gateways import GatewayProcess, Services, configuration
from tests.kit.http2_client import Http2Client
from tests.kit.http2_frames import INITIAL_WINDOW_SIZE, block, data, headers
from tests.kit.services import Origin, Peer, answer
from tests.kit.waiting import PATIENCE, until

LARGE = b"0123456789abcdef" * (1 << 17)
_RESET = struct.pack("ii", 1, 0)
_TIMEOUT = struct.pack("ll", int(PATIENCE), 0)


class Talker:
    """A connection whose client ends its side: `end` leaves the other one open. Over TLS it says close_notify, or
    (`abrupt`) only ends the connection beneath."""

    def __init__(self, plain: socket.socket, version: int = 0, *, abrupt: bool = False) -> None:
        self.plain = plain
        self._abrupt = abrupt
        self._secure: Any = None
        if version:
            context = SSL.Context(SSL.TLS_CLIENT_METHOD)
            context.set_min_proto_version(version)
            context.set_max_proto_version(version)
            # A timeout of Python's would make the socket one that does not block.
            plain.settimeout(None)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEOUT)
            self._secure = SSL.Connection(context, plain)
            self._secure.set_tlsext_host_name(HOST.encode())
            self._secure.set_connect_state()
            self._secure.do_handshake()

    def sendall(self, data: bytes) -> None:
        (self._secure or self.plain).sendall(data)

    def recv(self, size: int) -> bytes:
        if self._secure is None:
            return self.plain.recv(size)
        try:
            received: bytes = self._secure.recv(size)
        except SSL.ZeroReturnError:
            return b""
        except SSL.SysCallError as error:
            raise ConnectionResetError(str(error)) from None
        return received

    def setsockopt(self, level: int, name: int, value: Any) -> None:
        self.plain.setsockopt(level, name, value)

    def end(self) -> None:
        if self._secure is not None and not self._abrupt:
            self._secure.shutdown()
        self.plain.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.plain.close()


def plain(gateway: GatewayProcess) -> Client:
    client = gateway.connect()
    client.socket = Talker(client.socket)  # type: ignore[assignment]
    return client


def secure(version: int, *, abrupt: bool = False) -> Callable[[GatewayProcess], Client]:
    def connect(gateway: GatewayProcess) -> Client:
        bare = socket.create_connection(("127.0.0.1", gateway.ports[1]), PATIENCE)
        return Client(Talker(bare, version, abrupt=abrupt))  # type: ignore[arg-type]

    return connect


def end(client: Client) -> None:
    talker: Any = client.socket
    talker.end()


Connect = Callable[[GatewayProcess], Client]
DOORS = {
    "plain": plain,
    "tls1.2": secure(SSL.TLS1_2_VERSION),
    "tls1.3": secure(SSL.TLS1_3_VERSION),
    "cut": secure(SSL.TLS1_3_VERSION, abrupt=True),
}


@pytest.fixture(scope="module", params=["uvloop", "epoll"])
def services(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """A gateway on each reactor whose deadlines nothing here meets."""
    folder = tmp_path_factory.mktemp("half-close")
    with Services(folder, 60, {}, reactor=request.param) as services:
        yield services


@pytest.fixture(scope="module", params=["uvloop", "epoll"])
def strict(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """The same for whom every end is a goodbye."""
    folder = tmp_path_factory.mktemp("strict")
    with Services(folder, 12, {"listen": {"half_close": False}}, reactor=request.param) as services:
        yield services


@pytest.fixture(params=DOORS.values(), ids=DOORS.keys())
def connect(request: pytest.FixtureRequest) -> Connect:
    door: Connect = request.param
    return door


def heard(gateway: GatewayProcess) -> None:
    """What was sent to the gateway before this has been read by it: it has served something that came later."""
    with gateway.connect() as client:
        assert client.ask("OPTIONS", "*").status == 204


class Slow:
    """A service whose answers wait until they are let go. `met`: it has a request, `left`: the gateway has gone."""

    def __init__(self, given: bytes = b"late") -> None:
        self.met, self.go, self.left = threading.Event(), threading.Event(), threading.Event()
        self.bodies: list[bytes] = []
        self._answer = answer(given, "Connection: close")

    def play(self, peer: Peer, number: int) -> None:
        received = peer.head()
        if received is None:
            return
        self.met.set()
        self.bodies.append(peer.body(received))
        assert self.go.wait(PATIENCE)
        with contextlib.suppress(ConnectionError):
            peer.send(self._answer)
        peer.until_gone()
        self.left.set()


def test_it_is_answered(services: Services, connect: Connect) -> None:
    slow = Slow()
    service = services.take(slow.play)
    with service.origin, connect(services.gateway) as client:
        client.send(request("POST", service.path, body=b"asked"))
        end(client)
        assert slow.met.wait(PATIENCE)
        heard(services.gateway)
        slow.go.set()
        seen = client.read("POST")
        assert (seen.status, seen.body, seen.complete) == (200, b"late", True)
        assert seen.get("connection") == "close"
        client.assert_closed()
        assert slow.bodies == [b"asked"]


def test_a_large_answer_comes_whole(services: Services, connect: Connect) -> None:
    slow = Slow(LARGE)
    service = services.take(slow.play)
    with service.origin, connect(services.gateway) as client:
        client.send(request("GET", service.path))
        end(client)
        assert slow.met.wait(PATIENCE)
        slow.go.set()
        heard(services.gateway)
        seen = client.read()
        assert (seen.body == LARGE, seen.complete) == (True, True)
        client.assert_closed()


def test_all_that_it_has_asked_for_is_answered_in_order(services: Services, connect: Connect) -> None:
    def play(peer: Peer, number: int) -> None:
        while (received := peer.head()) is not None:
            peer.send(answer(received.target + b" " + peer.body(received)))

    service = services.take(play)
    with service.origin, connect(services.gateway) as client:
        asked = [request("POST", f"{service.path}/{number}", body=b"%d" % number) for number in range(5)]
        client.send(b"".join(asked))
        end(client)
        for number in range(5):
            assert client.read("POST").body == f"{service.path}/{number} {number}".encode()
        client.assert_closed()


def test_so_is_more_than_one_turn_is_worth(services: Services, connect: Connect) -> None:
    with connect(services.gateway) as client:
        client.send(request("OPTIONS", "*") * 300)
        end(client)
        for _ in range(300):
            assert client.read("OPTIONS").status == 204
        client.assert_closed()


def test_a_tunnel_that_stands_after_the_end_is_one_whose_client_has_ended(services: Services) -> None:
    met, go, sent = threading.Event(), threading.Event(), []

    def play(peer: Peer, number: int) -> None:
        assert peer.head() is not None
        met.set()
        assert go.wait(PATIENCE)
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\nhello")
        sent.append(peer.more())

    service = services.take(play)
    with service.origin, plain(services.gateway) as client:
        client.send(request("GET", service.path, "Connection: Upgrade", "Upgrade: chat"))
        assert met.wait(PATIENCE)
        end(client)
        heard(services.gateway)
        go.set()
        assert client.head().status == 101
        assert client.rest() == b"hello"
    assert sent == [b""]


def test_what_is_whole_is_answered_before_what_is_not(services: Services, connect: Connect) -> None:
    slow = Slow()
    service = services.take(slow.play)
    with service.origin, connect(services.gateway) as client:
        client.send(request("GET", service.path) + b"GET /half HTTP/1.1\r\nHost: ")
        end(client)
        assert slow.met.wait(PATIENCE)
        heard(services.gateway)
        slow.go.set()
        assert client.read().body == b"late"
        client.assert_closed()


def test_an_end_within_a_body_is_a_goodbye(services: Services, connect: Connect) -> None:
    slow = Slow()
    service = services.take(slow.play)
    with service.origin, connect(services.gateway) as client:
        client.send(f"POST {service.path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\nhalf".encode())
        assert slow.met.wait(PATIENCE)
        end(client)
        slow.go.set()
        assert slow.left.wait(PATIENCE), "the service was left alone with the exchange"
        assert client.rest() == b""
    codes = {"path": service.path, "code": "client_gone"}.items()
    until(lambda: any(codes <= line.items() for line in services.gateway.access()), "the log says who went")


def test_a_reset_after_the_end_is_a_goodbye(services: Services, connect: Connect) -> None:
    """Nothing is written that could fail meanwhile."""
    slow = Slow()
    service = services.take(slow.play)
    with service.origin:
        client = connect(services.gateway)
        client.send(request("GET", service.path))
        end(client)
        assert slow.met.wait(PATIENCE)
        heard(services.gateway)
        assert service.connections("active") == 1
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        client.close()
        until(lambda: service.connections("active") == 0, "the exchange has ended")
        slow.go.set()
        assert slow.left.wait(PATIENCE)


def test_one_that_has_gone_is_found_when_it_is_written_to(services: Services, connect: Connect) -> None:
    """What it has not read is answered with a reset, and what the service still sends has nobody to go to."""
    piece = b"10000\r\n" + bytes(1 << 16) + b"\r\n"

    def play(peer: Peer, number: int) -> None:
        assert peer.head() is not None
        met.set()
        with contextlib.suppress(ConnectionError):
            peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                peer.send(piece)
        left.set()

    met, left = threading.Event(), threading.Event()
    service = services.take(play)
    with service.origin:
        client = connect(services.gateway)
        client.send(request("GET", service.path))
        end(client)
        assert met.wait(PATIENCE)
        client.close()
        assert left.wait(PATIENCE)


def test_an_idle_connection_ends_at_once(services: Services, connect: Connect) -> None:
    service = services.take(lambda peer, number: peer.serve())
    with service.origin, connect(services.gateway) as client:
        assert client.ask("GET", service.path).status == 200
        end(client)
        client.assert_closed()
        with connect(services.gateway) as silent:
            end(silent)
            silent.assert_closed()


def test_every_end_can_be_a_goodbye(strict: Services, connect: Connect) -> None:
    slow = Slow()
    service = strict.take(slow.play)
    with service.origin, connect(strict.gateway) as client:
        client.send(request("GET", service.path))
        assert slow.met.wait(PATIENCE)
        end(client)
        until(lambda: service.connections("active") == 0, "the exchange has ended")
        assert client.rest() == b""
        slow.go.set()
        assert slow.left.wait(PATIENCE)


# HTTP/2.


def connect_http2(gateway: GatewayProcess) -> Http2Client:
    client = Http2Client.connect(gateway.ports[1], HOST.encode())
    return client.start()


def fields(path: str, method: bytes = b"GET") -> bytes:
    host = HOST.encode()
    return block([(b":method", method), (b":scheme", b"https"), (b":path", path.encode()), (b":authority", host)])


def test_streams_that_are_whole_are_answered(services: Services) -> None:
    slow, begun, left = Slow(), threading.Event(), threading.Event()

    def play(peer: Peer, number: int) -> None:
        assert peer.head() is not None
        begun.set()
        peer.until_gone()
        left.set()

    whole, cut = services.take(slow.play), services.take(play)
    with whole.origin, cut.origin, connect_http2(services.gateway) as client:
        client.send(
            headers(1, fields(whole.path)),
            headers(3, fields(cut.path, b"POST"), end=False),
            data(3, b"half"),
            headers(5, fields(whole.path, b"POST"), end=False),
            data(5, b"body", end=True),
        )
        assert slow.met.wait(PATIENCE)
        assert begun.wait(PATIENCE)
        end_http2(client)
        assert left.wait(PATIENCE), "the stream that was not whole goes on"
        slow.go.set()
        while client.next() is not None:
            pass
        for stream in (1, 5):
            assert (client.answers[stream].status, client.answers[stream].complete) == (200, True)
        assert client.ended == "closed"


def end_http2(client: Http2Client) -> None:
    """End the connection beneath TLS: Python's own says close_notify only to whoever then waits for the answer."""
    socket.socket.shutdown(client.socket, socket.SHUT_WR)


@pytest.mark.parametrize("late", [False, True], ids=["an answer that waits", "a later answer"])
def test_what_no_window_lets_go_any_more_is_given_up(services: Services, late: bool) -> None:
    """A client that has ended its side opens no window: its services do not wait for that. What fits is sent."""
    large, little = Slow(LARGE), Slow(b"12345")
    stuck, fits = services.take(large.play), services.take(little.play)
    with stuck.origin, fits.origin:
        client = Http2Client.connect(services.gateway.ports[1], HOST.encode()).start((INITIAL_WINDOW_SIZE, 5))
        with client:
            client.send(headers(1, fields(stuck.path)), headers(3, fields(fits.path)))
            assert large.met.wait(PATIENCE)
            assert little.met.wait(PATIENCE)
            if not late:
                large.go.set()
                while not client.answers[1].body:
                    assert client.next() is not None
            end_http2(client)
            heard(services.gateway)
            large.go.set()
            assert large.left.wait(PATIENCE), "the service waits for windows that never open"
            assert stuck.connections("active") == 0
            little.go.set()
            while client.next() is not None:
                pass
            assert (bytes(client.answers[3].body), client.answers[3].complete) == (b"12345", True)
            assert not client.answers[1].complete


def test_a_reset_ends_the_streams(services: Services) -> None:
    slow = Slow()
    service = services.take(slow.play)
    with service.origin:
        client = connect_http2(services.gateway)
        client.send(headers(1, fields(service.path)))
        assert slow.met.wait(PATIENCE)
        end_http2(client)
        heard(services.gateway)
        assert service.connections("active") == 1
        bare = socket.socket(fileno=client.socket.detach())
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        bare.close()
        until(lambda: service.connections("active") == 0, "the exchange has ended")
        slow.go.set()


def test_every_end_can_be_a_goodbye_of_all_streams(strict: Services) -> None:
    slow = Slow()
    service = strict.take(slow.play)
    with service.origin, connect_http2(strict.gateway) as client:
        client.send(headers(1, fields(service.path)))
        assert slow.met.wait(PATIENCE)
        end_http2(client)
        until(lambda: service.connections("active") == 0, "the exchange has ended")
        slow.go.set()


def test_an_idle_connection_of_http2_ends_at_once(services: Services) -> None:
    service = services.take(lambda peer, number: peer.serve())
    with service.origin, connect_http2(services.gateway) as client:
        client.send(headers(1, fields(service.path)))
        while not client.answers[1].over:
            assert client.next() is not None
        end_http2(client)
        while client.next() is not None:
            pass
        assert client.ended in ("closed", "cut")


# Limits.


def test_they_are_in_flight_until_they_are_answered_and_no_failures(tmp_path: Path) -> None:
    slow = Slow()
    limit = '[[limits]]\nname = "failures"\nkey = ["ip"]\nrate = "3/h"\ncharge = "failures"'
    with (
        Origin(slow.play) as origin,
        GatewayProcess(tmp_path, configuration({"a": origin.url}, extra=limit)) as gateway,
    ):
        for _ in range(10):
            with plain(gateway) as client:
                slow.met.clear()
                slow.go.clear()
                client.send(request("GET", "/a"))
                end(client)
                assert slow.met.wait(PATIENCE)
                heard(gateway)
                assert gateway.metrics()["koder_gateway_exchanges_in_flight"] == 1
                slow.go.set()
                assert client.read().status == 200
