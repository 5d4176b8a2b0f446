"""The ways in which a lenient service may read a path."""

from __future__ import annotations

import re
import sys
from string import ascii_lowercase
from unicodedata import normalize
from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from koder_gateway.policy import path_readings
from koder_gateway.policy.clients import NetworkSet
from koder_gateway.policy.limit_rules import LimitRule
from koder_gateway.policy.limits import Limiter
from koder_gateway.policy.path_readings import Reach, _composed_pieces, _with_plain_signs, lenient_path, lenient_paths
from koder_gateway.policy.routing import PrefixTable, Route, RouteTable


def test_what_is_before_any_dot_of_the_last_segment_is_a_reading() -> None:
    assert lenient_paths(b"/v2/token.a.b.c", Reach(2)) == {b"/v2/token.a.b.c", b"/v2/token"}
    assert lenient_paths(b"/v2/token .tar.gz/", Reach(2)) == {b"/v2/token .tar.gz", b"/v2/token"}
    # A configured path with dots of its own.
    table = PrefixTable({b"/v2/jwks.v1.json": 1, b"/v2/token": 2})
    readings = table.readings(b"/v2/jwks.v1.json.x.y.z")
    assert readings is not None
    assert {table.match(reading) for reading in readings} == {1, None}
    formats = lenient_paths(b"/v2/" + b"a." * 4000 + b"a", Reach(2, 2))
    assert formats is not None
    assert len(formats) == 4


CLUSTERS = [
    "a",
    "e\u0327\u0301",
    "\u1100\u1161\u11a8",
    "\uac00\u11a8",
    "\uff0f",
    "\uff76\uff9e",
    "\u09c7\u09be",
    "\ufdfa",
]


@given(st.lists(st.sampled_from(CLUSTERS), min_size=60, max_size=400).map("".join))
def test_letters_are_composed_in_pieces_as_all_at_once(text: str) -> None:
    assert "".join(_composed_pieces(text)) == normalize("NFKC", text)


def test_no_letter_is_hidden_by_endless_marks() -> None:
    marks = "é".join("\u0301\u0327" * 39 for _ in range(3))
    path = "".join(f"%{byte:02X}" for byte in f"{marks}\uff0fv2\uff0ftoken".encode()).encode()
    assert any(reading.endswith(b"/v2/token") for reading in lenient_paths(b"/" + path, Reach(3)) or ())


def test_every_character_that_becomes_a_sign_is_known() -> None:
    """What normalising makes of each character of Unicode: what has a meaning in paths is found before it."""
    unknown = []
    for number in range(0x80, sys.maxunicode + 1):
        character = chr(number)
        if 0xD800 <= number < 0xE000:
            continue
        plain = normalize("NFKC", character).casefold()
        meant = any(sign in plain for sign in "/\\;") or re.fullmatch(r"[\x00-\x20.]*", plain)
        if meant and _with_plain_signs(character.encode()) != plain.encode():
            unknown.append(character)
    assert unknown == []


def test_a_letter_that_is_another_without_case_is_read_as_that() -> None:
    """Python's `re.IGNORECASE`, as Java's `equalsIgnoreCase`, compares letter by letter."""
    others = "".join(map(chr, (*range(0x80, 0xD800), *range(0xE000, sys.maxunicode + 1))))
    found = [(letter, match[0]) for letter in ascii_lowercase for match in re.finditer(letter, others, re.IGNORECASE)]
    assert ("i", "\u0130") in found
    for letter, other in found:
        path = b"/v2/%b" % quote(other).encode()
        assert b"/v2/%b" % letter.encode() in lenient_paths(path, Reach(2)), other


@pytest.mark.parametrize("mark", [b"%3F", b"%23", b"%253f", b"%2523", b"%3Fx/y", b"%23.json"])
def test_a_path_may_end_where_a_query_or_a_fragment_begins_once_it_is_decoded(mark: bytes) -> None:
    """A proxy that passes on what it has decoded makes a query of it, or has the rest dropped."""
    assert b"/v2/token" in lenient_paths(b"/v2/token" + mark, Reach(3))


def test_an_empty_segment_may_be_one() -> None:
    """`..` takes it away where slashes are not merged first (RFC 3986 section 5.2.4, WHATWG URL section 4.4)."""
    assert {b"/v2/token", b"/token"} <= lenient_paths(b"/v2//%252e%252e/token", Reach(3))
    assert {b"/v2/token", b"/token"} <= lenient_paths(b"/v2/;x/%252e%252e;y/token", Reach(3))
    assert {b"/v2/token", b"/token"} <= lenient_paths(b"/v2/%255c..%255ctoken", Reach(3))


@given(st.lists(st.sampled_from([b"", b".", b"..", b"..;a", b".;", b"...", b";a", b"a", b"b.c"]), max_size=12))
def test_dot_segments_are_removed_one_by_one(segments: list[bytes]) -> None:
    kept: list[bytes] = []
    for segment in segments:
        name = segment.partition(b";")[0]
        if name == b"..":
            del kept[-1:]
        elif name != b".":
            kept.append(segment)
    assert path_readings._resolved(b"".join(b"/" + each for each in segments)) == b"".join(b"/" + k for k in kept)


TABLES = [
    PrefixTable({path: path for path in (lenient_path(path, path.count(b"/")) for path in paths)})
    for paths in (
        [b"/oauth/v2/token", b"/oauth/v2", b"/v1/auth", b"/v1/auth/caf%C3%A9.v1", b"/v1/i"],
        [b"/a", b"/%ED%95%9C", b"/b/%E1%BE%82/c"],
        [b"/x.y.z/%EF%BF%BF"],
    )
]
PIECES = st.sampled_from(
    [
        *("/", "//", "/../", "/./", "\\", ";", ";x", ".", "..", " ", "%", "%2F", "%25"),
        *("oauth", "OAuth", "v2", "token", "v1", "auth", "caf", "a", "b", "c", "x", "y", "z", "e"),
        *("\u0301", "\u0327\u0301", "\u0345", "\u0313\u0300", "\u03b1", "\uac00", "\u11ab", "\u1112\u1161"),
        *("\uff0f", "\uff3c", "\u2100", "\u2025", "\u2026", "\u3000", "\xa0", "\u2488", "\xa8", "\u037e"),
        *("\uff56\uff12", "\u212a", "\xdf", "\ufdfa", "\ufb01", "\uffff", "\xe9", "\u0130", "\u0131", "i\u0307"),
        *("?", "#", "%3F", "%23", "\uff1f"),
    ]
)
RUNS = st.tuples(PIECES, st.sampled_from([1, 1, 1, 1, 2, 3, 7, 8, 9, 40, 200])).map(lambda run: run[0] * run[1])
TEXTS = st.lists(RUNS, max_size=14).map("".join)


def escaped(text: str, times: int) -> bytes:
    """A path with all of this escaped, more than once."""
    path = text.encode()
    for _ in range(times):
        path = b"".join(
            b"%%%02X" % byte if byte > 0x7E or byte < 0x21 or byte == 0x25 else b"%c" % byte for byte in path
        )
    return path


def simply(path: bytes, depth: int, dots: int) -> set[bytes]:
    """The specification: all of the path is normalised, and nothing is cut off."""
    readings: set[bytes] = set()
    reach = Reach(depth, dots)
    for _ in range(4):
        path = path_readings._decoded(path)
        for part in (path, re.split(rb"[?#]", path)[0]):
            whole = normalize("NFKC", part.decode("utf-8", "replace")).replace("\u0130", "i").replace("\u0131", "i")
            for form in (part.lower(), whole.casefold().encode().lower()):
                path_readings._read(readings, form, reach, bytes)
        if re.search(rb"%[0-9A-Fa-f]{2}", path) is None:
            break
    return readings


@given(TEXTS, st.integers(1, 3), st.sampled_from(["", "/oauth/v2/", "/oauth/v2/token", "/v1/auth/caf", "/b/"]))
@example("\u0301" * 3000, 1, "/v1/auth")
@example("\u3000" * 3000 + ".json", 1, "/v1/auth")
@example("." * 300 + "x", 1, "/v1/auth")
def test_what_cannot_matter_does_not(text: str, times: int, before: str) -> None:
    """A bounded reading leads to the same as one of the whole path, whatever the path that is read."""
    path = escaped(f"{before}{text}", times)
    for table in TABLES:
        readings = table.readings(path)
        if readings is None:
            assert len(path) > path_readings._SHORT
            continue
        bounded = {table.match(reading) for reading in readings}
        whole = {table.match(reading) for reading in simply(path, table.depth, table._reach.dots)}
        assert bounded - {None} == whole - {None}


ODD = [
    *(b"/;", b"//", b"/%20", b"/%09;a=b", b"/;%2e", b"/%E3%80%80", b"/%EF%BC%9B"),
    *(b"/%252e%252e", b"/x/%252e%252e", b"/.%252e", b"/..%253b", b"/..;%252f", b"/%255c..", b"%2541", b"%25"),
    *(b"/%2525252e", b"%25255c%25252e", b"%EF%BC%BC", b"/%E2%80%A5", b"..%255c", b"/a%CC%81", b"%41"),
]


@pytest.mark.parametrize("unit", ODD)
@pytest.mark.parametrize("before", [b"", b"/v1/auth", b"/v1/users"])
@pytest.mark.parametrize("behind", [b"", b"/v1/auth"])
def test_a_path_that_is_too_odd_to_be_read_is_any_path(
    unit: bytes, before: bytes, behind: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs a few passes over its bytes, and escapes no limit and no closed route."""

    def steps(path: bytes) -> bytes:
        raise AssertionError("dot segments are followed")

    monkeypatch.setattr(path_readings, "_resolved", steps)
    path = before + unit * (8000 // len(unit)) + behind
    assert lenient_paths(path, Reach(2)) is None
    tight, wide = LimitRule("tight", ("ip",), 5, 60, paths=(b"/v1/auth",)), LimitRule("wide", ("ip",), 5, 60)
    plan = Limiter([tight, wide], 100).plan(b"GET", path)
    assert plan is not None
    assert plan.rules == (tight, wide)
    closed = Route(b"/v1/auth", "one", allow=NetworkSet(["10.0.0.0/8"]))
    routes = RouteTable([closed, Route(b"/", "one"), Route(b"/two", "two")])
    assert list(routes.closed_routes(routes.routes[1], path, False)) == [closed]
    assert not list(routes.closed_routes(routes.routes[2], path, False))


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/files" + b"/folder.d" * 800,
        b"/v1/search/" + "".join(f"%{byte:02X}" for byte in ("北京市" * 50).encode()).encode(),
        b"/v1/go/" + quote(quote("https://example.com/a?" + "&".join(f"k{n}=v" for n in range(20)), ""), "").encode(),
        b"/v1/a;x=1/b;y=2//c/../../d/" + b"e" * 4000,
        b"/v1" + b"//" * 60,
    ],
)
def test_a_long_path_that_is_no_attack_is_read(path: bytes) -> None:
    assert lenient_paths(path, Reach(2)) is not None


@pytest.mark.parametrize("letter", ["\u0301", "\u0345\u0334", "\ufdfa", "\uff0f", "\u3000", "\U0001d400"])
def test_only_the_beginning_of_a_long_segment_is_normalised(letter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever 8 KiB of it are, what is normalised depends on the configured paths alone."""
    seen: list[int] = []

    def counted(form: str, text: str) -> str:
        seen.append(len(text))
        return normalize(form, text)  # type: ignore[arg-type]

    monkeypatch.setattr(path_readings, "normalize", counted)
    path = b"/oauth/v2/" + escaped(letter * (2600 // len(letter.encode())), 1)
    TABLES[0].readings(path)
    assert sum(seen) <= 2 * 4 * 10


@given(
    st.lists(st.sampled_from([b"%", b"=", b"%41", b"%3d", b"%0A", b"\n", b"\r", b"4", b"a", b"\xff"]), max_size=12)
)
def test_decoding_is_that_of_the_standard_library(pieces: list[bytes]) -> None:
    path = b"".join(pieces)
    assert path_readings._decoded(path) == unquote_to_bytes(path)
