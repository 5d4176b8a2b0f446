"""The trace of one exchange: whether it is sampled, its spans as far as they are known, and what a service gets of
it.

Without a sampler (`[tracing] endpoint` is empty) nothing is recorded: a client's traceparent goes on as it came, and
where there is none a trace begins. With one the gateway takes part in the trace (W3C Trace Context section 3.4): each
service gets one traceparent of the gateway's, with the span of the attempt at that service as its parent.
"""

from __future__ import annotations

from typing import Final

from ..policy.sampling import Sampler
from ..wire.fields import without_fields
from ..wire.identifiers import IdentifierSource
from ..wire.trace_context import RANDOM, SAMPLED, traceparent_line
from .states import Exchange
from .trace import Attempt, ExchangeTrace

_identifiers: Final = IdentifierSource()
_TRACEPARENT: Final = frozenset((b"traceparent",))
_SPAN_DIGITS: Final = 16
_TRACE_DIGITS: Final = 32


def decide(exchange: Exchange, sampler: Sampler) -> ExchangeTrace | None:
    """Let the exchange belong to a trace, and return what is recorded of it; None if it is not sampled."""
    head = exchange.head
    if not head.traced:
        exchange.trace_id = trace_id = _identifiers.random_hex(_TRACE_DIGITS)
        if not sampler.takes(trace_id):
            return None
        parent, flags = b"", RANDOM
    else:
        exchange.trace_id = trace_id = head.trace_id
        parent, flags = _caller(head.trace_parent)
        trusted, sampled = exchange.context.trusted, bool(flags & SAMPLED)
        if not sampler.takes_clients(trace_id, sampled=sampled, trusted=trusted, now=exchange.started):
            return None
    digits = _identifiers.random_hex(2 * _SPAN_DIGITS)
    exchange.trace = ExchangeTrace(
        digits[:_SPAN_DIGITS], parent, flags & RANDOM | SAMPLED, next_span=digits[_SPAN_DIGITS:]
    )
    return exchange.trace


def trace_line(exchange: Exchange, *, attempt: bool) -> bytes:
    """The field line of the trace for a service, b"" where that of the client goes on as it came. The parent is the
    span of the first `attempt` at the service, or that of the exchange itself, for a resource that is mounted."""
    head, sampler = exchange.head, exchange.context.policy.sampler
    if sampler is None:
        if head.traced:
            exchange.trace_id = head.trace_id
            return b""
        exchange.trace_id, line = _identifiers.trace()
        return line
    trace = decide(exchange, sampler)
    if trace is not None:
        return traceparent_line(exchange.trace_id, trace.next_span if attempt else trace.span, trace.flags)
    # The flag has changed, or may have: then the parent must, too (section 3.4).
    flags = _caller(head.trace_parent)[1] & RANDOM if head.traced else RANDOM
    return traceparent_line(exchange.trace_id, _identifiers.random_hex(_SPAN_DIGITS), flags)


def lines_with_trace(exchange: Exchange) -> bytes:
    """The client's lines for a service, without its traceparent where the gateway has one of its own."""
    head = exchange.head
    if not head.traced or exchange.context.policy.sampler is None:
        return head.field_block()
    return b"".join(without_fields(head.lines, _TRACEPARENT))


def begin_attempt(exchange: Exchange, kept: list[bytes] | None, url: str, now: float) -> None:
    """An attempt at a service begins, at this address and `now` (monotonic seconds): the first, or a retry. For a
    retry the head of the request, which `kept` begins with, gets the new attempt's span as parent. Nothing for an
    exchange that is not sampled."""
    trace = exchange.trace
    if trace is None:
        return
    before = trace.next_span
    if trace.attempts:
        trace.next_span = _identifiers.random_hex(_SPAN_DIGITS)
        if kept:
            ids = exchange.trace_id
            kept[0] = kept[0].replace(
                traceparent_line(ids, before, trace.flags), traceparent_line(ids, trace.next_span, trace.flags), 1
            )
    trace.attempts.append(Attempt(trace.next_span, url, now))


def end_attempt(exchange: Exchange, event: str, now: float) -> None:
    """The attempt has failed with this event of `states`, and the request is sent once more."""
    if exchange.trace is not None:
        last = exchange.trace.attempts[-1]
        last.ended, last.fault = now, event


def _caller(parent: bytes) -> tuple[bytes, int]:
    """The span and the flags of a caller."""
    span, _, flags = parent.partition(b"-")
    return span, int(flags, 16)
