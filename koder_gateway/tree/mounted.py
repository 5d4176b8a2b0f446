"""What a mounted resource can learn about its request: the tenant, the client and the request id."""

from __future__ import annotations

from dataclasses import dataclass

from ..exchange.states import Exchange


@dataclass(frozen=True, slots=True)
class MountedRequest:
    """`tenant` is the slug, `client` the client's address ("unknown" for one that has none), also where trusted
    proxies stand between, and `request_id` that of X-Request-ID and the access log."""

    tenant: str
    client: str
    request_id: str


def mounted_request(request: object) -> MountedRequest:
    """What the gateway knows about a request that a mounted resource renders. Raises TypeError for any other
    request."""
    exchange = getattr(getattr(request, "gateway", None), "exchange", None)
    if not isinstance(exchange, Exchange):
        raise TypeError(
            "this request came by no gateway; mount the resource with Gateway(..., mounts={path: resource})"
        )
    return MountedRequest(
        exchange.tenant.decode("ascii"), exchange.peer.decode("ascii"), exchange.request_id.decode("ascii")
    )
