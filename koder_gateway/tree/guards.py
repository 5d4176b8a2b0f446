"""Guards: resource wrappers that admit a request to what they wrap, or answer it with a refusal.

A guard consumes no path segment. It takes its part of the decision once a request, whether it is met on the way
down (`getChildWithDefault`) or rendered itself, after `twisted.web.guard.HTTPAuthSessionWrapper`.
"""

from __future__ import annotations

from typing import Any

from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from ..downstream.refused import Refused
from ..errors import Refusal
from ..policy.decision import limit_refusal
from ..policy.limits import Limiter


@implementer(IResource)
class Guard:
    """Base of the guards; subclasses decide in `admit`."""

    isLeaf = False
    streams_body = True

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def admit(self, client: Any) -> Refusal | None:
        """Why this exchange goes no further; None lets it pass. `client` is the exchange's client side."""
        raise TypeError(f"{type(self).__name__} must say whom it admits")

    def descend(self, client: Any) -> Any:
        """What is wrapped, or a refusal: the gateway's own way down, which needs no path segments."""
        refusal = self.admit(client)
        return self.inner if refusal is None else Refused(refusal)

    def getChildWithDefault(self, name: bytes, request: Any) -> Any:
        """What is wrapped, with the segment put back for it, or a refusal."""
        refusal = self.admit(request.gateway)
        if refusal is not None:
            return Refused(refusal)
        request.postpath.insert(0, request.prepath.pop())
        return self.inner

    def render(self, request: Any) -> Any:
        """The request's path ends here: the wrapped resource answers."""
        refusal = self.admit(request.gateway)
        if refusal is not None:
            return Refused(refusal).render(request)
        inner = self.inner
        if request.gateway is request and not getattr(inner, "streams_body", False):
            request.render_stock(inner)
            return NOT_DONE_YET
        return inner.render(request)

    def putChild(self, path: bytes, child: object) -> None:
        """Children belong to what is wrapped."""
        raise TypeError("a guard has no children of its own")


class TenantGuard(Guard):
    """Lets requests of active tenants pass, and says whose the exchange is."""

    def admit(self, client: Any) -> Refusal | None:
        """The refusal that resolving the tenant came to."""
        exchange = client.exchange
        tenant = exchange.context.tenant
        if isinstance(tenant, Refusal):
            exchange.tenant = exchange.context.whose(exchange.head)
            return tenant
        exchange.tenant = tenant.wire
        return None


class RateGuard(Guard):
    """Charges the limits that apply, and refuses what is over them."""

    def __init__(self, inner: Any, limiter: Limiter) -> None:
        super().__init__(inner)
        self._admit = limiter.admit

    def admit(self, client: Any) -> Refusal | None:
        """429 when a limit is used up; the answer's fields say what is left either way."""
        exchange = client.exchange
        head = exchange.head
        admit = self._admit
        verdict = admit(exchange.tenant, exchange.context.key, head.method, head.path, exchange.started, head.plain)
        fields = verdict.fields
        if fields:
            exchange.fields += fields
            exchange.limited = True
        exchange.charges = verdict
        return None if verdict.refused is None else limit_refusal(verdict.refused.name)
