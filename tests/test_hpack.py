"""HPACK against another implementation of it, and what no block may do."""

from __future__ import annotations

from typing import Any

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.wire.frames import COMPRESSION_ERROR
from koder_gateway.wire.hpack import (
    STATIC,
    TABLE_SIZE,
    Decoder,
    HpackError,
    encode_field,
    encode_lines,
    encode_status,
    make_field,
)

LIMIT = 32768
NAMES = st.sampled_from([b":path", b"accept", b"cookie", b"x-a", b"authorization", b"set-cookie"]) | st.binary(
    min_size=1, max_size=40
)
FIELDS = st.lists(st.tuples(NAMES, st.binary(max_size=300)), max_size=12)


def pairs(block: bytes, decoder: Decoder | None = None) -> list[tuple[bytes, bytes]] | None:
    fields = (decoder or Decoder(1 << 24)).decode(block)
    return None if fields is None else [(name, value) for name, value, _, _ in fields]


@given(blocks=st.lists(st.tuples(FIELDS, st.booleans(), st.sampled_from([None, 0, 100, 4096])), max_size=6))
def test_what_another_encoder_writes_is_read(blocks: list[tuple[Any, bool, int | None]]) -> None:
    """Block after block on one connection, with a table that is filled, emptied and made smaller."""
    encoder = hpack.Encoder()
    decoder = Decoder(1 << 24)
    for fields, huffman, size in blocks:
        if size is not None:
            encoder.header_table_size = size
        block = encoder.encode(fields, huffman=huffman)
        assert pairs(block, decoder) == fields


@given(lines=st.lists(st.tuples(st.sampled_from([b"Date", b"Set-Cookie", b"X-Long-Name"]), st.binary(max_size=700))))
def test_what_is_written_another_decoder_reads(lines: list[tuple[bytes, bytes]]) -> None:
    clean = [(name, value.replace(b"\r", b"").replace(b"\n", b"")) for name, value in lines]
    text = b"".join(b"%b: %b\r\n" % line for line in clean)
    decoder = hpack.Decoder(max_header_list_size=1 << 24)
    lower = [(name.lower(), value) for name, value in clean]
    assert [tuple(field) for field in decoder.decode(encode_lines(text), raw=True)] == lower
    assert not decoder.header_table.dynamic_entries, "nothing of it is kept there"
    assert b"".join(encode_field(name, value) for name, value in clean) == encode_lines(text)


@pytest.mark.parametrize("status", [100, 103, 200, 204, 206, 304, 400, 404, 418, 429, 500, 502, 599])
def test_a_status(status: int) -> None:
    assert pairs(encode_status(status)) == [(b":status", b"%d" % status)]
    assert len(encode_status(status)) == (1 if status in (200, 204, 206, 304, 400, 404, 500) else 5)


def test_the_static_table_is_that_of_the_rfc() -> None:
    table = hpack.table.HeaderTable.STATIC_TABLE
    assert [(field.name, field.value) for field in STATIC] == list(table)


def test_credentials_are_never_indexed() -> None:
    (field,) = hpack.Decoder().decode(encode_field(b"Set-Cookie", b"a=b"), raw=True)
    assert isinstance(field, hpack.NeverIndexedHeaderTuple)


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (b"\x80", "index 0"),
        (b"\xbe", "an index beyond an empty table"),
        (b"\xff\xff\xff\xff\xff\x0f", "an index out of range"),
        (b"\xff\x80\x80\x80\x80\x80\x80\x00", "an integer without end"),
        (b"\xff\x80", "a block that ends within an integer"),
        (b"\x7f", "a block that ends within a name's index"),
        (b"\x40", "a block without its name"),
        (b"\x40\x01a", "a block without its value"),
        (b"\x40\x05a", "a name beyond the block"),
        (b"\x40\x01a\x7f\xff\xff\xff\x7fv", "a value beyond the block"),
        (b"\x3f\xe2\x1f", "a table larger than was allowed"),
        (b"\x82\x20", "a table size behind a field"),
        (b"\x00\x01a\x81\xff", "a Huffman string of nothing but padding"),
        (b"\x00\x01a\x84\xff\xff\xff\xff", "a Huffman string with EOS in it"),
        (b"\x00\x01a\x81\x18", "a Huffman string padded with zeros"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_block_that_cannot_be_decoded(block: bytes, why: str) -> None:
    with pytest.raises(HpackError) as caught:
        Decoder(LIMIT).decode(block)
    assert caught.value.code == COMPRESSION_ERROR


@given(st.binary(max_size=200))
def test_garbage_is_fields_or_an_error(block: bytes) -> None:
    try:
        fields = Decoder(LIMIT).decode(block)
    except HpackError:
        return
    assert fields is None or sum(field.size for field in fields) <= LIMIT


def test_a_bomb_is_counted_and_not_kept() -> None:
    """One large field in the table, named again and again: 4 KiB for a byte."""
    decoder = Decoder(LIMIT)
    bomb = b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4000
    assert decoder.decode(bomb + b"\xbe" * 7) is not None
    assert decoder.decode(b"\xbe" * 16000) is None
    assert decoder.decode(b"\xbe") == [make_field(b"a", b"v" * 4000)], "the table still stands"


def indexed(index: int) -> bytes:
    """A block that names one field of the tables."""
    return bytes((0x80 | index,)) if index < 127 else bytes((0xFF, index - 127))


def test_the_table_is_bounded() -> None:
    decoder = Decoder(1 << 24)
    for number in range(1000):
        decoder.decode(b"\x40\x04%04d\x04%04d" % (number, number))
    # Each is 8 bytes and 32 that the protocol counts.
    room = TABLE_SIZE // 40
    assert pairs(indexed(62 + room - 1), decoder) == [(b"%04d" % (1000 - room),) * 2]
    with pytest.raises(HpackError):
        decoder.decode(indexed(62 + room))
    decoder.decode(b"\x20")
    with pytest.raises(HpackError):
        decoder.decode(b"\xbe")


def test_a_field_too_large_for_the_table_empties_it() -> None:
    decoder = Decoder(1 << 24)
    decoder.decode(b"\x40\x01a\x01b")
    assert pairs(b"\xbe", decoder) == [(b"a", b"b")]
    decoder.decode(b"\x40\x01a\x7f\x89\x26" + b"v" * 5000)
    with pytest.raises(HpackError):
        decoder.decode(b"\xbe")


def test_the_version_tells_whether_a_block_means_the_same_again() -> None:
    decoder = Decoder(LIMIT)
    first = decoder.version
    for block in (b"\x82\x86", b"\x00\x01a\x01b", b"\x10\x01a\x01b", b"\x3f\xe1\x1f\x82"):
        decoder.decode(block)
        assert decoder.version == first, "nothing has come into the table"
    decoder.decode(b"\x40\x01a\x01b")
    second = decoder.version
    assert second != first
    decoder.decode(b"\x20")
    assert decoder.version != second, "a table made smaller is another one"


@given(name=st.binary(min_size=1, max_size=20), value=st.binary(max_size=20))
def test_what_is_good_in_http_2(name: bytes, value: bytes) -> None:
    """RFC 9113 section 8.2.1, told in other words."""
    token = set(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
    bare = name[1:] if name[:1] == b":" else name
    good = (
        bool(bare)
        and set(bare) <= token
        and not set(value) & {*range(9), *range(10, 32), 127}
        and value.strip(b" \t") == value
    )
    assert make_field(name, value).good == good
