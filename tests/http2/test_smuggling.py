"""Nothing that arrives as HTTP/2 may become another HTTP/1.1 message (RFC 9113, 8.2, 8.3 and 10.3).

Each case is a request over HTTP/2, and what a recording service that reads by the strictest grammar gets of it:
nothing where the request is refused, else exactly the message that it means.
"""

from __future__ import annotations

import string as alphabet

import pytest

from tests.kit.http2_client import Http2Client
from tests.kit.http2_frames import (
    CANCEL,
    COMPRESSION_ERROR,
    KEPT,
    PROTOCOL_ERROR,
    Fields,
    block,
    continuation,
    data,
    headers,
    indexed,
    literal,
    reset,
    table_size,
)
from tests.kit.recording import HOST, running

PATH = b"/v1/users"
TOKEN = frozenset((alphabet.ascii_lowercase + alphabet.digits + "!#$%&'*+-.^_`|~").encode())
# What a request that is refused for its meaning, not its form, may be answered.
REFUSALS = (400, 405, 421, 501)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with running(tmp_path_factory.mktemp("gateway"), secure=True) as gateway:
        yield gateway


@pytest.fixture
def gateway(shared):
    """The shared gateway with an empty record, which has logged nothing alarming afterwards."""
    shared.origin.forget()
    yield shared
    shared.assert_quiet()


@pytest.fixture
def client(gateway):
    with Http2Client.connect(gateway.port, HOST) as client:
        yield client.start()


def request(*more: tuple[bytes, bytes], **pseudo: bytes | None) -> Fields:
    """A GET's fields; a keyword replaces a pseudo-header field, None leaves it out."""
    values = {"method": b"GET", "scheme": b"https", "path": PATH, "authority": HOST, **pseudo}
    return [(b":" + name.encode(), value) for name, value in values.items() if value is not None] + list(more)


def post(*more: tuple[bytes, bytes], **pseudo: bytes | None) -> Fields:
    """A POST's fields."""
    return request(*more, **{"method": b"POST", **pseudo})


def check_malformed(client: Http2Client, gateway, *frames: bytes, stream: int = 1) -> None:
    """A stream error, and nothing for the service."""
    client.send(*frames)
    client.refuses(stream, PROTOCOL_ERROR)
    assert client.answers[stream].status in (0, 400), client.described()
    assert gateway.received() == []


def check_refused(client: Http2Client, gateway, *frames: bytes, statuses: tuple[int, ...] = REFUSALS) -> None:
    """A stream error or a refusal in HTTP's terms, and nothing for the service."""
    client.send(*frames)
    while not client.answers[1].status and client.answers[1].reset is None and client.next() is not None:
        pass
    answer = client.answers[1]
    if answer.status:
        assert answer.status in statuses, client.described()
    else:
        client.refuses(1, PROTOCOL_ERROR)
    assert gateway.received() == []


def served(client: Http2Client, gateway, *frames: bytes, stream: int = 1):
    """The one message that the service gets of a request that it answers."""
    client.send(*frames)
    answer = client.answer(stream)
    assert (answer.status, answer.complete) == (200, True), client.described()
    (message,) = gateway.received()
    return message


def spots(odd: int, around: bytes = b"x-test") -> list[bytes]:
    """A word with a byte before, amid and after it."""
    byte = bytes([odd])
    return [byte + around, around[:3] + byte + around[3:], around + byte]


GOOD = (b"accept-language", b"en")


def check_each(client: Http2Client, gateway, heads: list[Fields]) -> None:
    """Each of these is a stream error, and nothing for the service."""
    for number, fields in enumerate(heads):
        stream = 2 * number + 1
        client.send(headers(stream, block(fields)))
        client.refuses(stream, PROTOCOL_ERROR)
        assert client.answers[stream].status in (0, 400), client.described()
    assert gateway.received() == []


# -- names


@pytest.mark.parametrize("odd", [odd for odd in range(256) if odd not in TOKEN], ids=lambda odd: f"0x{odd:02x}")
def test_byte_that_no_name_has(client, gateway, odd):
    """8.2.1: controls, space, capitals, colons and 8-bit bytes are malformed; delimiters are no token (RFC 9110)."""
    bad = [(name, b"value") for name in spots(odd)]
    check_each(client, gateway, [request(field) for field in bad] + [request(GOOD, field, GOOD) for field in bad])


def test_bytes_that_names_have(client, gateway):
    names = [b"x-" + bytes([byte]) + b"y" for byte in sorted(TOKEN - {ord("_")})]
    message = served(client, gateway, headers(1, block(request(*[(name, b"1") for name in names]))))
    assert [name for name in message.names() if name in names] == names


def test_empty_name(client, gateway):
    check_each(client, gateway, [request((b"", b"value")), request(GOOD, (b"", b"value"), GOOD)])


def test_name_that_is_a_line(client, gateway):
    check_malformed(client, gateway, headers(1, block(request((b"x-a: b\r\nx-b", b"value")))))


# -- values

FORBIDDEN = [0x00, 0x0A, 0x0D]
CONTROLS = [odd for odd in (*range(1, 0x20), 0x7F) if odd not in (*FORBIDDEN, 0x09)]


@pytest.mark.parametrize("odd", FORBIDDEN, ids=lambda odd: f"0x{odd:02x}")
@pytest.mark.parametrize("name", [b"x-test", b"cookie", b"user-agent", b"origin", b"accept"])
def test_byte_that_no_value_has(client, gateway, name, odd):
    """8.2.1: NUL, LF and CR are malformed wherever they stand."""
    bad = [(name, value) for value in spots(odd)]
    check_each(client, gateway, [request(field) for field in bad] + [request(GOOD, field, GOOD) for field in bad])


@pytest.mark.parametrize("odd", CONTROLS, ids=lambda odd: f"0x{odd:02x}")
def test_control_in_a_value(client, gateway, odd):
    """RFC 9110 section 5.5: no control in a value; 400 or malformed."""
    check_refused(client, gateway, headers(1, block(request((b"x-test", b"a" + bytes([odd]) + b"b")))))


@pytest.mark.parametrize("value", [b" a", b"\ta", b"a ", b"a\t", b" ", b"\t"])
def test_whitespace_around_a_value(client, gateway, value):
    """8.2.1: malformed."""
    check_each(client, gateway, [request((b"x-test", value)), request(GOOD, (b"x-test", value), GOOD)])


def test_bytes_that_values_have(client, gateway):
    value = b"a \t" + bytes(range(0x21, 0x7F)) + bytes(range(0x80, 0x100))
    message = served(client, gateway, headers(1, block(request((b"x-test", value), (b"x-empty", b"")))))
    assert message.value(b"x-test") == value
    assert message.value(b"x-empty") == b""


def test_line_in_a_huffman_coded_value(client, gateway):
    bad = literal(b"x-test", b"a\r\nx-b: c", huffman=True)
    check_malformed(client, gateway, headers(1, block(request()) + bad))


def test_bad_field_of_the_dynamic_table(client, gateway):
    """A field that was refused once is refused again when the table gives it back."""
    client.send(headers(1, block(request()) + literal(b"x-test", b"a\nb", KEPT)))
    client.refuses(1, PROTOCOL_ERROR)
    check_malformed(client, gateway, headers(3, block(request()) + indexed(62)), stream=3)


def test_bad_name_of_the_dynamic_table(client, gateway):
    client.send(headers(1, block(request()) + literal(b"X-Test", b"a", KEPT)))
    client.refuses(1, PROTOCOL_ERROR)
    check_malformed(client, gateway, headers(3, block(request()) + literal(62, b"b")), stream=3)


# -- pseudo-header fields


@pytest.mark.parametrize("name", ["method", "scheme", "path", "authority"])
@pytest.mark.parametrize("odd", [0x00, 0x09, 0x0A, 0x0D, 0x20, 0x7F], ids=lambda odd: f"0x{odd:02x}")
def test_odd_byte_in_a_pseudo_field(client, gateway, name, odd):
    """8.3.1: none of them has one."""
    whole = dict(request())[b":" + name.encode()]
    for number, value in enumerate(spots(odd, whole)):
        stream = 2 * number + 1
        client.send(headers(stream, block(request(**{name: value}))))
        while not client.answers[stream].over and client.next() is not None:
            pass
        assert client.answers[stream].status in (0, 400), client.described()
        assert client.answers[stream].reset in (None, 0, PROTOCOL_ERROR)
    assert gateway.received() == []


LINES = b" HTTP/1.1\r\nHost: evil.example\r\nX-Smuggled: "
BAD_PSEUDO = {
    "path without a slash": {"path": b"v1/users"},
    "path of a question": {"path": b"?v1"},
    "path * of GET": {"path": b"*"},
    "path with lines": {"path": PATH + LINES},
    "path with a space": {"path": PATH + b" x"},
    "query with a space": {"path": PATH + b"?a b"},
    "query with lines": {"path": PATH + b"?a" + LINES},
    "path with a fragment": {"path": PATH + b"#a"},
    "path of 8 bits": {"path": PATH + b"\xe4"},
    "dot segments": {"path": PATH + b"/../admin"},
    "escaped dot segments": {"path": PATH + b"/%2e%2e/admin"},
    "escaped slash": {"path": PATH + b"%2fadmin"},
    "escaped NUL": {"path": PATH + b"%00"},
    "bad escape": {"path": PATH + b"%zz"},
    "backslash": {"path": PATH + b"\\admin"},
    "absolute path": {"path": b"https://evil.example" + PATH},
    "absolute path of another scheme": {"path": b"ftp://" + HOST + PATH},
    "method with lines": {"method": b"GET" + b" / HTTP/1.1\r\nX: "},
    "method with a space": {"method": b"GET /v1/admin"},
    "method in lower case": {"method": b"get"},
    "unknown method": {"method": b"BREW"},
    "method that is no token": {"method": b"G(T"},
    "empty method": {"method": b""},
    "TRACE": {"method": b"TRACE"},
    "CONNECT with path and scheme": {"method": b"CONNECT"},
    "CONNECT": {"method": b"CONNECT", "path": None, "scheme": None},
    "CONNECT to another port": {"method": b"CONNECT", "path": None, "scheme": None, "authority": b"127.0.0.1:22"},
    "PRI": {"method": b"PRI", "path": b"*"},
    "empty scheme": {"scheme": b""},
    "another scheme": {"scheme": b"ftp"},
    "scheme that is a URL": {"scheme": b"https://evil.example/?"},
    "scheme with lines": {"scheme": b"https\r\nx: y"},
    "authority with userinfo": {"authority": b"user@" + HOST},
    "authority with password": {"authority": b"user:word@" + HOST},
    "authority with a path": {"authority": HOST + b"/v1"},
    "authority with lines": {"authority": HOST + b"\r\nX-Smuggled: 1"},
    "authority with a bad port": {"authority": HOST + b":x"},
    "authority with a port too high": {"authority": HOST + b":70000"},
    "authority that is a list": {"authority": HOST + b"," + HOST},
    "authority of 8 bits": {"authority": b"\xe4." + HOST},
    "empty authority": {"authority": b""},
    "no authority and no host": {"authority": None},
    "another authority": {"authority": b"evil.example"},
}  # fmt: skip


@pytest.mark.parametrize("pseudo", BAD_PSEUDO.values(), ids=list(BAD_PSEUDO))
def test_bad_pseudo_field(client, gateway, pseudo):
    """8.3.1, 8.5: refused, malformed or not."""
    check_refused(client, gateway, headers(1, block(request(**pseudo))))


GET_FIELDS = request()
MALFORMED_HEADS = {
    "unknown pseudo field": [*GET_FIELDS, (b":test", b"a")],
    "empty pseudo name": [*GET_FIELDS, (b":", b"a")],
    ":status": [*GET_FIELDS, (b":status", b"200")],
    ":protocol of GET": [*GET_FIELDS, (b":protocol", b"websocket")],
    "late :path": [*GET_FIELDS[:2], (b"x-test", b"a"), *GET_FIELDS[2:]],
    "late :authority": [*GET_FIELDS[:3], (b"x-test", b"a"), GET_FIELDS[3]],
    "second :path at the end": [*GET_FIELDS, (b"x-test", b"a"), (b":path", b"/v1/admin")],
    "second :authority": [*GET_FIELDS, (b":authority", b"evil.example")],
    "second :method": [*GET_FIELDS, (b":method", b"POST")],
    "no :path": request(path=None),
    "no :method": request(method=None),
    "no :scheme": request(scheme=None),
    "empty :path": request(path=b""),
    "nothing at all": [],
    "capital pseudo name": [(b":Method", b"GET"), *GET_FIELDS[1:]],
}  # fmt: skip


@pytest.mark.parametrize("fields", MALFORMED_HEADS.values(), ids=list(MALFORMED_HEADS))
def test_malformed_head(client, gateway, fields):
    """8.3: a stream error."""
    check_malformed(client, gateway, headers(1, block(fields)))


@pytest.mark.parametrize("scheme", [b"http", b"HTTPS", b"Https"])
def test_scheme_that_is_not_the_connection_s(client, gateway, scheme):
    """Whether it is served or not, what the service learns is how the client came."""
    client.send(headers(1, block(request(scheme=scheme))))
    while not client.answers[1].over and client.next() is not None:
        pass
    messages = gateway.received()
    assert [message.value(b"x-forwarded-proto") for message in messages] == [b"https"] * len(messages)
    assert client.answers[1].status in ((200,) if messages else (0, 400, 421))


def test_paths_reach_the_service_as_they_are(client, gateway):
    path = PATH + b"//a;b=c/%0d%0a%20%41%C3%A4?x=%0d%0aHost:y&z=../%2e%00"
    assert served(client, gateway, headers(1, block(request(path=path)))).target == path


def test_asterisk_of_options(client, gateway):
    """8.3.1: the only path without a slash; the gateway answers it."""
    client.send(headers(1, block(request(method=b"OPTIONS", path=b"*"))))
    assert client.answer().status in (200, 204)
    assert gateway.received() == []


# -- host


def test_authority_becomes_host(client, gateway):
    message = served(client, gateway, headers(1, block(request(authority=b"KODER.id.koder.dev:443"))))
    assert message.values(b"host") == [b"KODER.id.koder.dev:443"]


def test_host_without_authority(client, gateway):
    message = served(client, gateway, headers(1, block(request((b"host", HOST), authority=None))))
    assert message.values(b"host") == [HOST]


def test_host_that_agrees(client, gateway):
    message = served(client, gateway, headers(1, block(request((b"host", HOST)))))
    assert message.values(b"host") == [HOST]


@pytest.mark.parametrize(
    "hosts",
    [[b"acme.id.koder.dev"], [b"evil.example"], [HOST, HOST], [HOST, b"evil.example"], [b""], [HOST + b"," + HOST]],
    ids=["another tenant", "a foreign one", "twice", "two", "empty", "a list"],
)
def test_host_that_disagrees(client, gateway, hosts):
    """8.3.1: another host than the authority is malformed; a second Host is refused."""
    check_refused(client, gateway, headers(1, block(request(*[(b"host", host) for host in hosts]))), statuses=(400,))


@pytest.mark.parametrize("hosts", [[HOST, HOST], [HOST, b"evil.example"], [b""], [b"user@" + HOST], [b"a b"]])
def test_bad_host_without_authority(client, gateway, hosts):
    fields = request(*[(b"host", host) for host in hosts], authority=None)
    check_refused(client, gateway, headers(1, block(fields)), statuses=(400, 421))


# -- connection fields

CONNECTION_FIELDS = [
    (b"connection", b"close"),
    (b"connection", b"x-test"),
    (b"connection", b""),
    (b"keep-alive", b"timeout=5"),
    (b"proxy-connection", b"keep-alive"),
    (b"upgrade", b"websocket"),
    (b"upgrade", b"h2c"),
    (b"transfer-encoding", b"chunked"),
    (b"transfer-encoding", b"identity"),
    (b"transfer-encoding", b""),
    (b"te", b"gzip"),
    (b"te", b"trailers, gzip"),
    (b"te", b"chunked"),
]


@pytest.mark.parametrize("field", CONNECTION_FIELDS, ids=lambda field: b" ".join(field).decode())
def test_connection_field(client, gateway, field):
    """8.2.2: malformed."""
    check_malformed(client, gateway, headers(1, block(request(field))))


@pytest.mark.parametrize("field", CONNECTION_FIELDS, ids=lambda field: b" ".join(field).decode())
def test_connection_field_before_a_body(client, gateway, field):
    smuggled = b"0\r\n\r\nGET /v1/admin HTTP/1.1\r\nHost: " + HOST + b"\r\n\r\n"
    check_malformed(client, gateway, headers(1, block(post(field)), end=False), data(1, smuggled, end=True))


def test_te_of_trailers(client, gateway):
    """8.2.2: allowed, and a matter of each connection."""
    message = served(client, gateway, headers(1, block(request((b"te", b"trailers")))))
    assert message.values(b"te") in ([], [b"trailers"])


# -- bodies


def test_body_with_its_length(client, gateway):
    fields = post((b"content-length", b"4"))
    message = served(client, gateway, headers(1, block(fields), end=False), data(1, b"test", end=True))
    assert (message.body, message.values(b"content-length")) == (b"test", [b"4"])
    assert message.values(b"transfer-encoding") == []


def test_body_without_a_length(client, gateway):
    message = served(
        client,
        gateway,
        headers(1, block(post()), end=False),
        data(1, b"te", pad=9),
        data(1),
        data(1, b"st", end=True),
    )
    assert message.body == b"test"


def test_body_that_looks_like_chunks(client, gateway):
    body = b"0\r\n\r\nGET /v1/admin HTTP/1.1\r\nHost: " + HOST + b"\r\n\r\n"
    message = served(client, gateway, headers(1, block(post()), end=False), data(1, body, end=True))
    assert message.body == body


def test_body_of_a_get(client, gateway):
    """It is framed or refused: the next request is its own."""
    client.send(headers(1, block(request()), end=False), data(1, b"GET /x HTTP/1.1\r\n\r\n", end=True))
    client.send(headers(3, block(request(path=PATH + b"/next"))))
    assert client.answer(3).status == 200
    messages = gateway.received()
    assert [message.body for message in messages if message.target == PATH] in ([b"GET /x HTTP/1.1\r\n\r\n"], [])
    assert [message.body for message in messages if message.target != PATH] == [b""]


def test_empty_body_by_data(client, gateway):
    message = served(client, gateway, headers(1, block(post()), end=False), data(1, end=True))
    assert message.body == b""


def test_no_body_has_no_framing_of_its_own(client, gateway):
    message = served(client, gateway, headers(1, block(request())))
    assert message.values(b"content-length") + message.values(b"transfer-encoding") == []


def test_length_of_nothing(client, gateway):
    message = served(client, gateway, headers(1, block(post((b"content-length", b"0")))))
    assert message.body == b""


DIFFERENCES = {
    "more than there is": ([b"5"], [b"test"]),
    "less than there is": ([b"3"], [b"test"]),
    "less than the second DATA": ([b"4"], [b"test", b"GET / HTTP/1.1\r\n\r\n"]),
    "none where there is some": ([b"0"], [b"test"]),
    "a body announced and none": ([b"4"], []),
}
BAD_LENGTHS = {
    "two that differ": [b"4", b"5"],
    "a list that differs": [b"4, 5"],
    "a list": [b"4, 4"],
    "a plus": [b"+4"],
    "a minus": [b"-4"],
    "hexadecimal": [b"0x4"],
    "a fraction": [b"4.0"],
    "a space within": [b"4 4"],
    "an underscore": [b"0_4"],
    "a word": [b"four"],
    "empty": [b""],
    "other digits": ["\u0664".encode()],
    "beyond 64 bits": [b"18446744073709551620"],
}


def with_lengths(lengths: list[bytes], bodies: list[bytes]) -> list[bytes]:
    """A POST with these lengths and these DATA frames."""
    frames = [headers(1, block(post(*[(b"content-length", length) for length in lengths])), end=not bodies)]
    return frames + [data(1, body, end=number == len(bodies)) for number, body in enumerate(bodies, 1)]


@pytest.mark.parametrize(("lengths", "bodies"), DIFFERENCES.values(), ids=list(DIFFERENCES))
def test_length_against_data(client, gateway, lengths, bodies):
    """8.1.1: malformed. The service gets no whole message, or the part of the body that was announced."""
    client.send(*with_lengths(lengths, bodies))
    client.refuses(1, PROTOCOL_ERROR)
    assert client.answers[1].status in (0, 400, 413), client.described()
    assert all(len(message.body) == int(lengths[0]) for message in gateway.received())
    gateway.origin.wait_until(lambda: not gateway.origin.unfinished)


@pytest.mark.parametrize("lengths", BAD_LENGTHS.values(), ids=list(BAD_LENGTHS))
def test_length_that_is_none(client, gateway, lengths):
    """RFC 9110 section 8.6: digits and nothing else."""
    check_refused(client, gateway, *with_lengths(lengths, [b"test"]), statuses=(400, 413))


def test_length_twice_the_same(client, gateway):
    """RFC 9112 section 6.3 allows one reading; one field or a refusal, never two."""
    client.send(headers(1, block(post((b"content-length", b"4"), (b"content-length", b"4"))), end=False))
    client.send(data(1, b"test", end=True))
    while not client.answers[1].over and client.next() is not None:
        pass
    messages = gateway.received()
    assert [message.values(b"content-length") for message in messages] == [[b"4"]] * len(messages)
    assert client.answers[1].status in ((200,) if messages else (0, 400))


def test_length_of_a_get_without_data(client, gateway):
    """8.1.1: the head says that it is all there is, and a length that there is more."""
    check_malformed(client, gateway, headers(1, block(request((b"content-length", b"4")))))


def test_body_that_is_reset(client, gateway):
    """The service sees a cut message, never a clean end."""
    client.send(headers(1, block(post()), end=False), data(1, b"half"))
    gateway.origin.wait_until(lambda: gateway.origin.unfinished)
    client.send(reset(1, CANCEL))
    gateway.origin.wait_until(lambda: not gateway.origin.unfinished)
    client.lives()
    assert gateway.received() == []


# -- trailers


def with_trailers(*trailers: tuple[bytes, bytes]) -> tuple[bytes, ...]:
    """A POST with trailers."""
    return (headers(1, block(post()), end=False), data(1, b"test"), headers(1, block(list(trailers))))


def test_trailers_reach_the_service(client, gateway):
    message = served(client, gateway, *with_trailers((b"x-sum", b"abc")))
    assert (message.body, message.trailers) == (b"test", [(b"x-sum", b"abc")])


@pytest.mark.parametrize(
    "field",
    [
        (b"host", b"evil.example"),
        (b"content-length", b"99"),
        (b"authorization", b"Bearer x"),
        (b"x-tenant-id", b"globex"),
        (b"x_tenant_id", b"globex"),
        (b"x-forwarded-for", b"1.2.3.4"),
        (b"trailer", b"x"),
    ],
    ids=lambda field: field[0].decode(),
)
def test_field_that_is_no_trailer(client, gateway, field):
    """RFC 9110 section 6.5.1: dropped, or the request is malformed."""
    client.send(*with_trailers(field, (b"x-sum", b"abc")))
    while not client.answers[1].over and client.next() is not None:
        pass
    for message in gateway.received():
        assert field[0] not in [name.lower() for name, _ in message.trailers]
        assert field[0] not in (b"content-length", b"authorization") or message.values(field[0]) == []


@pytest.mark.parametrize(
    "field",
    [
        (b":path", b"/v1/admin"),
        (b":status", b"200"),
        (b"connection", b"close"),
        (b"transfer-encoding", b"chunked"),
        (b"X-Sum", b"a"),
        (b"x-sum", b"a\r\nx: y"),
        (b"x-sum", b"a\0"),
        (b"x sum", b"a"),
        (b"x-sum:", b"a"),
        (b"", b"a"),
    ],
    ids=lambda field: repr(b": ".join(field))[2:-1],
)
def test_malformed_trailers(client, gateway, field):
    """8.1, 8.2: a stream error; the service never gets a clean end."""
    check_malformed(client, gateway, *with_trailers((b"x-first", b"1"), field))
    gateway.origin.wait_until(lambda: not gateway.origin.unfinished)


def test_trailers_against_the_length(client, gateway):
    fields = post((b"content-length", b"5"))
    check_malformed(
        client, gateway, headers(1, block(fields), end=False), data(1, b"test"), headers(1, block([(b"x-sum", b"1")]))
    )
    gateway.origin.wait_until(lambda: not gateway.origin.unfinished)


# -- fields


def test_cookie_crumbs_are_joined(client, gateway):
    """8.2.3."""
    crumbs = [(b"cookie", b"a=b"), (b"x-between", b"1"), (b"cookie", b"c=d"), (b"cookie", b"e=f")]
    message = served(client, gateway, headers(1, block(request(*crumbs))))
    assert message.values(b"cookie") == [b"a=b; c=d; e=f"]


def test_one_cookie_is_left_as_it_is(client, gateway):
    message = served(client, gateway, headers(1, block(request((b"cookie", b"a=b; c=d")))))
    assert message.values(b"cookie") == [b"a=b; c=d"]


def test_repeated_fields_stay_apart_and_in_order(client, gateway):
    fields = [(b"accept", b"a"), (b"x-test", b"1"), (b"accept", b"b"), (b"x-test", b"2")]
    message = served(client, gateway, headers(1, block(request(*fields))))
    kept = [(name.lower(), value) for name, value in message.fields if name.lower() in (b"accept", b"x-test")]
    assert kept == fields


@pytest.mark.parametrize(
    "field",
    [
        (b"x_tenant_id", b"acme"),
        (b"x_test", b"1"),
        (b"x-forwarded-for", b"1.2.3.4"),
        (b"x-forwarded-host", b"evil.example"),
        (b"x-forwarded-proto", b"http"),
        (b"forwarded", b"for=1.2.3.4"),
        (b"x-real-ip", b"1.2.3.4"),
    ],
    ids=lambda field: field[0].decode(),
)
def test_spoofed_field(client, gateway, field):
    """What the gateway says of the client is its own."""
    message = served(client, gateway, headers(1, block(request(field))))
    assert field[1] not in message.values(field[0])
    assert message.values(b"x-tenant-id") == [b"koder"]
    assert message.values(b"x-forwarded-proto") == [b"https"]
    assert message.values(b"x-forwarded-host") == [HOST]


def test_tenant_that_contradicts(client, gateway):
    check_refused(client, gateway, headers(1, block(request((b"x-tenant-id", b"acme")))), statuses=(400,))


def test_version_of_the_request_line_and_via(client, gateway):
    """The service gets HTTP/1.1 from a gateway that received 2."""
    message = served(client, gateway, headers(1, block(request())))
    assert (message.method, message.target) == (b"GET", PATH)
    assert message.value(b"via") in (b"2 koder-gateway", b"2.0 koder-gateway", b"1.1 koder-gateway")


def test_block_in_pieces(client, gateway):
    """Fields mean the same however their block is cut."""
    whole = block(request((b"cookie", b"a=b"), (b"cookie", b"c=d"), (b"x-test", b"1")))
    cuts = range(1, len(whole), len(whole) // 12)
    pieces = [whole[start:end] for start, end in zip((0, *cuts), (*cuts, len(whole)), strict=True)]
    frames = [continuation(1, piece, done=piece is pieces[-1]) for piece in pieces[1:]]
    message = served(client, gateway, headers(1, pieces[0], done=False), *frames)
    assert message.values(b"cookie") == [b"a=b; c=d"]
    assert message.value(b"x-test") == b"1"


def test_streams_do_not_mix(client, gateway):
    """Bodies that come interleaved reach the service each on its own."""
    streams = range(1, 21, 2)
    for stream in streams:
        client.send(headers(stream, block(post(path=PATH + b"/%d" % stream)), end=False))
    for _ in range(3):
        client.send(*[data(stream, b"%03d" % stream) for stream in streams])
    client.send(*[data(stream, end=True) for stream in streams])
    assert [client.answer(stream).status for stream in streams] == [200] * len(streams)
    bodies = {message.target: message.body for message in gateway.received()}
    assert bodies == {PATH + b"/%d" % stream: b"%03d" % stream * 3 for stream in streams}


# -- one client's fields are never another's


def odd(number: int) -> int:
    """The stream of the request of this number."""
    return 2 * number + 1


def test_the_same_bytes_mean_what_the_table_holds(client, gateway):
    """RFC 7541 section 2.2: an index means what was put there last, however often the same block has come."""
    again = block(request()) + indexed(62)
    for number in range(40):
        client.send(headers(4 * number + 1, block(request()) + literal(b"x-test", b"%d" % (number % 3), KEPT)))
        client.send(headers(4 * number + 3, again))
        assert client.answer(4 * number + 3).status == client.answer(4 * number + 1).status == 200
    came = [message.value(b"x-test") for message in gateway.received()]
    assert sorted(came) == sorted(b"%d" % (number % 3) for number in range(40) for _ in range(2))


def test_a_field_that_is_kept_is_kept_each_time(client, gateway):
    """A block that is known already still changes the table."""
    same = block(request()) + literal(b"x-test", b"same", KEPT)
    for stream in (1, 3, 5):
        client.send(headers(stream, same))
    client.send(headers(7, block(request()) + literal(b"x-test", b"other", KEPT)))
    # The newest first: other, same, same, same
    client.send(headers(9, block(request(path=PATH + b"/last")) + indexed(62) + indexed(63) + indexed(65)))
    assert [client.answer(stream).status for stream in (1, 3, 5, 7, 9)] == [200] * 5
    (last,) = [message for message in gateway.received() if message.target.endswith(b"/last")]
    assert last.values(b"x-test") == [b"other", b"same", b"same"]


@pytest.mark.parametrize("how", ["trailers", "a malformed request", "a refused request"])
def test_the_table_changes_by_whatever_comes(client, gateway, how):
    """RFC 9113 section 4.3: every field block counts for the table, whatever becomes of its stream."""
    known = block(request()) + indexed(62)
    client.send(
        headers(1, block(request()) + literal(b"x-test", b"before", KEPT)), headers(3, known), headers(5, known)
    )
    added = literal(b"x-test", b"after", KEPT)
    if how == "trailers":
        client.send(headers(7, block(post()), end=False), data(7, b"test"), headers(7, added))
    elif how == "a malformed request":
        client.send(headers(7, block(request((b"X-Bad", b"1"))) + added))
    else:
        client.send(headers(7, block(request(path=b"/nowhere")) + added))
    client.send(headers(9, known))
    assert [client.answer(stream).status for stream in (1, 3, 5, 9)] == [200] * 4
    came = [message.value(b"x-test") for message in gateway.received() if message.method == b"GET"]
    assert sorted(came) == [b"after", b"before", b"before", b"before"]


def test_a_table_size_counts_each_time(client, gateway):
    """RFC 7541 section 6.3: a block that is known already still resizes the table."""
    none, some = table_size(0) + block(request()), table_size(4096) + block(request())
    client.send(headers(1, none), headers(3, none), headers(5, some), headers(7, some), headers(9, none))
    client.send(headers(11, block(request()) + literal(b"x-test", b"1", KEPT)))
    assert [client.answer(stream).status for stream in range(1, 13, 2)] == [200] * 6
    client.send(headers(13, block(request()) + indexed(62)))
    client.breaks(COMPRESSION_ERROR)


def test_tables_of_connections_are_apart(gateway):
    """The same block on two connections, whose tables hold different credentials."""
    block_of_both = block(request()) + indexed(62)
    clients = [Http2Client.connect(gateway.port, HOST).start() for _ in range(3)]
    try:
        for number, client in enumerate(clients):
            client.send(headers(1, block(request()) + literal(b"authorization", b"Bearer %d" % number, KEPT)))
            assert client.answer(1).status == 200
        gateway.origin.forget()
        for turn in range(5):
            for number, client in enumerate(clients):
                path = PATH + b"/%d" % number
                fields = request(path=path)
                client.send(headers(4 * turn + 3, block(fields) + indexed(62)))
                assert client.answer(4 * turn + 3).status == 200
                client.send(headers(4 * turn + 5, block_of_both))
                assert client.answer(4 * turn + 5).status == 200
                break_if_mixed(gateway, number)
        with Http2Client.connect(gateway.port, HOST) as stranger:
            stranger.start().send(headers(1, block_of_both))
            stranger.breaks(COMPRESSION_ERROR)
    finally:
        for client in clients:
            client.close()


def break_if_mixed(gateway, number: int) -> None:
    """All that has come since the last look is of this client."""
    messages = gateway.received()
    gateway.origin.forget()
    assert [message.value(b"authorization") for message in messages] == [b"Bearer %d" % number] * 2


def test_blocks_that_differ_in_one_byte(client, gateway):
    """Many almost alike, more than any memory of them holds."""
    for number in range(300):
        client.send(headers(odd(number), block(request((b"x-number", b"%04d" % number)))))
        assert client.answer(odd(number)).status == 200
    assert [message.value(b"x-number") for message in gateway.received()] == [b"%04d" % n for n in range(300)]


def test_the_same_block_with_and_without_a_body(client, gateway):
    """END_STREAM is no part of the block: what is known of one means nothing for the other."""
    same = block(post())
    for number in range(20):
        if number % 2:
            client.send(headers(odd(number), same))
        else:
            client.send(headers(odd(number), same, end=False), data(odd(number), b"body %d" % number, end=True))
        assert client.answer(odd(number)).status == 200
    bodies = [message.body for message in gateway.received()]
    assert bodies == [b"" if number % 2 else b"body %d" % number for number in range(20)]


def test_the_same_block_with_a_length(client, gateway):
    """A length counts each time that the block comes."""
    same = block(post((b"content-length", b"4")))
    for number in range(9):
        client.send(headers(odd(number), same, end=False), data(odd(number), b"test", end=True))
        assert client.answer(odd(number)).status == 200
    client.send(headers(19, same, end=False), data(19, b"tests", end=True))
    client.refuses(19, PROTOCOL_ERROR)
    client.send(headers(21, same))
    client.refuses(21, PROTOCOL_ERROR)
    assert {message.body for message in gateway.received()} == {b"test"}


def test_tls_name_of_another_host(gateway):
    """A connection may carry requests for every tenant that its certificate covers; each is its own."""
    with Http2Client.connect(gateway.port, HOST) as client:
        client.start()
        for stream, host in ((1, b"acme.id.koder.dev"), (3, HOST), (5, b"acme.id.koder.dev")):
            client.send(headers(stream, block(request(authority=host))))
            client.answer(stream)
        messages = gateway.received()
        assert all(message.value(b"host").startswith(message.value(b"x-tenant-id")) for message in messages)
        assert client.answers[3].status == 200
