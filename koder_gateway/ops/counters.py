"""What the gateway counts of its exchanges, and the plain integers that others add to.

The end of an exchange is the hot path, so it finds one cell for all that its exchange has in common with others
(service, route, method, protocol, status) and adds 1 to it. Whoever reads a total has the cells added up first:
`series`, `routes` and `protocols` do that by themselves. The cells are a cache of bounded size. Services, routes and
tenants are the configuration's and the registry's; of what a client chose, only a known method and a known protocol
become a label.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Final

from ..errors import METHODS
from ..exchange.ending import ExchangeCounts
from ..exchange.states import Exchange
from .tenant_counts import CLASSES, TenantCounts

# Upper bounds in seconds; the first ones tell a fast service from the gateway's own share.
BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
OTHER: Final = "other"
PROTOCOLS: Final = ("http/1.0", "http/1.1", "h2")
# How many cells there are before all are added up and dropped.
_CELLS: Final = 2048
_KNOWN_METHODS: Final = {method: method.decode("ascii") for method in METHODS}
_SWITCHED: Final = 101
_AT_ONCE: Final = math.inf

# Service, route, method, whether it is HTTP/2, the minor version, and the status.
_Key = tuple[str, bytes, bytes, bool, int, int]


class Series:
    """The exchanges of one service. `classes` are their numbers by class of status, in the order of `CLASSES`.

    Histograms are kept in parts, so that an exchange is in one only: `whole` are those whose response came all at
    once to a request that was sent at once, so that the first byte came at the end; `rest` are all others, and
    `first` the first bytes of these.
    """

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "classes",
        "first",
        "later_seconds",
        "rest",
        "rest_seconds",
        "whole",
        "whole_seconds",
    )

    def __init__(self) -> None:
        self.classes = [0] * len(CLASSES)
        self.whole = [0] * (len(BUCKETS) + 1)
        self.whole_seconds = 0.0
        self.rest = [0] * (len(BUCKETS) + 1)
        self.rest_seconds = 0.0
        self.first = [0] * (len(BUCKETS) + 1)
        self.later_seconds = 0.0
        self.bytes_in = 0
        self.bytes_out = 0

    def add_answered(self, exchange: Exchange, seconds: float) -> None:
        """One whose response had begun has ended. How long a tunnel was open says nothing about the service."""
        if exchange.status != _SWITCHED:
            self.rest[bisect_left(BUCKETS, seconds)] += 1
            self.rest_seconds += seconds
        if exchange.answered_at:
            started = exchange.started
            first = min(exchange.answered_at, started + seconds) - (exchange.sent_at or started)
            self.first[bisect_left(BUCKETS, first)] += 1
            self.later_seconds += first

    @property
    def durations(self) -> list[int]:
        """How many exchanges took up to each of `BUCKETS`, and longer; without tunnels."""
        return [whole + rest for whole, rest in zip(self.whole, self.rest, strict=True)]

    @property
    def seconds(self) -> float:
        """How long all these took together."""
        return self.whole_seconds + self.rest_seconds

    @property
    def first_bytes(self) -> list[int]:
        """How many responses began up to each of `BUCKETS` after their requests were sent, and later."""
        return [whole + first for whole, first in zip(self.whole, self.first, strict=True)]

    @property
    def first_seconds(self) -> float:
        """How long all these took together to begin."""
        return self.whole_seconds + self.later_seconds


class _Cell:
    """Exchanges that have all of a key in common; `kind` is the place of their class in `CLASSES`."""

    __slots__ = ("count", "kind", "series")

    def __init__(self, series: Series, kind: int) -> None:
        self.count = 0
        self.series = series
        self.kind = kind


class Counters(ExchangeCounts):
    """Plain integers; the code that causes an event adds to its counter."""

    __slots__ = (
        "_by_tenant",
        "_cells",
        "_protocols",
        "_routes",
        "_series",
        "config_digest",
        "configured_at",
        "connections",
        "connections_open",
        "connections_rejected",
        "exchanges",
        "http2_errors",
        "refusals",
        "registry_failures",
        "registry_skipped",
        "registry_unread",
        "reload_refused",
        "reloads_failed",
        "reloads_ok",
        "retries",
        "tenant_counts",
        "tenants",
    )

    def __init__(self) -> None:
        self.connections = 0
        """Client connections accepted since the start."""
        self.connections_open = 0
        self.connections_rejected = 0
        """Client connections over listen.max_connections since the start."""
        self.http2_errors = 0
        """HTTP/2 connections that were ended because their client broke the protocol or flooded them."""
        self.exchanges = 0
        """Exchanges in flight."""
        self.retries = 0
        """Requests sent to a service a second time because a kept-alive connection had died."""
        self.tenants = 0
        """Tenants in the registry; 0 if there is no registry."""
        self.registry_failures = 0
        """How often the tenant registry could not be read again."""
        self.registry_skipped = 0
        """Entries of the present registry that are left out for a fault."""
        self.registry_unread = False
        """Whether the registry as it is now could not be read or was refused, so that the previous tenants stay."""
        self.reloads_ok = 0
        self.reloads_failed = 0
        self.reload_refused = False
        """Whether the last reload was refused."""
        self.configured_at = 0.0
        """When the configuration in force was taken up, at the start or by a reload: seconds since the epoch."""
        self.config_digest = ""
        """See `Settings.digest`."""
        self.refusals: dict[str, int] = {}
        """Responses of the gateway itself, by code."""
        self.tenant_counts = TenantCounts()
        """Exchanges by tenant."""
        self._by_tenant = self.tenant_counts.by_slug
        self._cells: dict[_Key, _Cell] = {}
        self._series: dict[str, Series] = {}
        self._routes: dict[tuple[str, str], list[int]] = {}
        self._protocols = dict.fromkeys(PROTOCOLS, 0)

    def observe(self, exchange: Exchange, seconds: float) -> None:
        """Count an exchange that has ended, so many seconds after it began."""
        head = exchange.head
        key = (exchange.service, exchange.route, head.method, head.http2, head.minor, exchange.status)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._new_cell(key)
        cell.count += 1
        series = cell.series
        answered = exchange.answered_at
        if answered == _AT_ONCE and not exchange.sent_at:
            series.whole[bisect_left(BUCKETS, seconds)] += 1
            series.whole_seconds += seconds
        elif answered or exchange.status == _SWITCHED:
            series.add_answered(exchange, seconds)
        else:
            series.rest[bisect_left(BUCKETS, seconds)] += 1
            series.rest_seconds += seconds
        series.bytes_in += exchange.bytes_in
        series.bytes_out += exchange.bytes_out
        tenant = self._by_tenant.get(exchange.tenant)
        if tenant is None:
            tenant = self.tenant_counts.meet(exchange.tenant)
        tenant[cell.kind] += 1

    def _new_cell(self, key: _Key) -> _Cell:
        if len(self._cells) >= _CELLS:
            self._add_up()
            self._cells.clear()
        status = key[-1]
        series = self._series.get(key[0])
        if series is None:
            series = self._series[key[0]] = Series()
        cell = self._cells[key] = _Cell(series, status // 100 if 100 <= status < 600 else 0)
        return cell

    def _add_up(self) -> None:
        """Move the counts of all cells to the totals."""
        for (_, path, method, http2, minor, _), cell in self._cells.items():
            count, kind = cell.count, cell.kind
            if not count:
                continue
            cell.count = 0
            cell.series.classes[kind] += count
            self._protocols[PROTOCOLS[2 if http2 else minor]] += count
            name = path.decode("ascii"), _KNOWN_METHODS.get(method, OTHER)
            classes = self._routes.get(name)
            if classes is None:
                classes = self._routes[name] = [0] * len(CLASSES)
            classes[kind] += count

    @property
    def series(self) -> Mapping[str, Series]:
        """The exchanges by service; "" if no service responded."""
        self._add_up()
        return self._series

    @property
    def routes(self) -> Mapping[tuple[str, str], list[int]]:
        """How many exchanges ended, by route and method, each by class of status. The route is "" if there is none,
        or none was chosen; methods are those of `errors.METHODS`, and `other`."""
        self._add_up()
        return self._routes

    @property
    def protocols(self) -> Mapping[str, int]:
        """How many exchanges ended, by each of `PROTOCOLS`."""
        self._add_up()
        return self._protocols

    def expect(self, services: Iterable[str], codes: Iterable[str] = ()) -> None:
        """Start the known series at 0: the rate of a series that starts later misses its first event."""
        for service in services:
            self._series.setdefault(service, Series())
        for code in codes:
            self.refusals.setdefault(code, 0)

    def keep_routes(self, paths: Iterable[bytes]) -> None:
        """These are the routes from now on: forget others, or reloads would pile them up."""
        self._add_up()
        self._cells.clear()
        known = {"", *(path.decode("ascii") for path in paths)}
        for name in [name for name in self._routes if name[0] not in known]:
            del self._routes[name]

    def refuse(self, code: str) -> None:
        """Count a response of the gateway itself; `code` is one of the documented codes."""
        self.refusals[code] = self.refusals.get(code, 0) + 1
