"""What a service would get, as the headers of a stock request, for a resource that is mounted in its place."""

from __future__ import annotations

from twisted.web.http_headers import Headers

from ..exchange.forwarding import header_fields, service_fields
from ..exchange.states import Exchange
from ..exchange.tracing import lines_with_trace, trace_line


def forwarded_headers(exchange: Exchange) -> Headers:
    """The client's end-to-end fields and the gateway's own: nothing that the client made up."""
    headers = Headers()
    trace = trace_line(exchange, attempt=False)
    ours = service_fields(exchange.request_id, trace, exchange.context.fields_for_service())
    for name, value in header_fields((lines_with_trace(exchange), ours)):
        headers.addRawHeader(name, value)
    return headers


def sign_anew(exchange: Exchange, headers: Headers) -> None:
    """Give them a context that is valid for long enough, when time has passed since they were made."""
    signed = exchange.context.signed
    if signed is not None:
        for name, value in header_fields((signed.line(),)):
            headers.setRawHeaders(name, [value])
