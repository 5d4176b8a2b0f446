"""Data that a peer sent before it reset the connection: Linux keeps it, though nothing can be sent any more.

A service that refuses an upload responds, and closes with the rest of the upload unread, which resets the connection.
A write at that moment finds the connection lost, while the response waits in the kernel.
"""

from __future__ import annotations

import socket
from typing import Any, Final

from twisted.internet.error import ConnectionLost
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure

# A refusal with its page fits well; a longer response would be cut by the reset anyway.
_MOST: Final = 1 << 18


def bytes_before_reset(handle: Any) -> bytes:
    """The data that waits in the kernel for a failed connection, as one read."""
    try:
        words: bytes = handle.recv(_MOST, socket.MSG_DONTWAIT)
    except OSError:
        return b""
    return words


def deliver_bytes_before_reset(transport: Any) -> None:
    """Have one of Twisted's own transports deliver this data before it reports the end. Others do so by themselves,
    or cannot."""
    if isinstance(transport, Connection):
        _Listener(transport)


class _Listener:
    """Stands before the method by which the reactor ends a connection: it closes the socket before its protocol
    hears of it, so there is no later moment to read."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._lost = transport.connectionLost
        transport.connectionLost = self._connection_lost

    def _connection_lost(self, reason: Failure) -> None:
        transport = self._transport
        if transport.disconnected:
            return  # by what its protocol did with the last words
        try:
            if reason.type is ConnectionLost and transport.connected and not transport.disconnecting:
                words = bytes_before_reset(transport.socket)
                if words:
                    transport.protocol.dataReceived(words)
        finally:
            self._lost(reason)
            transport.__dict__.pop("connectionLost", None)
