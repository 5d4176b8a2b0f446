"""UNIX streams: a connection that also sends file descriptors to its peer."""

from __future__ import annotations

import array
import socket
from typing import Any

from twisted.internet.error import ConnectionLost, FileDescriptorOverrun
from twisted.internet.interfaces import IUNIXTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from koder_gateway.transports.stream import StreamTransport

# Seconds until a descriptor is offered again if the peer has no room for it.
_RETRY = 0.01

# Descriptors waiting to be sent at which a producer is paused.
_MANY = 64


@implementer(IUNIXTransport)
class UNIXStreamTransport(StreamTransport):
    """A stream that carries descriptors in addition to bytes.

    uvloop cannot send descriptors, so this class does: from `sendFileDescriptor` on, written data waits here until
    everything that uvloop holds is sent; then each descriptor goes with one byte, and uvloop takes the rest.
    Protocols that receive descriptors never get this transport, see `listening` and `connecting`.
    """

    _descriptors: list[int] | None = None
    _waiting: bytearray

    def sendFileDescriptor(self, descriptor: int) -> None:
        """Send `descriptor`, which the caller keeps open until it is sent, along with the next byte written.

        Without a byte of its own written in the same turn of the loop the connection is lost with
        FileDescriptorOverrun.
        """
        if not self.connected:
            return
        if not self._descriptors:
            self.flush()
            self._descriptors, self._waiting = [], bytearray()
            self.write = self._wait
            self.reactor.loop.call_soon(self._send)
        self._descriptors.append(descriptor)
        if len(self._descriptors) > _MANY and not self._full:
            self.pause_writing()

    def _close(self) -> None:
        if not self._descriptors:
            super()._close()

    def resume_writing(self) -> None:
        if self._descriptors:
            self._send()
        else:
            super().resume_writing()

    def getTcpNoDelay(self) -> bool:
        """Always false, for callers that expect TCP."""
        return False

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing, as on Twisted's own UNIX transports."""

    def _wait(self, data: bytes) -> None:
        self._waiting += data

    def _send(self) -> None:
        native = self._native
        if native is None or not self._descriptors:
            return
        if native.get_write_buffer_size():
            native.set_write_buffer_limits(0)  # resume_writing now means: all sent
            return
        if len(self._descriptors) > len(self._waiting):
            self._lose(Failure(FileDescriptorOverrun()))
            return
        try:
            while self._descriptors:
                self._send_one(self._descriptors[0])
                del self._descriptors[0], self._waiting[0]
        except BlockingIOError:
            self.reactor.loop.call_later(_RETRY, self._send)
        except OSError:
            self._lose(Failure(ConnectionLost()))
        else:
            self._go_on(native)

    def _send_one(self, descriptor: int) -> None:
        rights = array.array("i", [descriptor])
        self.getHandle().sendmsg([self._waiting[:1]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

    def _go_on(self, native: Any) -> None:
        """All descriptors are sent: back to writing as usual."""
        waiting = bytes(self._waiting)
        native.set_write_buffer_limits()
        self._write_natively()
        if waiting:
            native.write(waiting)
        if self._full and not native.get_write_buffer_size():
            self.resume_writing()
        if self.disconnecting:
            self._close()
