"""Connections behind a balancer: whom they speak for, when they are closed, and that nothing is lost on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

from koder_gateway.listening.proxy_protocol import ProxiedFactory, ProxyGate
from koder_gateway.policy.limit_rules import LimitRule
from tests.kit.bounds import client_limits, client_timeouts
from tests.kit.http1 import Message, read_message, read_messages
from tests.kit.memory import (
    HIGH_WATER,
    HOST,
    MemoryGateway,
    Peer,
    PlainTransport,
    forwarded,
    join,
    rechunked,
    request,
    serve,
    settings_with,
)
from tests.kit.proxy_headers import (
    HAPROXY_LOCAL_PLAIN,
    HAPROXY_LOCAL_TLS,
    NO_TLS,
    TLS,
    UNIX,
    V4,
    V6,
    binary,
    summed,
)

BALANCER = "10.0.0.9"
CLIENT = b"203.0.113.7"
LINE = b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 443\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Balancer:
    """What sends PROXY headers to a gateway in memory."""

    def __init__(self, gateway: MemoryGateway) -> None:
        self.gateway = gateway
        self.gate = ProxyGate(gateway.clock, gateway.site.channels, gateway.site.overfull)  # type: ignore[arg-type]
        self.gate.trusts = gateway.composition.policy.proxies.introduces
        self.factory = ProxiedFactory(self.gate, gateway.site)

    def connect(self, *data: bytes, peer: str = BALANCER) -> Peer:
        """A connection on which these pieces are sent."""
        gateway = self.gateway
        client = join(gateway.reactor, self.factory.buildProtocol(None), peer=peer)
        gateway.clients.append(client)
        return client.send_in(data)

    @property
    def waiting(self) -> int:
        """Connections that are open, as the gateway counts them."""
        return len(self.gateway.site.channels)


@pytest.fixture
def balancer(gateway: MemoryGateway) -> Balancer:
    return Balancer(gateway)


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """What is logged as a warning."""
    seen: list[str] = []

    def observe(event: LogEvent) -> None:
        if event["log_level"].name == "warn":
            seen.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)


def answer(message: Message) -> bytes:
    return ANSWER


def status(client: Peer) -> int:
    (message,) = read_messages(client.take())
    return message.status


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (LINE, CLIENT),
        (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 50000 443\r\n", CLIENT),
        (binary(V4), CLIENT),
        (summed(V4), CLIENT),
        (b"PROXY UNKNOWN\r\n", BALANCER.encode()),
        (binary(b"", family=0, command=0x20), BALANCER.encode()),
    ],
)
def test_log_and_service_see_whom_the_header_names(balancer: Balancer, header: bytes, client: bytes) -> None:
    gateway = balancer.gateway
    peer = balancer.connect(header + request())
    assert gateway.origin().only.received == forwarded(peer=client)
    serve(gateway, answer)
    assert status(peer) == 200
    (exchange,) = gateway.exchanges
    assert exchange.peer == client


def test_an_ipv6_client(balancer: Balancer) -> None:
    balancer.connect(binary(V6, family=0x21), request())
    (message, _) = read_message(balancer.gateway.origin().only.received)
    assert message.one(b"X-Forwarded-For") == b"2001:db8::7"
    assert message.one(b"Forwarded").startswith(b'for="[2001:db8::7]";')


def test_limits_count_the_client_and_not_the_balancer(make_gateway: Callable[..., MemoryGateway]) -> None:
    one_an_hour = LimitRule("all", ("ip",), 1, 3600)
    balancer = Balancer(make_gateway(settings=settings_with(limits=(one_an_hour,))))
    seen = []
    for host in (b"203.0.113.7", b"203.0.113.8", b"203.0.113.7"):
        client = balancer.connect(b"PROXY TCP4 %b 192.0.2.1 50000 443\r\n" % host, request())
        serve(balancer.gateway, answer)
        seen.append(status(client))
    assert seen == [200, 200, 429]


@pytest.mark.parametrize(
    ("source", "client"),
    [(b"203.0.113.7", b"203.0.113.7"), (b"10.0.0.8", b"198.51.100.7")],
    ids=["a client", "another trusted proxy"],
)
def test_forwarded_fields_count_where_the_address_in_the_header_is_trusted(
    make_gateway: Callable[..., MemoryGateway], source: bytes, client: bytes
) -> None:
    gateway = make_gateway(settings=settings_with(listen={"trusted_proxies": ("10.0.0.0/8",)}))
    balancer = Balancer(gateway)
    line = b"PROXY TCP4 %b 192.0.2.1 50000 443\r\n" % source
    balancer.connect(line, request(b"GET", b"/v1/users", b"X-Forwarded-For: 198.51.100.7"))
    (message, _) = read_message(gateway.origin().only.received)
    assert message.one(b"X-Forwarded-For").split(b", ")[0] == client
    serve(gateway, answer)
    assert gateway.exchanges[0].peer == client


@given(cuts=st.lists(st.integers(0, 500), max_size=12), header=st.sampled_from([LINE, binary(V4), summed(V4)]))
def test_the_header_may_come_in_any_pieces(cuts: Sequence[int], header: bytes) -> None:
    gateway = MemoryGateway()
    balancer = Balancer(gateway)
    data = header + request() + request(b"GET", b"/v1/users/2")
    client = balancer.connect(*rechunked(data, cuts))
    asked = serve(gateway, answer)
    assert [message.one(b"X-Forwarded-For") for message in asked] == [CLIENT, CLIENT]
    assert [message.status for message in read_messages(client.take())] == [200, 200]
    gateway.hang_up()


def test_one_byte_at_a_time(balancer: Balancer) -> None:
    data = summed(V4) + request()
    client = balancer.connect(*(data[place : place + 1] for place in range(len(data))))
    serve(balancer.gateway, answer)
    assert status(client) == 200


# -- what is closed


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (request(), "something else arrived"),
        (b"\x16\x03\x01\x02\x00", "TLS began without a PROXY header"),
        (b"PROXY TCP4 nobody\r\n" + request(), "its line is malformed"),
        (binary(V4[:-1]) + request(), "it is shorter than its addresses"),
        (summed(V4)[:-1] + b"\x00" + request(), "its checksum is wrong"),
    ],
)
def test_a_missing_or_malformed_header_is_one_line_and_the_end(
    balancer: Balancer, warnings: list[str], data: bytes, says: str
) -> None:
    client = balancer.connect(data)
    assert (client.closed, client.received, balancer.waiting) == ("clean", b"", 0)
    (line,) = warnings
    assert line.startswith(f"connection from {BALANCER} on a haproxy: endpoint closed: {says}: a PROXY header")
    assert not balancer.gateway.exchanges
    assert not balancer.gateway.origin().connections


@pytest.mark.parametrize(
    ("pieces", "says"),
    [
        ((b"",), "nothing came"),
        ((LINE[:-1],), "only a part of it came"),
        ((b"P", b"R", b"O"), "only a part of it came"),
    ],
)
def test_a_header_has_three_seconds(
    balancer: Balancer, warnings: list[str], pieces: tuple[bytes, ...], says: str
) -> None:
    client = balancer.connect()
    for piece in pieces:
        balancer.gateway.advance(2.75 / len(pieces))
        client.send(piece)
    assert (client.closed, balancer.waiting) == ("", 1)
    balancer.gateway.advance(0.5)
    assert (client.closed, client.received, balancer.waiting) == ("clean", b"", 0)
    (line,) = warnings
    assert line.startswith(
        f"connection from {BALANCER} on a haproxy: endpoint closed: {says} within 3 seconds: a PROXY"
    )


def test_behind_the_header_the_deadlines_are_the_channel_s(make_gateway: Callable[..., MemoryGateway]) -> None:
    gateway = make_gateway(timeouts=client_timeouts(head=10))
    client = Balancer(gateway).connect(LINE)
    gateway.advance(9.5)
    assert not client.closed
    gateway.advance(1)
    assert client.closed == "clean"


def test_who_leaves_without_a_word_is_not_worth_a_line(balancer: Balancer, warnings: list[str]) -> None:
    """Balancers look whether a port is open."""
    balancer.connect().close()
    balancer.connect().reset()
    assert (warnings, balancer.waiting) == ([], 0)


@pytest.mark.parametrize("begun", [b"PROXY TCP4 1", binary(V4)[:13]])
def test_who_leaves_within_the_header_is(balancer: Balancer, warnings: list[str], begun: bytes) -> None:
    balancer.connect(begun).close()
    balancer.connect(begun).reset()
    assert balancer.waiting == 0
    assert len(warnings) == 2
    for line in warnings:
        assert line.startswith(
            f"connection from {BALANCER} on a haproxy: endpoint closed: it closed before its header was complete:"
        )


def test_a_flood_of_faults_is_a_few_lines(balancer: Balancer, warnings: list[str]) -> None:
    for _ in range(1000):
        assert balancer.connect(b"x").closed
    assert len(warnings) == 10
    balancer.gateway.advance(10.5)
    balancer.connect(b"x")
    assert len(warnings) == 11
    assert warnings[-1].endswith("(990 similar lines were left out before)")
    balancer.connect(b"x")
    assert "left out" not in warnings[-1]


def test_only_trusted_proxies_may_send_it(make_gateway: Callable[..., MemoryGateway], warnings: list[str]) -> None:
    gateway = make_gateway(settings=settings_with(listen={"trusted_proxies": ("10.0.0.0/8", "2001:db8::/32")}))
    balancer = Balancer(gateway)
    for peer in ("10.0.0.9", "2001:db8::9", "::ffff:10.0.0.9"):
        client = balancer.connect(LINE, request(), peer=peer)
        serve(gateway, answer)
        assert status(client) == 200
    client = balancer.connect(LINE + request(), peer="192.0.2.66")
    assert (client.closed, client.received) == ("clean", b"")
    (line,) = warnings
    assert line.startswith("connection from 192.0.2.66 on a haproxy: endpoint closed: it is not in")
    assert len(gateway.exchanges) == 3


def test_a_balancer_on_a_unix_socket(make_gateway: Callable[..., MemoryGateway], warnings: list[str]) -> None:
    for proxies, believed in ((), True), (("unix:",), True), (("10.0.0.0/8",), False):
        gateway = make_gateway(settings=settings_with(listen={"trusted_proxies": proxies}))
        factory = Balancer(gateway).factory
        far = Peer(gateway.reactor)
        gateway.clients.append(far)
        transport = PlainTransport(gateway.reactor, far, "", "")
        transport._peer = UNIXAddress(b"")  # type: ignore[assignment]
        transport.protocol = factory.buildProtocol(None)
        transport.protocol.makeConnection(transport)
        far.send(LINE + request())
        assert bool(far.closed) is not believed
        if believed:
            serve(gateway, answer)
            assert gateway.exchanges[0].peer == CLIENT
    (line,) = warnings
    assert "connection from unix: on a haproxy: endpoint closed: it is not in listen.trusted_proxies" in line


UNIX_TLS = binary(UNIX + TLS, family=0x31)


def protos(gateway: MemoryGateway) -> list[tuple[bytes, bytes]]:
    """For each request that services have got: the client that they were told, and its scheme."""
    return [(each.one(b"X-Forwarded-For"), each.one(b"X-Forwarded-Proto")) for each in serve(gateway, answer)]


@pytest.mark.parametrize("header", [UNIX_TLS, HAPROXY_LOCAL_TLS], ids=["UNIX", "HAProxy's LOCAL"])
@pytest.mark.parametrize("proxies", [(), ("10.0.0.0/8",)])
def test_tls_counts_of_a_client_without_an_address(
    make_gateway: Callable[..., MemoryGateway], proxies: tuple[str, ...], header: bytes
) -> None:
    gateway = make_gateway(settings=settings_with(listen={"trusted_proxies": proxies}))
    client = Balancer(gateway).connect(header, request(), request(b"GET", b"https://%b/v1/users" % HOST))
    assert protos(gateway) == [(BALANCER.encode(), b"https")] * 2
    for each in read_messages(client.take()):
        assert (each.status, each.one(b"Strict-Transport-Security")) == (200, b"max-age=31536000")


def test_tls_counts_of_a_trusted_proxy_that_the_header_names(make_gateway: Callable[..., MemoryGateway]) -> None:
    gateway = make_gateway(settings=settings_with(listen={"trusted_proxies": ("203.0.113.0/24", "10.0.0.0/8")}))
    connect = Balancer(gateway).connect
    connect(binary(V4 + TLS), request(), request(b"GET", b"/v1/users", b"X-Forwarded-Proto: http"))
    assert protos(gateway) == [(CLIENT, b"https"), (CLIENT, b"http")]


@pytest.mark.parametrize(
    "header", [binary(V4 + NO_TLS), binary(UNIX + NO_TLS, family=0x31), LINE, HAPROXY_LOCAL_PLAIN]
)
def test_https_is_not_asked_for_without_tls(balancer: Balancer, header: bytes) -> None:
    client = balancer.connect(header, request(b"GET", b"https://%b/v1/users" % HOST))
    assert status(client) == 421


def test_a_unix_client_on_a_unix_socket(make_gateway: Callable[..., MemoryGateway]) -> None:
    gateway = make_gateway(settings=settings_with(listen={"trusted_proxies": ("unix:",)}))
    far = Peer(gateway.reactor)
    gateway.clients.append(far)
    transport = PlainTransport(gateway.reactor, far, "", "")
    transport._peer = UNIXAddress(b"/run/balancer")  # type: ignore[assignment]
    transport.protocol = Balancer(gateway).factory.buildProtocol(None)
    transport.protocol.makeConnection(transport)
    far.send(UNIX_TLS + request())
    assert protos(gateway) == [(b"unknown", b"https")]
    assert transport.getPeer() == UNIXAddress(b"/run/balancer")
    assert isinstance(transport.getPeer(), UNIXAddress)


# -- how many, and the end


def test_waiting_connections_count_among_the_clients(make_gateway: Callable[..., MemoryGateway]) -> None:
    gateway = make_gateway(limits=client_limits(max_connections=2))
    balancer = Balancer(gateway)
    waiting = [balancer.connect(), balancer.connect(LINE)]
    direct = gateway.connect()
    assert status(direct) == 503
    # A balancer's is told as well, once its header has come.
    told = balancer.connect(LINE)
    assert status(told) == 503
    assert gateway.site.rejected == 2
    for client in (*waiting, direct, told):
        client.close()
    assert balancer.waiting == 0
    client = balancer.connect(LINE, request())
    serve(gateway, answer)
    assert status(client) == 200


def test_a_flood_of_waiting_connections_is_reset(
    make_gateway: Callable[..., MemoryGateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("koder_gateway.downstream.site._TURNED_AWAY", 3)
    gateway = make_gateway(limits=client_limits(max_connections=2))
    balancer = Balancer(gateway)
    clients = [balancer.connect() for _ in range(8)]
    assert [client.closed for client in clients] == [""] * 5 + ["reset"] * 3
    assert (balancer.waiting, gateway.site.rejected, gateway.site.accepted) == (5, 3, 0)


def test_a_drain_serves_what_is_on_its_way(make_gateway: Callable[..., MemoryGateway]) -> None:
    gateway = make_gateway()
    balancer = Balancer(gateway)
    coming, silent, quiet = balancer.connect(LINE[:10]), balancer.connect(), balancer.connect()
    gateway.site.drain()
    coming.send(LINE[10:] + request())
    serve(gateway, answer)
    (message,) = read_messages(coming.take())
    assert (message.status, message.one(b"Connection")) == (200, b"close")
    # One whose header comes and no request has as long as any other that has just connected.
    quiet.send(LINE)
    gateway.advance(2.25)
    assert quiet.closed == "clean"
    assert not silent.closed
    gateway.site.end_drain()
    gateway.reactor.advance(0)
    assert silent.closed
    assert balancer.waiting == 0


# -- nothing between the client and the channel


class Recorder(Protocol):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.told.append((self.transport.getPeer(), self.transport.getHost()))

    def dataReceived(self, data: bytes) -> None:
        self.told.append(data)

    def connectionLost(self, reason: object = None) -> None:
        self.told.append("lost")


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Recorder):
    """Wants to know of either half."""

    def readConnectionLost(self) -> None:
        self.told.append("read half")

    def writeConnectionLost(self) -> None:
        self.told.append("written half")


def connected(gateway: MemoryGateway, protocol: Protocol | None) -> tuple[Peer, Any]:
    """A connection to a protocol behind a header, and what the transport calls."""
    factory = Factory()
    factory.noisy = False
    factory.buildProtocol = lambda addr: protocol  # type: ignore[method-assign,assignment]
    proxied = ProxiedFactory(ProxyGate(gateway.clock), factory).buildProtocol(None)
    return join(gateway.reactor, proxied, peer=BALANCER), proxied


def test_a_protocol_that_comes_to_read_otherwise_is_followed(gateway: MemoryGateway) -> None:
    """As a channel does whose exchange becomes a tunnel."""
    protocol = Recorder()
    client, _ = connected(gateway, protocol)
    client.send(binary(V6, family=0x21) + b"first")
    others: list[bytes] = []
    protocol.dataReceived = others.append  # type: ignore[method-assign,assignment]
    client.send(b"second")
    assert (protocol.told[1:], others) == ([b"first"], [b"second"])


def test_the_protocol_above_works_on_the_connection_s_own_transport(gateway: MemoryGateway) -> None:
    protocol = Recorder()
    client, _ = connected(gateway, protocol)
    client.send(binary(V6, family=0x21) + b"first")
    assert protocol.transport is client.near
    client.send(b"second").close()
    ends = (IPv6Address("TCP", "2001:db8::7", 50000), IPv6Address("TCP", "2001:db8::1", 443))
    assert protocol.told == [ends, b"first", b"second", "lost"]


def test_the_connection_s_own_addresses_stay_where_the_header_names_none(gateway: MemoryGateway) -> None:
    protocol = Recorder()
    client, _ = connected(gateway, protocol)
    client.send(b"PROXY UNKNOWN\r\n")
    assert protocol.told == [(IPv4Address("TCP", BALANCER, 50000), IPv4Address("TCP", "203.0.113.1", 443))]
    client.close()


@pytest.mark.parametrize("kind", [Recorder, HalfCloseable])
def test_half_closing_is_passed_on_to_who_wants_to_know(gateway: MemoryGateway, kind: type[Recorder]) -> None:
    protocol = kind()
    client, proxied = connected(gateway, protocol)
    assert not IHalfCloseableProtocol.providedBy(proxied)
    client.send(LINE)
    assert IHalfCloseableProtocol.providedBy(proxied) is (kind is HalfCloseable)
    if kind is HalfCloseable:
        proxied.readConnectionLost()
        proxied.writeConnectionLost()
        assert protocol.told[1:] == ["read half", "written half"]
    client.close()
    assert protocol.told[-1] == "lost"


def test_what_still_comes_after_a_refusal_is_nothing(gateway: MemoryGateway) -> None:
    """A transport may hand over what it had read already."""
    protocol = Recorder()
    client, proxied = connected(gateway, protocol)
    client.send(b"nonsense")
    proxied.dataReceived(LINE)
    assert protocol.told == []


def test_a_factory_that_wants_no_connection(gateway: MemoryGateway) -> None:
    client, _ = connected(gateway, None)
    client.send(LINE + b"anything")
    assert client.closed == "clean"


def test_nothing_is_delivered_to_a_protocol_that_has_closed(gateway: MemoryGateway) -> None:
    class Closer(Recorder):
        def connectionMade(self) -> None:
            assert self.transport is not None
            self.transport.loseConnection()

    protocol = Closer()
    client, _ = connected(gateway, protocol)
    client.send(LINE + b"too late")
    assert protocol.told == ["lost"]
    assert client.closed == "clean"


def test_a_slow_client_pauses_the_service_through_the_header_s_reader(balancer: Balancer) -> None:
    client = balancer.connect(LINE, request())
    client.stop_reading()
    origin = balancer.gateway.origin().only
    size = 8 * HIGH_WATER
    origin.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    for _ in range(8):
        origin.send(b"x" * HIGH_WATER)
    assert origin.near.paused
    client.start_reading()
    balancer.gateway.reactor.advance(0)
    (message,) = read_messages(client.take())
    assert len(message.body) == size
