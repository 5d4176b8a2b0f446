"""Certificates and their keys: read from an operator's files, or made here where there are none.

`load_folder` reads a folder of certificates, `load_pair` one named pair, `self_signed` makes and keeps the
one that serves until the operator has a real one. What is wrong with a file is a line of text that names
the file.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes, PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = 86_400.0
# Browsers refuse more than 398 days of validity; one day is left for the start in the past.
SELF_SIGNED_DAYS = 397
RENEW_BEFORE = 30 * DAY
_CLOCK_SKEW = 3_600.0


class CertificateError(Exception):
    """Certificates that cannot be used; `faults` has one line for each file, and so has the text."""

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class CertificateFile:
    """A certificate chain (leaf first) with the leaf's private key.

    `name` is what the operator calls it, `path` the file that a message about it should name.
    """

    name: str
    path: Path
    chain: tuple[x509.Certificate, ...]
    key: PrivateKeyTypes

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate that the clients are shown first."""
        return self.chain[0]

    @property
    def names(self) -> tuple[str, ...]:
        """The DNS names that the leaf is for, lower-case, wildcards included (RFC 6125 section 6.4)."""
        return tuple(name.lower() for name in _alternatives(self.leaf).get_values_for_type(x509.DNSName))

    @property
    def expires(self) -> float:
        """When the leaf ceases to be valid, in seconds since the epoch."""
        return self.leaf.not_valid_after_utc.timestamp()

    @property
    def fingerprint(self) -> str:
        """The leaf's SHA-256 fingerprint, as browsers and openssl print it."""
        return self.leaf.fingerprint(hashes.SHA256()).hex(":").upper()

    def doubts(self, now: float) -> Iterator[str]:
        """Why clients are going to refuse it although it is whole; `now` is in seconds since the epoch."""
        if self.expires <= now:
            yield f"{self.path}: expired on {self.leaf.not_valid_after_utc:%Y-%m-%d}; renew it"
        elif self.leaf.not_valid_before_utc.timestamp() > now:
            yield f"{self.path}: not valid before {self.leaf.not_valid_before_utc:%Y-%m-%d}; check the clock"
        if not self.names:
            yield f"{self.path}: has no DNS name, so clients refuse it; have it issued with a subjectAltName"


@dataclass(frozen=True, slots=True)
class Folder:
    """What a folder of certificates holds: those that can be served, and a line for each fault.

    `faults` are files that cannot be used at all; `warnings` are certificates that are served although the
    clients are going to refuse them: one expired certificate must not keep the other tenants out.
    """

    certificates: tuple[CertificateFile, ...]
    faults: tuple[str, ...]
    warnings: tuple[str, ...]


def load_folder(folder: Path, now: float) -> Folder:
    """Read every certificate of a folder, in the order of their names; `now` is in seconds since the epoch.

    Taken are NAME.pem (key and chain), NAME.key with NAME.crt, and certbot's NAME/privkey.pem with
    NAME/fullchain.pem, in the folder itself or in its `live`. Raises nothing: an unreadable folder is a
    fault.
    """
    certificates: list[CertificateFile] = []
    faults: list[str] = []
    warnings: list[str] = []
    try:
        sources = sorted(_sources(folder))
    except OSError as error:
        return Folder((), (f"{folder}: {_reason(error)}; name a folder that the gateway may read",), ())
    for name, chain_path, key_path in sources:
        try:
            certificate = load_pair(name, chain_path, key_path)
        except CertificateError as error:
            faults.extend(error.faults)
            continue
        certificates.append(certificate)
        warnings.extend(certificate.doubts(now))
    if not sources:
        faults.append(
            f"{folder}: no certificate in it; put NAME.pem (key and chain), NAME.key and NAME.crt,"
            " or certbot's live/NAME there"
        )
    return Folder(tuple(certificates), tuple(faults), tuple(warnings))


def load_pair(name: str, chain_path: Path, key_path: Path) -> CertificateFile:
    """Read a chain and its key, which may be in the same file. Raises CertificateError with one line."""
    chain = read_chain(chain_path)
    key = _read_key(key_path)
    if _public_bytes(key.public_key()) != _public_bytes(chain[0].public_key()):
        raise CertificateError(
            f"{chain_path}: the private key in {key_path} is not that of its first certificate;"
            " put the server's own certificate first, or the right key beside it"
        )
    return CertificateFile(name, chain_path, chain, key)


def self_signed(state_dir: Path, base_domain: str, *, now: float | None = None) -> CertificateFile:
    """The gateway's own certificate for a base domain and its subdomains, made where none serves.

    Kept in one file of the state folder, key and certificate together and readable by its owner only, so that
    clients that were told to trust it go on doing so after a restart. Made anew when fewer than 30 days are
    left or the names differ. Raises CertificateError with one line when the state folder cannot be used.
    """
    moment = datetime.datetime.now(datetime.UTC).timestamp() if now is None else now
    path = state_dir / f"self-signed-{base_domain}.pem"
    with suppress(CertificateError):
        kept = load_pair(base_domain, path, path)
        if kept.expires - moment >= RENEW_BEFORE and _alternatives(kept.leaf) == _wanted_names(base_domain):
            return kept
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_private(path, _make_self_signed(base_domain, moment))
    except OSError as error:
        raise CertificateError(
            f"{path}: the self-signed certificate cannot be kept: {_reason(error)};"
            " set state.dir to a folder that the gateway may write"
        ) from None
    return load_pair(base_domain, path, path)


def _sources(folder: Path) -> Iterator[tuple[str, Path, Path]]:
    """(name, chain file, key file) for each certificate of a folder; a missing half is named all the same."""
    for entry in folder.iterdir():
        if entry.is_dir():
            if entry.name == "live":
                yield from (source for source in map(_certbot, entry.iterdir()) if source)
            elif source := _certbot(entry):
                yield source
        elif entry.suffix == ".pem":
            yield entry.stem, entry, entry
        elif entry.suffix == ".crt" or (entry.suffix == ".key" and not entry.with_suffix(".crt").exists()):
            yield entry.stem, entry.with_suffix(".crt"), entry.with_suffix(".key")


def _certbot(entry: Path) -> tuple[str, Path, Path] | None:
    chain, key = entry / "fullchain.pem", entry / "privkey.pem"
    return (entry.name, chain, key) if chain.exists() or key.exists() else None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(f"{path}: {_reason(error)}") from None


def read_chain(path: Path) -> tuple[x509.Certificate, ...]:
    """The certificates of a PEM file, in its order. Raises CertificateError with one line."""
    data = _read(path)
    if b"-----BEGIN CERTIFICATE-----" not in data:
        raise CertificateError(f"{path}: no certificate in it; it must be PEM, with BEGIN CERTIFICATE lines")
    try:
        return tuple(x509.load_pem_x509_certificates(data))
    except ValueError:
        raise CertificateError(f"{path}: a certificate in it is not PEM that can be read; copy it again") from None


def _read_key(path: Path) -> PrivateKeyTypes:
    data = _read(path)
    begin = data.find(b"-----BEGIN")
    while begin >= 0 and b"PRIVATE KEY" not in data[begin : data.find(b"\n", begin)]:
        begin = data.find(b"-----BEGIN", begin + 1)
    if begin < 0:
        raise CertificateError(
            f"{path}: no private key in it; add it in PEM, or keep key and chain as NAME.key and NAME.crt"
        )
    try:
        return serialization.load_pem_private_key(data[begin:], password=None)
    except TypeError:
        raise CertificateError(
            f"{path}: the private key is encrypted; store it without a passphrase, for the gateway only"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(f"{path}: the private key is not PEM that can be read; copy it again") from None


def _public_bytes(key: object) -> bytes:
    encode = getattr(key, "public_bytes", None)
    if encode is None:
        return b""
    encoded: bytes = encode(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _alternatives(leaf: x509.Certificate) -> x509.SubjectAlternativeName:
    try:
        return leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return x509.SubjectAlternativeName([])


def _wanted_names(base_domain: str) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = [x509.DNSName(base_domain), x509.DNSName(f"*.{base_domain}")]
    if base_domain.rpartition(".")[2] == "localhost":
        if base_domain != "localhost":
            names.append(x509.DNSName("localhost"))
        names += [x509.IPAddress(ipaddress.ip_address(text)) for text in ("127.0.0.1", "::1")]
    return x509.SubjectAlternativeName(names)


def _make_self_signed(base_domain: str, now: float) -> bytes:
    """A new ECDSA P-256 key and its certificate, both in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    # A common name ends at 64 characters (RFC 5280, upper bounds); clients read the alternative names anyway.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, base_domain[:64])])
    start = datetime.datetime.fromtimestamp(now - _CLOCK_SKEW, datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=SELF_SIGNED_DAYS))
        .add_extension(_wanted_names(base_domain), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _pem(key) + builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _pem(key: CertificateIssuerPrivateKeyTypes) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_private(path: Path, data: bytes) -> None:
    """Put `data` in place whole or not at all, readable by its owner only from its first byte."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # 0600 by its contract
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
