"""The resource that routes: by the raw path's whole segments, longest first, to a leaf of the tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.web.resource import IResource
from zope.interface import implementer

from ..errors import NO_ROUTE
from ..policy.routing import RouteTable
from .guards import Refused


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
        self._leaves = leaves
        self._no_route = Refused(NO_ROUTE)

    def descend(self, client: Any) -> Any:
        """The leaf for the client's path; a mounted resource that is no leaf gets its segments split."""
        exchange = client.exchange
        route = self._match(exchange.head.path)
        if route is None:
            return self._no_route
        exchange.route = route.path
        leaf = self._leaves[route.path]
        if not leaf.isLeaf:
            client.split_path()
            _consume(client, route.path)
        return leaf

    def getChildWithDefault(self, name: bytes, request: Any) -> Any:
        """The leaf for the request's whole path."""
        exchange = request.gateway.exchange
        route = self._match(exchange.head.path)
        if route is None:
            return self._no_route
        exchange.route = route.path
        leaf = self._leaves[route.path]
        if not leaf.isLeaf:
            request.postpath.insert(0, request.prepath.pop())
            _consume(request, route.path)
        return leaf

    def render(self, request: Any) -> Any:
        """A path without any segment has no route."""
        return self._no_route.render(request)

    def putChild(self, path: bytes, child: object) -> None:
        """Routes come from the configuration."""
        raise TypeError("routes are given at construction")


def _consume(request: Any, path: bytes) -> None:
    """Move what a mounted resource's own path covers out of what it still has to look at."""
    for _ in range(path.rstrip(b"/").count(b"/")):
        request.prepath.append(request.postpath.pop(0))
