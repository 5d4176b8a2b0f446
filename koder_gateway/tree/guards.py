"""Guards: resource wrappers that admit a request to what they wrap, or answer it with a refusal.

A guard consumes no path segment. It takes its step of `exchange.admission` once a request, whether it is met on the
way down (`getChildWithDefault`) or rendered itself, after `twisted.web.guard.HTTPAuthSessionWrapper`.
"""

from __future__ import annotations

from typing import Final

from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from ..downstream.ports import Guarding, TreeRequest
from ..downstream.request import GatewayRequest
from ..downstream.stopped_resource import StoppedResource, stop
from ..exchange.admission import GUARDED, Step, access, tenant
from ..exchange.limit_step import limits


@implementer(IResource)
class Guard(Guarding):
    """Base of the guards; subclasses decide in `admit`. The gateway's own way down asks `admit` and goes on with
    `inner`: it needs no path segments."""

    isLeaf = False
    streams_body = True

    def __init__(self, inner: IResource) -> None:
        self.inner = inner

    def getChildWithDefault(self, name: bytes, request: TreeRequest) -> IResource:
        """What is wrapped, with the segment put back for it, or what stops the request."""
        request.postpath.insert(0, request.prepath.pop())
        outcome = self.admit(request.gateway.exchange)
        return self.inner if outcome is None else StoppedResource(outcome, self.inner)

    def render(self, request: TreeRequest) -> int | bytes:
        """The request's path ends here: the wrapped resource answers."""
        inner, client = self.inner, request.gateway
        outcome = self.admit(client.exchange)
        if outcome is not None:
            stop(client, outcome, inner)
            return NOT_DONE_YET
        if isinstance(client, GatewayRequest) and not getattr(inner, "streams_body", False):
            client.render_stock(inner)
            return NOT_DONE_YET
        rendered: int | bytes = inner.render(request)
        return rendered

    def putChild(self, path: bytes, child: object) -> None:
        """Children belong to what is wrapped."""
        raise TypeError("a guard has no children of its own")


class TenantGuard(Guard):
    """Lets requests of active tenants pass."""

    admit = staticmethod(tenant)


class AccessGuard(Guard):
    """Lets requests pass whose client may use the route of their path."""

    admit = staticmethod(access)


class RateGuard(Guard):
    """Charges the limits that apply, and refuses what is over them."""

    admit = staticmethod(limits)


_GUARDS: Final[dict[Step, type[Guard]]] = {tenant: TenantGuard, access: AccessGuard, limits: RateGuard}


def guarded(inner: IResource) -> IResource:
    """A resource behind the guards, in the order of `exchange.admission`."""
    for step in reversed(GUARDED):
        inner = _GUARDS[step](inner)
    return inner
