"""Honest clients of HTTP/2 with many small messages: their replies to what they are sent are no flood.

Played in virtual time with the frames that these clients send: HAProxy returns its window on the stream and on the
connection for each DATA frame that it gets; Go does for every 4 KiB; Chromium, curl and nginx when half or a quarter
of it is used up; Chromium sends a PING now and then, and clients that measure the delay one for each frame.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path

import pytest

from tests.kit.balancer import haproxy
from tests.kit.clients import HOST as TENANT
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.http2_frames import (
    DATA,
    ENHANCE_YOUR_CALM,
    GOAWAY,
    INITIAL_WINDOW_SIZE,
    PING,
    RST_STREAM,
    SETTINGS_ACK,
    Frame,
    block,
    data,
    frames_of,
    headers,
    ping,
    window_update,
)
from tests.kit.http2_memory import Http2, asking, code
from tests.kit.memory import HOST, MemoryGateway
from tests.kit.memory import Peer as MemoryPeer
from tests.kit.services import Origin, Peer

# One message every four milliseconds, as many as come between two looks at the deadlines.
TICK = 0.25
A_TICK = 62
# Whatever costs more than comes back is felt within a minute, since the patience lasts for 2,000 frames; `make
# test-long` plays an hour.
SECONDS = int(os.environ.get("KODER_TEST_SECONDS", "120"))
EVENT = b"data: 12345678\n\n"


@dataclass
class Client:
    """How a client returns its windows: once `step` bytes are used, with a PING every so many frames (0: none)."""

    step: int
    pings: int = 0
    window: int = 65535


CLIENTS = {
    "HAProxy": Client(1),
    "Go": Client(4096, window=4 << 20),
    "Chromium": Client(3 << 20, pings=2500, window=6 << 20),
    "curl": Client(5 << 20, window=10 << 20),
    "nginx": Client(49152),
    "one that measures the delay": Client(32768, pings=1),
}


class Player:
    """Takes what comes, as one of these clients does."""

    def __init__(self, client: Client, gateway: MemoryGateway) -> None:
        self.client = client
        self.http2 = Http2(gateway, (INITIAL_WINDOW_SIZE, client.window))
        self.came = 0
        self.sent = 0
        self._used = {0: 0, 1: 0}
        self._frames = 0
        self.http2.send(SETTINGS_ACK)
        if client.window > 65535:
            self.http2.send(window_update(0, client.window))

    def take(self) -> None:
        """Read, and reply."""
        replies = [reply for each in frames_of(self.http2.peer.take()) for reply in self._replies(each)]
        if replies:
            self.http2.peer.send(b"".join(replies))

    def _replies(self, came: Frame) -> Iterator[bytes]:
        assert came.kind not in (GOAWAY, RST_STREAM), f"ended after {self.came} messages: {came}"
        if came.kind == PING and not came.flags:
            yield ping(came.payload, ack=True)
        if came.kind != DATA:
            return
        self.came += came.payload.count(EVENT)
        self._frames += 1
        for stream in (1, 0):
            self._used[stream] += len(came.payload)
            if self._used[stream] >= self.client.step:
                yield window_update(stream, self._used[stream])
                self._used[stream] = 0
        if self.client.pings and not self._frames % self.client.pings:
            yield ping()


def the_service(gateway: MemoryGateway) -> MemoryPeer:
    return gateway.origin().last


@pytest.mark.parametrize("client", CLIENTS.values(), ids=list(CLIENTS))
def test_server_sent_events(client: Client) -> None:
    gateway = MemoryGateway()
    player = Player(client, gateway)
    player.http2.peer.send(headers(1, asking()))
    service = the_service(gateway)
    service.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    sent = 0
    while gateway.reactor.seconds() < SECONDS:
        for _ in range(A_TICK):
            service.send(b"%x\r\n%b\r\n" % (len(EVENT), EVENT))
            player.take()
        sent += A_TICK
        gateway.advance(TICK)
    player.take()
    assert player.came == sent


@pytest.mark.parametrize("client", CLIENTS.values(), ids=list(CLIENTS))
def test_small_messages_both_ways(client: Client) -> None:
    """A WebSocket over HTTP/2 (RFC 8441): each message is a DATA frame in each direction."""
    gateway = MemoryGateway()
    player = Player(client, gateway)
    fields = [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        (b":scheme", b"https"),
        (b":path", b"/v1/users"),
        (b":authority", HOST),
    ]
    player.http2.peer.send(headers(1, block(fields), end=False))
    service = the_service(gateway)
    key = next(line for line in service.take().split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
    service.send(switching(key.partition(b": ")[2]))
    player.take()
    sent = 0
    while gateway.reactor.seconds() < SECONDS:
        for _ in range(A_TICK):
            player.http2.peer.send(data(1, EVENT))
            service.send(service.take())
            player.take()
        sent += A_TICK
        gateway.advance(TICK)
    assert player.came == sent


def switching(key: bytes) -> bytes:
    """The answer that opens a WebSocket (RFC 6455 section 4.2.2)."""
    accept = b64encode(sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
    )


def test_replies_that_nothing_asked_for_are_a_flood_beside_an_answer_too() -> None:
    """Four updates for each frame are one more than it asks for."""
    gateway = MemoryGateway()
    client = Http2(gateway)
    client.send(headers(1, asking()))
    service = the_service(gateway)
    service.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    came: list[Frame] = []
    for _ in range(3000):
        service.send(b"1\r\nx\r\n")
        came = client.send(*[window_update(0, 1)] * 4)
        if any(each.kind == GOAWAY for each in came):
            break
    assert code(came, GOAWAY) == ENHANCE_YOUR_CALM


def test_replies_do_not_pile_up_for_ever() -> None:
    """A long download does not buy a flood of any length."""
    gateway = MemoryGateway()
    client = Http2(gateway, (INITIAL_WINDOW_SIZE, 1 << 30))
    client.send(window_update(0, 1 << 30), headers(1, asking()))
    service = the_service(gateway)
    service.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(10_000):
        service.send(b"1\r\nx\r\n")
    client.send()
    came = client.send(ping() * 7000)
    for _ in range(200):
        came += client.after(0)
    assert code(came, GOAWAY) == ENHANCE_YOUR_CALM


HAPROXY = """
defaults
    mode http
    option http-no-delay
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen door
    bind {door}
    server gateway 127.0.0.1:{to} ssl verify none alpn h2 sni str({host})
"""


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="HAProxy is not installed")
def test_a_real_haproxy_with_many_small_events(tmp_path: Path) -> None:
    """Each event has been taken before the next one is sent, so that each is a frame of its own."""
    events = 6000
    taken = threading.Semaphore(0)

    def stream(peer: Peer, number: int) -> None:
        if peer.head() is None:
            return
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(events):
            peer.send(b"%x\r\n%b\r\n" % (len(EVENT), EVENT))
            taken.acquire()
        peer.send(b"0\r\n\r\n")

    with (
        Origin(stream) as origin,
        GatewayProcess(tmp_path, configuration({"a": origin.url}), ports=(GatewayProcess.TLS,)) as gateway,
        haproxy(tmp_path, lambda doors: HAPROXY.format(door=doors[0], to=gateway.ports[0], host=TENANT)) as (port,),
        socket.create_connection(("127.0.0.1", port), 20.0) as client,
    ):
        client.sendall(b"GET /a HTTP/1.1\r\nHost: %b\r\n\r\n" % TENANT.encode())
        got = b""
        came = 0
        while came < events:
            more = client.recv(65536)
            assert more, f"the answer ends after {came} events: {got[-200:]!r}"
            got += more
            for _ in range(got.count(EVENT)):
                taken.release()
                came += 1
            got = got[got.rfind(EVENT) + len(EVENT) :] if EVENT in got else got
