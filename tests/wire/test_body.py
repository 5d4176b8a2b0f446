"""The chunked coding both ways: any body survives any pieces, nothing malformed passes, framing has its price."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.wire.body import LAST_CHUNK, BodyError, ChunkedDecoder, chunk, last_chunk, trailer_passes
from tests.kit.memory import rechunked

CUTS = st.lists(st.integers(0, 2000), max_size=10)


def decode(pieces: list[bytes], slack: int = 8192) -> tuple[bytes, ChunkedDecoder]:
    decoder = ChunkedDecoder(slack)
    body = b""
    for number, piece in enumerate(pieces):
        body += decoder.feed(piece)
        if decoder.done:
            decoder.rest += b"".join(pieces[number + 1 :])
            break
    return body, decoder


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=6), CUTS, st.binary(max_size=20))
def test_what_is_encoded_is_decoded(pieces: list[bytes], cuts: list[int], after: bytes) -> None:
    wire = b"".join(map(chunk, pieces)) + last_chunk([b"X-Sum: 1\r\n"]) + after
    body, decoder = decode(rechunked(wire, cuts))
    assert body == b"".join(pieces)
    assert (decoder.done, decoder.rest, decoder.trailers) == (True, after, [b"X-Sum: 1\r\n"])
    assert decoder.received == len(body)


def test_the_encoding() -> None:
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert last_chunk([]) == LAST_CHUNK == b"0\r\n\r\n"
    assert last_chunk([b"A: 1\r\n", b"B: 2\r\n"]) == b"0\r\nA: 1\r\nB: 2\r\n\r\n"


GOOD = {
    b"0\r\n\r\n": b"",
    b"000\r\n\r\n": b"",
    b"3\r\nabc\r\n0\r\n\r\n": b"abc",
    b"0003\r\nabc\r\n0\r\n\r\n": b"abc",
    b"A\r\n0123456789\r\n0\r\n\r\n": b"0123456789",
    b"a;x\r\n0123456789\r\n0;y=z\r\n\r\n": b"0123456789",
    b'3;q="a;b"\r\nabc\r\n0\r\n\r\n': b"abc",
    b'3; a ;b\t=\t"\\"" ; c = d;e=""\r\nabc\r\n0\r\n\r\n': b"abc",
    b"2\r\n\r\n\r\n0\r\n\r\n": b"\r\n",
}
BAD = {
    "no size": b"\r\nabc\r\n",
    "0x": b"0x3\r\nabc\r\n0\r\n\r\n",
    "plus": b"+3\r\nabc\r\n",
    "minus": b"-3\r\nabc\r\n",
    "underscore": b"1_0\r\n",
    "space before": b" 3\r\nabc\r\n",
    "space after": b"3 \r\nabc\r\n",
    "tab": b"3\t\r\nabc\r\n",
    "space and extension": b"3 ;x\r\nabc\r\n",
    "no digit": b"g\r\n",
    "2^63": b"8000000000000000\r\n",
    "2^64": b"10000000000000000\r\n",
    "17 digits": b"00000000000000003\r\nabc\r\n",
    "bare LF": b"3\nabc\r\n0\r\n\r\n",
    "bare CR": b"3\rabc\r\n",
    "CR in an extension": b"3;a\rb\r\nabc\r\n",
    "LF in an extension": b"3;a\nb\r\nabc\r\n",
    "NUL in an extension": b"3;a\0b\r\nabc\r\n",
    "longer than it says": b"3\r\nabcd\r\n0\r\n\r\n",
    "no CRLF after": b"3\r\nabc0\r\n\r\n",
    "LF after": b"3\r\nabc\n0\r\n\r\n",
    "CR after": b"3\r\nabc\r0\r\n\r\n",
    "trailer without colon": b"0\r\nnonsense\r\n\r\n",
    "trailer with space": b"0\r\nX : a\r\n\r\n",
    "trailer folded": b"0\r\nX: a\r\n b\r\n\r\n",
    "trailer with bare LF": b"0\r\nX: a\n\r\n",
    "trailer with NUL": b"0\r\nX: \0\r\n\r\n",
    "trailer with CR": b"0\r\nX: a\rb\r\n\r\n",
    "end with LF": b"0\r\n\n",
    "endless extension": b"3;" + b"x" * 5000 + b"\r\nabc\r\n0\r\n\r\n",
    "endless trailers": b"0\r\n" + b"X: aaaaaaaaaa\r\n" * 1000 + b"\r\n",
    "many trailers": b"0\r\n" + b"X:\r\n" * 33 + b"\r\n",
    "an extension without a name": b"3;\r\nabc\r\n",
    "an extension that is no token": b"3;bad[=x\r\nabc\r\n",
    "an extension without its value": b"3;a=\r\nabc\r\n",
    "an open quote": b'3;a="b\r\nabc\r\n',
    "a quote within a quote": b'3;a="b"c"\r\nabc\r\n',
    "a quoted name": b'3;"a"\r\nabc\r\n',
    "two semicolons": b"3;;a\r\nabc\r\n",
    "a semicolon at the end": b"3;a;\r\nabc\r\n",
    "a space at the end": b"3;a \r\nabc\r\n",
    "a control byte in a quote": b'3;a="\1"\r\nabc\r\n',
}
# What chunks of floods are made of: data that looks like framing, and framing that is no good, far between.
PIECES = st.one_of(
    st.binary(min_size=1, max_size=20).map(chunk),
    st.text("\r\n0;5=a", min_size=1, max_size=20).map(lambda text: chunk(text.encode())),
    st.integers(1, 700).map(lambda size: chunk(b"x" * size)),
)
FLOODS = st.tuples(PIECES, st.integers(1, 400)).map(lambda flood: flood[0] * flood[1])
ODDITIES = st.sampled_from(
    (b"05\r\nhello\r\n", b"5;a=b\r\nhello\r\n", b"5;\r\nhello\r\n", b"5\nhello\r\n", b"5\r\nhello\n", LAST_CHUNK)
)


@pytest.mark.parametrize(("wire", "expected"), GOOD.items())
@given(cuts=CUTS)
def test_a_good_body_in_any_pieces(wire: bytes, expected: bytes, cuts: list[int]) -> None:
    body, decoder = decode(rechunked(wire, cuts))
    assert (body, decoder.done, decoder.rest) == (expected, True, b"")


@pytest.mark.parametrize("wire", BAD.values(), ids=BAD)
@given(cuts=CUTS)
def test_a_bad_body_in_any_pieces(wire: bytes, cuts: list[int]) -> None:
    with pytest.raises(BodyError):
        decode(rechunked(wire, cuts))


@pytest.mark.parametrize(
    "wire", [b"3\r\nab", b"3", b"3\r", b"3\r\nabc", b"3\r\nabc\r", b"0\r\n", b"0\r\nX: a\r\n", b"0\r\nX", b""]
)
def test_an_unfinished_body_is_not_done(wire: bytes) -> None:
    assert not decode([wire])[1].done


@pytest.mark.parametrize("line", [b"zz", b"3;" + b"x" * 5000, b"0x"])
def test_a_hopeless_line_is_refused_before_its_end(line: bytes) -> None:
    with pytest.raises(BodyError):
        decode([line])


def test_data_comes_out_as_it_goes_in() -> None:
    decoder = ChunkedDecoder()
    assert [decoder.feed(piece) for piece in (b"5\r\nab", b"cd", b"e\r\n3", b"\r\nf")] == [b"ab", b"cd", b"e", b"f"]


def test_one_byte_chunks_end_at_the_slack() -> None:
    endless = chunk(b"x") * 10000
    with pytest.raises(BodyError, match="longer than their data"):
        decode([endless], slack=8192)
    body, _ = decode([endless], slack=1 << 20)
    assert len(body) == 10000


@given(st.lists(FLOODS | ODDITIES, max_size=6), st.integers(0, 5000))
def test_small_chunks_are_read_alike_at_once_and_line_by_line(parts: list[bytes], slack: int) -> None:
    """No more than 100 bytes at a time are never read ahead."""
    wire = b"".join(parts)
    results = []
    for size in (len(wire) or 1, 3000, 100):
        decoder = ChunkedDecoder(slack)
        payload = b""
        end = 0
        try:
            while end < len(wire) and not decoder.done:
                payload += decoder.feed(wire[end : end + size])
                end += size
            fate = "done" if decoder.done else "more"
        except BodyError:
            fate, payload, end = "refused", b"", 0
        rest = decoder.rest + wire[end:]
        results.append((fate, payload, rest if fate == "done" else b"", decoder.received if fate != "refused" else 0))
    assert results[0] == results[1] == results[2]


class CountingDecoder(ChunkedDecoder):
    """Counts the lines that it looks at one by one."""

    lines = 0

    def _take_line(self, line: bytes) -> None:
        self.lines += 1
        super()._take_line(line)


@pytest.mark.parametrize("data", [b"hello", b"x", b"\n0\r\n\r\n", b";a=b;", b"\n", b"x" * 40])
def test_chunks_in_bulk_are_not_looked_at_one_by_one(data: bytes) -> None:
    decoder = CountingDecoder(1 << 20)
    wire = chunk(data) * (65536 // len(data))
    for begin in range(0, len(wire), 16384):
        decoder.feed(wire[begin : begin + 16384])
    assert decoder.received > 65000
    assert decoder.lines < wire.count(b"\r\n") / 25


@pytest.mark.parametrize("line", [b"05", b"5;a=b"])
def test_small_chunks_with_more_than_their_size_are_refused(line: bytes) -> None:
    with pytest.raises(BodyError, match="longer than their data"):
        decode([line + b"\r\nhello\r\n" + chunk(b"hello") * 200])


def test_a_line_may_drip() -> None:
    decoder = ChunkedDecoder()
    for byte in b"3;" + b"x" * 4000:
        decoder.feed(bytes((byte,)))
    assert decoder.feed(b"\r\nabc\r\n") == b"abc"


def test_large_chunks_may_have_extensions() -> None:
    body, decoder = decode([b"2710;name=value\r\n" + b"x" * 10000 + b"\r\n"] * 100 + [LAST_CHUNK])
    assert (len(body), decoder.done) == (1_000_000, True)


@pytest.mark.parametrize(
    "name",
    [
        b"Content-Length", b"Transfer-Encoding", b"Host", b"Authorization", b"Cookie", b"Set-Cookie",
        b"X-Tenant-ID", b"x_tenant_id", b"Tenant", b"Connection", b"Trailer", b"X-Forwarded-For", b"Forwarded",
        b"X-Real-IP", b"X-Request-ID", b"X_Anything", b"Content-Type", b"Access-Control-Allow-Origin",
        b"RateLimit", b"Cache-Control", b"TE", b"Via", b"Content-Encoding", b"WWW-Authenticate",
    ],
)  # fmt: skip
def test_a_trailer_that_means_something_before_the_body_does_not_pass(name: bytes) -> None:
    assert not trailer_passes(name, b"x-org")
    assert not trailer_passes(name.upper(), b"x-org")
    assert decode([b"0\r\n%b: 1\r\nX-Sum: 2\r\n\r\n" % name])[1].trailers == [b"X-Sum: 2\r\n"]


def test_a_trailer_is_written_anew() -> None:
    assert decode([b'0\r\nETag:  "a" \t\r\nX-B:\r\n\r\n'])[1].trailers == [b'ETag: "a"\r\n', b"X-B: \r\n"]


def test_a_trailer_does_not_name_a_tenant_under_any_header() -> None:
    decoder = ChunkedDecoder(tenant_header=b"X-Org")
    decoder.feed(b"0\r\nx-ORG: evil\r\nX-Orga: 1\r\n\r\n")
    assert decoder.trailers == [b"X-Orga: 1\r\n"]
