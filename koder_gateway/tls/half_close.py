"""TLS with a client that may close its sending side and still read: by close_notify (RFC 8446 section 6.1), or by
FIN.

An end without close_notify may be caused by an attacker in between. It still counts as an end: the protocols above
know whether a request is complete, and what is sent afterwards is as secret as before.

TLS 1.2 requires an immediate close_notify in return (RFC 5246 section 7.2.1); clients that only close their sending
side do not wait for it.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.interfaces import IHalfCloseableProtocol
from zope.interface import implementer

from ..reactor.direct_reads import deliver_directly
from ..tls_bio.records import lib
from .stream import TLSTransport

_GOODBYE: Final = "close_notify"


@implementer(IHalfCloseableProtocol)
class HalfClosingTransport(TLSTransport):
    """For a protocol above that supports half-closed connections (IHalfCloseableProtocol)."""

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
        """The client has closed its sending side of the TCP connection."""
        if self._ready:
            # A client that sent no close_notify and has no response coming does not wait for one.
            self._hasty = True
            self._client_ended()
            self._hasty = False
        elif not self._left:
            self._leave()

    def writeConnectionLost(self) -> None:
        """All written data and the end have been sent."""

    def _client_ended(self) -> None:
        if self._client_done or self._left:
            return
        self._client_done = True
        inner: Any = self._inner
        inner.readConnectionLost()
        if not self._left:
            # OpenSSL would buffer everything that still arrives, and nothing would read it.
            self.dataReceived = _forget  # type: ignore[method-assign]
            deliver_directly(self.transport, self, _forget)
            self._pause_below()

    def _say_goodbye(self) -> None:
        if self._hasty:
            self._shut = True
            # What was written just before the end.
            self._flush()
        else:
            super()._say_goodbye()


def _forget(data: bytes) -> None:
    """Drop data after the client's end."""
