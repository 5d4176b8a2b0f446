"""Who has a place at a service and who waits, in a network in memory: shares, turns, and every way to leave."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.logger import Logger, formatEvent

from koder_gateway.config import ShareSettings
from koder_gateway.policy.shares import Shares
from koder_gateway.tree.compose import Composition, adopt, compose
from koder_gateway.upstream.capacity import REASONS
from tests.kit.bounds import client_limits
from tests.kit.http1 import Message, read_message, read_messages
from tests.kit.http2_frames import block, headers, in_frames
from tests.kit.http2_memory import Http2
from tests.kit.memory import HOST, MemoryGateway, Peer, request, serve, service_settings, settings_with

Make = Callable[..., MemoryGateway]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
PROXY = "10.0.0.1"
ASKS = (b"Connection: Upgrade", b"Upgrade: echo")
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"


def crowded(
    make_gateway: Make, places: int = 4, address: int = 50, tenant: int = 100, **sections: object
) -> MemoryGateway:
    """A gateway whose service has so few places."""
    services = service_settings("identity", "http://127.0.0.1:4001", max_connections=places)
    shares = ShareSettings(address=address, tenant=tenant)
    return make_gateway(settings=settings_with(services=services, shares=shares, **sections))


def ask(gateway: MemoryGateway, peer: str, name: bytes = b"x", *lines: bytes, host: bytes = b"") -> Peer:
    """A client that asks for /v1/users/NAME."""
    client = gateway.connect(peer)
    options = {"host": host} if host else {}
    client.send(request(b"GET", b"/v1/users/" + name, *lines, **options))
    return client


def status(client: Peer) -> int:
    """The status of the only answer; 0 while there is none."""
    messages = read_messages(client.received)
    return messages[0].status if messages else 0


def asked(gateway: MemoryGateway) -> list[bytes]:
    """The names that are asked for at the service now."""
    connections = gateway.origin().connections
    heads = (each.received for each in connections if not each.gone and not each.closed)
    return [read_message(raw)[0].start.split(b" ")[1].rpartition(b"/")[2] for raw in heads if raw]


def answer_first(gateway: MemoryGateway, name: bytes) -> None:
    """Answer the request for this name."""
    for connection in gateway.origin().connections:
        if connection.received.startswith(b"GET /v1/users/%b " % name):
            connection.take()
            connection.send(OK)
            return
    raise AssertionError(f"{name!r} is not asked for")


def test_addresses_are_served_in_turns(make_gateway: Make) -> None:
    gateway = crowded(make_gateway, places=6)
    for peer, names in (
        ("192.0.2.1", (b"a0", b"a1", b"a2", b"a3", b"a4")),
        ("192.0.2.2", (b"b0", b"b1", b"b2", b"b3")),
        ("192.0.2.3", (b"c0", b"c1", b"c2")),
    ):
        for name in names:
            ask(gateway, peer, name)
    assert asked(gateway) == [b"a0", b"a1", b"a2", b"b0", b"b1", b"b2"]
    order: list[bytes] = []
    for name in (b"a0", b"b0", b"a1", b"a2", b"b1", b"b2"):
        before = set(asked(gateway))
        answer_first(gateway, name)
        order += set(asked(gateway)) - before
    assert order == [b"a3", b"b3", b"c0", b"a4", b"c1", b"c2"]


def test_another_address_is_served_while_one_has_its_share(make_gateway: Make) -> None:
    gateway = crowded(make_gateway)
    greedy = [ask(gateway, "192.0.2.1") for _ in range(4)]
    other = ask(gateway, "192.0.2.2", b"other")
    assert gateway.idle() == (0, 3)
    answer_first(gateway, b"other")
    assert status(other) == 200
    assert gateway.services["identity"].capacity.waiting == 2
    gateway.advance(2.25)
    assert [status(client) for client in greedy] == [0, 0, 503, 503]
    refused = [exchange for exchange in gateway.exchanges if exchange.status == 503]
    assert {(exchange.service, exchange.code) for exchange in refused} == {("identity", "overloaded")}


def test_two_addresses_that_hold_their_places_shut_out_nobody_else(make_gateway: Make) -> None:
    """Neither others of their tenant nor other tenants, who are answered while the two wait."""
    gateway = crowded(make_gateway, places=64, address=25, tenant=50)
    for peer in ("192.0.2.1", "192.0.2.2"):
        for _ in range(16):
            ask(gateway, peer, b"held")
    assert gateway.services["identity"].capacity.waiting == 2
    for number in range(20):
        third = ask(gateway, "192.0.2.3", b"third%d" % number)
        other = ask(gateway, "192.0.2.4", b"other%d" % number, host=b"beta.id.koder.dev")
        answer_first(gateway, b"third%d" % number)
        answer_first(gateway, b"other%d" % number)
        assert (status(third), status(other)) == (200, 200)
    assert gateway.services["identity"].capacity.waiting == 2


def test_a_place_that_is_kept_for_another_costs_the_next_one_nothing(make_gateway: Make) -> None:
    """It is taken beside a full queue, so that more than one of those who wait must give way."""
    gateway = crowded(make_gateway, places=32, address=25, tenant=50)
    for number in range(32):
        ask(gateway, f"192.0.2.{number % 4}", b"held%d" % number)
    ask(gateway, "198.51.100.1", b"few")
    assert b"few" in asked(gateway)
    next_one = ask(gateway, "198.51.100.2", b"next")
    assert status(next_one) == 0
    answer_first(gateway, b"held0")
    answer_first(gateway, b"held1")
    assert b"next" in asked(gateway)


def test_addresses_of_one_ipv6_network_are_one(make_gateway: Make) -> None:
    gateway = crowded(make_gateway)
    for number in range(3):
        ask(gateway, f"2001:db8::{number}")
    assert gateway.idle() == (0, 2)
    ask(gateway, "2001:db8:0:1::1")
    assert gateway.idle() == (0, 3)


def test_a_tenant_has_its_share(make_gateway: Make) -> None:
    gateway = crowded(make_gateway, places=8, address=100, tenant=25)
    for number in range(4):
        ask(gateway, f"192.0.2.{number}", host=b"acme.id.koder.dev")
    assert gateway.idle() == (0, 2)
    ask(gateway, "192.0.2.1", host=b"beta.id.koder.dev")
    assert gateway.idle() == (0, 3)


def test_a_trusted_proxy_counts_for_the_clients_that_it_names(make_gateway: Make) -> None:
    gateway = crowded(make_gateway, listen={"trusted_proxies": ("10.0.0.0/8",)})
    for _ in range(3):
        ask(gateway, PROXY, b"x", b"X-Forwarded-For: 192.0.2.1")
    assert gateway.idle() == (0, 2)
    # Where it names none, it stands for many.
    for _ in range(2):
        ask(gateway, PROXY)
    assert gateway.idle() == (0, 4)


@pytest.mark.parametrize("leave", [Peer.close, Peer.reset])
def test_a_client_that_goes_waits_no_longer(leave: Callable[[Peer], None], make_gateway: Make) -> None:
    gateway = crowded(make_gateway, places=1)
    ask(gateway, "192.0.2.1", b"first")
    waits = ask(gateway, "192.0.2.2")
    leave(waits)
    assert gateway.services["identity"].capacity.waiting == 0
    answer_first(gateway, b"first")
    assert asked(gateway) == []
    assert gateway.exchanges[0].code == "client_gone"


def test_a_drain_lets_the_waiting_have_their_turn(make_gateway: Make) -> None:
    gateway = crowded(make_gateway, places=1)
    ask(gateway, "192.0.2.1", b"first")
    waits, late = ask(gateway, "192.0.2.2", b"waits"), ask(gateway, "192.0.2.3")
    gateway.site.drain()
    answer_first(gateway, b"first")
    answer_first(gateway, b"waits")
    assert status(waits) == 200
    gateway.site.end_drain()
    assert status(late) == 503


def test_an_address_that_has_its_share_is_told_of_once(make_gateway: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(
        Logger, "warn", lambda _, form, **fields: lines.append(formatEvent({"log_format": form, **fields}))
    )
    gateway = crowded(make_gateway)
    for _ in range(4):
        ask(gateway, "192.0.2.1")
    assert lines == [
        (
            "service identity: 192.0.2.1 has reached its share of connections (2 of 4);"
            " its other requests wait (shares.address)"
        )
    ]


def test_tunnels_have_shares_and_no_queue(make_gateway: Make) -> None:
    gateway = crowded(make_gateway, places=100, requests={"max_tunnels": 4})
    clients = []
    for peer in ("192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2"):
        clients.append(ask(gateway, peer, b"x", *ASKS))
        if gateway.origin().last.received:
            gateway.origin().last.take()
            gateway.origin().last.send(SWITCH)
    assert [client.received[9:12] for client in clients] == [b"101", b"101", b"503", b"101"]
    assert gateway.services["identity"].capacity.refused == dict.fromkeys(REASONS, 0) | {"address": 1}
    assert not gateway.services["identity"].places.held
    clients[0].reset()
    again = ask(gateway, "192.0.2.1", b"x", *ASKS)
    gateway.origin().last.send(SWITCH)
    assert again.received[9:12] == b"101"


def test_a_share_of_the_tunnels_is_looked_at_again_when_the_service_has_switched(make_gateway: Make) -> None:
    gateway = crowded(make_gateway, places=100, requests={"max_tunnels": 4})
    clients = [ask(gateway, "192.0.2.1", b"x", *ASKS) for _ in range(4)]
    for connection in gateway.origin().connections:
        connection.send(SWITCH)
    assert [client.received[9:12] for client in clients] == [b"101", b"101", b"503", b"503"]


def composed(gateway: MemoryGateway, **options: object) -> Composition:
    """The generation after a gateway's, with other settings of its one service or of shares."""
    shares = options.pop("shares", gateway.settings.shares)
    services = service_settings("identity", "http://127.0.0.1:4001", **{"max_connections": 4, **options})
    settings = settings_with(services=services, shares=shares)
    before = gateway.composition
    after = compose(settings, None, reactor=gateway.reactor, clock=gateway.clock, before=before)
    adopt(after, before)
    return after


def test_a_reload_keeps_who_waits_and_lets_them_go_by_new_shares(make_gateway: Make) -> None:
    gateway = crowded(make_gateway)
    for _ in range(3):
        ask(gateway, "192.0.2.1")
    assert gateway.idle() == (0, 2)
    after = composed(gateway, shares=ShareSettings(address=75, tenant=100))
    assert after.services["identity"] is gateway.services["identity"]
    assert after.services["identity"].places.shares == Shares(3, 4)
    gateway.reactor.advance(0)
    assert gateway.idle() == (0, 3)


def test_a_service_that_is_replaced_serves_those_who_wait(make_gateway: Make) -> None:
    gateway = crowded(make_gateway, places=4)
    clients = [ask(gateway, "192.0.2.1", b"%d" % number) for number in range(3)]
    old = gateway.services["identity"]
    old.capacity.refused["timeout"] = 7
    after = composed(gateway, response=5.0)
    new = after.services["identity"]
    assert new is not old
    assert new.capacity.refused == dict.fromkeys(REASONS, 0) | {"timeout": 7}
    old.close_idle()
    serve(gateway, lambda _: OK)
    assert [status(client) for client in clients] == [200] * 3
    assert old.capacity.empty


# -- clients' connections


def narrow(make_gateway: Make, address: int = 2, tenant: int = 3, **settings: object) -> MemoryGateway:
    limits = client_limits(max_connections=8, shares=Shares(address, tenant))
    return make_gateway(settings=settings_with(**settings), limits=limits)


def test_connections_beyond_an_addresss_share_are_turned_away(make_gateway: Make) -> None:
    gateway = narrow(make_gateway)
    kept = [gateway.connect("192.0.2.1") for _ in range(2)]
    over = gateway.connect("192.0.2.1")
    assert status(over) == 503
    assert over.half_closed
    flood = [gateway.connect("192.0.2.1") for _ in range(70)]
    assert (flood[62].closed, flood[63].closed, flood[63].received) == ("", "reset", b"")
    assert gateway.site.rejected == 71
    other = gateway.connect("192.0.2.2")
    other.send(request(b"GET", b"/nowhere"))
    kept[0].send(request(b"GET", b"/nowhere"))
    assert (status(other), status(kept[0])) == (404, 404)


def test_a_connection_that_is_gone_leaves_its_place(make_gateway: Make) -> None:
    gateway = narrow(make_gateway)
    first, _ = gateway.connect("192.0.2.1"), gateway.connect("192.0.2.1")
    first.close()
    again = gateway.connect("192.0.2.1")
    again.send(request(b"GET", b"/nowhere"))
    assert status(again) == 404


def test_a_trusted_proxys_connections_are_not_counted(make_gateway: Make) -> None:
    gateway = narrow(make_gateway, address=1, tenant=1, listen={"trusted_proxies": ("10.0.0.0/8",)})
    for _ in range(4):
        client = gateway.connect(PROXY)
        client.send(request(b"GET", b"/nowhere"))
        assert status(client) == 404


def test_a_tenants_share_is_of_the_connections_that_ask_for_it_now(make_gateway: Make) -> None:
    gateway = narrow(make_gateway)
    acme, beta = b"acme.id.koder.dev", b"beta.id.koder.dev"

    def asks(client: Peer, host: bytes) -> Message:
        client.send(request(b"GET", b"/nowhere", host=host))
        (message,) = read_messages(client.take())
        return message

    clients = [gateway.connect(f"192.0.2.{number}") for number in range(4)]
    assert [asks(client, acme).status for client in clients[:3]] == [404] * 3
    assert asks(clients[3], beta).status == 404
    # It comes to ask for a tenant that has its share.
    refused = asks(clients[3], acme)
    assert (refused.status, refused.code, refused.one(b"Connection")) == (503, "overloaded", b"close")
    assert asks(clients[0], beta).status == 404
    last = gateway.connect("192.0.2.9")
    assert asks(last, acme).status == 404
    for client in clients:
        client.reset()
    last.reset()
    assert not gateway.site.connection_counts._owners
    assert not gateway.site.connection_counts._counts.addresses
    assert not gateway.site.connection_counts._counts.tenants


REFUSED = [(b"TRACE", ()), (b"GET", ((b"x-large", b"v" * 40_000),))]


def told(client: Peer, method: bytes) -> int:
    """The status of the answer to one more request."""
    client.send(request(method, b"/nowhere"))
    (message,) = read_messages(client.take())
    return message.status


@pytest.mark.parametrize(("method", "fields"), REFUSED, ids=["method", "head"])
def test_a_request_that_is_refused_anyway_opens_no_way_past_a_tenants_share(
    make_gateway: Make, method: bytes, fields: tuple[tuple[bytes, bytes], ...]
) -> None:
    """What was found out for it holds for the next one on its connection too."""
    gateway = narrow(make_gateway)
    for number in range(2, 5):
        assert told(gateway.connect(f"192.0.2.{number}"), b"GET") == 404
    late = Http2(gateway)
    pseudo = [(b":scheme", b"https"), (b":path", b"/nowhere"), (b":authority", HOST)]
    late.send(in_frames(1, block([(b":method", method), *pseudo, *fields])))
    came = late.send(headers(3, block([(b":method", b"GET"), *pseudo])))
    assert any(each.stream == 3 and b"503" in each.payload for each in came)
    if not fields:
        late_too = gateway.connect("192.0.2.9")
        assert [told(late_too, method), told(late_too, b"GET")] == [405, 503]


def test_a_connection_whose_first_request_is_refused_counts_as_its_tenants(make_gateway: Make) -> None:
    gateway = narrow(make_gateway)
    for number in range(2, 5):
        client = gateway.connect(f"192.0.2.{number}")
        assert [told(client, b"TRACE"), told(client, b"GET")] == [405, 404]
    assert told(gateway.connect("192.0.2.9"), b"GET") == 503
