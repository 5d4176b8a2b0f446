"""Routing: which value a path belongs to, by whole segments, the longest configured prefix first.

The path is that of the request target (no query). Ambiguous paths are already refused, and needless escapes removed.
It is compared byte for byte: nothing else is decoded, and `//` is not merged. A lookup cuts the path to the depth of
the deepest configured prefix and walks up from there, so it costs the same with 5 routes or 5,000, and a path of
10,000 slashes costs no more than one of ten.

Limits must not be bypassed, so they read a path in every way in which a lenient service may (`lenient_paths`). All
readings count together: a service may decode more than another.
"""

from __future__ import annotations

import re
from binascii import a2b_qp
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Generic, TypeVar
from unicodedata import category, normalize

from ..wire.target import without_needless_escapes
from .clients import NetworkSet

Value = TypeVar("Value")

# Parts of a segment that may be removed, until nothing is left: white space, dots, and what follows a semicolon. Each
# part matches as much as it can.
_VOID: Final = re.compile(rb"(?:/++[\x00-\x20.]*+(?:;[^/]*+)?+(?=/|\Z))++")
_SEGMENT: Final = re.compile(rb"/++([^/;]*+)(?:;[^/]*+)?+")
_BLANK: Final = bytes(range(0x21))
_ESCAPE: Final = re.compile(rb"%(?=[0-9A-Fa-f]{2})")
_SLASHES: Final = re.compile(rb"//++")
_DOT_SEGMENT: Final = re.compile(rb"/\.\.?(?:[/;]|\Z)")
EVERYBODY: Final = NetworkSet()
# How often a path is decoded: by the service, and by each proxy in between that passes it on decoded.
_DECODINGS: Final = 4
# Letters are normalised in pieces of so many characters: a run of marks takes the square of its length.
_PIECE: Final = 128
# How far back such a piece may be cut, so that no letter loses its marks. No configured path has as many marks.
_MARKS: Final = 32
# The vowels and last consonants of Hangul, which are one character with what is before them.
_JAMO: Final = re.compile("[\u1160-\u11ff\ud7b0-\ud7ff]")


def normal_path(path: bytes) -> bytes:
    """The form in which configured paths are compared: without needless escapes and without one trailing slash, so
    the root is empty."""
    return without_needless_escapes(path).removesuffix(b"/")


def lenient_path(path: bytes, depth: int) -> bytes:
    """The first `depth` segments of a path that `wire.target` accepts, as a lenient service would read them: escapes
    decoded, letters normalised and in lower case, without path parameters (RFC 3986 section 3.3), white space at
    either end, dots at the end, and empty segments.

    Linear, and expensive only for the requested segments: a target may be 8 KiB of slashes.
    """
    return _segments(_normalised(_decoded(path)), depth)[0]


def lenient_paths(path: bytes, depth: int, dots: int = 0) -> set[bytes]:
    """The `lenient_path` of a path, and its other possible readings: with the original letters; decoded more than
    once (`%2574` is `t`), with the dot segments and backslashes that appear resolved; without a format at the end of
    the last segment, which some frameworks remove. A format may have dots of its own (`token.tar.gz`), so what is
    before each dot is a reading; but no more dots than the configured segments have, `dots`, can be before it."""
    readings: set[bytes] = set()
    for _ in range(_DECODINGS):
        path = _decoded(path)
        for form in {path.lower(), _normalised(path)}:
            readings.update(_segments(form, depth, dots))
            if b"\\" in form or _DOT_SEGMENT.search(form):
                readings.update(_segments(_resolved(form), depth, dots))
        if _ESCAPE.search(path) is None:
            break
    return readings


def _decoded(path: bytes) -> bytes:
    """A path with its escapes decoded once; a percent sign that begins no escape stays."""
    if b"%" not in path:
        return path
    # Quoted-printable is percent-encoding with another sign, and is decoded in C.
    return a2b_qp(_ESCAPE.sub(b"=", path.replace(b"=", b"=3D")))


def _normalised(path: bytes) -> bytes:
    """A path in lower case, with letters of other forms (such as fullwidth ones) replaced by the plain letters."""
    if path.isascii():
        return path.lower()
    text = path.decode("utf-8", "replace")
    composed = normalize("NFKC", text) if len(text) <= _PIECE else "".join(_composed_pieces(text))
    return composed.casefold().encode().lower()


def _composed_pieces(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = start + _PIECE
        if end < len(text):
            end = next((at for at in range(end, end - _MARKS, -1) if _begins(text[at])), end)
        yield normalize("NFKC", text[start:end])
        start = end


def _begins(character: str) -> bool:
    """Whether a character is never one with what is before it."""
    if character.isascii():
        return True
    first = normalize("NFKD", character)[0]
    return category(first)[0] != "M" and _JAMO.match(first) is None


def _resolved(path: bytes) -> bytes:
    """A path without dot segments (RFC 3986 section 5.2.4), for services that read a backslash as a slash."""
    kept: list[bytes] = []
    for segment in _SLASHES.sub(b"/", path.replace(b"\\", b"/")).split(b"/"):
        name = segment.partition(b";")[0]
        if name == b"..":
            del kept[-1:]
        elif name not in (b"", b"."):
            kept.append(segment)
    return b"/" + b"/".join(kept)


def _segments(path: bytes, depth: int, dots: int = 0) -> tuple[bytes, ...]:
    """The first `depth` segments of a decoded path; if these include the path's last one, also without a format,
    which begins behind at most so many `dots`."""
    segments = [b""]
    position = 0
    while len(segments) <= depth:
        void = _VOID.match(path, position)
        if void is not None:
            position = void.end()
        segment = _SEGMENT.match(path, position)
        if segment is None:
            break
        segments.append(segment[1].lstrip(_BLANK).rstrip(_BLANK + b"."))
        position = segment.end()
    read = b"/".join(segments)
    if b"." not in segments[-1]:
        return (read,)
    void = _VOID.match(path, position)
    if (position if void is None else void.end()) < len(path):
        return (read,)
    return read, *(b"/".join((*segments[:-1], name)) for name in _without_formats(segments[-1], dots))


def _without_formats(segment: bytes, dots: int) -> Iterator[bytes]:
    """What is before each dot of a segment, from the first one to the one behind so many `dots`."""
    dot = segment.find(b".")
    while dot >= 0 and dots >= 0:
        name = segment[:dot].rstrip(_BLANK + b".")
        if name:
            yield name
        dot = segment.find(b".", dot + 1)
        dots -= 1


class PrefixTable(Generic[Value]):
    """Values by path prefix; a prefix matches itself and whatever continues it with a slash."""

    __slots__ = ("_root", "_values", "depth", "dots")

    def __init__(self, values: Mapping[bytes, Value]) -> None:
        self._values = {normal_path(path): value for path, value in values.items()}
        # The root matches everything, including the `*` of OPTIONS, so it needs no lookup.
        self._root = self._values.pop(b"", None)
        # The depth of the deepest prefix: the rest of a path does not matter.
        self.depth = max((path.count(b"/") for path in self._values), default=0)
        # The most dots in a prefix.
        self.dots = max((path.count(b".") for path in self._values), default=0)

    def match(self, path: bytes) -> Value | None:
        """The value of the longest prefix that matches the path."""
        depth = self.depth
        if not depth:
            return self._root
        parts = path.split(b"/", depth + 1)
        # More parts than the deepest prefix has: the rest cannot matter.
        prefix = path[: -len(parts[-1]) - 1] if len(parts) > depth + 1 else path
        values = self._values
        while True:
            value = values.get(prefix)
            if value is not None:
                return value
            cut = prefix.rfind(b"/")
            if cut <= 0:
                return self._root
            prefix = prefix[:cut]


@dataclass(frozen=True, slots=True)
class Route:
    """A path prefix and the name of its service; `public` if any page may read the responses.

    `allow` has the networks of the clients that may use it; empty, it is open to all.
    """

    path: bytes
    service: str
    public: bool = False
    allow: NetworkSet = EVERYBODY


class RouteTable:
    """The configured routes, immutable. Of two routes with the same path the later one wins.

    `guarded` are the services with a route that is only open to some clients, under each name that they have: `urls`
    are the addresses of the services by name.
    """

    __slots__ = ("_lenient", "_table", "guarded", "match", "routes")

    def __init__(self, routes: Iterable[Route], urls: Mapping[str, Iterable[str]] = MappingProxyType({})) -> None:
        self.routes = tuple(routes)
        by_path = {route.path: route for route in self.routes}
        self._table = PrefixTable(by_path)
        # Of two routes that a lenient service may take for the same one the closed one counts.
        closed_last = sorted(by_path.values(), key=lambda route: bool(route.allow))
        self._lenient = PrefixTable({lenient_path(each.path, each.path.count(b"/")): each for each in closed_last})
        closed = {route.service for route in by_path.values() if route.allow}
        addresses = {url for name in closed for url in urls.get(name, ())}
        self.guarded = frozenset(closed | {name for name in urls if addresses.intersection(urls[name])})
        # `match(path) -> Route | None`, bound here once: one call fewer for each request.
        self.match = self._table.match

    def closed_routes(self, chosen: Route, path: bytes, plain: bool) -> Iterator[Route]:
        """The routes with `allow` that this path leads to: the `chosen` one, and of a path that is not `plain` each
        that a lenient service may read in it. An open route to a service must not be a way round a closed one to the
        same service, as `/` would be for `/V1/Admin` if only `/v1/admin` is closed."""
        if chosen.allow:
            yield chosen
        if not plain and chosen.service in self.guarded:
            for reading in lenient_paths(path, self._lenient.depth, self._lenient.dots):
                route = self._lenient.match(reading)
                if route is not None and route.allow:
                    yield route


class PathSet:
    """A set of path prefixes."""

    __slots__ = ("_table",)

    def __init__(self, paths: Iterable[bytes]) -> None:
        self._table = PrefixTable(dict.fromkeys(paths, True))

    def covers(self, path: bytes) -> bool:
        """Whether the path is one of the prefixes or lies below one."""
        return self._table.match(path) is not None
