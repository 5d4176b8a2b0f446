"""Routing: which value a path belongs to, by whole segments, the longest configured prefix first.

The path is the raw one of the request target (no query), already refused if it can be read in two ways: it
is matched byte for byte, nothing is decoded and `//` is not merged. A lookup cuts the path to the depth of
the deepest configured prefix and walks up from there, so it costs the same with 5 routes or 5,000, and a
path of 10,000 slashes costs no more than one of ten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")


def normal_path(path: bytes) -> bytes:
    """The form in which configured paths are compared: without one trailing slash, so the root is empty."""
    return path.removesuffix(b"/")


class PrefixTable(Generic[Value]):
    """Values by path prefix; a prefix covers itself and whatever continues it with a slash."""

    __slots__ = ("_depth", "_root", "_values")

    def __init__(self, values: Mapping[bytes, Value]) -> None:
        self._values = {normal_path(path): value for path, value in values.items()}
        # The root takes everything, `*` of OPTIONS included, so it is not a prefix to look up.
        self._root = self._values.pop(b"", None)
        self._depth = max((path.count(b"/") for path in self._values), default=0)

    def match(self, path: bytes) -> Value | None:
        """The value of the longest prefix that covers the path."""
        depth = self._depth
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
    """A path prefix and the name of the service that answers below it."""

    path: bytes
    service: str


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
