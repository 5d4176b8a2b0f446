"""One order for every way in: `explain` says what becomes of a request over HTTP/1.1, HTTP/2 and in a stock Site."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from twisted.internet.address import IPv4Address
from twisted.web.server import Site

from koder_gateway.errors import Refusal
from koder_gateway.exchange.explanation import explain
from koder_gateway.exchange.states import Exchange
from koder_gateway.policy.certificates import TlsInfo
from koder_gateway.policy.limit_rules import LimitRule
from koder_gateway.policy.tenants import Tenant
from koder_gateway.tree.compose import make_reader
from koder_gateway.twisted_site.adapter import SiteAdapter
from tests.kit.http2_frames import block, headers
from tests.kit.http2_memory import Http2
from tests.kit.memory import HOST, MemoryGateway, join, request, settings_with

APP = b"https://app.example.com"
TENANTS = (Tenant("koder"), Tenant("closed", status="suspended"))
# Every request below /v1/users/few is over it from the first on.
FEW = LimitRule("few", (), 1, 3600, paths=(b"/v1/users/few",))
SETTINGS = settings_with(limits=(FEW,), cors={"origins": (APP.decode(),)})


class Asked(NamedTuple):
    """One request, and what becomes of it: a refusal's code, or the status of the gateway's own response."""

    outcome: str
    method: bytes = b"GET"
    target: bytes = b"/v1/users"
    lines: tuple[tuple[bytes, bytes], ...] = ()
    host: bytes = HOST


PREFLIGHT = ((b"Origin", APP), (b"Access-Control-Request-Method", b"PUT"))
LARGE = ((b"Content-Length", b"%d" % (1 << 40)),)
NOBODY = b"nobody.id.koder.dev"
CASES = (
    Asked("bad_request", b"OPTIONS", b"/v1/../users", PREFLIGHT, NOBODY),
    Asked("204", b"OPTIONS", b"/nowhere", (*PREFLIGHT, *LARGE), NOBODY),
    Asked("204", b"OPTIONS", b"/v1/users/few", PREFLIGHT),
    Asked("204", b"OPTIONS", b"*", (), NOBODY),
    Asked("204", b"OPTIONS", b"/v1/users/few", ((b"Max-Forwards", b"0"),), NOBODY),
    Asked("body_too_large", b"POST", b"/v1/users/few", LARGE, NOBODY),
    Asked("body_too_large", b"OPTIONS", b"/v1/users/few", LARGE, NOBODY),
    Asked("unknown_tenant", b"POST", b"/v1/users/few", (), NOBODY),
    Asked("tenant_suspended", b"GET", b"/v1/users/few", (), b"closed.id.koder.dev"),
    Asked("misdirected_request", b"GET", b"/v1/users/few", (), b"evil.example"),
    Asked("rate_limited", b"GET", b"/v1/users/few"),
    Asked("rate_limited", b"OPTIONS", b"/v1/users/few"),
    Asked("no_route", b"GET", b"/nowhere"),
)


def plain(asked: Asked) -> bytes:
    lines = (b"%b: %b" % line for line in asked.lines)
    return request(asked.method, asked.target, *lines, host=asked.host)


def over_http1(gateway: MemoryGateway, asked: Asked) -> None:
    gateway.connect(secure=True).send(plain(asked))


def over_http2(gateway: MemoryGateway, asked: Asked) -> None:
    fields = [
        (b":method", asked.method),
        (b":scheme", b"https"),
        (b":path", asked.target),
        (b":authority", asked.host),
    ]
    lines = [(name.lower(), value) for name, value in asked.lines]
    has_body = any(name == b"content-length" for name, _ in lines)
    Http2(gateway).send(headers(1, block([*fields, *lines]), end=not has_body))


def in_a_stock_site(gateway: MemoryGateway, asked: Asked) -> None:
    made = gateway.composition
    adapter = SiteAdapter(made.resource, made.policy, made.reader, gateway.finished, gateway.reactor.seconds)
    site = Site(adapter, reactor=gateway.reactor, parsePOSTFormSubmission=False)
    channel = site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 50000))
    client = join(gateway.reactor, channel, peer="192.0.2.1", secure=True)
    gateway.clients.append(client)
    client.send(plain(asked))


WAYS = (over_http1, over_http2, in_a_stock_site)
Way = Callable[[MemoryGateway, Asked], None]


def use_up(limiter: object) -> None:
    limiter.admit(b"koder", b"", b"GET", b"/v1/users/few", 0.0)  # type: ignore[attr-defined]


def result(exchange: Exchange) -> str:
    return exchange.code or str(exchange.status)


@pytest.mark.parametrize("asked", CASES, ids=lambda asked: f"{asked.outcome}-{asked.method.decode()}")
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_every_way_in_takes_the_same_steps(way: Way, asked: Asked) -> None:
    if way is in_a_stock_site and (asked.lines[-1:] == LARGE or asked.target == b"*"):
        pytest.skip("a stock Site waits for the body itself, and answers OPTIONS * itself")
    gateway = MemoryGateway(SETTINGS, tenants=TENANTS)
    use_up(gateway.composition.policy.limiter)
    way(gateway, asked)
    (exchange,) = gateway.exchanges
    assert result(exchange) == asked.outcome
    assert not gateway.origin().connections
    for client in gateway.clients:
        client.reset()


@pytest.mark.parametrize("asked", CASES, ids=lambda asked: f"{asked.outcome}-{asked.method.decode()}")
def test_explain_says_what_becomes_of_it(asked: Asked) -> None:
    policy = MemoryGateway(SETTINGS, tenants=TENANTS).composition.policy
    use_up(policy.limiter)
    head = make_reader(SETTINGS).read(plain(asked))
    outcome = explain(policy, head, "192.0.2.1", TlsInfo(), "id.koder.dev", 0.0).outcome
    assert (outcome.code if isinstance(outcome, Refusal) else "204") == asked.outcome


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_no_step_stops_goes_to_its_service(way: Way) -> None:
    gateway = MemoryGateway(SETTINGS, tenants=TENANTS)
    way(gateway, Asked("identity"))
    assert gateway.origin().only.received.startswith(b"GET /v1/users HTTP/1.1\r\n")
    assert not gateway.exchanges
    for client in gateway.clients:
        client.reset()
    (exchange,) = gateway.exchanges
    assert (exchange.tenant, exchange.route, exchange.service) == (b"koder", b"/v1/users", "identity")
