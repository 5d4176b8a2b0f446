"""A response is known to be large before its next read, which would take all that has come by then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from koder_gateway.downstream.site import GatewaySite
from koder_gateway.reactor.read_sizes import MUCH
from tests.kit.http2_frames import headers, window_update
from tests.kit.http2_memory import Http2, asking
from tests.kit.memory import MemoryGateway, Peer, request

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TO_THE_END = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
PIECE = 4096


class Reads:
    """A service's connection that is asked for a response, and in which ways the gateway reads it, in order."""

    def __init__(self, gateway: MemoryGateway, door: str) -> None:
        self.ways: list[str] = []
        self.room: Callable[[], int] | None = None
        self._gateway = gateway
        self._door = door
        self.service = self.ask()
        for way in ("fitting", "bounded", "freely"):
            setattr(self.service.near, f"read_{way}", self._noted(way))

    def _noted(self, way: str) -> Callable[..., None]:
        def note(room: Any = None) -> None:
            self.ways.append(way)
            self.room = room

        return note

    def ask(self) -> Peer:
        """Send a request; the service's side of its connection."""
        if self._door == "h2":
            client = Http2(self._gateway)
            client.send(window_update(0, 1 << 20), headers(1, asking()))
            client.after(0)
        else:
            self._gateway.connect("192.0.2.1", secure=self._door == "tls").send(request())
            self._gateway.reactor.advance(0)
        return self._gateway.origin().connections[-1]


@pytest.fixture(params=["plain", "tls", "h2"])
def reads(request: pytest.FixtureRequest, gateway: MemoryGateway) -> Reads:
    """By each door."""
    return Reads(gateway, request.param)


def test_by_its_length_with_its_head(reads: Reads) -> None:
    reads.service.send(LENGTH % MUCH)
    assert reads.ways == ["fitting"]
    assert reads.room is not None
    reads.service.send(bytes(PIECE))
    assert reads.ways == ["fitting"], "once for each response"


def test_one_whose_rest_is_small_is_not(reads: Reads) -> None:
    reads.service.send(LENGTH % MUCH + b"x").send(bytes(MUCH - 1))
    assert reads.ways == []
    assert reads.ask() is reads.service
    reads.service.send(LENGTH % MUCH + bytes(MUCH))
    assert reads.ways == [], "nor one that has come whole"


@pytest.mark.parametrize(("head", "form"), [(CHUNKED, b"1000\r\n%b\r\n"), (TO_THE_END, b"%b")])
def test_without_a_length_by_what_small_reads_have_brought(reads: Reads, head: bytes, form: bytes) -> None:
    piece = form % bytes(PIECE)
    reads.service.send(head)
    sent = 0
    while sent + len(piece) < MUCH:
        reads.service.send(piece)
        sent += len(piece)
        assert reads.ways == []
    reads.service.send(piece)
    assert reads.ways == ["fitting"]
    reads.service.send(piece)
    assert reads.ways == ["fitting"]


def test_the_next_response_of_the_connection_begins_with_a_bounded_read(reads: Reads) -> None:
    """Nothing is known of it yet, but the kernel holds much for a connection that has been fast."""
    reads.service.send(LENGTH % MUCH).send(bytes(MUCH))
    assert reads.ways == ["fitting", "bounded"]
    assert reads.room is None, "a small response costs no look at what its client takes"
    assert reads.ask() is reads.service
    reads.service.send(LENGTH % 2 + b"hi")
    assert reads.ways == ["fitting", "bounded"]
    assert reads.ask() is reads.service
    reads.service.send(LENGTH % MUCH)
    assert reads.ways == ["fitting", "bounded", "fitting"]


def test_where_many_wait_less_is_read_of_it(reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GatewaySite, "crowded", True)
    reads.service.send(LENGTH % MUCH)
    assert reads.ways == ["bounded"]
    assert reads.room is not None


def test_many_may_come_to_wait_while_it_is_read(reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    reads.service.send(LENGTH % (4 * MUCH))
    monkeypatch.setattr(GatewaySite, "crowded", True)
    reads.service.send(bytes(MUCH))
    assert reads.ways == ["fitting", "bounded"]
