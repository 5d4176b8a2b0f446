"""The deadlines and bounds that clients are held to."""

from __future__ import annotations

from dataclasses import dataclass

from ..policy.shares import Shares
from ..wire.request_reader import LINE_BESIDE


@dataclass(frozen=True, slots=True)
class ClientTimeouts:
    """Deadlines towards clients in seconds: for a head, a body's grace, an idle connection, a lingering close,
    a client that takes nothing of what it is sent, and a whole exchange (0: none)."""

    head: float = 10.0
    body: float = 30.0
    keepalive: float = 75.0
    linger: float = 2.0
    idle: float = 60.0
    exchange: float = 0.0


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Bounds towards clients: bytes of a head, bytes of a target, fields, bytes a second of a body, connections (and
    what of them one address and one tenant may have, None: all), streams of an HTTP/2 connection, bytes of answers
    that wait for all clients together. `half_close`: whether a client that has ended its side is still answered."""

    max_head: int = 32768
    max_target: int = 8192
    max_fields: int = 100
    min_rate: float = 1024.0
    max_connections: int = 65536
    max_streams: int = 100
    max_buffered: int = 1 << 28
    shares: Shares | None = None
    half_close: bool = True

    @property
    def max_line(self) -> int:
        """Bytes of a request line: the target, the longest method and the version around it."""
        return self.max_target + LINE_BESIDE
