"""The spans of exchanges on their way to the exporter: encoded at the end of each exchange, and written in one piece.

No exchange waits: what the exporter does not take in time is collected up to a bound, and beyond it dropped and
counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..exchange.ending import ExchangeSpans
from ..exchange.states import Exchange
from ..wire.framed_messages import framed
from .records import AttemptRecord, ExchangeRecord

# How many bytes are collected at most, and how many before they are written without waiting for `flush`.
BOUND: Final = 1 << 20
_LIMIT: Final = 1 << 15
_PROTOCOLS: Final = ("1.0", "1.1")


class SpanRecorder(ExchangeSpans):
    """Collects records. `write` takes bytes and returns how many it accepted, without blocking."""

    def __init__(self, write: Callable[[bytes], int]) -> None:
        self._write = write
        self._buffer = bytearray()
        self._due = _LIMIT
        self.collected = 0
        """Spans that were collected since the start."""
        self.dropped = 0
        """Spans for which there was no room."""

    def spans(self, exchange: Exchange, now: float, ended: float) -> None:
        """See `ExchangeSpans`."""
        record = record_of(exchange, now, ended)
        if record is None:
            return
        data = framed(record)
        if len(self._buffer) >= self._due:
            self.flush()
        if len(self._buffer) + len(data) > BOUND:
            self.dropped += record.spans
            return
        self.collected += record.spans
        self._buffer += data

    def flush(self) -> None:
        """Write what is collected; the owner calls this four times a second and at the end."""
        if self._buffer:
            del self._buffer[: self._write(bytes(self._buffer))]
            self._due = min(len(self._buffer) + _LIMIT, BOUND)

    def forget(self) -> None:
        """Drop what is collected: whoever had the beginning of it has ended."""
        self._buffer.clear()
        self._due = _LIMIT

    @property
    def waiting(self) -> int:
        """Bytes that are not written yet."""
        return len(self._buffer)


def record_of(exchange: Exchange, now: float, ended: float) -> ExchangeRecord | None:
    """The record of a sampled exchange that has ended, None if it is not sampled; the times as for
    `ExchangeSpans.spans`."""
    trace, head, context = exchange.trace, exchange.head, exchange.context
    if trace is None:
        return None
    return ExchangeRecord(
        exchange.trace_id,
        trace.span,
        trace.parent,
        trace.flags,
        now - ended,
        exchange.started,
        min(exchange.answered_at, ended),
        ended,
        head.method,
        head.path.partition(b"?")[0],
        exchange.route,
        head.host,
        bool(context.tls),
        "2" if head.http2 else _PROTOCOLS[head.minor],
        exchange.peer,
        exchange.tenant,
        exchange.request_id,
        exchange.service,
        exchange.status,
        exchange.code,
        exchange.bytes_in,
        exchange.bytes_out,
        [AttemptRecord(each.span, each.url, each.begun, each.ended, each.fault) for each in trace.attempts],
    )
