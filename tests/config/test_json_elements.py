"""The elements of a JSON array: where each begins and ends, whatever it is, and at what cost."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.config.json_elements import Elements, Malformed

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
LONGEST = 1 << 16


def elements(data: bytes, longest: int = LONGEST) -> list[Any]:
    return [json.loads(data[start:end]) for start, end in Elements(data, longest)]


@given(st.lists(values, max_size=6), st.sampled_from([None, 1, "\t"]), st.booleans())
def test_they_are_those_of_a_json_reader(listed: list[Any], indent: Any, ascii_only: bool) -> None:
    text = json.dumps(listed, indent=indent, ensure_ascii=ascii_only)
    assert elements(text.encode()) == listed
    wrapped = json.dumps({"a]": "}", "tenants": listed, "next": [{}]}, indent=indent, ensure_ascii=ascii_only)
    assert elements(wrapped.encode()) == listed


@given(st.lists(values, max_size=4), st.data())
def test_what_was_changed_is_elements_or_malformed(listed: list[Any], data: st.DataObject) -> None:
    """And where a reader of JSON takes the whole, the elements are the same."""
    text = bytearray(json.dumps(listed).encode())
    text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 127))
    try:
        expected = json.loads(bytes(text))
    except ValueError:
        expected = None
    spans = None
    with suppress(Malformed):
        spans = list(Elements(bytes(text), LONGEST))
    if isinstance(expected, list):
        assert spans is not None
        assert [json.loads(text[start:end]) for start, end in spans] == expected


@pytest.mark.parametrize(
    "data",
    [
        b"", b" ", b"[", b"[1", b"[1,", b"[,1]", b"[1,]", b"[1 2]", b"[1]]", b"[1] 2", b"]", b"1", b'"a"', b"[{]",
        b"[:]", b"{}", b"{", b'{"tenants"', b'{"tenants":', b'{"tenants":{}}', b'{"tenants":[]', b'{"tenants":[],}',
        b'{"tenants":[],"tenants":[]}', b'{"a":1}', b'{tenants:[]}', b'{"a" 1}', b'["a]', b'["a\\"]',
    ],
)  # fmt: skip
def test_a_broken_skeleton(data: bytes) -> None:
    with pytest.raises(Malformed):
        list(Elements(data, LONGEST))


def test_members_beside_the_array_are_kept_if_they_are_wanted() -> None:
    data = b'{"registry": "http://a/[", "n": 7, "tenants": [1], "after": {"n": 2}, "last": null}'
    found = Elements(data, LONGEST, (b"registry", b"after", b"absent"))
    spans = iter(found)
    assert data[slice(*next(spans))] == b"1"
    assert found.members == {b"registry": b'"http://a/["'}
    assert list(spans) == []
    assert found.members == {b"registry": b'"http://a/["', b"after": b'{"n": 2}'}
    with pytest.raises(Malformed, match="after is given twice"):
        list(Elements(b'{"after": 1, "tenants": [], "after": 1}', LONGEST, (b"after",)))


@pytest.mark.parametrize(
    "data",
    [
        b"[" + b" " * LONGEST + b"1]",
        b"[" + b"[" * LONGEST,
        b"[" + b'{"a":' * LONGEST,
        b'{"a":"' + b"a" * LONGEST + b'","tenants":[]}',
    ],
)
def test_nothing_is_longer_than_it_may_be(data: bytes) -> None:
    with pytest.raises(Malformed):
        list(Elements(data, LONGEST))


@pytest.mark.parametrize(
    "long",
    [
        b'"' + b"a" * LONGEST + b'"',
        b'"' + rb"\"\\" * LONGEST + b'"',
        b"1" * (LONGEST + 1),
        b"[" * LONGEST + b"]" * LONGEST,
        b'{"a":' * LONGEST + b"[]" + b"}" * LONGEST,
        b"[1," + b" " * LONGEST + b'"]"]',
    ],
)
def test_an_element_that_is_too_long_is_passed_over(long: bytes) -> None:
    data = b"[1, %b , 2,%b]" % (long, long)
    spans = list(Elements(data, LONGEST))
    assert [data[start:end].rstrip() for start, end in spans] == [b"1", long, b"2", long]


def test_a_byte_order_mark_is_passed_over() -> None:
    """RFC 8259 section 8.1."""
    data = b'\xef\xbb\xbf{"tenants":[1,2]}'
    assert [data[start:end] for start, end in Elements(data, 100)] == [b"1", b"2"]
