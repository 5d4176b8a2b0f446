"""Two ways to embed the gateway in a Twisted application. From the project's folder:

twistd -n --pidfile= -y docs/examples/embedding.py
curl -i -H 'Host: acme.id.example.com' http://127.0.0.1:8080/status
curl -i -H 'Host: acme.id.example.com' http://127.0.0.1:8081/status
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.application.internet import TimerService
from twisted.application.service import Application, MultiService
from twisted.application.strports import service as listening
from twisted.web.resource import Resource
from twisted.web.server import Site

from koder_gateway import Gateway, Settings, load, mounted_request


class Uptime(TimerService):
    """The application's own service: counts the seconds since it was started."""

    def __init__(self) -> None:
        super().__init__(1.0, self._count)
        self.seconds = -1

    def _count(self) -> None:
        self.seconds += 1


class Status(Resource):
    """The application's own resource. It is asked only for requests of a tenant that are within the limits."""

    isLeaf = True

    def __init__(self, uptime: Uptime) -> None:
        super().__init__()
        self._uptime = uptime

    def render_GET(self, request: Any) -> bytes:
        """See IResource."""
        # The gateway's word, not the client's.
        request.setHeader(b"content-type", b"application/json")
        asked = mounted_request(request)
        answer = {"tenant": asked.tenant, "client": asked.client, "seconds": self._uptime.seconds}
        return json.dumps(answer).encode() + b"\n"


def on_a_port_of_its_own(settings: Settings, port: str) -> MultiService:
    """A gateway that listens by itself, beside the application's service and with its resource mounted."""
    parent = MultiService()
    uptime = Uptime()
    uptime.setServiceParent(parent)
    gateway = Gateway(settings, ports=[port], mounts={"/status": Status(uptime)})
    gateway.setServiceParent(parent)
    return parent


def in_a_stock_site(settings: Settings, port: str) -> MultiService:
    """The gateway's tree in a `twisted.web.server.Site` of the application's own."""
    parent = MultiService()
    uptime = Uptime()
    uptime.setServiceParent(parent)
    # Without ports it listens on nothing, but as a started service it sees to the deadlines of the tree.
    gateway = Gateway(settings, ports=[], mounts={"/status": Status(uptime)})
    gateway.setServiceParent(parent)
    # Bodies are the services' to read: the site parses no forms.
    site = Site(gateway.resource, parsePOSTFormSubmission=False)
    listening(port, site).setServiceParent(parent)
    return parent


application = Application("embedding")
_settings = load(Path(__file__).with_name("embedding.toml"))
on_a_port_of_its_own(_settings, "tcp:8080:interface=127.0.0.1").setServiceParent(application)
in_a_stock_site(_settings, "tcp:8081:interface=127.0.0.1").setServiceParent(application)
