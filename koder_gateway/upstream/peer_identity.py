"""The name that a service's certificate must have, and what the log says where it has not (RFC 9110 section 4.3.4,
RFC 9525)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any, Final

from cryptography import x509
from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import extract_patterns
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity

from ..tls_bio.records import ffi, lib

# Of a certificate's names, and of the characters of each, so many stand in a line of the log.
_NAMES: Final = 5
_LONGEST: Final = 80
# OpenSSL's numbers for what is wrong with a chain (X509_V_ERR_*): what an operator can do about it.
_NO_ISSUER: Final = frozenset((2, 18, 19, 20, 21))
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_FOR_ISSUERS: Final = "set `ca` to the authority that issued it, or have the service send its whole chain"


class PeerVerification:
    """What the verification of one connection has found. `fault` is "" while nothing is wrong; `proven`: the service
    has shown a certificate with the right name, now or when the session began that this connection resumes."""

    __slots__ = ("fault", "proven")

    def __init__(self, proven: bool) -> None:
        self.fault = ""
        self.proven = proven


class PeerIdentity:
    """The name that a service must prove to have: a host name, or an IP address.

    Raises ValueError for what can be neither.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        try:
            ipaddress.ip_address(name)
            self._wanted: Any = IPAddress_ID(name)
            self.server_name = b""
        except ValueError:
            self._wanted = DNS_ID(name)
            self.server_name = name.encode("ascii")

    def judge(self, connection: SSL.Connection, shown: Any, error: int, depth: int, good: int) -> bool:
        """OpenSSL's question about each certificate of a chain, the service's own last. The connection's app data
        is the `PeerVerification` that this fills in; no is answered with an alert by OpenSSL itself."""
        verdict = connection.get_app_data()
        try:
            certificate = shown.to_cryptography()
            if not good:
                verdict.fault = self._chain_fault(certificate, error, depth)
            elif depth == 0:
                verdict.fault = self._name_fault(certificate)
                verdict.proven = not verdict.fault
        except Exception as failure:
            # Whatever a hostile certificate makes its parsers raise: it proves nothing.
            verdict.fault = f'expected "{self.name}"; its certificate cannot be read: {_printable(str(failure))}'
        return not verdict.fault

    def _name_fault(self, certificate: x509.Certificate) -> str:
        try:
            verify_service_identity(extract_patterns(certificate), [self._wanted], [])
        except (VerificationError, CertificateError):
            return (
                f'expected "{self.name}", but its certificate is for {_names(certificate)};'
                " correct url or server_name, or the service's certificate"
            )
        return ""

    def _chain_fault(self, certificate: x509.Certificate, error: int, depth: int) -> str:
        whose = "its certificate" if depth == 0 else "the certificate of its authority"
        if error == _EXPIRED:
            why = f"expired on {certificate.not_valid_after_utc:%Y-%m-%d}; renew it"
        elif error == _NOT_YET_VALID:
            why = f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}; check both clocks"
        else:
            advice = f"; {_FOR_ISSUERS}" if error in _NO_ISSUER else ""
            why = f"is not trusted: {_openssl_says(error)}{advice}"
        issuer = _common_name(certificate.issuer)
        return f'expected "{self.name}"; {whose} (for {_names(certificate)}, issued by {issuer}) {why}'


def _openssl_says(error: int) -> str:
    describe = getattr(lib, "X509_verify_cert_error_string", None)
    if describe is None or ffi is None:
        return f"OpenSSL's verification error {error}"
    return str(ffi.string(describe(error)).decode("ascii", "replace"))


def _names(certificate: x509.Certificate) -> str:
    names = list(_alternatives(certificate)) or [_common_name(certificate.subject) + " (no subjectAltName)"]
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more


def _alternatives(certificate: x509.Certificate) -> Iterator[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    for name in names.get_values_for_type(x509.DNSName):
        yield f'"{_printable(name)}"'
    for address in names.get_values_for_type(x509.IPAddress):
        yield f'"{address}"'


def _common_name(name: x509.Name) -> str:
    attributes = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return f'"{_printable(str(attributes[0].value))}"' if attributes else "an unnamed authority"


def _printable(text: str) -> str:
    """Untrusted text for a line of the log: short, on one line, without a quote that would end it early."""
    plain = "".join(c if c.isascii() and c.isprintable() and c != '"' else "?" for c in text[:_LONGEST])
    return plain + ("..." if len(text) > _LONGEST else "")
