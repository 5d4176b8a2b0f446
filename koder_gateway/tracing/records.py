"""What the gateway tells its exporter, and the exporter the gateway: see `wire.framed_messages`.

The gateway sends `Terms` once, then an `ExchangeRecord` for each sampled exchange. The exporter answers with
`Progress`.
"""

from __future__ import annotations

import msgspec


class Terms(msgspec.Struct, array_like=True):
    """Where spans go, and as whose. `url` is the whole one, `timeout` seconds for each request to the collector. `ca`
    is a PEM file, "" for the system's authorities. `resource` are the attributes of this process."""

    url: str
    headers: list[tuple[str, str]]
    ca: str
    timeout: float
    resource: list[tuple[str, str]]


class AttemptRecord(msgspec.Struct, array_like=True):
    """One attempt at a service; see `exchange.trace.Attempt`."""

    span: bytes
    url: str
    begun: float
    ended: float
    fault: str


class ExchangeRecord(msgspec.Struct, array_like=True):
    """One exchange. `offset` turns its monotonic seconds into those since the epoch; `answered` is when the head of
    the service's response came (0: never). The path has no query; what else a client chose is as it came."""

    trace_id: bytes
    span: bytes
    parent: bytes
    flags: int
    offset: float
    started: float
    answered: float
    ended: float
    method: bytes
    path: bytes
    route: bytes
    host: bytes
    secure: bool
    protocol: str
    client: bytes
    tenant: bytes
    request_id: bytes
    service: str
    status: int
    code: str
    bytes_in: int
    bytes_out: int
    attempts: list[AttemptRecord]

    @property
    def spans(self) -> int:
        """How many spans it is."""
        return 1 + len(self.attempts)


class Progress(msgspec.Struct, array_like=True):
    """What has become of spans since the last message. `lost` were refused by the collector, or given up; `failures`
    are requests to it that failed. `fault` is why they do now, "" once one has succeeded, None where nothing has
    changed.
    """

    exported: int = 0
    lost: int = 0
    failures: int = 0
    fault: str | None = None
