"""What a service would get, as the headers of a stock request, for a resource that is mounted in its place."""

from __future__ import annotations

from twisted.web.http_headers import Headers

from ..exchange.forwarding import header_fields, service_fields
from ..exchange.states import Exchange


def forwarded_headers(exchange: Exchange) -> Headers:
    """The client's end-to-end fields and the gateway's own: nothing that the client made up."""
    headers = Headers()
    ours = service_fields(exchange.head, exchange.request_id, exchange.context.fields_for_service())
    for name, value in header_fields((*exchange.head.lines, ours)):
        headers.addRawHeader(name, value)
    return headers
