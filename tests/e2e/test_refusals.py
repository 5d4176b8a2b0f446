"""Every refusal of the contract, sent over a socket: its status and code, what becomes of the connection, and that
the service hears nothing of it."""

from __future__ import annotations

import pytest

from tests.kit.http1 import Malformed
from tests.kit.recording import ALLOWED, HOST, SETTINGS, request, running

POST = b"POST"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
SMUGGLED = request(b"/v1/users/smuggled")
PREFLIGHT = b"Origin: %b\r\nAccess-Control-Request-Method: PUT\r\n" % ALLOWED
FROM_BODY = b"X-Framing: here\r\n"  # Stands where the framing of a body belongs.

# What becomes of the connection.
ENDS, STAYS, EITHER = "ends", "stays", "either"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with running(tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest.fixture
def gateway(shared):
    """The shared gateway with an empty record, which has logged nothing alarming afterwards."""
    shared.origin.forget()
    yield shared
    shared.assert_quiet()


def by_name(cases):
    return pytest.mark.parametrize("case", cases, ids=[case[0] for case in cases])


def check_connection(client, connection):
    """The connection ends, or serves the next request properly."""
    if connection == ENDS:
        assert client.closed()
        return
    client.send(request(b"/v1/users/next"))
    try:
        answer = client.answer()
    except Malformed:
        assert connection == EITHER
        assert client.closed()
    else:
        assert answer.body == b"origin"


# -- paths

BAD_PATHS = [
    ("dot", b"/v1/users/./7", STAYS),
    ("dot at the end", b"/v1/users/.", STAYS),
    ("dot alone", b"/.", STAYS),
    ("two dots", b"/v1/users/../admin", STAYS),
    ("two dots at the end", b"/v1/users/..", STAYS),
    ("two dots at the start", b"/../v1/users", STAYS),
    ("two dots alone", b"/..", STAYS),
    ("two dots before the query", b"/v1/users/..?x=1", STAYS),
    ("two dots with a parameter", b"/v1/users/..;/admin", STAYS),
    ("two dots with a named parameter", b"/v1/users/..;a=b/admin", STAYS),
    ("dot with a parameter", b"/v1/users/.;a/7", STAYS),
    ("dots after an empty segment", b"/v1/users//../admin", STAYS),
    ("escaped dot", b"/v1/users/%2e", STAYS),
    ("escaped dot in capitals", b"/v1/users/%2E", STAYS),
    ("escaped dots", b"/v1/users/%2e%2e/admin", STAYS),
    ("half escaped dots", b"/v1/users/.%2e/admin", STAYS),
    ("half escaped dots the other way", b"/v1/users/%2E./admin", STAYS),
    ("escaped dot in a name", b"/v1/users/a%2eb", STAYS),
    ("escaped slash", b"/v1/users%2f7", STAYS),
    ("escaped slash in capitals", b"/v1/users%2F7", STAYS),
    ("escaped slash and dots", b"/v1/users/..%2fadmin", STAYS),
    ("escaped backslash", b"/v1/users/..%5cadmin", STAYS),
    ("escaped backslash in capitals", b"/v1/users%5C7", STAYS),
    ("backslash", b"/v1/users\\7", STAYS),
    ("backslash first", b"\\v1\\users", EITHER),
    ("backslash and dots", b"/v1/users/..\\admin", STAYS),
    ("escaped NUL", b"/v1/users/%00", STAYS),
    ("escaped NUL before an ending", b"/v1/users/a%00.json", STAYS),
    ("NUL", b"/v1/users/\x00", ENDS),
    ("control byte", b"/v1/users/\x01", ENDS),
    ("escape byte", b"/v1/users/\x1b[2J", ENDS),
    ("delete byte", b"/v1/users/\x7f", ENDS),
    ("tab", b"/v1/users/\t", ENDS),
    ("form feed", b"/v1/users/\x0c", ENDS),
    ("carriage return", b"/v1/users/\rx", ENDS),
    ("UTF-8", b"/v1/users/\xc3\xa9", EITHER),
    ("8-bit", b"/v1/users/\xff", EITHER),
    ("overlong dot", b"/v1/users/\xc0\xae", EITHER),
    ("no-break space", b"/v1/users/\xa0", EITHER),
    ("fragment", b"/v1/users#7", STAYS),
    ("fragment after the query", b"/v1/users?a=b#7", STAYS),
    ("percent alone", b"/v1/users/%", STAYS),
    ("percent and one digit", b"/v1/users/%2", STAYS),
    ("percent and one digit before a slash", b"/v1/users/%2/7", STAYS),
    ("percent and no digits", b"/v1/users/%zz", STAYS),
    ("percent and half a number", b"/v1/users/%4g", STAYS),
    ("percent twice", b"/v1/users/%%32e", STAYS),
    ("percent and u", b"/v1/users/%u002e", STAYS),
    ("8-bit in the query", b"/v1/users?name=\xe9", EITHER),
    ("control byte in the query", b"/v1/users?name=\x02", ENDS),
    ("delete byte in the query", b"/v1/users?name=\x7f", ENDS),
    ("no slash", b"v1/users", EITHER),
    ("question mark first", b"?a=b", EITHER),
    ("asterisk", b"*", STAYS),
    ("asterisk and more", b"*/v1/users", EITHER),
    ("authority", HOST, EITHER),
    ("authority and port", HOST + b":443", EITHER),
    ("another scheme", b"ftp://" + HOST + b"/v1/users", EITHER),
    ("a scheme without slashes", b"http:" + HOST + b"/v1/users", EITHER),
    ("dots in absolute form", b"http://" + HOST + b"/v1/users/../admin", STAYS),
    ("fragment in absolute form", b"http://" + HOST + b"/v1/users#7", STAYS),
]


@by_name(BAD_PATHS)
@pytest.mark.parametrize("piece", [0, 5], ids=["whole", "pieces"])
def test_a_path_that_can_be_read_in_two_ways_is_refused(gateway, case, piece):
    _, target, connection = case
    with gateway.client() as client:
        client.send(request(target), piece)
        answer = client.answer()
        assert (answer.status, answer.code) == (400, "bad_request")
        check_connection(client, connection)
    assert [m.target for m in gateway.received() if m.target != b"/v1/users/next"] == []


UNCHANGED_PATHS = [
    ("plain", b"/v1/users", b"/v1/users"),
    ("slash at the end", b"/v1/users/", b"/v1/users/"),
    ("double slash within", b"/v1/users//7", b"/v1/users//7"),
    ("dots in names", b"/v1/users/a.b..c/...", b"/v1/users/a.b..c/..."),
    ("hidden name", b"/v1/users/.hidden", b"/v1/users/.hidden"),
    ("escaped percent before 2e", b"/v1/users/%252e%252e/7", b"/v1/users/%252e%252e/7"),
    ("escaped percent before 2f", b"/v1/users%252f7/%255c", None),
    ("escaped line end", b"/v1/users/%0d%0aX-Evil:%201", b"/v1/users/%0d%0aX-Evil:%201"),
    ("escapes keep their case", b"/v1/users/%c3%A9", b"/v1/users/%c3%A9"),
    ("needless escape", b"/v1/users/%41", b"/v1/users/%41"),
    ("sub-delimiters", b"/v1/users/!$&'()*+,;=:@-._~", b"/v1/users/!$&'()*+,;=:@-._~"),
    ("parameters", b"/v1/users;v=1/7", None),
    ("query", b"/v1/users?a=b&a=c&&=%00%2e%2f/../x?y", b"/v1/users?a=b&a=c&&=%00%2e%2f/../x?y"),
    ("bad escape in the query", b"/v1/users?a=100%", b"/v1/users?a=100%"),
    ("empty query", b"/v1/users?", b"/v1/users?"),
    ("well-known", b"/.well-known/openid-configuration", b"/.well-known/openid-configuration"),
    ("absolute form", b"http://" + HOST + b"/v1/users/7?a=b", b"/v1/users/7?a=b"),
]


@by_name(UNCHANGED_PATHS)
def test_what_can_be_read_in_one_way_only_goes_on_unchanged(gateway, case):
    _, target, forwarded = case
    answer = gateway.ask(request(target))
    if forwarded is None:  # An escape is part of its segment, so this is none of the routes.
        assert (answer.status, answer.code) == (404, "no_route")
        assert gateway.received() == []
    else:
        assert answer.status == 200
        assert [message.target for message in gateway.received()] == [forwarded]


NO_ROUTES = [b"/", b"/v1", b"/v1/", b"/v1/users2", b"/v1/usersx/7", b"//v1/users", b"/v1//users", b"/V1/users"]
NO_ROUTES += [b"/healthz", b"/metrics", b"/v1/user%3a", b"/v2/users", b"/oauth", b"/.well-known2", b"/v1/users%3b"]


@pytest.mark.parametrize("target", NO_ROUTES)
def test_a_path_without_a_route_is_not_found(gateway, target):
    with gateway.client() as client:
        client.send(request(target))
        answer = client.answer()
        assert (answer.status, answer.code) == (404, "no_route")
        check_connection(client, STAYS)


# -- tenants

TENANTS = [
    ("unknown label", request(host=b"nobody.id.koder.dev"), 404, "unknown_tenant"),
    (
        "unknown label with a header",
        request(host=b"nobody.id.koder.dev", fields=b"X-Tenant-ID: koder\r\n"),
        404,
        None,
    ),
    (
        "unknown name in the header",
        request(host=b"id.koder.dev", fields=b"X-Tenant-ID: no\r\n"),
        404,
        "unknown_tenant",
    ),
    ("bad name in the header", request(host=b"id.koder.dev", fields=b"X-Tenant-ID: K_\r\n"), 404, "unknown_tenant"),
    (
        "capitals in the header",
        request(host=b"id.koder.dev", fields=b"X-Tenant-ID: KODER\r\n"),
        404,
        "unknown_tenant",
    ),
    ("list in the header", request(host=b"id.koder.dev", fields=b"X-Tenant-ID: koder, acme\r\n"), 404, None),
    ("suspended", request(host=b"globex.id.koder.dev"), 403, "tenant_suspended"),
    ("suspended at its domain", request(host=b"login.globex.example"), 403, "tenant_suspended"),
    (
        "suspended by header",
        request(host=b"id.koder.dev", fields=b"X-Tenant-ID: globex\r\n"),
        403,
        "tenant_suspended",
    ),
    ("suspended, without a route", request(b"/none", host=b"globex.id.koder.dev"), 403, "tenant_suspended"),
    ("header against host", request(fields=b"X-Tenant-ID: acme\r\n"), 400, "tenant_conflict"),
    ("odd case against host", request(fields=b"x-tEnAnT-iD: acme\r\n"), 400, "tenant_conflict"),
    (
        "header against domain",
        request(host=b"login.koder.example", fields=b"X-Tenant-ID: acme\r\n"),
        400,
        "tenant_conflict",
    ),
    ("unknown against host", request(fields=b"X-Tenant-ID: nobody\r\n"), 400, "tenant_conflict"),
    ("suspended against host", request(fields=b"X-Tenant-ID: globex\r\n"), 400, "tenant_conflict"),
    ("second against host", request(fields=b"X-Tenant-ID: koder\r\nX-Tenant-ID: acme\r\n"), 400, "tenant_conflict"),
    (
        "two at the base domain",
        request(host=b"id.koder.dev", fields=b"X-Tenant-ID: koder\r\nX-Tenant-ID: acme\r\n"),
        400,
        "tenant_conflict",
    ),
    ("none at the base domain", request(host=b"id.koder.dev"), 400, "tenant_required"),
    ("empty at the base domain", request(host=b"id.koder.dev", fields=b"X-Tenant-ID: \r\n"), 400, "tenant_required"),
    (
        "underscores at the base domain",
        request(host=b"id.koder.dev", fields=b"X_Tenant_ID: koder\r\n"),
        400,
        "tenant_required",
    ),
    ("another host", request(host=b"www.example.com"), 421, "misdirected_request"),
    ("another host with a header", request(host=b"www.example.com", fields=b"X-Tenant-ID: koder\r\n"), 421, None),
    ("two labels", request(host=b"a.koder.id.koder.dev"), 421, "misdirected_request"),
    ("the base domain's ending", request(host=b"evil-id.koder.dev"), 421, "misdirected_request"),
    ("the base domain's parent", request(host=b"koder.dev"), 421, "misdirected_request"),
    ("below a custom domain", request(host=b"a.login.koder.example"), 421, "misdirected_request"),
    ("the base domain within", request(host=b"id.koder.dev.example"), 421, "misdirected_request"),
    ("two trailing dots", request(host=b"koder.id.koder.dev.."), 421, "misdirected_request"),
    ("an empty label", request(host=b".id.koder.dev"), 421, "misdirected_request"),
    ("an underscore in the label", request(host=b"ko_der.id.koder.dev"), 421, "misdirected_request"),
    ("a hyphen at the end", request(host=b"koder-.id.koder.dev"), 421, "misdirected_request"),
    ("localhost", request(host=b"localhost"), 421, "misdirected_request"),
    ("an address", request(host=b"127.0.0.1"), 421, "misdirected_request"),
    ("an IPv6 address", request(host=b"[::1]:8080"), 421, "misdirected_request"),
    ("HTTP/1.0 without a host", b"GET /v1/users HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 421, None),
]


@by_name(TENANTS)
@pytest.mark.parametrize("method", [b"GET", b"HEAD", POST])
def test_a_tenant_that_cannot_be_resolved_is_refused(gateway, case, method):
    _, data, status, code = case
    with gateway.client() as client:
        client.send(data.replace(b"GET", method, 1))
        answer = client.answer(method)
        assert answer.status == status
        if method != b"HEAD":
            assert code is None or answer.code == code
        check_connection(client, STAYS)
    assert [m.target for m in gateway.received()] == [b"/v1/users/next"]


SAME_TENANT = [
    ("label", b"koder.id.koder.dev", b"", b"koder"),
    ("capitals", b"KODER.ID.Koder.Dev", b"", b"koder"),
    ("port", b"koder.id.koder.dev:8443", b"", b"koder"),
    ("empty port", b"koder.id.koder.dev:", b"", b"koder"),
    ("trailing dot", b"koder.id.koder.dev.", b"", b"koder"),
    ("trailing dot and port", b"koder.id.koder.dev.:443", b"", b"koder"),
    ("domain", b"login.koder.example", b"", b"koder"),
    ("domain in capitals with port", b"LOGIN.koder.example:443", b"", b"koder"),
    ("header", b"id.koder.dev", b"X-Tenant-ID: acme\r\n", b"acme"),
    ("header in odd case", b"id.koder.dev.:443", b"x-TENANT-id:acme \r\n", b"acme"),
    ("the same header twice", b"id.koder.dev", b"X-Tenant-ID: acme\r\nX-Tenant-ID: acme\r\n", b"acme"),
    ("header that agrees", b"koder.id.koder.dev", b"X-Tenant-ID: koder\r\n", b"koder"),
    ("empty header", b"koder.id.koder.dev", b"X-Tenant-ID:\r\n", b"koder"),
    ("other spellings do not count", b"koder.id.koder.dev", b"X_Tenant_ID: acme\r\nX-Tenant_ID: acme\r\n", b"koder"),
    ("a list of hosts elsewhere", b"koder.id.koder.dev", b"X-Forwarded-Host: acme.id.koder.dev\r\n", b"koder"),
]


@by_name(SAME_TENANT)
def test_the_service_learns_the_tenant_from_the_gateway_alone(gateway, case):
    _, host, fields, tenant = case
    assert gateway.ask(request(host=host, fields=fields)).status == 200
    [message] = gateway.received()
    assert [(n, v) for n, v in message.fields if b"tenant" in n.lower()] == [(b"X-Tenant-ID", tenant)]
    assert message.value(b"host") == host


def test_tenants_of_one_connection_are_told_apart(gateway):
    hosts = [b"koder.id.koder.dev", b"acme.id.koder.dev", b"nobody.id.koder.dev", b"koder.id.koder.dev"]
    with gateway.client() as client:
        client.send(b"".join(request(host=host) for host in hosts))
        assert [client.answer().status for _ in hosts] == [200, 200, 404, 200]
    assert [m.value(b"x-tenant-id") for m in gateway.received()] == [b"koder", b"acme", b"koder"]


# -- what ends the connection: framing doubts, and what is too large to be read


def doubt(fields=b"", body=b"", method=POST, first=None, host=b"Host: " + HOST + b"\r\n"):
    """A request with these field lines, as they are, and these bytes behind it."""
    first = first or b"%b /v1/users HTTP/1.1\r\n" % method
    return first + host + fields + b"\r\n" + body


FIVE = b"Content-Length: 5\r\n"
FRAMING = [
    ("length and coding", doubt(FIVE + CHUNKED, b"0\r\n\r\n")),
    ("coding and length", doubt(CHUNKED + FIVE, b"0\r\n\r\n")),
    ("length and unknown coding", doubt(FIVE + b"Transfer-Encoding: gzip\r\n", b"hello")),
    ("two lengths", doubt(FIVE + b"Content-Length: 6\r\n", b"hello")),
    ("two equal lengths", doubt(FIVE + FIVE, b"hello")),
    ("list of lengths", doubt(b"Content-Length: 5, 6\r\n", b"hello")),
    ("two codings", doubt(CHUNKED + CHUNKED, b"0\r\n\r\n")),
    ("coding in HTTP/1.0", doubt(CHUNKED, b"0\r\n\r\n", first=b"POST /v1/users HTTP/1.0\r\n")),
    ("obs-fold", doubt(b"X-A: b\r\n c\r\n")),
    ("obs-fold with a tab", doubt(b"X-A: b\r\n\tc\r\n")),
    ("obs-fold in a length", doubt(b"Content-Length:\r\n 5\r\n", b"hello")),
    ("space before the first field", doubt(host=b" Host: " + HOST + b"\r\n")),
    ("bare CR in a value", doubt(b"X-A: b\rc\r\n")),
    ("bare CR before a field", doubt(b"X-A: b\rX-B: c\r\n")),
    ("bare LF after a field", doubt(b"X-A: b\nX-B: c\r\n")),
    ("bare LF after the request line", doubt(first=b"POST /v1/users HTTP/1.1\n")),
    ("bare LF everywhere", doubt(b"X-A: b\r\n").replace(b"\r\n", b"\n")),
    ("bare CR everywhere", doubt(b"X-A: b\r\n").replace(b"\r\n", b"\r")),
    ("NUL in a value", doubt(b"X-A: b\x00c\r\n")),
    ("NUL in a name", doubt(b"X-\x00A: b\r\n")),
    ("space before the colon", doubt(b"X-A : b\r\n")),
    ("tab before the colon", doubt(b"X-A\t: b\r\n")),
    ("space before a length's colon", doubt(b"Content-Length : 5\r\n", b"hello")),
    ("no colon", doubt(b"X-A\r\n")),
    ("no name", doubt(b": b\r\n")),
    ("space in a name", doubt(b"X A: b\r\n")),
    ("two hosts", doubt(b"Host: acme.id.koder.dev\r\n")),
    ("two equal hosts", doubt(b"Host: " + HOST + b"\r\n")),
    ("no host", doubt(host=b"")),
    ("list of hosts", doubt(host=b"Host: koder.id.koder.dev, acme.id.koder.dev\r\n")),
    ("host with userinfo", doubt(host=b"Host: acme@koder.id.koder.dev\r\n")),
    ("host with path", doubt(host=b"Host: koder.id.koder.dev/v1\r\n")),
    ("host with a bad port", doubt(host=b"Host: koder.id.koder.dev:http\r\n")),
    ("chunk size in another base", doubt(CHUNKED, b"0x5\r\nhello\r\n0\r\n\r\n")),
    ("chunk without its end", doubt(CHUNKED, b"5\r\nhelloo\r\n0\r\n\r\n")),
    ("bare LF after a chunk size", doubt(CHUNKED, b"5\nhello\r\n0\r\n\r\n")),
    ("no version", b"GET /v1/users\r\n\r\n"),
    ("another version", doubt(first=b"POST /v1/users HTTP/2.0\r\n")),
]


@by_name(FRAMING)
@pytest.mark.parametrize("piece", [0, 1, 11], ids=["whole", "bytes", "pieces"])
def test_a_framing_doubt_ends_the_connection(gateway, case, piece):
    with gateway.client() as client:
        client.send(case[1] + SMUGGLED, piece)
        answer = client.answer()
        assert (answer.status, answer.code) == (400, "bad_request")
        assert answer.value(b"connection") == b"close"
        assert client.closed()
    assert gateway.received() == []


LARGE = [
    ("head", request(fields=b"X-A: " + b"a" * 40000 + b"\r\n"), 431, "head_too_large"),
    ("endless head", b"GET /v1/users HTTP/1.1\r\nX-A: " + b"a" * 40000, 431, "head_too_large"),
    ("head of many lines", request(fields=b"X-A: 1\r\n" * 5000), 431, "head_too_large"),
    ("many fields", request(fields=b"X-A: 1\r\n" * 101), 431, "head_too_large"),
    ("endless field name", b"GET /v1/users HTTP/1.1\r\n" + b"X" * 40000, 431, "head_too_large"),
    ("target", request(b"/v1/users/" + b"a" * 8200), 414, "uri_too_long"),
    ("query", request(b"/v1/users?" + b"a" * 8200), 414, "uri_too_long"),
    ("target beyond the head's limit", request(b"/v1/users/" + b"a" * 40000), 414, "uri_too_long"),
    ("endless target", b"GET /v1/users/" + b"a" * 40000, 414, "uri_too_long"),
    ("length", request(method=POST, fields=b"Content-Length: 16385\r\n"), 413, "body_too_large"),
    ("huge length", request(method=POST, fields=b"Content-Length: 9223372036854775807\r\n"), 413, "body_too_large"),
    ("whole body", request(method=POST, body=b"a" * 16385), 413, "body_too_large"),
    ("length of a GET", request(fields=b"Content-Length: 16385\r\n"), 413, "body_too_large"),
    (
        "length that waits to be asked",
        request(method=POST, fields=b"Expect: 100-continue\r\nContent-Length: 16385\r\n"),
        413,
        "body_too_large",
    ),
]


@by_name(LARGE)
@pytest.mark.parametrize("piece", [0, 997], ids=["whole", "pieces"])
def test_what_is_too_large_is_refused_before_it_is_read(gateway, case, piece):
    _, data, status, code = case
    with gateway.client() as client:
        client.send(data, piece)
        answer = client.answer()
        assert (answer.status, answer.code, answer.interim) == (status, code, [])
        assert client.closed()
    assert gateway.received() == []


@pytest.mark.parametrize("size", [1, 1000, 20000])
@pytest.mark.parametrize("ended", [True, False], ids=["whole", "endless"])
def test_chunks_beyond_the_limit_are_refused(gateway, size, ended):
    piece = b"%x\r\n%b\r\n" % (size, b"a" * size)
    body = piece * (20000 // size) + (b"0\r\n\r\n" if ended else b"")
    with gateway.client() as client:
        client.send(request(method=POST, fields=CHUNKED) + body)
        answer = client.answer()
        # One-byte chunks fail earlier: their framing outweighs them.
        assert (answer.status, answer.code) == ((400, "bad_request") if size == 1 else (413, "body_too_large"))
        assert client.closed()
    assert gateway.received() == []


def test_what_is_just_within_the_limits_is_served(gateway):
    target = b"/v1/users/" + b"a" * (8192 - len(b"/v1/users/"))
    own = b"Host: \r\nContent-Length: 16384\r\n"
    fields = b"".join(b"X-%d: %b\r\n" % (n, b"b" * 200) for n in range(100 - own.count(b"\n")))
    assert gateway.ask(request(target, POST, fields, b"c" * 16384)).status == 200
    [message] = gateway.received()
    assert (message.target, message.body) == (target, b"c" * 16384)
    assert message.names().count(b"x-97") == 1


# -- methods and expectations

METHODS = [
    ("unknown", b"FOO", 501, "not_implemented"),
    ("lower case", b"get", 501, "not_implemented"),
    ("mixed case", b"Get", 501, "not_implemented"),
    ("of WebDAV", b"PROPFIND", 501, "not_implemented"),
    ("of WebDAV, second", b"MKCOL", 501, "not_implemented"),
    ("of caches", b"PURGE", 501, "not_implemented"),
    ("of UPnP", b"M-SEARCH", 501, "not_implemented"),
    ("of the streaming protocol", b"DESCRIBE", 501, "not_implemented"),
    ("of ICY", b"SOURCE", 501, "not_implemented"),
    ("drafted", b"QUERY", 501, "not_implemented"),
    ("odd tokens", b"!#$%&'*+-.^_`|~", 501, "not_implemented"),
    ("longer than a known one", b"GETS", 501, "not_implemented"),
    ("shorter than a known one", b"GE", 501, "not_implemented"),
    ("TRACE", b"TRACE", 405, "method_not_allowed"),
]


@by_name(METHODS)
@pytest.mark.parametrize("piece", [0, 1], ids=["whole", "bytes"])
def test_a_method_that_is_not_forwarded_is_refused(gateway, case, piece):
    _, method, status, code = case
    with gateway.client() as client:
        client.send(request(method=method), piece)
        answer = client.answer()
        assert (answer.status, answer.code) == (status, code)
        if status == 405:
            assert answer.value(b"allow") == b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
        check_connection(client, EITHER)
    assert [m.target for m in gateway.received() if m.target != b"/v1/users/next"] == []


@pytest.mark.parametrize("target", [HOST + b":443", b"127.0.0.1:22", b"/v1/users", b"http://%b/" % HOST])
def test_connect_is_not_allowed(gateway, target):
    with gateway.client() as client:
        client.send(request(target, b"CONNECT"))
        answer = client.answer()
        assert (answer.status, answer.code) == (405, "method_not_allowed")
        check_connection(client, EITHER)
    assert [m.target for m in gateway.received() if m.target != b"/v1/users/next"] == []


@pytest.mark.parametrize(
    "expectation",
    [b"200-ok", b"100-continue, foo", b"foo=bar", b"100-continued", b"100", b"", b"100-continue;q=1"],
)
@pytest.mark.parametrize("body", [b"", b"hello"], ids=["empty", "body"])
def test_another_expectation_fails(gateway, expectation, body):
    with gateway.client() as client:
        client.send(request(method=POST, fields=b"Expect: %b\r\n" % expectation, body=body))
        answer = client.answer()
        assert (answer.status, answer.code) == (417, "expectation_failed")
        assert client.closed()
    assert gateway.received() == []


@pytest.mark.parametrize(
    "coding", [b"gzip", b"deflate", b"compress", b"x-chunked", b"identity", b"foo", b"chunkedx", b"xchunked"]
)
def test_an_unknown_transfer_coding_is_not_implemented(gateway, coding):
    with gateway.client() as client:
        client.send(doubt(b"Transfer-Encoding: %b\r\n" % coding, b"0\r\n\r\n") + SMUGGLED)
        answer = client.answer()
        assert (answer.status, answer.code) == (501, "not_implemented")
        assert client.closed()
    assert gateway.received() == []


# -- the body of what is refused belongs to the refused request

WITH_BODY = [
    ("bad path", request(b"/v1/users/..", POST, FROM_BODY), 400),
    ("bad escape", request(b"/v1/users/%", POST, FROM_BODY), 400),
    ("unknown tenant", request(method=POST, fields=FROM_BODY, host=b"nobody.id.koder.dev"), 404),
    ("suspended tenant", request(method=POST, fields=FROM_BODY, host=b"globex.id.koder.dev"), 403),
    ("no tenant", request(method=POST, fields=FROM_BODY, host=b"id.koder.dev"), 400),
    ("tenant conflict", request(method=POST, fields=b"X-Tenant-ID: acme\r\n" + FROM_BODY), 400),
    ("another host", request(method=POST, fields=FROM_BODY, host=b"www.example.com"), 421),
    ("no route", request(b"/none", POST, FROM_BODY), 404),
    ("TRACE", request(method=b"TRACE", fields=FROM_BODY), 405),
    ("PROPFIND", request(method=b"PROPFIND", fields=FROM_BODY), 501),
    ("unknown method", request(method=b"FOO", fields=FROM_BODY), 501),
    ("too many fields", request(method=POST, fields=b"X-A: 1\r\n" * 101 + FROM_BODY), 431),
    ("target too long", request(b"/v1/users/" + b"a" * 8200, POST, FROM_BODY), 414),
    ("expectation", request(method=POST, fields=b"Expect: a\r\n" + FROM_BODY), 417),
    ("preflight", request(method=b"OPTIONS", fields=PREFLIGHT + FROM_BODY), 204),
    ("asterisk", request(b"*", b"OPTIONS", FROM_BODY), 204),
]


@by_name(WITH_BODY)
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("late", [False, True], ids=["together", "late"])
def test_the_body_of_a_refused_request_is_no_request(gateway, case, chunked, late):
    _, head, status = case
    framing = CHUNKED if chunked else b"Content-Length: %d\r\n" % len(SMUGGLED)
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED) if chunked else SMUGGLED
    with gateway.client() as client:
        if late:
            client.send(head.replace(FROM_BODY, framing))
            assert client.answer().status == status
            client.send(body)
        else:
            client.send(head.replace(FROM_BODY, framing) + body)
            assert client.answer().status == status
        check_connection(client, EITHER)
    assert {message.target for message in gateway.received()} <= {b"/v1/users/next"}


# -- deadlines, and a service that has no place left

SLOW = SETTINGS.replace("[timeouts]", '[timeouts]\nhead = "1s"\nbody = "1s"')


@pytest.fixture(scope="module")
def impatient(tmp_path_factory):
    with running(tmp_path_factory.mktemp("impatient"), SLOW) as gateway:
        yield gateway
        gateway.assert_quiet()


@pytest.mark.parametrize(
    "data",
    [
        b"GET",
        b"GET /v1/users HTTP/1.1\r\nHost: " + HOST,
        request(method=POST, fields=b"Content-Length: 100\r\n"),
        request(method=POST, fields=b"Content-Length: 100\r\n") + b"begun",
        request(method=POST, fields=CHUNKED) + b"5\r\nhel",
    ],
    ids=["method", "head", "nothing of a body", "body", "chunk"],
)
def test_a_request_that_does_not_arrive_is_given_up(impatient, data):
    with impatient.client() as client:
        client.send(data)
        answer = client.answer()
        assert (answer.status, answer.code) == (408, "request_timeout")
        assert answer.value(b"connection") == b"close"
        assert client.closed()


NARROW = (
    SETTINGS
    + """
[[routes]]
path = "/v1/users"
service = "identity"
[services]
identity = { url = "ORIGIN", max_connections = 1 }
"""
)


def test_a_service_without_a_place_left_is_overloaded(tmp_path):
    with running(tmp_path, NARROW) as gateway, gateway.client() as first:
        gateway.origin.held.add(b"/v1/users/slow")
        first.send(request(b"/v1/users/slow"))
        gateway.origin.wait_for(b"/v1/users/slow")
        answer = gateway.ask(request(fields=b"Origin: %b\r\n" % ALLOWED))
        assert (answer.status, answer.code) == (503, "overloaded")
        assert answer.value(b"retry-after") == b"1"
        assert answer.value(b"access-control-allow-origin") == ALLOWED
        gateway.origin.release(b"/v1/users/slow")
        assert first.answer().status == 200
        assert len(gateway.received()) == 1
        gateway.assert_quiet()


# -- CORS on refusals: a page must be able to read why

FROM_PAGE = b"Origin: " + ALLOWED + b"\r\n"
EVERY_REFUSAL = [
    ("bad path", request(b"/v1/users/..", fields=FROM_PAGE), 400),
    ("bad host", doubt(FROM_PAGE, host=b"Host: a b\r\n"), 400),
    ("two hosts", doubt(FROM_PAGE + b"Host: a\r\n"), 400),
    ("obs-fold", doubt(FROM_PAGE + b"X-A: b\r\n c\r\n"), 400),
    ("length and coding", doubt(FROM_PAGE + FIVE + CHUNKED), 400),
    ("bad chunk", doubt(FROM_PAGE + CHUNKED, b"g\r\n"), 400),
    ("tenant required", request(host=b"id.koder.dev", fields=FROM_PAGE), 400),
    ("tenant conflict", request(fields=FROM_PAGE + b"X-Tenant-ID: acme\r\n"), 400),
    ("tenant suspended", request(host=b"globex.id.koder.dev", fields=FROM_PAGE), 403),
    ("unknown tenant", request(host=b"nobody.id.koder.dev", fields=FROM_PAGE), 404),
    ("no route", request(b"/none", fields=FROM_PAGE), 404),
    ("TRACE", request(method=b"TRACE", fields=FROM_PAGE), 405),
    ("body too large", request(method=POST, fields=FROM_PAGE + b"Content-Length: 99999\r\n"), 413),
    (
        "chunks too large",
        request(method=POST, fields=FROM_PAGE + CHUNKED) + b"5000\r\n" + b"a" * 20480 + b"\r\n0\r\n\r\n",
        413,
    ),
    ("target too long", request(b"/v1/users/" + b"a" * 9000, fields=FROM_PAGE), 414),
    ("expectation", request(method=POST, fields=FROM_PAGE + b"Expect: a\r\n"), 417),
    ("misdirected", request(host=b"www.example.com", fields=FROM_PAGE), 421),
    ("too many fields", request(fields=FROM_PAGE + b"X-A: 1\r\n" * 101), 431),
    ("head too large", request(fields=FROM_PAGE + b"Cookie: " + b"a" * 40000 + b"\r\n"), 431),
    ("unknown method", request(method=b"PROPFIND", fields=FROM_PAGE), 501),
    ("unknown coding", doubt(FROM_PAGE + b"Transfer-Encoding: gzip\r\n"), 501),
    ("invalid answer", request(b"/v1/users/invalid", fields=FROM_PAGE), 502),
]


@by_name(EVERY_REFUSAL)
def test_a_page_of_an_allowed_origin_can_read_every_refusal(gateway, case):
    _, data, status = case
    gateway.origin.answers[b"/v1/users/invalid"] = b"HTTP/1.1 99 No\r\n\r\n"
    answer = gateway.ask(data)
    assert answer.status == status
    assert answer.problem
    assert answer.value(b"access-control-allow-origin") == ALLOWED
    assert answer.value(b"access-control-allow-credentials") == b"true"
    assert b"X-Request-ID" in (answer.value(b"access-control-expose-headers") or b"")
    assert (answer.value(b"vary") or b"").split(b", ")[0] == b"Origin"


@by_name(EVERY_REFUSAL)
def test_a_foreign_page_can_read_no_refusal(gateway, case):
    _, data, status = case
    gateway.origin.answers[b"/v1/users/invalid"] = b"HTTP/1.1 99 No\r\n\r\n"
    answer = gateway.ask(data.replace(ALLOWED, b"https://app.example.org", 1))
    assert answer.status == status
    assert [name for name in answer.names() if name.startswith(b"access-control-")] == []
    assert (answer.value(b"vary") or b"").split(b", ")[0] == b"Origin"


def test_a_page_that_sends_two_origins_can_read_no_refusal_of_its_syntax(gateway):
    answer = gateway.ask(doubt(FROM_PAGE + b"Origin: https://evil.example\r\nX-A: b\r\n c\r\n"))
    assert answer.status == 400
    assert answer.values(b"access-control-allow-origin") == []


# -- the form of a refusal


@by_name([case for case in EVERY_REFUSAL if b"GET " in case[1] or b"POST " in case[1]])
def test_a_refused_head_request_gets_no_body(gateway, case):
    _, data, status = case
    gateway.origin.answers[b"/v1/users/invalid"] = b"HTTP/1.1 99 No\r\n\r\n"
    with gateway.client() as client:
        client.send(b"HEAD" + data[data.index(b" ") :] + request(b"/v1/users/next"))
        answer = client.answer(b"HEAD")
        assert answer.status == status
        assert answer.value(b"content-type") == b"application/problem+json"
        assert int(answer.value(b"content-length") or 0) > 0
        # A body would stand before the next answer, or before the end.
        try:
            assert client.answer().body == b"origin"
        except Malformed:
            assert client.closed()


def test_a_refusal_names_the_request_and_is_not_kept(gateway):
    answer = gateway.ask(request(b"/none", fields=b"X-Request-ID: my.id_7-x\r\n"))
    assert answer.problem == {
        "type": "https://docs.koder.dev/gateway/errors/no_route",
        "title": "Not Found",
        "status": 404,
        "code": "no_route",
        "detail": answer.problem["detail"],
        "request_id": "my.id_7-x",
    }
    assert answer.value(b"cache-control") == b"no-store"
    assert answer.value(b"date")


@pytest.mark.parametrize(
    "identifier", [b"", b"a b", b'"><script>', b"a" * 129, b"a,b", b"\xc3\xa9", b"a;b", b"../..", b"%0d%0a"]
)
def test_a_refusal_does_not_repeat_a_bad_request_id(gateway, identifier):
    answer = gateway.ask(request(b"/none", fields=b"X-Request-ID: %b\r\n" % identifier))
    assert answer.status == 404
    assert len(str(answer.problem["request_id"])) == 32


def test_an_upload_that_is_refused_early_can_read_the_answer(gateway):
    with gateway.client() as client:
        client.send(request(b"/none", POST, b"Content-Length: 16000\r\n"))
        answer = client.answer()
        assert (answer.status, answer.code) == (404, "no_route")
        client.send(b"a" * 16000)
        check_connection(client, EITHER)
    with gateway.client() as client:
        client.send(request(method=POST, fields=b"Content-Length: 4000000\r\n") + b"a" * 4000000)
        assert client.answer().code == "body_too_large"
        assert client.closed()


LENGTH_TOO_LARGE = request(method=POST, fields=b"Content-Length: 99999\r\n")


@pytest.mark.parametrize("data", [LENGTH_TOO_LARGE, FRAMING[0][1]], ids=["too large", "doubtful"])
def test_a_client_that_is_still_sending_is_not_reset(gateway, data):
    with gateway.client() as client:
        client.send(data + b"a" * 1000)
        assert client.answer().status in (400, 413)
        assert client.closed()
        # A connection that nobody reads any more would answer the first of these with a reset.
        for _ in range(3):
            assert client.send(b"a" * 1000)
            gateway.received()


def test_refusals_in_a_row_are_answered_in_order(gateway):
    bad = request(b"/none"), request(host=b"nobody.id.koder.dev"), request(), request(b"/v1/users/..")
    with gateway.client() as client:
        client.send(b"".join(bad) * 50)
        assert [client.answer().status for _ in range(200)] == [404, 404, 200, 400] * 50
