"""What TLS has established on a connection, as the policies need it: names, server name, client.

Read from OpenSSL's own state, so that it is right for every transport: the gateway's, Twisted's, and those of another
application's Site.
"""

from __future__ import annotations

from typing import Any, Final
from weakref import WeakKeyDictionary

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.internet.interfaces import ISSLTransport

from ..policy.certificates import CertificateNames, TlsInfo
from .client_auth import authorities_of

# One entry for each context in use, dropped with it: a renewed certificate has its own context.
_names: WeakKeyDictionary[SSL.Context, CertificateNames] = WeakKeyDictionary()
_NOTHING: Final = TlsInfo()
_ELSEWHERE: Final = object()


def established(transport: Any) -> TlsInfo | None:
    """What TLS has established on a transport; None without TLS, and empty before the end of the handshake."""
    if not ISSLTransport.providedBy(transport):
        return None
    connection = _connection(transport)
    if connection is None:
        return _NOTHING
    client, authorities = _client(connection)
    version = connection.get_protocol_version_name().encode("ascii")
    return TlsInfo(_served_names(connection), _server_name(connection), client, authorities, version)


def _connection(transport: Any) -> SSL.Connection | None:
    """OpenSSL's state of a transport, if it is accessible."""
    try:
        # The gateway's transports provide it; the handle of Twisted's is just that.
        connection = getattr(transport, "tls_connection", _ELSEWHERE)
        if connection is _ELSEWHERE:
            connection = transport.getHandle()
    except AttributeError:
        return None
    return connection if isinstance(connection, SSL.Connection) else None


def _served_names(connection: SSL.Connection) -> CertificateNames:
    context = connection.get_context()
    names = _names.get(context)
    if names is None:
        names = _names[context] = CertificateNames(_read_names(connection))
    return names


def _read_names(connection: SSL.Connection) -> list[str]:
    """The DNS names of the certificate that the server has shown."""
    leaf = connection.get_certificate()
    if leaf is None:
        return []
    try:
        extension = leaf.to_cryptography().extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return []
    return extension.value.get_values_for_type(x509.DNSName)


def _server_name(connection: SSL.Connection) -> bytes:
    return (connection.get_servername() or b"").lower().removesuffix(b".")


def _client(connection: SSL.Connection) -> tuple[bytes, bytes]:
    """The client's certificate in DER, and the digest of the authorities that verified it."""
    authorities = authorities_of(connection.get_context())
    if not authorities:
        # Verified by other rules, or not at all: not what `Client-Cert` promises.
        return b"", b""
    certificate = connection.get_peer_certificate(as_cryptography=True)
    if certificate is None:
        return b"", b""
    return certificate.public_bytes(Encoding.DER), authorities
