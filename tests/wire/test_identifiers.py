"""Identifiers: of the right form, and never the same twice."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.wire.identifiers import IdentifierSource


@given(st.lists(st.integers(1, 64), max_size=600))
def test_identifiers_have_the_digits_that_were_asked_for(sizes: list[int]) -> None:
    source = IdentifierSource()
    for size in sizes:
        assert re.fullmatch(rb"[0-9a-f]{%d}" % size, source.random_hex(size))


def test_no_identifier_comes_twice() -> None:
    sources = [IdentifierSource(), IdentifierSource()]
    taken = [source.random_hex(32) for source in sources for _ in range(5000)]
    assert len(set(taken)) == len(taken)


def test_no_digit_is_given_twice() -> None:
    """Identifiers of one bulk and across its end share nothing, whatever their sizes."""
    source = IdentifierSource()
    windows = set()
    for number in range(3000):
        digits = source.random_hex(24 if number % 2 else 48)
        for start in range(len(digits) - 15):
            window = digits[start : start + 16]
            assert window not in windows
            windows.add(window)


def test_a_trace_that_begins_here() -> None:
    source = IdentifierSource()
    traces = dict(source.trace() for _ in range(1000))
    assert len(traces) == 1000
    for trace_id, line in traces.items():
        found = re.fullmatch(rb"traceparent: 00-((?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-01\r\n", line)
        assert found is not None
        assert found[1] == trace_id
