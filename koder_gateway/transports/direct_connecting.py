"""Connections that the reactor makes itself: a socket, and once that is connected a uvloop transport."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any, Final

from twisted.internet.interfaces import IProtocol

from koder_gateway.reactor.direct_connections import Seeker, SocketName
from koder_gateway.transports.owner import OwningReactor
from koder_gateway.transports.socket_adoption import hand_over
from koder_gateway.transports.stream import StreamTransport

_KIND: Final = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
_UNDER_WAY: Final = (errno.EINPROGRESS, errno.EALREADY)


class DirectConnection(StreamTransport):
    """A connection for `seeker`, from its first packet on."""

    _tlsClientDefault = True
    _hears_last_words = True
    # Only while it is being made.
    _socket_waiting: socket.socket | None = None

    def __init__(self, reactor: OwningReactor, seeker: Seeker) -> None:
        super().__init__(reactor)
        self._seeker: Seeker | None = seeker

    def begin(self, target: SocketName) -> None:
        """Connect. Raises OSError if the system refuses at once."""
        connecting = socket.socket(target.family, _KIND)
        error = connecting.connect_ex(target.name)
        if error == errno.EINPROGRESS:
            # To this machine it stands by now, which a second call tells: no event has to be waited for.
            error = connecting.connect_ex(target.name)
        if not error or error == errno.EISCONN:
            hand_over(self.reactor.loop, connecting, self)
        elif error in _UNDER_WAY:
            self._socket_waiting = connecting
            self.reactor.loop.add_writer(connecting.fileno(), self._decided)
        else:
            connecting.close()
            raise OSError(error, os.strerror(error))

    def _decided(self) -> None:
        """The connection stands, or cannot be made."""
        connecting = self._stop_waiting()
        if connecting is None:
            return
        error = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not error:
            hand_over(self.reactor.loop, connecting, self)
            return
        connecting.close()
        seeker, self._seeker = self._seeker, None
        if seeker is not None:
            seeker.refused(OSError(error, os.strerror(error)))

    def _stop_waiting(self) -> socket.socket | None:
        connecting, self._socket_waiting = self._socket_waiting, None
        if connecting is not None:
            self.reactor.loop.remove_writer(connecting.fileno())
        return connecting

    def give_up(self) -> None:
        """It is not wanted any more: the seeker hears nothing of it. One that stands is closed."""
        self._seeker = None
        connecting = self._stop_waiting()
        if connecting is not None:
            connecting.close()

    def _build(self) -> IProtocol | None:
        return None if self._seeker is None else self._seeker.build()

    def _begin(self, protocol: Any) -> None:
        seeker, self._seeker = self._seeker, None
        protocol.makeConnection(self)
        if seeker is not None:
            seeker.made(protocol)
