"""Authorities and their certificates, made for one test: trustme's where they are good, and each kind of bad one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in two files and in one."""

    certificate: Path
    key: Path
    both: Path


class Authority:
    """Issues certificates. `path` is the file of its own one, in PEM."""

    def __init__(
        self,
        folder: Path,
        name: str = "Test CA",
        *,
        issuer: Authority | None = None,
        start: float | None = None,
        days: float = 90,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> None:
        """`name` is its organizational unit; `issuer` vouches for it, without one it does so itself.

        With `start` it is valid from then for `days`, in days from now, by the private key `key` where one is given;
        `name` is then its common name.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        if start is None:
            above = issuer and issuer._ca
            self._ca = trustme.CA(parent_cert=above, organization_unit_name=name, organization_name="koder-gateway")
        else:
            self._ca = _authority_of(name, start, days, key or ec.generate_private_key(ec.SECP256R1()))
        self.certificate = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes())
        self.path = folder / f"{name.replace(' ', '-').lower()}.pem"
        self._ca.cert_pem.write_to_path(self.path)

    @property
    def key(self) -> ec.EllipticCurvePrivateKey:
        """Its private key."""
        key = serialization.load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key

    def subordinate(self, name: str) -> Authority:
        """An authority that this one vouches for."""
        return Authority(self._folder / "below", name, issuer=self)

    def issue(
        self,
        *names: str,
        start: float = -1.0,
        days: float = 90.0,
        rsa: bool = False,
        label: str = "",
        path: Path | None = None,
    ) -> Pair:
        """A certificate for these names and addresses, in files called `label` or after the first name, or in `path`.

        Valid from `start` for `days`, both in days from now; its key is of ECDSA, or with `rsa` of RSA.
        """
        begins = _from_now(start)
        made = self._ca.issue_cert(
            *names,
            common_name=names[0][:64],
            not_before=begins,
            not_after=begins + timedelta(days=days),
            key_type=trustme.KeyType.RSA if rsa else trustme.KeyType.ECDSA,
        )
        (certificate,) = [each.bytes() for each in made.cert_chain_pems[:1]]
        return self._write(label or names[0], path, certificate, made.private_key_pem.bytes())

    def issue_odd(
        self,
        *names: str,
        use: x509.ObjectIdentifier | None = None,
        start: float = -1.0,
        days: float = 30.0,
        padding: int = 0,
        posing_as: Authority | None = None,
        label: str = "",
        path: Path | None = None,
    ) -> Pair:
        """A certificate as trustme makes none: only for one `use`, without a name, or for what is none.

        `padding` makes it larger, in bytes. `posing_as`: it says that this authority's key has signed it.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        said = (posing_as or self).key.public_key()
        builder = _builder(_name((names or ("nameless",))[0][:64]), self.certificate.subject, key, start, days)
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(said), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        if names:
            alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
            builder = builder.add_extension(alternatives, critical=False)
        if use is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        if padding:
            comment = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\0" * padding)
            builder = builder.add_extension(comment, critical=False)
        certificate = builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        return self._write(label or (names or ("nameless",))[0], path, certificate, _pem(key))

    def _write(self, label: str, path: Path | None, certificate: bytes, key: bytes) -> Pair:
        stem = self._folder / label.replace("*", "any").replace(":", "-")
        both = path or stem.with_name(stem.name + ".pem")
        pair = Pair(stem.with_name(stem.name + ".crt"), stem.with_name(stem.name + ".key"), both)
        both.parent.mkdir(parents=True, exist_ok=True)
        pair.certificate.write_bytes(certificate)
        pair.key.write_bytes(key)
        pair.both.write_bytes(key + certificate)
        return pair


def der(path: Path) -> bytes:
    """The first certificate of a file, in DER."""
    return x509.load_pem_x509_certificates(path.read_bytes())[0].public_bytes(serialization.Encoding.DER)


def write_certificate(folder: Path, *names: str) -> Path:
    """A key and a self-signed certificate for these names in one PEM file, which clients can trust as well."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    builder = _builder(_name(names[0]), _name(names[0]), key, -1, 91).add_extension(alternatives, critical=False)
    path = folder / "default.pem"
    path.write_bytes(_pem(key) + builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return path


def _authority_of(name: str, start: float, days: float, key: ec.EllipticCurvePrivateKey) -> trustme.CA:
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    builder = _builder(_name(name), _name(name), key, start, days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    signed = builder.add_extension(usage, critical=True).sign(key, hashes.SHA256())
    return trustme.CA.from_pem(signed.public_bytes(serialization.Encoding.PEM), _pem(key))


def _from_now(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, start: float, days: float
) -> x509.CertificateBuilder:
    begins = _from_now(start)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
