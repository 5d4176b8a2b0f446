"""Request heads: one reading or a refusal; framing, identity and the lines that the service gets."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.errors import METHODS
from koder_gateway.wire.head_probe import HeadProbe
from koder_gateway.wire.request_head import RequestHead
from koder_gateway.wire.request_reader import RequestReader
from koder_gateway.wire.request_syntax import FieldSink
from tests.kit.memory import rechunked

READER = RequestReader(b"X-Tenant-ID", max_target=1000, max_fields=20)
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TOKENS = st.text("!#$%&'*+-.^_`|~abcXYZ019", min_size=1, max_size=12).map(str.encode)
SPACE = st.text(" \t", max_size=2).map(str.encode)
VALUES = st.text('\t abc:;,="\\{}\xe4\xff019', max_size=20).map(lambda text: text.strip(" \t").encode("latin-1"))


def raw(*lines: bytes, start: bytes = b"GET /a HTTP/1.1", host: bytes | None = b"Host: a") -> bytes:
    """A head with a Host."""
    return b"".join(line + b"\r\n" for line in (start, *([host] if host is not None else []), *lines, b""))


def read(*lines: bytes, start: bytes = b"GET /a HTTP/1.1", host: bytes | None = b"Host: a") -> RequestHead:
    return READER.read(raw(*lines, start=start, host=host))


def refused(head: RequestHead) -> tuple[int, str, bool]:
    """A refusal's status and code, and whether the connection ends."""
    assert head.refusal is not None
    return head.refusal.status, head.refusal.code, head.refusal.close


def test_a_plain_head() -> None:
    head = read(b"Accept: */*", b"X-A:  b \t", b"Cookie: c=1", start=b"GET /a/b?c=d HTTP/1.1")
    assert head.refusal is None
    assert (head.method, head.target, head.path, head.minor) == (b"GET", b"/a/b?c=d", b"/a/b", 1)
    assert head.lines == [b"Host: a\r\n", b"Accept: */*\r\n", b"X-A: b\r\n", b"Cookie: c=1\r\n"]
    assert (head.host, head.length, head.chunked, head.keep_alive, head.expects) == (b"a", 0, False, True, False)
    assert (head.origin, head.request_id, head.tenants, head.forwarded, head.traced) == (None, None, (), None, False)


@pytest.mark.parametrize("method", METHODS)
def test_the_methods_that_are_forwarded(method: bytes) -> None:
    head = read(start=method + b" /a HTTP/1.1")
    assert (head.refusal, head.method) == (None, method)


@given(st.lists(st.tuples(TOKENS, VALUES), max_size=10))
def test_end_to_end_fields_pass_unchanged_and_in_order(fields: list[tuple[bytes, bytes]]) -> None:
    fields = [(b"X-" + name.replace(b"_", b"-"), value) for name, value in fields]
    head = read(*(b"%b: %b" % field for field in fields))
    assert head.refusal is None
    assert head.lines == [b"Host: a\r\n", *(b"%b: %b\r\n" % field for field in fields)]


@given(st.lists(st.tuples(TOKENS, st.tuples(SPACE, VALUES, SPACE).map(b"".join)), max_size=10))
def test_a_head_that_is_kept_has_the_fields_that_were_parsed(fields: list[tuple[bytes, bytes]]) -> None:
    data = raw(*(b"%b:%b" % field for field in fields))
    sink = FieldSink()
    httptools.HttpRequestParser(sink).feed_data(data)
    head = READER.read(data)
    assert head.fields == sink.fields
    assert head.field_block() == b"".join(head.lines)
    again = READER.read(raw(*(b"%b:%b" % field for field in fields), start=b"GET /other HTTP/1.1"), head)
    assert (again.fields, again.lines) == (head.fields, head.lines)


@given(
    st.lists(
        st.sampled_from(
            [b"X", b"x-a", b":", b" ", b"\t", b"\r\n", b"\r", b"\n", b"\0", b"a", b"Host", b"\x7f", b"HTTP/1.1", b"/"]
        ),
        max_size=14,
    )
)
def test_nothing_malformed_comes_through_rebuilt(pieces: list[bytes]) -> None:
    """Whatever is read without refusal can be written down in clean lines that mean the same."""
    data = b"GET /a HTTP/1.1\r\nHost: a\r\n" + b"".join(pieces)
    data = data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    head = READER.read(data)
    if head.refusal is None:
        for line in head.lines:
            assert line.endswith(b"\r\n")
            assert not set(line[:-2]) & {0, 10, 13, 127}
            assert line.partition(b":")[0].strip() == line.partition(b":")[0] != b""
        again = READER.read(b"GET /a HTTP/1.1\r\n" + b"".join(head.lines) + b"\r\n")
        assert (again.refusal, again.lines) == (None, head.lines)


FRAMING = {
    "no Host": raw(host=None),
    "two Hosts": raw(b"Host: a"),
    "two different Hosts": raw(b"host: b"),
    "length twice": raw(b"Content-Length: 1", b"Content-Length: 1"),
    "two lengths": raw(b"Content-Length: 1", b"Content-Length: 2"),
    "list of lengths": raw(b"Content-Length: 1, 1"),
    "plus": raw(b"Content-Length: +1"),
    "minus": raw(b"Content-Length: -1"),
    "hexadecimal": raw(b"Content-Length: 0x1"),
    "space in it": raw(b"Content-Length: 1 1"),
    "empty length": raw(b"Content-Length:"),
    "underscore in it": raw(b"Content-Length: 1_0"),
    "2^63": raw(b"Content-Length: 9223372036854775808"),
    "2^64": raw(b"Content-Length: 18446744073709551616"),
    "length of 5000 digits": raw(b"Content-Length: " + b"0" * 5000),
    "length and coding": raw(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    "coding and length": raw(b"Transfer-Encoding: chunked", b"Content-Length: 5"),
    "coding in HTTP/1.0": raw(b"Transfer-Encoding: chunked", start=b"POST /a HTTP/1.0"),
    "coding twice": raw(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    "unknown coding and length": raw(b"Transfer-Encoding: gzip", b"Content-Length: 5"),
    "space before the colon": raw(b"X : a"),
    "space before the length's colon": raw(b"Content-Length : 5"),
    "obs-fold": raw(b"X: a", b" b"),
    "folded start": raw(b" X: a"),
    "no colon": raw(b"nonsense"),
    "empty name": raw(b": a"),
    "NUL": raw(b"X: \0"),
    "CR": raw(b"X: a\rb"),
    "LF": raw(b"X: a\nY: b"),
    "control": raw(b"X: a\x01b"),
    "DEL": raw(b"X: a\x7fb"),
    "8-bit name": raw(b"X\xe4: a"),
    "HTTP/0.9": raw(start=b"GET /a"),
    "HTTP/1.2": raw(start=b"GET /a HTTP/1.2"),
    "HTTP/2.0": raw(start=b"GET /a HTTP/2.0"),
    "HTTP/3.0": raw(start=b"GET /a HTTP/3.0"),
    "HTTP/11": raw(start=b"GET /a HTTP/11"),
    "http/1.1": raw(start=b"GET /a http/1.1"),
    "RTSP": raw(start=b"GET /a RTSP/1.0"),
    "two spaces": raw(start=b"GET  /a HTTP/1.1"),
    "tab": raw(start=b"GET\t/a HTTP/1.1"),
    "three parts": raw(start=b"GET /a b HTTP/1.1"),
    "space at the end": raw(start=b"GET /a HTTP/1.1 "),
    "space at the start": raw(start=b" GET /a HTTP/1.1"),
    "no target": raw(start=b"GET HTTP/1.1"),
    "8-bit target in a bad line": raw(start=b"GET /\xe4 x HTTP/1.1"),
}


@pytest.mark.parametrize("data", FRAMING.values(), ids=FRAMING)
def test_a_framing_doubt_is_the_end(data: bytes) -> None:
    head = READER.read(data)
    assert refused(head) == (400, "bad_request", True)


@pytest.mark.parametrize("coding", [b"gzip", b"identity", b"Chunked2", b"xchunked"])
def test_an_unknown_coding_alone_is_501(coding: bytes) -> None:
    assert refused(read(b"Transfer-Encoding: " + coding)) == (501, "not_implemented", True)


@pytest.mark.parametrize(
    "coding",
    [
        b"gzip, chunked",
        b"chunked, gzip",
        b"chunked, chunked",
        b'"chunked"',
        b"chunked;q=1",
        b"chunked x",
        b",chunked",
        b"chunked,",
    ],
)
@pytest.mark.parametrize("full", [False, True])
def test_a_coding_that_is_not_exactly_chunked_is_refused(coding: bytes, full: bool) -> None:
    reader = RequestReader(b"X-Tenant-ID", max_target=1000, max_fields=100)
    if full:  # names that have come in a flood must not make others forgotten
        for first in range(0, 3000, 50):
            reader.read(raw(*(b"X-%d: a" % number for number in range(first, first + 50))))
    head = reader.read(raw(b"tRANSFER-eNCODING: " + coding))
    status, _, close = refused(head)
    assert (status in (400, 501), close) == (True, True)


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked", b"CHUNKED"])
def test_chunked(coding: bytes) -> None:
    head = read(b"Transfer-Encoding: " + coding)
    assert (head.refusal, head.chunked, head.length) == (None, True, None)
    assert head.lines == [b"Host: a\r\n", b"Transfer-Encoding: chunked\r\n"]


@pytest.mark.parametrize(
    ("value", "length"), [(b"0", 0), (b"5", 5), (b"005", 5), (b"9223372036854775807", 2**63 - 1)]
)
def test_a_length(value: bytes, length: int) -> None:
    head = read(b"Content-Length: " + value)
    assert (head.refusal, head.length, head.chunked) == (None, length, False)
    assert head.lines == [b"Host: a\r\n", b"Content-Length: %d\r\n" % length]


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b"TRACE /a HTTP/1.1", (405, "method_not_allowed", False)),
        (b"CONNECT a:443 HTTP/1.1", (405, "method_not_allowed", False)),
        (b"PROPFIND /a HTTP/1.1", (501, "not_implemented", False)),
        (b"M-SEARCH /a HTTP/1.1", (501, "not_implemented", False)),
        (b"BREW /a HTTP/1.1", (501, "not_implemented", True)),
        (b"get /a HTTP/1.1", (501, "not_implemented", True)),
        (b"GE(T /a HTTP/1.1", (400, "bad_request", True)),
    ],
)
def test_other_methods(start: bytes, expected: tuple[int, str, bool]) -> None:
    assert refused(read(start=start)) == expected


def test_what_a_405_allows() -> None:
    head = read(start=b"TRACE /a HTTP/1.1")
    assert head.refusal is not None
    assert head.refusal.fields == b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"


@pytest.mark.parametrize(
    "target", [b"/..", b"/%2e", b"/a%2fb", b"/a\\b", b"/%00", b"/%zz", b"/a#b", b"a", b"*", b"/?a#b", b"ftp://a/"]
)
def test_a_bad_target_is_400(target: bytes) -> None:
    status, code, _ = refused(read(start=b"GET %b HTTP/1.1" % target))
    assert (status, code) == (400, "bad_request")


def test_the_asterisk_is_for_options() -> None:
    head = read(start=b"OPTIONS * HTTP/1.1")
    assert (head.refusal, head.path) == (None, b"*")


def test_an_absolute_form_becomes_the_origin_form() -> None:
    head = read(start=b"GET http://A:80/b?c HTTP/1.1")
    assert (head.refusal, head.target, head.path, head.host) == (None, b"/b?c", b"/b", b"a")
    assert refused(read(start=b"GET http://b/ HTTP/1.1"))[:2] == (400, "bad_request")
    assert refused(read(start=b"GET http://a/../b HTTP/1.1"))[:2] == (400, "bad_request")


@pytest.mark.parametrize("host", [b"a,b", b"u@a", b"a/b", b"a:x", b"a:99999", b"a b", b"", b"http://a"])
def test_a_bad_host_is_400_and_the_end(host: bytes) -> None:
    assert refused(read(host=b"Host: " + host)) == (400, "bad_request", True)


def test_http_1_0_needs_no_host() -> None:
    head = read(start=b"GET /a HTTP/1.0", host=None)
    assert (head.refusal, head.host, head.keep_alive, head.minor) == (None, b"", False, 0)
    assert refused(read(b"Host: b", start=b"GET /a HTTP/1.0")) == (400, "bad_request", True)


def test_the_limits() -> None:
    assert read(start=b"GET /%b HTTP/1.1" % (b"a" * 999)).refusal is None
    assert refused(read(start=b"GET /%b HTTP/1.1" % (b"a" * 1000))) == (414, "uri_too_long", True)
    assert read(*[b"X: a"] * 19).refusal is None
    assert refused(read(*[b"X: a"] * 20)) == (431, "head_too_large", True)


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST"])
def test_of_a_head_whose_line_is_too_long_only_what_its_answer_needs_is_read(method: bytes) -> None:
    start = method + b" /%b HTTP/1.1" % (b"a" * 5000)
    head = read(b"Origin: https://app.example", b"Content-Length: 5", start=start)
    assert refused(head) == (414, "uri_too_long", True)
    assert (head.method, head.host, head.origin) == (method, b"a", b"https://app.example")
    assert (head.target, head.fields, head.length, head.keep_alive) == (b"", [], 0, False)


def test_a_line_that_is_too_long_hides_no_unknown_method() -> None:
    assert refused(read(start=b"%b / HTTP/1.1" % (b"A" * 5000))) == (501, "not_implemented", True)


@pytest.mark.parametrize(
    ("value", "start", "expected"),
    [
        (b"100-continue", b"POST /a HTTP/1.1", (None, True)),
        (b"100-Continue", b"POST /a HTTP/1.1", (None, True)),
        (b"100-continue", b"POST /a HTTP/1.0", (None, False)),
        (b"miracles", b"POST /a HTTP/1.0", (None, False)),
    ],
)
def test_an_expectation(value: bytes, start: bytes, expected: tuple[None, bool]) -> None:
    head = read(b"Content-Length: 1", b"Expect: " + value, start=start)
    assert (head.refusal, head.expects) == expected
    assert not any(line.startswith(b"Expect") for line in head.lines)


@pytest.mark.parametrize("value", [b"miracles", b"100-continue, x", b"100-continu", b""])
def test_another_expectation_is_417(value: bytes) -> None:
    assert refused(read(b"Expect: " + value)) == (417, "expectation_failed", True)


@pytest.mark.parametrize(
    ("lines", "start", "persists"),
    [
        ((), b"GET /a HTTP/1.1", True),
        ((), b"GET /a HTTP/1.0", False),
        ((b"Connection: close",), b"GET /a HTTP/1.1", False),
        ((b"Connection: x", b"connection: Close"), b"GET /a HTTP/1.1", False),
        ((b"Connection: Keep-Alive",), b"GET /a HTTP/1.0", True),
        ((b"Connection: keep-alive, close",), b"GET /a HTTP/1.0", False),
        ((b"Proxy-Connection: keep-alive",), b"GET /a HTTP/1.0", False),
    ],
)
def test_persistence(lines: tuple[bytes, ...], start: bytes, persists: bool) -> None:
    head = read(*lines, start=start)
    assert (head.refusal, head.keep_alive) == (None, persists)
    assert head.lines == [b"Host: a\r\n"]


@pytest.mark.parametrize(
    ("nominated", "line", "passes"),
    [
        (b"X-A", b"X-A: 1", False),
        (b"x-a, close", b"X-A: 1", False),
        (b"X-A", b"X-B: 1", True),
        (b"Host", b"X-B: 1", True),
        (b"Content-Length", b"Content-Length: 1", True),
        (b"Transfer-Encoding", b"Transfer-Encoding: chunked", True),
        (b"Authorization", b"Authorization: x", False),
        (b"Cookie", b"Cookie: x", False),
        (b"Origin", b"Origin: https://a", False),
        (b"traceparent", b"traceparent: " + TRACE, False),
        (b"Range", b"Range: bytes=0-", False),
    ],
)
def test_connection_takes_away_what_is_the_clients_to_take(nominated: bytes, line: bytes, passes: bool) -> None:
    head = read(b"Connection: " + nominated, line)
    assert head.refusal is None
    assert head.lines == [b"Host: a\r\n", *([line + b"\r\n"] if passes else [])]


@pytest.mark.parametrize("name", [b"X-Tenant-ID", b"x-tenant-id", b"X-TENANT-ID"])
def test_the_tenant_header_is_read_and_goes_no_further(name: bytes) -> None:
    head = read(name + b": koder", b"Connection: X-Tenant-ID", b"X_Tenant_ID: evil", b"X-Tenant_ID: evil")
    assert (head.tenants, head.lines) == ((b"koder",), [b"Host: a\r\n"])
    assert read(name + b": a", name + b": b").tenants == (b"a", b"b")


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b"a", True),
        (b"A.b_c-9", True),
        (b"a" * 128, True),
        (b"a" * 129, False),
        (b"", False),
        (b"a b", False),
        (b'a"', False),
        (b"\xe4", False),
        (b"a/b", False),
    ],
)
def test_a_request_id_is_kept_if_it_is_well_formed(value: bytes, kept: bool) -> None:
    head = read(b"X-Request-ID: " + value)
    assert (head.request_id, head.lines) == (value if kept else None, [b"Host: a\r\n"])


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (TRACE, True),
        (b"cc" + TRACE[2:] + b"-future", True),
        (b"ff" + TRACE[2:], False),
        (TRACE.upper(), False),
        (b"00-" + b"0" * 32 + TRACE[35:], False),
        (TRACE[:36] + b"0" * 16 + b"-01", False),
        (b"", False),
        (TRACE[:-1], False),
    ],
)
def test_a_trace_passes_if_it_is_well_formed(value: bytes, kept: bool) -> None:
    head = read(b"traceparent: " + value)
    assert (head.traced, head.lines) == (kept, [b"Host: a\r\n", *([b"traceparent: %b\r\n" % value] if kept else [])])


def test_two_traces_are_none() -> None:
    head = read(b"traceparent: " + TRACE, b"Traceparent: " + TRACE, b"tracestate: a=1")
    assert (head.traced, head.lines) == (False, [b"Host: a\r\n"])


def test_the_state_of_a_trace_goes_with_it() -> None:
    lines = (b"traceparent: " + TRACE, b"tracestate: a=1", b"tracestate: b=2")
    assert read(*lines).lines == [b"Host: a\r\n", *(line + b"\r\n" for line in lines)]
    assert read(*lines[1:]).lines == [b"Host: a\r\n"]
    assert read(b"traceparent: nonsense", *lines[1:]).lines == [b"Host: a\r\n"]


def test_what_others_say_of_the_client_is_put_aside() -> None:
    head = read(b"X-Forwarded-For: 1", b"Forwarded: for=2", b"X-Real-IP: 3", b"x-forwarded-foo: 4")
    assert head.lines == [b"Host: a\r\n"]
    assert head.forwarded == [
        (b"X-Forwarded-For", b"1"),
        (b"Forwarded", b"for=2"),
        (b"X-Real-IP", b"3"),
        (b"x-forwarded-foo", b"4"),
    ]


def test_an_origin_is_read_and_passes() -> None:
    head = read(b"Origin: https://a.example ")
    assert (head.origin, head.lines[1:]) == (b"https://a.example", [b"Origin: https://a.example\r\n"])


def test_several_origins_are_none() -> None:
    assert read(b"Origin: https://a ", b"Origin: https://b").origin == b"https://a, https://b"


def test_a_preflight_is_told_apart() -> None:
    lines = (b"Origin: https://a", b"Access-Control-Request-Method: PUT", b"access-control-request-headers: x-a")
    head = read(*lines, start=b"OPTIONS /a HTTP/1.1")
    assert (head.preflight_method, head.preflight_headers) == (b"PUT", b"x-a")
    assert read(*lines).preflight_method is None
    assert read(*lines[1:], start=b"OPTIONS /a HTTP/1.1").preflight_method is None
    assert read(*lines[:1], start=b"OPTIONS /a HTTP/1.1").preflight_method is None


def test_trailers_are_announced_wherever_the_announcement_stands() -> None:
    for lines in (
        (b"Transfer-Encoding: chunked", b"Trailer: X-Sum"),
        (b"Trailer: X-Sum", b"Transfer-Encoding: chunked"),
    ):
        assert read(*lines).lines == [b"Host: a\r\n", *(line + b"\r\n" for line in lines)]


def test_a_refused_head_still_says_where_it_came_from() -> None:
    head = read(b"Origin: https://a.example", b"X : a")
    assert head.origin == b"https://a.example"
    assert not head.keep_alive


def test_an_upgrade_is_a_request_like_any_other() -> None:
    head = read(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")
    assert (head.refusal, head.lines) == (None, [b"Host: a\r\n"])


CUTS = st.lists(st.integers(0, 400), max_size=8)


@given(CUTS)
def test_a_probe_has_nothing_against_a_good_head(cuts: list[int]) -> None:
    probe, so_far = HeadProbe(), b""
    data = raw(
        b"Accept: */*", b"Content-Length: 5", b"Connection: upgrade", b"Upgrade: x", start=b"POST /a?b HTTP/1.1"
    )
    for piece in rechunked(data[:-2], cuts):
        so_far += piece
        assert probe.fault(piece, so_far) is None


@pytest.mark.parametrize(
    "line", [b"X : a", b": a", b"X: \0", b"Content-Length: x", b"Content-Length: 1\r\nContent-Length: 2"]
)
def test_a_probe_knows_a_hopeless_head(line: bytes) -> None:
    data = b"GET /a HTTP/1.1\r\nHost: a\r\n" + line + b"\r\nX"
    refusal = HeadProbe().fault(data, data)
    assert refusal is not None
    assert (refusal.status, refusal.close) == (400, True)


def test_a_probe_tells_an_unknown_method_from_nonsense() -> None:
    whole = b"BREW /a HTTP/1.1\r\nHo"
    for end in range(1, len(whole) + 1):
        refusal = HeadProbe().fault(whole[:end], whole[:end])
        assert refusal is None or (refusal.status, refusal.close) == (501, True), whole[:end]
    assert refusal is not None
    for data in (b"\x16\x03\x01", b"BREW /a RTSP", b"BR(EW /a", b"BREW /a HTTP/3", b"BREW /a\r\n"):
        refusal = HeadProbe().fault(data, data)
        assert refusal is not None
        assert (refusal.status, refusal.close) == (400, True), data


STARTS = [
    b"GET /a HTTP/1.1", b"GET /b?c HTTP/1.1", b"GET /a HTTP/1.0", b"POST /a HTTP/1.1", b"GET /.. HTTP/1.1",
    b"TRACE / HTTP/1.1", b"GET http://a/x HTTP/1.1", b"GET http://b/x HTTP/1.1", b"OPTIONS * HTTP/1.1",
    b"GET * HTTP/1.1", b"GET /a b HTTP/1.1",
]  # fmt: skip
FIELDS = [
    b"Host: b", b"Accept: x", b"X-Tenant-ID: koder", b"Content-Length: 3", b"Content-Length: 4",
    b"Transfer-Encoding: chunked", b"Connection: close", b"Connection: X-A, keep-alive", b"X-A: 1",
    b"X-Request-ID: r1", b"Expect: 100-continue", b"Expect: x", b"Origin: https://a", b"X-Forwarded-For: 1",
    b"traceparent: " + TRACE, b"X : a", b"Upgrade: x", b"Trailer: x",
]  # fmt: skip
HEADS = st.lists(
    st.tuples(st.sampled_from(STARTS), st.lists(st.sampled_from(FIELDS), max_size=3)), min_size=1, max_size=6
)


def meaning(head: RequestHead) -> dict[str, object]:
    """All that a head says, apart from what it remembers for the next."""
    names = {name for name in RequestHead.__slots__ if not name.startswith("_")} - {"line_size", "reader"}
    return {name: getattr(head, name, None) for name in (*sorted(names), "fields", "lines")}


@given(HEADS)
def test_what_was_read_of_the_head_before_changes_nothing(heads: list[tuple[bytes, list[bytes]]]) -> None:
    before: RequestHead | None = None
    for start, lines in heads:
        for _ in range(2):  # the same again is what is remembered
            data = raw(*lines, start=start)
            head = READER.read(data, before)
            assert meaning(head) == meaning(READER.read(data))
            before = head


def test_an_unknown_method_is_501_after_whatever_head() -> None:
    before = read()
    assert refused(READER.read(raw(start=b"BREW /a HTTP/1.1"), before))[:2] == (501, "not_implemented")


@pytest.mark.parametrize(
    "line", [b"X-Tenant-ID:", b"Forwarded:", b"Connection:", b"a:", b"X : a", b"Origin: https://a", b"Host: b"]
)
def test_too_many_fields_are_counted_before_they_are_read(line: bytes) -> None:
    """Whatever is in them: a head of nothing but faults is no dearer than its bytes."""
    head = read(*[line] * 21)
    assert refused(head) == (431, "head_too_large", True)
    assert (head.fields, head.lines) == ([], [])
    assert READER.read(raw(*[b"a: b"] * 19)).refusal is None


def test_a_head_with_too_many_fields_still_has_its_origin() -> None:
    head = read(*[b"a: b"] * 20, b"ORIGIN: https://a ", start=b"HEAD /a HTTP/1.1")
    assert (head.origin, head.method, head.keep_alive) == (b"https://a", b"HEAD", False)
    assert read(*[b"a: b"] * 20, b"Origin: https://a", b"origin: https://b").origin is None
    assert read(*[b"a: b"] * 20, b"Origin: " + b"a" * 600).origin is None


def test_fields_that_came_otherwise_are_counted_too() -> None:
    fields = [(b"a", b"b")] * 20 + [(b"origin", b"https://a")]
    head = READER.read_fields(b"GET", b"/", fields, framed=True)
    assert refused(head) == (431, "head_too_large", True)
    assert (head.lines, head.origin) == ([], b"https://a")


@pytest.mark.parametrize("option", [b"a", b"", b"upgrade", b"close"])
def test_too_many_connection_options_are_refused(option: bytes) -> None:
    assert refused(read(b"Connection: " + b",".join([option] * 65))) == (431, "head_too_large", True)
    assert refused(read(*[b"Connection: " + b",".join([option] * 33)] * 2)) == (431, "head_too_large", True)
    assert read(b"Connection: " + b",".join([option] * 64)).refusal is None


def test_too_many_upgrades_are_none() -> None:
    for count, upgrade in ((64, b", ".join([b"x"] * 64)), (65, None)):
        head = read(b"Connection: upgrade", b"Upgrade: " + b",".join([b"x"] * count))
        assert (head.refusal, head.upgrade) == (None, upgrade)


class CountingParser:
    """Counts what it is fed."""

    def __init__(self) -> None:
        self.calls = self.fed = 0

    def feed_data(self, data: bytes) -> None:
        self.calls += 1
        self.fed += len(data)


def test_a_head_that_drips_is_looked_at_once() -> None:
    probe, parser, so_far = HeadProbe(), CountingParser(), bytearray()
    probe._parser = parser
    for byte in b"GET /a HTTP/1.1\r\na: " + b"x" * 30000:
        piece = bytes((byte,))
        so_far += piece
        assert probe.fault(piece, so_far) is None
    assert len(so_far) * 63 / 64 <= parser.fed <= len(so_far)
    # What llhttp's caller copies with each piece is the value so far: few pieces, and larger ones.
    assert parser.calls < 600


def test_a_probe_of_dripping_bytes_knows_a_hopeless_head() -> None:
    for start in (b"BREW /" + b"a" * 500, b"GET /" + b"a" * 500):
        probe, so_far, refusal = HeadProbe(), bytearray(), None
        for byte in start + b" HTTP/3" + b" " * 600:
            so_far.append(byte)
            refusal = probe.fault(bytes((byte,)), so_far)
            if refusal is not None:
                break
        assert refusal is not None
        assert (refusal.status, refusal.close) == (400, True)


def test_a_probe_takes_no_offence_at_an_empty_line_that_is_gone_again() -> None:
    """Its second byte shows what the first one was the beginning of."""
    probe, so_far = HeadProbe(), bytearray()
    assert probe.fault(b"\r", b"\r") is None
    for byte in b"\nGET /a HTTP/1.1\r\nHost: a\r\n":
        if byte != 0x0A or so_far:
            so_far.append(byte)
        assert not so_far or probe.fault(bytes((byte,)), so_far) is None


def test_a_malformed_head_of_head_gets_no_body_however_it_comes() -> None:
    """The method decides it, which is known before the rest of the line."""
    assert READER.read(b"HEAD /a HTTP//.0\r\nHost: a\r\n\r\n").method == b"HEAD"
    assert READER.read(b"HEADS /a HTTP//.0\r\nHost: a\r\n\r\n").method == b""
