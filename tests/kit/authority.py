"""A certificate authority for tests: issues servers' and clients' certificates, good ones and bad ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | RSAPrivateKey
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


class Authority:
    """Issues from a key of its own. `pem` is its certificate's file."""

    def __init__(
        self,
        folder: Path,
        name: str = "Test CA",
        *,
        issuer: Authority | None = None,
        start: float = -1,
        days: float = 90,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> None:
        """`issuer` vouches for it; without one it does so itself. Valid from `start` for `days`, in days from now.
        `key` is its own where it is not to be a new one."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        above = issuer or self
        ca = x509.BasicConstraints(ca=True, path_length=None)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = _builder(self._subject, above._subject, self.key, start, days)
        builder = builder.add_extension(ca, critical=True).add_extension(usage, critical=True)
        self.certificate = builder.sign(above.key, hashes.SHA256())
        self.pem = folder / f"{name.replace(' ', '-').lower()}.pem"
        self.pem.write_bytes(_pem(self.certificate))

    def issue(
        self,
        *names: str,
        use: x509.ObjectIdentifier = SERVER,
        start: float = -1,
        days: float = 30,
        path: Path | None = None,
        padding: int = 0,
        rsa: bool = False,
        posing_as: Authority | None = None,
    ) -> Path:
        """Key and certificate in one file, `path` or a file named after the first name.

        Valid from `start` for `days`, both in days from now. `padding` makes the certificate larger, in bytes;
        its key is of ECDSA, or with `rsa` of RSA. `posing_as`: it says that this authority's key has signed it.
        """
        key: Key = generate_private_key(65537, 2048) if rsa else ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        builder = _builder(subject, self._subject, key, start, days)
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
        ).add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        if padding:
            comment = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\0" * padding)
            builder = builder.add_extension(comment, critical=False)
        said = (posing_as or self).key.public_key()
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(said)
        builder = builder.add_extension(issuer, critical=False)
        issued = builder.sign(self.key, hashes.SHA256())
        path = path or self._folder / f"{names[0].replace('*', '_')}.pem"
        path.parent.mkdir(parents=True, exist_ok=True)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_bytes(private + _pem(issued))
        return path


def der(path: Path) -> bytes:
    """The first certificate of a file, in DER."""
    return x509.load_pem_x509_certificates(path.read_bytes())[0].public_bytes(serialization.Encoding.DER)


def _builder(subject: x509.Name, issuer: x509.Name, key: Key, start: float, days: float) -> x509.CertificateBuilder:
    begins = datetime.now(UTC) + timedelta(days=start)
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


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
