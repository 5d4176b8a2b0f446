"""TLS towards services: an endpoint that connects only to a service whose certificate has the right name."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IAddress, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from ..reactor.turns import turns_of
from .openssl_transport import transport_class
from .peer_identity import PeerIdentity, PeerVerification
from .tls_sessions import SessionCache
from .tls_transport import SecureTransport
from .trust import Trust, make_context


class HandshakeError(Exception):
    """No TLS with the service; the text is one line that says why. Nothing has been sent to it."""


class UntrustedError(HandshakeError):
    """The service has not proven to be who it must be."""


class HandshakeTimeout(TimeoutError):
    """The service has not finished its handshake within the time that a connection may take."""

    def __str__(self) -> str:
        return str(self.args[0])


@implementer(IStreamClientEndpoint)
class SecureEndpoint:
    """TLS over the connections of `plain`, with a service that must prove to have the name `identity`.

    `timeout` is in seconds, for the connection and the handshake together. Fails as `plain` does, and with
    HandshakeError, UntrustedError and HandshakeTimeout. Raises ValueError for an identity that is none. `protocol`
    is what ALPN names, b"" for nothing.
    """

    def __init__(
        self,
        reactor: Any,
        plain: IStreamClientEndpoint,
        identity: str,
        trust: Trust,
        timeout: float,
        protocol: bytes = b"http/1.1",
    ) -> None:
        self.reactor = reactor
        self.plain = plain
        self.identity = PeerIdentity(identity)
        self.timeout = timeout
        self.sessions = SessionCache()
        self._context = make_context(trust, self.identity, protocol)
        self._transport = transport_class(SSL.Connection(self._context, None))

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """See IStreamClientEndpoint. The protocol is made, and the Deferred fires, after the handshake."""
        return _Opening(self, protocolFactory).begin()

    def make_transport(self, opening: _Opening) -> SecureTransport:
        """The TLS state of a new connection, which resumes a session where there is one."""
        connection = SSL.Connection(self._context, None)
        if self.identity.server_name:
            connection.set_tlsext_host_name(self.identity.server_name)
        now = self.reactor.seconds()
        kept = self.sessions.pop(now)
        connection.set_app_data(PeerVerification(proven=kept is not None))
        if kept is not None:
            connection.set_session(kept.session)
        transport = self._transport(connection, opening, self.sessions, now if kept is None else kept.verified)
        transport.turns = turns_of(self.reactor)
        return transport


class _Opening(Factory):
    """One connection that is being made, and its handshake. Each may fail, time out or be cancelled."""

    noisy = False

    def __init__(self, endpoint: SecureEndpoint, wrapped: IProtocolFactory) -> None:
        self._endpoint = endpoint
        self._wrapped = wrapped
        self._until = endpoint.reactor.seconds() + endpoint.timeout
        self._over = False
        self._timer: Any = None
        self._transport: SecureTransport | None = None
        self._connecting: Deferred[Any] | None = None
        self._result: Deferred[Any] = Deferred(self._cancelled)

    def begin(self) -> Deferred[Any]:
        """Connect."""
        self._connecting = self._endpoint.plain.connect(self)
        self._connecting.addCallbacks(self._connected, self._fail)
        return self._result

    def buildProtocol(self, addr: IAddress | None) -> SecureTransport:
        """TLS for a connection that is about to be made."""
        return self._endpoint.make_transport(self)

    def _connected(self, transport: SecureTransport) -> None:
        if self._over:
            transport.abortConnection()
            return
        self._transport = transport
        left = max(self._until - self._endpoint.reactor.seconds(), 0.0)
        self._timer = self._endpoint.reactor.callLater(left, self._late)
        transport.shake_hands()

    # -- the outcomes, of which the first counts

    def _end(self) -> bool:
        """Whether this is the first outcome."""
        first, self._over = not self._over, True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._transport = self._connecting = None
        return first

    def opened(self, transport: SecureTransport) -> None:
        """See `tls_transport.HandshakeListener`."""
        self._end()
        peer = transport.getPeer()
        try:
            inner = self._wrapped.buildProtocol(peer)
            if inner is None:
                raise HandshakeError("the connection is not needed any more")
            transport.attach(inner)
        except Exception:
            transport.abortConnection()
            self._result.errback(Failure())
        else:
            self._result.callback(inner)

    def refused(self, fault: str, untrusted: bool) -> None:
        """See `tls_transport.HandshakeListener`."""
        if self._over:
            return
        # The session may be the reason: the next connection makes a full handshake.
        self._endpoint.sessions.clear()
        self._fail(Failure(UntrustedError(fault) if untrusted else HandshakeError(fault)))

    def _late(self) -> None:
        transport = self._transport
        late = HandshakeTimeout(string=f"no TLS handshake within {self._endpoint.timeout:g} seconds")
        self._fail(Failure(late))
        if transport is not None:
            transport.abortConnection()

    def _fail(self, failure: Failure) -> None:
        if self._end():
            self._result.errback(failure)

    def _cancelled(self, result: Deferred[Any]) -> None:
        connecting, transport = self._connecting, self._transport
        self._end()
        if transport is not None:
            transport.abortConnection()
        elif connecting is not None:
            connecting.cancel()
        result.errback(CancelledError())
