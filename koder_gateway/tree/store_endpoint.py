"""TLS towards the store of limits: what the log says where there is none names the keys of the store."""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from ..upstream.tls_endpoint import HandshakeError, HandshakeTimeout, SecureEndpoint, UntrustedError
from ..upstream.trust import Trust

# A server that speaks no TLS waits for more, so this must end before whoever waits for the connection gives it up.
_IN_TIME: Final = 0.9
# How faults of services are called, and what they are here.
_WORDS: Final = (
    (
        "correct url or server_name, or the service's certificate",
        "correct limits_store.url, or the store's certificate",
    ),
    (
        "set `ca` to the authority that issued it, or have the service",
        "set limits_store.ca to its issuer, or have the store",
    ),
    ("write http://, or the port", "write redis://, or the port"),
    ("correct url or server_name", "correct limits_store.url"),
    ("set client_cert and client_key", "set tls-auth-clients no there"),
)


@implementer(IStreamClientEndpoint)
class SecureStoreEndpoint:
    """A `SecureEndpoint` for the store: its arguments, without a protocol. Fails as that does, in other words."""

    def __init__(
        self, reactor: Any, plain: IStreamClientEndpoint, identity: str, trust: Trust, timeout: float
    ) -> None:
        self._secure = SecureEndpoint(reactor, plain, identity, trust, timeout * _IN_TIME, protocol=b"")

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """See IStreamClientEndpoint."""
        return self._secure.connect(protocolFactory).addErrback(_in_words_of_the_store)


def _in_words_of_the_store(failure: Failure) -> Failure:
    error = failure.value
    if isinstance(error, HandshakeTimeout):
        return Failure(HandshakeTimeout(string=f"{error}; a port without TLS needs redis://"))
    if not isinstance(error, HandshakeError):
        return failure
    text = str(error)
    for service, store in _WORDS:
        text = text.replace(service, store)
    return Failure(UntrustedError(text) if isinstance(error, UntrustedError) else HandshakeError(text))
