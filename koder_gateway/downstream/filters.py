"""Request filters: what every request passes before the resource tree sees it.

`Identity` gives the exchange its id and the fields for the service; `Cors`, the outermost that can answer, sees
to it that even the refusals that follow carry the CORS fields. Both work on the exchange and its standing, so
they serve the gateway's own channel and a stock `twisted.web` site alike.
"""

from __future__ import annotations

from twisted.web.http_headers import Headers

from ..exchange.states import Exchange
from ..policy.decision import Standing
from ..wire.identity import IdentifierSource
from ..wire.request_head import RequestHead

_identifiers = IdentifierSource()


class Identity:
    """Begins exchanges, under the client's request id when that is well formed, else under a new one."""

    __slots__ = ()

    def open(self, head: RequestHead, standing: Standing, now: float) -> Exchange:
        """The exchange of this head, begun at `now`."""
        request_id = head.request_id or _identifiers.take(32)
        exchange = Exchange(head, standing.address, now, request_id)
        exchange.fields = b"X-Request-ID: %b\r\n%b" % (request_id, standing.fields)
        exchange.drops_hsts = standing.drops_hsts
        exchange.readable = standing.readable
        return exchange


def transit(exchange: Exchange, standing: Standing) -> bytes:
    """The field lines that the gateway sets for a service: who asks, as which tenant, under which id and trace."""
    if exchange.head.traced:
        return b"X-Request-ID: %b\r\n%b" % (exchange.request_id, standing.transit)
    return b"X-Request-ID: %b\r\n%b%b" % (exchange.request_id, _identifiers.traceparent(), standing.transit)


class Cors:
    """Answers preflights; every other answer gets its CORS fields from the exchange."""

    __slots__ = ()

    def answer(self, exchange: Exchange, standing: Standing) -> bytes | None:
        """The field lines of a preflight's 204, in place of the exchange's CORS fields; None for other requests."""
        if exchange.head.method != b"OPTIONS" or standing.misplaced:
            return None
        fields = standing.policy.preflight(exchange.head, standing.origins)
        if fields is None:
            return None
        exchange.tenant = standing.whose(exchange.head)
        exchange.fields = b"X-Request-ID: %b\r\n%b%b" % (exchange.request_id, fields, standing.hsts)
        return exchange.fields


def forwarded_headers(exchange: Exchange, standing: Standing) -> Headers:
    """What a service would get, for a resource that is mounted in its place: nothing that the client made up."""
    headers = Headers()
    for line in (*exchange.head.lines, *transit(exchange, standing).split(b"\r\n")):
        name, colon, value = line.rstrip(b"\r\n").partition(b": ")
        if colon:
            headers.addRawHeader(name, value)
    return headers
