"""TLS towards services: the endpoint that verifies who answers (RFC 9110 section 4.3.4)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from OpenSSL import SSL, crypto
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import (
    Certificate,
    KeyPair,
    PrivateCertificate,
    TLSVersion,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)

_BEGIN = b"-----BEGIN CERTIFICATE-----"


def tls_endpoint(
    plain: IStreamClientEndpoint,
    host: str,
    ca: Path | None,
    client_cert: Path | None,
    client_key: Path | None,
) -> IStreamClientEndpoint:
    """TLS 1.2 or newer over `plain`, to a service that must prove to be `host`.

    `ca` is a file of PEM certificates to trust instead of the system's. With `client_cert` the gateway shows
    its own certificate, whose key is in `client_key` or beside it. Raises ValueError for unusable files.
    """
    own = None
    if client_cert is not None:
        own = _own_certificate(client_cert, client_key or client_cert)
    options = optionsForClientTLS(
        host,
        trustRoot=platformTrust() if ca is None else _authorities(ca),
        clientCertificate=own,
        extraCertificateOptions={"raiseMinimumTo": TLSVersion.TLSv1_2},
    )
    return wrapClientTLS(options, plain)


def _authorities(ca: Path) -> Any:
    parts = ca.read_bytes().split(_BEGIN)[1:]
    if not parts:
        raise ValueError(f"{ca}: no certificate in it; write PEM certificates of the authorities to trust")
    return trustRootFromCertificates([Certificate.loadPEM(_BEGIN + part) for part in parts])


def _own_certificate(certificate: Path, key: Path) -> PrivateCertificate:
    try:
        pair = KeyPair.load(key.read_bytes(), crypto.FILETYPE_PEM)
        own: PrivateCertificate = PrivateCertificate.fromCertificateAndKeyPair(
            Certificate.loadPEM(certificate.read_bytes()), pair
        )
        return own
    except (crypto.Error, SSL.Error) as error:
        raise ValueError(f"{certificate}: not a certificate with its key: {error}") from None
