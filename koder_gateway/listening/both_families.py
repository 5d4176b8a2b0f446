"""A port without an address: IPv6 and IPv4 on one socket (RFC 3493 section 5.3)."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

# The errors of a system without IPv6.
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


@implementer(IStreamServerEndpoint)
class BothFamiliesEndpoint:
    """Listens on every address of the machine; on IPv4 alone if there is no IPv6."""

    def __init__(self, reactor: Any, port: int, backlog: int) -> None:
        self._reactor = reactor
        self._port = port
        self._backlog = backlog

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """See IStreamServerEndpoint."""
        try:
            return succeed(self._reactor.listenTCP(self._port, protocolFactory, self._backlog, "::"))
        except CannotListenError as error:
            if getattr(error.socketError, "errno", None) not in _NO_IPV6:
                return fail(error)
        except OSError as error:
            # Such a socket cannot even be created.
            if error.errno not in _NO_IPV6:
                return fail(error)
        try:
            return succeed(self._reactor.listenTCP(self._port, protocolFactory, self._backlog, ""))
        except CannotListenError as error:
            return fail(error)
