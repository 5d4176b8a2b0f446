"""Files beside certificates that are no certificate with its key, and were not meant to be: issuers' certificates,
parameters, requests, and second copies of what is served.

Only what is clear from its contents is left alone. A certificate whose key is nowhere stays a fault, for the names
that it is for may be served by nobody; so does a key that is not the certificate's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509

from ..files.pem import certificates_in, public_key_der
from .certificates import CertificateError, CertificateFile, dns_names, read_file, read_key
from .folder import Source

_LABEL: Final = re.compile(rb"-----BEGIN ([A-Z0-9 .]+)-----")
# What nothing is served with (RFC 7468), by how it begins in PEM.
_IDLE: Final = frozenset(
    (
        b"DH PARAMETERS",
        b"X9.42 DH PARAMETERS",
        b"EC PARAMETERS",
        b"DSA PARAMETERS",
        b"CERTIFICATE REQUEST",
        b"NEW CERTIFICATE REQUEST",
        b"X509 CRL",
        b"PUBLIC KEY",
        b"RSA PUBLIC KEY",
    )
)


@dataclass(frozen=True, slots=True)
class Half:
    """What a file has that is no pair. `names` and `expires` are those of a certificate without its key, `key` the
    public key of either half; no key: nothing that could be served."""

    path: str
    certificate: bool = False
    key: bytes = b""
    names: tuple[str, ...] = ()
    expires: float = 0.0
    size: int = 0

    def covered(self, served: Iterable[CertificateFile]) -> bool:
        """Whether all that it could be for is served already, for as long at least."""
        if not self.certificate:
            return any(self.key == public_key_der(each.leaf) for each in served)
        longest: dict[str, float] = {}
        for each in served:
            longest.update((name, max(each.expires, longest.get(name, 0.0))) for name in each.names)
        return bool(self.names) and all(longest.get(name, 0.0) >= self.expires for name in self.names)


def half_of(source: Source) -> Half | None:
    """What is there of a source whose certificate cannot be read, if that is clearly no pair; None where it is one,
    or cannot be told."""
    path = source.only_file() if source.loose else None
    return None if path is None else _half_in(path)


def _half_in(path: str) -> Half | None:
    try:
        data = read_file(Path(path))
        labels = set(_LABEL.findall(data))
        if not labels:
            return None
        if labels <= _IDLE:
            return Half(path)
        keyed = any(label.endswith(b"PRIVATE KEY") for label in labels)
        if (b"CERTIFICATE" in labels) is keyed:
            return None
        if keyed:
            return Half(path, key=public_key_der(read_key(Path(path), data)))
        chain = certificates_in(data)
        if all(map(_issues, chain)):
            return Half(path)
        leaf = chain[0]
        return Half(
            path, True, public_key_der(leaf), dns_names(leaf), leaf.not_valid_after_utc.timestamp(), len(data)
        )
    except (CertificateError, ValueError):
        return None


def _issues(certificate: x509.Certificate) -> bool:
    """Whether a certificate says that it is an authority's (RFC 5280 section 4.2.1.9)."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False


def parted(halves: Iterable[Half]) -> Iterator[tuple[list[Half], str]]:
    """Of a certificate and its key that lie in files of names that do not belong together: all of those files, and
    the line that says so. The first one is the file that the line is about."""
    by_key: dict[bytes, list[Half]] = {}
    for half in halves:
        by_key.setdefault(half.key, []).append(half)
    for key, group in by_key.items():
        # The longest has the issuers as well.
        chains = sorted((half for half in group if half.certificate), key=lambda half: (-half.size, half.path))
        keys = sorted(half.path for half in group if not half.certificate)
        if key and chains and keys:
            line = (
                f"{chains[0].path}: its private key is in {keys[0]}, but their names do not match;"
                " rename them to NAME.crt and NAME.key, or put both into NAME.pem"
            )
            yield [*chains, *(half for half in group if not half.certificate)], line
