"""What pages of other origins may do and read: over sockets, on each way in."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from doors import WAYS, Answer, Doors, open_doors
from processes import until
from sockets import ALLOWED, HOST, SETTINGS

BASE = b"id.koder.dev"
SUSPENDED = b"globex.id.koder.dev"
KODER, GLOBEX, EVIL = b"https://koder.example", b"https://globex.example", b"https://evil.example"
ALLOW = b"access-control-allow-origin"
EXPOSE = b"access-control-expose-headers"
CREDENTIALS = b"access-control-allow-credentials"
SHIPPED = {b"x-request-id", b"dpop-nonce", b"etag", b"link", b"ratelimit", b"ratelimit-policy", b"retry-after"}
SHIPPED |= {b"www-authenticate", b"location", b"x-total-count"}
ways = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    settings = SETTINGS.replace("[cors]\n", '[cors]\nexpose_add = ["X-Total-Count", "etag"]\n')
    with open_doors(tmp_path_factory.mktemp("gateway"), settings) as doors:
        yield doors


@pytest.fixture
def doors(shared: Doors) -> Doors:
    shared.origin.forget()
    return shared


def preflight(
    doors: Doors, way: str, origin: bytes, host: bytes, target: bytes = b"/v1/users", method: bytes = b"DELETE"
) -> Answer:
    fields = [(b"Origin", origin), (b"Access-Control-Request-Method", method)]
    fields += [(b"Access-Control-Request-Headers", b"x-tenant-id"), (b"Access-Control-Request-Headers", b"dpop")]
    answer = doors.ask(way, target, fields, method=b"OPTIONS", host=host)
    assert doors.received() == [] or answer.values(ALLOW) == []
    doors.origin.forget()
    return answer


# -- one tenant's pages and another tenant


@ways
@pytest.mark.parametrize(("origin", "allowed"), [(ALLOWED, True), (KODER, False), (GLOBEX, False), (EVIL, False)])
def test_on_the_base_domain_only_global_origins_are_preflighted(
    way: str, origin: bytes, allowed: bool, doors: Doors
) -> None:
    answer = preflight(doors, way, origin, BASE)
    assert answer.values(ALLOW) == ([origin] if allowed else [])
    if allowed:
        assert answer.status == 204
        assert answer.words(b"access-control-allow-headers") == {b"x-tenant-id", b"dpop"}


@ways
@pytest.mark.parametrize(
    ("origin", "method", "status"),
    [
        (KODER, b"DELETE", 403), (KODER, b"POST", 403), (KODER, b"PATCH", 403), (KODER, b"GET", 200),
        (GLOBEX, b"DELETE", 403), (ALLOWED, b"DELETE", 200), (EVIL, b"DELETE", 200), (None, b"DELETE", 200),
    ],
)  # fmt: skip
def test_a_tenants_page_changes_nothing_of_another_there(
    way: str, origin: bytes | None, method: bytes, status: int, doors: Doors
) -> None:
    fields = [(b"X-Tenant-ID", b"acme"), *([(b"Origin", origin)] if origin else [])]
    answer = doors.ask(way, b"/v1/users/7", fields, method=method, host=BASE)
    assert answer.status == status
    assert answer.values(ALLOW) == ([ALLOWED] if origin == ALLOWED else [])
    assert answer.words(b"vary") == {b"origin", b"x-tenant-id"}
    assert len(doors.received()) == (status == 200)
    if status == 403:
        assert b'"not_allowed"' in answer.body


@ways
def test_a_tenants_page_may_act_for_its_own(way: str, doors: Doors) -> None:
    fields = [(b"X-Tenant-ID", b"koder"), (b"Origin", KODER)]
    assert doors.ask(way, b"/v1/users/7", fields, method=b"DELETE", host=BASE).status == 200
    assert doors.ask(way, b"/v1/users/7", fields, method=b"DELETE").values(ALLOW) == [KODER]


@ways
@pytest.mark.parametrize("fields", [[(b"X-Tenant-ID", b"acme")], [(b"X-Tenant-ID", b"nobody")], []])
def test_caches_are_told_of_the_tenants_field(way: str, fields: list[tuple[bytes, bytes]], doors: Doors) -> None:
    assert doors.ask(way, fields=fields, host=BASE).words(b"vary") == {b"origin", b"x-tenant-id"}
    assert doors.ask(way, host=HOST).words(b"vary") == {b"origin"}


# -- what pages may read


@ways
def test_a_suspended_tenants_page_reads_its_refusal(way: str, doors: Doors) -> None:
    assert preflight(doors, way, GLOBEX, SUSPENDED).values(ALLOW) == [GLOBEX]
    answer = doors.ask(way, fields=[(b"Origin", GLOBEX)], host=SUSPENDED)
    assert (answer.status, answer.values(ALLOW), answer.values(CREDENTIALS)) == (403, [GLOBEX], [b"true"])
    assert b"tenant_suspended" in answer.body
    assert doors.ask(way, fields=[(b"Origin", GLOBEX)]).values(ALLOW) == []
    assert doors.ask(way, fields=[(b"Origin", KODER)], host=SUSPENDED).values(ALLOW) == []


@ways
def test_the_log_names_the_tenant_of_a_preflight(way: str, doors: Doors) -> None:
    """A suspended one as well, by its own host and by its custom domain."""
    log = doors.folder / "access.log"
    before = len(log.read_text().splitlines()) if log.exists() else 0
    hosts = [(SUSPENDED, GLOBEX), (b"login.globex.example", GLOBEX), (HOST, KODER), (BASE, ALLOWED)]
    for host, origin in hosts:
        assert preflight(doors, way, origin, host).status == 204
    until(lambda: log.exists() and len(log.read_text().splitlines()) >= before + len(hosts), "they are logged")
    lines = [json.loads(line) for line in log.read_text().splitlines()[before:]]
    named = {line["host"]: line["tenant"] for line in lines if line["method"] == "OPTIONS"}
    assert named[SUSPENDED.decode()] == named["login.globex.example"] == "globex"
    assert named[HOST.decode()] == "koder"
    assert named[BASE.decode()] == ""


@ways
def test_what_a_service_exposes_is_kept_for_allowed_origins(way: str, doors: Doors) -> None:
    doors.origin.answers[b"/v1/users/exposed"] = (
        b"HTTP/1.1 200 OK\r\nAccess-Control-Expose-Headers: X-One, x-two\r\n"
        b"Access-Control-Expose-Headers: bad name\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 0\r\n\r\n"
    )
    for origin, allowed in ((ALLOWED, True), (EVIL, False), (KODER, True)):
        answer = doors.ask(way, b"/v1/users/exposed", [(b"Origin", origin)])
        assert answer.words(EXPOSE) == (SHIPPED | {b"x-one", b"x-two"} if allowed else set())
        assert answer.values(ALLOW) == ([origin] if allowed else [])
    assert doors.ask(way, b"/v1/users/exposed").words(EXPOSE) == set()


@ways
@pytest.mark.parametrize("target", [b"/.well-known/openid-configuration", b"/oauth/v2/keys", b"/oidc/v1/%6Beys"])
def test_public_documents_are_anyones_to_read(way: str, target: bytes, doors: Doors) -> None:
    for fields in ([(b"Origin", EVIL)], []):
        answer = doors.ask(way, target, fields)
        assert (answer.status, answer.values(ALLOW), answer.values(CREDENTIALS)) == (200, [b"*"], [])
    known = doors.ask(way, target, [(b"Origin", ALLOWED)])
    assert (known.values(ALLOW), known.values(CREDENTIALS)) == ([ALLOWED], [b"true"])
    assert doors.ask(way, b"/oauth/v2/token", [(b"Origin", EVIL)]).values(ALLOW) == []
    doors.origin.forget()
    asked = preflight(doors, way, EVIL, HOST, target, b"GET")
    assert (asked.status, asked.values(ALLOW), asked.values(CREDENTIALS)) == (204, [b"*"], [])
    assert preflight(doors, way, EVIL, HOST, target, b"POST").values(ALLOW) == []
