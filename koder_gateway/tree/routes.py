"""The resource that routes: by the raw path's whole segments, longest first, to a leaf of the tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.web.resource import IResource, getChildForRequest
from zope.interface import implementer

from ..downstream.refused import Refused
from ..errors import NO_ROUTE
from ..policy.cors import READING
from ..policy.routing import RouteTable
from .proxy import ProxyResource


@implementer(IResource)
class Routes:
    """Finds the resource at the longest route that covers a request's path.

    `leaves` has a resource for each route's path. Matching is on the raw path, which is also what a service gets;
    the decoded segments in `postpath` are only moved along, for resources that look at them.
    """

    isLeaf = False
    streams_body = True

    def __init__(self, table: RouteTable, leaves: Mapping[bytes, Any]) -> None:
        self._match = table.match
        public = {route.path for route in table.routes if route.public}
        # With each, whether it is somebody else's and wants to know its place, and whether any page may read it.
        self._leaves = {
            path: (leaf, not isinstance(leaf, ProxyResource), path in public) for path, leaf in leaves.items()
        }
        self._no_route = Refused(NO_ROUTE)

    def descend(self, client: Any) -> Any:
        """The leaf for the client's path; a mounted resource gets the request as it knows them."""
        exchange = client.exchange
        match = self._match
        route = match(exchange.head.path)
        if route is None:
            return self._no_route
        exchange.route = route.path
        leaf, mounted, public = self._leaves[route.path]
        if public and not exchange.readable and exchange.head.method in READING:
            exchange.fields += exchange.context.policy.cors.public_fields
            exchange.readable = True
        if mounted:
            _place(client.hand_over(), route.path)
        return leaf

    def getChildWithDefault(self, name: bytes, request: Any) -> Any:
        """The leaf for the request's whole path."""
        return self.descend(request.gateway)

    def render(self, request: Any) -> Any:
        """The tree is mounted at the very path that was asked for."""
        leaf = self.descend(request.gateway)
        return (leaf if leaf.isLeaf else getChildForRequest(leaf, request)).render(request)

    def putChild(self, path: bytes, child: object) -> None:
        """Routes come from the configuration."""
        raise TypeError("routes are given at construction")


def _place(request: Any, path: bytes) -> None:
    """Divide a request's segments into those of a mounted resource's own path and those below it."""
    depth = path.rstrip(b"/").count(b"/")
    while len(request.prepath) > depth:
        request.postpath.insert(0, request.prepath.pop())
    while len(request.prepath) < depth:
        request.prepath.append(request.postpath.pop(0))
