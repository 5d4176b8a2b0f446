"""What happens to a request, in order: each step by itself, the order of all, and that the tree has it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from koder_gateway.errors import BAD_REQUEST, Refusal
from koder_gateway.exchange.admission import (
    ALLOW,
    CLOSED,
    GUARDED,
    OPTIONS,
    PREFLIGHT,
    Answer,
    access,
    admit,
    before_tree,
    route,
    tenant,
    too_large,
)
from koder_gateway.exchange.limit_step import limits
from koder_gateway.exchange.opening import SingleHead, open_exchange
from koder_gateway.exchange.states import Exchange
from koder_gateway.policy.certificates import TlsInfo
from koder_gateway.policy.clients import NetworkSet, ProxiedAddress
from koder_gateway.policy.decision import Policy
from koder_gateway.policy.limit_rules import LimitRule
from koder_gateway.policy.routing import EVERYBODY, Route, RouteTable
from koder_gateway.tree.guards import guarded
from koder_gateway.wire.request_head import RequestHead
from koder_gateway.wire.target import PLAIN_PATH
from tests.exchange.test_context import APP, PEER, TENANTS, head, policy

ONE = LimitRule("few", ("tenant", "ip"), 1, 60)


def begun(
    made: Policy, of: RequestHead, *, now: float = 0.0, peer: str = PEER, refusal: Refusal | None = None
) -> Exchange:
    """The exchange of a head that has come over TLS."""
    return open_exchange(SingleHead(peer, TlsInfo()), of, refusal, None, made, now)


# -- the steps


@pytest.mark.parametrize(("length", "refused"), [(0, False), (1000, False), (1001, True), (2**63 - 1, True)])
def test_a_body_is_measured_by_what_it_says(length: int, refused: bool) -> None:
    refusal = too_large(begun(policy(), head(b"Content-Length: %d" % length, method=b"POST")))
    assert (refusal is not None) is refused
    if refusal is not None:
        assert (refusal.status, refusal.close, "1000" in refusal.detail) == (413, True, True)


def test_a_chunked_body_says_nothing_beforehand() -> None:
    assert too_large(begun(policy(), head(b"Transfer-Encoding: chunked", method=b"POST"))) is None


def test_an_active_tenants_exchange_is_its_own() -> None:
    made = begun(policy(), head())
    assert tenant(made) is None
    assert made.tenant == TENANTS[0].wire


def test_a_limit_that_is_used_up() -> None:
    made = policy(rules=(ONE,))

    def charged(host: bytes = b"koder.id.koder.dev", **when: float | str) -> tuple[Exchange, Refusal | None]:
        exchange = begun(made, head(host=host), **when)  # type: ignore[arg-type]
        assert tenant(exchange) is None
        return exchange, limits(exchange)

    assert charged()[1] is None
    exchange, refusal = charged()
    assert refusal is not None
    assert (refusal.status, refusal.code, '"few"' in refusal.detail) == (429, "rate_limited", True)
    assert b"Retry-After: 60\r\n" in exchange.fields
    assert exchange.limited
    assert charged(b"acme.id.koder.dev")[1] is None
    assert charged(peer="192.0.2.2")[1] is None
    assert charged(now=60.0)[1] is None


def test_a_route_or_why_there_is_none() -> None:
    made = begun(policy(), head())
    assert access(made) is None
    assert route(made) == Route(b"/v1/users", "identity")
    assert made.route == b"/v1/users"
    elsewhere = head()
    elsewhere.path = b"/v1/users2"
    lost = begun(policy(), elsewhere)
    assert access(lost) is None
    refusal = route(lost)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.code, lost.route) == (404, "no_route", b"")


@pytest.mark.parametrize(("method", "readable"), [(b"GET", True), (b"POST", False)])
def test_any_page_may_read_what_comes_from_a_public_route(method: bytes, readable: bool) -> None:
    made = replace(policy(), routes=RouteTable([Route(b"/v1/users", "identity", public=True)]))
    exchange = begun(made, head(method=method))
    assert access(exchange) is None
    assert isinstance(route(exchange), Route)
    assert exchange.readable is readable
    assert (b"Access-Control-Allow-Origin: *\r\n" in exchange.fields) is readable


PRIVATE = NetworkSet(("10.0.0.0/8", "fc00::/7"))


def accessed(
    *lines: bytes,
    peer: str = PEER,
    path: bytes = b"/v1/users/7",
    allow: NetworkSet = PRIVATE,
    trusted: tuple[str, ...] = (),
    further: tuple[Route, ...] = (),
    urls: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> str:
    """Whether this client may use a path below a closed route: "" or why not, with the route."""
    routes = RouteTable([Route(b"/v1/users", "identity", allow=allow), *further], urls)
    asked = head(*lines)
    asked.path, asked.plain = path, PLAIN_PATH.fullmatch(path) is not None
    exchange = begun(replace(policy(trusted=trusted), routes=routes), asked, peer=peer)
    refusal = access(exchange)
    return "" if refusal is None else f"{refusal.status} {refusal.code} {exchange.route.decode()}"


NO = "403 not_allowed /v1/users"


@pytest.mark.parametrize(
    ("peer", "allow", "said"),
    [
        ("10.1.2.3", PRIVATE, ""),
        ("::ffff:10.1.2.3", PRIVATE, ""),
        ("fd00::7", PRIVATE, ""),
        ("11.1.2.3", PRIVATE, NO),
        ("2001:db8::7", PRIVATE, NO),
        ("unknown", PRIVATE, NO),
        ("unknown", NetworkSet(("unix:",)), ""),
        ("10.1.2.3", NetworkSet(("unix:",)), NO),
        ("10.1.2.3", NetworkSet(("::/0",)), NO),
        ("192.0.2.1", NetworkSet(("192.0.2.1/32",)), ""),
        ("192.0.2.2", NetworkSet(("192.0.2.1/32",)), NO),
        ("192.0.2.2", NetworkSet(), ""),
    ],
)
def test_a_closed_route_is_for_some_addresses(peer: str, allow: NetworkSet, said: str) -> None:
    assert accessed(peer=peer, allow=allow) == said


PROXY = {"peer": "10.0.0.1", "trusted": ("10.0.0.0/24",)}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((b"X-Forwarded-For: 10.1.2.3",), ""),
        ((b"Forwarded: for=10.1.2.3",), ""),
        ((b"X-Forwarded-For: 10.1.2.3, 10.0.0.9",), ""),
        # A proxy that names nobody asks for it knows not whom; another proxy is nobody.
        ((), NO),
        ((b"X-Forwarded-For: ",), NO),
        ((b"Forwarded: ",), NO),
        ((b"X-Forwarded-For: ", b"Forwarded: "), NO),
        ((b"X-Forwarded-Proto: https",), NO),
        ((b"X-Forwarded-For: 10.0.0.1",), NO),
        ((b"X-Forwarded-For: 10.0.0.9",), NO),
        ((b"Forwarded: for=10.0.0.9",), NO),
        ((b"X-Forwarded-For: 203.0.113.7",), NO),
        ((b"X-Forwarded-For: 10.1.2.3, 203.0.113.7",), NO),
        # By what cannot be read nobody becomes the proxy.
        ((b"X-Forwarded-For: unknown",), NO),
        ((b"X-Forwarded-For: 203.0.113.7, nonsense",), NO),
        ((b"Forwarded: for=_hidden",), NO),
        ((b"Forwarded: for=",), NO),
        ((b"X-Forwarded-For: 203.0.113.7", b"Forwarded: for=10.1.2.3"), NO),
        ((b"X-Forwarded-For: 10.1.2.3", b"Forwarded: for=203.0.113.7"), NO),
        ((b"X-Forwarded-For: " + b", ".join([b"10.0.0.9"] * 40),), NO),
        # A name for the client that is not read.
        ((b"X-Real-IP: 203.0.113.7",), NO),
        ((b"X-Real-IP: 10.0.0.1",), NO),
        ((b"X-Real-IP: 10.1.2.3",), NO),
        ((b"X-Real-IP: 203.0.113.7", b"X-Forwarded-For: 10.1.2.3"), ""),
    ],
)
def test_who_has_come_through_a_proxy_does_not_come_as_the_proxy(lines: tuple[bytes, ...], said: str) -> None:
    assert accessed(*lines, **PROXY) == said  # type: ignore[arg-type]


def test_a_proxy_that_is_not_trusted_lets_nobody_in() -> None:
    assert accessed(b"X-Forwarded-For: 10.1.2.3", peer="10.0.0.1") == NO
    assert accessed(b"Forwarded: for=10.1.2.3", peer="10.0.0.1") == NO
    assert accessed(b"X-Forwarded-Proto: https", peer="10.0.0.1") == ""
    assert accessed(b"X-Forwarded-For: 10.1.2.3", peer=PEER) == NO


def test_who_a_balancer_introduces_comes_by_his_own_address() -> None:
    assert accessed(peer=ProxiedAddress("203.0.113.7", "10.0.0.1"), trusted=("10.0.0.1/32",)) == NO
    assert accessed(peer=ProxiedAddress("10.1.2.3", "10.0.0.1"), trusted=("10.0.0.1/32",)) == ""
    assert accessed(peer=ProxiedAddress("10.0.0.1", "10.0.0.1")) == ""


@pytest.mark.parametrize("trusted", [(), ("10.0.0.1/32",), ("unix:",)])
def test_who_a_balancer_does_not_name_does_not_come_as_the_balancer(trusted: tuple[str, ...]) -> None:
    """PROXY UNKNOWN, and LOCAL."""
    for address, allow in (("10.0.0.1", PRIVATE), ("unknown", NetworkSet(("unix:",)))):
        peer = ProxiedAddress(address, address, named=False)
        assert accessed(peer=peer, trusted=trusted, allow=allow) == NO
    peer = ProxiedAddress("10.0.0.1", "10.0.0.1", named=False)
    named = accessed(b"X-Forwarded-For: 10.1.2.3", peer=peer, trusted=trusted)
    assert named == ("" if trusted == ("10.0.0.1/32",) else NO)


def test_a_unix_socket_of_proxies_lets_only_those_in_who_are_named() -> None:
    local = NetworkSet(("unix:", "10.1.2.0/24"))
    assert accessed(peer="unknown", allow=local, trusted=("unix:",)) == NO
    assert accessed(b"X-Forwarded-For: 10.1.2.3", peer="unknown", allow=local, trusted=("unix:",)) == ""


ROOT = (Route(b"/", "identity"), Route(b"/v1/users/open", "identity"))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (b"/v1/users", NO),
        (b"/v1/users/", NO),
        (b"/V1/Users/7", NO),
        (b"//v1/users/7", NO),
        (b"/v1/users;a=b/7", NO),
        (b"/v1/users%20/7", NO),
        (b"/v1/%2575sers", NO),
        (b"/x/%252e%252e/v1/users", NO),
        (b"/v1/users.json", NO),
        (b"/v1/users/open", ""),
        (b"/v1/users/open/7", ""),
        (b"/V1/Users/Open/7", ""),
        (b"/v1/users2", ""),
        (b"/V1/Users2", ""),
        (b"/x", ""),
    ],
)
def test_an_open_route_is_no_way_round_a_closed_one(path: bytes, said: str) -> None:
    assert accessed(path=path, further=ROOT) == said
    assert accessed(path=path, further=ROOT, peer="10.1.2.3") == ""


@pytest.mark.parametrize(
    ("urls", "said"),
    [
        ({}, ""),
        ({"identity": ("http://a",), "other": ("http://b",)}, ""),
        ({"identity": ("http://a", "http://b"), "other": ("http://b",)}, NO),
    ],
)
def test_another_service_is_none_but_under_another_name(urls: dict[str, tuple[str, ...]], said: str) -> None:
    """What another service makes of a path is not what is closed; but one address may have two names."""
    assert accessed(path=b"/V1/Users", further=(Route(b"/", "other"),), urls=urls) == said


def test_of_two_routes_that_a_service_may_take_for_one_the_closed_one_counts() -> None:
    for further in ((Route(b"/V1/users", "identity"),), (Route(b"/V1/users", "identity"), *ROOT)):
        assert accessed(path=b"/V1/users", further=further) == NO


def test_who_may_not_use_a_route_uses_up_none_of_its_limits() -> None:
    made = policy(rules=(ONE,))
    made = replace(made, routes=RouteTable([Route(b"/v1/users", "identity", allow=PRIVATE)]))
    assert admit(begun(made, head())) == CLOSED
    assert made.limiter.entries == 0
    assert isinstance(admit(begun(made, head(), peer="10.1.2.3")), Route)


def test_a_preflight_to_a_closed_route_is_the_gateways_own() -> None:
    """So the page can read the refusal of its request; a page that may read nothing gets it at once."""
    made = replace(policy(), routes=RouteTable([Route(b"/v1/users", "identity", public=True, allow=PRIVATE)]))
    assert admit(begun(made, head(*ASKING, method=b"OPTIONS"))) is PREFLIGHT
    foreign = head(b"Origin: https://evil.example", b"Access-Control-Request-Method: PUT", method=b"OPTIONS")
    assert admit(begun(made, foreign)) == CLOSED


# -- their order


def whole_server() -> RequestHead:
    asked = head(method=b"OPTIONS")
    asked.path = b"*"
    return asked


def answered(
    of: RequestHead,
    *,
    refusal: Refusal | None = None,
    rules: tuple[LimitRule, ...] = (ONE,),
    allow: NetworkSet = EVERYBODY,
) -> str:
    """What becomes of a request, by name; the limit is used up for every address that asks."""
    made = replace(policy(rules=rules), routes=RouteTable([Route(b"/v1/users", "identity", allow=allow)]))
    for rule in rules:
        assert made.limiter.admit(b"koder", b"\xc0\0\x02\x01", b"GET", b"/", 0.0).refused is None, rule
    outcome = admit(begun(made, of, refusal=refusal))
    if isinstance(outcome, Refusal):
        return outcome.code
    return outcome.service if isinstance(outcome, Route) else outcome.name


LARGE = b"Content-Length: 1001"
ASKING = (b"Origin: " + APP, b"Access-Control-Request-Method: PUT")


def test_each_step_comes_before_those_below_it() -> None:
    """A request that every step would stop, and then one that each in turn has no word against."""
    nobody = b"nobody.id.koder.dev"
    assert answered(head(*ASKING, LARGE, host=nobody, method=b"OPTIONS"), refusal=BAD_REQUEST) == BAD_REQUEST.code
    assert answered(head(*ASKING, LARGE, host=nobody, method=b"OPTIONS")) == "preflight"
    assert answered(whole_server()) == "options"
    assert answered(head(LARGE, host=nobody, method=b"POST")) == "body_too_large"
    assert answered(head(host=nobody, method=b"POST"), allow=PRIVATE) == "unknown_tenant"
    assert answered(head(), allow=PRIVATE) == "not_allowed"
    lost = head()
    lost.path = b"/nowhere"
    assert answered(lost) == "rate_limited"
    assert answered(lost, rules=()) == "no_route"
    assert answered(head(), rules=()) == "identity"


def test_what_comes_before_the_tree_charges_no_limit() -> None:
    made = policy(rules=(ONE,))
    asked = begun(made, head(*ASKING, method=b"OPTIONS"))
    assert before_tree(asked) is PREFLIGHT
    assert (asked.tenant, asked.charges, PREFLIGHT.fields) == (b"koder", None, b"")
    assert b"Access-Control-Allow-Origin: " + APP in asked.fields
    assert before_tree(begun(made, whole_server())) is OPTIONS
    assert Answer("options", ALLOW) == OPTIONS
    assert made.limiter.entries == 0


def test_a_plain_request_is_passed_on() -> None:
    made = policy()
    for of in (head(), head(b"Content-Length: 1000", method=b"POST"), head(method=b"OPTIONS")):
        assert before_tree(begun(made, of)) is None


def test_the_tree_has_the_guards_in_the_order_of_the_steps() -> None:
    leaf = object()
    resource = guarded(leaf)  # type: ignore[arg-type]
    steps = []
    while resource is not leaf:
        steps.append(resource.admit)
        resource = resource.inner
    assert tuple(steps) == GUARDED


def test_the_page_that_tells_the_order_can_be_read_at_once() -> None:
    assert len(Path(inspect.getsourcefile(admit) or "").read_text().splitlines()) < 170
