"""Socket names, as the kernel gives them, as Twisted's address values."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

_MAPPED = "::ffff:"
_NUMERIC = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV


def from_socket_name(name: Any) -> IAddress:
    """The address for what `getsockname` or `getpeername` returned, for any family of stream sockets.

    One of IPv4's on a socket for both families (RFC 4291 section 2.5.5.2) is IPv4's, as on a socket of its own.
    A link-local IPv6 host carries its scope (`fe80::1%eth0`), which Python leaves out of the name.
    """
    if isinstance(name, tuple):
        if len(name) == 2:
            return IPv4Address("TCP", *name)
        host, port, flow, scope = name
        if host.startswith(_MAPPED) and "." in host:
            return IPv4Address("TCP", host.removeprefix(_MAPPED), port)
        if scope:
            host = socket.getnameinfo(name, _NUMERIC)[0]
        return IPv6Address("TCP", host, port, flow, scope)
    return UNIXAddress(name or None)
