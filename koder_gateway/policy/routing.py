"""Routing: which value a path belongs to, by whole segments, the longest configured prefix first.

The path is that of the request target (no query), already refused if it can be read in two ways, and without
escapes that mean nothing: it is matched byte for byte, nothing else is decoded and `//` is not merged. A lookup
cuts the path to the depth of the deepest configured prefix and walks up from there, so it costs the same with 5
routes or 5,000, and a path of 10,000 slashes costs no more than one of ten.

Where something must not be got round, as limits must not, a path is read in every way in which a lenient service may
(`lenient_paths`). No reading takes the place of another: what one service unfolds to more, another takes as it is.
"""

from __future__ import annotations

import re
from binascii import a2b_qp
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from unicodedata import normalize

from ..wire.target import essential

Value = TypeVar("Value")

# A segment of which nothing may be left: white space, dots, and what follows a semicolon. Each part takes all it can.
_VOID: Final = re.compile(rb"(?:/++[\x00-\x20.]*+(?:;[^/]*+)?+(?=/|\Z))++")
_SEGMENT: Final = re.compile(rb"/++([^/;]*+)(?:;[^/]*+)?+")
_BLANK: Final = bytes(range(0x21))
_ESCAPE: Final = re.compile(rb"%(?=[0-9A-Fa-f]{2})")
_SLASHES: Final = re.compile(rb"//++")
_DOT_SEGMENT: Final = re.compile(rb"/\.\.?(?:[/;]|\Z)")
# How often a path is decoded: by whoever serves it, and by each that passes it on decoded.
_DECODINGS: Final = 4


def normal_path(path: bytes) -> bytes:
    """The form in which configured paths are compared: without escapes that mean nothing and one trailing slash, so
    the root is empty."""
    return essential(path).removesuffix(b"/")


def lenient_path(path: bytes, depth: int) -> bytes:
    """The first `depth` segments of a path that `wire.target` has no fault with, as a lenient service would read
    them: escapes decoded, letters normalised and in lower case, without path parameters (RFC 3986 section 3.3), white
    space at either end, dots at the end, and segments of which nothing is left.

    Linear, and dear only by the segments asked for: a target may be 8 KiB of slashes.
    """
    return _segments(_normalised(_decoded(path)), depth)[0]


def lenient_paths(path: bytes, depth: int) -> set[bytes]:
    """The `lenient_path` of a path, and what else services may read in it: with its letters as they are; decoded more
    than once (`%2574` is `t`), and what that brings to light resolved (dot segments, backslashes); without the
    `.format` that frameworks take from the last segment (`token.json`)."""
    readings: set[bytes] = set()
    for _ in range(_DECODINGS):
        path = _decoded(path)
        for form in {path.lower(), _normalised(path)}:
            readings.update(_segments(form, depth))
            if b"\\" in form or _DOT_SEGMENT.search(form):
                readings.update(_segments(_resolved(form), depth))
        if _ESCAPE.search(path) is None:
            break
    return readings


def _decoded(path: bytes) -> bytes:
    """A path with its escapes decoded once; a percent sign that begins none stays."""
    if b"%" not in path:
        return path
    # Quoted-printable is percent-encoding under another sign, and decoded in C.
    return a2b_qp(_ESCAPE.sub(b"=", path.replace(b"=", b"=3D")))


def _normalised(path: bytes) -> bytes:
    """A path in lower case, and letters of other alphabets as the plain ones that they stand for (fullwidth ones)."""
    if path.isascii():
        return path.lower()
    return normalize("NFKC", path.decode("utf-8", "replace")).casefold().encode().lower()


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


def _segments(path: bytes, depth: int) -> tuple[bytes, ...]:
    """The first `depth` segments of a decoded path; where the last of them is the path's last one, also without its
    format."""
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
    name, dot, _ = segments[-1].rpartition(b".")
    if not (dot and name):
        return (read,)
    void = _VOID.match(path, position)
    if (position if void is None else void.end()) < len(path):
        return (read,)
    return read, b"/".join((*segments[:-1], name))


class PrefixTable(Generic[Value]):
    """Values by path prefix; a prefix covers itself and whatever continues it with a slash."""

    __slots__ = ("_root", "_values", "depth")

    def __init__(self, values: Mapping[bytes, Value]) -> None:
        self._values = {normal_path(path): value for path, value in values.items()}
        # The root takes everything, `*` of OPTIONS included, so it is not a prefix to look up.
        self._root = self._values.pop(b"", None)
        # Of the deepest prefix: what a path has below that does not matter.
        self.depth = max((path.count(b"/") for path in self._values), default=0)

    def match(self, path: bytes) -> Value | None:
        """The value of the longest prefix that covers the path."""
        depth = self.depth
        if not depth:
            return self._root
        parts = path.split(b"/", depth + 1)
        # More parts than the deepest prefix has: what follows cannot matter.
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
    """A path prefix and the name of the service that answers below it; `public` where any page may read the
    answers."""

    path: bytes
    service: str
    public: bool = False


class RouteTable:
    """The configured routes, immutable. Of two routes with the same path the later one counts."""

    __slots__ = ("_table", "match", "routes")

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._table = PrefixTable({route.path: route for route in self.routes})
        # `match(path) -> Route | None`, bound here once: one call fewer for each request.
        self.match = self._table.match


class PathSet:
    """A set of path prefixes."""

    __slots__ = ("_table",)

    def __init__(self, paths: Iterable[bytes]) -> None:
        self._table = PrefixTable(dict.fromkeys(paths, True))

    def covers(self, path: bytes) -> bool:
        """Whether the path is one of the prefixes or lies below one."""
        return self._table.match(path) is not None
