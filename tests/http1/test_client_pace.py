"""HTTP/1.1 clients that take their answers slowly: cut at requests.min_rate, in told time and over sockets."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from koder_gateway.exchange.states import ENDED
from tests.kit.bounds import client_limits
from tests.kit.clients import HOST
from tests.kit.clients import request as asking
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.memory import HIGH_WATER, Kernel, MemoryGateway, Peer, join, request
from tests.kit.services import Origin, answer
from tests.kit.services import Peer as ServicePeer
from tests.kit.waiting import until
from tests.upstream.test_tunnel import tunnelled

RATE = 1024
IDLE = 60.0
BIG = 8 * HIGH_WATER

Make = Callable[..., MemoryGateway]


def downloading(gateway: MemoryGateway) -> tuple[Peer, Kernel]:
    """A client that has asked for more than its transport holds, and reads none of it."""
    client = gateway.connect()
    kernel = client.near.handle = Kernel()
    client.stop_reading()
    client.send(request())
    gateway.advance(0.25)
    gateway.origin().last.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 30) + b"x" * BIG)
    assert gateway.origin().last.near.paused
    return client, kernel


def lives(
    gateway: MemoryGateway, client: Peer, kernel: Kernel, rate: float, most: float = 900.0, step: float = 1.0
) -> float:
    """How long the client keeps its connection that takes `rate` bytes a second, in lumps of `step` seconds."""
    begun = gateway.reactor.seconds()
    while not client.closed and gateway.reactor.seconds() - begun < most:
        gateway.advance(step)
        kernel.acknowledged += int(rate * step)
    return gateway.reactor.seconds() - begun if client.closed else math.inf


@pytest.mark.parametrize("rate", [0, 1, 300, 700])
def test_whoever_is_too_slow_falls_behind_by_idle_and_no_more(gateway: MemoryGateway, rate: float) -> None:
    client, kernel = downloading(gateway)
    behind = IDLE / (1 - rate / RATE)
    assert behind - 2 <= lives(gateway, client, kernel, rate) <= behind + 2
    assert client.closed == "reset"
    (exchange,) = gateway.exchanges
    assert (exchange.status, exchange.code) == (200, "timeout")
    assert not gateway.site.watched


@pytest.mark.parametrize("step", [0.25, 1.0, 20.0, 55.0])
def test_whoever_is_just_fast_enough_goes_on(gateway: MemoryGateway, step: float) -> None:
    client, kernel = downloading(gateway)
    assert lives(gateway, client, kernel, 1.05 * RATE, step=step) == math.inf


def test_a_transport_that_goes_on_now_and_then_gives_no_further_time(gateway: MemoryGateway) -> None:
    """The kernel has made room for what waited; the client has acknowledged nothing."""
    client, kernel = downloading(gateway)
    channel = client.near.protocol
    for _ in range(5):
        gateway.advance(10)
        channel.resumeProducing()
        channel.pauseProducing()
    kernel.acknowledged += 10
    assert lives(gateway, client, kernel, 0) <= IDLE - 50 + 2


def test_a_service_that_sends_little_is_not_its_clients_fault(gateway: MemoryGateway) -> None:
    """After a burst there is always something on its way, but never more than the client takes at once."""
    client, kernel = downloading(gateway)
    client.start_reading()
    kernel.acknowledged += BIG
    for _ in range(40):
        gateway.advance(10)
        gateway.origin().last.send(b"event")
        kernel.acknowledged += 5
    assert not client.closed


def test_pipelined_requests_bring_no_further_time(gateway: MemoryGateway) -> None:
    """Each has an answer that waits; the exchanges are over, and the client takes nothing."""
    client = gateway.connect()
    client.near.handle = Kernel()
    client.stop_reading()
    client.send(request(b"GET", b"/nowhere") * 400)
    gateway.advance(IDLE - 1)
    assert gateway.exchanges
    assert not client.closed
    gateway.advance(2)
    assert client.closed == "reset"


def test_an_answer_that_closes_is_given_up_after_idle(gateway: MemoryGateway) -> None:
    """All of it was written, and less waits than would pause anybody."""
    client = gateway.connect()
    client.near.handle = Kernel()
    client.stop_reading()
    client.near.unsent = 200  # type: ignore[attr-defined]
    client.send(request(b"GET", b"/nowhere", b"Connection: close"))
    gateway.advance(IDLE - 1)
    assert not client.closed
    gateway.advance(2)
    assert client.closed == "reset"


def test_a_tunnels_client_has_the_same_pace(gateway: MemoryGateway) -> None:
    client, service = tunnelled(gateway)
    kernel = client.near.handle = Kernel()
    client.stop_reading()
    service.send(b"x" * BIG)
    assert service.near.paused
    gateway.advance(IDLE - 1)
    assert not client.closed
    kernel.acknowledged += 1
    gateway.advance(2)
    assert client.closed == "reset"
    assert service.closed == "reset"
    assert gateway.exchanges[-1].code == "timeout"
    assert gateway.exchanges[-1].phase is ENDED


def test_a_connection_that_becomes_http2_is_no_longer_looked_at(gateway: MemoryGateway) -> None:
    """What waits for its handshake is its successor's."""
    channel = gateway.site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 50000))
    client = join(gateway.reactor, channel, peer="192.0.2.1", secure=True)
    gateway.clients.append(client)
    channel.pauseProducing()
    assert gateway.site.watched
    near: Any = client.near
    near.negotiatedProtocol = b"h2"
    channel.handshakeCompleted()
    assert not gateway.site.watched


class Endless(Resource):
    """A stock resource that is asked for each piece, as a file is."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[Any] = []
        self.request: Any = None

    def render_GET(self, request: Any) -> int:
        self.request = request
        request.notifyFinish().addErrback(self.failures.append)
        request.setHeader(b"content-length", b"%d" % (1 << 30))
        request.registerProducer(self, False)
        return NOT_DONE_YET

    def resumeProducing(self) -> None:
        self.request.write(b"x" * 65536)

    def stopProducing(self) -> None:
        pass


def test_a_stock_resource_s_client_has_the_same_pace(make_gateway: Make) -> None:
    endless = Endless()
    gateway = make_gateway(mounts={b"/endless": endless})
    client = gateway.connect()
    client.near.handle = Kernel()
    client.stop_reading()
    client.send(request(b"GET", b"/endless"))
    client.near.unsent = 65536  # type: ignore[attr-defined]
    gateway.advance(IDLE - 1)
    assert not client.closed
    gateway.advance(2)
    assert client.closed == "reset"
    assert endless.failures


def test_without_a_rate_any_byte_within_idle_will_do(make_gateway: Make) -> None:
    gateway = make_gateway(limits=client_limits(min_rate=0))
    client, kernel = downloading(gateway)
    assert lives(gateway, client, kernel, 1, step=30) == math.inf
    assert lives(gateway, client, kernel, 0) <= 2 * IDLE


# -- over sockets, where the kernel takes most of it at once

SETTINGS = {"timeouts": {"idle": "1s"}, "requests": {"min_rate": "16KiB"}}


@pytest.mark.parametrize("reactor", ["uvloop", "epoll"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_stuck_and_a_slow_client_side_by_side(tmp_path: Path, reactor: str, tls: bool) -> None:
    """One that takes nothing is cut while one that is fast enough goes on, and gets all."""
    body = b"z" * (16 << 20)

    def play(peer: ServicePeer, number: int) -> None:
        while peer.head() is not None:
            peer.send(answer(body))

    with Origin(play) as origin, contextlib.ExitStack() as stack:
        config = configuration({"a": origin.url}, SETTINGS)
        ports = (GatewayProcess.PLAIN, GatewayProcess.TLS)
        gateway = stack.enter_context(GatewayProcess(tmp_path, config, ports=ports, reactor=reactor))
        stuck, slow = (stack.enter_context(gateway.connect(tls=tls, receive_buffer=16384)) for _ in range(2))
        stuck.send(asking("GET", "/a/stuck"))
        slow.send(asking("GET", "/a/slow"))
        assert slow.head().status == 200
        got = 0

        def is_cut() -> list[dict[str, Any]]:
            nonlocal got
            got += len(slow.receive(8192))
            assert got < len(body), "nobody is cut"
            return gateway.access()

        (line,) = until(is_cut, "the stuck one is cut")
        assert (line["path"], line["status"], line["code"]) == ("/a/stuck", 200, "timeout")
        while got < len(body):
            got += len(slow.receive(1 << 20))
        _, line = until(lambda: len(gateway.access()) == 2 and gateway.access(), "the slow one is served")
        assert (line["path"], line["status"], line["code"]) == ("/a/slow", 200, "")


def test_a_body_that_drips_is_refused_and_one_that_is_fast_enough_is_not(tmp_path: Path) -> None:
    def play(peer: ServicePeer, number: int) -> None:
        while (received := peer.head()) is not None:
            peer.send(answer(b"%d" % len(peer.body(received))))

    settings = {"timeouts": {"body": "1s"}, "requests": {"min_rate": "4KiB"}}
    with Origin(play) as origin, contextlib.ExitStack() as stack:
        gateway = stack.enter_context(GatewayProcess(tmp_path, configuration({"a": origin.url}, settings)))
        drips, flows = (stack.enter_context(gateway.connect()) for _ in range(2))
        for client in (drips, flows):
            client.send(f"POST /a HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 8388608\r\n\r\n".encode())
        sent = 0

        def is_refused() -> list[dict[str, Any]]:
            nonlocal sent
            flows.send(b"y" * 4096)
            sent += 4096
            with contextlib.suppress(OSError):
                drips.socket.send(b"y")
            return gateway.access()

        (line,) = until(is_refused, "the body that drips is refused")
        assert (line["status"], line["code"]) == (408, "request_timeout")
        flows.send(b"y" * (8388608 - sent))
        assert flows.read().body == b"8388608"
