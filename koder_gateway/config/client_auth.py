"""`[tls] client_ca` and `client_auth`: the authorities that issue client certificates, and the hosts that ask for
one."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ..files.pem import certificates_in, public_key_der, read_pem
from ..policy.certificates import OPTIONAL, REQUIRED
from .faults import ConfigurationError, Located, ReadError, below, nearest, reason, shown, step
from .kinds import Kind, Where
from .shapes import either, words
from .values import DOMAIN, FILE

_MODES: Final = (OPTIONAL, REQUIRED)
_TABLE: Final = '{ "admin.id.example.com" = "required", "*.partner.example" = "optional" }'
# From then on there is a warning, as for the gateway's own certificates.
_SOON: Final = datetime.timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Authorities:
    """The authorities of client certificates, as read from `path`. `digest` differs for different authorities."""

    path: Path
    certificates: tuple[x509.Certificate, ...]
    digest: bytes

    def warnings(self, now: float) -> Iterator[str]:
        """A line for each authority whose clients are refused, or soon will be, because of the authority's own dates;
        `now` is in seconds since the epoch."""
        moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
        for authority in _foremost(self.certificates, moment):
            begin, end = authority.not_valid_before_utc, authority.not_valid_after_utc
            who = f"{self.path}: the authority {shown(authority.subject.rfc4514_string())}"
            if end <= moment:
                yield f"{who} expired on {end:%Y-%m-%d}, so its clients are refused; put its new certificate there"
            elif begin > moment:
                yield f"{who} is not valid before {begin:%Y-%m-%d}, so its clients are refused; check the clock"
            elif end - moment < _SOON:
                yield (
                    f"{who} expires on {end:%Y-%m-%d}, in less than 30 days, and then its clients are refused;"
                    " put its new certificate there"
                )


def _foremost(certificates: tuple[x509.Certificate, ...], moment: datetime.datetime) -> list[x509.Certificate]:
    """For each authority the certificate that lasts longest, preferably one that is already valid: with that beside
    it, OpenSSL needs no other."""
    foremost: dict[tuple[bytes, bytes], x509.Certificate] = {}
    for each in sorted(
        certificates, key=lambda each: (each.not_valid_before_utc <= moment, each.not_valid_after_utc)
    ):
        foremost[each.subject.public_bytes(), public_key_der(each)] = each
    return list(foremost.values())


def read_authorities(path: Path) -> Authorities:
    """The authorities in a PEM file. Raises ValueError, whose text says what would be right."""
    try:
        certificates = certificates_in(read_pem(path))
    except OSError as error:
        raise ValueError(f"{reason(error)}; write the path of the authorities' PEM file") from None
    try:
        leaves = [certificate for certificate in certificates if not _may_issue(certificate)]
        for each in certificates:
            # Read now, when a fault can be reported: the library parses these attributes lazily.
            _ = each.subject, each.not_valid_before_utc, each.not_valid_after_utc
    except ValueError:
        raise ValueError("has a certificate that cannot be read; copy it again") from None
    if leaves:
        subject = shown(leaves[0].subject.rfc4514_string())
        raise ValueError(
            f"has the certificate of {subject}, which is not a certificate authority; put its"
            " issuer's certificate there"
        )
    digest = hashlib.sha256()
    for encoded in sorted({certificate.public_bytes(Encoding.DER) for certificate in certificates}):
        digest.update(encoded)
    return Authorities(path, certificates, digest.digest())


def _may_issue(certificate: x509.Certificate) -> bool:
    """Whether a certificate is an authority's (RFC 5280 section 4.2.1.9); one of version 1 cannot say so."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return certificate.version is x509.Version.v1


def _read_file(value: object, where: Where) -> Authorities:
    path = FILE.read(value, where)
    try:
        return read_authorities(path)
    except ValueError as error:
        raise ReadError.because(f"{shown(value)}: {error}") from None


def _read_patterns(value: object, where: Where) -> tuple[tuple[str, str], ...]:
    """The (pattern, mode) pairs; a mode alone applies to every host, "" to none."""
    if value == "":
        return ()
    if isinstance(value, str):
        return (("*", _mode(value)),)
    if not isinstance(value, dict):
        raise ReadError.because(
            f'{shown(value)} is neither a mode nor a table of hosts; write "required", "optional", or'
            f" a table: {_TABLE}"
        )
    found: dict[str, str] = {}
    faults: list[Located] = []
    for text, mode in value.items():
        try:
            pattern = _pattern(text, where)
            if pattern in found:
                raise ReadError.because("is the same host again; leave one out")
            found[pattern] = _mode(mode)
        except ReadError as misread:
            faults.extend(below(step(text), misread.faults))
    if faults:
        raise ReadError(faults)
    return tuple(found.items())


def _mode(value: object) -> str:
    if not isinstance(value, str):
        raise ReadError.because(f'{shown(value)} is not a string; write "required" or "optional"')
    if value not in _MODES:
        raise ReadError.because(f"{shown(value)} is not an accepted value; {nearest(value, _MODES)}")
    return value


def _pattern(text: str, where: Where) -> str:
    """A host pattern in the form in which hosts are compared."""
    if text == "*":
        return text
    wildcard = "*." if text.startswith("*.") else ""
    try:
        return wildcard + DOMAIN.read(text.removeprefix("*."), where)
    except ReadError as misread:
        if "*" in text.removeprefix("*."):
            raise ReadError.because(
                'is not a host pattern; write a host, "*." and a domain for its direct subdomains, or "*"'
            ) from None
        raise misread from None


def contradictions(document: dict[str, object]) -> Iterator[Located]:
    """Contradictions between the two keys."""
    tls = document.get("tls")
    if not isinstance(tls, dict):
        return
    if tls.get("client_ca") and not tls.get("client_auth"):
        yield "tls.client_auth", f'is missing, so client_ca has no effect; write "required", "optional" or {_TABLE}'
    if tls.get("client_auth") and not tls.get("client_ca"):
        yield "tls.client_ca", "is missing, and client_auth needs it; write the PEM file of the authorities"


def read_again(authorities: Authorities | None) -> Authorities | None:
    """The present contents of the same file, for settings that come from no file. Raises ConfigurationError."""
    if authorities is None:
        return None
    try:
        return read_authorities(authorities.path)
    except ValueError as error:
        raise ConfigurationError([f"{authorities.path}: {error}"]) from None


AUTHORITIES: Final = Kind("file", _read_file, shape=FILE.shape, located=True)
CLIENT_AUTH: Final = Kind(
    '"optional", "required" or table of hosts',
    _read_patterns,
    shape=either(words("", *_MODES), {"type": "object", "additionalProperties": words(*_MODES)}),
)
