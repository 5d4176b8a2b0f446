"""What a service would get, as the headers of a stock request, for a resource that is mounted in its place."""

from __future__ import annotations

from twisted.web.http_headers import Headers

from ..exchange.forwarding import header_fields, service_fields, trace_of
from ..exchange.states import Exchange


def forwarded_headers(exchange: Exchange) -> Headers:
    """The client's end-to-end fields and the gateway's own: nothing that the client made up."""
    headers = Headers()
    exchange.trace_id, trace = trace_of(exchange.head)
    ours = service_fields(exchange.request_id, trace, exchange.context.fields_for_service())
    for name, value in header_fields((*exchange.head.lines, ours)):
        headers.addRawHeader(name, value)
    return headers


def sign_anew(exchange: Exchange, headers: Headers) -> None:
    """Give them a context that is valid for long enough, when time has passed since they were made."""
    signed = exchange.context.signed
    if signed is not None:
        for name, value in header_fields((signed.line(),)):
            headers.setRawHeaders(name, [value])
