"""The fields of requests towards the service and of answers towards the client, over a socket, as the contract has
them: order, repeats, what is removed and what is set, CORS, and the fields of limits."""

from __future__ import annotations

import re
from contextlib import ExitStack

import pytest

from tests.kit.clients import first_of
from tests.kit.http1 import Malformed
from tests.kit.recording import ALLOWED, HOST, SETTINGS, request, running

POST = b"POST"
FROM_PAGE = b"Origin: " + ALLOWED + b"\r\n"
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NEW_TRACE = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[01]")
NEW_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
# What the gateway sets on every request, after the client's own fields.
OWN = [b"forwarded", b"traceparent", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"]
OWN += [b"x-request-id", b"x-tenant-id"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with running(tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest.fixture
def gateway(shared):
    """The shared gateway with an empty record and the usual answers, which has logged nothing alarming afterwards."""
    shared.origin.forget()
    shared.origin.answers.clear()
    yield shared
    shared.assert_quiet()


def by_name(cases):
    return pytest.mark.parametrize("case", cases, ids=[case[0] for case in cases])


def sent(gateway, fields=b"", **kwargs):
    """What the service got of a request with these field lines, whose answer was good."""
    assert gateway.ask(request(fields=fields, **kwargs), kwargs.get("method", b"GET")).status == 200
    [message] = gateway.received()
    return message


def answered(gateway, head, body=b"", fields=b"", method=b"GET"):
    """What the client gets of an answer of the service's with this head."""
    gateway.origin.answers[b"/v1/users/answer"] = head + b"\r\n" + body
    return gateway.ask(request(b"/v1/users/answer", method, fields), method)


def lines(fields):
    """Field lines as the pairs that a message has."""
    return [tuple(line.split(b": ", 1)) for line in fields.split(b"\r\n")[:-1]]


# -- towards the service


def test_end_to_end_fields_pass_unchanged_in_order_and_apart(gateway):
    fields = (
        b"Accept: text/html\r\n"
        b"x-odd-CASE: 1\r\n"
        b"Cookie: a=b; c=d\r\n"
        b"Accept: application/json;q=0.5, */*\r\n"
        b"Cookie: e=f\r\n"
        b"Authorization: Bearer abc.def\r\n"
        b"X-Odd-Case: 2\r\n"
        b"User-Agent: curl/8\r\n"
        b"Accept-Encoding: gzip, br\r\n"
        b'If-None-Match: "a", W/"b"\r\n'
        b"Range: bytes=0-1\r\n"
        b"Origin: https://elsewhere.example\r\n"
        b"Referer: https://elsewhere.example/a?b\r\n"
        b"tracestate: a=b\r\n"
        b"Max-Forwards: 3\r\n"
        b"X-8-Bit: caf\xe9 \xe2\x82\xac\r\n"
        b"X-Colons: a:b: c\r\n"
        b"Content-Type: application/json; charset=utf-8\r\n"
        b"Content-Encoding: identity\r\n"
    )
    message = sent(gateway, fields + b"traceparent: %b\r\n" % TRACE, method=b"PATCH", body=b"{}")
    expected = [(b"Host", HOST), *lines(fields), (b"traceparent", TRACE), (b"Content-Length", b"2")]
    assert message.fields[: len(expected)] == expected
    rest = [name.lower() for name, _ in message.fields[len(expected) :]]
    assert sorted(rest) == sorted(set(OWN) - {b"traceparent"})


def test_an_empty_value_passes_and_space_around_values_does_not(gateway):
    message = sent(gateway, b"X-Empty:\r\nX-Blank: \t \r\nX-Space: \t a  b \t\r\nX-None:a\r\n")
    assert [value for name, value in message.fields if name.startswith(b"X-") and name[2:3] in b"EBSN"] == [
        b"",
        b"",
        b"a  b",
        b"a",
    ]


REMOVED = [
    ("keep-alive", b"Keep-Alive: timeout=5\r\n"),
    ("connection", b"Connection: keep-alive\r\n"),
    ("proxy connection", b"Proxy-Connection: keep-alive\r\n"),
    ("proxy authorization", b"Proxy-Authorization: Basic YTpi\r\n"),
    ("proxy authenticate", b"Proxy-Authenticate: Basic\r\n"),
    ("te", b"TE: trailers, deflate;q=0.5\r\n"),
    ("upgrade without its option", b"Upgrade: websocket\r\n"),
    ("option without an upgrade", b"Connection: Upgrade\r\n"),
    ("h2 settings", b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nUpgrade: h2c\r\n"),
    ("named", b"Connection: X-Gone\r\nX-Gone: 1\r\n"),
    ("named in odd case", b"connection: x-GONE\r\nX-Gone: 1\r\nx-gone: 2\r\n"),
    ("named after", b"X-Gone: 1\r\nConnection: close, X-Gone\r\n"),
    ("named in a list", b"Connection: keep-alive ,\tX-Gone,,X-Too\r\nX-Gone: 1\r\nX-Too: 2\r\n"),
    ("named in two fields", b"Connection: X-Gone\r\nX-Gone: 1\r\nX-Too: 2\r\nConnection: X-Too\r\n"),
    ("underscore", b"X_Gone: 1\r\n"),
    ("underscores", b"_: 1\r\n__x__: 2\r\nX-A_B: 3\r\n"),
    ("forwarded", b"Forwarded: for=1.2.3.4;proto=https\r\n"),
    ("forwarded for", b"X-Forwarded-For: 1.2.3.4\r\n"),
    ("forwarded for in odd case", b"x-FORWARDED-for: 1.2.3.4\r\n"),
    ("forwarded proto", b"X-Forwarded-Proto: https\r\n"),
    ("forwarded host", b"X-Forwarded-Host: acme.id.koder.dev\r\n"),
    ("forwarded port", b"X-Forwarded-Port: 22\r\n"),
    ("forwarded prefix", b"X-Forwarded-Prefix: /a\r\n"),
    ("forwarded server", b"X-Forwarded-Server: a\r\n"),
    ("forwarded of a new kind", b"X-Forwarded-Tls-Client-Cert: a\r\n"),
    ("real address", b"X-Real-IP: 1.2.3.4\r\n"),
    ("real address in odd case", b"x-real-ip: 1.2.3.4\r\n"),
]


@by_name(REMOVED)
def test_what_is_not_the_services_to_see_is_removed(gateway, case):
    message = sent(gateway, b"X-Before: 1\r\n" + case[1] + b"X-After: 2\r\n")
    kept = [field for field in message.fields if field[0].lower() not in OWN]
    assert kept == [(b"Host", HOST), (b"X-Before", b"1"), (b"X-After", b"2")]
    assert message.value(b"x-forwarded-for") == b"127.0.0.1"
    assert message.value(b"x-forwarded-proto") == b"http"
    assert message.value(b"x-forwarded-host") == HOST
    assert message.value(b"forwarded") == b'for=127.0.0.1;host="%b";proto=http' % HOST


@pytest.mark.parametrize("host", [b"koder.id.koder.dev:8443", b"KODER.Id.Koder.Dev", b"login.koder.example."])
def test_the_host_is_unchanged_everywhere(gateway, host):
    message = sent(gateway, host=host)
    assert message.value(b"host") == host
    assert message.value(b"x-forwarded-host") == host
    assert b'host="%b"' % host in (message.value(b"forwarded") or b"")
    assert message.value(b"x-tenant-id") == b"koder"


def test_a_via_of_earlier_proxies_stays_before_ours(gateway):
    message = sent(gateway, b"Via: 1.0 fred, 1.1 p.example\r\n")
    assert b", ".join(message.values(b"via")) == b"1.0 fred, 1.1 p.example, 1.1 koder-gateway"


@pytest.mark.parametrize("body", [b"", b"hello"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"])
def test_method_target_and_body_are_the_clients(gateway, method, body):
    message = sent(gateway, target=b"/v1/users/%7euser?q=%20&q=+", method=method, body=body)
    assert (message.method, message.target, message.body) == (method, b"/v1/users/%7euser?q=%20&q=+", body)


def test_a_field_of_the_table_of_usual_names_is_not_taken_for_another(gateway):
    names = [b"Content-Security-Policy", b"Sec-Fetch-User", b"Upgrade-Insecure-Requests", b"Policy", b"Fetch-User"]
    message = sent(gateway, b"".join(b"%b: %b\r\n" % (name, name) for name in names))
    assert [value for name, value in message.fields if name in names] == names


# -- identifiers

KEPT_IDS = [b"a", b"A.b_c-9", b"a" * 128, b"550e8400-e29b-41d4-a716-446655440000", b".", b"-"]
NEW_IDS = [
    b"",
    b"a" * 129,
    b"a b",
    b"a\tb",
    b"a,b",
    b"a;b",
    b'a"b',
    b"<a>",
    b"a/b",
    b"a:b",
    b"\xe9",
    b"a%0d%0ab",
    b"{a}",
]


@pytest.mark.parametrize("identifier", KEPT_IDS)
def test_a_good_request_id_is_kept_for_the_service_and_the_client(gateway, identifier):
    answer = gateway.ask(request(fields=b"x-request-ID: %b\r\n" % identifier))
    [message] = gateway.received()
    assert answer.values(b"x-request-id") == message.values(b"x-request-id") == [identifier]


@pytest.mark.parametrize("identifier", NEW_IDS)
def test_a_bad_request_id_is_replaced(gateway, identifier):
    answer = gateway.ask(request(fields=b"X-Request-ID: %b\r\n" % identifier))
    [message] = gateway.received()
    assert answer.values(b"x-request-id") == message.values(b"x-request-id") != [identifier]
    assert NEW_ID.fullmatch(answer.value(b"x-request-id") or b"")


def test_request_ids_of_the_gateway_are_all_different(gateway):
    with gateway.client() as client:
        client.send(request() * 500)
        answers = [client.answer().value(b"x-request-id") for _ in range(500)]
    assert len(set(answers)) == 500
    assert [m.value(b"x-request-id") for m in gateway.received()] == answers


def test_there_is_one_request_id_whatever_client_and_service_send(gateway):
    fields = b"X-Request-ID: first\r\nX-Request-ID: second\r\nX_Request_ID: third\r\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Request-ID: the-services\r\nx-request-id: again\r\n"
    answer = answered(gateway, head, fields=fields)
    [message] = gateway.received()
    assert answer.value(b"x-request-id") == message.value(b"x-request-id")
    assert b"the-services" not in answer.raw


GOOD_TRACES = [TRACE, TRACE[:-1] + b"0", b"cc" + TRACE[2:] + b"-what-the-future-will-be"]
BAD_TRACES = [
    b"",
    b"00",
    b"ff" + TRACE[2:],
    TRACE.upper(),
    TRACE + b"-more",
    TRACE + b"0",
    TRACE[:-1],
    TRACE.replace(b"-", b"_"),
    b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01",
    b"00-0af7651916cd43dd8448eb211c80319c-" + b"0" * 16 + b"-01",
    b"00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
    TRACE + b", " + TRACE,
]


@pytest.mark.parametrize("trace", GOOD_TRACES)
def test_a_trace_passes(gateway, trace):
    message = sent(gateway, b"TraceParent: %b\r\ntracestate: a=b\r\n" % trace)
    assert message.values(b"traceparent") == [trace]
    assert message.values(b"tracestate") == [b"a=b"]


@pytest.mark.parametrize("trace", [None, *BAD_TRACES])
def test_a_trace_is_begun_where_there_is_none(gateway, trace):
    fields = b"tracestate: a=b\r\n" + (b"" if trace is None else b"traceparent: %b\r\n" % trace)
    message = sent(gateway, fields)
    assert NEW_TRACE.fullmatch(message.value(b"traceparent") or b"")
    assert message.value(b"traceparent") != trace
    # The state belongs to a trace that does not go on (W3C Trace Context, its processing model).
    assert message.values(b"tracestate") == []


def test_two_traces_are_none(gateway):
    other = TRACE.replace(b"0af7", b"1bf8")
    message = sent(gateway, b"traceparent: %b\r\ntraceparent: %b\r\n" % (TRACE, other))
    assert message.value(b"traceparent") not in (TRACE, other)


# -- the forwarded set behind proxies, and over TLS


@pytest.fixture(scope="module")
def behind(tmp_path_factory):
    settings = SETTINGS + '[listen]\ntrusted_proxies = ["127.0.0.0/8", "10.0.0.0/8"]\n'
    with running(tmp_path_factory.mktemp("behind"), settings) as gateway:
        yield gateway
        gateway.assert_quiet()


FORWARDED = [
    ("nothing", b"", {b"X-Forwarded-For": b"127.0.0.1", b"X-Forwarded-Proto": b"http", b"X-Forwarded-Host": HOST}),
    ("client", b"X-Forwarded-For: 192.0.2.7\r\n", {b"X-Forwarded-For": b"192.0.2.7, 127.0.0.1"}),
    (
        "chain",
        b"X-Forwarded-For: 192.0.2.7, 10.1.1.1\r\nX-Forwarded-For: 10.1.1.2\r\n",
        {b"X-Forwarded-For": b"192.0.2.7, 10.1.1.1, 10.1.1.2, 127.0.0.1"},
    ),
    ("proto", b"X-Forwarded-Proto: https\r\n", {b"X-Forwarded-Proto": b"https"}),
    ("odd proto", b"X-Forwarded-Proto: gopher\r\n", {b"X-Forwarded-Proto": b"http"}),
    ("host", b"X-Forwarded-Host: a.example\r\n", {b"X-Forwarded-Host": HOST, b"Host": HOST}),
    (
        "standard",
        b'Forwarded: for="[2001:db8::7]";proto=https\r\n',
        {
            b"Forwarded": b'for="[2001:db8::7]";host="%b";proto=https, for=127.0.0.1;host="%b";proto=https'
            % (HOST, HOST),
            b"X-Forwarded-Proto": b"https",
        },
    ),
    ("real address", b"X-Real-IP: 192.0.2.7\r\n", {b"X-Real-IP": b"127.0.0.1"}),
    ("port", b"X-Forwarded-Port: 8443\r\n", {b"X-Forwarded-Port": None}),
]


@by_name(FORWARDED)
def test_a_trusted_proxys_word_is_kept_and_added_to(behind, case):
    _, fields, expected = case
    behind.origin.forget()
    message = sent(behind, fields + b"X-Tenant-ID: koder\r\nX_Forwarded_For: 1.1.1.1\r\n")
    assert {name: message.value(name) for name in expected} == expected
    assert message.value(b"x-tenant-id") == b"koder"
    assert b"1.1.1.1" not in message.raw


def test_connection_cannot_take_a_trusted_proxys_word_away(behind):
    behind.origin.forget()
    fields = b"Connection: X-Forwarded-For, Forwarded, X-Forwarded-Proto\r\nX-Forwarded-For: 192.0.2.7\r\n"
    message = sent(behind, fields)
    assert message.value(b"x-forwarded-for") == b"192.0.2.7, 127.0.0.1"
    assert message.value(b"x-forwarded-proto") == b"http"


def test_a_trusted_proxys_word_holds_for_one_request_only(behind):
    behind.origin.forget()
    said = b"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: a.example\r\n"
    said += b"Forwarded: for=192.0.2.7\r\nX-Real-IP: 192.0.2.7\r\n"
    with behind.client() as client:
        client.send(request(fields=said) + request() + request(fields=said.replace(b".7", b".8")) + request())
        assert [client.answer().status for _ in range(4)] == [200] * 4
    messages = behind.received()
    alone, local = b"127.0.0.1", b'for=127.0.0.1;host="%b";proto=http' % HOST
    assert [m.value(b"x-forwarded-for") for m in messages] == [
        b"192.0.2.7, 127.0.0.1",
        alone,
        b"192.0.2.8, 127.0.0.1",
        alone,
    ]
    assert [m.value(b"x-forwarded-proto") for m in messages] == [b"https", b"http"] * 2
    assert [m.value(b"x-forwarded-host") for m in messages] == [HOST] * 4
    assert [m.value(b"forwarded") for m in messages[1::2]] == [local] * 2
    assert [m.values(b"x-real-ip") for m in messages[1::2]] == [[], []]


def test_over_tls_the_service_hears_of_https(tmp_path):
    with running(tmp_path, secure=True) as gateway:
        message = sent(gateway, b"X-Forwarded-Proto: http\r\n")
        assert message.value(b"x-forwarded-proto") == b"https"
        assert message.value(b"forwarded") == b'for=127.0.0.1;host="%b";proto=https' % HOST
        with gateway.client() as client:
            client.send(request(fields=b"Transfer-Encoding: gzip\r\n") + request(b"/v1/users/smuggled"))
            answer = client.answer()
            assert (answer.status, answer.code) == (501, "not_implemented")
            assert client.closed()
        gateway.assert_quiet()


# -- towards the client


def test_an_answers_fields_pass_unchanged_in_order_and_apart(gateway):
    fields = (
        b"Server: a service\r\n"
        b"Set-Cookie: a=b; Path=/\r\n"
        b"x-odd-CASE: 1\r\n"
        b"Set-Cookie: c=d; Expires=Wed, 21 Oct 2026 07:28:00 GMT\r\n"
        b"Date: Wed, 21 Oct 2026 07:28:00 GMT\r\n"
        b'WWW-Authenticate: Bearer realm="a"\r\n'
        b"WWW-Authenticate: Basic\r\n"
        b"Location: https://koder.id.koder.dev/a?b=%20#c\r\n"
        b"Cache-Control: no-store\r\n"
        b'ETag: "a"\r\n'
        b"Content-Type: application/json\r\n"
        b"Content-Encoding: identity\r\n"
        b"Vary: Accept-Encoding\r\n"
        b"Link: </a>; rel=next\r\n"
        b"Retry-After: 7\r\n"
        b'RateLimit: "theirs";r=1;t=1\r\n'
        b'RateLimit-Policy: "theirs";q=1;w=1\r\n'
        b"X-8-Bit: caf\xe9\r\n"
        b"X-Empty: \r\n"
    )
    answer = answered(gateway, b"HTTP/1.1 401 Not You\r\nContent-Length: 5\r\n" + fields, b"hello")
    assert answer.start == b"HTTP/1.1 401 Not You"
    assert answer.fields[: len(lines(fields))] == lines(fields)
    assert answer.body == b"hello"
    rest = [name.lower() for name, _ in answer.fields[len(lines(fields)) :]]
    assert sorted(rest) == [b"content-length", b"vary", b"x-request-id"]


def test_a_name_with_an_underscore_passes_to_the_client(gateway):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX_Legacy: 1\r\nX-Mixed_Name: 2\r\n"
    answer = answered(gateway, head)
    assert (answer.value(b"x_legacy"), answer.value(b"x-mixed_name")) == (b"1", b"2")


ANSWER_REMOVED = [
    ("connection", b"Connection: keep-alive\r\n"),
    ("keep-alive", b"Connection: keep-alive\r\nKeep-Alive: timeout=5, max=100\r\n"),
    ("named", b"Connection: X-Gone\r\nX-Gone: 1\r\n"),
    ("named in odd case", b"X-Gone: 1\r\nconnection: x-GONE\r\n"),
    ("named in a list", b"Connection: keep-alive ,, X-Gone,\tX-Too\r\nX-Gone: 1\r\nx-gone: 2\r\nX-Too: 3\r\n"),
    ("named in two fields", b"Connection: X-Gone\r\nX-Gone: 1\r\nX-Too: 2\r\nConnection: X-Too\r\n"),
    ("close", b"Connection: close\r\n"),
    ("proxy connection", b"Proxy-Connection: keep-alive\r\n"),
    ("proxy authenticate", b"Proxy-Authenticate: Basic\r\n"),
    ("te", b"TE: trailers\r\n"),
    ("upgrade", b"Upgrade: h2c\r\nConnection: Upgrade\r\n"),
    ("request id", b"X-Request-ID: theirs\r\n"),
    ("one origin", b"Access-Control-Allow-Origin: *\r\n"),
    ("credentials", b"Access-Control-Allow-Credentials: true\r\n"),
    (
        "all of CORS",
        (
            b"access-control-allow-origin: https://evil.example\r\nAccess-Control-Expose-Headers: *\r\n"
            b"Access-Control-Allow-Methods: *\r\nAccess-Control-Allow-Headers: *\r\nAccess-Control-Max-Age: 9\r\n"
            b"Access-Control-Allow-Private-Network: true\r\n"
        ),
    ),
]


@by_name(ANSWER_REMOVED)
@pytest.mark.parametrize("fields", [b"", FROM_PAGE], ids=["no page", "page"])
def test_what_is_not_the_clients_to_see_is_removed(gateway, case, fields):
    head = b"HTTP/1.1 200 OK\r\nX-Before: 1\r\n" + case[1] + b"X-After: 2\r\nContent-Length: 5\r\n"
    with gateway.client() as client:
        gateway.origin.answers[b"/v1/users/answer"] = head + b"\r\nhello"
        client.send(request(b"/v1/users/answer", fields=fields) + request())
        answer = client.answer()
        # What the service does with its connection is not the client's concern.
        assert client.answer().status == 200
    own = {b"date", b"x-request-id", b"vary", b"content-length"}
    own |= {name for name in answer.names() if name.startswith(b"access-control-")} if fields else set()
    assert [field for field in answer.fields if field[0].lower() not in own] == [
        (b"X-Before", b"1"),
        (b"X-After", b"2"),
    ]
    assert answer.body == b"hello"
    assert answer.values(b"access-control-allow-origin") == ([ALLOWED] if fields else [])
    assert len(answer.values(b"access-control-expose-headers")) == bool(fields)


def test_connection_cannot_take_the_gateways_fields_from_an_answer(gateway):
    head = (
        b"HTTP/1.1 200 OK\r\nConnection: Date, Vary, X-Request-ID, Access-Control-Allow-Origin, Content-Length\r\n"
        b"Content-Length: 5\r\n"
    )
    answer = answered(gateway, head, b"hello", FROM_PAGE)
    assert answer.value(b"access-control-allow-origin") == ALLOWED
    assert answer.value(b"vary") == b"Origin"
    assert answer.value(b"x-request-id")
    assert answer.value(b"date")


STATUSES = [b"200 OK", b"201 Created", b"202 ", b"203 X", b"206 Partial Content", b"299 Odd", b"300 A", b"301 Moved"]
STATUSES += [
    b"302 Found",
    b"303 See",
    b"307 T",
    b"308 P",
    b"400 Bad",
    b"401 U",
    b"402 P",
    b"403 F",
    b"404 N",
    b"405 M",
]
STATUSES += [b"409 C", b"410 G", b"413 L", b"418 I'm a teapot", b"421 M", b"422 U", b"429 T", b"451 L", b"499 Odd"]
STATUSES += [b"500 I", b"501 N", b"502 B", b"503 S", b"504 G", b"505 V", b"511 A", b"599 Odd"]


@pytest.mark.parametrize("status", STATUSES)
def test_an_answers_status_reason_and_body_are_the_services(gateway, status):
    answer = answered(gateway, b"HTTP/1.1 %b\r\nContent-Length: 5\r\n" % status, b"hello")
    assert answer.start == b"HTTP/1.1 " + status
    assert answer.body == b"hello"


def test_a_date_is_set_where_the_service_has_none(gateway):
    answer = answered(gateway, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n")
    assert re.fullmatch(rb"\w{3}, \d{2} \w{3} \d{4} \d{2}:\d{2}:\d{2} GMT", answer.value(b"date") or b"")


BODILESS = [
    ("HEAD with a length", b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n", b"50"),
    ("HEAD with chunks", b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", None),
    ("HEAD with neither", b"HEAD", b"HTTP/1.1 200 OK\r\n", None),
    ("204", b"GET", b"HTTP/1.1 204 No Content\r\n", None),
    ("204 with a length", b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n", None),
    ("304", b"GET", b"HTTP/1.1 304 Not Modified\r\n", None),
    ("304 with a length", b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 50\r\n", b"50"),
    ("an empty body", b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", b"0"),
]


@by_name(BODILESS)
def test_an_answer_without_a_body_leaves_the_connection_usable(gateway, case):
    _, method, head, length = case
    gateway.origin.answers[b"/v1/users/answer"] = head + b"\r\n"
    with gateway.client() as client:
        client.send(request(b"/v1/users/answer", method) + request())
        answer = client.answer(method)
        assert answer.value(b"content-length") == length
        assert client.answer().body == b"origin"


def test_chunks_and_their_trailers_reach_the_client(gateway):
    head = b"HTTP/1.1 200 OK\r\nTrailer: X-Checksum\r\nTransfer-Encoding: chunked\r\n"
    body = (
        b"5;a=b\r\nhello\r\n6\r\n world\r\n0\r\nX-Checksum: 1\r\nContent-Length: 3\r\nSet-Cookie: a=b\r\n"
        b"Access-Control-Allow-Origin: *\r\nX-Request-ID: theirs\r\n\r\n"
    )
    answer = answered(gateway, head, body)
    assert answer.body == b"hello world"
    assert answer.trailers == [(b"X-Checksum", b"1")]
    assert answer.values(b"transfer-encoding") == [b"chunked"]
    assert answer.values(b"trailer") == [b"X-Checksum"]


def test_the_whole_server_is_asked_for_its_methods(gateway):
    answer = gateway.ask(request(b"*", b"OPTIONS"))
    assert (answer.status, answer.value(b"allow")) == (204, b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
    assert gateway.received() == []


# -- CORS

PREFLIGHT = FROM_PAGE + b"Access-Control-Request-Method: PUT\r\n"
ASKED = b"Access-Control-Request-Headers: authorization,x-a , Content-Type\r\n"
METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
EXPOSED = (
    b"X-Request-ID, DPoP-Nonce, ETag, Link, RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate, Location"
)

PREFLIGHTS = [
    ("usual", request(method=b"OPTIONS", fields=PREFLIGHT)),
    ("with headers", request(method=b"OPTIONS", fields=PREFLIGHT + ASKED)),
    ("without a route", request(b"/none", b"OPTIONS", PREFLIGHT)),
    ("unknown tenant", request(method=b"OPTIONS", fields=PREFLIGHT, host=b"nobody.id.koder.dev")),
    ("suspended tenant", request(method=b"OPTIONS", fields=PREFLIGHT, host=b"globex.id.koder.dev")),
    ("no tenant", request(method=b"OPTIONS", fields=PREFLIGHT, host=b"id.koder.dev")),
    ("another host", request(method=b"OPTIONS", fields=PREFLIGHT, host=b"www.example.com")),
    ("asterisk", request(b"*", b"OPTIONS", PREFLIGHT)),
    ("own method", request(method=b"OPTIONS", fields=PREFLIGHT.replace(b"PUT", b"PURGE"))),
    ("with a body", request(method=b"OPTIONS", fields=PREFLIGHT, body=b"hello")),
]


@by_name(PREFLIGHTS)
def test_a_preflight_of_an_allowed_origin_is_answered_at_the_gateway(gateway, case):
    with gateway.client() as client:
        client.send(case[1] + request(b"/v1/users/next"))
        answer = client.answer()
        assert (answer.status, answer.body) == (204, b"")
        assert client.answer().status == 200
    assert answer.value(b"access-control-allow-origin") == ALLOWED
    assert answer.value(b"access-control-allow-credentials") == b"true"
    assert answer.value(b"access-control-allow-methods") == METHODS
    assert answer.value(b"access-control-max-age") == b"600"
    assert b"Origin" in (answer.value(b"vary") or b"").split(b", ")
    assert answer.values(b"content-length") == answer.values(b"transfer-encoding") == []
    assert answer.value(b"x-request-id")
    asked = [b"authorization,x-a , Content-Type"] if ASKED in case[1] else []
    assert answer.values(b"access-control-allow-headers") == asked
    assert [message.target for message in gateway.received()] == [b"/v1/users/next"]


NO_PREFLIGHTS = [
    ("foreign origin", b"OPTIONS", PREFLIGHT.replace(b"app.", b"evil."), False),
    ("null", b"OPTIONS", PREFLIGHT.replace(ALLOWED, b"null"), False),
    ("no method asked for", b"OPTIONS", FROM_PAGE, True),
    ("an empty method", b"OPTIONS", FROM_PAGE + b"Access-Control-Request-Method: \r\n", True),
    ("no origin", b"OPTIONS", PREFLIGHT.replace(FROM_PAGE, b""), False),
    ("another method", b"GET", PREFLIGHT, True),
    ("odd headers", b"OPTIONS", PREFLIGHT + b"Access-Control-Request-Headers: a b\r\n", True),
    ("two origins", b"OPTIONS", PREFLIGHT + FROM_PAGE, False),
]


@by_name(NO_PREFLIGHTS)
def test_what_is_no_preflight_of_an_allowed_origin_is_served_as_usual(gateway, case):
    _, method, fields, allowed = case
    answer = gateway.ask(request(method=method, fields=fields))
    assert answer.body == b"origin"
    assert answer.values(b"access-control-allow-methods") == []
    assert answer.values(b"access-control-allow-origin") == ([ALLOWED] if allowed else [])
    assert [message.method for message in gateway.received()] == [method]


FOREIGN = [
    b"null",
    b"",
    b"*",
    b"https://evil.example",
    b"http://app.example.com",
    b"https://APP.example.com",
    b"HTTPS://app.example.com",
    b"https://app.example.com.evil.example",
    b"https://evilapp.example.com",
    b"https://evil.app.example.com",
    b"https://example.com",
    b"https://app.example.com:443",
    b"https://app.example.com:8443",
    b"https://app.example.com/",
    b"https://app.example.com ,https://evil.example",
    b"https://app.example.com, https://app.example.com",
    b"https://app.example.com https://app.example.com",
    b"https://app.example.com@evil.example",
    b"https://app.example.com\xe9",
    b"//app.example.com",
    b"app.example.com",
    b"https://app_example.com",
    b"https://appXexample.com",
    b"https://acme.example",
    b"https://globex.example",
]


@pytest.mark.parametrize("origin", FOREIGN)
@pytest.mark.parametrize("target", [b"/v1/users", b"/none"])
def test_a_foreign_origin_gets_no_cors_fields_and_is_served_as_usual(gateway, origin, target):
    answer = gateway.ask(request(target, fields=b"Origin: %b\r\n" % origin))
    assert answer.status == (404 if target == b"/none" else 200)
    assert [name for name in answer.names() if name.startswith(b"access-control-")] == []
    assert answer.value(b"vary") == b"Origin"


def test_several_origins_are_none(gateway):
    for fields in (FROM_PAGE * 2, FROM_PAGE + b"Origin: https://evil.example\r\n", FROM_PAGE + b"oRiGiN:\r\n"):
        answer = gateway.ask(request(fields=fields))
        assert answer.status == 200
        assert answer.values(b"access-control-allow-origin") == []


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"OPTIONS"])
def test_an_allowed_origin_gets_its_fields_once(gateway, method):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nAccess-Control-Allow-Origin: *\r\nVary: Accept\r\n"
    answer = answered(gateway, head, fields=FROM_PAGE, method=method)
    assert answer.value(b"access-control-allow-origin") == ALLOWED
    assert answer.value(b"access-control-allow-credentials") == b"true"
    assert answer.value(b"access-control-expose-headers") == EXPOSED
    assert answer.values(b"vary") == [b"Accept", b"Origin"]


TENANT_ORIGINS = [
    ("at its host", b"koder.id.koder.dev", b"", b"https://koder.example", True),
    ("at its domain", b"login.koder.example", b"", b"https://koder.example", True),
    ("by header", b"id.koder.dev", b"X-Tenant-ID: koder\r\n", b"https://koder.example", False),
    ("at another tenant", b"acme.id.koder.dev", b"", b"https://koder.example", False),
    ("at an unknown tenant", b"nobody.id.koder.dev", b"", b"https://koder.example", False),
    ("with another tenant's header", b"id.koder.dev", b"X-Tenant-ID: acme\r\n", b"https://koder.example", False),
    ("everybody's at another tenant", b"acme.id.koder.dev", b"", ALLOWED, True),
    ("of a suspended tenant", b"globex.id.koder.dev", b"", b"https://globex.example", True),
]


@by_name(TENANT_ORIGINS)
def test_a_tenants_origin_is_allowed_at_that_tenant_alone(gateway, case):
    _, host, fields, origin, allowed = case
    answer = gateway.ask(request(host=host, fields=fields + b"Origin: %b\r\n" % origin))
    assert answer.values(b"access-control-allow-origin") == ([origin] if allowed else [])
    preflight = b"Origin: %b\r\nAccess-Control-Request-Method: PUT\r\n" % origin
    if not fields:
        assert (gateway.ask(request(method=b"OPTIONS", host=host, fields=preflight)).status == 204) == allowed


def test_without_origins_nothing_varies(tmp_path):
    settings = SETTINGS.replace('registry = "tenants.toml"', "").replace('origins = ["https://app.example.com"]', "")
    with running(tmp_path, settings) as gateway:
        for data in (request(fields=FROM_PAGE), request(b"/none", fields=FROM_PAGE)):
            answer = gateway.ask(data)
            assert answer.values(b"vary") == answer.values(b"access-control-allow-origin") == []
        assert gateway.ask(request(method=b"OPTIONS", fields=PREFLIGHT)).body == b"origin"
        gateway.assert_quiet()


# -- limits

LIMITED = """
[tenants]
[cors]
origins = ["https://app.example.com"]
[listen]
trusted_proxies = ["127.0.0.1"]
[state]
dir = "state"
[log]
file = "access.log"
[[limits]]
name = "login"
rate = "3/h"
paths = ["/v1/auth"]
methods = ["POST"]
[[limits]]
name = "shadowed"
rate = "1/h"
paths = ["/v1/sessions"]
mode = "shadow"
[[limits]]
name = "guesses"
rate = "2/h"
paths = ["/v1/users/guesses"]
charge = "failures"
[[limits]]
name = "narrow"
key = ["ip"]
rate = "2/h"
paths = ["/oauth/v2/token"]
[[limits]]
name = "wide"
key = ["tenant"]
rate = "100/m"
burst = 50
paths = ["/oauth/v2"]
"""


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    with running(tmp_path_factory.mktemp("limited"), LIMITED) as gateway:
        yield gateway
        gateway.assert_quiet()


@pytest.fixture
def slug(request):
    """A tenant of the test's own, whose buckets are full."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[-60:].strip("-")
    return name.encode()


def ask(gateway, slug, target, method=POST, fields=b"", **kwargs):
    """The answer to a request of this tenant."""
    return gateway.ask(request(target, method, fields, host=slug + b".id.koder.dev", **kwargs), method)


def check_limit(answer, name, left, burst, window):
    """The answer tells of one limit, in the draft's form."""
    assert answer.value(b"ratelimit-policy") == b'"%b";q=%d;w=%d' % (name, burst, window)
    match = re.fullmatch(rb'"([a-z]+)";r=([0-9]+);t=([0-9]+)', answer.value(b"ratelimit") or b"")
    assert match is not None
    assert (match[1], int(match[2])) == (name, left)
    assert 1 <= int(match[3]) <= window


def check_limited(answer, longest):
    """The answer is a 429 that says when to come back."""
    assert (answer.status, answer.code) == (429, "rate_limited")
    seconds = answer.value(b"retry-after") or b""
    assert re.fullmatch(rb"[0-9]+", seconds)
    assert 1 <= int(seconds) <= longest


def test_answers_under_a_limit_tell_of_it_until_it_is_used_up(limited, slug):
    limited.origin.forget()
    for left in (2, 1, 0):
        answer = ask(limited, slug, b"/v1/auth/login", fields=FROM_PAGE)
        assert answer.status == 200
        check_limit(answer, b"login", left, 3, 3600)
        assert answer.values(b"retry-after") == []
    answer = ask(limited, slug, b"/v1/auth/login", fields=FROM_PAGE)
    check_limited(answer, 1200)
    check_limit(answer, b"login", 0, 3, 3600)
    assert answer.value(b"access-control-allow-origin") == ALLOWED
    assert b"Retry-After" in (answer.value(b"access-control-expose-headers") or b"")
    assert len(limited.received()) == 3


def test_a_limit_counts_what_it_names_and_nothing_else(limited, slug):
    for target in (b"/v1/auth", b"/v1/auth/", b"/v1/auth?a=b"):
        assert ask(limited, slug, target).status == 200
    assert ask(limited, slug, b"/v1/auth/anything/else").status == 429
    for method, target in ((b"GET", b"/v1/auth"), (b"PUT", b"/v1/auth"), (POST, b"/v1/users"), (POST, b"/v1/auth2")):
        answer = ask(limited, slug, target, method)
        assert answer.status in (200, 404)
        assert answer.values(b"ratelimit") == answer.values(b"ratelimit-policy") == []
    other = ask(limited, slug + b"2", b"/v1/auth")
    check_limit(other, b"login", 2, 3, 3600)


def test_what_can_be_read_in_two_ways_is_refused_before_limits_are_asked(limited, slug):
    for target in (b"/v1/./auth", b"/v1/auth/..", b"/v1/auth%2f"):
        answer = ask(limited, slug, target)
        assert (answer.status, answer.code) == (400, "bad_request")
        assert answer.values(b"ratelimit") == []


def test_spellings_of_a_path_are_charged_to_its_limit(limited, slug):
    for left, (target, status) in zip(
        (2, 1, 0), ((b"/v1/%61uth", 200), (b"//v1/auth", 404), (b"/V1/auth", 404)), strict=True
    ):
        answer = ask(limited, slug, target)
        assert answer.status == status
        check_limit(answer, b"login", left, 3, 3600)
    assert ask(limited, slug, b"/v1/auth").status == 429


def test_spellings_of_a_path_or_an_address_do_not_evade_a_limit(limited, slug):
    for _ in range(3):
        assert ask(limited, slug, b"/v1/auth").status == 200
    for target in (b"/v1/%61uth", b"//v1/auth", b"/V1/auth", b"/v1//auth", b"/v1/auth/", b"/v1/auth;a=b"):
        check_limited(ask(limited, slug, target), 1200)
    for fields in (b"X_Forwarded_For: 192.0.2.1\r\n", b"X-Real-IP: 192.0.2.1\r\n", b"Client-IP: 192.0.2.1\r\n"):
        assert ask(limited, slug, b"/v1/auth", fields=fields).status == 429
    host = slug.upper() + b".ID.koder.dev.:443"
    assert limited.ask(request(b"/v1/auth", POST, host=host)).status == 429


def test_a_trusted_proxys_clients_are_counted_apart(limited, slug):
    for _ in range(3):
        assert ask(limited, slug, b"/v1/auth", fields=b"X-Forwarded-For: 192.0.2.1\r\n").status == 200
    assert ask(limited, slug, b"/v1/auth", fields=b"X-Forwarded-For: 192.0.2.1\r\n").status == 429
    # The invention of a client before the proxy's own entry buys nothing.
    invented = b"X-Forwarded-For: 198.51.100.9, 192.0.2.1\r\n"
    assert ask(limited, slug, b"/v1/auth", fields=invented).status == 429
    assert ask(limited, slug, b"/v1/auth", fields=b"X-Forwarded-For: 192.0.2.2\r\n").status == 200


def test_addresses_of_one_network_share_a_bucket(limited, slug):
    for number in (1, 2, 3):
        fields = b"X-Forwarded-For: 2001:db8:0:1::%d\r\n" % number
        assert ask(limited, slug, b"/v1/auth", fields=fields).status == 200
    assert ask(limited, slug, b"/v1/auth", fields=b"X-Forwarded-For: 2001:db8:0:1:f::f\r\n").status == 429
    assert ask(limited, slug, b"/v1/auth", fields=b"X-Forwarded-For: 2001:db8:0:2::1\r\n").status == 200


def test_a_preflight_is_not_counted(limited, slug):
    for _ in range(10):
        answer = ask(limited, slug, b"/oauth/v2/token", b"OPTIONS", PREFLIGHT)
        assert answer.status == 204
        assert answer.values(b"ratelimit") == []


def test_a_shadow_refuses_nothing_and_says_nothing(limited, slug):
    for _ in range(5):
        answer = ask(limited, slug, b"/v1/sessions")
        assert answer.status == 200
        assert (
            answer.values(b"ratelimit") == answer.values(b"ratelimit-policy") == answer.values(b"retry-after") == []
        )


@pytest.mark.parametrize("status", [400, 401, 403])
def test_failures_alone_use_up_a_limit_of_failures(limited, slug, status):
    limited.origin.answers[b"/v1/users/guesses/wrong"] = b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status
    # What is not there is no guess of a secret.
    limited.origin.answers[b"/v1/users/guesses/missing"] = b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"
    limited.origin.answers[b"/v1/users/guesses/broken"] = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
    for target, said in (
        (b"/v1/users/guesses/right", 200),
        (b"/v1/users/guesses/broken", 500),
        (b"/v1/users/guesses/missing", 404),
    ) * 4:
        answer = ask(limited, slug, target)
        assert answer.status == said
        assert answer.value(b"ratelimit-policy") == b'"guesses";q=2;w=3600'
    for _ in range(2):
        assert ask(limited, slug, b"/v1/users/guesses/wrong").status == status
    answer = ask(limited, slug, b"/v1/users/guesses/right")
    check_limited(answer, 1800)
    check_limit(answer, b"guesses", 0, 2, 3600)


def test_guesses_side_by_side_are_paid_for_afterwards(limited, slug):
    """Two tokens are eight requests side by side; what fails of them beyond the two is owed."""
    origin, target = limited.origin, b"/v1/users/guesses/" + slug
    origin.answers[target] = b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"
    origin.held.add(target)
    origin.forget()
    with ExitStack() as connections:
        clients = [connections.enter_context(limited.client()) for _ in range(11)]
        for client in clients:
            client.send(request(target, POST, host=slug + b".id.koder.dev"))
        origin.wait_until(lambda: len(origin.messages) == 8)
        # Which of them is refused depends on whose bytes come first: three are, and do not wait for the service.
        refused = first_of(clients, 3)
        assert [client.answer().status for client in refused] == [429] * 3
        origin.release(target)
        assert [client.answer().status for client in clients if client not in refused] == [401] * 8
    assert ask(limited, slug, b"/v1/users/guesses/right").status == 429


def test_several_limits_are_told_in_one_field(limited, slug):
    answer = ask(limited, slug, b"/oauth/v2/token", fields=b"X-Forwarded-For: 203.0.113.1\r\n")
    assert answer.value(b"ratelimit-policy") == b'"narrow";q=2;w=3600, "wide";q=50;w=30'
    assert re.fullmatch(rb'"narrow";r=1;t=[0-9]+, "wide";r=49;t=1', answer.value(b"ratelimit") or b"")
    assert ask(limited, slug, b"/oauth/v2/token", fields=b"X-Forwarded-For: 203.0.113.1\r\n").status == 200
    # By address alone: another tenant gets no fresh bucket.
    refused = ask(limited, slug + b"2", b"/oauth/v2/token", fields=b"X-Forwarded-For: 203.0.113.1\r\n")
    check_limited(refused, 1800)
    # What one limit refuses is not charged to the others.
    answer = ask(limited, slug + b"2", b"/oauth/v2/authorize")
    check_limit(answer, b"wide", 49, 50, 30)


def test_the_services_own_limit_fields_give_way_where_the_gateway_limits(limited, slug):
    fields = b'RateLimit: "theirs";r=1;t=1\r\nratelimit-policy: "theirs";q=1;w=1\r\n'
    theirs = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n%b\r\n" % fields
    limited.origin.answers[b"/v1/auth/theirs"] = theirs
    limited.origin.answers[b"/v1/users/theirs"] = theirs
    check_limit(ask(limited, slug, b"/v1/auth/theirs"), b"login", 2, 3, 3600)
    answer = ask(limited, slug, b"/v1/users/theirs")
    assert answer.value(b"ratelimit") == b'"theirs";r=1;t=1'
    assert answer.value(b"ratelimit-policy") == b'"theirs";q=1;w=1'


@pytest.mark.parametrize("method", [POST, b"HEAD"])
def test_every_answer_under_a_limit_tells_of_it(limited, slug, method):
    limited.origin.answers[b"/oauth/v2/garbage"] = b"garbage\r\n\r\n"
    for target, status in ((b"/oauth/v2", 200), (b"/oauth/v2/garbage", 502)):
        answer = ask(limited, slug, target, method)
        assert answer.status == status
        assert answer.value(b"ratelimit-policy") == b'"wide";q=50;w=30'


def test_a_refused_upload_is_answered_before_it_is_sent(limited, slug):
    for _ in range(3):
        ask(limited, slug, b"/v1/auth")
    with limited.client() as client:
        head = b"Expect: 100-continue\r\nContent-Length: 100000\r\n"
        client.send(request(b"/v1/auth", POST, head, host=slug + b".id.koder.dev"))
        answer = client.answer()
        check_limited(answer, 1200)
        assert answer.interim == []
        assert client.closed()


def test_a_flood_on_one_connection_is_counted_one_by_one(limited, slug):
    data = request(b"/v1/auth", POST, host=slug + b".id.koder.dev")
    with limited.client() as client:
        client.send(data * 40)
        try:
            statuses = [client.answer().status for _ in range(40)]
        except Malformed as error:
            pytest.fail(f"not all were answered: {error}")
    assert statuses == [200] * 3 + [429] * 37
