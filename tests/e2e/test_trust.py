"""What a client says of itself, and what a service is told: over sockets, on each way in."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator

import pytest

from koder_gateway.wire.spoofable_fields import SPOOFABLE_FIELDS, SPOOFABLE_PREFIXES
from tests.kit.doors import WAYS, Doors, open_doors
from tests.kit.http1 import Message
from tests.kit.http2_client import Http2Client
from tests.kit.http2_frames import block, data, headers
from tests.kit.proxy_headers import HAPROXY_LOCAL_PLAIN, HAPROXY_LOCAL_TLS, NO_TLS, TLS, UNIX, V4, binary
from tests.kit.recording import HOST, SETTINGS, connect, request

OWN = {
    b"x-tenant-id": b"koder",
    b"x-forwarded-for": b"127.0.0.1",
    b"x-forwarded-host": b"koder.id.koder.dev",
    b"via": b"1.1 koder-gateway",
}
ALLOWING = """
allow_fields = ["x-method-override"]
"""
ways = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with open_doors(
        tmp_path_factory.mktemp("gateway"),
        SETTINGS.replace("[requests]\n", "[requests]" + ALLOWING),
        further=("tcp:0:interface=127.0.0.1",),
    ) as doors:
        yield doors


@pytest.fixture
def doors(shared: Doors) -> Doors:
    shared.origin.forget()
    return shared


def check_own(message: Message) -> None:
    """The gateway's own fields are there once each."""
    for name, value in OWN.items():
        assert message.values(name) == [value]


# -- names


@ways
@pytest.mark.parametrize("mark", [b"-", b".", b"~", b"_", b"!", b"'", b"--", b""])
def test_the_gateways_own_names_come_from_nobody_else(way: str, mark: bytes, doors: Doors) -> None:
    names = [
        b"X-Request-ID",
        b"X-Real-IP",
        b"X-Forwarded-For",
        b"X-Forwarded-User",
        b"Client-Cert",
        b"Client-Cert-Chain",
    ]
    spelled = [(mark.join(name.split(b"-")) + tail, b"evil!") for name in names for tail in (b"", b".")]
    spelled += [
        (b"X" + mark + b"Tenant" + mark + b"ID", b"koder"),
        (b"For~warded", b"for=evil"),
        (b"X-Kept", b"kept"),
    ]
    assert doors.ask(way, fields=spelled).status == 200
    message = doors.only()
    check_own(message)
    assert message.value(b"x-kept") == b"kept"
    assert b"evil" not in message.raw
    assert message.raw.count(b"koder\r\n") == 1


CLAIMED = sorted(SPOOFABLE_FIELDS - {b"x-method-override"}) + [
    family + tail for family in SPOOFABLE_PREFIXES for tail in (b"", b"user")
]


def spelled_otherwise(name: bytes) -> Iterator[bytes]:
    yield name.title()
    for mark in (b".", b"~", b""):
        yield name.replace(b"-", mark).upper()


@ways
def test_what_software_takes_for_the_truth_comes_from_no_client(way: str, doors: Doors) -> None:
    names = [spelling for name in CLAIMED for spelling in spelled_otherwise(name)]
    for first in range(0, len(names), 80):
        fields = [(name, b"evil") for name in names[first : first + 80]]
        fields += [(b"X-Kept", b"kept"), (b"X-Method-Override", b"PUT")]
        assert doors.ask(way, fields=fields).status == 200
        message = doors.only()
        check_own(message)
        assert b"evil" not in message.raw
        assert message.value(b"x-kept") == b"kept"
        assert message.value(b"x-method-override") == b"PUT"


READ = ("Host Content-Length Transfer-Encoding Connection Keep-Alive TE Trailer Upgrade Expect Proxy-Connection "
        "Proxy-Authorization HTTP2-Settings Origin Max-Forwards Content-Type")  # fmt: skip


@ways
def test_what_the_gateway_reads_has_one_spelling(way: str, doors: Doors) -> None:
    """Framing, hop-by-hop fields and what is decided by, as a service would read them that folds names."""
    names = [name.encode() for name in READ.split()]
    spelled = [
        name.replace(b"-", mark) + tail for name in names for mark in (b".", b"~", b"") for tail in (b"", b"-")
    ]
    spelled = [name for name in spelled if name not in names]
    fields = [(name, b"chunked") for name in spelled] + [(b"X-Kept", b"kept")]
    for first in range(0, len(fields), 60):
        said = fields[first : first + 60]
        assert doors.ask(way, fields=said, method=b"POST", body=b"whole").status == 200
        message = doors.only()
        assert message.body == b"whole"
        assert b"chunked" not in message.raw
        assert message.values(b"x-kept") == [value for name, value in said if name == b"X-Kept"]


HONEST = [
    b"Authorization", b"X-Requested-With", b"X-CSRF-Token", b"X-XSRF-Token", b"X-API-Key", b"X-Auth-Token", b"CF-Ray",
    b"X-Access-Token", b"X-User-ID", b"X-Device-ID", b"X-WebAuthn-Token", b"X-Voucher", b"X-Consumer-Key", b"X-Array",
    b"X-Original-Filename", b"X-Client-Version", b"X-MS-Client-Request-ID", b"X-Goog-API-Key", b"X-Amzn-Trace-ID",
    b"X-Amz-Date", b"X-B3-TraceId", b"Idempotency-Key", b"X-SSO-Token", b"DPoP", b"X-Middleware-Prefetch",
    b"X-Nextjs-Data", b"X-Auth-Email", b"X-Invoked-By", b"X-Proxy-Token", b"X-Vercel-Protection-Bypass",
    b"Content-Type", b"X-Content-Length", b"Upgrade-Insecure-Requests", b"Max-Forwards", b"X-Origin",
    b"X-ApiGateway-Key",
]  # fmt: skip


@ways
def test_what_honest_clients_send_passes(way: str, doors: Doors) -> None:
    assert doors.ask(way, fields=[(name, b"honest") for name in HONEST]).status == 200
    message = doors.only()
    assert [name for name in HONEST if message.values(name.lower()) != [b"honest"]] == []


TRAILERS = ((b"x-sum", b"1"), (b"x-else", b"evil"), (b"x-forwarded-for", b"evil"), (b"proxy", b"evil"))


def test_trailers_pass_by_a_list_over_http1(doors: Doors) -> None:
    with connect(doors.ports[0], secure=True) as client:
        client.send(b"POST /v1/users HTTP/1.1\r\nHost: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % HOST)
        client.send(b"1\r\nx\r\n0\r\n" + b"".join(b"%b: %b\r\n" % pair for pair in TRAILERS) + b"\r\n")
        assert client.answer().status == 200
    assert doors.only().trailers == [TRAILERS[0]]


def test_trailers_pass_by_a_list_over_http2(doors: Doors) -> None:
    head = [(b":method", b"POST"), (b":scheme", b"https"), (b":path", b"/v1/users"), (b":authority", HOST)]
    with Http2Client.connect(doors.ports[0], HOST) as client:
        client.start()
        client.send(headers(1, block(head), end=False), data(1, b"x"), headers(1, block(list(TRAILERS))))
        assert client.answer(1).status == 200
    assert doors.only().trailers == [TRAILERS[0]]


@ways
def test_a_service_names_no_other_place_for_the_gateway(way: str, doors: Doors) -> None:
    doors.origin.answers[b"/v1/users/alt"] = (
        b'HTTP/1.1 200 OK\r\nAlt-Svc: h3=":9"\r\nX-Kept: kept\r\nContent-Length: 0\r\n\r\n'
    )
    answer = doors.ask(way, b"/v1/users/alt")
    assert (answer.values(b"alt-svc"), answer.values(b"x-kept")) == ([], [b"kept"])


# -- trusted proxies


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """A gateway that trusts whoever connects from here, with two ports for balancers: plain, and for TLS."""
    listen = '[listen]\ntrusted_proxies = ["::ffff:127.0.0.0/104"]\n'
    listen += 'forwarded_fields = ["X-Forwarded-Port", "X-Auth-Request-User"]\n'
    further = ("haproxy:tcp:0:interface=127.0.0.1", "haproxy:ssl:0:interface=127.0.0.1")
    with open_doors(tmp_path_factory.mktemp("gateway"), SETTINGS + listen, further=further) as doors:
        yield doors


@ways
def test_a_clients_own_word_does_not_pass_by_its_proxys_side(way: str, behind: Doors) -> None:
    """A proxy that sets X-Forwarded-For alone lets everything else through as the client has made it up."""
    behind.origin.forget()
    spoofed = [(b"X-Forwarded-" + name, b"evil") for name in (b"Host", b"Prefix", b"Ssl", b"Server", b"User")]
    spoofed += [
        (b"Forwarded", b"for=192.0.2.7;host=evil.example"),
        (b"X-Real-Host", b"x"),
        (b"X-Forwarded-Port", b"1"),
    ]
    assert behind.ask(way, fields=[*spoofed, (b"X-Forwarded-For", b"192.0.2.7")]).status == 200
    message = behind.only()
    assert b"evil" not in message.raw
    assert message.value(b"x-forwarded-host") == HOST
    assert message.value(b"x-forwarded-port") == b"1"
    assert message.value(b"x-forwarded-for") == b"192.0.2.7, 127.0.0.1"
    proto = b"http" if way == "stock" else b"https"
    assert message.value(b"x-forwarded-proto") == proto
    assert message.value(b"forwarded") == b'for=192.0.2.7;host="%b";proto=%b, for=127.0.0.1;host="%b";proto=%b' % (
        *(HOST, proto),
        *(HOST, proto),
    )


@ways
def test_a_proxy_that_authenticates_users_says_who_they_are(way: str, behind: Doors) -> None:
    """Of a family only what is listed passes, under its own spelling."""
    behind.origin.forget()
    said = [(b"X-Auth-Request-User", b"alice"), (b"X-Auth-Request-Email", b"evil"), (b"X.Auth.Request.User", b"evil")]
    assert behind.ask(way, fields=said).status == 200
    message = behind.only()
    assert message.values(b"x-auth-request-user") == [b"alice"]
    assert b"evil" not in message.raw


@pytest.mark.parametrize(
    ("header", "fields", "proto"),
    [
        (binary(V4), b"", b"http"),
        (binary(V4 + TLS), b"", b"https"),
        (binary(V4 + NO_TLS), b"", b"http"),
        (binary(V4), b"X-Forwarded-Proto: https\r\n", b"https"),
        (b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 443\r\n", b"X-Forwarded-Proto: https, wss\r\n", b"https"),
        (binary(V4 + NO_TLS), b"X-Forwarded-Proto: https\r\n", b"http"),
    ],
)
def test_a_balancer_that_has_ended_tls_says_so(header: bytes, fields: bytes, proto: bytes, behind: Doors) -> None:
    behind.origin.forget()
    with connect(behind.ports[2]) as client:
        client.send(header + request(fields=b"X-Forwarded-For: 6.6.6.6\r\n" + fields))
        assert client.answer().status == 200
    check_client_of_a_balancer(behind.only(), proto)


@pytest.mark.parametrize(
    ("header", "fields", "proto"),
    [
        (binary(UNIX + TLS, family=0x31), b"", b"https"),
        (binary(UNIX + TLS, family=0x32), b"", b"https"),
        (binary(TLS, family=0x00), b"", b"https"),
        (binary(UNIX + NO_TLS, family=0x31), b"", b"http"),
        (binary(UNIX, family=0x31), b"", b"http"),
        (binary(V4 + TLS, command=0x20), b"", b"http"),
        # HAProxy's header for the clients of its UNIX sockets.
        (HAPROXY_LOCAL_TLS, b"", b"https"),
        (HAPROXY_LOCAL_PLAIN, b"", b"http"),
        # The connection's own address is a trusted proxy's: what such a one says itself is nearer the client.
        (binary(UNIX + TLS, family=0x31), b"X-Forwarded-Proto: http\r\n", b"http"),
        (binary(UNIX + NO_TLS, family=0x31), b"X-Forwarded-Proto: https\r\n", b"https"),
    ],
)
def test_a_client_without_an_address_has_come_over_tls_too(
    header: bytes, fields: bytes, proto: bytes, behind: Doors
) -> None:
    behind.origin.forget()
    with connect(behind.ports[2]) as client:
        client.send(header + request(fields=fields))
        assert client.answer().status == 200
    message = behind.only()
    assert message.value(b"x-forwarded-for") == b"127.0.0.1"
    assert message.value(b"x-forwarded-proto") == proto
    assert message.value(b"forwarded") == b'for=127.0.0.1;host="%b";proto=%b' % (HOST, proto)


def check_client_of_a_balancer(message: Message, proto: bytes) -> None:
    assert message.value(b"x-forwarded-for") == b"203.0.113.7"
    assert message.value(b"x-forwarded-proto") == proto
    assert message.value(b"forwarded") == b'for=203.0.113.7;host="%b";proto=%b' % (HOST, proto)


def test_a_balancer_that_passes_tls_on_is_believed_over_http2(behind: Doors) -> None:
    behind.origin.forget()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    connection = socket.create_connection(("127.0.0.1", behind.ports[3]))
    connection.sendall(b"PROXY TCP4 203.0.113.7 192.0.2.1 %d 443\r\n" % struct.unpack("!H", b"\x40\x00"))
    head = [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/v1/users"), (b":authority", HOST)]
    with Http2Client(context.wrap_socket(connection, server_hostname=HOST.decode())) as client:
        client.start()
        client.send(headers(1, block([*head, (b"x-forwarded-for", b"6.6.6.6")])))
        assert client.answer(1).status == 200
    check_client_of_a_balancer(behind.only(), b"https")


# -- targets


@ways
@pytest.mark.parametrize(
    ("method", "hops", "status", "sent"),
    [
        (b"OPTIONS", b"0", 204, None),
        (b"OPTIONS", b"0" * 10, 204, None),
        (b"OPTIONS", b"0" * 5000, 204, None),
        (b"OPTIONS", b"1", 200, b"0"),
        (b"OPTIONS", b"00000000012", 200, b"11"),
        (b"OPTIONS", b"999999999", 200, b"999999998"),
        (b"OPTIONS", b"1000000000", 200, b"999999999"),
        (b"OPTIONS", b"9999999999", 200, b"999999999"),
        (b"OPTIONS", b"9" * 5000, 200, b"999999999"),
        (b"OPTIONS", b"-0", 200, b"-0"),
        (b"OPTIONS", b"0x0", 200, b"0x0"),
        (b"GET", b"9999999999", 200, b"9999999999"),
        (b"OPTIONS", b"x", 200, b"x"),
        (b"GET", b"0", 200, b"0"),
    ],
)
def test_max_forwards_is_obeyed(
    way: str, method: bytes, hops: bytes, status: int, sent: bytes | None, doors: Doors
) -> None:
    answer = doors.ask(way, fields=[(b"Max-Forwards", hops)], method=method)
    assert answer.status == status
    if sent is None:
        assert b"DELETE" in answer.values(b"allow")[0]
        assert doors.received() == []
    else:
        assert doors.only().value(b"max-forwards") == sent


@pytest.mark.parametrize(
    ("way", "target", "method", "host", "status"),
    [
        ("stock", b"https://%b/v1/users" % HOST, b"GET", HOST, 421),
        ("stock", b"http://%b:443/v1/users" % HOST, b"GET", HOST + b":80", 400),
        ("stock", b"http://%b:80/v1/users" % HOST, b"GET", HOST, 200),
        ("stock", b"http://%b" % HOST, b"OPTIONS", HOST, 204),
        ("stock", b"https://%b" % HOST, b"OPTIONS", HOST, 421),
        ("stock", b"https://%b:443" % HOST, b"OPTIONS", HOST, 421),
        ("stock", b"https://%b/v1/users" % HOST, b"OPTIONS", HOST, 421),
        ("http1", b"https://%b/v1/users" % HOST, b"GET", HOST, 200),
        ("http1", b"https://%b:80/v1/users" % HOST, b"GET", HOST, 400),
        ("http1", b"https://%b" % HOST, b"OPTIONS", HOST, 204),
        ("http1", b"*", b"OPTIONS", HOST, 204),
        ("http2", b"*", b"OPTIONS", HOST, 204),
    ],
)
def test_an_absolute_target_is_of_its_scheme(
    way: str, target: bytes, method: bytes, host: bytes, status: int, doors: Doors
) -> None:
    assert doors.ask(way, target, method=method, host=host).status == status
    assert len(doors.received()) == (status == 200)


@pytest.mark.parametrize("target", [b"https://%b" % HOST, b"https://%b/v1/users" % HOST])
@pytest.mark.parametrize(
    "lines",
    [
        b"",
        b"Max-Forwards: 0\r\n",
        b"Origin: https://app.example.com\r\nAccess-Control-Request-Method: GET\r\n",
    ],
    ids=["alone", "last hop", "preflight"],
)
def test_no_options_of_an_https_url_are_answered_without_tls(target: bytes, lines: bytes, doors: Doors) -> None:
    """Neither by the gateway's own plain port nor by a stock Site; the same over TLS are."""
    for port, secure in ((doors.ports[1], False), (doors.ports[2], False), (doors.ports[0], True)):
        with connect(port, secure=secure) as client:
            client.send(request(target, b"OPTIONS", lines))
            alone = secure and not lines and target.endswith(b"/v1/users")
            assert client.answer().status == (200 if alone else 204 if secure else 421)


def test_a_refused_scheme_says_nothing_of_the_next_request(doors: Doors) -> None:
    with connect(doors.ports[1]) as client:
        for target, status in ((b"/v1/users", 200), (b"https://%b/v1/users" % HOST, 421), (b"/v1/users", 200)):
            client.send(request(target))
            assert client.answer().status == status


@pytest.mark.parametrize(
    ("head", "status"), [(b"X" * 40000, 501), (b"X" * 9000 + b" / HTTP/1.1\r\n", 501), (b"GET /" + b"a" * 9000, 414)]
)
def test_an_overlong_method_is_none(head: bytes, status: int, doors: Doors) -> None:
    with connect(doors.ports[0], secure=True) as client:
        client.send(head)
        assert client.answer().status == status
