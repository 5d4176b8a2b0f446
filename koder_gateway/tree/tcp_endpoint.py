"""The endpoint of a server that has an address, or a name to look up."""

from __future__ import annotations

from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint

from ..upstream.name_resolution import NamedEndpoint, ResolvedNames


def tcp_endpoint(
    reactor: Any, names: ResolvedNames, host: str, port: int, connect_timeout: float
) -> IStreamClientEndpoint:
    """The endpoint of this host; `names` looks it up, `connect_timeout` is in seconds."""
    if isIPAddress(host):
        return TCP4ClientEndpoint(reactor, host, port, connect_timeout)
    if isIPv6Address(host):
        return TCP6ClientEndpoint(reactor, host, port, connect_timeout)
    return NamedEndpoint(reactor, names.named(host), port, connect_timeout)
