"""The kernel's socket names as Twisted's address values."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

_MAPPED = "::ffff:"
_NUMERIC = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV


def from_socket_name(name: Any) -> IAddress:
    """The address for a result of `getsockname` or `getpeername`, for any family of stream sockets.

    An IPv4 address on a socket for both families (RFC 4291 section 2.5.5.2) becomes a plain IPv4 address. A
    link-local IPv6 host carries its scope (`fe80::1%eth0`), which Python leaves out of the name.
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
