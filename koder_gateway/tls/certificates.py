"""Certificates and their keys: read from an operator's files, or made here if there are none.

`load_pair` reads one; `self_signed` makes and keeps the one that serves until the operator has a real one. A fault is
a line of text that names the file.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL

from ..files.pem import PemError, certificates_in, count_private_keys, private_key_in, public_key_der, read_pem
from ..files.private_file import write_private
from ..tls_bio.own_certificate import use_pair

DAY = 86_400.0
# Browsers refuse more than 398 days of validity; one day is left for the start in the past.
SELF_SIGNED_DAYS = 397
RENEW_BEFORE = 30 * DAY
# From then on there is a warning: an automatic renewal should have happened by then.
SOON = 30 * DAY
# How many issuers' bytes a reader shares between chains; those in use stay in their chains.
_ISSUERS = 4096
_CLOCK_SKEW = 3_600.0
# The library's names of P-256, P-384 and P-521.
_CURVES = ("secp256r1", "secp384r1", "secp521r1")


class CertificateError(Exception):
    """Certificates that cannot be used; `faults` has one line for each file, and so has the text."""

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True, eq=False)
class CertificateFile:
    """A certificate chain (leaf first) with the leaf's private key, kept as DER: of ten thousand certificates few are
    in use at once, and parsed they would need several times the memory.

    `name` is the operator's name for it, `path` is the file that a message about it should name. `names` are the DNS
    names of the leaf, lower-case, wildcards included (RFC 6125 section 6.4). It is valid from `starts` to `expires`,
    in seconds since the epoch. Two are equal only if they are the same object; `same` compares contents.
    """

    name: str
    path: Path
    chain_der: tuple[bytes, ...] = field(repr=False)
    key_der: bytes = field(repr=False)
    names: tuple[str, ...]
    starts: float
    expires: float

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate that is shown to clients first."""
        return x509.load_der_x509_certificate(self.chain_der[0])

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """The leaf and its issuers."""
        return tuple(map(x509.load_der_x509_certificate, self.chain_der))

    @property
    def key(self) -> PrivateKeyTypes:
        """The leaf's private key."""
        return serialization.load_der_private_key(self.key_der, None, unsafe_skip_rsa_key_validation=True)

    @property
    def fingerprint(self) -> str:
        """The leaf's SHA-256 fingerprint, as browsers and openssl print it."""
        return hashlib.sha256(self.chain_der[0]).digest().hex(":").upper()

    def same(self, other: CertificateFile) -> bool:
        """Whether another one has the same contents."""
        return self.chain_der == other.chain_der and self.key_der == other.key_der

    def warnings(self, now: float) -> Iterator[str]:
        """Why clients refuse it, or soon will, although it is complete; `now` is in seconds since the epoch."""
        if self.expires <= now:
            yield f"{self.path}: expired on {_day(self.expires)}; renew it"
        elif self.starts > now:
            yield f"{self.path}: not valid before {_day(self.starts)}; check the clock"
        elif self.expires - now < SOON:
            yield f"{self.path}: expires on {_day(self.expires)}, in less than 30 days; renew it"
        if not self.names:
            yield f"{self.path}: has no DNS name, so clients refuse it; have it issued with a subjectAltName"


class CertificateReader:
    """Reads certificates one after the other; certificates of one issuer share its bytes. For one thread at a
    time."""

    def __init__(self) -> None:
        self._issuers: dict[bytes, bytes] = {}
        # Creating one takes longer than everything else in reading a certificate.
        self._trial = SSL.Context(SSL.TLS_SERVER_METHOD)

    def read(self, name: str, chain_path: Path, key_path: Path, extra_path: Path | None = None) -> CertificateFile:
        """A chain and its key, which may be in the same file, and the further issuers of `extra_path`.

        Raises CertificateError with one line.
        """
        if not name.isprintable():
            # A name is shown on a single line, in UTF-8.
            raise CertificateError(f"{str(chain_path)!a}: give it a name of printable characters")
        try:
            return self._read(name, chain_path, key_path, extra_path)
        # Faults that the library finds only later: an invalid date, a kind of key that it cannot write.
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            text = " ".join(str(error).split()) or type(error).__name__
            raise CertificateError(f"{chain_path}: cannot be used: {text}; have it reissued") from None

    def _read(self, name: str, chain_path: Path, key_path: Path, extra_path: Path | None) -> CertificateFile:
        data = read_file(chain_path)
        chain = _parse_chain(chain_path, data)
        key = read_key(key_path, data if key_path == chain_path else read_file(key_path))
        leaf = chain[0]
        if public_key_der(key) != public_key_der(leaf):
            raise CertificateError(
                f"{chain_path}: the private key in {key_path} does not match its first certificate;"
                " put the server's own certificate first, or the right key beside it"
            )
        _refuse_unserved(chain_path, key)
        # OpenSSL checks it (the strength of key and signature) before a handshake needs it.
        use_certificate(self._trial, chain_path, leaf, key)
        if extra_path is not None:
            chain += _parse_chain(extra_path, read_file(extra_path))
        return CertificateFile(
            name,
            chain_path,
            self._shared(each.public_bytes(serialization.Encoding.DER) for each in chain),
            _private_bytes(key, serialization.Encoding.DER),
            dns_names(leaf),
            leaf.not_valid_before_utc.timestamp(),
            leaf.not_valid_after_utc.timestamp(),
        )

    def _shared(self, ders: Iterable[bytes]) -> tuple[bytes, ...]:
        leaf, *issuers = ders
        if len(self._issuers) + len(issuers) > _ISSUERS:
            self._issuers.clear()
        return (leaf, *(self._issuers.setdefault(der, der) for der in issuers))


def load_pair(name: str, chain_path: Path, key_path: Path) -> CertificateFile:
    """Read a chain and its key, which may be in the same file. Raises CertificateError with one line."""
    return CertificateReader().read(name, chain_path, key_path)


def self_signed(state_dir: Path, base_domain: str, *, now: float | None = None) -> CertificateFile:
    """The gateway's own certificate for a base domain and its subdomains, made if there is none.

    It is kept in one file of the state folder, key and certificate together and readable by its owner only, so that
    clients that trust it still do after a restart. It is made again when fewer than 30 days are left or the names
    differ. Raises CertificateError with one line if the state folder cannot be used.
    """
    moment = datetime.datetime.now(datetime.UTC).timestamp() if now is None else now
    path = self_signed_path(state_dir, base_domain)
    with suppress(CertificateError):
        kept = load_pair(base_domain, path, path)
        if kept.expires - moment >= RENEW_BEFORE and _alternatives(kept.leaf) == _wanted_names(base_domain):
            return kept
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = _make_self_signed(base_domain, moment)
        write_private(path, lambda file: file.write(made))
    except OSError as error:
        raise CertificateError(
            f"{path}: the self-signed certificate cannot be kept: {reason(error)};"
            " set state.dir to a folder that the gateway may write"
        ) from None
    return load_pair(base_domain, path, path)


def self_signed_path(state_dir: Path, base_domain: str) -> Path:
    """The file of the gateway's own certificate."""
    return state_dir / f"self-signed-{base_domain}.pem"


def read_file(path: Path) -> bytes:
    """The contents of a file of certificates or keys. Raises CertificateError with one line."""
    try:
        return read_pem(path)
    except OSError as error:
        raise CertificateError(f"{path}: {reason(error)}") from None
    except PemError as error:
        raise CertificateError(f"{path}: {error}") from None


def _parse_chain(path: Path, data: bytes) -> tuple[x509.Certificate, ...]:
    try:
        return certificates_in(data)
    except PemError as error:
        raise CertificateError(f"{path}: {error}") from None


def read_key(path: Path, data: bytes) -> PrivateKeyTypes:
    """The private key in the contents of a PEM file. Raises CertificateError with one line."""
    count = count_private_keys(data)
    if count > 1:
        raise CertificateError(
            f"{path}: has {count} private keys; leave only that of the server's own certificate there"
        )
    try:
        return private_key_in(
            data, "add it in PEM, or keep key and chain as NAME.key and NAME.crt", check_primes=False
        )
    except PemError as error:
        raise CertificateError(f"{path}: {error}") from None


def _refuse_unserved(path: Path, key: PrivateKeyTypes) -> None:
    """Raise CertificateError for a key that OpenSSL accepts although no handshake here can use it: TLS 1.3 allows
    only some curves (RFC 8446 section 4.2.3) and no DSA, and neither does any enabled cipher suite."""
    kind = ""
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name not in _CURVES:
        kind = f"on the curve {key.curve.name}"
    elif isinstance(key, dsa.DSAPrivateKey):
        kind = "for DSA"
    if kind:
        raise CertificateError(
            f"{path}: its key is {kind}, which no client supports; have it issued for an ECDSA key on"
            " P-256, P-384 or P-521, for Ed25519, or for an RSA key of 2048 bits or more"
        )


def use_certificate(context: SSL.Context, path: Path, leaf: x509.Certificate, key: PrivateKeyTypes) -> None:
    """Put a certificate and its key on a context. Raises CertificateError when OpenSSL refuses it."""
    try:
        use_pair(context, leaf, key)
    except ValueError as error:
        raise CertificateError(f"{path}: {error}") from None


def _day(moment: float) -> str:
    return f"{datetime.datetime.fromtimestamp(moment, datetime.UTC):%Y-%m-%d}"


def _alternatives(leaf: x509.Certificate) -> x509.SubjectAlternativeName:
    try:
        return leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return x509.SubjectAlternativeName([])


def dns_names(leaf: x509.Certificate) -> tuple[str, ...]:
    """The DNS names that a certificate is for, in lower case."""
    return tuple(text.lower() for text in _alternatives(leaf).get_values_for_type(x509.DNSName))


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
    # A common name has at most 64 characters (RFC 5280, upper bounds); clients use the alternative names anyway.
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
    return _private_bytes(key, serialization.Encoding.PEM) + builder.sign(key, hashes.SHA256()).public_bytes(
        serialization.Encoding.PEM
    )


def _private_bytes(key: PrivateKeyTypes, encoding: serialization.Encoding) -> bytes:
    return key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def reason(error: OSError) -> str:
    """The operating system's error message, for the middle of a line."""
    return (error.strerror or str(error)).lower()
