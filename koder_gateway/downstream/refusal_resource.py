"""The resource that answers with a refusal: what guards, routes and filters put in a request's way."""

from __future__ import annotations

from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from ..errors import Refusal
from .ports import TreeRequest


@implementer(IResource)
class RefusalResource:
    """Answers with one refusal, without waiting for the request's body."""

    isLeaf = True
    streams_body = True

    def __init__(self, refusal: Refusal) -> None:
        self._refusal = refusal

    def render(self, request: TreeRequest) -> int:
        """Answer."""
        request.gateway.refuse(self._refusal)
        return NOT_DONE_YET

    def getChildWithDefault(self, name: bytes, request: TreeRequest) -> RefusalResource:
        """There is nothing below a refusal."""
        return self

    def putChild(self, path: bytes, child: object) -> None:
        """There is nothing below a refusal."""
        raise TypeError("a refusal has no children")
