"""Keys, requests for certificates, and what is made of the certificates that come: all in PEM."""

from __future__ import annotations

import base64
import datetime
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtensionOID, NameOID

from ..files.pem import PemError, certificates_in, private_key_in, public_key_der

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_RSA_BITS: Final = 2048
_RSA_EXPONENT: Final = 65537
# RFC 8737 section 3: the extension that a certificate for the challenge has, and nothing else does.
_ACME_IDENTIFIER: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
_OCTET_STRING: Final = b"\x04\x20"
# A challenge is answered within minutes; clocks differ.
_LIFE: Final = datetime.timedelta(days=2)

# Certificates of one file: each handshake sends them, and clients take about ten.
MAX_CHAIN: Final = 10
# Seconds that an authority's clock may be ahead.
_EARLY: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Issued:
    """What a certificate says of itself; times are seconds since the epoch. `ari` is how the authority calls it (RFC
    9773 section 4.1), "" for one without the parts of that."""

    issuer: str
    not_before: float
    not_after: float
    ari: str


class IssuedError(ValueError):
    """What has come is not the certificate that was asked for."""


def new_key(kind: str) -> bytes:
    """A new private key, P-256 for "ecdsa", else RSA."""
    key: Key
    if kind == "ecdsa":
        key = ec.generate_private_key(ec.SECP256R1())
    else:
        key = rsa.generate_private_key(_RSA_EXPONENT, _RSA_BITS)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def is_of_kind(pem: bytes, kind: str) -> bool:
    """Whether a key is of that kind, and can be read."""
    try:
        return isinstance(_key(pem), ec.EllipticCurvePrivateKey) is (kind == "ecdsa")
    except IssuedError:
        return False


def certificate_request(name: str, key: bytes) -> x509.CertificateSigningRequest:
    """The request for a certificate (RFC 8555 section 7.4)."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
    return builder.sign(_key(key), hashes.SHA256())


def with_chain(name: str, key: bytes, chain: bytes, now: float) -> tuple[bytes, Issued]:
    """The key and the chain, as one file has them, and what that says. Raises IssuedError where it is not for this
    name and key, or not valid now."""
    try:
        certificates = certificates_in(chain)
    except PemError as error:
        raise IssuedError(str(error)) from None
    own = certificates[0]
    if public_key_der(own) != public_key_der(_key(key)):
        raise IssuedError("the certificate is for another key")
    if name not in _names(own):
        raise IssuedError("the certificate is for another name")
    issued = described(own)
    if issued.not_before > now + _EARLY:
        raise IssuedError("the certificate is not valid yet; see that this machine's clock is right")
    if len(certificates) > MAX_CHAIN:
        raise IssuedError(f"the certificate comes with a chain of more than {MAX_CHAIN}")
    if issued.not_after <= now:
        raise IssuedError("the certificate has expired; see that this machine's clock is right")
    pieces = [key.strip(), *(each.public_bytes(Encoding.PEM).strip() for each in certificates)]
    return b"\n".join(pieces) + b"\n", issued


def read_issued(pem: bytes) -> Issued | None:
    """What a file of ours says; None for one that cannot be used."""
    try:
        certificates = certificates_in(pem)
        if public_key_der(certificates[0]) != public_key_der(_key(pem)):
            return None
        return described(certificates[0])
    except (PemError, IssuedError):
        return None


def described(certificate: x509.Certificate) -> Issued:
    """What a certificate says."""
    names = certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    names = names or certificate.issuer.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return Issued(
        str(names[0].value) if names else certificate.issuer.rfc4514_string(),
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
        _ari(certificate),
    )


def leaf(pem: bytes) -> x509.Certificate:
    """The first certificate. Raises PemError."""
    return certificates_in(pem)[0]


def challenge_certificate(name: str, authorization: str) -> tuple[bytes, bytes]:
    """What answers tls-alpn-01 for a name (RFC 8737 section 3): a key and a certificate in PEM, and the latter in
    DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    digest = hashes.Hash(hashes.SHA256())
    digest.update(authorization.encode())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "koder-gateway challenge")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LIFE)
        .not_valid_after(now + _LIFE)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.UnrecognizedExtension(_ACME_IDENTIFIER, _OCTET_STRING + digest.finalize()), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private + certificate.public_bytes(Encoding.PEM), certificate.public_bytes(Encoding.DER)


def _key(pem: bytes) -> Key:
    try:
        key = private_key_in(pem, "it must have one", check_primes=False)
    except PemError as error:
        raise IssuedError(str(error)) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise IssuedError("the key is of another kind")
    return key


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return [str(each).lower() for each in extension.value.get_values_for_type(x509.DNSName)]
    except (x509.ExtensionNotFound, ValueError, UnsupportedAlgorithm):
        return []


def _ari(certificate: x509.Certificate) -> str:
    try:
        found = certificate.extensions.get_extension_for_oid(ExtensionOID.AUTHORITY_KEY_IDENTIFIER).value
    except (x509.ExtensionNotFound, ValueError):
        return ""
    identifier = found.key_identifier if isinstance(found, x509.AuthorityKeyIdentifier) else None
    if not identifier:
        return ""
    serial = certificate.serial_number
    # As in DER, where a leading bit would be a sign.
    return f"{_base64url(identifier)}.{_base64url(serial.to_bytes(serial.bit_length() // 8 + 1, 'big'))}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def thumbprint_authorization(token: str, thumbprint: bytes) -> str:
    """The key authorization for a token (RFC 8555 section 8.1); `thumbprint` is that of the account's key."""
    return f"{token}.{_base64url(thumbprint)}"
