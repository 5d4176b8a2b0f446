"""TLS with a client that may end its side and still read: by close_notify (RFC 8446 section 6.1), or beneath TLS.

An end without close_notify may be the work of somebody in between. It is taken for an end all the same: the protocols
above know by themselves whether a request is complete, and what is sent from then on is as secret as before. TLS 1.2
asks for close_notify in return at once (RFC 5246 section 7.2.1); clients that only end their side do not wait for it.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.interfaces import IHalfCloseableProtocol
from zope.interface import implementer

from ..reactor.direct_reads import deliver_straight
from ..tls_bio.records import lib
from .stream import TLSTransport

_GOODBYE: Final = "close_notify"


@implementer(IHalfCloseableProtocol)
class HalfClosingTransport(TLSTransport):
    """For a protocol above that wants to know of its client's end (IHalfCloseableProtocol)."""

    _client_done = False
    _hasty = False

    def _end(self, error: int) -> str:
        super()._end(error)
        return _GOODBYE if error == lib.SSL_ERROR_ZERO_RETURN else ""

    def _over(self, fault: str) -> None:
        if fault == _GOODBYE and self._ready:
            self._client_ended()
        else:
            super()._over(fault)

    def readConnectionLost(self) -> None:
        """The client has ended its side of the connection beneath."""
        if self._ready:
            # A client that has said no goodbye and has no answer coming waits for none.
            self._hasty = True
            self._client_ended()
            self._hasty = False
        elif not self._left:
            self._leave()

    def writeConnectionLost(self) -> None:
        """All that was written has been sent, and the end of it."""

    def _client_ended(self) -> None:
        if self._client_done or self._left:
            return
        self._client_done = True
        inner: Any = self._inner
        inner.readConnectionLost()
        if not self._left:
            # OpenSSL would keep all that still came, and nobody read it.
            self.dataReceived = _forget  # type: ignore[method-assign]
            deliver_straight(self.transport, self, _forget)
            self._pause_below()

    def _say_goodbye(self) -> None:
        if self._hasty:
            self._shut = True
        else:
            super()._say_goodbye()


def _forget(data: bytes) -> None:
    """What comes after the client's end."""
