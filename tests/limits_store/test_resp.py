"""Replies of a server that is not trusted."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.limits_store.resp import LONGEST, BadReply, ErrorReply, Reply, ReplyReader, command

_DIGEST = b"0123456789abcdef0123456789abcdef01234567"
_NUMBERS = st.lists(st.integers(-(10**18) + 1, 10**18 - 1), min_size=1, max_size=99)
_TEXT = st.binary(max_size=60).filter(lambda text: b"\r" not in text and b"\n" not in text)


def encoded(reply: Reply) -> bytes:
    """A reply as a server sends it."""
    if isinstance(reply, list):
        return b"*%d\r\n" % len(reply) + b"".join(b":%d\r\n" % number for number in reply)
    if isinstance(reply, ErrorReply):
        return b"-%b\r\n" % reply
    return b"$40\r\n%b\r\n" % reply if reply == _DIGEST else b"+%b\r\n" % reply


@given(st.lists(st.one_of(_NUMBERS, _TEXT, _TEXT.map(ErrorReply), st.just(_DIGEST))), st.data())
def test_replies_are_read_in_pieces_of_any_size(replies: list[Reply], data: st.DataObject) -> None:
    sent = b"".join(map(encoded, replies))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=10)))
    reader = ReplyReader()
    read = [reply for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True) for reply in reader.feed(sent[a:b])]
    assert read == replies
    assert [type(reply) for reply in read] == [type(reply) for reply in replies]


@pytest.mark.parametrize(
    ("sent", "fault"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "which is no reply of Redis"),
        (b"\x15\x03\x01\x00\x02\x02", "a TLS alert: it speaks TLS there; write rediss://"),
        (b":1\r\n", "which is no reply of Redis"),
        (b"%1\r\n", "which is no reply of Redis"),
        (b">2\r\n", "which is no reply of Redis"),
        (b"$99999999999\r\n", "a string that nobody asked for"),
        (b"$-1\r\n", "a string that nobody asked for"),
        (b"$40\r\n" + b"g" * 40 + b"\r\n", "a string that nobody asked for"),
        (b"*4294967295\r\n", "an array that nobody asked for"),
        (b"*1000\r\n:1\r\n", "an array that nobody asked for"),
        (b"*0\r\n", "an array that nobody asked for"),
        (b"*-1\r\n", "an array that nobody asked for"),
        (b"*1\r\n*1\r\n*1\r\n", "an array that nobody asked for"),
        (b"*1\r\n$3\r\nabc\r\n", "an array that nobody asked for"),
        (b"*1\r\n:1\r\n:2\r\n", "another length than announced"),
        (b"*2\r\n:1\r\n+OK\r\n", "another length than announced"),
        (b"*1\r\n:" + b"1" * 33000, "too long"),
        (b"+" + b"x" * LONGEST, "a line that is too long"),
        (b"-" + b"x" * LONGEST, "a line that is too long"),
    ],
)
def test_what_is_no_reply_is_recognized_at_once(sent: bytes, fault: str) -> None:
    with pytest.raises(BadReply, match=fault):
        ReplyReader().feed(sent)


@given(st.binary(max_size=200), st.integers(1, 20))
def test_any_bytes_are_read_refused_or_waited_for(sent: bytes, size: int) -> None:
    reader = ReplyReader()
    with contextlib.suppress(BadReply):
        for at in range(0, len(sent), size):
            reader.feed(sent[at : at + size])


@pytest.mark.parametrize("size", [99, 100, 999])
def test_an_array_of_many_numbers_is_read_also_in_two_pieces(size: int) -> None:
    numbers = [-(10**17) - at for at in range(size)]
    sent, reader = encoded(numbers), ReplyReader()
    assert reader.feed(sent[:-1]) == []
    assert reader.feed(sent[-1:]) == [numbers]


def test_a_command_is_an_array_of_strings_that_may_contain_anything() -> None:
    assert command(b"GET", b"a\r\nb") == b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n"


def test_an_error_is_shown_in_one_printable_line() -> None:
    assert str(ErrorReply(b"ERR \x1b[31m\xff" + b"x" * 1000)) == "ERR ?[31m?" + "x" * 190
