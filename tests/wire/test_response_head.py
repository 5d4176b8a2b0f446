"""Heads of services' answers: one reading or none, and what of them goes on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.wire.response import ResponseError, ResponseHead, ResponseReader

READER = ResponseReader(b"X-Tenant-ID", max_fields=20)
TOKENS = st.text("!#$%&'*+-.^`|~abcXYZ019", min_size=1, max_size=12).map(str.encode)
VALUES = st.text('\t abc:;,="\\\xe4\xff019', max_size=20).map(lambda text: text.strip(" \t").encode("latin-1"))


def read(
    *lines: bytes, start: bytes = b"HTTP/1.1 200 OK", to_head: bool = False, drop_rate: bool = False
) -> ResponseHead:
    raw = b"".join(line + b"\r\n" for line in (start, *lines, b""))
    return READER.read(raw, to_head, drop_rate)


def test_a_plain_head() -> None:
    head = read(b"Content-Type: text/plain", b"Set-Cookie: a=1", b"set-cookie: b=2 \t", b"Content-Length: 5")
    assert (head.status, head.reason, head.minor) == (200, b"OK", 1)
    assert head.lines == [b"Content-Type: text/plain\r\n", b"Set-Cookie: a=1\r\n", b"set-cookie: b=2\r\n"]
    assert (head.length, head.stated, head.chunked, head.keep_alive, head.dated) == (5, 5, False, True, False)


@given(st.lists(st.tuples(TOKENS, VALUES), max_size=10))
def test_end_to_end_fields_pass_unchanged_and_in_order(fields: list[tuple[bytes, bytes]]) -> None:
    fields = [(b"X-" + name, value) for name, value in fields]
    assert read(*(b"%b: %b" % field for field in fields)).lines == [b"%b: %b\r\n" % field for field in fields]


@given(
    st.lists(
        st.sampled_from(
            [b"X", b":", b" ", b"\t", b"\r\n", b"\r", b"\n", b"\0", b"a", b"Content-Length", b"1", b"\x7f"]
        ),
        max_size=14,
    )
)
def test_nothing_malformed_comes_through_rebuilt(pieces: list[bytes]) -> None:
    raw = (b"HTTP/1.1 200 OK\r\nA: b\r\n" + b"".join(pieces)).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    try:
        head = READER.read(raw, False, False)
    except ResponseError:
        return
    for line in head.lines:
        assert line.endswith(b"\r\n")
        assert not set(line[:-2]) & {0, 10, 13, 127}
        name = line.partition(b":")[0]
        assert name.strip() == name != b""
    again = READER.read(b"HTTP/1.1 200 OK\r\n" + b"".join(head.lines) + b"\r\n", False, False)
    assert again.lines == head.lines


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b"HTTP/1.1 200 OK", (200, b"OK", 1)),
        (b"HTTP/1.1 200 ", (200, b"", 1)),
        (b"HTTP/1.1 200", (200, b"", 1)),
        (b"HTTP/1.0 404 Not Found", (404, b"Not Found", 0)),
        (b"HTTP/1.1 599 \xe4\t!", (599, b"\xe4\t!", 1)),
    ],
)
def test_a_status_line(start: bytes, expected: tuple[int, bytes, int]) -> None:
    head = read(b"Content-Length: 0", start=start)
    assert (head.status, head.reason, head.minor) == expected


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/0.9 200 OK", b"HTTP/2 200 OK", b"HTTP/1.2 200 OK", b"http/1.1 200 OK", b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK", b"HTTP/1.1 099 OK", b"HTTP/1.1 600 OK", b"HTTP/1.1 abc OK", b"HTTP/1.1  200 OK",
        b"HTTP/1.1\t200 OK", b"HTTP/1.1 200OK", b" HTTP/1.1 200 OK", b"200 OK", b"<html>", b"HTTP/1.1 200 a\0b",
        b"HTTP/1.1 200 a\rb", b"HTTP/1.1 200 a\nb", b"HTTP/1.1 +20 OK", b"ICY 200 OK", b"HTTP/1.1",
    ],
)  # fmt: skip
def test_no_status_line(start: bytes) -> None:
    with pytest.raises(ResponseError):
        read(start=start)


@pytest.mark.parametrize(
    "lines",
    [
        (b"Content-Length: 1", b"Content-Length: 1"),
        (b"Content-Length: 1", b"content-length: 2"),
        (b"Content-Length: 1, 1",),
        (b"Content-Length: +1",),
        (b"Content-Length: -1",),
        (b"Content-Length: 0x1",),
        (b"Content-Length: 1 1",),
        (b"Content-Length: 1_1",),
        (b"Content-Length:",),
        (b"Content-Length: 9999999999999999999",),
        (b"Content-Length: " + b"0" * 5000,),
        (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: chunked", b"Content-Length: 5"),
        (b"Transfer-Encoding: gzip",),
        (b"Transfer-Encoding: gzip, chunked",),
        (b"Transfer-Encoding: chunked, chunked",),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: identity",),
        (b"Transfer-Encoding:",),
        (b"X : a",),
        (b"X: a", b" b"),
        (b" X: a",),
        (b"nonsense",),
        (b": a",),
        (b"X: \0",),
        (b"X: a\rb",),
        (b"X: a\nY: b",),
        (b"X: a\x7fb",),
        (b"X: a",) * 21,
    ],
)
def test_an_answer_of_two_readings_is_none(lines: tuple[bytes, ...]) -> None:
    with pytest.raises(ResponseError):
        read(*lines)


def test_chunks_are_not_for_http_1_0() -> None:
    with pytest.raises(ResponseError):
        read(b"Transfer-Encoding: chunked", start=b"HTTP/1.0 200 OK")


@pytest.mark.parametrize(
    ("start", "lines", "to_head", "expected"),
    [
        # (length, stated, chunked, keep_alive)
        (b"HTTP/1.1 200 OK", (b"Content-Length: 5",), False, (5, 5, False, True)),
        (b"HTTP/1.1 200 OK", (b"Content-Length: 005",), False, (5, 5, False, True)),
        (b"HTTP/1.1 200 OK", (b"Transfer-Encoding: Chunked",), False, (None, None, True, True)),
        (b"HTTP/1.1 200 OK", (), False, (None, None, False, False)),
        (b"HTTP/1.0 200 OK", (b"Content-Length: 5",), False, (5, 5, False, False)),
        (b"HTTP/1.0 200 OK", (b"Connection: Keep-Alive", b"Content-Length: 5"), False, (5, 5, False, True)),
        (b"HTTP/1.1 200 OK", (b"Connection: Close", b"Content-Length: 5"), False, (5, 5, False, False)),
        (b"HTTP/1.1 200 OK", (b"Content-Length: 5",), True, (0, 5, False, True)),
        (b"HTTP/1.1 200 OK", (b"Transfer-Encoding: chunked",), True, (0, None, False, True)),
        (b"HTTP/1.1 200 OK", (), True, (0, None, False, True)),
        (b"HTTP/1.1 304 Not Modified", (b"Content-Length: 5",), False, (0, 5, False, True)),
        (b"HTTP/1.1 204 No Content", (b"Content-Length: 5",), False, (0, None, False, True)),
        (b"HTTP/1.1 204 No Content", (), False, (0, None, False, True)),
        (b"HTTP/1.1 103 Early Hints", (), False, (0, None, False, True)),
        (b"HTTP/1.1 205 Reset Content", (b"Content-Length: 0",), False, (0, 0, False, True)),
    ],
)
def test_how_long_a_body_is(
    start: bytes, lines: tuple[bytes, ...], to_head: bool, expected: tuple[int | None, int | None, bool, bool]
) -> None:
    head = read(*lines, start=start, to_head=to_head)
    assert (head.length, head.stated, head.chunked, head.keep_alive) == expected
    assert head.lines == []


@pytest.mark.parametrize(
    "line",
    [
        b"Connection: other", b"Keep-Alive: 5", b"Upgrade: h2c", b"Proxy-Authenticate: x", b"Proxy-Connection: x",
        b"TE: x", b"X-Request-ID: x", b"X-Tenant-ID: x", b"Access-Control-Allow-Origin: *",
        b"access-control-max-age: 1",
    ],
)  # fmt: skip
def test_what_does_not_go_on(line: bytes) -> None:
    assert read(line, b"X: 1").lines == [b"X: 1\r\n"]


def test_what_connection_names_does_not_go_on_but_for_what_is_protected() -> None:
    head = read(
        b"Connection: X-Inner, Set-Cookie, Date, Content-Length",
        b"X-Inner: 1",
        b"Set-Cookie: a=1",
        b"Date: now",
        b"Content-Length: 0",
    )
    assert (head.lines, head.stated) == ([], 0)
    assert not head.dated, "an answer without a Date gets one (RFC 9110 section 6.6.1)"


def test_rate_fields_go_on_unless_the_gateway_sets_them() -> None:
    lines = (b'RateLimit: "x";r=1', b'RateLimit-Policy: "x";q=1')
    assert read(*lines).lines == [line + b"\r\n" for line in lines]
    assert read(*lines, drop_rate=True).lines == []


def test_trailers_are_announced_wherever_the_announcement_stands() -> None:
    for lines in (
        (b"Transfer-Encoding: chunked", b"Trailer: X-Sum"),
        (b"Trailer: X-Sum", b"Transfer-Encoding: chunked"),
    ):
        assert read(*lines).lines == [b"Trailer: X-Sum\r\n"]


def test_a_date_is_noticed() -> None:
    head = read(b"date: Thu, 01 Jan 1970 00:00:00 GMT")
    assert (head.dated, head.lines) == (True, [b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"])


def test_a_switch_of_protocols_is_read_as_what_it_is() -> None:
    assert (
        read(b"Connection: upgrade", b"Upgrade: websocket", start=b"HTTP/1.1 101 Switching Protocols").status == 101
    )


@pytest.mark.parametrize("line", [b"Connection: upgrade", b"Upgrade: websocket", b"Connection: close", b"X-A: b"])
def test_a_switch_to_no_protocol_is_read_as_such(line: bytes) -> None:
    head = read(line, b"X-B: c", start=b"HTTP/1.1 101 Switching Protocols")
    assert (head.status, head.upgrade, head.lines[-1]) == (101, None, b"X-B: c\r\n")


@pytest.mark.parametrize("line", [b"Content-Length: 3", b"Transfer-Encoding: chunked"])
def test_a_switch_to_no_protocol_frames_no_body_either(line: bytes) -> None:
    with pytest.raises(ResponseError, match=r"its 101 uses HTTP/1\.0 or announces a body"):
        read(line, start=b"HTTP/1.1 101 Switching Protocols")


def test_a_malformed_switch_is_malformed() -> None:
    with pytest.raises(ResponseError, match="Invalid header token"):
        read(b"Connection: upgrade", b"no field", start=b"HTTP/1.1 101 Switching Protocols")


HEADS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nRateLimit: x\r\nX: 1\r\n\r\n",
    b"HTTP/1.1 204 No\r\n\r\n",
]


@given(st.lists(st.tuples(st.sampled_from(HEADS), st.booleans(), st.booleans()), max_size=8))
def test_what_was_read_before_changes_nothing(asked: list[tuple[bytes, bool, bool]]) -> None:
    reader = ResponseReader(b"X-Tenant-ID")
    for raw, to_head, drop_rate in asked:
        for _ in range(2):
            fresh = ResponseReader(b"X-Tenant-ID").read(raw, to_head, drop_rate)
            again = reader.read(raw, to_head, drop_rate)
            for name in ResponseHead.__slots__:
                assert getattr(again, name) == getattr(fresh, name), name


@pytest.mark.parametrize("line", [b"a: b", b"Connection: a", b"Content-Length: x", b"nonsense"])
def test_too_many_fields_are_counted_before_they_are_read(line: bytes) -> None:
    with pytest.raises(ResponseError, match="too many header fields"):
        read(*[line] * 21)


def test_too_many_connection_options_are_refused() -> None:
    assert read(b"Connection: " + b",".join([b"a"] * 64)).lines == []
    with pytest.raises(ResponseError, match="too many options"):
        read(b"Connection: " + b",".join([b"a"] * 65))
