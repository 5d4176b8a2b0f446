"""Shares over real sockets: what one address or tenant does with a service, tunnels and connections, and what the
others get meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from koder_gateway.wire.upgrade import accept
from tests.kit.clients import BASE_DOMAIN, HOST, Client
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.http2_client import Http2Client
from tests.kit.http2_frames import block, data, headers
from tests.kit.services import Origin, Peer, answer
from tests.kit.waiting import until

GREEDY, OTHER = "127.0.0.2", "127.0.0.3"
PLACES, SHARE = 40, 10
SECTIONS = {"listen": {"max_connections": 4000}, "requests": {"max_tunnels": 300}}
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"
WEBSOCKET = SWITCH.replace(b"raw\r\n", b"websocket\r\nSec-WebSocket-Accept: %b\r\n")


def play(peer: Peer, number: int) -> None:
    """Answers what is whole, and switches protocols where it is asked to."""
    while (received := peer.head()) is not None:
        if received.get("upgrade") == "raw":
            peer.send(SWITCH)
            peer.until_gone()
            return
        if key := received.get("sec-websocket-key"):
            peer.send(WEBSOCKET % accept(key.encode()))
            peer.until_gone()
            return
        list(peer.pieces(received))
        peer.send(answer(b"served"))


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(play) as origin:
        yield origin


@pytest.fixture(params=["uvloop", "epoll"])
def gateway(
    request: pytest.FixtureRequest, origin: Origin, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[object]:
    """One service with all the places that there are by default, `many`, and one with few."""
    few = f'[services.few]\nurl = "{origin.url}"\nmax_connections = {PLACES}\n'
    config = configuration({"many": origin.url}, SECTIONS, f'{few}[[routes]]\npath = "/few"\nservice = "few"\n')
    ports = (GatewayProcess.PLAIN, GatewayProcess.TLS)
    with GatewayProcess(tmp_path_factory.mktemp("shares"), config, ports=ports, reactor=request.param) as running:
        yield running


def metric(gateway: GatewayProcess, name: str, **labels: str) -> int:
    shown = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    return int(gateway.metrics().get(f"koder_gateway_{name}{{{shown}}}", 0))


def held(gateway: GatewayProcess, service: str) -> int:
    return metric(gateway, "upstream_connections", service=service, state="active")


def check_others(gateway: GatewayProcess, path: str, times: int = 20) -> None:
    """Another address is served, with and without a body."""
    for _ in range(times):
        with gateway.connect(source=OTHER) as client:
            assert client.ask("GET", path).status == 200
            assert client.ask("POST", path, body=b"hello").status == 200


def begin(gateway: GatewayProcess, raw: bytes, number: int, stack: ExitStack, source: str = GREEDY) -> list[Client]:
    """So many connections from one address, each with the same bytes."""
    clients = [stack.enter_context(gateway.connect(source=source)) for _ in range(number)]
    for client in clients:
        client.send(raw)
    return clients


def head(path: str, *fields: str, host: str = HOST) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", *fields, "", ""]).encode()


def fields_of(path: bytes, method: bytes = b"GET", host: bytes = HOST.encode()) -> list[tuple[bytes, bytes]]:
    """The pseudo-header fields of a request over HTTP/2."""
    return [(b":method", method), (b":scheme", b"https"), (b":path", path), (b":authority", host)]


def test_bodies_over_http2_that_do_not_begin_hold_nothing(gateway: GatewayProcess, origin: Origin) -> None:
    asked = block([*fields_of(b"/many"), (b"content-length", b"1000")])
    with ExitStack() as stack:
        for _ in range(11):
            client = Http2Client.connect(gateway.ports[1], HOST.encode(), source=GREEDY)
            stack.enter_context(client).start()
            client.send(*(headers(2 * number + 1, asked, end=False) for number in range(100)))
            client.fence()
        assert gateway.metrics()["koder_gateway_exchanges_in_flight"] == 1100
        assert held(gateway, "many") == 0
        assert origin.accepted == 0
        check_others(gateway, "/many")
        assert origin.accepted <= 2
        assert metric(gateway, "upstream_refused_total", service="many", reason="full") == 0


@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("expects", [[], ["Expect: 100-continue"]], ids=["", "expects"])
def test_bodies_over_http1_that_do_not_begin_hold_nothing(
    framing: str, expects: list[str], gateway: GatewayProcess, origin: Origin
) -> None:
    with ExitStack() as stack:
        clients = begin(gateway, head("/few", framing, *expects), 300, stack)
        for client in clients if expects else []:
            assert client.head().status == 100
        until(lambda: gateway.metrics()["koder_gateway_exchanges_in_flight"] == 300, "all have begun")
        assert held(gateway, "few") == 0
        assert origin.accepted == 0
        check_others(gateway, "/few")


def test_bodies_that_begin_and_go_no_further_hold_a_share(gateway: GatewayProcess, origin: Origin) -> None:
    with ExitStack() as stack:
        begin(gateway, head("/few", "Content-Length: 1000") + b"x", 100, stack)
        until(lambda: held(gateway, "few") == SHARE, "the share is taken")
        # An address may have the queue alone, of which its tenant has a share.
        until(lambda: metric(gateway, "upstream_waiting", service="few") == PLACES - SHARE, "as many wait")
        check_others(gateway, "/few")
        assert held(gateway, "few") == SHARE
        until(lambda: metric(gateway, "upstream_refused_total", service="few", reason="timeout"), "the wait is over")
        assert metric(gateway, "upstream_refused_total", service="few", reason="tenant") == 100 - PLACES
        assert f"service few: {GREEDY} has reached its share of connections ({SHARE} of {PLACES})" in gateway.log()
    until(lambda: held(gateway, "few") == 0, "all is given back")


def test_bodies_over_http2_that_begin_and_go_no_further_hold_a_share(gateway: GatewayProcess) -> None:
    asked = block([*fields_of(b"/few", b"PUT"), (b"content-length", b"1000")])
    with Http2Client.connect(gateway.ports[1], HOST.encode(), source=GREEDY) as client:
        client.start()
        client.send(*(headers(2 * n + 1, asked, end=False) + data(2 * n + 1, b"x") for n in range(100)))
        until(lambda: held(gateway, "few") == SHARE, "the share is taken")
        check_others(gateway, "/few")
        assert held(gateway, "few") == SHARE


def test_one_tenant_from_many_addresses_holds_a_share(gateway: GatewayProcess) -> None:
    with ExitStack() as stack:
        for number in range(1, 9):
            raw = head("/few", "Content-Length: 1000", host=f"greedy.{BASE_DOMAIN}") + b"x"
            begin(gateway, raw, 5, stack, f"127.0.1.{number}")
        until(lambda: held(gateway, "few") >= PLACES // 2 - 1, "the share is taken but for the last place")
        # That is kept for an address that has none.
        begin(gateway, raw, 1, stack, "127.0.1.9")
        until(lambda: held(gateway, "few") == PLACES // 2, "the share is taken")
        check_others(gateway, "/few")
        assert held(gateway, "few") == PLACES // 2


def test_tunnels_of_one_address(gateway: GatewayProcess) -> None:
    raw = head("/many", "Connection: Upgrade", "Upgrade: raw")
    with ExitStack() as stack:
        clients = begin(gateway, raw, 300, stack)
        statuses = [client.head().status for client in clients]
        assert (statuses.count(101), statuses.count(503)) == (75, 225)
        (other,) = begin(gateway, raw, 1, stack, OTHER)
        assert other.head().status == 101
        check_others(gateway, "/many", 3)
        assert metric(gateway, "upstream_refused_total", service="many", reason="address") == 225
        assert f"service many: {GREEDY} has reached its share of tunnels (75 of 300)" in gateway.log()
        # One that ends leaves its place to another.
        clients[statuses.index(101)].close()
        until(lambda: metric(gateway, "tunnels_open", service="many") == 75, "one has ended")
        (mine,) = begin(gateway, raw, 1, stack)
        assert mine.head().status == 101


def test_websockets_of_one_address_over_http2(gateway: GatewayProcess) -> None:
    asked = block([*fields_of(b"/many", b"CONNECT"), (b":protocol", b"websocket"), (b"sec-websocket-version", b"13")])
    with ExitStack() as stack:
        statuses = []
        for source, number in ((GREEDY, 100), (OTHER, 10)):
            client = Http2Client.connect(gateway.ports[1], HOST.encode(), source=source)
            stack.enter_context(client).start()
            client.send(*(headers(2 * each + 1, asked, end=False) for each in range(number)))
            statuses.append([client.head(2 * each + 1).status for each in range(number)])
        assert (statuses[0].count(200), statuses[0].count(503)) == (75, 25)
        assert statuses[1] == [200] * 10


@pytest.fixture(params=["uvloop", "epoll"])
def narrow(
    request: pytest.FixtureRequest, origin: Origin, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[object]:
    """A gateway for 40 clients at once."""
    config = configuration({"many": origin.url}, {"listen": {"max_connections": 40}})
    ports = (GatewayProcess.PLAIN, GatewayProcess.TLS)
    with GatewayProcess(tmp_path_factory.mktemp("narrow"), config, ports=ports, reactor=request.param) as running:
        yield running


def test_connections_of_one_address(narrow: GatewayProcess) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(narrow.connect(source=GREEDY)) for _ in range(SHARE)]
        for client in clients:
            assert client.ask("GET", "/many").status == 200
        with narrow.connect(source=GREEDY) as beyond:
            assert beyond.read("GET").status == 503
            beyond.assert_closed()
        check_others(narrow, "/many", 3)
        assert narrow.metrics()["koder_gateway_connections_rejected_total"] == 1
        assert f"{GREEDY} has reached its share of client connections (10 of 40)" in narrow.log()
        clients.pop().close()
        until(lambda: narrow.metrics()["koder_gateway_connections_open"] == SHARE - 1, "one is gone")
        with narrow.connect(source=GREEDY) as again:
            assert again.ask("GET", "/many").status == 200


def test_connections_of_one_tenant(narrow: GatewayProcess) -> None:
    greedy = head("/many", host=f"greedy.{BASE_DOMAIN}")
    with ExitStack() as stack:
        for number in range(1, 5):
            for client in begin(narrow, greedy, 5, stack, f"127.0.1.{number}"):
                assert client.read("GET").status == 200
        with narrow.connect(source="127.0.1.5") as beyond:
            beyond.send(greedy)
            assert beyond.read("GET").status == 503
            beyond.assert_closed()
        with Http2Client.connect(narrow.ports[1], f"greedy.{BASE_DOMAIN}".encode(), source="127.0.1.6") as client:
            client.start()
            asked = fields_of(b"/many", host=f"greedy.{BASE_DOMAIN}".encode())
            client.send(headers(1, block(asked), end=True))
            assert client.answer().status == 503
            client.end()
        check_others(narrow, "/many", 3)
