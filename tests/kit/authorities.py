"""Authorities and their certificates, made for one test: good ones, and each kind of bad one."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in two files and in one."""

    certificate: Path
    key: Path
    both: Path


class Authority:
    """Issues certificates. `path` is its own one, in PEM."""

    def __init__(self, folder: Path, name: str = "Test Authority", issuer: Authority | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.path = folder / f"{name.replace(' ', '-').lower()}.pem"
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        above = issuer or self
        certificate = above._builder(self._name, self._key, 0.0).add_extension(constraints, critical=True)
        signed = certificate.sign(above._key, hashes.SHA256())
        self.path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def subordinate(self, name: str) -> Authority:
        """An authority that this one vouches for."""
        return Authority(self._folder / "below", name, self)

    def issue(self, *names: str, since: float = -1.0, days: float = 90.0, label: str = "") -> Pair:
        """A certificate for these names and addresses; `since`: days from now at which it becomes valid."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, (names or ("nameless",))[0][:64])])
        builder = self._builder(subject, key, since + 1, days)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False
            )
        certificate = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        stem = self._folder / (label or (names[0] if names else "nameless").replace("*", "any").replace(":", "-"))
        pair = Pair(stem.with_suffix(".crt"), stem.with_suffix(".key"), stem.with_suffix(".pem"))
        pair.certificate.write_bytes(certificate)
        pair.key.write_bytes(_pem(key))
        pair.both.write_bytes(_pem(key) + certificate)
        return pair

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, since: float, days: float = 90.0
    ) -> x509.CertificateBuilder:
        begin = datetime.now(UTC) + (since - 1) * DAY
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + days * DAY)
        )
