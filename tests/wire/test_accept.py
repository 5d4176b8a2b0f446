"""Who prefers a page: browsers that navigate, and clients whose Accept says so by its quality values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.wire.accept import _LONGEST, may_prefer_page, names_json, negotiating_fields, prefers_page

FIREFOX = b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
CHROME = FIREFOX + b",image/avif,image/webp,image/apng,application/signed-exchange;v=b3;q=0.7"


@pytest.mark.parametrize(
    ("accept", "page"),
    [
        (FIREFOX, True),
        (CHROME, True),
        (b"text/html", True),
        (b"TEXT/HTML; charset=utf-8", True),
        (b"text/html, */*; q=0.01", True),
        (b"text/*", True),
        (b"text/*;q=0.9, application/json;q=0.8", True),
        (b"text/html;q=0.5, application/*;q=0.4", True),
        (b"text/html;level=1;q=0.7, */*;q=0.6", True),
        (b"nonsense, text/html", True),
        (b"*/*", False),
        (b"", False),
        (b"application/json", False),
        (b"application/json, text/plain, */*", False),
        (b"text/html, application/json", False),
        (b"text/html, application/problem+json", False),
        (b"text/html;q=0.8, */*", False),
        (b"text/html;q=0, text/*", False),
        (b"text/html;q=0", False),
        (b"text/html;q=2", False),
        (b"text/html;q=x", False),
        (b"text/html;q=0.0001", False),
        (b"text/html text/html", False),
        (b"text/html" + b" " * _LONGEST, False),
    ],
)
def test_by_quality(accept: bytes, page: bool) -> None:
    assert prefers_page([(b"Host", b"a"), (b"aCCept", accept)]) is page


@pytest.mark.parametrize(
    ("mode", "page"),
    [(b"navigate", True), (b"Navigate ", True), (b"cors", False), (b"no-cors", False), (b"", False)],
)
@pytest.mark.parametrize("accept", [FIREFOX, b"*/*"])
def test_what_a_browser_says_decides(mode: bytes, page: bool, accept: bytes) -> None:
    assert prefers_page([(b"Accept", accept), (b"Sec-Fetch-Mode", mode)]) is page


def test_several_lines() -> None:
    assert prefers_page([(b"accept", b"text/html"), (b"accept", b"*/*;q=0.1")])
    assert not prefers_page([(b"accept", b"text/html"), (b"accept", b"application/json")])
    assert not prefers_page([(b"sec-fetch-mode", b"navigate"), (b"sec-fetch-mode", b"navigate")])


def test_without_fields() -> None:
    assert not prefers_page([])


_BYTES = st.binary(max_size=60)


@given(st.lists(st.tuples(st.sampled_from([b"Accept", b"sec-fetch-mode", b"Cookie"]), _BYTES), max_size=6))
def test_what_is_kept_decides_as_all_fields_do(fields: list[tuple[bytes, bytes]]) -> None:
    kept = negotiating_fields(fields)
    assert prefers_page(kept) is prefers_page(fields)
    assert all(name != b"Cookie" for name, _ in kept)


def test_what_is_kept_is_bounded() -> None:
    assert negotiating_fields([(b"Accept", b"a" * (_LONGEST + 1))]) == []
    assert negotiating_fields([(b"Accept", b"text/html")]) == [(b"Accept", b"text/html")]


_WORDS = st.sampled_from([b"text/html", b"TEXT/*", b"Navigate", b"navigate", b"*/*", b"application/json"])


@given(st.lists(st.tuples(st.sampled_from([b"Accept", b"Sec-Fetch-Mode"]), _WORDS), max_size=3))
def test_the_quick_look_misses_nobody(fields: list[tuple[bytes, bytes]]) -> None:
    lines = b"".join(b"%b: %b\r\n" % pair for pair in fields)
    assert may_prefer_page(lines) or not prefers_page(fields)
    assert may_prefer_page(b"")
    assert not may_prefer_page(b"Accept: */*\r\n")


@pytest.mark.parametrize(
    ("accept", "named"),
    [
        (b"application/json", True),
        (b"application/json, text/plain, */*", True),
        (b"Application/JSON;q=0.5, */*;q=0.1", True),
        (b"*/*", False),
        (b"", False),
        (b"application/problem+json", False),
        (b"application/json;q=0", False),
        (b"text/plain, application/json;q=0.9", False),
        (b"text/html,application/xhtml+xml,application/json;q=0.8", False),
        (b"application/json" + b" " * _LONGEST, False),
    ],
)
def test_who_names_json(accept: bytes, named: bool) -> None:
    assert names_json([(b"Host", b"a"), (b"aCCept", accept)]) is named
    assert not names_json([(b"Host", accept)])
