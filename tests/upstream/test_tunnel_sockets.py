"""Tunnels over real sockets, on each reactor, plain and over TLS: ends, resets, silence, reload and drain."""

from __future__ import annotations

import select
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.kit.clients import HOST, Client
from tests.kit.gateways import KERNEL_RECEIVES, KERNEL_SENDS, GatewayProcess, Service, Services, configuration
from tests.kit.services import Origin, Peer
from tests.kit.waiting import PATIENCE, until

MIB = 1 << 20
ASK = f"GET /PATH HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"

over = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])


@pytest.fixture(scope="module", params=["uvloop", "epoll"])
def services(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    sections = {"timeouts": {"tunnel": "1500ms", "drain": "2s"}}
    with Services(tmp_path_factory.mktemp("tunnels"), 24, sections, reactor=request.param) as services:
        yield services


Take = Callable[[Callable[[Peer], object]], Service]


@pytest.fixture
def take(services: Services) -> Iterator[Take]:
    """Hands out services of the test's own, which switch and then play; their plays must have found nothing wrong."""
    taken: list[Service] = []

    def take(play: Callable[[Peer], object]) -> Service:
        def switched(peer: Peer, number: int) -> None:
            if peer.head() is not None:
                peer.send(SWITCH)
                play(peer)

        taken.append(services.take(switched))
        return taken[-1]

    yield take
    for service in taken:
        service.origin.__exit__(None, None, None)


def tunnel(service: Service, *, tls: bool = False, **options: Any) -> Client:
    client = service.connect(tls=tls, **options)
    client.send(ASK.replace("/PATH", service.path).encode())
    answer = client.head()
    assert (answer.status, answer.get("connection"), answer.get("upgrade")) == (101, "Upgrade", "raw")
    return client


def line(service: Service) -> dict[str, Any]:
    """The only line of the access log for this service."""
    lines = until(
        lambda: [each for each in service.gateway.access() if each["service"] == service.name], "the tunnel is logged"
    )
    assert len(lines) == 1
    assert lines[0]["status"] == 101
    return dict(lines[0])


def echo(peer: Peer) -> None:
    while data := peer.more():
        peer.send(data)


def test_the_service_goes_on_after_the_client_has_ended(take: Take) -> None:
    got: list[bytes] = []

    def play(peer: Peer) -> None:
        while data := peer.more():
            got.append(data)
        peer.send(b"answer to " + b"".join(got))

    service = take(play)
    with tunnel(service) as client:
        client.send(b"question")
        client.socket.shutdown(socket.SHUT_WR)
        assert client.rest() == b"answer to question"
    seen = line(service)
    assert (seen["code"], seen["bytes_in"], seen["bytes_out"]) == ("", 8, 18)


@over
def test_the_client_goes_on_after_the_service_has_ended(take: Take, tls: bool) -> None:
    """Over TLS the gateway's end is a close_notify, behind which a client may still send (RFC 8446 section 6.1)."""
    got: list[bytes] = []

    def play(peer: Peer) -> None:
        peer.send(b"last words")
        peer.finish()
        while data := peer.more():
            got.append(data)

    service = take(play)
    with tunnel(service, tls=tls) as client:
        assert client.rest() == b"last words"
        client.send(b"still here")
        until(lambda: b"".join(got) == b"still here", "the service has it")
    assert line(service)["code"] in ("", "client_gone")


@over
def test_whatever_was_sent_before_an_orderly_end_arrives(take: Take, tls: bool) -> None:
    data = bytes(range(256)) * 4096 * 8
    got = bytearray()
    over = threading.Event()

    def play(peer: Peer) -> None:
        while piece := peer.more():
            got.extend(piece)
        over.set()

    service = take(play)
    with tunnel(service, tls=tls) as client:
        client.send(data)
    assert over.wait(PATIENCE)
    assert bytes(got) == data


@over
def test_a_client_that_resets(take: Take, tls: bool) -> None:
    reset = threading.Event()

    def play(peer: Peer) -> None:
        peer.send(b"hello")
        try:
            while peer.socket.recv(65536):
                pass
        except ConnectionResetError:
            reset.set()

    service = take(play)
    client = tunnel(service, tls=tls)
    assert client.receive() == b"hello"
    client.abort()
    assert reset.wait(PATIENCE)
    assert line(service)["code"] == "client_gone"


@over
def test_a_service_that_resets(take: Take, tls: bool) -> None:
    said = threading.Event()

    def play(peer: Peer) -> None:
        said.wait(PATIENCE)
        peer.reset()

    service = take(play)
    with tunnel(service, tls=tls) as client:
        said.set()
        with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):
            client.socket.recv(65536)
    assert line(service)["code"] == "closed"
    until(lambda: f"service {service.name}: closed" in service.gateway.log(), "the log says so")


@over
def test_silence_ends_a_tunnel_and_bytes_in_either_direction_keep_it(take: Take, tls: bool) -> None:
    def play(peer: Peer) -> None:
        for _ in range(4):
            assert peer.more() == b"tick"
        peer.until_gone()

    service = take(play)
    with tunnel(service, tls=tls) as client:
        waiting = threading.Event()
        for _ in range(4):
            client.send(b"tick")
            waiting.wait(0.5)
        with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):
            client.socket.recv(65536)
    assert line(service)["code"] == "timeout"


@over
def test_a_service_that_reads_nothing_stops_the_client(take: Take, tls: bool) -> None:
    go_on = threading.Event()
    taken = bytearray()

    def play(peer: Peer) -> None:
        assert go_on.wait(PATIENCE)
        while data := peer.more():
            taken.extend(data)

    service = take(play)
    gateway = service.gateway
    with tunnel(service, tls=tls, send_buffer=65536) as client:
        gateway.forget_peak()
        before = gateway.memory("VmRSS")
        # More than the kernel's buffers before and behind the gateway keep, and what it may hold itself.
        size = max(48, (KERNEL_RECEIVES + KERNEL_SENDS) // MIB + 24) * MIB
        block = b"x" * MIB
        sender = threading.Thread(target=lambda: [client.send(block) for _ in range(size // MIB)])
        sender.start()
        full = lambda: not select.select([], [client.socket], [], 0)[1]  # noqa: E731
        until(lambda: full() and gateway.metrics() and full(), "nothing more is taken")
        assert sender.is_alive()
        go_on.set()
        sender.join(PATIENCE)
        until(lambda: len(taken) == size, "everything has come")
        assert gateway.memory("VmHWM") - before < 16 * MIB


def test_a_pipelined_request_becomes_bytes_of_the_tunnel(take: Take) -> None:
    service = take(echo)
    with service.connect() as client:
        asked = ASK.replace("/PATH", service.path).encode()
        client.send(asked + asked)
        assert client.head().status == 101
        got = b""
        while len(got) < len(asked):
            got += client.receive()
        assert got == asked


# One gateway each, since it ends or is changed.


@pytest.mark.parametrize("reactor", ["uvloop", "epoll"])
def test_reload_leaves_tunnels_alone_and_changes_how_many_there_may_be(reactor: str, tmp_path: Any) -> None:
    with Origin(lambda peer, number: (peer.head(), peer.send(SWITCH), echo(peer))) as origin:
        config = configuration({"raw": origin.url})
        with GatewayProcess(tmp_path, config, reactor=reactor) as gateway:
            service = Service(gateway, "raw", origin)
            with tunnel(service) as client:
                other = configuration(
                    {"raw": origin.url}, {"requests": {"max_tunnels": 1}, "timeouts": {"connect": "1s"}}
                )
                gateway.config.write_text(other)
                gateway.signal(signal.SIGHUP)
                until(lambda: "reloaded" in gateway.log(), "the configuration is read again")
                client.send(b"on and on")
                assert client.receive() == b"on and on"
                with service.connect() as second:
                    second.send(ASK.replace("/PATH", "/raw").encode())
                    assert second.read().code == "overloaded"
                assert gateway.metrics()['koder_gateway_tunnels_open{service="raw"}'] == 1
            until(lambda: gateway.metrics()['koder_gateway_tunnels_open{service="raw"}'] == 0, "it is closed")
            with tunnel(service) as client:
                client.send(b"again")
                assert client.receive() == b"again"
            assert gateway.metrics()['koder_gateway_tunnels_total{service="raw"}'] == 2


@pytest.mark.parametrize("reactor", ["uvloop", "epoll"])
@over
def test_a_drain_waits_for_tunnels_and_then_closes_them(reactor: str, tls: bool, tmp_path: Any) -> None:
    ended = threading.Event()

    def play(peer: Peer, number: int) -> None:
        peer.head()
        peer.send(SWITCH)
        echo(peer)
        ended.set()

    with Origin(play) as origin:
        config = configuration({"raw": origin.url}, {"timeouts": {"drain": "1s"}})
        ports = (GatewayProcess.TLS if tls else GatewayProcess.PLAIN,)
        with GatewayProcess(tmp_path, config, ports=ports, reactor=reactor) as gateway:
            with tunnel(Service(gateway, "raw", origin), tls=tls) as client:
                gateway.signal(signal.SIGTERM)
                until(lambda: "draining" in gateway.log(), "the drain begins")
                client.send(b"one more")
                assert client.receive() == b"one more"
                client.assert_closed()
            assert gateway.process.wait(PATIENCE) == 0
        assert ended.wait(PATIENCE)
