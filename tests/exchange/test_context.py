"""What a client, a host, an origin and a tenant header make of a request; and what one policy decides about it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from koder_gateway.context import verify
from koder_gateway.errors import Refusal
from koder_gateway.exchange.context import RequestContext, request_context
from koder_gateway.policy.certificates import TlsInfo
from koder_gateway.policy.clients import ProxiedAddress, TrustedProxies
from koder_gateway.policy.cors import CorsPolicy
from koder_gateway.policy.decision import Policy
from koder_gateway.policy.limit_keys import address_key
from koder_gateway.policy.limit_rules import LimitRule
from koder_gateway.policy.limits import Limiter
from koder_gateway.policy.routing import Route, RouteTable
from koder_gateway.policy.signed_context import ContextSigner, public_jwk
from koder_gateway.policy.tenants import Registry, Tenant, TenantPolicy
from koder_gateway.wire.request_head import RequestHead
from koder_gateway.wire.request_reader import RequestReader
from tests.kit.signing_keys import EDDSA

APP = b"https://app.example.com"
KODER = b"https://koder.example"
TENANTS = (
    Tenant("koder", domains=("login.koder.example",), cors_origins=(KODER.decode(),)),
    Tenant("acme"),
    Tenant("closed", status="suspended", cors_origins=("https://closed.example",)),
)
READER = RequestReader(b"X-Tenant-ID", max_target=8192, max_fields=100)
PEER = "192.0.2.1"


def policy(
    *, origins: tuple[str, ...] = (APP.decode(),), rules: tuple[LimitRule, ...] = (), trusted: tuple[str, ...] = ()
) -> Policy:
    registry = Registry(TENANTS)
    return Policy(
        registry=registry,
        tenants=TenantPolicy("id.koder.dev", "X-Tenant-ID", "", registry),
        tenant_header=b"X-Tenant-ID",
        cors=CorsPolicy(origins),
        limiter=Limiter(rules, 100),
        routes=RouteTable([Route(b"/v1/users", "identity")]),
        proxies=TrustedProxies(trusted),
        max_body=1000,
    )


def head(*lines: bytes, host: bytes = b"koder.id.koder.dev", method: bytes = b"GET") -> RequestHead:
    fields = b"".join(line + b"\r\n" for line in (b"Host: " + host, *lines))
    read = READER.read(method + b" /v1/users/7?a=b HTTP/1.1\r\n" + fields + b"\r\n")
    assert read.refusal is None
    return read


def service_fields(context: RequestContext) -> list[tuple[bytes, bytes]]:
    """The fields for the service, in order."""
    assert context.service_fields.endswith(b"\r\n")
    lines = context.service_fields.removesuffix(b"\r\n").split(b"\r\n")
    return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]


def test_what_a_service_is_told() -> None:
    context = request_context(policy(), head(), PEER, TlsInfo())
    assert service_fields(context) == [
        (b"X-Tenant-ID", b"koder"),
        (b"X-Forwarded-For", b"192.0.2.1"),
        (b"X-Forwarded-Proto", b"https"),
        (b"X-Forwarded-Host", b"koder.id.koder.dev"),
        (b"Forwarded", b'for=192.0.2.1;host="koder.id.koder.dev";proto=https'),
        (b"Via", b"1.1 koder-gateway"),
    ]
    assert isinstance(context.tenant, Tenant)
    assert (context.tenant.slug, context.address, context.key) == ("koder", b"192.0.2.1", address_key(PEER))


def test_an_address_of_ipv6_is_quoted_where_it_must_be() -> None:
    told = dict(service_fields(request_context(policy(), head(host=b"koder.id.koder.dev:8443"), "2001:db8::1", None)))
    assert told[b"X-Forwarded-For"] == b"2001:db8::1"
    assert told[b"X-Forwarded-Host"] == b"koder.id.koder.dev:8443"
    assert told[b"Forwarded"] == b'for="[2001:db8::1]";host="koder.id.koder.dev:8443";proto=http'


SPOOFED = (
    b"X-Forwarded-For: 6.6.6.6, 7.7.7.7",
    b"Forwarded: for=6.6.6.6;proto=https",
    b"X-Forwarded-Proto: https",
    b"X-Forwarded-Host: evil.example",
    b"X-Real-IP: 6.6.6.6",
)


def test_a_client_cannot_say_who_it_is() -> None:
    for made in (policy(), policy(trusted=("10.0.0.0/8",))):
        plain, spoofed = request_context(made, head(), PEER, None), request_context(made, head(*SPOOFED), PEER, None)
        assert spoofed.service_fields == plain.service_fields
        assert (spoofed.address, spoofed.key) == (plain.address, plain.key)


def element(node: bytes, proto: bytes = b"https", host: bytes = b"koder.id.koder.dev") -> bytes:
    """An element of Forwarded as the gateway writes it."""
    return b'for=%b;host="%b";proto=%b' % (node, host, proto)


def test_a_trusted_proxy_says_who_its_client_is() -> None:
    made = policy(trusted=("10.0.0.0/8",))
    lines = (
        b"X-Forwarded-For: 6.6.6.6, 198.51.100.7",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: public.example",
    )
    context = request_context(made, head(*lines), "10.1.2.3", None)
    assert (context.address, context.key) == (b"198.51.100.7", address_key("198.51.100.7"))
    told = dict(service_fields(context))
    assert told[b"X-Forwarded-For"] == b"198.51.100.7, 10.1.2.3"
    assert told[b"X-Forwarded-Proto"] == b"https"
    assert told[b"X-Forwarded-Host"] == b"koder.id.koder.dev"
    assert told[b"Forwarded"] == element(b"198.51.100.7") + b", " + element(b"10.1.2.3")


def test_a_trusted_proxys_forwarded_is_continued() -> None:
    made = policy(trusted=("10.0.0.0/8",))
    context = request_context(
        made, head(b"Forwarded: for=198.51.100.7", b"Forwarded: for=10.9.9.9"), "10.1.2.3", TlsInfo()
    )
    assert context.address == b"198.51.100.7"
    told = dict(service_fields(context))
    assert told[b"Forwarded"] == b", ".join(map(element, (b"198.51.100.7", b"10.9.9.9", b"10.1.2.3")))
    assert told[b"X-Forwarded-For"] == b"198.51.100.7, 10.9.9.9, 10.1.2.3"


@pytest.mark.parametrize(
    ("lines", "client", "plain", "nodes"),
    [
        pytest.param(
            (b"X-Forwarded-For: 6.6.6.6, [2001:db8::7]:4711, 10.9.9.9",),
            b"2001:db8::7",
            b"2001:db8::7, 10.9.9.9",
            (b'"[2001:db8::7]"', b"10.9.9.9"),
            id="the client's own claims end at the client",
        ),
        pytest.param(
            (b"X-Forwarded-For: ::ffff:198.51.100.7",),
            b"198.51.100.7",
            b"198.51.100.7",
            (b"198.51.100.7",),
            id="one form of an address",
        ),
        pytest.param(
            (b'Forwarded: for=6.6.6.6;proto=http, For="198.51.100.7:80";proto=https;by=_b , for=10.9.9.9',),
            b"198.51.100.7",
            b"198.51.100.7, 10.9.9.9",
            (b"198.51.100.7", b"10.9.9.9"),
            id="of Forwarded the addresses are believed",
        ),
        pytest.param(
            (b"X-Forwarded-For: 198.51.100.7", b"Forwarded: for=6.6.6.6, for=198.51.100.7;by=_b"),
            b"198.51.100.7",
            b"198.51.100.7",
            (b"198.51.100.7",),
            id="both agree",
        ),
        pytest.param(
            (b"X-Forwarded-For: 198.51.100.7", b"Forwarded: for=6.6.6.6", b"X-Real-IP: 6.6.6.6"),
            b"10.1.2.3",
            b"",
            (),
            id="they disagree",
        ),
        pytest.param((b"Forwarded: for=6.6.6.6, for=_hidden",), b"10.1.2.3", b"", (), id="obfuscated"),
        pytest.param((b"X-Forwarded-For: 6.6.6.6, unknown",), b"10.1.2.3", b"", (), id="unknown"),
        pytest.param((b'Forwarded: for=6.6.6.6, for="',), b"10.1.2.3", b"", (), id="malformed"),
        pytest.param(
            (b'Forwarded: for="6.6.6.6', b"Forwarded: for=10.9.9.9"),
            b"10.9.9.9",
            b"10.9.9.9",
            (b"10.9.9.9",),
            id="malformed by the client",
        ),
        pytest.param(
            (b"X-Forwarded-For: 198.51.100.7", b"X-Real-IP: 6.6.6.6", b"X-Real-IP: 7.7.7.7"),
            b"198.51.100.7",
            b"198.51.100.7",
            (b"198.51.100.7",),
            id="another real address",
        ),
    ],
)
def test_limits_log_and_services_see_the_same_client(
    lines: tuple[bytes, ...], client: bytes, plain: bytes, nodes: tuple[bytes, ...]
) -> None:
    context = request_context(policy(trusted=("10.0.0.0/8",)), head(*lines), "10.1.2.3", TlsInfo())
    assert (context.address, context.key) == (client, address_key(client.decode()))
    told = service_fields(context)
    fields = dict(told)
    assert fields[b"X-Forwarded-For"] == (plain + b", " if plain else b"") + b"10.1.2.3"
    assert fields[b"Forwarded"] == b", ".join(map(element, (*nodes, b"10.1.2.3")))
    asked = [line for line in lines if line.startswith(b"X-Real-IP")]
    assert [value for name, value in told if name == b"X-Real-IP"] == ([client] if asked else [])


def test_a_real_address_alone_is_not_believed() -> None:
    """It is no field that limits and logs go by, so a service must not go by it either."""
    lines = (b"X-Real-IP: 6.6.6.6", b"x-real-ip: 198.51.100.7")
    for peer, told in (("10.1.2.3", [b"10.1.2.3"]), ("192.0.2.9", [])):
        context = request_context(policy(trusted=("10.0.0.0/8",)), head(*lines), peer, None)
        assert [value for name, value in service_fields(context) if name.lower() == b"x-real-ip"] == told
        assert context.address == peer.encode()


def test_whoever_reaches_a_unix_socket_is_trusted_where_that_is_said() -> None:
    asked = head(b"X-Forwarded-For: 198.51.100.7")
    context = request_context(policy(trusted=("unix:",)), asked, "unknown", None)
    assert context.address == b"198.51.100.7"
    told = dict(service_fields(context))
    assert told[b"X-Forwarded-For"] == b"198.51.100.7, unknown"
    assert told[b"Forwarded"] == element(b"198.51.100.7", b"http") + b", " + element(b"unknown", b"http")
    for made, peer in ((policy(trusted=("10.0.0.0/8",)), "unknown"), (policy(trusted=("unix:",)), "10.1.2.3")):
        assert request_context(made, asked, peer, None).address == peer.encode()


@pytest.mark.parametrize("said", [b"ftp", b"https, http", b"httpss", b""])
def test_a_proxys_protocol_is_one_of_two(said: bytes) -> None:
    made = policy(trusted=("10.0.0.0/8",))
    told = dict(service_fields(request_context(made, head(b"X-Forwarded-Proto: " + said), "10.1.2.3", None)))
    assert told[b"X-Forwarded-Proto"] == b"http"


@pytest.mark.parametrize(
    ("lines", "client", "own"),
    [
        ((b"X-Forwarded-Proto: HTTPS",), b"https", b"https"),
        ((b"X-Forwarded-Proto: Http",), b"http", b"http"),
        ((b"Forwarded: for=1.1.1.1;proto=https",), b"https", b"https"),
        ((b'Forwarded: for=1.1.1.1;Proto="HTTPS"',), b"https", b"https"),
        ((b"Forwarded: for=1.1.1.1;proto=http",), b"http", b"http"),
        # The scheme is that of the element whose address is the client's.
        (
            (b"Forwarded: for=6.6.6.6;proto=https, for=1.1.1.1;proto=http, for=10.9.9.9;proto=https",),
            b"http",
            b"http",
        ),
        (
            (b"Forwarded: for=6.6.6.6;proto=http, for=1.1.1.1;proto=https", b"Forwarded: for=10.9.9.9"),
            b"https",
            b"https",
        ),
        ((b"X-Forwarded-For: 1.1.1.1", b"Forwarded: for=1.1.1.1;proto=https"), b"https", b"https"),
        # Who the client is cannot be read, so neither can what it speaks.
        ((b"X-Forwarded-For: 1.1.1.1", b"Forwarded: for=6.6.6.6;proto=https"), b"http", b"https"),
        ((b"Forwarded: for=6.6.6.6;proto=https, for=_hidden;proto=https",), b"http", b"https"),
        ((b"Forwarded: for=1.1.1.1;proto=https;proto=https",), b"http", b"https"),
        ((b"Forwarded: for=1.1.1.1;proto=gopher",), b"http", b"https"),
        ((b"Forwarded: proto=https",), b"http", b"https"),
        # Both.
        ((b"X-Forwarded-Proto: https", b"Forwarded: for=1.1.1.1;proto=HTTPS"), b"https", b"https"),
        ((b"X-Forwarded-Proto: https", b"Forwarded: for=1.1.1.1;proto=http"), b"http", b"http"),
        ((b"X-Forwarded-Proto: http", b"Forwarded: for=1.1.1.1;proto=https"), b"http", b"http"),
        ((b"X-Forwarded-Proto: gopher", b"Forwarded: for=1.1.1.1;proto=https"), b"http", b"http"),
        ((b"X-Forwarded-Proto: https", b"Forwarded: for=1.1.1.1;proto=gopher"), b"http", b"http"),
        ((b"X-Forwarded-Proto:", b"Forwarded: for=1.1.1.1;proto=https"), b"https", b"https"),
        # A list of one word, of several, or of a WebSocket's.
        ((b"X-Forwarded-Proto: https, https",), b"https", b"https"),
        ((b"X-Forwarded-Proto: https", b"X-Forwarded-Proto: HTTPS"), b"https", b"https"),
        ((b"X-Forwarded-Proto: wss",), b"https", b"https"),
        ((b"X-Forwarded-Proto: ws",), b"http", b"http"),
        ((b"X-Forwarded-Proto: wss,https", b"Forwarded: for=1.1.1.1;proto=wss"), b"https", b"https"),
        ((b"X-Forwarded-Proto: https, http",), b"http", b"http"),
        ((b"X-Forwarded-Proto: http, https",), b"http", b"http"),
    ],
)
def test_a_proxy_says_what_its_client_speaks(lines: tuple[bytes, ...], client: bytes, own: bytes) -> None:
    """`client` where the proxy speaks plain HTTP with the gateway, `own` where it speaks TLS."""
    made = replace(policy(trusted=("10.0.0.0/8",)), hsts=b"Strict-Transport-Security: max-age=1\r\n")
    for secured, expected in ((None, client), (TlsInfo(), own)):
        context = request_context(made, head(*lines), "10.1.2.3", secured)
        assert dict(service_fields(context))[b"X-Forwarded-Proto"] == expected
        assert bool(context.hsts) is (expected == b"https")
        assert context.drops_hsts
        # From anybody else it is nothing.
        stranger = request_context(made, head(*lines), PEER, secured)
        assert dict(service_fields(stranger))[b"X-Forwarded-Proto"] == (b"http" if secured is None else b"https")


def test_no_service_reads_a_scheme_or_host_that_is_not_believed() -> None:
    lines = (
        b"X-Forwarded-Proto: http",
        b"Forwarded: for=1.1.1.1;proto=https;host=evil.example;by=_a, for=10.9.9.9;host=evil.example",
        b"X-Forwarded-Host: evil.example",
        b"X-Forwarded-Port: 4711",
        b"X-Forwarded-Prefix: /evil",
        b"x-forwarded-user: evil",
        b"True-Client-IP: 6.6.6.6",
    )
    made = policy(trusted=("10.0.0.0/8",))
    told = service_fields(request_context(made, head(*lines), "10.1.2.3", None))
    assert dict(told)[b"Forwarded"] == b", ".join(
        element(node, b"http") for node in (b"1.1.1.1", b"10.9.9.9", b"10.1.2.3")
    )
    assert not [pair for pair in told if b"evil" in pair[1] or pair[1] in (b"4711", b"6.6.6.6")]
    listed = replace(made, forwarded_fields=frozenset((b"x-forwarded-port", b"true-client-ip")))
    told = service_fields(request_context(listed, head(*lines), "10.1.2.3", None))
    assert told[-2:] == [(b"X-Forwarded-Port", b"4711"), (b"True-Client-IP", b"6.6.6.6")]
    assert not [
        pair for pair in service_fields(request_context(listed, head(*lines), PEER, None)) if pair in told[-2:]
    ]


BALANCER = "10.1.2.3"


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize(
    ("lines", "told", "plain", "over_tls"),
    [
        ((), None, b"http", b"https"),
        ((), True, b"https", b"https"),
        ((), False, b"http", b"https"),
        ((b"X-Forwarded-Proto: https",), None, b"https", b"https"),
        ((b"X-Forwarded-Proto: http",), None, b"http", b"http"),
        ((b"X-Forwarded-Proto: http",), True, b"https", b"https"),
        ((b"X-Forwarded-Proto: https",), False, b"http", b"https"),
        ((b"Forwarded: for=6.6.6.6;proto=http, for=198.51.100.7;proto=https",), None, b"https", b"https"),
        ((b"Forwarded: for=198.51.100.7;proto=https, for=6.6.6.6",), None, b"http", b"https"),
    ],
)
def test_a_balancer_speaks_for_the_client_that_it_has_introduced(
    lines: tuple[bytes, ...], told: bool | None, plain: bytes, over_tls: bytes, trusted: bool
) -> None:
    """The trust is the peer's that has connected; the client's address is that of the PROXY header alone."""
    made = policy(trusted=("10.0.0.0/8",) if trusted else ("172.16.0.0/12",))
    client = ProxiedAddress("198.51.100.7", BALANCER, told)
    for secured, expected in ((None, plain), (TlsInfo(), over_tls)):
        own = b"http" if secured is None else b"https"
        wanted = expected if trusted or told is not None else own
        context = request_context(made, head(*lines, b"X-Forwarded-For: 6.6.6.6, 198.51.100.7"), client, secured)
        assert (context.address, context.key) == (b"198.51.100.7", address_key("198.51.100.7"))
        fields = dict(service_fields(context))
        assert fields[b"X-Forwarded-For"] == b"198.51.100.7"
        assert fields[b"X-Forwarded-Proto"] == wanted
        assert fields[b"Forwarded"] == element(b"198.51.100.7", wanted)


def test_no_service_is_told_of_a_tenant_that_is_none() -> None:
    for host in (b"nobody.id.koder.dev", b"id.koder.dev", b"evil.example"):
        context = request_context(policy(), head(host=host), PEER, None)
        assert isinstance(context.tenant, Refusal)
        assert (context.owner, dict(service_fields(context))[b"X-Tenant-ID"]) == (None, b"")


def test_a_service_is_told_of_a_suspended_tenant_whose_paths_it_may_serve() -> None:
    context = request_context(policy(), head(host=b"closed.id.koder.dev"), PEER, None)
    assert isinstance(context.tenant, Refusal)
    assert context.owner is context.suspended is not None
    assert dict(service_fields(context))[b"X-Tenant-ID"] == b"closed"


def test_a_peer_without_an_address() -> None:
    context = request_context(policy(), head(), "", None)
    assert dict(service_fields(context))[b"Forwarded"].startswith(b"for=unknown;")


# -- what may be kept for the next request of the connection


@pytest.mark.parametrize(
    ("lines", "host", "fits"),
    [
        ((), b"koder.id.koder.dev", True),
        ((b"Accept: x", b"Cookie: y"), b"koder.id.koder.dev", True),
        ((), b"acme.id.koder.dev", False),
        ((), b"KODER.id.koder.dev", False),
        ((b"Origin: " + APP,), b"koder.id.koder.dev", False),
        ((b"X-Tenant-ID: koder",), b"koder.id.koder.dev", False),
        ((b"X-Forwarded-For: 1.2.3.4",), b"koder.id.koder.dev", False),
        ((b"Forwarded: for=1.2.3.4",), b"koder.id.koder.dev", False),
    ],
)
def test_a_context_holds_while_nothing_that_it_says_changes(
    lines: tuple[bytes, ...], host: bytes, fits: bool
) -> None:
    made = policy()
    context = request_context(made, head(), PEER, None)
    other = head(*lines, host=host)
    assert context.fits(made, other) is fits
    assert not context.fits(replace(made, max_body=1), other)
    if fits:
        again = request_context(made, other, PEER, None)
        assert (again.service_fields, again.cors, again.tenant, again.key) == (
            context.service_fields,
            context.cors,
            context.tenant,
            context.key,
        )


def test_what_a_proxy_said_once_does_not_hold_for_the_next() -> None:
    made = policy(trusted=("10.0.0.0/8",))
    context = request_context(made, head(b"X-Forwarded-For: 198.51.100.7"), "10.1.2.3", None)
    assert not context.fits(made, head())
    assert request_context(made, head(), "10.1.2.3", None).address == b"10.1.2.3"


# -- CORS


def test_the_origins_of_all_and_of_the_tenant_are_allowed() -> None:
    made = policy()
    for origin in (APP, KODER):
        assert (
            b"Access-Control-Allow-Origin: %b\r\n" % origin
            in request_context(made, head(b"Origin: " + origin), PEER, TlsInfo()).cors
        )
    for host in (b"acme.id.koder.dev", b"closed.id.koder.dev", b"evil.example"):
        assert (
            request_context(made, head(b"Origin: " + KODER, host=host), PEER, TlsInfo()).cors == b"Vary: Origin\r\n"
        )
        assert (
            b"Allow-Origin: " + APP in request_context(made, head(b"Origin: " + APP, host=host), PEER, TlsInfo()).cors
        )


ACME, CLOSED = b"https://acme.id.koder.dev", b"https://closed.example"
FOREIGN = [
    KODER, CLOSED, b"https://koder.id.koder.dev", b"http://koder.id.koder.dev:8080", b"https://closed.id.koder.dev",
    b"https://login.koder.example", b"HTTPS://KODER.example", b"https://koder.example:443", b"https://koder.example.",
    b"https://a@koder.example:0443/", b"wss://Login.Koder.Example.:1", b"https://koder.id.koder.dev\\x",
    b"null " + KODER, APP + b"," + KODER, b", ".join([b"https://evil.example"] * 65),
]  # fmt: skip
NOT_FOREIGN = [
    APP, ACME, b"https://acme.id.koder.dev:8443", b"https://shared.example", b"https://shared.koder.example", b"null",
    b"https://evil.example", b"https://id.koder.dev", b"https://nobody.id.koder.dev", b"https://x.koder.id.koder.dev",
    b"", b"koder.id.koder.dev", b"https://koder.example:8443", b"https://", b"https://[::1]", APP + b" " + ACME,
    b"https://\xe9", b", ".join([b"https://evil.example"] * 64),
]  # fmt: skip


def with_shared() -> Policy:
    """Two tenants have one origin in common, and a tenant has listed another's host."""
    made = policy()
    first = Tenant(
        "koder",
        domains=("login.koder.example", "shared.koder.example"),
        cors_origins=(KODER.decode(), "https://shared.example"),
    )
    second = Tenant(
        "acme", domains=("acme.example",), cors_origins=("https://shared.example", "https://shared.koder.example")
    )
    registry = Registry((first, second, TENANTS[2]))
    return replace(made, registry=registry, tenants=TenantPolicy("id.koder.dev", "X-Tenant-ID", "acme", registry))


@pytest.mark.parametrize("host", [b"acme.id.koder.dev", b"acme.example:8443", b"id.koder.dev"])
@pytest.mark.parametrize(
    ("origin", "foreign"), [*((each, True) for each in FOREIGN), *((each, False) for each in NOT_FOREIGN)]
)
def test_a_page_of_another_tenant_may_change_nothing(origin: bytes, foreign: bool, host: bytes) -> None:
    made = with_shared()
    for method in (b"GET", b"HEAD", b"OPTIONS", b"POST", b"PUT", b"PATCH", b"DELETE"):
        context = request_context(made, head(b"Origin: " + origin, host=host, method=method), PEER, TlsInfo())
        refused = foreign and method not in (b"GET", b"HEAD", b"OPTIONS")
        assert (isinstance(context.tenant, Refusal), context.foreign) == (refused, foreign)
        if refused:
            assert isinstance(context.tenant, Refusal)
            assert context.tenant.code == "not_allowed"
        # What was decided for a request that changes nothing must not hold for one that does.
        assert context.lasting is not foreign


def test_of_two_origin_lines_each_counts() -> None:
    made = with_shared()
    for lines in ((KODER, APP), (b"null", KODER), (b"", KODER)):
        asked = head(*(b"Origin: " + line for line in lines), host=b"acme.id.koder.dev", method=b"DELETE")
        assert request_context(made, asked, PEER, TlsInfo()).foreign
    known = request_context(made, head(b"Origin: null", host=b"acme.id.koder.dev"), PEER, TlsInfo())
    assert known.lasting
    assert not known.fits(made, head(b"Origin: null", b"Origin: " + KODER, host=b"acme.id.koder.dev"))


def test_where_every_slug_is_a_tenant_so_is_that_of_an_origin() -> None:
    registry = Registry(None)
    made = replace(policy(), registry=registry, tenants=TenantPolicy("id.koder.dev", "X-Tenant-ID", "", registry))
    for origin, foreign in ((b"https://any.id.koder.dev", True), (ACME, False), (b"https://a_b.id.koder.dev", False)):
        asked = head(b"Origin: " + origin, host=b"acme.id.koder.dev", method=b"POST")
        assert request_context(made, asked, PEER, TlsInfo()).foreign is foreign


def test_two_origins_are_no_origin() -> None:
    context = request_context(policy(), head(b"Origin: " + APP, b"Origin: " + APP), PEER, TlsInfo())
    assert context.cors == b"Vary: Origin\r\n"


def test_vary_is_there_once_any_tenant_has_origins() -> None:
    made = policy(origins=())
    assert request_context(made, head(host=b"acme.id.koder.dev"), PEER, TlsInfo()).cors == b"Vary: Origin\r\n"
    bare = replace(made, registry=Registry(None))
    assert request_context(bare, head(), PEER, TlsInfo()).cors == b""


def preflight(made: Policy, origin: bytes, host: bytes) -> bytes | None:
    asked = head(
        b"Origin: " + origin,
        b"Access-Control-Request-Method: PUT",
        b"Access-Control-Request-Headers: x-tenant-id",
        host=host,
        method=b"OPTIONS",
    )
    return made.preflight(asked, request_context(made, asked, PEER, TlsInfo()).origins)


def test_a_preflight_is_answered_for_whom_it_may() -> None:
    made = policy()
    assert b"Allow-Origin: " + APP in (preflight(made, APP, b"koder.id.koder.dev") or b"")
    assert b"Allow-Origin: " + KODER in (preflight(made, KODER, b"koder.id.koder.dev") or b"")
    assert preflight(made, KODER, b"acme.id.koder.dev") is None
    assert preflight(made, b"https://evil.example", b"koder.id.koder.dev") is None


def test_a_preflight_of_the_bare_domain_cannot_name_its_tenant() -> None:
    made = policy()
    assert b"Allow-Origin: " + APP in (preflight(made, APP, b"id.koder.dev") or b"")
    assert preflight(made, KODER, b"id.koder.dev") is None
    assert preflight(made, b"https://closed.example", b"id.koder.dev") is None
    assert preflight(made, KODER, b"evil.example") is None


def test_what_is_no_preflight_is_not_answered_as_one() -> None:
    made = policy()
    for other in (
        head(b"Origin: " + APP, method=b"OPTIONS"),
        head(b"Access-Control-Request-Method: PUT", method=b"OPTIONS"),
        head(),
    ):
        assert made.preflight(other, TENANTS[0].origins) is None


def test_what_a_proxy_that_is_not_trusted_says_holds_for_its_request_alone() -> None:
    made = policy()
    named = request_context(made, head(b"X-Forwarded-For: 6.6.6.6"), PEER, None)
    assert (named.certain, named.fits(made, head())) == (False, False)
    plain = request_context(made, head(), PEER, None)
    assert (plain.certain, plain.fits(made, head()), plain.fits(made, head(b"X-Forwarded-For: x"))) == (
        True,
        True,
        False,
    )


@pytest.mark.parametrize(
    ("lines", "peer", "trusted", "ip"),
    [
        ((), PEER, (), PEER),
        ((b"X-Forwarded-For: 8.8.8.8",), "10.0.0.1", ("10.0.0.1/32",), "8.8.8.8"),
        ((), "10.0.0.1", ("10.0.0.1/32",), "unknown"),
        ((b"X-Forwarded-For: 8.8.8.8", b"Forwarded: for=1.1.1.1"), "10.0.0.1", ("10.0.0.1/32",), "unknown"),
        ((b"X-Forwarded-For: 8.8.8.8",), "10.0.0.1", (), "unknown"),
        ((), ProxiedAddress("10.0.0.1", "10.0.0.1", named=False), (), "unknown"),
        ((), ProxiedAddress("8.8.8.8", "10.0.0.1"), (), "8.8.8.8"),
    ],
)
def test_a_signed_context_names_no_proxy_in_its_clients_place(
    lines: tuple[bytes, ...], peer: str, trusted: tuple[str, ...], ip: str
) -> None:
    made = replace(policy(trusted=trusted), signer=ContextSigner(EDDSA, (), lambda: 1_800_000_000.0))
    signed = request_context(made, head(*lines), peer, None).signed
    assert signed is not None
    token = signed.line().partition(b": ")[2].strip()
    found = verify(token, {"keys": [public_jwk(EDDSA)]}, host="koder.id.koder.dev", now=1_800_000_000.0)
    assert found.ip == ip


def test_what_a_proxy_does_not_say_is_the_same_for_its_connection() -> None:
    made = policy(trusted=(f"{PEER}/32",))
    unnamed = request_context(made, head(), PEER, None)
    assert (unnamed.certain, unnamed.fits(made, head())) == (False, True)
    assert not unnamed.fits(made, head(b"X-Forwarded-For: 8.8.8.8"))


def test_a_wildcard_lets_pages_read_and_anothers_wildcard_makes_them_foreign() -> None:
    tenants = (Tenant("koder", cors_origins=("https://*.koder.example",)), Tenant("acme"))
    registry = Registry(tenants)
    made = replace(
        policy(origins=("https://*.app.example",)),
        registry=registry,
        tenants=TenantPolicy("id.koder.dev", "X-Tenant-ID", "", registry),
    )

    def context(origin: bytes, host: bytes = b"koder.id.koder.dev", method: bytes = b"GET") -> RequestContext:
        return request_context(made, head(b"Origin: " + origin, host=host, method=method), PEER, TlsInfo())

    for origin in (b"https://web.koder.example", b"https://a.app.example"):
        found = context(origin)
        assert (found.readable, found.foreign) == (True, False)
        assert found.cors.startswith(b"Access-Control-Allow-Origin: %b\r\n" % origin)
        asks = (b"Access-Control-Request-Method: PUT", b"Origin: " + origin)
        preflight = request_context(made, head(*asks, method=b"OPTIONS"), PEER, TlsInfo())
        answer = made.preflight(head(*asks, method=b"OPTIONS"), preflight.origins)
        assert answer is not None
        assert b"Access-Control-Allow-Origin: %b\r\n" % origin in answer
    # Of another tenant's wildcard: its pages may change nothing here.
    foreign = context(b"https://web.koder.example", b"acme.id.koder.dev", b"POST")
    assert isinstance(foreign.tenant, Refusal)
    assert (foreign.tenant.code, foreign.readable, foreign.cors) == ("not_allowed", False, b"Vary: Origin\r\n")
    assert not context(b"https://web.koder.example", b"acme.id.koder.dev").readable
    # A page of nobody's domain is as before.
    assert not context(b"https://a.b.app.example", method=b"POST").foreign
