"""The leaf that proxies: hands an exchange to a service's pool."""

from __future__ import annotations

from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from ..downstream.ports import Forwarding, TreeClient, TreeRequest
from ..upstream.pool import Service
from ..upstream.relay import Relay


@implementer(IResource)
class ProxyResource(Forwarding):
    """Forwards every request below it to one service, body and answer as they come."""

    isLeaf = True
    streams_body = True

    def __init__(self, service: Service) -> None:
        self._service = service

    def forward_exchange(self, client: TreeClient) -> None:
        """Begin to forward; the relay ends the exchange. The gateway's own way down asks for this."""
        client.sink = relay = Relay(client, self._service)
        relay.start()

    def render(self, request: TreeRequest) -> int:
        """The same for a request on any other way."""
        self.forward_exchange(request.gateway)
        return NOT_DONE_YET

    def getChildWithDefault(self, name: bytes, request: TreeRequest) -> ProxyResource:
        """Everything below is the service's."""
        return self

    def putChild(self, path: bytes, child: object) -> None:
        """Everything below is the service's."""
        raise TypeError("what is below a proxy belongs to its service")
