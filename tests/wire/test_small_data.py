"""Small DATA frames in a row are one piece of each stream, and the same bytes as one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.wire.http2_frames import Http2Error
from koder_gateway.wire.small_data import MOST, SMALL, Piece, gather
from tests.kit.http1 import read_message
from tests.kit.http2_frames import DATA, RST_STREAM, data, frame, headers, ping, reset
from tests.kit.http2_memory import Http2, asking
from tests.kit.memory import MemoryGateway

PADDED = 0x8
OPEN = {1, 3, 5}


def padded(stream: int, body: bytes, padding: int) -> bytes:
    return data(stream, body, pad=padding)


def test_a_row_is_a_piece_of_each_stream() -> None:
    row = data(1, b"a") + data(3, b"b") + padded(1, b"c", 4) + data(1, b"d")
    assert gather(row, 0, OPEN) == ([Piece(1, b"acd", 8), Piece(3, b"b", 1)], len(row))


@pytest.mark.parametrize(
    "other",
    [
        data(1, b"end", end=True),
        data(1, b""),
        padded(1, b"", 3),
        data(1, b"x" * (SMALL + 1)),
        data(7, b"of no stream"),
        ping(b"whatever"),
        data(1, b"not whole")[:-1],
        data(1, b"")[:5],
        b"",
    ],
    ids=[
        "ends",
        "empty",
        "empty but for padding",
        "large",
        "unknown",
        "other",
        "partial",
        "partial header",
        "nothing",
    ],
)
def test_it_ends_with_whatever_else_comes(other: bytes) -> None:
    row = data(1, b"a") + data(1, b"b")
    assert gather(b"before" + row + other, 6, OPEN) == ([Piece(1, b"ab", 2)], 6 + len(row))


def test_it_has_a_bound() -> None:
    row = data(1, b"a") * (MOST + 10)
    assert gather(row, 0, OPEN) == ([Piece(1, b"a" * MOST, MOST)], 10 * MOST)


def test_malformed_padding_is_an_error() -> None:
    with pytest.raises(Http2Error):
        gather(data(1, b"a") + frame(DATA, PADDED, 1, b"\x02a"), 0, OPEN)


@given(st.lists(st.tuples(st.sampled_from([1, 3, 5]), st.binary(min_size=1, max_size=20), st.integers(-1, 5))))
def test_each_stream_gets_its_bytes_in_their_order(parts: list[tuple[int, bytes, int]]) -> None:
    row = b"".join(data(number, body) if pad < 0 else padded(number, body, pad) for number, body, pad in parts)
    pieces, end = gather(row, 0, OPEN)
    assert end == len(row)
    for number in OPEN:
        expected = b"".join(body for each, body, _ in parts if each == number)
        size = sum(len(body) + pad + 1 for each, body, pad in parts if each == number)
        assert [piece[1:] for piece in pieces if piece.stream == number] == ([(expected, size)] if expected else [])


# -- through the gateway


def posting(gateway: MemoryGateway, count: int, *more: tuple[bytes, bytes]) -> Http2:
    client = Http2(gateway)
    fields = asking(b"/v1/users", b"POST", *more)
    client.send(*[headers(2 * number + 1, fields, end=False) for number in range(count)])
    return client


@pytest.mark.parametrize("padding", [-1, 0, 7])
def test_bodies_of_one_byte_frames_arrive_whole_and_in_few_pieces(make_gateway, padding: int) -> None:
    gateway = make_gateway()
    client = posting(gateway, 3)
    bodies = {1: b"", 3: b"", 5: b""}
    row = []
    for number in range(900):
        stream, byte = (1, 3, 5)[number % 3], bytes([number % 251])
        bodies[stream] += byte
        row.append(data(stream, byte) if padding < 0 else padded(stream, byte, padding))
    client.send(b"".join(row))
    client.send(*[data(stream, b"", end=True) for stream in bodies])
    gateway.advance(0.1)
    got = []
    for service in gateway.origin("identity").connections:
        raw = service.take()
        assert raw.count(b"\r\n") < 60, "each byte is a chunk of its own"
        got.append(read_message(raw)[0].body)
    assert sorted(got) == sorted(bodies.values())
    client.peer.reset()


def test_a_row_beyond_a_content_length_ends_its_stream_alone(make_gateway) -> None:
    gateway = make_gateway()
    client = posting(gateway, 2, (b"content-length", b"10"))
    came = client.send(b"".join(data(stream, b"x") for _ in range(6) for stream in (1, 3, 1)))
    assert [each.stream for each in came if each.kind == RST_STREAM] == [1]
    came = client.send(data(3, b"yyyy", end=True))
    assert [each for each in came if each.kind == RST_STREAM] == []
    client.peer.reset()


def test_a_row_on_a_stream_that_was_reset_is_paid_for(make_gateway) -> None:
    """Each frame of it is work that brings nothing."""
    gateway = make_gateway()
    client = posting(gateway, 1)
    client.send(reset(1))
    client.send(b"".join(data(1, b"x") for _ in range(5000)))
    gateway.advance(3)
    assert client.peer.closed
