"""Where metrics are asked for that other objects count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from .loop_lag import LoopLag


def _nothing() -> Mapping[str, tuple[int, int]]:
    return {}


@dataclass(frozen=True, slots=True)
class StoreFigures:
    """The shared store of limits: whether it can be asked, and what it did since it is configured.

    `missed` requests waited for a decision in vain, and `without` were decided without it, those among them. `times`
    are decisions by how long they took, up to each of `bounds` (seconds) and longer, `seconds` all together.
    """

    up: bool
    missed: int
    without: int
    bounds: tuple[float, ...]
    times: tuple[int, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class SpanFigures:
    """Spans of sampled exchanges: those that the collector has taken, those for which there was no room, and those
    that it has refused or that were given up; and how many requests to it failed."""

    exported: int
    dropped: int
    lost: int
    failures: int


@dataclass(frozen=True, slots=True)
class Sources:
    """Values that are queried when the page is read, because other objects count them."""

    upstream: Callable[[], Mapping[str, tuple[int, int]]] = _nothing
    """Connections to each service: (idle, active)."""
    waiting: Callable[[], Mapping[str, int]] = dict
    """Requests that wait for a connection to each service."""
    refused: Callable[[], Mapping[tuple[str, str], int]] = dict
    """Requests that got no connection or tunnel since the start, by service and reason."""
    healthy: Callable[[], Mapping[tuple[str, str], bool]] = dict
    """Whether each probed address is healthy, by service and address."""
    available: Callable[[], Mapping[tuple[str, str], bool]] = dict
    """Whether each address gets requests, by service and address."""
    ejections: Callable[[], Mapping[str, int]] = dict
    """How often an address was taken out of use because its requests failed, by service."""
    retries_denied: Callable[[], Mapping[str, int]] = dict
    """Requests that were not sent again because too many were, by service."""
    handshakes: Callable[[], Mapping[tuple[str, str, str], int]] = dict
    """TLS handshakes of clients that were completed since the start, by kind, version and group."""
    handshakes_failed: Callable[[], Mapping[str, int]] = dict
    """TLS handshakes of clients that have failed since the start, by reason."""
    tunnels: Callable[[], Mapping[str, int]] = dict
    """Open tunnels, by service."""
    tunnelled: Callable[[], Mapping[str, int]] = dict
    """Tunnels since the start, by service."""
    limits: Callable[[], Iterable[tuple[str, int, int, int]]] = tuple
    """Each limit's name, and the requests that it admitted, refused and would have refused in shadow mode."""
    limits_in_flight: Callable[[], Mapping[str, int]] = dict
    """How many requests are in flight under each limit that counts these."""
    limit_entries: Callable[[], tuple[int, int, int]] = lambda: (0, 0, 0)
    """Buckets in memory, how many there may be, and decisions for which there was no room for one."""
    store: Callable[[], StoreFigures | None] = lambda: None
    """What the shared store of limits did; None if there is none."""
    spans: Callable[[], SpanFigures | None] = lambda: None
    """What has become of spans; None if none is recorded."""
    loop_lag: Callable[[], LoopLag] = LoopLag
    """By how much the periodic timer is late."""
    degraded: Callable[[], Mapping[tuple[str, str], bool]] = dict
    """Whether an assumption on a package does not hold, by package and assumption."""
    certificates: Callable[[], Mapping[str, float]] = dict
    """When each certificate expires, in seconds since the epoch."""
    certificate_faults: Callable[[], int] = int
    """Certificates on disk that cannot be used."""
    log_dropped: Callable[[], int] = int
    """Access log lines that were lost."""
