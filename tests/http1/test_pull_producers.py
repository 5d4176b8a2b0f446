"""Mounted resources that are asked for each piece, as files are, over uvloop's transports: every piece arrives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from koder_gateway import Gateway, Settings
from koder_gateway.config import TenantSettings
from koder_gateway.transports.reactor import UvloopReactor
from tests.kit.transports_running import Recorder, run, running_reactor

PIECES = [b"%05d " % number * 200 for number in range(400)]
WHOLE = b"".join(PIECES)


class Pieces(Resource):
    """Gives a piece each time that it is asked."""

    isLeaf = True

    def render_GET(self, request: Any) -> int:
        request.setHeader(b"content-length", b"%d" % len(WHOLE))
        request.registerProducer(Pulled(request), False)
        return NOT_DONE_YET


class Pulled:
    """A pull producer of all pieces."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self._left = iter(PIECES)

    def resumeProducing(self) -> None:
        piece = next(self._left, None)
        if piece is not None:
            self._request.write(piece)
        else:
            self._request.unregisterProducer()
            self._request.finish()

    def stopProducing(self) -> None:
        raise AssertionError("stopped before the end")


@pytest.fixture
def reactor() -> Iterator[UvloopReactor]:
    with running_reactor() as reactor:
        yield reactor


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_every_piece_of_a_body_with_a_length_arrives_and_then_the_next_response(
    reactor: UvloopReactor, version: bytes, busy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(tenants=TenantSettings(base_domain="id.example.com"))
    mounts = {"/pieces": Pieces()}
    ask = b"GET /pieces HTTP/%b\r\nHost: acme.id.example.com\r\nConnection: %%b\r\n\r\n" % version

    async def scenario() -> None:
        gateway = Gateway(
            settings,
            ports=["tcp:0:interface=127.0.0.1"],
            admin_port="tcp:0:interface=127.0.0.1",
            redirect_ports=[],
            mounts=mounts,
            reactor=reactor,
        )
        gateway.privilegedStartService()
        gateway.startService()
        # As a thread without time to spare has it; the gateway's own ticks come later than this ends.
        monkeypatch.setattr(reactor.turns, "tick", lambda _now: None)
        reactor.turns.joined.wanted = busy
        try:
            client = Recorder()
            (port,) = (each.port for each in gateway.addresses.ports)
            await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), client)
            client.transport.write(ask % b"keep-alive" + ask % b"close")
            await client.lost
        finally:
            await gateway.stopService()
        head, first, second = bytes(client.received).split(PIECES[0])[0], *bodies(bytes(client.received))
        assert head.startswith(b"HTTP/1.1 200 ")
        assert (first, second) == (WHOLE, WHOLE)

    run(reactor, scenario())


def bodies(received: bytes) -> Iterator[bytes]:
    """Those of the responses, which have all the same length."""
    while received:
        body = received.partition(b"\r\n\r\n")[2]
        yield body[: len(WHOLE)]
        received = body[len(WHOLE) :]
