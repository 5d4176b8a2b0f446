"""What pages of other origins may do and read: over sockets, on each way in."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.kit.doors import WAYS, Answer, Doors, Pairs, open_doors
from tests.kit.http2_client import Http2Client
from tests.kit.http2_frames import block, headers
from tests.kit.recording import ALLOWED, HOST, SETTINGS, connect, request
from tests.kit.waiting import until

BASE = b"id.koder.dev"
ACME = b"acme.id.koder.dev"
KODER_HOST = b"https://koder.id.koder.dev"
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
    settings = settings.replace("[tenants]\n", '[tenants]\ndefault = "acme"\n')
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
        (KODER, b"HEAD", 200), (KODER, b"OPTIONS", 200), (KODER_HOST, b"PUT", 403), (KODER_HOST, b"GET", 200),
        (b"https://login.koder.example", b"DELETE", 403), (b"https://globex.id.koder.dev", b"DELETE", 403),
        (b"https://login.globex.example:8443", b"DELETE", 403), (GLOBEX, b"DELETE", 403),
        (b"https://evil.example " + KODER, b"DELETE", 403),
        (b"https://acme.id.koder.dev", b"DELETE", 200), (b"https://nobody.id.koder.dev", b"DELETE", 200),
        (b"https://id.koder.dev", b"DELETE", 200), (b"null", b"DELETE", 200),
        (ALLOWED, b"DELETE", 200), (EVIL, b"DELETE", 200), (None, b"DELETE", 200),
    ],
)  # fmt: skip
@pytest.mark.parametrize("host", [BASE, ACME])
def test_a_tenants_page_changes_nothing_of_another(
    way: str, host: bytes, origin: bytes | None, method: bytes, status: int, doors: Doors
) -> None:
    fields = [(b"X-Tenant-ID", b"acme")] if host == BASE else []
    fields += [(b"Origin", origin)] if origin else []
    answer = doors.ask(way, b"/v1/users/7", fields, method=method, host=host)
    assert answer.status == status
    assert answer.values(ALLOW) == ([ALLOWED] if origin == ALLOWED else [])
    assert answer.words(b"vary") == {b"origin", b"x-tenant-id"} - ({b"x-tenant-id"} if host == ACME else set())
    assert len(doors.received()) == (status == 200)
    if status == 403:
        assert b'"not_allowed"' in answer.body


@ways
def test_nor_where_it_is_one_of_several_origins(way: str, doors: Doors) -> None:
    for method, status in ((b"DELETE", 403), (b"GET", 200)):
        fields = [(b"Origin", EVIL), (b"Origin", KODER_HOST)]
        answer = doors.ask(way, b"/v1/users/7", fields, method=method, host=ACME)
        assert (answer.status, answer.values(ALLOW)) == (status, [])
    fields = [(b"Origin", EVIL), (b"Origin", ALLOWED)]
    assert doors.ask(way, b"/v1/users/7", fields, method=b"DELETE", host=ACME).status == 200


@ways
def test_on_a_custom_domain_too(way: str, doors: Doors) -> None:
    for origin, status in ((GLOBEX, 403), (b"https://acme.id.koder.dev", 403), (KODER_HOST, 200), (EVIL, 200)):
        for host in (HOST, b"login.koder.example"):
            answer = doors.ask(way, b"/v1/users/7", [(b"Origin", origin)], method=b"DELETE", host=host)
            assert answer.status == status
    assert len(doors.received()) == 4


@ways
def test_the_default_tenant_is_one_too(way: str, doors: Doors) -> None:
    for origin, status in ((KODER_HOST, 403), (b"https://login.koder.example", 403), (EVIL, 200)):
        answer = doors.ask(way, b"/v1/users/7", [(b"Origin", origin)], method=b"POST", host=BASE)
        assert answer.status == status


def opening(doors: Doors, way: str, host: bytes, fields: Pairs) -> int:
    """The status of the answer to a WebSocket's handshake, which the service takes for any other request."""
    if way == "http1":
        more = [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"), (b"Sec-WebSocket-Version", b"13")]
        more.append((b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="))
        return doors.ask(way, fields=[*fields, *more], host=host).status
    pseudo = [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        (b":scheme", b"https"),
        (b":path", b"/v1/users"),
    ]
    pseudo += [(b":authority", host), (b"sec-websocket-version", b"13")]
    with Http2Client.connect(doors.ports[0], HOST) as client:
        client.start()
        client.send(headers(1, block(pseudo + [(name.lower(), value) for name, value in fields]), end=False))
        return client.head(1).status


@pytest.mark.parametrize("way", ["http1", "http2"])
@pytest.mark.parametrize("host", [BASE, ACME])
@pytest.mark.parametrize(
    ("origins", "refused"),
    [
        ([KODER], True), ([KODER_HOST], True), ([b"https://login.globex.example"], True), ([EVIL, KODER_HOST], True),
        ([b"https://acme.id.koder.dev"], False), ([ALLOWED], False), ([EVIL], False), ([], False),
    ],
)  # fmt: skip
def test_a_websocket_may_change_something(
    way: str, host: bytes, origins: list[bytes], refused: bool, doors: Doors
) -> None:
    doors.origin.answers[b"/v1/users"] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    fields = [(b"X-Tenant-ID", b"acme")] if host == BASE else []
    status = opening(doors, way, host, [*fields, *((b"Origin", origin) for origin in origins)])
    del doors.origin.answers[b"/v1/users"]
    assert status == (403 if refused else 404)


def test_what_was_served_on_a_connection_vouches_for_nothing_after_it(doors: Doors) -> None:
    """HTTP/1.1 and HTTP/2: first what changes nothing, then the same with a method that does, and the other way."""
    methods = (b"GET", b"DELETE", b"GET", b"DELETE")
    with connect(doors.ports[0], secure=True) as client:
        statuses = []
        for method in methods:
            client.send(request(b"/v1/users/7", method, b"Origin: %b\r\n" % KODER, b"", ACME))
            statuses.append(client.answer(method).status)
    assert statuses == [200, 403, 200, 403]
    with Http2Client.connect(doors.ports[0], HOST) as http2:
        http2.start()
        for stream, method in zip((1, 3, 5, 7), methods, strict=True):
            head = [(b":method", method), (b":scheme", b"https"), (b":path", b"/v1/users/7"), (b":authority", ACME)]
            http2.send(headers(stream, block([*head, (b"origin", KODER)])))
            assert http2.answer(stream).status == (200 if method == b"GET" else 403)


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


UNREAD = {
    "a method": ((b"FOO", b"/v1/users", []), 501),
    "a head": ((b"GET", b"/v1/users", [(b"X-Large", b"v" * 40_000)]), 431),
    "fields": ((b"GET", b"/v1/users", [(b"x-%d" % number, b"") for number in range(101)]), 431),
    "a target": ((b"GET", b"/v1/users?" + b"q" * 9000, []), 414),
    "a long target": ((b"GET", b"/v1/users?" + b"q" * 40_000, []), 414),
}


@pytest.mark.parametrize("way", ["http1", "http2"])
@pytest.mark.parametrize(("asked", "status"), UNREAD.values(), ids=list(UNREAD))
@pytest.mark.parametrize("host", [BASE, HOST])
def test_also_where_a_head_is_not_read(
    way: str, asked: tuple[bytes, bytes, list[tuple[bytes, bytes]]], status: int, host: bytes, doors: Doors
) -> None:
    method, target, fields = asked
    answer = doors.ask(way, target, [(b"Origin", KODER), *fields], method=method, host=host)
    assert answer.status == status
    # Over HTTP/1.1 no Host has come before a line that is too long to be read.
    unnamed = way == "http1" and len(target) > 32_768
    assert answer.words(b"vary") == ({b"origin", b"x-tenant-id"} if host == BASE or unnamed else {b"origin"})
    assert answer.values(ALLOW) == ([KODER] if host == HOST and not unnamed else [])


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nHost: %b\r\nX A: b\r\n", b"GET /\r\nHost: %b\r\n"])
@pytest.mark.parametrize("host", [BASE, HOST])
def test_also_where_it_is_malformed(sent: bytes, host: bytes, doors: Doors) -> None:
    with connect(doors.ports[0], secure=True) as client:
        client.send(sent % host + b"Origin: %b\r\n\r\n" % KODER)
        answer = client.answer()
    assert answer.status == 400
    named = [b"Origin, X-Tenant-ID"] if host == BASE else [b"Origin"]
    assert answer.values(b"vary") == named
    assert answer.values(ALLOW) == ([] if host == BASE else [KODER])


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
    named: dict[str, str] = {}

    def logged() -> bool:
        lines = [json.loads(line) for line in log.read_text().splitlines()[before:]] if log.exists() else []
        named.update({line["host"]: line["tenant"] for line in lines if line["method"] == "OPTIONS"})
        return named.keys() >= {host.decode() for host, _ in hosts}

    until(logged, "they are logged")
    assert named[SUSPENDED.decode()] == named["login.globex.example"] == "globex"
    assert named[HOST.decode()] == "koder"
    # The default tenant's.
    assert named[BASE.decode()] == "acme"


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
