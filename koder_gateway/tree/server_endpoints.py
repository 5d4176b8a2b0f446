"""Endpoints of the servers that the gateway connects to: by address, by a name to look up, or by a socket's path."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IStreamClientEndpoint

from ..reactor.direct_connections import SocketName
from ..upstream.direct_endpoint import AddressEndpoint
from ..upstream.name_resolution import NamedEndpoint, ResolvedNames


def tcp_endpoint(
    reactor: Any, names: ResolvedNames, host: str, port: int, connect_timeout: float
) -> IStreamClientEndpoint:
    """The endpoint of this host; `names` looks it up, `connect_timeout` is in seconds."""
    if isIPAddress(host):
        return AddressEndpoint(reactor, SocketName(socket.AF_INET, (host, port)), connect_timeout)
    if isIPv6Address(host):
        return AddressEndpoint(reactor, SocketName(socket.AF_INET6, (host, port)), connect_timeout)
    return NamedEndpoint(reactor, names.named(host), port, connect_timeout)


def unix_endpoint(reactor: Any, path: str, connect_timeout: float) -> IStreamClientEndpoint:
    """The endpoint of a UNIX socket; `connect_timeout` is in seconds."""
    return AddressEndpoint(reactor, SocketName(socket.AF_UNIX, path), connect_timeout)
