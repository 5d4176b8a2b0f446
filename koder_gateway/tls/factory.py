"""TLS under the protocols of a listening port."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
)
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from ..reactor.turns import Turns
from .half_close import HalfClosingTransport
from .handshake_failures import HandshakeFailures
from .lean_connection import VERSION
from .stream import TLSTransport, usable

_log = Logger()


class TLSFactory(ServerFactory):
    """Puts TLS under the protocols of another factory. `contexts` makes the TLS state of each connection, `failures`
    is notified of failed handshakes, `turns` are the reactor's: without them everything that one read brings is
    decrypted at once."""

    noisy = False

    def __init__(
        self,
        contexts: IOpenSSLServerConnectionCreator,
        wrapped: IProtocolFactory,
        failures: HandshakeFailures | None = None,
        turns: Turns | None = None,
    ) -> None:
        self.contexts: Any = contexts
        self._failures = failures
        self._turns = turns
        self._wrapped: Any = wrapped

    def doStart(self) -> None:
        """The wrapped factory starts to listen."""
        self._wrapped.doStart()

    def doStop(self) -> None:
        """The wrapped factory stops listening."""
        self._wrapped.doStop()

    def buildProtocol(self, addr: IAddress | None) -> TLSTransport | None:
        """TLS for a new connection, with the wrapped factory's protocol above it."""
        inner = self._wrapped.buildProtocol(addr)
        if inner is None:
            return None
        kind = HalfClosingTransport if IHalfCloseableProtocol.providedBy(inner) else TLSTransport
        transport = kind(self.contexts.serverConnectionForTLS(None), inner, self._failures)
        transport.turns = self._turns
        return transport


def over_tls(
    contexts: IOpenSSLServerConnectionCreator,
    wrapped: IProtocolFactory,
    failures: HandshakeFailures | None = None,
    turns: Turns | None = None,
) -> IProtocolFactory:
    """A factory that puts TLS under the protocols of `wrapped`: `TLSFactory` if pyOpenSSL is as it expects, else
    Twisted's own, which does the same, is slower, and does not report failed handshakes."""
    if usable(contexts):
        return TLSFactory(contexts, wrapped, failures, turns)
    _log.warn(
        "pyOpenSSL {version} lacks OpenSSL functions that the gateway calls: using Twisted's own"
        " TLS, which costs more for each request",
        version=VERSION,
    )
    return TLSMemoryBIOFactory(contexts, False, wrapped)
