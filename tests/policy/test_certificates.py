"""Which hosts a connection may speak for, by the certificate it was opened with and the client's own."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.errors import Refusal
from koder_gateway.exchange.context import request_context
from koder_gateway.policy.certificates import (
    MAX_CLIENT_CERTIFICATE,
    CertificateNames,
    ClientAuth,
    TlsInfo,
    certificate_refusal,
)
from koder_gateway.policy.decision import Policy
from koder_gateway.policy.tenants import Registry, Tenant, TenantPolicy
from koder_gateway.tenants.remote_registry import UnreadTenants
from tests.exchange.test_context import head, policy, service_fields

BASE = "id.koder.dev"
TENANTS = (
    Tenant("koder", domains=("login.koder.example", "sso.koder.example")),
    Tenant("acme", domains=("login.acme.example",)),
    Tenant("closed", domains=("login.closed.example",), status="suspended"),
)


def tenants(*known: Tenant, default: str = "", local_hosts: bool = False) -> TenantPolicy:
    return TenantPolicy(BASE, "X-Tenant-ID", default, Registry(known or TENANTS), local_hosts)


def refused(names: str, host: str, *named: str, sni: str = "", of: TenantPolicy | None = None) -> bool:
    """Whether a Host is refused on a connection with the certificate of these names."""
    secured = TlsInfo(CertificateNames(names.split()), sni.encode())
    refusal = certificate_refusal(of or tenants(), host.encode(), [name.encode() for name in named], secured)
    assert refusal is None or (refusal.status, refusal.close) == (421, False)
    return refusal is not None


@pytest.mark.parametrize(
    ("names", "host"),
    [
        # The certificate is for it.
        ("koder.id.koder.dev", "koder.id.koder.dev"),
        ("koder.id.koder.dev", "KODER.id.koder.dev.:8443"),
        ("login.koder.example", "login.koder.example"),
        ("LOGIN.Koder.Example", "login.koder.example"),
        ("*.id.koder.dev", "koder.id.koder.dev"),
        ("*.id.koder.dev", "acme.id.koder.dev"),
        ("*.id.koder.dev", "nobody.id.koder.dev"),
        ("id.koder.dev", "id.koder.dev"),
        ("*.id.koder.dev", "id.koder.dev"),
        ("*.acme.example login.koder.example", "login.acme.example"),
        ("koder.id.koder.dev elsewhere.example", "elsewhere.example"),
        # It is for another host of the same tenant.
        ("koder.id.koder.dev", "login.koder.example"),
        ("login.koder.example", "koder.id.koder.dev"),
        ("login.koder.example", "sso.koder.example"),
        ("login.closed.example", "closed.id.koder.dev"),
        ("login.koder.example login.acme.example", "acme.id.koder.dev"),
        # It is every tenant's.
        ("*.id.koder.dev", "login.koder.example"),
        ("*.id.koder.dev login.acme.example", "login.koder.example"),
        # It is nobody's.
        ("id.koder.dev", "koder.id.koder.dev"),
        ("id.koder.dev", "login.koder.example"),
        ("localhost", "koder.id.koder.dev"),
        ("localhost", "evil.example"),
        ("gateway.internal *.internal", "login.acme.example"),
        ("nobody.id.koder.dev", "koder.id.koder.dev"),
        ("*.koder.example", "login.acme.example"),
        ("*.elsewhere.example", "acme.id.koder.dev"),
        ("a.koder.id.koder.dev", "acme.id.koder.dev"),
        ("", "koder.id.koder.dev"),
    ],
)
def test_a_host_that_the_connection_speaks_for(names: str, host: str) -> None:
    assert not refused(names, host)


@pytest.mark.parametrize(
    ("names", "host"),
    [
        ("koder.id.koder.dev", "acme.id.koder.dev"),
        ("koder.id.koder.dev", "login.acme.example"),
        ("login.koder.example", "acme.id.koder.dev"),
        ("login.koder.example", "login.acme.example"),
        ("login.koder.example localhost", "login.acme.example"),
        ("login.closed.example", "koder.id.koder.dev"),
        # Nobody's host is not told apart from somebody else's.
        ("login.koder.example", "nobody.id.koder.dev"),
        ("login.koder.example", "evil.example"),
        ("login.koder.example", ""),
        ("login.koder.example", "127.0.0.1"),
        ("login.koder.example", "[::1]:443"),
        ("koder.id.koder.dev", "id.koder.dev"),
    ],
)
def test_a_host_of_somebody_else(names: str, host: str) -> None:
    assert refused(names, host)


@pytest.mark.parametrize(
    ("named", "default", "is_refused"),
    [
        (("koder",), "", False),
        (("koder", "koder", ""), "", False),
        ((), "koder", False),
        (("acme",), "", True),
        (("acme",), "koder", True),
        (("koder", "acme"), "koder", True),
        (("nobody",), "", True),
        ((), "", True),
        ((), "acme", True),
    ],
)
def test_on_the_base_domain_the_tenant_header_speaks(named: tuple[str, ...], default: str, is_refused: bool) -> None:
    of = tenants(default=default)
    assert refused("login.koder.example", BASE, *named, of=of) is is_refused
    assert not refused(f"*.{BASE}", BASE, *named, of=of), "of the base domain's own certificate nothing is asked"


def test_a_suspended_tenant_is_told_so_by_its_own_certificate_alone() -> None:
    assert not refused("login.closed.example", BASE, "closed")
    made = replace(policy(), tenants=tenants())
    own, other = (
        request_context(
            made, head(host=b"closed.id.koder.dev"), "192.0.2.1", TlsInfo(CertificateNames([name]))
        ).tenant
        for name in ("login.closed.example", "login.koder.example")
    )
    assert (own.code, other.code) == ("tenant_suspended", "misdirected_request")  # type: ignore[union-attr]


def test_a_trusted_proxy_s_connection_is_for_all_of_its_clients() -> None:
    made = replace(policy(trusted=("10.0.0.0/8",)), tenants=tenants(), client_auth=AUTH)
    secured = TlsInfo(CertificateNames(["login.koder.example"]))
    for lines in ((), (b"X-Forwarded-For: 198.51.100.7",)):
        asked = head(*lines, host=b"acme.id.koder.dev")
        assert isinstance(request_context(made, asked, "10.1.2.3", secured).tenant, Tenant)
        assert isinstance(request_context(made, asked, "192.0.2.1", secured).tenant, Refusal)
        # Whom it has verified, nobody knows.
        required = head(*lines, host=b"admin.id.koder.dev")
        assert isinstance(request_context(made, required, "10.1.2.3", secured).tenant, Refusal)


def test_what_stands_for_the_base_domain_is_it() -> None:
    demo = tenants(local_hosts=True)
    for host in ("localhost:8443", "127.0.0.1", "[::1]:8443"):
        assert not refused(f"{BASE} *.{BASE} localhost", host, "acme", of=demo)
        assert not refused("login.koder.example", host, "koder", of=demo)
        assert refused("login.koder.example", host, "acme", of=demo)


def test_a_wildcard_of_a_custom_domain_is_his_whose_name_was_asked_for() -> None:
    assert not refused("*.koder.example", "koder.id.koder.dev", sni="login.koder.example")
    assert not refused("*.koder.example", "sso.koder.example", sni="login.koder.example")
    assert not refused("*.koder.example", "other.koder.example", sni="login.koder.example")
    assert refused("*.koder.example", "acme.id.koder.dev", sni="login.koder.example")
    assert refused("*.koder.example", "login.acme.example", sni="login.koder.example")
    # What the certificate is not for makes it nobody's.
    assert not refused("*.koder.example", "login.acme.example", sni="login.acme.example")
    assert not refused("*.koder.example", "login.acme.example", sni="a.login.koder.example")


def test_of_an_open_registry_every_slug_is_a_tenant() -> None:
    open_to_all = TenantPolicy(BASE, "X-Tenant-ID", "", Registry(None))
    assert refused("a.id.koder.dev", "b.id.koder.dev", of=open_to_all)
    assert not refused("a.id.koder.dev", "a.id.koder.dev", of=open_to_all)
    assert not refused("-.id.koder.dev", "b.id.koder.dev", of=open_to_all)


def test_an_unread_registry_refuses_nothing_as_misdirected() -> None:
    for names in (f"*.{BASE}", "login.koder.example", ""):
        assert not refused(names, "koder.id.koder.dev", of=UnreadTenants())


def test_no_answer_outlives_its_registry() -> None:
    names = CertificateNames(["login.koder.example"])

    def ask(of: TenantPolicy) -> Refusal | None:
        return certificate_refusal(of, b"acme.id.koder.dev", [], TlsInfo(names))

    moved = tenants(Tenant("koder"), Tenant("acme", domains=("login.koder.example",)))
    before = tenants()
    assert ask(before) is not None
    assert ask(moved) is None
    assert ask(before) is not None
    assert ask(tenants(Tenant("acme"))) is None, "the name is nobody's any more"


def test_names_keep_no_registry_alive() -> None:
    names, of = CertificateNames(["login.koder.example"]), tenants()
    assert names.slugs(of) == {b"koder"}
    seen, frontier = set(), [names]
    while frontier:
        found = frontier.pop()
        assert not isinstance(found, (Registry, TenantPolicy, Tenant))
        if id(found) not in seen and not isinstance(found, type):
            seen.add(id(found))
            frontier += gc.get_referents(found)


@given(
    names=st.lists(st.sampled_from(["koder.id.koder.dev", "*.id.koder.dev", "login.acme.example", "*.x", "*", ""])),
    host=st.sampled_from(["koder.id.koder.dev", "acme.id.koder.dev", "login.acme.example", "a.x", BASE, ".", "*"]),
)
def test_what_a_certificate_is_for_is_never_refused(names: list[str], host: str) -> None:
    known = CertificateNames(names)
    if known.cover(host.encode()):
        assert not refused(" ".join(names), host)


@pytest.mark.parametrize("name", ["", ".", "*", "*.", "*..", "..", "b\xfccher.example", "a.*.example"])
def test_a_name_that_is_none_covers_nothing(name: str) -> None:
    names = CertificateNames([name])
    for host in (b"", b".", b"a", b"*", b"a.b", b"a.b.example", "b\xfccher.example".encode()):
        assert not names.cover(host)


# -- clients' certificates

AUTH = ClientAuth(
    [("admin.id.koder.dev", "required"), ("*.partner.example", "optional"), ("a.partner.example", "required")],
    b"one",
)


@pytest.mark.parametrize(
    ("host", "mode"),
    [
        (b"admin.id.koder.dev", "required"),
        (b"a.partner.example", "required"),
        (b"b.partner.example", "optional"),
        (b"a.b.partner.example", "none"),
        (b"partner.example", "none"),
        (b"koder.id.koder.dev", "none"),
        (b"", "none"),
    ],
)
def test_what_a_host_asks_for(host: bytes, mode: str) -> None:
    assert AUTH.mode(host) == mode


def test_everything_else_has_a_pattern_too() -> None:
    auth = ClientAuth([("*", "required"), ("open.example", "optional")], b"one")
    modes = [auth.mode(host) for host in (b"open.example", b"a.b.c", b"")]
    assert modes == ["optional", "required", "required"]
    assert auth
    assert not ClientAuth()
    assert not ClientAuth([], b"one")


def with_auth(auth: ClientAuth = AUTH) -> Policy:
    registry = Registry([Tenant("koder"), Tenant("admin", domains=("a.partner.example", "b.partner.example"))])
    return replace(policy(), tenants=TenantPolicy(BASE, "X-Tenant-ID", "", registry), client_auth=auth)


def client_cert(host: bytes, secured: TlsInfo | None, auth: ClientAuth = AUTH) -> bytes | str | None:
    """What the service gets as Client-Cert, or the code of a refusal."""
    context = request_context(with_auth(auth), head(host=host), "192.0.2.1", secured)
    fields = [value for name, value in service_fields(context) if name == b"Client-Cert"]
    if isinstance(context.tenant, Refusal):
        assert not fields
        return context.tenant.code
    assert len(fields) <= 1
    return fields[0] if fields else None


def test_who_comes_with_a_certificate() -> None:
    verified = TlsInfo(client=b"\x30\x82", authorities=b"one")
    # RFC 8941 section 3.3.5: base64 with padding, between colons.
    for host in (b"admin.id.koder.dev", b"ADMIN.id.koder.dev:8443", b"a.partner.example", b"b.partner.example."):
        assert client_cert(host, verified) == b":MII=:"
    assert client_cert(b"koder.id.koder.dev", verified) is None, "who does not ask is not told"
    assert client_cert(b"admin.id.koder.dev", verified, ClientAuth()) is None


@pytest.mark.parametrize("secured", [None, TlsInfo()], ids=["plain", "TLS"])
def test_who_comes_without(secured: TlsInfo | None) -> None:
    for host in (b"admin.id.koder.dev", b"admin.id.koder.dev.", b"Admin.ID.koder.dev:1", b"a.partner.example"):
        assert client_cert(host, secured) == "misdirected_request"
    for host in (b"b.partner.example", b"koder.id.koder.dev"):
        assert client_cert(host, secured) is None
    assert (
        client_cert(b"koder.id.koder.dev", secured, ClientAuth([("*", "required")], b"one")) == "misdirected_request"
    )


def test_who_was_verified_by_others() -> None:
    outdated = TlsInfo(client=b"\x30\x82", authorities=b"two")
    assert client_cert(b"admin.id.koder.dev", outdated) == "misdirected_request"
    assert client_cert(b"b.partner.example", outdated) == "misdirected_request"
    assert client_cert(b"koder.id.koder.dev", outdated) is None


def test_a_certificate_that_no_field_holds() -> None:
    largest = TlsInfo(client=b"\x30" * MAX_CLIENT_CERTIFICATE, authorities=b"one")
    larger = TlsInfo(client=b"\x30" * (MAX_CLIENT_CERTIFICATE + 1), authorities=b"one")
    assert isinstance(client_cert(b"admin.id.koder.dev", largest), bytes)
    assert client_cert(b"admin.id.koder.dev", larger) == "head_too_large"


# -- HSTS

HSTS = b"Strict-Transport-Security: max-age=31536000\r\n"


@pytest.mark.parametrize("secured", [None, TlsInfo()], ids=["plain", "TLS"])
@pytest.mark.parametrize(
    ("peer", "said", "over_tls"),
    [
        ("192.0.2.1", None, None),
        ("192.0.2.1", b"https", None),
        ("10.1.2.3", None, None),
        ("10.1.2.3", b"https", True),
        ("10.1.2.3", b"http", False),
        ("10.1.2.3", b"https, http", False),
    ],
)
def test_hsts_is_for_clients_who_speak_tls(
    secured: TlsInfo | None, peer: str, said: bytes | None, over_tls: bool | None
) -> None:
    made = replace(policy(trusted=("10.0.0.0/8",)), hsts=HSTS)
    lines = [] if said is None else [b"X-Forwarded-Proto: " + said]
    context = request_context(made, head(*lines), peer, secured)
    expected = secured is not None if over_tls is None else over_tls
    assert (context.hsts, context.drops_hsts) == (HSTS if expected else b"", True)
    assert context.fields == context.cors + context.hsts
    assert (b"X-Forwarded-Proto", b"https" if expected else b"http") in service_fields(context)


@pytest.mark.parametrize("secured", [None, TlsInfo()], ids=["plain", "TLS"])
def test_without_hsts_a_service_s_own_passes_over_tls_alone(secured: TlsInfo | None) -> None:
    context = request_context(policy(), head(), "192.0.2.1", secured)
    assert (context.hsts, context.drops_hsts) == (b"", secured is None)
