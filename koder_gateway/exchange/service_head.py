"""The head of a request as its service gets it."""

from __future__ import annotations

from .forwarding import service_fields
from .states import Exchange
from .tracing import lines_with_trace, trace_line


def head_for_service(exchange: Exchange) -> bytes:
    """The client's lines and the gateway's, with the trace that the exchange belongs to from now on."""
    head = exchange.head
    trace = trace_line(exchange, attempt=True)
    ours = service_fields(exchange.request_id, trace, exchange.context.service_fields, head.upgrade)
    lines = lines_with_trace(exchange)
    return b"%b %b HTTP/1.1\r\n%b%b\r\n" % (head.method, head.target, lines, ours)
