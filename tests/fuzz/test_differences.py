"""Messages of pieces that have fooled readers: the gateway reads them as llhttp and h11 do, or refuses them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koder_gateway.wire.body import ChunkedDecoder
from tests.fuzz import differences
from tests.fuzz.differences import KNOWN, Difference, check_requests, check_responses
from tests.fuzz.names import inputs
from tests.fuzz.readings import REQUESTS, Reading, Stream

FIELDS = st.sampled_from(
    [
        b"Content-Length: 5\r\n", b"Content-Length: 05\r\n", b"Content-Length: 0\r\n", b"content-length:5 \t\r\n",
        b"Content-Length: +5\r\n", b"Content-Length: 5, 5\r\n", b"Content-Length:\r\n", b"Content_Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: Chunked \r\n", b"Transfer-Encoding: a, chunked\r\n",
        b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding:\tchunked\r\n", b"Transfer-Encoding: chunked,\r\n",
        b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Connection: keep-alive, close\r\n",
        b"Connection: upgrade, x\r\n", b"Connection: content-length\r\n", b"Upgrade: websocket\r\n",
        b"X: a\x80b\r\n", b"X:\r\n", b"X: a\tb\r\n", b"X-Y: \r\n", b"Expect: 100-continue\r\n", b"TE: trailers\r\n",
        b"Trailer: X\r\n", b"Proxy-Connection: close\r\n", b"Keep-Alive: timeout=5\r\n", b"Cookie: a=b\r\n",
        b"X : a\r\n", b" x\r\n", b"X: a\x01\r\n", b"X: \x7f\r\n", b"X\x80: a\r\n", b"X: a\n", b"X: a\r", b"X\r\n",
        b"Host: b\r\n", b": a\r\n", b"X: a\0\r\n", b"X: a\r\r\n",
    ]
)  # fmt: skip
BODIES = st.sampled_from(
    [
        b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"5;a=b\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n", b"\r\n",
        b'5;a="b;"\r\nhello\r\n0;x\r\nX: y\r\n\r\n', b"5 ;a\r\nhello\r\n0\r\n\r\n", b"5;a=\r\nhello\r\n0\r\n\r\n",
        b"00005\r\nhello\r\n00\r\n\r\n", b"5;a ; b = c\r\nhello\r\n0\r\n\r\n", b"5;\ta\r\nhello\r\n0\r\n\r\n",
        b"0\r\nX : y\r\n\r\n", b"0\r\nX:\r\n\r\n", b"5;\x80\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n",
        b'5;a="\\\x80"\r\nhello\r\n0\r\n\r\n', b"0\r\nX: \x80\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n", b"5;a\nhello\r\n0\r\n\r\n", b"0\r\n X: y\r\n\r\n",
        b"10000000000000005\r\nhello\r\n0\r\n\r\n", b"0\r\nContent-Length: 5\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n",
    ]
)  # fmt: skip
REQUEST_LINES = st.sampled_from(
    [
        b"GET /a HTTP/1.1\r\n", b"POST /a HTTP/1.1\r\n", b"GET /a HTTP/1.0\r\n", b"POST /a HTTP/1.0\r\n",
        b"HEAD /a?b HTTP/1.1\r\n", b"OPTIONS * HTTP/1.1\r\n", b"GET http://a/b HTTP/1.1\r\n", b"GET  /a HTTP/1.1\r\n",
        b"GET /a HTTP/1.1 \r\n", b"GET /\x80 HTTP/1.1\r\n", b"GET /a#b HTTP/1.1\r\n", b"GET /a HTTP/1.1\n",
    ]
)  # fmt: skip
STATUS_LINES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 204 No Content\r\n", b"HTTP/1.1 304 x\r\n", b"HTTP/1.0 200 OK\r\n",
        b"HTTP/1.1 200\r\n", b"HTTP/1.1 200 \r\n", b"HTTP/1.1 103 Early\r\n", b"HTTP/1.1 100 Continue\r\n",
        b"HTTP/1.1 101 Sw\r\n", b"HTTP/1.1 599 \x80\r\n", b"HTTP/1.1 200 a\tb\r\n", b"HTTP/1.1 205 Reset\r\n",
        b"HTTP/1.1 200  x \r\n", b"HTTP/1.1 2000 OK\r\n", b"HTTP/1.1 20 OK\r\n", b"HTTP/1.1 200 OK\n",
    ]
)  # fmt: skip
HOSTS = st.sampled_from([b"Host: a\r\n", b"Host: a\r\n", b"Host: a\r\n", b""])


def messages(lines: st.SearchStrategy[bytes], hosts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Up to three messages, one behind the other."""
    fields = st.lists(FIELDS, max_size=3).map(b"".join)
    message = st.tuples(lines, hosts, fields, st.just(b"\r\n"), BODIES).map(b"".join)
    return st.lists(message, min_size=1, max_size=3).map(b"".join)


@settings(max_examples=200, derandomize=True, database=None)
@given(messages(REQUEST_LINES, HOSTS))
def test_requests(data: bytes) -> None:
    check_requests(data)


@settings(max_examples=200, derandomize=True, database=None)
@given(messages(STATUS_LINES, st.just(b"")), st.booleans())
def test_responses(data: bytes, to_head: bool) -> None:
    check_responses(data, to_head=to_head)


def check_inputs() -> None:
    for path in inputs("requests"):
        check_requests(path.read_bytes())
    for path in inputs("responses"):
        check_responses(path.read_bytes(), to_head=False)


@pytest.mark.parametrize("known", KNOWN, ids=[known.reason for known in KNOWN])
def test_each_known_difference_is_one_of_an_input(known: Difference, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(differences, "KNOWN", tuple(each for each in KNOWN if each is not known))
    with pytest.raises(AssertionError, match=known.reader):
        check_inputs()


# -- it can fail: readers with the faults of others


def a_length_too_short(stream: Stream) -> Stream:
    for said in stream.messages:
        said.body = said.body[:-1]
    return stream


def a_field_less(stream: Stream) -> Stream:
    for said in stream.messages:
        said.fields = said.fields[1:]
    return stream


def one_more(stream: Stream) -> Stream:
    if stream.messages and not stream.messages[-1].last:
        raw = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        head = REQUESTS.read(raw)
        stream.messages.append(Reading(b"GET", b"/smuggled", 1, head.fields, whole=True, raw=raw, head=head))
    return stream


@pytest.mark.parametrize("fault", [a_length_too_short, a_field_less, one_more])
def test_a_reader_with_a_fault_is_found(fault: Callable[[Stream], Stream], monkeypatch: pytest.MonkeyPatch) -> None:
    right = differences.our_requests
    monkeypatch.setattr(differences, "our_requests", lambda data: fault(right(data)))
    with pytest.raises(AssertionError):
        check_inputs()


def test_a_decoder_that_takes_a_bare_lf_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ChunkedDecoder.feed
    monkeypatch.setattr(
        ChunkedDecoder, "feed", lambda self, data, *more: right(self, data.replace(b"5\nhello", b"5\r\nhello"), *more)
    )
    head = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert REQUESTS.read(head).refusal is None
    with pytest.raises(AssertionError, match="llhttp"):
        check_requests(head + b"5\nhello\r\n0\r\n\r\n")
