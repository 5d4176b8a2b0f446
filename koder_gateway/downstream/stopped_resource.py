"""What becomes of a request that a guard does not let pass at once: it is refused, or waits and goes on later."""

from __future__ import annotations

from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from ..errors import Refusal
from ..exchange.admission_wait import AdmissionWait
from ..exchange.pending import Pending
from .ports import TreeClient, TreeRequest


def stop(client: TreeClient, outcome: Refusal | Pending, inner: IResource) -> None:
    """A guard's step has this outcome: refuse the request, or have it wait and then go on with what is guarded."""
    if isinstance(outcome, Refusal):
        client.refuse(outcome)
    else:
        AdmissionWait(client, lambda: client.go_on(inner)).begin(outcome)


@implementer(IResource)
class StoppedResource:
    """Stands where the way of a request has stopped at a guard, without waiting for the request's body."""

    isLeaf = True
    streams_body = True

    def __init__(self, outcome: Refusal | Pending, inner: IResource) -> None:
        self._outcome = outcome
        self._inner = inner

    def render(self, request: TreeRequest) -> int:
        """Refuse it, or begin to wait."""
        stop(request.gateway, self._outcome, self._inner)
        return NOT_DONE_YET

    def getChildWithDefault(self, name: bytes, request: TreeRequest) -> StoppedResource:
        """The way stops here, whatever follows in the path."""
        return self

    def putChild(self, path: bytes, child: object) -> None:
        """See IResource: there is nothing below it."""
        raise TypeError("a stopped request has no children")
