"""The ports that the gateway listens on: all are bound or none, and each fault is one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from OpenSSL import SSL, crypto
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.python.failure import Failure

from ..reactor.adopted_sockets import endpoint_of

# What the parsers of Twisted and its plugins raise for wrong strings, and OpenSSL for the keys they name.
UNREADABLE: Final = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    OSError,
    SSL.Error,
    crypto.Error,
)


class ListenError(Exception):
    """Ports that cannot be bound; a line for each says what to change."""


class Listeners:
    """The listening ports of one kind.

    `endpoint` makes the endpoint of a string; it raises ListenError or one of the errors of Twisted's parsers.
    """

    def __init__(self, endpoint: Callable[[str], IStreamServerEndpoint]) -> None:
        self._endpoint = endpoint
        self._ports: list[IListeningPort] = []

    def bind(self, texts: Sequence[str], factory: IProtocolFactory) -> list[str]:
        """Listen on each endpoint string. Returns the faults, one line each."""
        faults: list[str] = []
        for text in texts:
            try:
                endpoint = self._endpoint(text)
            except ListenError as error:
                faults.extend(str(error).splitlines())
                continue
            except UNREADABLE as error:
                faults.append(unparsable(text, error))
                continue
            self._listen(text, endpoint, factory, faults)
        return faults

    def _listen(
        self, text: str, endpoint: IStreamServerEndpoint, factory: IProtocolFactory, faults: list[str]
    ) -> None:
        def failed(failure: Failure) -> None:
            faults.append(f'endpoint "{text}": cannot listen: {failure.getErrorMessage()}')

        deferred: Deferred[Any] = maybeDeferred(endpoint.listen, factory)
        deferred.addCallbacks(self._ports.append, failed)

    @property
    def addresses(self) -> list[Any]:
        """The addresses of the listening ports."""
        return [port.getHost() for port in self._ports]

    def close(self) -> Deferred[Any]:
        """Stop listening; fires when every port is closed."""
        ports, self._ports = self._ports, []
        return DeferredList([maybeDeferred(port.stopListening) for port in ports], consumeErrors=True)


def plain_endpoint(reactor: Any) -> Callable[[str], IStreamServerEndpoint]:
    """Twisted's own parser of endpoint strings, for ports that are not public."""
    return lambda text: endpoint_of(reactor, text)


def unparsable(text: str, error: Exception) -> str:
    """The line for an endpoint string that cannot be parsed."""
    reason = str(error) or type(error).__name__
    if isinstance(error, LookupError):
        reason = "no such descriptor was inherited, so start the gateway by its socket unit"
    return f'endpoint "{text}": {reason}; write it as in "tcp:9090:interface=127.0.0.1"'
