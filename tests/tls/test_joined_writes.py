"""What a new connection is told in one write: session tickets, a response, and the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.address import IPv4Address

from koder_gateway.http1.channel import HalfClosingChannel
from koder_gateway.tls.certificates import self_signed
from koder_gateway.tls.contexts import ServerContexts
from koder_gateway.tls.established import established
from koder_gateway.tls.factory import TLSFactory
from tests.kit.http1 import read_messages
from tests.kit.memory import MemoryGateway, join, request, serve

TLS12, TLS13 = SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION
ASK = request(b"GET", b"/v1/users")
LAST = request(b"GET", b"/v1/users", b"Connection: close")
HALF = request(b"POST", b"/v1/users", b"Content-Length: 2")


class Client:
    """A TLS client before a gateway, which sends `asks` in one segment with the end of its handshake. `writes` has
    what the gateway has written since, write by write."""

    def __init__(
        self,
        gateway: MemoryGateway,
        contexts: ServerContexts,
        asks: bytes,
        *,
        version: int = TLS13,
        alpn: bytes = b"",
    ) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
        self.heard = b""
        self.ended = False
        self.tls = SSL.Connection(context, None)
        self.tls.set_connect_state()
        server: Any = TLSFactory(contexts, gateway.site).buildProtocol(IPv4Address("TCP", "192.0.2.1", 50000))  # type: ignore[arg-type]
        self.wire = join(gateway.reactor, server, peer="192.0.2.1")
        gateway.clients.append(self.wire)
        while not self._shaken():
            self.wire.send(self.tls.bio_read(1 << 16))
            self.tls.bio_write(self.wire.take())
        self.writes: list[bytes] = []
        transport: Any = self.wire.near
        write = transport.write

        def note(data: bytes) -> None:
            self.writes.append(data)
            write(data)

        transport.write = note
        self.say(asks)

    def _shaken(self) -> bool:
        try:
            self.tls.do_handshake()
        except SSL.WantReadError:
            return False
        return True

    def say(self, data: bytes) -> None:
        """Send this, with all that waits before it, in one segment."""
        if data:
            self.tls.send(data)
        self.wire.send(self.tls.bio_read(1 << 16))

    def take(self) -> bytes:
        """What has been said to the client since this was last asked."""
        arrived = self.wire.take()
        if arrived:
            self.tls.bio_write(arrived)
        heard = b""
        try:
            while True:
                heard += self.tls.recv(1 << 16)
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.ended = True
        return heard


@pytest.fixture
def gateway() -> Iterator[MemoryGateway]:
    made = MemoryGateway()
    made.site.secured = established
    yield made
    for client in made.clients:
        client.reset()


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> ServerContexts:
    folder: Path = tmp_path_factory.mktemp("pair")
    return ServerContexts([self_signed(folder, "id.koder.dev")])


def answer(gateway: MemoryGateway, body: bytes = b"served") -> None:
    """The service answers each request that it has."""
    assert serve(gateway, lambda message: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def test_tickets_go_out_with_the_response(gateway: MemoryGateway, contexts: ServerContexts) -> None:
    client = Client(gateway, contexts, ASK)
    assert client.writes == []
    answer(gateway)
    assert len(client.writes) == 1
    (message,) = read_messages(client.take())
    assert message.body == b"served"
    client.say(ASK)
    answer(gateway)
    assert len(client.writes) == 2


def test_tickets_do_not_wait_for_a_response_that_takes_longer(
    gateway: MemoryGateway, contexts: ServerContexts
) -> None:
    client = Client(gateway, contexts, ASK)
    gateway.site.sweep(gateway.reactor.seconds())
    assert len(client.writes) == 1
    assert client.take() == b""
    gateway.site.sweep(gateway.reactor.seconds())
    assert (len(client.writes), gateway.site.unflushed) == (1, set())
    answer(gateway)
    assert b"served" in client.take()


@pytest.mark.parametrize("asks", [b"", ASK[:-1], HALF], ids=["nothing", "a part", "a body to come"])
def test_a_client_that_has_more_to_say_is_told_at_once(
    gateway: MemoryGateway, contexts: ServerContexts, asks: bytes
) -> None:
    # With Nagle's algorithm it may wait for the acknowledgement, which this carries.
    client = Client(gateway, contexts, asks)
    assert len(client.writes) == 1
    assert client.take() == b""


def test_the_end_of_an_older_handshake_does_not_wait(gateway: MemoryGateway, contexts: ServerContexts) -> None:
    # The client waits for it, and has not sent anything else.
    client = Client(gateway, contexts, ASK, version=TLS12)
    assert client.tls.get_protocol_version_name() == "TLSv1.2"
    answer(gateway)
    assert b"served" in client.take()


@pytest.mark.parametrize("half_closes", [False, True])
def test_the_last_response_and_the_end_are_one_write(
    gateway: MemoryGateway, contexts: ServerContexts, half_closes: bool
) -> None:
    if half_closes:
        gateway.site.channel_class = HalfClosingChannel
    client = Client(gateway, contexts, LAST)
    answer(gateway)
    assert len(client.writes) == 1
    assert b"served" in client.take()
    assert (client.ended, client.wire.closed) == (True, "clean")


def test_a_long_last_response_comes_whole(gateway: MemoryGateway, contexts: ServerContexts) -> None:
    client = Client(gateway, contexts, LAST)
    answer(gateway, b"served" * 10_000)
    assert b"served" * 10_000 in client.take()
    assert (client.ended, client.wire.closed) == (True, "clean")


def test_a_client_that_is_gone_costs_nothing(gateway: MemoryGateway, contexts: ServerContexts) -> None:
    client = Client(gateway, contexts, ASK)
    assert len(gateway.site.unflushed) == 1
    client.wire.reset()
    assert gateway.site.unflushed == set()
    gateway.site.sweep(gateway.reactor.seconds())
    assert client.writes == []


def test_more_that_is_said_before_the_response_takes_the_tickets_along(
    gateway: MemoryGateway, contexts: ServerContexts
) -> None:
    client = Client(gateway, contexts, ASK)
    client.say(ASK)
    answer(gateway)
    assert client.take().count(b"served") == 2
