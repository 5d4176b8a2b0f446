"""A client of HTTP/2 in memory, what it says, and a resource that it can ask."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from tests.kit.http2_frames import END_STREAM, PREFACE, RST_STREAM, Fields, Frame, block, frames_of, settings
from tests.kit.memory import HOST, MemoryGateway, Peer, join


class Http2:
    """A client on whose connection ALPN has chosen h2."""

    def __init__(self, gateway: MemoryGateway, *values: tuple[int, int]) -> None:
        self.gateway = gateway
        channel = gateway.site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 50000))
        self.peer: Peer = join(gateway.reactor, channel, peer="192.0.2.1", secure=True)
        gateway.clients.append(self.peer)
        near: Any = self.peer.near
        near.negotiatedProtocol = b"h2"
        before = set(gateway.site.channels)
        channel.handshakeCompleted()
        (self.channel,) = gateway.site.channels - before
        self.first = self.send(PREFACE + settings(*values))

    def send(self, *pieces: bytes) -> list[Frame]:
        """Send, and what comes back at once."""
        self.peer.send(b"".join(pieces))
        return self.after(0)

    def after(self, seconds: float) -> list[Frame]:
        self.gateway.advance(seconds)
        return list(frames_of(self.peer.take()))


class Mounted(Resource):
    """Somebody else's resource."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.producer: Endless | None = None

    def render_GET(self, request: Any) -> Any:
        if request.uri == b"/mounted/endless":
            self.producer = Endless(request)
            request.registerProducer(self.producer, streaming=request.args == {})
            return NOT_DONE_YET
        if request.uri == b"/mounted/lost":
            request.loseConnection()
            return NOT_DONE_YET
        return b"hello"

    def render_POST(self, request: Any) -> bytes:
        request.setResponseCode(204)
        return b""


class Endless:
    """A push producer that knows what it is told."""

    def __init__(self, request: Any) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


def asking(path: bytes = b"/v1/users", method: bytes = b"GET", *more: tuple[bytes, bytes]) -> bytes:
    fields: Fields = [(b":method", method), (b":scheme", b"https"), (b":path", path), (b":authority", HOST)]
    return block([*fields, *more])


def told(came: list[Frame], stream: int) -> list[tuple[int, int]]:
    """Kinds and END_STREAM of the frames on a stream."""
    return [(each.kind, each.flags & END_STREAM) for each in came if each.stream == stream]


def code(came: list[Frame], kind: int) -> int | None:
    """The error code of the only frame of this kind."""
    codes = [
        int.from_bytes(each.payload[-4:] if kind == RST_STREAM else each.payload[4:8], "big")
        for each in came
        if each.kind == kind
    ]
    return codes[0] if codes else None


def assert_over(client: Http2) -> None:
    """No stream is left, nor an exchange."""
    assert not client.channel.streams
    assert client.gateway.site.in_flight == 0
