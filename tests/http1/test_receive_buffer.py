"""What is not read yet comes out as it came in, however it is cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.http1.receive_buffer import ReceiveBuffer

PIECES = st.lists(st.binary(max_size=12) | st.sampled_from([b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"a: b\r\n"]))


@given(PIECES, st.lists(st.integers(0, 20)), st.booleans())
def test_bytes_come_out_in_their_order(pieces: list[bytes], sizes: list[int], puts_back: bool) -> None:
    unread = ReceiveBuffer()
    came = taken = b""
    for index, piece in enumerate(pieces):
        unread.add(piece)
        came += piece
        if index < len(sizes):
            took = unread.read(sizes[index])
            if puts_back and len(took) > 1:
                unread.put_back(took[1:])
                took = took[:1]
            taken += took
        assert taken + bytes(unread.so_far()) == came
        assert len(unread) == len(came) - len(taken)
        assert bool(unread.data) == bool(len(unread))
    assert taken + unread.read(len(came)) == came
    assert not unread.data


@given(PIECES)
def test_a_head_ends_where_its_first_empty_line_does(pieces: list[bytes]) -> None:
    unread = ReceiveBuffer()
    came = b""
    for piece in pieces:
        unread.add(piece)
        came += piece
        found = came.find(b"\r\n\r\n")
        assert unread.head_size() == (found + 4 if found >= 0 else 0)


@given(PIECES)
def test_what_is_new_is_told_once(pieces: list[bytes]) -> None:
    unread = ReceiveBuffer()
    told = b""
    for piece in pieces:
        unread.add(piece)
        told += unread.new()
    assert told == b"".join(pieces)


@given(st.integers(0, 5), st.binary(max_size=5))
def test_empty_lines_are_skipped_and_nothing_else(lines: int, rest: bytes) -> None:
    unread = ReceiveBuffer()
    data = b"\r\n" * lines + b"x" + rest
    unread.add(data)
    unread.skip_empty_lines()
    assert bytes(unread.so_far()) == b"x" + rest


def test_a_head_that_drips_is_searched_once() -> None:
    """Whatever comes is looked at with three bytes of what came before it, and no more."""
    unread = ReceiveBuffer()
    for _ in range(30_000):
        unread.add(b"x")
        assert not unread.head_size()
        assert len(unread) - unread._searched <= 3
