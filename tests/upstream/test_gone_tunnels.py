"""Tunnels whose service reads nothing, so that nothing is read of their clients either, and whose clients leave."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.clients import Client
from tests.kit.gateways import Service, Services
from tests.kit.services import Peer
from tests.kit.waiting import PATIENCE, until
from tests.upstream.test_tunnel_sockets import SWITCH, line, over, tunnel

BLOCK = b"x" * (1 << 20)


@pytest.fixture(scope="module", params=["uvloop", "epoll"])
def services(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    sections = {"timeouts": {"tunnel": "1h", "idle": "1s"}, "requests": {"min_rate": 0}}
    folder: Path = tmp_path_factory.mktemp("gone")
    with Services(folder, 3, sections, reactor=request.param) as services:
        yield services


class Stuck:
    """A tunnel that is full in the client's direction, since its service reads nothing before `go_on`."""

    def __init__(self, services: Services, *, tls: bool) -> None:
        self.go_on = threading.Event()
        self.taken = 0
        self.service: Service = services.take(self._serve)
        self.client: Client = tunnel(self.service, tls=tls, send_buffer=65536)
        self.sent = 0
        self.client.socket.setblocking(False)
        until(self._is_full, "nothing more is taken")

    def _serve(self, peer: Peer, number: int) -> None:
        if peer.head() is not None:
            peer.send(SWITCH)
            assert self.go_on.wait(PATIENCE)
            while data := peer.more():
                self.taken += len(data)

    def _is_full(self) -> bool:
        try:
            while True:
                self.sent += self.client.socket.send(BLOCK)
        except OSError:
            self.service.gateway.metrics()
            return not select.select([], [self.client.socket], [], 0)[1]

    def end(self) -> None:
        self.go_on.set()
        self.client.close()
        self.service.origin.__exit__(None, None, None)


@over
def test_a_client_that_resets_ends_its_tunnel(services: Services, tls: bool) -> None:
    stuck = Stuck(services, tls=tls)
    stuck.client.abort()
    assert line(stuck.service)["code"] == "client_gone"
    stuck.end()


def test_what_a_client_sent_before_it_closed_arrives_if_the_service_reads_in_time(services: Services) -> None:
    stuck = Stuck(services, tls=False)
    stuck.client.socket.shutdown(socket.SHUT_WR)
    stuck.go_on.set()
    until(lambda: stuck.taken == stuck.sent, "all of it has come")
    assert line(stuck.service)["code"] == ""
    stuck.end()
