"""Routing: which value a path belongs to, by whole segments, the longest configured prefix first.

The path is that of the request target (no query). Ambiguous paths are already refused, and needless escapes removed.
It is compared byte for byte: nothing else is decoded, and `//` is not merged. A lookup cuts the path to the depth of
the deepest configured prefix and walks up from there, so it costs the same with 5 routes or 5,000, and a path of
10,000 slashes costs no more than one of ten.

Limits must not be bypassed, so they read a path in every way in which a lenient service may (`path_readings`). All
readings count together: a service may decode more than another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Generic, TypeVar

from ..wire.target import without_needless_escapes
from .clients import NetworkSet
from .path_readings import Reach, lenient_path, lenient_paths

Value = TypeVar("Value")

EVERYBODY: Final = NetworkSet()


def normal_path(path: bytes) -> bytes:
    """The form in which configured paths are compared: without needless escapes and without one trailing slash, so
    the root is empty."""
    return without_needless_escapes(path).removesuffix(b"/")


class PrefixTable(Generic[Value]):
    """Values by path prefix; a prefix matches itself and whatever continues it with a slash."""

    __slots__ = ("_reach", "_root", "_values", "depth")

    def __init__(self, values: Mapping[bytes, Value]) -> None:
        self._values = {normal_path(path): value for path, value in values.items()}
        # The root matches everything, including the `*` of OPTIONS, so it needs no lookup.
        self._root = self._values.pop(b"", None)
        # The depth of the deepest prefix: the rest of a path does not matter.
        self.depth = max((path.count(b"/") for path in self._values), default=0)
        self._reach = Reach.of(self._values)

    def readings(self, path: bytes) -> set[bytes] | None:
        """What to match for everything that a lenient service may read in a path, None where that may be any path;
        the table's own paths are in the form of `lenient_path`."""
        return lenient_paths(path, self._reach) if self.depth else {path}

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

    __slots__ = ("_closed", "_lenient", "_table", "guarded", "match", "routes")

    def __init__(self, routes: Iterable[Route], urls: Mapping[str, Iterable[str]] = MappingProxyType({})) -> None:
        self.routes = tuple(routes)
        by_path = {route.path: route for route in self.routes}
        self._table = PrefixTable(by_path)
        # Of two routes that a lenient service may take for the same one the closed one counts.
        closed_last = sorted(by_path.values(), key=lambda route: bool(route.allow))
        self._closed = tuple(route for route in closed_last if route.allow)
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
            readings = self._lenient.readings(path)
            if readings is None:
                yield from self._closed
                return
            for reading in readings:
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
