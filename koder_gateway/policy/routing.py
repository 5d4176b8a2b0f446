"""Routing: which value a path belongs to, by whole segments, the longest configured prefix first.

The path is that of the request target (no query), already refused if it can be read in two ways, and without
escapes that mean nothing: it is matched byte for byte, nothing else is decoded and `//` is not merged. A lookup
cuts the path to the depth of the deepest configured prefix and walks up from there, so it costs the same with 5
routes or 5,000, and a path of 10,000 slashes costs no more than one of ten.

Where something must not be got round, as limits must not, a path is read as the most lenient service would
(`lenient_path`): whatever may be folded is.
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


def normal_path(path: bytes) -> bytes:
    """The form in which configured paths are compared: without escapes that mean nothing and one trailing slash, so
    the root is empty."""
    return essential(path).removesuffix(b"/")


def lenient_path(path: bytes, depth: int) -> bytes:
    """The first `depth` segments of a path that `wire.target` has no fault with, as the most lenient service would
    read them: escapes decoded, in lower case, without path parameters (RFC 3986 section 3.3), white space at either
    end, dots at the end, and segments of which nothing is left.

    Linear, and dear only by the segments asked for: a target may be 8 KiB of slashes.
    """
    if b"%" in path:
        # Quoted-printable is percent-encoding under another sign, and decoded in C.
        path = a2b_qp(path.replace(b"=", b"=3D").replace(b"%", b"="))
        if not path.isascii():
            path = normalize("NFKC", path.decode("utf-8", "replace")).casefold().encode()
    path = path.lower()
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
    return b"/".join(segments)


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
