"""The certificate that the gateway itself shows, as server and as client."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from OpenSSL import SSL

from .openssl_errors import refusal_of


def use_pair(context: SSL.Context, leaf: x509.Certificate, key: PrivateKeyTypes) -> None:
    """Put a certificate and its key on a context. Raises ValueError, which says why OpenSSL refuses it."""
    try:
        context.use_certificate(leaf)
        context.use_privatekey(key)  # type: ignore[arg-type]  # refused below where not supported
        context.check_privatekey()
    except (SSL.Error, TypeError, ValueError) as error:
        raise ValueError(
            f"OpenSSL refuses it: {refusal_of(error)}; have it issued for an ECDSA P-256 key, or an RSA one of 2048"
            " bits or more"
        ) from None
