"""What a client sends, the gateway and the service must read alike: request smuggling, and whatever leads to it.

Every case is sent over a socket with another request behind it. Either it is refused, nothing of it reaches the
service and the connection ends, or the service gets exactly the messages that RFC 9112 says it is.
"""

from __future__ import annotations

import pytest

from koder_gateway.wire.fields import folded
from tests.kit.http1 import Malformed
from tests.kit.recording import HOST, SETTINGS, request, running

SMUGGLED = request(b"/v1/users/smuggled")
NEXT = request(b"/v1/users/next")
CHUNKED = b"Transfer-Encoding: chunked\r\n"
HELLO = b"5\r\nhello\r\n0\r\n\r\n"
TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


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


in_pieces = pytest.mark.parametrize("piece", [0, 1], ids=["whole", "bytes"])


def post(fields, body=b"", method=b"POST", target=b"/v1/users", version=b"HTTP/1.1"):
    """A request with these field lines and these bytes behind its head, as they are."""
    return b"%b %b %b\r\nHost: %b\r\n%b\r\n%b" % (method, target, version, HOST, fields, body)


def check_refused(gateway, data, piece=0, statuses=(400,)):
    """One refusal, the end of the connection, and no message for the service."""
    with gateway.client() as client:
        client.send(data, piece)
        answer = client.answer()
        assert answer.status in statuses
        assert answer.code == ("not_implemented" if answer.status == 501 else "bad_request")
        assert answer.value(b"connection") == b"close"
        assert client.closed()
    assert gateway.received() == []
    gateway.origin.wait_until(lambda: not gateway.origin.unfinished)


def check_served(gateway, data, *bodies, piece=0, method=b"GET"):
    """Each request is answered by the service, which got these bodies; the messages that it got."""
    with gateway.client() as client:
        client.send(data + NEXT, piece)
        answers = [client.answer(method) for _ in bodies] + [client.answer()]
    assert [answer.status for answer in answers] == [200] * (len(bodies) + 1)
    messages = gateway.received()
    assert [message.body for message in messages] == [*bodies, b""]
    assert messages[-1].target == b"/v1/users/next"
    return messages[:-1]


# -- the transfer coding: 21 odd bytes in 5 places, and what has fooled readers before

ODD_BYTES = b"\x00\x01\x08\t\n\x0b\x0c\r\x1b\x1f \"',;\\\x7f\x80\x85\xa0\xff"
PLACES = [
    ("before the name", b"%bTransfer-Encoding: chunked"),
    ("after the name", b"Transfer-Encoding%b: chunked"),
    ("before the value", b"Transfer-Encoding: %bchunked"),
    ("within the value", b"Transfer-Encoding: chun%bked"),
    ("after the value", b"Transfer-Encoding: chunked%b"),
]
CODINGS = [(f"0x{odd:02x} {place}", pattern % bytes([odd])) for place, pattern in PLACES for odd in ODD_BYTES] + [
    ("as it should be", b"Transfer-Encoding: chunked"),
    ("no space", b"Transfer-Encoding:chunked"),
    ("many spaces", b"Transfer-Encoding:   chunked   "),
    ("tabs", b"Transfer-Encoding:\tchunked\t"),
    ("capital value", b"Transfer-Encoding: CHUNKED"),
    ("mixed value", b"Transfer-Encoding: cHuNkEd"),
    ("lower name", b"transfer-encoding: chunked"),
    ("capital name", b"TRANSFER-ENCODING: chunked"),
    ("mixed name", b"tRANSFER-eNCODING: chunked"),
    ("empty", b"Transfer-Encoding:"),
    ("blank", b"Transfer-Encoding:  \t"),
    ("comma after", b"Transfer-Encoding: chunked,"),
    ("comma before", b"Transfer-Encoding: ,chunked"),
    ("twice in a list", b"Transfer-Encoding: chunked, chunked"),
    ("twice", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
    ("identity before", b"Transfer-Encoding: identity, chunked"),
    ("identity after", b"Transfer-Encoding: chunked, identity"),
    ("gzip before", b"Transfer-Encoding: gzip, chunked"),
    ("gzip after", b"Transfer-Encoding: chunked, gzip"),
    ("gzip in a field before", b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"),
    ("gzip in a field after", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip"),
    ("identity in a field before", b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked"),
    ("identity in a field after", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
    ("empty field before", b"Transfer-Encoding:\r\nTransfer-Encoding: chunked"),
    ("empty field after", b"Transfer-Encoding: chunked\r\nTransfer-Encoding:"),
    ("parameter", b"Transfer-Encoding: chunked;a=b"),
    ("weight", b"Transfer-Encoding: chunked;q=1"),
    ("quoted", b'Transfer-Encoding: "chunked"'),
    ("single-quoted", b"Transfer-Encoding: 'chunked'"),
    ("bracketed", b"Transfer-Encoding: [chunked]"),
    ("x-", b"Transfer-Encoding: xchunked"),
    ("plural", b"Transfer-Encoding: chunkeds"),
    ("cut", b"Transfer-Encoding: chunke"),
    ("chunk", b"Transfer-Encoding: chunk"),
    ("equals", b"Transfer-Encoding: =chunked"),
    ("colon", b"Transfer-Encoding: : chunked"),
    ("two colons", b"Transfer-Encoding:: chunked"),
    ("no colon", b"Transfer-Encoding chunked"),
    ("equals for a colon", b"Transfer-Encoding= chunked"),
    ("semicolon for a colon", b"Transfer-Encoding; chunked"),
    ("folded value", b"Transfer-Encoding:\r\n chunked"),
    ("folded with a tab", b"Transfer-Encoding:\r\n\tchunked"),
    ("folded after", b"Transfer-Encoding: chunked\r\n , identity"),
    ("fold of a fold", b"X: X\r\n Transfer-Encoding: chunked"),
    ("LF before", b"X: X\nTransfer-Encoding: chunked"),
    ("CR before", b"X: X\rTransfer-Encoding: chunked"),
    ("CR CR LF before", b"X: X\r\r\nTransfer-Encoding: chunked"),
    ("LF CR before", b"X: X\n\rTransfer-Encoding: chunked"),
    ("NUL LF before", b"X: X\x00\nTransfer-Encoding: chunked"),
    ("UTF-8 mark before", b"\xef\xbb\xbfTransfer-Encoding: chunked"),
    ("dotless", b"Transfer-Encod\xc4\xb1ng: chunked"),
    ("Kelvin", b"Transfer-Encoding: chun\xe2\x84\xaaed"),
    ("space for the hyphen", b"Transfer Encoding: chunked"),
    ("underscore for the hyphen", b"Transfer_Encoding: chunked"),
    ("dot for the hyphen", b"Transfer.Encoding: chunked"),
    ("no hyphen", b"TransferEncoding: chunked"),
    ("two hyphens", b"Transfer--Encoding: chunked"),
    ("a prefix", b"X-Transfer-Encoding: chunked"),
    ("an ending", b"Transfer-Encoding-X: chunked"),
    ("cut name", b"Transfer-Encodin: chunked"),
    ("short name", b"TE: chunked"),
    ("escaped", b"Transfer%2dEncoding: chunked"),
    ("after an upgrade", b"Connection: Upgrade\r\nUpgrade: a\r\nTransfer-Encoding: gzip, chunked"),
    ("gzip with an upgrade", b"Connection: Upgrade\r\nUpgrade: a\r\nTransfer-Encoding: gzip"),
    ("with an upgrade", b"Connection: Upgrade\r\nUpgrade: a\r\nTransfer-Encoding: chunked"),
]
REFUSED, HANDLED, OTHER, EITHER = "refused", "handled", "other", "either"


def coding_verdict(lines):
    """What RFC 9112 and RFC 9110 make of these field lines: a chunked body, an unrelated field, or neither."""
    codings = []
    for line in lines.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if not colon or not name or not TOKEN.issuperset(name):
            return REFUSED
        if any((byte < 32 and byte != 9) or byte == 127 for byte in value):
            return REFUSED
        if name.lower() == b"transfer-encoding":
            codings.append(value.strip(b" \t").lower())
    if not codings:
        return OTHER
    if codings != [b"chunked"]:
        return REFUSED
    # White space around a value is no part of it, yet a tab behind it has fooled others: both readings are safe.
    return EITHER if lines.endswith(b"\t") else HANDLED


@by_name(CODINGS)
@in_pieces
def test_a_transfer_coding_is_chunked_or_refused(gateway, case, piece):
    lines = case[1] + b"\r\n"
    verdict = coding_verdict(case[1])
    if verdict == EITHER:
        verdict = HANDLED if gateway.ask(post(lines, HELLO)).status == 200 else REFUSED
        gateway.received()
        gateway.origin.forget()
    if verdict == HANDLED:
        [message] = check_served(gateway, post(lines, HELLO), b"hello", piece=piece)
        assert message.values(b"transfer-encoding") == [b"chunked"]
    elif verdict == REFUSED:
        check_refused(gateway, post(lines, HELLO + SMUGGLED), piece, (400, 501))
    else:
        [message] = check_served(gateway, post(lines), b"", piece=piece)
        assert message.values(b"transfer-encoding") == []


@by_name(CODINGS)
@pytest.mark.parametrize("order", ["length first", "length last"])
def test_a_length_beside_a_transfer_coding_is_refused(gateway, case, order):
    length = b"Content-Length: %d\r\n" % len(HELLO)
    lines = length + case[1] + b"\r\n" if order == "length first" else case[1] + b"\r\n" + length
    if coding_verdict(case[1]) == OTHER:
        [message] = check_served(gateway, post(lines, HELLO), HELLO)
        assert message.values(b"transfer-encoding") == []
    else:
        check_refused(gateway, post(lines, HELLO + SMUGGLED), 0, (400, 501))


@pytest.mark.parametrize("coding", [b"chunked", b"gzip", b"gzip, chunked", b"identity"])
def test_http_1_0_knows_no_transfer_coding(gateway, coding):
    fields = b"Connection: keep-alive\r\nTransfer-Encoding: %b\r\n" % coding
    check_refused(gateway, post(fields, HELLO + SMUGGLED, version=b"HTTP/1.0"), 0, (400, 501))


def test_a_flood_of_invented_names_does_not_hide_a_transfer_coding(tmp_path):
    with running(tmp_path) as gateway, gateway.client() as client:
        for flood in range(30):
            client.send(request(fields=b"".join(b"X-%d-%d: 1\r\n" % (flood, n) for n in range(90))))
            assert client.answer().status == 200
        gateway.received()
        gateway.origin.forget()
        for coding in (b"gzip, chunked", b"chunked, identity", b"identity, chunked"):
            check_refused(gateway, post(b"tRaNSFeR-eNCoDiNG: %b\r\n" % coding, HELLO + SMUGGLED), 0, (400, 501))
        check_refused(gateway, post(b"cOnTeNt-lEnGtH: 5\r\ntRaNSFeR-eNCoDiNG: chunked\r\n", HELLO + SMUGGLED))
        [message] = check_served(
            gateway, post(b"tRaNSFeR-eNCoDiNG: chunked\r\nx_tEnAnT_iD: acme\r\n", HELLO), b"hello"
        )
        assert [value for name, value in message.fields if b"tenant" in name.lower()] == [b"koder"]
        gateway.assert_quiet()


# -- the length

LENGTHS = [
    ("plain", b"5", b"hello"),
    ("leading zero", b"05", b"hello"),
    ("leading zeros", b"0000000005", b"hello"),
    ("spaces around", b"  5  ", b"hello"),
    ("tabs around", b"\t5\t", b"hello"),
    ("zero", b"0", b""),
    ("zeros", b"000", b""),
    ("plus", b"+5", None),
    ("minus", b"-5", None),
    ("minus zero", b"-0", None),
    ("plus zero", b"+0", None),
    ("hexadecimal", b"0x5", None),
    ("octal", b"0o5", None),
    ("binary", b"0b101", None),
    ("fraction", b"5.0", None),
    ("exponent", b"5e0", None),
    ("underscore", b"0_5", None),
    ("thousands", b"0,005", None),
    ("spaces within", b"0 5", None),
    ("tab within", b"0\t5", None),
    ("list of equals", b"5, 5", None),
    ("list without spaces", b"5,5", None),
    ("list of different", b"5, 6", None),
    ("empty list member", b"5,", None),
    ("empty list member first", b",5", None),
    ("empty", b"", None),
    ("blank", b"   ", None),
    ("word", b"five", None),
    ("letter after", b"5a", None),
    ("letter before", b"a5", None),
    ("semicolon", b"5;a", None),
    ("quoted", b'"5"', None),
    ("NUL after", b"5\x00", None),
    ("NUL before", b"\x005", None),
    ("vertical tab", b"\x0b5", None),
    ("form feed", b"5\x0c", None),
    ("no-break space", b"\xa05", None),
    ("full-width digit", b"\xef\xbc\x95", None),
    ("superscript digit", b"\xb2", None),
    ("Arabic digit", b"\xd9\xa5", None),
    ("CR", b"5\r", None),
    ("LF", b"5\n", None),
    ("CR within", b"5\r5", None),
    ("2^63", b"9223372036854775808", None),
    ("2^64", b"18446744073709551616", None),
    ("2^64 + 5", b"18446744073709551621", None),
    ("2^128 + 5", b"340282366920938463463374607431768211461", None),
    ("5000 nines", b"9" * 5000, None),
    ("5000 zeros", b"0" * 5000, None),
]


@by_name(LENGTHS)
@in_pieces
def test_a_length_is_digits_or_refused(gateway, case, piece):
    _, value, body = case
    if len(value) > 1000 and piece:
        piece = 100
    data = post(b"Content-Length: %b\r\n" % value, b"hello" if body is None else body)
    if body is None:
        check_refused(gateway, data + SMUGGLED, piece)
    else:
        [message] = check_served(gateway, data, body, piece=piece)
        assert [int(length) for length in message.values(b"content-length")] == [len(body)]


FIVE, SIX = b"Content-Length: 5\r\n", b"Content-Length: 6\r\n"
LENGTH_PAIRS = [
    ("different", FIVE + SIX),
    ("different the other way", SIX + FIVE),
    ("equal", FIVE + FIVE),
    ("apart", FIVE + b"X-A: b\r\n" + SIX),
    ("other case", FIVE + b"content-length: 6\r\n"),
    ("leading zero", FIVE + b"Content-Length: 05\r\n"),
    ("empty first", b"Content-Length:\r\n" + FIVE),
    ("empty last", FIVE + b"Content-Length:\r\n"),
    ("zero first", b"Content-Length: 0\r\n" + FIVE),
    ("three", FIVE * 3),
    ("space before a colon", FIVE + b"Content-Length : 6\r\n"),
    ("tab before the colon", b"Content-Length\t: 5\r\n"),
    ("folded", b"Content-Length:\r\n 5\r\n"),
    ("fold after", FIVE + b" 6\r\n"),
    ("fold of a fold", b"X: X\r\n Content-Length: 5\r\n"),
    ("LF between", b"Content-Length: 5\nContent-Length: 6\r\n"),
    ("NUL in the name", b"Content-\x00Length: 5\r\n"),
]


@by_name(LENGTH_PAIRS)
@in_pieces
def test_two_lengths_or_a_bent_one_are_refused(gateway, case, piece):
    check_refused(gateway, post(case[1], b"hello" + SMUGGLED), piece)


@pytest.mark.parametrize(
    "name",
    [
        b"Content_Length",
        b"Content.Length",
        b"ContentLength",
        b"X-Content-Length",
        b"Content-Length-X",
        b"Content-Lengt",
    ],
)
def test_another_name_is_no_length(gateway, name):
    [message] = check_served(gateway, post(b"%b: 5\r\n" % name), b"")
    assert message.values(b"content-length") == []
    # What services would fold to it goes no further.
    assert (name in [n for n, _ in message.fields]) == (folded(name) != b"contentlength")


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"])
@pytest.mark.parametrize(
    ("fields", "body"),
    [(FIVE, b"hello"), (CHUNKED, HELLO), (b"Content-Length: 0\r\n", b""), (CHUNKED, b"0\r\n\r\n"), (b"", b"")],
    ids=["length", "chunked", "no length", "no chunks", "neither"],
)
@in_pieces
def test_every_method_may_have_a_body(gateway, method, fields, body, piece):
    expected = b"hello" if b"hello" in body else b""
    [message] = check_served(gateway, post(fields, body, method), expected, method=method, piece=piece)
    assert message.method == method
    framing = [fields.partition(b":")[0]] if fields else []
    if fields == CHUNKED and not expected:
        # Chunks that come to nothing are no body, as over HTTP/2: where one is usual the service is told its length.
        framing = [b"Content-Length"] if method in (b"POST", b"PUT", b"PATCH") else []
    assert [line for line in (b"Content-Length", b"Transfer-Encoding") if message.values(line)] == framing


# -- chunks: 16 hexadecimal digits of a size, an extension at most, and data that ends where it should

CHUNKS = [
    ("plain", HELLO, b"hello"),
    ("several", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"hello"),
    ("zeros before the size", b"0005\r\nhello\r\n0\r\n\r\n", b"hello"),
    ("lower case", b"a\r\nhellohello\r\n0\r\n\r\n", b"hellohello"),
    ("upper case", b"A\r\nhellohello\r\n0\r\n\r\n", b"hellohello"),
    ("two digits", b"10\r\n0123456789abcdef\r\n0\r\n\r\n", b"0123456789abcdef"),
    ("several zeros at the end", b"5\r\nhello\r\n000\r\n\r\n", b"hello"),
    ("extension", b"5;a\r\nhello\r\n0\r\n\r\n", b"hello"),
    ("extension with a value", b"5;a=b;c\r\nhello\r\n0;d\r\n\r\n", b"hello"),
    ("quoted extension", b'5;a="b;c"\r\nhello\r\n0\r\n\r\n', b"hello"),
    ("line ends in the data", b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", b"\r\n0\r\n\r\n"),
    ("a request in the data", b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED), SMUGGLED),
    ("no size", b"\r\nhello\r\n0\r\n\r\n", None),
    ("hexadecimal prefix", b"0x5\r\nhello\r\n0\r\n\r\n", None),
    ("plus", b"+5\r\nhello\r\n0\r\n\r\n", None),
    ("minus", b"-5\r\nhello\r\n0\r\n\r\n", None),
    ("underscore after", b"5_\r\nhello\r\n0\r\n\r\n", None),
    ("underscore before", b"_5\r\nhello\r\n0\r\n\r\n", None),
    ("underscore within", b"0_5\r\nhello\r\n0\r\n\r\n", None),
    ("space before", b" 5\r\nhello\r\n0\r\n\r\n", None),
    ("space after", b"5 \r\nhello\r\n0\r\n\r\n", None),
    ("tab before", b"\t5\r\nhello\r\n0\r\n\r\n", None),
    ("tab after", b"5\t\r\nhello\r\n0\r\n\r\n", None),
    ("space before an extension", b"5 ;a\r\nhello\r\n0\r\n\r\n", None),
    ("two sizes", b"5 5\r\nhello\r\n0\r\n\r\n", None),
    ("comma", b"5,\r\nhello\r\n0\r\n\r\n", None),
    ("fraction", b"5.0\r\nhello\r\n0\r\n\r\n", None),
    ("no digit", b"g\r\nhello\r\n0\r\n\r\n", None),
    ("a digit and a letter", b"5g\r\nhello\r\n0\r\n\r\n", None),
    ("h", b"5h\r\nhello\r\n0\r\n\r\n", None),
    ("quoted", b'"5"\r\nhello\r\n0\r\n\r\n', None),
    ("NUL after", b"5\x00\r\nhello\r\n0\r\n\r\n", None),
    ("NUL before", b"\x005\r\nhello\r\n0\r\n\r\n", None),
    ("vertical tab after", b"5\x0b\r\nhello\r\n0\r\n\r\n", None),
    ("form feed after", b"5\x0c\r\nhello\r\n0\r\n\r\n", None),
    ("full-width digit", b"\xef\xbc\x95\r\nhello\r\n0\r\n\r\n", None),
    ("2^63", b"8000000000000000\r\nhello\r\n0\r\n\r\n", None),
    ("2^64 - 1", b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n", None),
    ("2^64 + 5", b"10000000000000005\r\nhello\r\n0\r\n\r\n", None),
    ("2^128 + 5", b"100000000000000000000000000000005\r\nhello\r\n0\r\n\r\n", None),
    ("5000 digits", b"0" * 5000 + b"5\r\nhello\r\n0\r\n\r\n", None),
    ("LF after the size", b"5\nhello\r\n0\r\n\r\n", None),
    ("CR after the size", b"5\rhello\r\n0\r\n\r\n", None),
    ("CR CR LF after the size", b"5\r\r\nhello\r\n0\r\n\r\n", None),
    ("LF CR after the size", b"5\n\rhello\r\n0\r\n\r\n", None),
    ("LF after an extension", b"5;a\nhello\r\n0\r\n\r\n", None),
    ("LF in an extension", b"5;a\nb\r\nhello\r\n0\r\n\r\n", None),
    ("CR in an extension", b"5;a\rb\r\nhello\r\n0\r\n\r\n", None),
    ("NUL in an extension", b"5;a\x00\r\nhello\r\n0\r\n\r\n", None),
    ("control byte in an extension", b"5;a\x01\r\nhello\r\n0\r\n\r\n", None),
    ("delete byte in an extension", b"5;a\x7f\r\nhello\r\n0\r\n\r\n", None),
    ("LF in a quoted extension", b'5;a="\n"\r\nhello\r\n0\r\n\r\n', None),
    ("extension in bulk", b"5;" + b"a" * 20000 + b"\r\nhello\r\n0\r\n\r\n", None),
    ("extensions in bulk", (b"1;" + b"a" * 100 + b"\r\nh\r\n") * 200 + b"0\r\n\r\n", None),
    ("one-byte chunks in bulk", b"1\r\nh\r\n" * 12000 + b"0\r\n\r\n", None),
    ("data too long", b"5\r\nhelloo\r\n0\r\n\r\n", None),
    ("data too short", b"6\r\nhello\r\n0\r\n\r\n", None),
    ("data without an end", b"5\r\nhello0\r\n\r\n", None),
    ("LF after the data", b"5\r\nhello\n0\r\n\r\n", None),
    ("CR after the data", b"5\r\nhello\r0\r\n\r\n", None),
    ("CR CR LF after the data", b"5\r\nhello\r\r\n0\r\n\r\n", None),
    ("LF CR after the data", b"5\r\nhello\n\r0\r\n\r\n", None),
    ("two ends after the data", b"5\r\nhello\r\n\r\n0\r\n\r\n", None),
    ("spaces after the data", b"5\r\nhello  \r\n0\r\n\r\n", None),
    ("LF after the last size", b"5\r\nhello\r\n0\n\r\n", None),
    ("LF at the end", b"5\r\nhello\r\n0\r\n\n", None),
    ("only LF", b"5\nhello\n0\n\n", None),
    ("CR and no LF at the end", b"5\r\nhello\r\n0\r\n\rX", None),
    ("hexadecimal last size", b"5\r\nhello\r\n0x0\r\n\r\n", None),
    ("minus zero", b"5\r\nhello\r\n-0\r\n\r\n", None),
    ("space after the last size", b"5\r\nhello\r\n0 \r\n\r\n", None),
    ("trailer without a colon", b"5\r\nhello\r\n0\r\nX\r\n\r\n", None),
    ("trailer without a name", b"5\r\nhello\r\n0\r\n: a\r\n\r\n", None),
    ("space before a trailer's colon", b"5\r\nhello\r\n0\r\nX : a\r\n\r\n", None),
    ("folded trailer", b"5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n", None),
    ("space before a trailer", b"5\r\nhello\r\n0\r\n X: a\r\n\r\n", None),
    ("LF after a trailer", b"5\r\nhello\r\n0\r\nX: a\n\r\n", None),
    ("CR in a trailer", b"5\r\nhello\r\n0\r\nX: a\rb\r\n\r\n", None),
    ("NUL in a trailer", b"5\r\nhello\r\n0\r\nX: a\x00\r\n\r\n", None),
    ("trailers in bulk", b"5\r\nhello\r\n0\r\n" + b"X: a\r\n" * 5000 + b"\r\n", None),
    ("endless trailer", b"5\r\nhello\r\n0\r\nX: " + b"a" * 20000 + b"\r\n\r\n", None),
    ("a request after a bad size", b"0 \r\n" + SMUGGLED, None),
    ("a request for a trailer", b"0\r\n" + SMUGGLED, None),
]


@by_name(CHUNKS)
@pytest.mark.parametrize("piece", [0, 1, 3], ids=["whole", "bytes", "threes"])
def test_chunks_are_read_by_the_book_or_refused(gateway, case, piece):
    _, body, payload = case
    if len(body) > 500 and piece:
        piece *= 500
    data = post(CHUNKED, body)
    if payload is None:
        check_refused(gateway, data + SMUGGLED, piece)
    else:
        [message] = check_served(gateway, data, payload, piece=piece)
        assert message.values(b"transfer-encoding") == [b"chunked"]


def test_a_chunked_body_that_breaks_after_its_beginning_went_on_is_aborted(gateway):
    with gateway.client() as client:
        client.send(post(CHUNKED, b"5\r\nhello\r\n"))
        gateway.origin.wait_until(lambda: b"hello" in b"".join(gateway.origin.unfinished))
        client.send(b"0x5\r\nhello\r\n0\r\n\r\n" + SMUGGLED)
        answer = client.answer()
        assert (answer.status, answer.code) == (400, "bad_request")
        assert client.closed()
    gateway.origin.wait_until(lambda: not gateway.origin.unfinished)
    assert gateway.received() == []


@pytest.mark.parametrize("fields", [b"Content-Length: 100\r\n", CHUNKED], ids=["length", "chunked"])
def test_a_body_that_the_client_cuts_short_is_aborted(gateway, fields):
    with gateway.client() as client:
        client.send(post(fields, b"5\r\nhello\r\n"))
        gateway.origin.wait_until(lambda: b"hello" in b"".join(gateway.origin.unfinished))
    gateway.origin.wait_until(lambda: not gateway.origin.unfinished)
    check_served(gateway, request(), b"")


# -- trailers

TRAILERS = [
    ("checksum", b"X-Checksum: 1\r\n", [(b"X-Checksum", b"1")]),
    ("two", b"X-A: 1\r\nX-B:  2 \r\n", [(b"X-A", b"1"), (b"X-B", b"2")]),
    ("repeated", b"X-A: 1\r\nX-A: 2\r\n", [(b"X-A", b"1"), (b"X-A", b"2")]),
    ("length", b"Content-Length: 50\r\n", []),
    ("coding", b"Transfer-Encoding: chunked\r\n", []),
    ("host", b"Host: acme.id.koder.dev\r\n", []),
    ("authorization", b"Authorization: Bearer x\r\n", []),
    ("cookie", b"Cookie: a=b\r\n", []),
    ("connection", b"Connection: close\r\n", []),
    ("te", b"TE: trailers\r\n", []),
    ("upgrade", b"Upgrade: h2c\r\n", []),
    ("expect", b"Expect: 100-continue\r\n", []),
    ("content type", b"Content-Type: text/html\r\n", []),
    ("content encoding", b"Content-Encoding: gzip\r\n", []),
    ("trailer", b"Trailer: X-A\r\n", []),
    ("tenant", b"X-Tenant-ID: acme\r\n", []),
    ("tenant in odd case", b"x-TENANT-id: acme\r\n", []),
    ("tenant with underscores", b"X_Tenant_ID: acme\r\n", []),
    ("forwarded", b"Forwarded: for=1.2.3.4\r\n", []),
    ("forwarded for", b"X-Forwarded-For: 1.2.3.4\r\n", []),
    ("forwarded proto", b"X-Forwarded-Proto: https\r\n", []),
    ("real address", b"X-Real-IP: 1.2.3.4\r\n", []),
    ("request id", b"X-Request-ID: a\r\n", []),
    ("via", b"Via: 1.1 a\r\n", []),
    ("origin", b"Origin: https://app.example.com\r\n", []),
    ("trace", b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n", []),
    ("underscores", b"Content_Length: 5\r\n", []),
    ("good and bad", b"X-A: 1\r\nX-Tenant-ID: acme\r\nX-B: 2\r\n", [(b"X-A", b"1"), (b"X-B", b"2")]),
]


@by_name(TRAILERS)
@in_pieces
def test_trailers_pass_unless_they_frame_route_or_name_somebody(gateway, case, piece):
    _, lines, passed = case
    data = post(b"Trailer: X-Checksum\r\n" + CHUNKED, b"5\r\nhello\r\n0\r\n%b\r\n" % lines)
    [message] = check_served(gateway, data, b"hello", piece=piece)
    assert message.trailers == passed
    assert message.values(b"trailer") == [b"X-Checksum"]
    assert message.values(b"x-tenant-id") == [b"koder"]


def test_the_tenant_header_of_another_name_is_guarded_as_well(tmp_path):
    settings = SETTINGS.replace("[tenants]", '[tenants]\nheader = "X-Org"')
    with running(tmp_path, settings) as gateway:
        fields = b"X-Org: koder\r\nX_Org: acme\r\nConnection: X-Org\r\n" + CHUNKED
        for piece in (0, 1):
            gateway.origin.forget()
            data = post(fields, b"5\r\nhello\r\n0\r\nX-Org: acme\r\nX-Ok: 1\r\n\r\n")
            [message] = check_served(gateway, data, b"hello", piece=piece)
            assert [field for field in message.fields if b"org" in field[0].lower()] == [(b"X-Org", b"koder")]
            assert message.trailers == [(b"X-Ok", b"1")]
        check_refused_conflict(gateway, b"X-Org: acme\r\n")
        gateway.assert_quiet()


def check_refused_conflict(gateway, fields):
    answer = gateway.ask(request(fields=fields))
    assert (answer.status, answer.code) == (400, "tenant_conflict")


# -- bytes in names, values and lines


NO_TOKEN = [byte for byte in range(256) if byte not in TOKEN and byte != 0x3A]
CONTROL = [*range(9), *range(10, 32), 127]
in_places = pytest.mark.parametrize("place", ["%bX-Ab", "X-A%bb", "X-Ab%b"], ids=["first", "within", "last"])


@pytest.mark.parametrize("byte", NO_TOKEN, ids=hex)
@in_places
def test_a_field_name_is_a_token(gateway, byte, place):
    check_refused(gateway, post(b"%b: v\r\n" % (place.encode() % bytes([byte]))) + SMUGGLED)


@in_places
def test_a_token_is_a_field_name(gateway, place):
    names = [place.encode() % bytes([byte]) for byte in sorted(TOKEN)]
    [message] = check_served(gateway, post(b"".join(b"%b: v\r\n" % name for name in names)), b"")
    # All but the underscore's, which some services read as a hyphen.
    expected = [(name, b"v") for name in names if b"_" not in name]
    assert [field for field in message.fields if field[1] == b"v"] == expected
    [message] = check_again(gateway, post(b"%b: v\r\n" % (place.replace("%b", "").encode() + b":b")))
    assert message.value(b"x-ab") == b"b: v"


def check_again(gateway, data):
    gateway.origin.forget()
    return check_served(gateway, data, b"")


@pytest.mark.parametrize("byte", CONTROL, ids=hex)
@in_places
def test_a_field_value_has_no_control_bytes(gateway, byte, place):
    check_refused(gateway, post(b"X-A: %b\r\n" % (place.encode() % bytes([byte]))) + SMUGGLED)


@in_places
def test_other_bytes_are_a_field_value(gateway, place):
    values = [place.encode() % bytes([byte]) for byte in range(256) if byte not in CONTROL]
    for part in (values[:80], values[80:160], values[160:]):
        gateway.origin.forget()
        [message] = check_served(gateway, post(b"".join(b"X-V: %b\r\n" % value for value in part)), b"")
        assert message.values(b"x-v") == [value.strip(b" \t") for value in part]


WHOLE = b"GET /v1/users HTTP/1.1\r\nHost: koder.id.koder.dev\r\nX-A: b\r\n\r\n"


@pytest.mark.parametrize("position", range(len(WHOLE) - 1))
@pytest.mark.parametrize("odd", [b"\r", b"\n", b"\x00", b"\x0b"], ids=["CR", "LF", "NUL", "VT"])
def test_no_odd_byte_passes_anywhere_in_a_head(gateway, position, odd):
    check_refused(gateway, WHOLE[:position] + odd + WHOLE[position:] + SMUGGLED, 0, (400, 501))


LINE_ENDS = [position for position in range(len(WHOLE)) if WHOLE.startswith(b"\r\n", position)]


@pytest.mark.parametrize("position", LINE_ENDS)
@pytest.mark.parametrize(
    "end",
    [
        b"\n",
        b"\r",
        b"\n\r",
        b"\r\r\n",
        b"\n\n",
        b"\r\r",
        b" \n",
        b"\x00\r\n",
        b"\xe2\x80\xa8",
        b"\x85",
        b"\\r\\n",
        b"%0d%0a",
    ],
)
@in_pieces
def test_no_line_ends_otherwise(gateway, position, end, piece):
    data = WHOLE[:position] + end + WHOLE[position + 2 :]
    if b"\r\n\r\n" not in data[: len(WHOLE) + 4]:
        data += b"\r\n\r\n"
    if position == LINE_ENDS[2] and end in (b"\xe2\x80\xa8", b"\x85", b"\\r\\n", b"%0d%0a"):
        # These are bytes of a value, which ends at the next line end.
        [message] = check_served(gateway, data, b"", piece=piece)
        assert message.value(b"x-a") == b"b" + end
    elif position == LINE_ENDS[1] and end in (b"\\r\\n", b"%0d%0a", b"\xe2\x80\xa8", b"\x85"):
        check_refused(gateway, data + SMUGGLED, piece)  # As part of the Host.
    else:
        check_refused(gateway, data + SMUGGLED, piece, (400, 501))


# -- request lines

LINES = [
    ("two spaces before the target", b"GET  /v1/users HTTP/1.1"),
    ("two spaces before the version", b"GET /v1/users  HTTP/1.1"),
    ("tab before the target", b"GET\t/v1/users HTTP/1.1"),
    ("tab before the version", b"GET /v1/users\tHTTP/1.1"),
    ("space before the method", b" GET /v1/users HTTP/1.1"),
    ("space after the version", b"GET /v1/users HTTP/1.1 "),
    ("tab after the version", b"GET /v1/users HTTP/1.1\t"),
    ("space in the target", b"GET /v1/users a HTTP/1.1"),
    ("form feed before the target", b"GET\x0c/v1/users HTTP/1.1"),
    ("no target", b"GET HTTP/1.1"),
    ("an empty target", b"GET  HTTP/1.1"),
    ("no method", b"/v1/users HTTP/1.1"),
    ("an empty method", b" /v1/users HTTP/1.1"),
    ("nothing but a method", b"GET"),
    ("a method with a colon", b"GET: /v1/users HTTP/1.1"),
    ("a method with a bracket", b"GE(T /v1/users HTTP/1.1"),
    ("a method with a slash", b"GE/T /v1/users HTTP/1.1"),
    ("a method in quotes", b'"GET" /v1/users HTTP/1.1'),
    ("an 8-bit method", b"G\xcbT /v1/users HTTP/1.1"),
    ("HTTP/0.9", b"GET /v1/users"),
    ("HTTP/0.9 with its version", b"GET /v1/users HTTP/0.9"),
    ("HTTP/1.2", b"GET /v1/users HTTP/1.2"),
    ("HTTP/1.9", b"GET /v1/users HTTP/1.9"),
    ("HTTP/2", b"GET /v1/users HTTP/2"),
    ("HTTP/2.0", b"GET /v1/users HTTP/2.0"),
    ("HTTP/3", b"GET /v1/users HTTP/3"),
    ("HTTP/3.0", b"GET /v1/users HTTP/3.0"),
    ("HTTP/9.9", b"GET /v1/users HTTP/9.9"),
    ("HTTP/0.0", b"GET /v1/users HTTP/0.0"),
    ("HTTP/1", b"GET /v1/users HTTP/1"),
    ("HTTP/1.", b"GET /v1/users HTTP/1."),
    ("HTTP/1.1.1", b"GET /v1/users HTTP/1.1.1"),
    ("HTTP/1.10", b"GET /v1/users HTTP/1.10"),
    ("HTTP/11", b"GET /v1/users HTTP/11"),
    ("HTTP/01.1", b"GET /v1/users HTTP/01.1"),
    ("HTTP/1.01", b"GET /v1/users HTTP/1.01"),
    ("HTTP/ 1.1", b"GET /v1/users HTTP/ 1.1"),
    ("HTTP /1.1", b"GET /v1/users HTTP /1.1"),
    ("HTTP/1 1", b"GET /v1/users HTTP/1 1"),
    ("HTTP/1,1", b"GET /v1/users HTTP/1,1"),
    ("HTTP/-1.1", b"GET /v1/users HTTP/-1.1"),
    ("HTTP/1.-1", b"GET /v1/users HTTP/1.-1"),
    ("HTTP/x.y", b"GET /v1/users HTTP/x.y"),
    ("HTTP/1.x", b"GET /v1/users HTTP/1.x"),
    ("http/1.1", b"GET /v1/users http/1.1"),
    ("Http/1.1", b"GET /v1/users Http/1.1"),
    ("HTTPS/1.1", b"GET /v1/users HTTPS/1.1"),
    ("HTTP1.1", b"GET /v1/users HTTP1.1"),
    ("HTTP", b"GET /v1/users HTTP"),
    ("HTP/1.1", b"GET /v1/users HTP/1.1"),
    ("SHTTP/1.1", b"GET /v1/users SHTTP/1.1"),
    ("RTSP/1.0", b"GET /v1/users RTSP/1.0"),
    ("ICE/1.0", b"SOURCE /v1/users ICE/1.0"),
    ("SIP/2.0", b"INVITE /v1/users SIP/2.0"),
    ("two versions", b"GET /v1/users HTTP/1.1 HTTP/1.1"),
    ("full-width version", b"GET /v1/users HTTP/\xef\xbc\x91.1"),
    ("the h2 preface's line", b"PRI * HTTP/2.0"),
    ("another preface's line", b"PRI * HTTP/1.1"),
    ("a response", b"HTTP/1.1 200 OK"),
    ("an SSH banner", b"SSH-2.0-OpenSSH_9.9"),
    ("a field", b"Host: koder.id.koder.dev"),
    ("braces", b"{}"),
]


@by_name(LINES)
@in_pieces
def test_a_request_line_of_another_form_is_refused(gateway, case, piece):
    data = b"%b\r\nHost: %b\r\n\r\n" % (case[1], HOST)
    check_refused(gateway, data + SMUGGLED, piece, (400, 501))


STRANGERS = [
    ("h2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
    ("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200))),
    ("SSLv2 hello", b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10"),
    ("NULs", b"\x00" * 100),
    ("PROXY protocol", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + SMUGGLED),
    ("PROXY protocol 2", b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12) + SMUGGLED),
    ("SMTP", b"EHLO example.com\r\n"),
    ("HTTP/0.9", b"GET /v1/users\r\n"),
    ("a long word", b"a" * 9000),
]


@by_name(STRANGERS)
@in_pieces
def test_another_protocol_is_refused_without_waiting_for_more(gateway, case, piece):
    with gateway.client() as client:
        client.send(case[1], piece)
        answer = client.answer()
        assert answer.status in (400, 414, 501)
        assert client.closed()
    assert gateway.received() == []


# -- line ends before a request

EMPTY_LINES = [
    ("one", b"\r\n"),
    ("two", b"\r\n\r\n"),
    ("eight", b"\r\n" * 8),
]


@by_name(EMPTY_LINES)
@in_pieces
def test_a_few_empty_lines_before_a_request_are_ignored(gateway, case, piece):
    data = case[1] + post(FIVE, b"hello") + case[1] + post(CHUNKED, HELLO) + case[1]
    check_served(gateway, data, b"hello", b"hello", piece=piece)


@pytest.mark.parametrize(
    "lead", [b"\n", b"\r", b"\n\n", b"\r\r\n", b"\n\r\n", b"\r\n\n", b" \r\n", b"\x00\r\n", b"\t\r\n"]
)
@in_pieces
def test_other_bytes_before_a_request_are_refused(gateway, lead, piece):
    check_refused(gateway, lead + SMUGGLED, piece)


def test_empty_lines_in_bulk_harm_nobody(gateway):
    with gateway.client() as client:
        client.send(b"\r\n" * 100_000 + SMUGGLED)
        try:
            assert client.answer().status in (200, 400)
        except Malformed:
            assert client.closed()
    gateway.received()


# -- Host and absolute form

HOSTS = [
    ("as it should be", b"koder.id.koder.dev", 200),
    ("port", b"koder.id.koder.dev:8443", 200),
    ("spaces around", b"   koder.id.koder.dev  ", 200),
    ("port 65535", b"koder.id.koder.dev:65535", 200),
    ("port 0", b"koder.id.koder.dev:0", None),
    ("port 65536", b"koder.id.koder.dev:65536", 400),
    ("port 99999", b"koder.id.koder.dev:99999", 400),
    ("long port", b"koder.id.koder.dev:000000000443", 400),
    ("negative port", b"koder.id.koder.dev:-1", 400),
    ("word for a port", b"koder.id.koder.dev:https", 400),
    ("two ports", b"koder.id.koder.dev:80:80", 400),
    ("port and path", b"koder.id.koder.dev:80/v1", 400),
    ("empty", b"", 400),
    ("only a port", b":80", 400),
    ("space within", b"koder.id.koder.dev acme.id.koder.dev", 400),
    ("list", b"koder.id.koder.dev,acme.id.koder.dev", 400),
    ("list with a space", b"koder.id.koder.dev, acme.id.koder.dev", 400),
    ("userinfo", b"a@koder.id.koder.dev", 400),
    ("userinfo with password", b"a:b@koder.id.koder.dev", 400),
    ("host for userinfo", b"koder.id.koder.dev@acme.id.koder.dev", 400),
    ("path", b"koder.id.koder.dev/", 400),
    ("query", b"koder.id.koder.dev?", 400),
    ("fragment", b"koder.id.koder.dev#", 400),
    ("scheme", b"https://koder.id.koder.dev", 400),
    ("backslash", b"koder.id.koder.dev\\", 400),
    ("percent", b"koder%2eid.koder.dev", 400),
    ("quotes", b'"koder.id.koder.dev"', 400),
    ("semicolon", b"koder.id.koder.dev;", 400),
    ("angle", b"<koder.id.koder.dev>", 400),
    ("asterisk", b"*", 400),
    ("NUL", b"koder.id.koder.dev\x00", 400),
    ("8-bit", b"k\xc3\xb6der.id.koder.dev", 400),
    ("long", b"a" * 256 + b".id.koder.dev", 400),
    ("open bracket", b"[::1", 400),
    ("closed bracket", b"::1]", 400),
    ("address without brackets", b"::1", 400),
    ("words in brackets", b"[koder]", 400),
    ("zone", b"[fe80::1%25eth0]", 400),
    ("address", b"[::1]:443", 421),
    ("punycode", b"xn--kder-5qa.id.koder.dev", 404),
]


@by_name(HOSTS)
@in_pieces
def test_a_host_is_one_name_or_address(gateway, case, piece):
    _, host, status = case
    data = b"GET /v1/users HTTP/1.1\r\nHost: %b\r\n\r\n" % host
    if status == 400:
        check_refused(gateway, data + SMUGGLED, piece)
    else:
        answer = gateway.ask(data, piece=piece)
        assert answer.status == status or (status is None and answer.status in (200, 400))
        assert len(gateway.received()) == (answer.status == 200)


HOST_FIELDS = [
    ("none", b""),
    ("two", b"Host: koder.id.koder.dev\r\nHost: acme.id.koder.dev\r\n"),
    ("two equal ones", b"Host: koder.id.koder.dev\r\nHost: koder.id.koder.dev\r\n"),
    ("odd case", b"Host: koder.id.koder.dev\r\nhOsT: acme.id.koder.dev\r\n"),
    ("empty second", b"Host: koder.id.koder.dev\r\nHost:\r\n"),
    ("empty first", b"Host:\r\nHost: koder.id.koder.dev\r\n"),
    ("space before the colon", b"Host : koder.id.koder.dev\r\n"),
    ("space first", b" Host: koder.id.koder.dev\r\n"),
    ("folded", b"Host:\r\n koder.id.koder.dev\r\n"),
    ("fold after", b"Host: koder.id.koder.dev\r\n acme.id.koder.dev\r\n"),
    ("no colon", b"Host koder.id.koder.dev\r\n"),
    ("underscore", b"_Host: koder.id.koder.dev\r\n"),
    ("other name", b"X-Host: koder.id.koder.dev\r\nX-Forwarded-Host: koder.id.koder.dev\r\n"),
]


@by_name(HOST_FIELDS)
@in_pieces
def test_there_is_exactly_one_host_field(gateway, case, piece):
    check_refused(gateway, b"GET /v1/users HTTP/1.1\r\n%b\r\n" % case[1] + SMUGGLED, piece)


ABSOLUTE = [
    ("agrees", b"http://koder.id.koder.dev/v1/users?a=b", HOST, b"/v1/users?a=b"),
    ("https on a plain port", b"https://koder.id.koder.dev/v1/users", HOST, 421),
    ("the other scheme's port", b"http://koder.id.koder.dev:443/v1/users", HOST, None),
    ("capital scheme", b"HTTP://koder.id.koder.dev/v1/users", HOST, b"/v1/users"),
    ("capital host", b"http://KODER.id.koder.dev/v1/users", HOST, b"/v1/users"),
    ("port in both", b"http://koder.id.koder.dev:8080/v1/users", HOST + b":8080", b"/v1/users"),
    ("usual port in one", b"http://koder.id.koder.dev:80/v1/users", HOST, b"/v1/users"),
    ("empty port in one", b"http://koder.id.koder.dev:/v1/users", HOST, b"/v1/users"),
    ("dots in the query", b"http://koder.id.koder.dev/v1/users?/../", HOST, b"/v1/users?/../"),
    ("another host", b"http://acme.id.koder.dev/v1/users", HOST, None),
    ("another host the other way", b"http://koder.id.koder.dev/v1/users", b"acme.id.koder.dev", None),
    ("another port", b"http://koder.id.koder.dev:8080/v1/users", HOST + b":8081", None),
    ("userinfo", b"http://a@koder.id.koder.dev/v1/users", HOST, None),
    ("host for userinfo", b"http://koder.id.koder.dev@acme.id.koder.dev/v1/users", HOST, None),
    ("empty host", b"http:///v1/users", HOST, None),
    ("empty host field", b"http://koder.id.koder.dev/v1/users", b"", None),
    ("bad port", b"http://koder.id.koder.dev:a/v1/users", HOST, None),
    ("no slashes", b"http:/v1/users", HOST, None),
    ("another scheme", b"ws://koder.id.koder.dev/v1/users", HOST, None),
    ("a file", b"file:///etc/passwd", HOST, None),
    ("no scheme", b"//koder.id.koder.dev/v1/users", HOST, 404),
    ("backslashes", b"http:\\\\koder.id.koder.dev\\v1\\users", HOST, None),
    ("an escaped slash after the host", b"http://koder.id.koder.dev%2fv1/users", HOST, None),
    ("no path", b"http://koder.id.koder.dev", HOST, 404),
    ("a query for a path", b"http://koder.id.koder.dev?a=b", HOST, 404),
]


@by_name(ABSOLUTE)
@in_pieces
def test_the_authority_of_an_absolute_form_agrees_with_the_host(gateway, case, piece):
    _, target, host, forwarded = case
    answer = gateway.ask(request(target, host=host), piece=piece)
    messages = gateway.received()
    if isinstance(forwarded, bytes):
        assert answer.status == 200
        assert [(m.target, m.value(b"host"), m.value(b"x-tenant-id")) for m in messages] == [
            (forwarded, host, b"koder")
        ]
    else:
        assert answer.status == (forwarded or 400)
        assert messages == []


def test_the_authority_of_an_absolute_form_stands_in_for_a_missing_host(gateway):
    data = b"GET http://koder.id.koder.dev/v1/users HTTP/1.0\r\n\r\n"
    assert gateway.ask(data).status == 200
    [message] = gateway.received()
    assert (message.value(b"host"), message.value(b"x-tenant-id")) == (HOST, b"koder")


# -- what Connection names, and other spellings

NOMINATED = [
    ("tenant", b"X-Tenant-ID"),
    ("tenant in odd case", b"x-tenant-id"),
    ("forwarded for", b"X-Forwarded-For"),
    ("forwarded proto", b"X-Forwarded-Proto"),
    ("forwarded host", b"X-Forwarded-Host"),
    ("forwarded", b"Forwarded"),
    ("via", b"Via"),
    ("request id", b"X-Request-ID"),
    ("trace", b"traceparent"),
    ("host", b"Host"),
    ("length", b"Content-Length"),
    ("all at once", b"Host, X-Tenant-ID, X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, Forwarded, Via"),
    ("keep-alive and tenant", b"keep-alive, X-Tenant-ID, X-Request-ID"),
    ("odd list", b',, ,X-Tenant-ID;a, \t Host , "Via"'),
]


@by_name(NOMINATED)
@pytest.mark.parametrize("framing", [(FIVE, b"hello"), (CHUNKED, HELLO)], ids=["length", "chunked"])
def test_connection_takes_nothing_of_the_gateways_own_away(gateway, case, framing):
    fields, body = framing
    [message] = check_served(gateway, post(b"Connection: %b\r\n%b" % (case[1], fields), body), b"hello")
    assert message.value(b"host") == HOST
    assert message.value(b"x-tenant-id") == b"koder"
    assert message.value(b"x-forwarded-for") == b"127.0.0.1"
    assert message.value(b"x-forwarded-proto") == b"http"
    assert message.value(b"x-forwarded-host") == HOST
    assert message.value(b"via") == b"1.1 koder-gateway"
    for name in (b"forwarded", b"x-request-id", b"traceparent"):
        assert message.value(name)


def test_connection_with_the_coding_leaves_the_framing_unharmed(gateway):
    check_served(gateway, post(b"Connection: Transfer-Encoding\r\n" + CHUNKED, HELLO), b"hello")


SPELLINGS = [
    b"X_Tenant_ID",
    b"X-Tenant_ID",
    b"X_Tenant-ID",
    b"x_tenant_id",
    b"X__Tenant__ID",
    b"X_TENANT_ID",
    b"_X-Tenant-ID",
    b"X-Tenant-ID_",
    b"HTTP_X_TENANT_ID",
    b"X_Forwarded_For",
    b"X_Request_ID",
    b"Content_Length",
]


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize("host", [b"koder.id.koder.dev", b"login.koder.example"])
def test_a_name_with_an_underscore_never_reaches_a_service(gateway, name, host):
    assert gateway.ask(request(host=host, fields=b"%b: acme\r\nX-After: 1\r\n" % name)).status == 200
    [message] = gateway.received()
    assert [each for each in message.names() if b"_" in each] == []
    assert message.values(b"x-tenant-id") == [b"koder"]
    assert b"acme" not in message.raw
    assert message.value(b"x-after") == b"1"


def test_an_upgrade_is_not_relayed_and_what_follows_is_the_next_request(gateway):
    fields = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    [message] = check_served(gateway, post(fields, method=b"GET"), b"")
    assert {b"connection", b"upgrade", b"http2-settings"}.isdisjoint(message.names())
    fields = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" + FIVE
    gateway.origin.forget()
    check_served(gateway, post(fields, b"hello"), b"hello")


# -- the flow of a connection


def test_pipelined_requests_are_answered_in_order_though_the_first_is_slow(gateway):
    origin = gateway.origin
    origin.held.add(b"/v1/users/slow")
    origin.answers[b"/v1/users/slow"] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow"
    with gateway.client() as client:
        client.send(request(b"/v1/users/slow") + request(b"/v1/users/fast") + request(b"/none") + NEXT)
        origin.wait_for(b"/v1/users/slow")
        gateway.ask(request(b"/v1/users/elsewhere"))  # Others are served all the while.
        origin.release(b"/v1/users/slow")
        answers = [client.answer() for _ in range(4)]
    assert [(answer.status, answer.body) for answer in answers[:2]] == [(200, b"slow"), (200, b"origin")]
    assert [answer.status for answer in answers[2:]] == [404, 200]


@pytest.mark.parametrize("count", [2, 50, 500])
def test_many_pipelined_requests_keep_their_bodies_apart(gateway, count):
    bodies = [b"%d" % n * (n % 7) for n in range(count)]
    data = b""
    for number, body in enumerate(bodies):
        target = b"/v1/users/%d" % number
        if number % 2 or not body:
            data += post(b"Content-Length: %d\r\n" % len(body), body, target=target)
        else:
            data += post(CHUNKED, b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), target=target)
    messages = check_served(gateway, data, *bodies)
    assert [message.target for message in messages] == [b"/v1/users/%d" % number for number in range(count)]


CLOSES = [
    ("close", b"Connection: close\r\n"),
    ("capitals", b"Connection: CLOSE\r\n"),
    ("in a list", b"Connection: X-A, close\r\n"),
    ("with keep-alive", b"Connection: keep-alive, close\r\n"),
    ("in a second field", b"Connection: keep-alive\r\nConnection: close\r\n"),
    ("in a first field", b"connection: close\r\nconnection: keep-alive\r\n"),
]


@by_name(CLOSES)
def test_nothing_is_served_after_close(gateway, case):
    with gateway.client() as client:
        client.send(request(fields=case[1]) + SMUGGLED)
        answer = client.answer()
        assert (answer.status, answer.value(b"connection")) == (200, b"close")
        assert client.closed()
    assert len(gateway.received()) == 1


def old(fields=b"", target=b"/v1/users", body=b"", method=b"GET"):
    """A request in HTTP/1.0."""
    return post(fields, body, method, target, b"HTTP/1.0")


def test_http_1_0_ends_the_connection_unless_it_asks_otherwise(gateway):
    with gateway.client() as client:
        client.send(old() + SMUGGLED)
        answer = client.answer()
        assert (answer.status, answer.body) == (200, b"origin")
        assert client.closed()
    assert len(gateway.received()) == 1
    for option in (b"keep-alive", b"Keep-Alive", b"X-A, keep-alive"):
        with gateway.client() as client:
            client.send(old(b"Connection: %b\r\n" % option) + NEXT)
            answer = client.answer()
            assert (answer.status, answer.value(b"connection")) == (200, b"keep-alive")
            assert client.answer().status == 200


def test_http_1_0_is_forwarded_as_1_1_and_gets_no_chunks(gateway):
    chunked = b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nX-A: b\r\n\r\n"
    gateway.origin.answers[b"/v1/users/chunked"] = chunked
    with gateway.client() as client:
        client.send(old(b"Connection: keep-alive\r\n", b"/v1/users/chunked") + SMUGGLED)
        answer = client.answer()
        assert answer.values(b"transfer-encoding") == []
        assert answer.body == b"hello world"
        assert answer.value(b"connection") == b"close"
        assert client.closed()
    assert [m.target for m in gateway.received()] == [b"/v1/users/chunked"]


def test_http_1_0_bodies_have_a_length(gateway):
    fields = b"Connection: keep-alive\r\n" + FIVE
    [message] = check_served(gateway, old(fields, body=b"hello", method=b"POST"), b"hello")
    assert message.value(b"content-length") == b"5"


# -- expectations

EXPECT = b"Expect: 100-continue\r\n"


@pytest.mark.parametrize("expect", [EXPECT, b"expect: 100-CONTINUE\r\n", EXPECT + EXPECT])
@pytest.mark.parametrize("framing", [(FIVE, b"hello"), (CHUNKED, HELLO)], ids=["length", "chunked"])
def test_a_client_that_waits_is_asked_for_its_body_once(gateway, expect, framing):
    fields, body = framing
    with gateway.client() as client:
        client.send(post(expect + fields))
        assert client.interim().status == 100
        client.send(body + NEXT)
        answers = [client.answer(), client.answer()]
    assert [(answer.status, answer.interim) for answer in answers] == [(200, []), (200, [])]
    first, second = gateway.received()
    assert (first.body, second.target) == (b"hello", b"/v1/users/next")
    assert first.values(b"expect") == []


def test_a_client_that_does_not_wait_is_served_all_the_same(gateway):
    with gateway.client() as client:
        client.send(post(EXPECT + FIVE, b"hello") + NEXT)
        answer = client.answer()
        assert answer.status == 200
        assert len(answer.interim) <= 1
        assert client.answer().status == 200
    assert [message.body for message in gateway.received()] == [b"hello", b""]


def test_an_expectation_without_a_body_is_met(gateway):
    assert check_served(gateway, request(fields=EXPECT), b"")
    gateway.origin.forget()
    assert check_served(gateway, post(EXPECT + b"Content-Length: 0\r\n"), b"")


@pytest.mark.parametrize("fields", [FIVE, CHUNKED], ids=["length", "chunked"])
def test_a_client_that_waits_and_is_refused_is_not_asked_for_its_body(gateway, fields):
    for data in (post(EXPECT + fields, target=b"/none"), post(EXPECT + fields + b"X-Tenant-ID: acme\r\n")):
        with gateway.client() as client:
            client.send(data)
            answer = client.answer()
            assert answer.status in (400, 404)
            assert answer.interim == []
            # Whether the body comes now, nobody can say: the connection must not go on.
            assert answer.value(b"connection") == b"close"
            client.send(SMUGGLED)
            assert client.closed()
    assert gateway.received() == []


def test_http_1_0_is_never_sent_an_interim_answer(gateway):
    gateway.origin.answers[b"/v1/users/hints"] = (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    )
    with gateway.client() as client:
        client.send(old(EXPECT + FIVE, body=b"hello", method=b"POST"))
        answer = client.answer()
        assert (answer.status, answer.interim) == (200, [])
    assert gateway.received()[0].body == b"hello"
    assert gateway.ask(old(target=b"/v1/users/hints")).interim == []
    assert [each.status for each in gateway.ask(request(b"/v1/users/hints")).interim] == [103]
