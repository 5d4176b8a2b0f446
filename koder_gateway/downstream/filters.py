"""Request filters: what every request passes before the resource tree sees it.

`Identity` gives the exchange its id and the fields for the client; `Cors`, the outermost that can answer, sees
to it that even the refusals that follow carry the CORS fields. Both work on the exchange, so they serve the gateway's
own channels and a stock `twisted.web` site alike.
"""

from __future__ import annotations

from twisted.web.http_headers import Headers

from ..exchange.context import RequestContext
from ..exchange.forwarding import header_fields, service_fields
from ..exchange.states import Exchange
from ..wire.identity import IdentifierSource
from ..wire.request_head import RequestHead

_identifiers = IdentifierSource()


class Identity:
    """Begins exchanges, under the client's request id when that is well formed, else under a new one."""

    __slots__ = ()

    def open(self, head: RequestHead, context: RequestContext, now: float) -> Exchange:
        """The exchange of this head, begun at `now`."""
        request_id = head.request_id or _identifiers.take(32)
        exchange = Exchange(head, context, now, request_id)
        exchange.fields = b"X-Request-ID: %b\r\n%b" % (request_id, context.fields)
        exchange.drops_hsts = context.drops_hsts
        exchange.readable = context.readable
        return exchange


class Cors:
    """Answers preflights; every other answer gets its CORS fields from the exchange."""

    __slots__ = ()

    def answer(self, exchange: Exchange) -> bytes | None:
        """The field lines of a preflight's 204, in place of the exchange's CORS fields; None for other requests."""
        context = exchange.context
        if exchange.head.method != b"OPTIONS" or context.misplaced:
            return None
        fields = context.policy.preflight(exchange.head, context.origins)
        if fields is None:
            return None
        exchange.tenant = context.whose(exchange.head)
        exchange.fields = b"X-Request-ID: %b\r\n%b%b" % (exchange.request_id, fields, context.hsts)
        return exchange.fields


def forwarded_headers(exchange: Exchange) -> Headers:
    """What a service would get, for a resource that is mounted in its place: nothing that the client made up."""
    headers = Headers()
    ours = service_fields(exchange.head, exchange.request_id, exchange.context.service_fields)
    for name, value in header_fields((*exchange.head.lines, ours)):
        headers.addRawHeader(name, value)
    return headers
