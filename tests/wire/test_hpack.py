"""HPACK against another implementation of it, and what no block may do."""

from __future__ import annotations

from typing import Any

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.wire.hpack import (
    STATIC,
    TABLE_SIZE,
    Decoder,
    HpackError,
    OversizedBlock,
    encode_field,
    encode_lines,
    encode_status,
    make_field,
)
from koder_gateway.wire.http2_frames import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, Http2Error

LIMIT = 32768
NAMES = st.sampled_from([b":path", b"accept", b"cookie", b"x-a", b"authorization", b"set-cookie"]) | st.binary(
    min_size=1, max_size=40
)
FIELDS = st.lists(st.tuples(NAMES, st.binary(max_size=300)), max_size=12)


def pairs(block: bytes, decoder: Decoder | None = None) -> list[tuple[bytes, bytes]] | None:
    fields = (decoder or Decoder(1 << 24, 1 << 16)).decode(block)
    return None if fields is None else [(name, value) for name, value, _, _ in fields]


@given(blocks=st.lists(st.tuples(FIELDS, st.booleans(), st.sampled_from([None, 0, 100, 4096])), max_size=6))
def test_what_another_encoder_writes_is_read(blocks: list[tuple[Any, bool, int | None]]) -> None:
    """Block after block on one connection, with a table that is filled, emptied and made smaller."""
    encoder = hpack.Encoder()
    decoder = Decoder(1 << 24, 1 << 16)
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
        Decoder(LIMIT, 1 << 16).decode(block)
    assert caught.value.code == COMPRESSION_ERROR


@given(st.binary(max_size=200))
def test_garbage_is_fields_or_an_error(block: bytes) -> None:
    try:
        fields = Decoder(LIMIT, 1 << 16).decode(block)
    except HpackError:
        return
    assert fields is None or sum(field.size for field in fields) <= LIMIT


def test_a_bomb_is_counted_and_not_kept() -> None:
    """One large field in the table, named again and again: 4 KiB for a byte."""
    decoder = Decoder(LIMIT, 1 << 16)
    bomb = b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4000
    assert decoder.decode(bomb + b"\xbe" * 7) is not None
    assert decoder.decode(b"\xbe" * 30) is None
    assert decoder.decode(b"\xbe") == [make_field(b"a", b"v" * 4000)], "the table still stands"


def indexed(index: int) -> bytes:
    """A block that names one field of the tables."""
    return bytes((0x80 | index,)) if index < 127 else bytes((0xFF, index - 127))


def test_fields_are_kept_up_to_their_number_and_followed_beyond() -> None:
    decoder = Decoder(LIMIT, 10)
    assert len(pairs(b"\0\1a\0" * 16, decoder) or ()) == 16
    assert decoder.excess == 0
    assert decoder.decode(b"\0\1a\0" * 17 + b"\x40\1b\1c") is None
    assert decoder.excess == 18
    # The table has followed, so that the next block means what its sender thinks.
    assert pairs(b"\xbe", decoder) == [(b"b", b"c")]
    assert decoder.excess == 0


def test_a_cookie_s_crumbs_are_one_field() -> None:
    decoder = Decoder(LIMIT, 10)
    assert len(pairs(b"\0\1a\0" * 15 + b"\0\6cookie\1c" * 200, decoder) or ()) == 215
    assert len(pairs(b"\0\6cookie\1c" * 200 + b"\0\1a\0" * 16, decoder) or ()) == 216
    assert decoder.decode(b"\0\6cookie\1c" * 200 + b"\0\1a\0" * 17) is None


@pytest.mark.parametrize("crumb", [b"\xa0", b"\0\6cookie\1c"], ids=["indexed", "literal"])
def test_crumbs_beyond_their_number_count_each(crumb: bytes) -> None:
    """A byte can be a crumb: some thousand of them fit into a short block, which nobody has to follow."""
    decoder = Decoder(LIMIT, 10)
    assert len(pairs(crumb * (256 + 16), decoder) or ()) == 256 + 16
    assert len(pairs(b"\0\1a\0" * 15 + crumb * 257, decoder) or ()) == 15 + 257
    assert decoder.decode(b"\0\1a\0" * 15 + crumb * 258) is None
    assert decoder.decode(crumb * (256 + 17)) is None
    assert decoder.excess == 256 + 17
    with pytest.raises(OversizedBlock):
        decoder.decode(crumb * 3200)


@pytest.mark.parametrize(
    "block", [b"\x40\0\0" * 11_000, b"\0\0\0" * 11_000, b"\x90" * 33_000, b"\xbe" * 33_000, b"\xbf" * 33_000]
)
def test_a_block_many_times_over_the_limits_is_not_followed_to_its_end(block: bytes) -> None:
    decoder = Decoder(LIMIT, 100)
    decoder.decode(b"\x40\1a\1b\x40\1c\x7f\xa1\x1e" + b"v" * 4000)
    with pytest.raises(Http2Error) as raised:
        decoder.decode(b"\x40\1a\1b" + block)
    assert raised.value.code == ENHANCE_YOUR_CALM


def test_the_table_s_size_changes_twice_at_most() -> None:
    """RFC 7541 section 4.2."""
    decoder = Decoder(LIMIT, 100)
    assert pairs(b"\x20\x3f\xe1\x1f\x82", decoder) == [(b":method", b"GET")]
    with pytest.raises(HpackError):
        decoder.decode(b"\x20\x3f\xe1\x1f\x20\x82")


def test_the_table_is_bounded() -> None:
    decoder = Decoder(1 << 24, 1 << 16)
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
    decoder = Decoder(1 << 24, 1 << 16)
    decoder.decode(b"\x40\x01a\x01b")
    assert pairs(b"\xbe", decoder) == [(b"a", b"b")]
    decoder.decode(b"\x40\x01a\x7f\x89\x26" + b"v" * 5000)
    with pytest.raises(HpackError):
        decoder.decode(b"\xbe")


def test_the_version_tells_whether_a_block_means_the_same_again() -> None:
    decoder = Decoder(LIMIT, 1 << 16)
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
