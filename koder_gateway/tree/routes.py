"""The resource that routes: by the raw path's whole segments, longest first, to a leaf of the tree."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.web.resource import IResource, getChildForRequest
from zope.interface import implementer

from ..downstream.ports import Descending, Segments, TreeClient, TreeRequest
from ..downstream.refusal_resource import RefusalResource
from ..errors import Refusal
from ..exchange.admission import route
from .proxy import ProxyResource


@implementer(IResource)
class Routes(Descending):
    """Finds the resource at the longest route that covers a request's path.

    `leaves` has a resource for each route's path. Matching is on the raw path, which is also what a service gets;
    the decoded segments in `postpath` are only moved along, for resources that look at them.
    """

    isLeaf = False
    streams_body = True

    def __init__(self, leaves: Mapping[bytes, IResource]) -> None:
        # With each, whether it is a mounted resource, which needs its own path.
        self._leaves = {path: (leaf, not isinstance(leaf, ProxyResource)) for path, leaf in leaves.items()}

    def descend(self, client: TreeClient) -> IResource:
        """The leaf for the client's path; a mounted resource gets the request as it knows them."""
        chosen = route(client.exchange)
        if isinstance(chosen, Refusal):
            return RefusalResource(chosen)
        leaf, mounted = self._leaves[chosen.path]
        if mounted:
            _place(client.hand_over(), chosen.path)
        return leaf

    def getChildWithDefault(self, name: bytes, request: TreeRequest) -> IResource:
        """The leaf for the request's whole path."""
        return self.descend(request.gateway)

    def render(self, request: TreeRequest) -> int | bytes:
        """The tree is mounted at the very path that was asked for."""
        leaf = self.descend(request.gateway)
        rendered: int | bytes = (leaf if leaf.isLeaf else getChildForRequest(leaf, request)).render(request)
        return rendered

    def putChild(self, path: bytes, child: object) -> None:
        """Routes come from the configuration."""
        raise TypeError("routes are given at construction")


def _place(request: Segments, path: bytes) -> None:
    """Divide a request's segments into those of a mounted resource's own path and those below it."""
    depth = path.rstrip(b"/").count(b"/")
    while len(request.prepath) > depth:
        request.postpath.insert(0, request.prepath.pop())
    while len(request.prepath) < depth:
        request.prepath.append(request.postpath.pop(0))
