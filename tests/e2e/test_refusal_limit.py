"""The limit on refusals: what is refused is charged to its address, past the limit it gets no answer, and who is
served there notices nothing."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.web.server import Site

from koder_gateway.errors import BODY_TOO_LARGE, DRAINING, NO_ROUTE, RATE_LIMITED, UPSTREAM_CLOSED
from koder_gateway.policy.decision import charges_refusal
from koder_gateway.policy.limit_rules import LimitRule
from koder_gateway.policy.limits import Limiter
from koder_gateway.twisted_site.adapter import SiteAdapter
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.http2_client import Http2Client
from tests.kit.http2_frames import ENHANCE_YOUR_CALM, block, data, headers
from tests.kit.limits import rules_of
from tests.kit.memory import MemoryGateway, answered, join, request, settings_with
from tests.kit.recording import HOST, SETTINGS, connect, running

Make = Callable[..., MemoryGateway]
FEW = LimitRule("refusals", ("ip",), 1, 60, burst=3, charge="refusals")
MISDIRECTED = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
MALFORMED = b"GET / HTTP/1.1\r\nHost : x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
LIMIT = '[[limits]]\nname = "refusals"\nkey = ["ip"]\nrate = "1/h"\nburst = 20\ncharge = "refusals"\n'
GUESSES = 10_000


def limited(make_gateway: Make, rule: LimitRule = FEW, **options: Any) -> MemoryGateway:
    return make_gateway(settings=settings_with(limits=(rule,), **options))


# -- the rule


def test_it_counts_by_address_and_only_refusals() -> None:
    limiter = Limiter([FEW, LimitRule("all", ("ip",), 1, 1)], 100)
    assert [limiter.refused(b"a", 0.0) for _ in range(5)] == [False, False, False, True, True]
    assert not limiter.refused(b"b", 0.0)
    assert limiter.refused(b"a", 59.0)
    assert not limiter.refused(b"a", 60.0)
    verdict = limiter.admit(b"koder", b"a", b"GET", b"/", 0.0)
    assert (verdict.refused, b"refusals" in verdict.fields) == (None, False)
    assert [rule.name for rule in rules_of(limiter, b"GET", b"/")] == ["all"]
    refusals, _ = limiter.meters
    assert (refusals.admitted, refusals.refused, refusals.shadowed) == (5, 3, 0)


def test_a_shadow_only_counts() -> None:
    limiter = Limiter([LimitRule("refusals", ("ip",), 1, 60, mode="shadow", charge="refusals")], 100)
    assert [limiter.refused(b"a", 0.0) for _ in range(3)] == [False] * 3
    assert (limiter.meters[0].admitted, limiter.meters[0].shadowed) == (1, 2)


def test_without_such_a_rule_nothing_is_charged() -> None:
    assert not Limiter([], 100).refused(b"a", 0.0)


def test_what_is_charged() -> None:
    assert charges_refusal(NO_ROUTE)
    assert charges_refusal(BODY_TOO_LARGE)
    assert not charges_refusal(RATE_LIMITED)
    assert not charges_refusal(UPSTREAM_CLOSED)
    assert not charges_refusal(DRAINING)


# -- over HTTP/1.1


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (MISDIRECTED, "misdirected_request"),
        (MALFORMED, "bad_request"),
        (b"GET / HT\0", "bad_request"),
        (request(b"GET", b"/nowhere"), "no_route"),
        (request(b"BREW", b"/v1/users"), "not_implemented"),
        (request(b"POST", b"/v1/users", b"Content-Length: 99999999999"), "body_too_large"),
    ],
)
def test_past_it_the_connection_ends_without_an_answer(make_gateway: Make, data: bytes, code: str) -> None:
    gateway = limited(make_gateway)
    for number in range(5):
        client = gateway.connect()
        client.send(data)
        if number < 3:
            assert client.take()
        else:
            assert (client.take(), client.closed) == (b"", "clean")
            last = gateway.exchanges[-1]
            assert (last.status, last.code, last.bytes_out) == (0, code, 0)
    other = gateway.connect("192.0.2.2")
    other.send(data)
    assert other.take()


def test_who_is_served_notices_nothing(make_gateway: Make) -> None:
    gateway = limited(make_gateway)
    honest = gateway.connect()
    honest.send(request(b"GET", b"/v1/users"))
    attacker = gateway.connect()
    attacker.send(MISDIRECTED * 10)
    assert attacker.take().count(b"HTTP/1.1 421") == 3
    assert attacker.closed == "clean"
    service = gateway.origin().only
    service.take()
    service.send(OK)
    assert honest.take() == answered(b"200 OK", after=(b"Content-Length: 2",), body=b"hi")
    honest.send(request(b"GET", b"/v1/users"))
    service.send(OK)
    assert honest.take() == answered(b"200 OK", after=(b"Content-Length: 2",), body=b"hi")
    assert honest.closed == ""


def test_a_fault_of_a_service_is_not_charged(make_gateway: Make) -> None:
    gateway = limited(make_gateway)
    for _ in range(6):
        client = gateway.connect()
        client.send(request(b"GET", b"/v1/users"))
        gateway.origin().connections[-1].send(b"nonsense\r\n\r\n")
        assert client.take().startswith(b"HTTP/1.1 502 ")


def test_in_a_stock_site(make_gateway: Make) -> None:
    gateway = limited(make_gateway)
    composition = gateway.composition
    entrance: Any = SiteAdapter(
        composition.resource, composition.policy, composition.reader, gateway.finished, gateway.reactor.seconds
    )
    site = Site(entrance, reactor=gateway.reactor, parsePOSTFormSubmission=False)
    for number in range(5):
        address = IPv4Address("TCP", "192.0.2.1", 50000)
        client = join(gateway.reactor, site.buildProtocol(address), peer="192.0.2.1")
        client.send(request(b"GET", b"/nowhere"))
        if number < 3:
            assert client.take().startswith(b"HTTP/1.1 404 ")
            client.reset()
        else:
            assert (client.take(), client.closed) == (b"", "clean")
            assert (gateway.exchanges[-1].status, gateway.exchanges[-1].code) == (0, "no_route")


# -- over sockets


def gives_an_answer(gateway: Any, data: bytes) -> bool:
    """Whether these bytes on a connection of their own get an answer, or the end of it alone."""
    with gateway.client() as client:
        client.send(data)
        if client.closed():
            return False
        client.answer()
        return True


@pytest.mark.parametrize("secure", [False, True])
def test_guesses_of_tenants_are_cut_off(tmp_path: Any, secure: bool) -> None:
    settings = SETTINGS.replace("limits = []", "") + LIMIT.replace("20", "1000")
    served = b"GET /v1/users HTTP/1.1\r\nHost: %b\r\n\r\n" % HOST
    with running(tmp_path, settings, secure=secure) as gateway, gateway.client() as honest:
        answers = connections = sent = 0
        while sent < GUESSES:
            with gateway.client() as client:
                connections += 1
                pack = b"".join(
                    b"GET / HTTP/1.1\r\nHost: t%d.id.koder.dev\r\n\r\n" % (sent + number) for number in range(200)
                )
                sent += 200
                client.send(pack)
                while not client.closed():
                    assert client.answer().status == 404
                    answers += 1
                    if answers % 200 == 0:
                        break
            honest.send(served)
            assert honest.answer().status == 200
        assert 1000 <= answers <= 1001
        assert connections == GUESSES / 200
        gateway.assert_quiet()


def test_heads_that_cannot_be_read_are_cut_off(tmp_path: Any) -> None:
    with running(tmp_path, SETTINGS.replace("limits = []", "") + LIMIT) as gateway:
        assert [gives_an_answer(gateway, MALFORMED) for _ in range(22)] == [True] * 20 + [False] * 2
        assert gives_an_answer(gateway, b"GET /v1/users HTTP/1.1\r\nHost: %b\r\n\r\n" % HOST)


def asks(path: bytes) -> bytes:
    return block([(b":method", b"GET"), (b":scheme", b"https"), (b":path", path), (b":authority", HOST)])


def test_over_http2_the_connection_is_told_and_ends(tmp_path: Any) -> None:
    with running(tmp_path, SETTINGS.replace("limits = []", "") + LIMIT, secure=True) as gateway:
        with Http2Client.connect(gateway.port, HOST) as honest:
            honest.start()
            with Http2Client.connect(gateway.port, HOST) as attacker:
                attacker.start()
                for number in range(20):
                    attacker.send(headers(2 * number + 1, asks(b"/nowhere")))
                    assert attacker.answer(2 * number + 1).status == 404
                attacker.send(headers(41, asks(b"/nowhere")))
                attacker.end()
                assert attacker.goaways == [ENHANCE_YOUR_CALM]
            honest.send(headers(1, asks(b"/v1/users")))
            assert honest.answer().status == 200
            honest.lives()
        gateway.assert_quiet()


def test_over_http2_the_connection_is_told_and_what_is_under_way_on_it_is_served(tmp_path: Any) -> None:
    """The refused may be another one behind the same address."""
    with running(tmp_path, SETTINGS.replace("limits = []", "") + LIMIT, secure=True) as gateway:
        with Http2Client.connect(gateway.port, HOST) as client:
            client.start()
            posts = [(b":method", b"POST"), (b":scheme", b"https"), (b":path", b"/v1/users"), (b":authority", HOST)]
            client.send(headers(1, block([*posts, (b"content-length", b"2")]), end=False), data(1, b"h"))
            for number in range(1, 22):
                client.send(headers(2 * number + 1, asks(b"/nowhere")))
                if number < 21:
                    assert client.answer(2 * number + 1).status == 404
            client.refuses(43, ENHANCE_YOUR_CALM)
            client.send(headers(45, asks(b"/v1/users")), data(1, b"i", end=True))
            assert client.answer(1).status == 200
            client.end()
            assert client.goaways == [ENHANCE_YOUR_CALM]
            assert not client.answers[45].status
        gateway.assert_quiet()


def test_of_a_trusted_proxys_connection_only_the_stream_is_reset(tmp_path: Any) -> None:
    settings = SETTINGS.replace("limits = []", "") + LIMIT + '[listen]\ntrusted_proxies = ["127.0.0.1"]\n'
    with (
        running(tmp_path, settings, secure=True) as gateway,
        Http2Client.connect(gateway.port, HOST) as proxy,
    ):
        proxy.start()
        for number in range(21):
            proxy.send(headers(2 * number + 1, asks(b"/nowhere")))
            if number < 20:
                assert proxy.answer(2 * number + 1).status == 404
        proxy.refuses(41, ENHANCE_YOUR_CALM)
        proxy.send(headers(43, asks(b"/v1/users")))
        assert proxy.answer(43).status == 200
        proxy.lives()


def test_handshakes_that_fail_are_charged(tmp_path: Any) -> None:
    config = configuration({"a": "http://127.0.0.1:9"}, None, LIMIT.replace("20", "4"))
    with GatewayProcess(tmp_path, config, ports=(GatewayProcess.TLS,)) as gateway:
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname = False
        old.verify_mode = ssl.CERT_NONE
        old.set_alpn_protocols(["no-such-protocol"])

        def handshake() -> str:
            client = connect(gateway.ports[0])
            try:
                old.wrap_socket(client.socket).close()
            except ssl.SSLError as error:
                return str(error)
            except OSError:
                return "closed"
            return "done"

        said = ["no application protocol" in handshake() for _ in range(6)]
        assert said == [True] * 4 + [False] * 2
        # A handshake that is good is served, and what is refused on it is not.
        with gateway.connect(tls=True) as client:
            client.send(MISDIRECTED)
            assert client.rest() == b""
