"""The deadlines and bounds that clients are held to."""

from __future__ import annotations

from dataclasses import dataclass

from ..policy.shares import Shares
from ..wire.request_reader import LINE_BESIDE


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTimeouts:
    """Deadlines towards clients in seconds: for a head, a body's grace, an idle connection, a lingering close,
    a client that takes nothing of what it is sent, and a whole exchange (0: none)."""

    head: float
    body: float
    keepalive: float
    linger: float
    idle: float
    exchange: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLimits:
    """Bounds towards clients: bytes of a head, bytes of a target, fields, bytes a second of a body, connections (and
    what of them one address and one tenant may have, None: all), streams of an HTTP/2 connection, bytes of responses
    that wait for all clients together. `half_close`: whether a client that has ended its side is still answered."""

    max_head: int
    max_target: int
    max_fields: int
    min_rate: float
    max_connections: int
    max_streams: int
    max_buffered: int
    shares: Shares | None
    half_close: bool

    @property
    def max_line(self) -> int:
        """Bytes of a request line: the target, the longest method and the version around it."""
        return self.max_target + LINE_BESIDE
