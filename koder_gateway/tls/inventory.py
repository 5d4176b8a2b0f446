"""What certificates are on disk: each with its names, its dates, its key and what is wrong with it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa

from ..acme.layout import Layout, NameRecord, read_record
from ..files.pem import PemError, certificates_in, read_pem
from .certificate_store import CertificateStore
from .certificates import DAY, dns_names
from .folder import CertificateLocation
from .issued_store import IssuedStore

_CURVES: Final = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


@dataclass(frozen=True, slots=True)
class CertificateEntry:
    """One certificate. What is read of it is "" or empty if its file cannot be read as a certificate; `starts` and
    `expires` are seconds since the epoch. `faults` are lines that name the file."""

    name: str
    path: Path
    key_path: Path
    use: str
    """Who sees it: "clients", or "service NAME"."""
    names: tuple[str, ...] = ()
    subject: str = ""
    issuer: str = ""
    starts: float | None = None
    expires: float | None = None
    key: str = ""
    fingerprint: str = ""
    faults: list[str] = field(default_factory=list)
    ordered: bool = False
    """Whether the gateway orders it from an ACME authority."""
    record: NameRecord | None = None
    """What is known of its orders."""
    left: bool = False
    """Whether it was ordered for a name that is not to have one any more: it is served until it ends."""

    def days_left(self, now: float) -> int | None:
        """The whole days until it expires, negative since it has; None if that is not known."""
        return None if self.expires is None else int((self.expires - now) // DAY)


@dataclass(slots=True)
class Inventory:
    """The certificates of some places, and the faults of the places themselves."""

    entries: list[CertificateEntry] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add(self, location: CertificateLocation, use: str, now: float, days: int, default: str = "") -> None:
        """Read a place. A certificate with fewer than `days` days left has a fault; `default` is the one that
        `tls.default` names. `now` is in seconds since the epoch."""
        store = CertificateStore(location, default)
        found = store.look(now, settled=True)
        if store.fault:
            self.faults.append(store.fault)
        self.faults += [line for line in found.errors if line.startswith("tls.default: ")]
        for source, _, fault in store.entries():
            entry = entry_of(source.name, Path(source.chain), Path(source.key), use)
            entry.faults.extend(fault.splitlines() or date_faults(entry, now, days))
            self.entries.append(entry)

    def add_issued(self, layout: Layout, now: float, days: int, wanted: Collection[str]) -> None:
        """Read the certificates that the gateway has ordered; as for `add`. That of a name which is not `wanted` any
        more, such as one of a tenant that is gone, is left to its end, which is no fault."""
        store = IssuedStore(layout)
        found = store.look(now, settled=True)
        self.faults += [line for line in found.errors if line.startswith(f"{layout.certificates}:")]
        for path, certificate, fault in store.entries():
            name = certificate.names[0] if certificate is not None and certificate.names else path.stem
            read = entry_of(name, path, path, "clients")
            record = read_record(layout.record(name))
            left = record is None and name not in wanted
            entry = replace(read, ordered=True, record=record, left=left)
            entry.faults.extend(fault.splitlines() or ([] if left else _order_faults(entry, now, days)))
            self.entries.append(entry)

    @property
    def all_faults(self) -> list[str]:
        """Every fault, each in one line."""
        return [*self.faults, *(fault for entry in self.entries for fault in entry.faults)]


def entry_of(name: str, path: Path, key_path: Path, use: str) -> CertificateEntry:
    """What can be read of a certificate; whether it is good is not decided here."""
    try:
        leaf = certificates_in(read_pem(path))[0]
        return CertificateEntry(
            name,
            path,
            key_path,
            use,
            dns_names(leaf),
            leaf.subject.rfc4514_string(),
            leaf.issuer.rfc4514_string(),
            leaf.not_valid_before_utc.timestamp(),
            leaf.not_valid_after_utc.timestamp(),
            key_kind(leaf),
            leaf.fingerprint(hashes.SHA256()).hex(":").upper(),
        )
    except (OSError, PemError, ValueError, TypeError, UnsupportedAlgorithm):
        return CertificateEntry(name, path, key_path, use)


def date_faults(entry: CertificateEntry, now: float, days: int) -> Iterator[str]:
    """Why clients refuse a complete certificate now, or within so many days."""
    if entry.starts is None or entry.expires is None:
        return
    if entry.starts > now:
        yield f"{entry.path}: not valid before {_day(entry.starts)}; check the clock"
    if entry.expires <= now:
        yield f"{entry.path}: expired on {_day(entry.expires)}; renew it"
    elif entry.expires - now < days * DAY:
        left = entry.days_left(now)
        yield f"{entry.path}: expires on {_day(entry.expires)}, in {left} days, fewer than {days}; renew it"


def _order_faults(entry: CertificateEntry, now: float, days: int) -> Iterator[str]:
    """Why clients refuse a certificate that the gateway renews, now or within so many days, and why it is not renewed
    although it should be."""
    record = entry.record
    why = ""
    if record is not None and record.last_fault:
        why = f": {record.last_fault}" + (f"; {record.advice}" if record.advice else "")
    if entry.expires is not None and entry.expires <= now:
        yield f"{entry.path}: expired on {_day(entry.expires)}, and is not renewed{why}"
    elif entry.expires is not None and entry.expires - now < days * DAY:
        left = entry.days_left(now)
        yield f"{entry.path}: expires on {_day(entry.expires)}, in {left} days, fewer than {days}{why}"
    elif record is not None and record.warned and why:
        yield f"{entry.path}: should have been renewed{why}"


def key_kind(leaf: x509.Certificate) -> str:
    """The kind of a certificate's key, as in "RSA 2048" or "ECDSA P-256"."""
    key = leaf.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"ECDSA {_CURVES.get(key.curve.name, key.curve.name)}"
    if isinstance(key, (rsa.RSAPublicKey, dsa.DSAPublicKey)):
        return f"{'RSA' if isinstance(key, rsa.RSAPublicKey) else 'DSA'} {key.key_size}"
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "Ed25519"
    return "Ed448" if isinstance(key, ed448.Ed448PublicKey) else type(key).__name__


def _day(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d}"
