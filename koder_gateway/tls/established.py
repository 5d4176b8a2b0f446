"""What TLS has established on a connection, as the policies need it: names, server name, client.

Read from OpenSSL's own state, so that it is right for every transport: the gateway's, Twisted's, and those of another
application's Site.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakKeyDictionary

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.internet.interfaces import ISSLTransport

from ..policy.certificates import CertificateNames, TlsInfo
from .client_auth import authorities_of

# How many values are kept for clients that come again, or that ask for the same name.
_REMEMBERED: Final = 1024
_NOTHING: Final = TlsInfo()
_ELSEWHERE: Final = object()


@dataclass(frozen=True, slots=True)
class _Served:
    """What a context says of all its connections: the certificate's names, and the digest of the authorities that
    verify clients, b"" for none."""

    names: CertificateNames
    authorities: bytes


# One entry for each context in use, dropped with it: a renewed certificate has its own context.
_served: WeakKeyDictionary[SSL.Context, _Served] = WeakKeyDictionary()
# What is established with clients that show no certificate, by the names, the server name and the version.
_known: dict[tuple[CertificateNames, bytes, int], TlsInfo] = {}


def established(transport: Any) -> TlsInfo | None:
    """What TLS has established on a transport; None without TLS, and empty before the end of the handshake. The same
    object for the same values, where the client is not verified."""
    if not ISSLTransport.providedBy(transport):
        return None
    connection = _connection(transport)
    if connection is None:
        return _NOTHING
    served = _served.get(connection.get_context()) or _serve(connection)
    if served.authorities:
        return _verified(connection, served)
    key = (served.names, _server_name(connection), connection.get_protocol_version())
    info = _known.get(key)
    if info is None:
        if len(_known) >= _REMEMBERED:
            del _known[next(iter(_known))]
        info = _known[key] = TlsInfo(served.names, key[1], version=_version(connection))
    return info


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


def _serve(connection: SSL.Connection) -> _Served:
    context = connection.get_context()
    served = _served[context] = _Served(CertificateNames(_read_names(connection)), authorities_of(context))
    return served


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


def _version(connection: SSL.Connection) -> bytes:
    return connection.get_protocol_version_name().encode("ascii")


def _verified(connection: SSL.Connection, served: _Served) -> TlsInfo:
    """With the client's certificate, if it has shown one. Without `authorities` it is verified by other rules, or not
    at all: not what `Client-Cert` promises."""
    certificate = connection.get_peer_certificate(as_cryptography=True)
    if certificate is None:
        client = authorities = b""
    else:
        client, authorities = certificate.public_bytes(Encoding.DER), served.authorities
    return TlsInfo(served.names, _server_name(connection), client, authorities, _version(connection))
