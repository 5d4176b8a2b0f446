"""Files in a certificates' folder that are not a certificate with its key, and need not be: issuers' certificates,
parameters, requests, and second copies of what is served.

A file is only ignored if its contents show clearly what it is. A certificate whose key is missing stays a fault,
since its names may be served by no other; so does a key that does not match its certificate.
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
from .folder import CertificateFiles

_LABEL: Final = re.compile(rb"-----BEGIN ([A-Z0-9 .]+)-----")
# PEM contents that are never served (RFC 7468), by their label.
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
class UnpairedFile:
    """One half of a pair in a file. `names` and `expires` are those of a certificate without its key, `key` is the
    public key of either half; without a key it is nothing that could be served."""

    path: str
    certificate: bool = False
    key: bytes = b""
    names: tuple[str, ...] = ()
    expires: float = 0.0
    size: int = 0

    def covered(self, served: Iterable[CertificateFile]) -> bool:
        """Whether all names that it could be for are already served, for at least as long."""
        if not self.certificate:
            return any(self.key == public_key_der(each.leaf) for each in served)
        longest: dict[str, float] = {}
        for each in served:
            longest.update((name, max(each.expires, longest.get(name, 0.0))) for name in each.names)
        return bool(self.names) and all(longest.get(name, 0.0) >= self.expires for name in self.names)


def unpaired_file(source: CertificateFiles) -> UnpairedFile | None:
    """The half that a source contains, if it clearly is not a pair; None if it may be one, or if that is unclear."""
    path = source.only_file() if source.loose else None
    return None if path is None else _half_in(path)


def _half_in(path: str) -> UnpairedFile | None:
    try:
        data = read_file(Path(path))
        labels = set(_LABEL.findall(data))
        if not labels:
            return None
        if labels <= _IDLE:
            return UnpairedFile(path)
        keyed = any(label.endswith(b"PRIVATE KEY") for label in labels)
        if (b"CERTIFICATE" in labels) is keyed:
            return None
        if keyed:
            return UnpairedFile(path, key=public_key_der(read_key(Path(path), data)))
        chain = certificates_in(data)
        if all(map(_issues, chain)):
            return UnpairedFile(path)
        leaf = chain[0]
        return UnpairedFile(
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


def separated_pairs(halves: Iterable[UnpairedFile]) -> Iterator[tuple[list[UnpairedFile], str]]:
    """Certificates and keys that match, but are in files whose names do not: all of these files, and the line to
    report. The line is about the first file."""
    by_key: dict[bytes, list[UnpairedFile]] = {}
    for half in halves:
        by_key.setdefault(half.key, []).append(half)
    for key, group in by_key.items():
        # The longest file has the issuers as well.
        chains = sorted((half for half in group if half.certificate), key=lambda half: (-half.size, half.path))
        keys = sorted(half.path for half in group if not half.certificate)
        if key and chains and keys:
            line = (
                f"{chains[0].path}: its private key is in {keys[0]}, but their names do not match;"
                " rename them to NAME.crt and NAME.key, or put both into NAME.pem"
            )
            yield [*chains, *(half for half in group if not half.certificate)], line
