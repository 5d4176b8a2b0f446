"""Explanations: the policies' own answers in the gateway's order, each with the reason that a person reads."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.errors import BODY_TOO_LARGE, MISDIRECTED_REQUEST, NO_ROUTE, RATE_LIMITED, Refusal
from koder_gateway.exchange.explanation import Explanation, explain
from koder_gateway.policy.certificates import TlsInfo
from koder_gateway.policy.clients import NetworkSet, TrustedProxies
from koder_gateway.policy.cors import CorsPolicy
from koder_gateway.policy.decision import Policy
from koder_gateway.policy.limit_rules import LimitRule
from koder_gateway.policy.limits import Limiter
from koder_gateway.policy.routing import PathSet, Route, RouteTable
from koder_gateway.policy.tenants import Registry, Tenant, TenantPolicy
from koder_gateway.wire.request_head import RequestHead
from koder_gateway.wire.request_reader import RequestReader

APP = b"https://app.example.com"
KODER = b"https://koder.example"
TENANTS = (
    Tenant("koder", domains=("login.koder.example",), cors_origins=(KODER.decode(),)),
    Tenant("acme"),
    Tenant("closed", status="suspended", cors_origins=("https://closed.example",)),
)
READER = RequestReader(b"X-Org", max_target=8192, max_fields=100)
PEER = "192.0.2.1"
BASE = "id.koder.dev"


def policy(
    *rules: LimitRule,
    tenants: tuple[Tenant, ...] | None = TENANTS,
    origins: tuple[str, ...] = (APP.decode(),),
    default: str = "",
    local_hosts: bool = False,
) -> Policy:
    registry = Registry(tenants)
    return Policy(
        registry=registry,
        tenants=TenantPolicy(BASE, "X-Org", default, registry, local_hosts),
        tenant_header=b"X-Org",
        cors=CorsPolicy(origins),
        limiter=Limiter(rules, 100),
        routes=RouteTable([Route(b"/v1/users", "identity"), Route(b"/v1/users/me", "session")]),
        proxies=TrustedProxies(("10.0.0.0/8",)),
        max_body=1000,
    )


def head(
    *lines: bytes, host: bytes = b"koder.id.koder.dev", method: bytes = b"GET", target: bytes = b"/v1/users/7?a=b"
) -> RequestHead:
    fields = b"".join(line + b"\r\n" for line in (b"Host: " + host, *lines))
    return READER.read(b"%b %b HTTP/1.1\r\n%b\r\n" % (method, target, fields))


def ask(made: Policy, asked: RequestHead, peer: str = PEER, now: float = 0.0) -> Explanation:
    return explain(made, asked, peer, TlsInfo(), BASE, now)


# -- the tenant


@pytest.mark.parametrize(
    ("host", "lines", "says"),
    [
        (b"koder.id.koder.dev", (), "koder (active): koder.id.koder.dev is its name under id.koder.dev"),
        (b"KODER.Id.Koder.Dev.:8443", (), "koder (active): koder.id.koder.dev is its name under id.koder.dev"),
        (b"acme.id.koder.dev", (b"X-Org: acme",), "acme (active): acme.id.koder.dev is its name under id.koder.dev"),
        (b"Login.Koder.Example:443", (), "koder (active): login.koder.example is its custom domain"),
        (b"id.koder.dev", (b"X-Org: acme",), "acme (active): id.koder.dev names no tenant and X-Org does"),
    ],
)
def test_why_it_is_this_tenant(host: bytes, lines: tuple[bytes, ...], says: str) -> None:
    assert ask(policy(), head(*lines, host=host)).tenant == says


@pytest.mark.parametrize("lines", [(), (b"X-Org:",)])
def test_why_it_is_the_default(lines: tuple[bytes, ...]) -> None:
    found = ask(policy(default="acme"), head(*lines, host=b"id.koder.dev"))
    assert found.tenant == "acme (active): id.koder.dev names no tenant, nor does X-Org, and tenants.default does"


def test_a_header_comes_before_the_default() -> None:
    found = ask(policy(default="acme"), head(b"X-Org: koder", host=b"id.koder.dev"))
    assert found.tenant == "koder (active): id.koder.dev names no tenant and X-Org does"


def test_a_host_of_this_machine() -> None:
    found = ask(policy(local_hosts=True), head(b"X-Org: koder", host=b"127.0.0.1:8443"))
    assert found.tenant == "koder (active): 127.0.0.1 names no tenant and X-Org does"
    refused = ask(policy(), head(b"X-Org: koder", host=b"127.0.0.1:8443"))
    assert refused.tenant.startswith("none: 421 misdirected_request: ")


def test_an_open_registry_is_told() -> None:
    found = ask(policy(tenants=None), head(host=b"anybody.id.koder.dev"))
    assert found.tenant == (
        "anybody (active): anybody.id.koder.dev is its name under id.koder.dev; there is no registry, so every"
        " well-formed slug is a tenant"
    )


@pytest.mark.parametrize(
    ("host", "lines", "code"),
    [
        (b"closed.id.koder.dev", (), "403 tenant_suspended"),
        (b"nobody.id.koder.dev", (), "404 unknown_tenant"),
        (b"id.koder.dev", (), "400 tenant_required"),
        (b"koder.id.koder.dev", (b"X-Org: acme",), "400 tenant_conflict"),
        (b"evil.example", (), "421 misdirected_request"),
    ],
)
def test_why_there_is_no_tenant(host: bytes, lines: tuple[bytes, ...], code: str) -> None:
    found = ask(policy(), head(*lines, host=host))
    assert isinstance(found.outcome, Refusal)
    assert found.tenant == f"none: {code}: {found.outcome.detail}"
    assert code == f"{found.outcome.status} {found.outcome.code}"


def test_a_suspended_tenant_at_a_path_that_is_served_all_the_same() -> None:
    made = replace(policy(), suspended_allow=PathSet([b"/v1/users/me"]))
    found = ask(made, head(host=b"closed.id.koder.dev", target=b"/v1/users/me"))
    assert found.outcome == "session"
    assert found.tenant == (
        "closed (suspended): closed.id.koder.dev is its name under id.koder.dev; this path is one of"
        " tenants.suspended_allow"
    )
    assert ask(made, head(host=b"closed.id.koder.dev")).tenant.startswith("none: 403 tenant_suspended: ")


# -- CORS


@pytest.mark.parametrize(
    ("origin", "host", "says"),
    [
        (APP, b"koder.id.koder.dev", "is one of cors.origins: its pages may read the response"),
        (APP, b"nobody.id.koder.dev", "is one of cors.origins: its pages may read the response"),
        (KODER, b"koder.id.koder.dev", "is one of the tenant's cors_origins: its pages may read the response"),
        (KODER, b"acme.id.koder.dev", "is another tenant's: its pages may not read"),
        (b"https://KODER.example:443", b"acme.id.koder.dev", "is another tenant's: "),
        (b"https://login.koder.example", b"acme.id.koder.dev", "is another tenant's: "),
        (b"https://koder.id.koder.dev", b"acme.id.koder.dev", "is another tenant's: "),
        (b"https://acme.id.koder.dev", b"acme.id.koder.dev", "is not a configured origin"),
        (b"https://nobody.id.koder.dev", b"acme.id.koder.dev", "is not a configured origin"),
        (
            b"https://closed.example",
            b"closed.id.koder.dev",
            "is one of the tenant's cors_origins: its pages may read",
        ),
        (b"https://closed.example", b"koder.id.koder.dev", "is another tenant's: "),
        (b"https://APP.example.com", b"koder.id.koder.dev", "is not a configured origin"),
        (b"null", b"koder.id.koder.dev", "is not a configured origin"),
        (b"https://\xe9.example", b"koder.id.koder.dev", "is not a configured origin"),
    ],
)
def test_what_an_origin_may(origin: bytes, host: bytes, says: str) -> None:
    found = ask(policy(), head(b"Origin: " + origin, host=host))
    assert found.cors.startswith(f"{origin.decode('latin-1')} {says}")
    allowed = b"Access-Control-Allow-Origin: %b\r\n" % origin in found.fields
    assert allowed is ("its pages may read" in found.cors)


def test_no_origin() -> None:
    assert ask(policy(), head()).cors == "no Origin header: no CORS headers, but Vary: Origin"
    assert ask(policy(), head()).fields == b"Vary: Origin\r\n"
    bare = ask(policy(tenants=None, origins=()), head())
    assert (bare.cors, bare.fields) == ("no Origin header: no CORS headers", b"")


# -- limits


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (LimitRule("a", ("ip",), 10, 1), "a: 10/s, burst 10, for ip 192.0.2.1"),
        (LimitRule("a", ("tenant",), 10, 60, burst=5), "a: 10/m, burst 5, for tenant koder"),
        (LimitRule("a", ("tenant", "ip"), 10, 3600), "a: 10/h, burst 10, for tenant koder and ip 192.0.2.1"),
        (LimitRule("a", (), 1, 1), "a: 1/s, burst 1, for all clients together"),
        (LimitRule("a", ("tenant",), 0, 1, in_flight=5), "a: 5 in flight, for tenant koder"),
        (LimitRule("a", ("tenant", "route"), 9, 86400), "a: 9/d, burst 9, for tenant koder and route /v1/users"),
        (LimitRule("a", ("ip",), 1, 1, ipv6_prefix=48), "a: 1/s, burst 1, for ip 192.0.2.1"),
        (
            LimitRule("a", ("header:x-api-key",), 1, 1),
            "a: 1/s, burst 1, for all requests without exactly one header x-api-key",
        ),
        (LimitRule("a", (), 1, 1, mode="shadow"), "a: 1/s, burst 1, for all clients together; shadow: only counted"),
        (
            LimitRule("a", ("ip",), 1, 1, mode="shadow", charge="failures"),
            "a: 1/s, burst 1, for ip 192.0.2.1; shadow: only counted; only failures (400, 401, 403) are charged",
        ),
    ],
)
def test_what_a_limit_says(rule: LimitRule, says: str) -> None:
    assert ask(policy(rule), head()).limits == (says,)


def test_a_limit_on_a_header_shows_no_value() -> None:
    shown = ask(policy(LimitRule("a", ("header:x-api-key",), 1, 1)), head(b"X-API-Key: hunter2"))
    assert shown.limits == ("a: 1/s, burst 1, for the value of its header x-api-key",)


def test_a_limit_on_a_network_names_it() -> None:
    shown = ask(policy(LimitRule("a", ("ip",), 1, 1, ipv6_prefix=48)), head(), peer="2001:db8:1:2::7")
    assert shown.limits == ("a: 1/s, burst 1, for ip 2001:db8:1::/48",)


def test_the_limit_on_refusals_shows_where_something_is_refused() -> None:
    rule = LimitRule("r", ("ip",), 10, 1, burst=1000, charge="refusals")
    assert ask(policy(rule), head()).limits == ()
    explained = ask(policy(rule), head(target=b"/nowhere"))
    assert explained.outcome == NO_ROUTE
    assert explained.limits == (
        "r: 10/s, burst 1000, for ip 192.0.2.1; only refusals are charged, and past the limit they get no response",
    )


def test_the_limits_are_those_that_apply() -> None:
    rules = (
        LimitRule("all", ("ip",), 10, 1),
        LimitRule("posts", ("ip",), 10, 1, methods=frozenset((b"POST",))),
        LimitRule("elsewhere", ("ip",), 10, 1, paths=(b"/v1/auth",)),
        LimitRule("users", ("ip",), 10, 1, paths=(b"/v1/users",)),
    )
    found = ask(policy(*rules), head())
    assert [line.partition(":")[0] for line in found.limits] == ["all", "users"]
    assert b'RateLimit: "all";r=9;t=1, "users";r=9;t=1\r\n' in found.fields


def test_the_address_is_the_one_that_a_trusted_proxy_names() -> None:
    made = policy(LimitRule("a", ("ip",), 10, 1))
    asked = head(b"X-Forwarded-For: 198.51.100.7")
    assert ask(made, asked, "10.1.2.3").limits == ("a: 10/s, burst 10, for ip 198.51.100.7",)
    assert ask(made, asked, "192.0.2.9").limits == ("a: 10/s, burst 10, for ip 192.0.2.9",)


def test_limits_of_nobody() -> None:
    found = ask(policy(LimitRule("a", ("tenant",), 10, 1)), head(host=b"evil.example"))
    assert found.limits == ("a: 10/s, burst 10, for tenant ?",)
    assert b"RateLimit: " not in found.fields, "limits are asked after the tenant"


def test_it_charges_like_a_request() -> None:
    made = policy(LimitRule("few", ("tenant",), 1, 60))
    assert ask(made, head()).outcome == "identity"
    found = ask(made, head())
    assert isinstance(found.outcome, Refusal)
    assert (found.outcome.status, found.outcome.code) == (429, "rate_limited")
    assert found.outcome.detail == 'The limit "few" is used up; Retry-After says when to try again.'
    assert found.fields.endswith(b'RateLimit: "few";r=0;t=60\r\nRetry-After: 60\r\n')
    assert ask(made, head(host=b"acme.id.koder.dev")).outcome == "identity"
    assert ask(made, head(), now=60.0).outcome == "identity"


@pytest.mark.parametrize(
    ("body", "counted"),
    [
        (b"client_id=my%2Dapp", "client_id myapp"),
        (b"client_id=a&client_id=b", "all requests that name no one client_id"),
        (b"", "all requests that name no one client_id"),
    ],
)
def test_the_client_of_a_form(body: bytes, counted: str) -> None:
    made = policy(LimitRule("a", ("client_id",), 1, 60))
    form = head(b"Content-Type: application/x-www-form-urlencoded", b"Content-Length: %d" % len(body), method=b"POST")
    for refused in (False, True):
        found = explain(made, form, PEER, TlsInfo(), BASE, 0.0, body)
        assert found.limits == (f"a: 1/m, burst 1, for {counted}",)
        assert isinstance(found.outcome, Refusal) is refused


# -- the route and the outcome


@pytest.mark.parametrize(
    ("target", "route", "outcome"),
    [
        (b"/v1/users", "/v1/users -> identity", "identity"),
        (b"/v1/users/7?x=1", "/v1/users -> identity", "identity"),
        (b"/v1/users/me/", "/v1/users/me -> session", "session"),
        (b"/v1/users2", "none: no route matches this path", NO_ROUTE),
        (b"/", "none: no route matches this path", NO_ROUTE),
    ],
)
def test_where_it_goes(target: bytes, route: str, outcome: object) -> None:
    found = ask(policy(), head(target=target))
    assert (found.route, found.outcome) == (route, outcome)


def test_who_may_use_a_closed_route() -> None:
    closed = Route(b"/v1/users", "identity", allow=NetworkSet(("10.0.0.0/8", "192.0.2.0/30")))
    made = replace(policy(), routes=RouteTable([closed, Route(b"/", "identity")]))
    said = "/v1/users is open to 10.0.0.0/8, 192.0.2.0/30"
    way = "/v1/users, which a service may read in this path, is open to 10.0.0.0/8, 192.0.2.0/30"

    def answered(asked: RequestHead, peer: str) -> tuple[str, object]:
        found = ask(made, asked, peer)
        return found.access, found.outcome.code if isinstance(found.outcome, Refusal) else found.outcome

    assert answered(head(), PEER) == (f"{said}: 192.0.2.1 may use it", "identity")
    assert answered(head(), "192.0.2.9") == (
        f"{said} only: to let 192.0.2.9 in, add its network to the route's allow",
        "not_allowed",
    )
    assert answered(head(target=b"/V1/users"), "192.0.2.9") == (
        f"{way} only: to let 192.0.2.9 in, add its network to the route's allow",
        "not_allowed",
    )
    access, outcome = answered(head(b"X-Forwarded-For: 203.0.113.7"), PEER)
    assert (access.startswith(f"{said}, and 192.0.2.1 may be a proxy that serves others: "), outcome) == (
        True,
        "not_allowed",
    )
    behind = replace(made, proxies=TrustedProxies((f"{PEER}/32",)))
    for unnamed in (head(), head(b"X-Forwarded-For: 8.8.8.8", b"Forwarded: for=1.1.1.1")):
        found = ask(behind, unnamed, PEER)
        assert isinstance(found.outcome, Refusal)
        assert found.access == (
            f"{said}, and 192.0.2.1 is a proxy of listen.trusted_proxies, whose headers name no client, or not the"
            " same one: have it send X-Forwarded-For"
        )
    assert answered(head(target=b"/v1/other"), "192.0.2.9") == ("", "identity")
    assert ask(made, head(target=b"/v1/users2"), "192.0.2.9").access == ""


PREFLIGHT = (b"Origin: " + APP, b"Access-Control-Request-Method: PUT")
LARGE = b"Content-Length: 1001"


def test_a_preflight_is_answered_before_anything_is_asked() -> None:
    made = policy(LimitRule("few", ("ip",), 1, 3600))
    for _ in range(3):
        found = ask(made, head(*PREFLIGHT, host=b"evil.example", method=b"OPTIONS", target=b"/nowhere"))
        assert found.outcome == "preflight"
        assert b"Access-Control-Allow-Methods: " in found.fields
        assert b"RateLimit: " not in found.fields


@pytest.mark.parametrize("path", [b"", b"/v1/users/7"])
@pytest.mark.parametrize("lines", [(), PREFLIGHT])
def test_options_of_an_https_url_are_not_for_a_plain_connection(path: bytes, lines: tuple[bytes, ...]) -> None:
    asked = head(*lines, method=b"OPTIONS", target=b"https://koder.id.koder.dev" + path)
    outcome = explain(policy(), asked, PEER, None, BASE, 0.0).outcome
    assert isinstance(outcome, Refusal)
    assert outcome.code == MISDIRECTED_REQUEST.code
    assert ask(policy(), asked).outcome == ("preflight" if lines else "identity" if path else "options")


def test_options_of_the_server_itself() -> None:
    found = ask(policy(LimitRule("few", ("ip",), 1, 3600)), head(method=b"OPTIONS", target=b"*"))
    assert (found.outcome, found.fields) == ("options", b"Vary: Origin\r\n")
    assert ask(policy(), head(*PREFLIGHT, method=b"OPTIONS", target=b"*")).outcome == "preflight"


def test_each_refusal_comes_before_those_after_it() -> None:
    """Head, body, tenant, limits, route: of a request that has all five faults the first counts."""
    made = policy(LimitRule("few", (), 1, 3600))
    made.limiter.admit(b"koder", b"", b"POST", b"/", 0.0)
    bad, good = b"/nowhere/..", b"/nowhere"
    first = ask(made, head(LARGE, host=b"evil.example", method=b"POST", target=bad)).outcome
    second = ask(made, head(LARGE, host=b"evil.example", method=b"POST", target=good)).outcome
    third = ask(made, head(host=b"evil.example", method=b"POST", target=good)).outcome
    fourth = ask(made, head(method=b"POST", target=good)).outcome
    fifth = ask(made, head(method=b"POST", target=good), now=3600.0).outcome
    found = [(each.status, each.code) for each in (first, second, third, fourth, fifth) if isinstance(each, Refusal)]
    assert found == [
        (400, "bad_request"),
        (BODY_TOO_LARGE.status, BODY_TOO_LARGE.code),
        (MISDIRECTED_REQUEST.status, MISDIRECTED_REQUEST.code),
        (RATE_LIMITED.status, RATE_LIMITED.code),
        (NO_ROUTE.status, NO_ROUTE.code),
    ]


def test_a_head_that_is_refused_keeps_its_refusal_and_cors() -> None:
    asked = head(b"Origin: " + APP, b"X-A : 1")
    found = ask(policy(LimitRule("few", ("ip",), 1, 3600)), asked)
    assert found.outcome is asked.refusal is not None
    assert b"Access-Control-Allow-Origin: " + APP in found.fields
    assert b"RateLimit: " not in found.fields


HOSTS = st.sampled_from([b"koder.id.koder.dev", b"id.koder.dev", b"login.koder.example", b"[::1]:1"]) | st.binary(
    max_size=30
)
TARGETS = st.sampled_from([b"/v1/users", b"/v1/users/me", b"/", b"*", b"http://id.koder.dev/v1/users"]) | st.binary(
    max_size=30
)
LINES = st.lists(
    st.sampled_from([LARGE, *PREFLIGHT, b"X-Org: acme", b"X-Org: closed", b"X-Forwarded-For: 1.2.3.4"])
    | st.binary(max_size=40),
    max_size=5,
)


@given(HOSTS, TARGETS, LINES, st.sampled_from([b"GET", b"POST", b"OPTIONS", b"BREW"]))
def test_whatever_is_asked_there_is_an_explanation(
    host: bytes, target: bytes, lines: list[bytes], method: bytes
) -> None:
    made = policy(LimitRule("few", ("tenant", "ip"), 1, 60))
    asked = head(*lines, host=host, method=method, target=target)
    found = ask(made, asked, "10.1.2.3")
    if isinstance(found.outcome, Refusal):
        assert found.outcome.detail
    else:
        assert asked.refusal is None
        assert found.outcome in ("identity", "session", "preflight", "options")
    if found.outcome in ("identity", "session"):
        assert not found.tenant.startswith("none: ")
        assert found.route.endswith(f" -> {found.outcome}")
    assert found.fields == b"" or found.fields.endswith(b"\r\n")
    for text in (found.tenant, found.cors, found.route, *found.limits):
        assert text
        assert "\n" not in text


def test_another_policy_gives_another_answer() -> None:
    """Nothing is kept from one explanation to the next but what the policy's own limits count."""
    made = policy()
    asked = head()
    assert ask(made, asked) == ask(made, asked)
    moved = replace(made, routes=RouteTable([Route(b"/v1", "admin")]))
    assert (ask(moved, asked).route, ask(moved, asked).outcome) == ("/v1 -> admin", "admin")
