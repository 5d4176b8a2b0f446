"""The Huffman code of HPACK, beside another decoder and its encoder."""

from __future__ import annotations

import pytest
from hpack.exceptions import HPACKDecodingError
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.wire.huffman import HuffmanError, decode

ENCODER = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


def test_the_examples_of_the_rfc() -> None:
    """Appendix C.4 and C.6."""
    assert decode(bytes.fromhex("f1e3c2e5f23a6ba0ab90f4ff")) == b"www.example.com"
    assert decode(bytes.fromhex("d07abe941054d444a8200595040b8166e082a62d1bff")) == b"Mon, 21 Oct 2013 20:13:21 GMT"
    assert decode(b"") == b""


@given(st.binary(max_size=300))
def test_whatever_is_encoded_is_decoded(text: bytes) -> None:
    assert decode(ENCODER.encode(text)) == text


@given(st.one_of(st.binary(max_size=40), st.lists(st.sampled_from([0xFF, 0xFE, 0, 0xF8]), max_size=8).map(bytes)))
def test_any_bytes_mean_what_they_mean_to_others(coded: bytes) -> None:
    try:
        expected = bytes(decode_huffman(coded))
    except HPACKDecodingError:
        with pytest.raises(HuffmanError):
            decode(coded)
    else:
        assert decode(coded) == expected


@pytest.mark.parametrize("coded", [b"\xff", b"\xff\xff\xff\xff", b"\xf8\xff", b"\0", b"\x07\xfe"])
def test_padding_that_is_too_long_or_no_padding(coded: bytes) -> None:
    """Section 5.2: not of eight bits, not of other bits, and EOS does not stand in a string."""
    with pytest.raises(HuffmanError):
        decode(coded)
