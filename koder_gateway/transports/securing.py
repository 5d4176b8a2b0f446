"""startTLS: inserts a TLS layer between a connected transport and its protocol."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import ISSLTransport, ITCPTransport
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import directlyProvides, implementer

from koder_gateway.transports.flow import Flow, drop

# The methods of the TLS layer that replace the transport's.
_DIVERTED = (
    "write",
    "writeSequence",
    "loseConnection",
    "registerProducer",
    "unregisterProducer",
    "getHandle",
    "getPeerCertificate",
)


@implementer(ITCPTransport)
class _Beneath:
    """The ciphertext side, for the TLS layer, of a transport that now writes plaintext."""

    def __init__(self, transport: Flow) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._transport.connected:
            self._transport._native.write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        if self._transport.connected:
            self._transport._native.writelines(data)

    def loseConnection(self) -> None:
        type(self._transport).loseConnection(self._transport)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        type(self._transport).registerProducer(self._transport, producer, streaming)

    def unregisterProducer(self) -> None:
        type(self._transport).unregisterProducer(self._transport)


def start_tls(transport: Flow, context_factory: Any, client: bool) -> None:
    """Insert TLS, as `client` or server, between `transport` and its protocol.

    `transport` becomes the plaintext side: its methods lead to the TLS layer. A registered producer moves along, so
    that TLS data can pause it too.
    """
    transport.flush()
    producer, streaming = transport.producer, transport.streamingProducer
    if producer is not None:
        transport.unregisterProducer()
    factory = TLSMemoryBIOFactory(context_factory, client, Factory())
    layer = factory.protocol(factory, transport.protocol, False)
    transport.protocol = layer
    transport.TLS = True
    for name in _DIVERTED:
        setattr(transport, name, getattr(layer, name))
    directlyProvides(transport, ISSLTransport)
    layer.makeConnection(_Beneath(transport))
    if producer is not None:
        transport.registerProducer(producer, streaming)


def break_cycle(transport: Flow) -> None:
    """The connection is lost: break the cycle between the transport and its TLS layer."""
    for name in _DIVERTED:
        delattr(transport, name)
    transport.write = drop
