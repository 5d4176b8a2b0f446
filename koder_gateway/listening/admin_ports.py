"""The endpoint of the admin port: read like that of a plain port, or by Twisted alone if it uses TLS."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IStreamServerEndpoint

from .endpoint_strings import expand_shorthand, parse, port_number, ssl_arguments
from .endpoints import Endpoints

Reading = Callable[[str], IStreamServerEndpoint]


def admin_endpoint(endpoints: Endpoints, stock: Reading, text: str) -> IStreamServerEndpoint:
    """The endpoint for a string.

    `stock` is Twisted's own parser, for TLS and for the PROXY header: probes need no certificate of the gateway and
    no HTTP/2, and do not count as its clients. Raises EndpointError, or what `stock` raises.
    """
    text = expand_shorthand(text, secure=False)
    if not _speaks_tls(text) and parse(text).kind != "haproxy":
        return endpoints.plain(text)
    examine_admin(endpoints, stock, text)
    return stock(text)


def examine_admin(endpoints: Endpoints, stock: Reading, text: str) -> None:
    """Raise what `admin_endpoint` would, except for what only the daemon has."""
    text = expand_shorthand(text, secure=False)
    if not _speaks_tls(text):
        endpoints.examine_plain(text)
        return
    description = parse(_carried(text))
    if description.kind == "ssl":
        port_number(ssl_arguments(description).get("port", ""))
    stock(text)


def _speaks_tls(text: str) -> bool:
    return _carried(text).lower().startswith(("ssl", "tls"))


def _carried(text: str) -> str:
    """What follows `haproxy:`, or all of it."""
    return text.partition(":")[2] if parse(text).kind == "haproxy" else text
