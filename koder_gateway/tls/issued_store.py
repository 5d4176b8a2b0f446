"""Certificates that an ACME authority has issued, beside those of the operator.

Their writer puts each in place by one rename, and then touches one file: while that is the same, a look is one call
of the kernel. The operator's certificates win: whoever puts one there wants it served.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from errno import ENOENT
from pathlib import Path
from typing import Final, Protocol

from .certificate_store import StoreChanges, shortened
from .certificates import CertificateError, CertificateFile, CertificateReader, reason
from .folder import Version, version_of
from .sni_index import SniIndex

_ENDING: Final = ".pem"


class IssuedPlace(Protocol):
    """Where they are; equal ones are the same place."""

    @property
    def certificates(self) -> Path:
        """The folder with NAME.pem for each: its key, and the chain."""

    @property
    def version(self) -> Path:
        """A file that is written anew after each change there."""


class WatchedStore(Protocol):
    """A source of certificates; see `CertificateStore`."""

    def open(self, now: float) -> tuple[SniIndex, list[str]]:
        """All certificates, and warnings. Raises CertificateError."""

    def look(self, now: float, settled: bool = False) -> StoreChanges:
        """The changes."""

    def warnings(self, now: float) -> list[str]:
        """Lines about served certificates."""

    def stop(self) -> None:
        """Cancel a look in progress."""


@dataclass(slots=True)
class _Kept:
    """One file: its last good certificate, and the fault of its present version."""

    version: Version = None
    certificate: CertificateFile | None = None
    fault: str = ""


@dataclass(slots=True)
class IssuedChanges:
    """The result of a look: whether there are other certificates, and lines about those that cannot be used, or can
    be again."""

    changed: bool = False
    errors: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)


class IssuedStore:
    """The issued certificates of a place. `look` reads files, in any one thread at a time."""

    def __init__(self, place: IssuedPlace) -> None:
        self.place = place
        self.names: SniIndex | None = None
        """Those of the last look; None where there are none."""
        self._version: Version | object = object()
        self._reader = CertificateReader()
        self._kept: dict[str, _Kept] = {}
        self._fault = ""
        self._stopped = False

    @property
    def faulty(self) -> int:
        """How many cannot be used."""
        return sum(bool(kept.fault) for kept in self._kept.values()) + bool(self._fault)

    def stop(self) -> None:
        """Cancel a look in another thread, whose result is no longer needed."""
        self._stopped = True

    def entries(self) -> Iterator[tuple[Path, CertificateFile | None, str]]:
        """Each file of the last look, its certificate if it has been good, and its fault ("" for none)."""
        for name, kept in sorted(self._kept.items()):
            yield self.place.certificates / name, kept.certificate, kept.fault

    def look(self, now: float, settled: bool = False) -> IssuedChanges:
        """The changes since the last look; `now` is in seconds since the epoch. `settled`: report every fault, even
        those reported before."""
        found = IssuedChanges()
        version = version_of(self.place.version)
        if version != self._version or settled:
            self._version = version
            self._list(found, settled)
        if found.changed or (self.names is not None and now >= self.names.until):
            found.changed = True
            served = [kept.certificate for kept in self._kept.values() if kept.certificate is not None]
            self.names = SniIndex(served, now=now) if served else None
        return found

    def _list(self, found: IssuedChanges, settled: bool) -> None:
        folder = str(self.place.certificates)
        try:
            with os.scandir(folder) as entries:
                names = {
                    entry.name for entry in entries if entry.name.endswith(_ENDING) and not entry.name.startswith(".")
                }
        except OSError as error:
            self._unreadable(folder, error, found, settled)
            return
        self._fault = ""
        for name in self._kept.keys() - names:
            del self._kept[name]
            found.changed = True
        for name in names:
            if self._stopped:
                return
            self._read(f"{folder}/{name}", self._kept.setdefault(name, _Kept()), found, settled)

    def _unreadable(self, folder: str, error: OSError, found: IssuedChanges, settled: bool) -> None:
        """The folder cannot be read, or is not there yet. What was read of it stays."""
        if error.errno == ENOENT and not self._kept:
            return
        before, self._fault = self._fault, f"{folder}: {reason(error)}; let the gateway's user read it"
        if self._fault != before or settled:
            found.errors.append(f"{self._fault}; the previous certificates stay")

    def _read(self, path: str, kept: _Kept, found: IssuedChanges, settled: bool) -> None:
        version = version_of(path)
        if version != kept.version:
            kept.version = version
            faulty, kept.fault = kept.fault, ""
            try:
                file = Path(path)
                certificate = self._reader.read(file.stem, file, file)
            except CertificateError as error:
                stays = "; the previous one stays" if kept.certificate is not None else ""
                kept.fault = str(error) + stays
                found.errors.append(kept.fault)
                return
            if faulty:
                found.restored.append(f"{path}: can be used again")
            if kept.certificate is None or not kept.certificate.same(certificate):
                kept.certificate = certificate
                found.changed = True
        elif settled and kept.fault:
            found.errors.append(kept.fault)


class _LayeredIndex(SniIndex):
    """Two indices as one: what the first does not find, the second may."""

    __slots__ = ("_first", "_second")

    def __init__(self, first: SniIndex, second: SniIndex, default: CertificateFile) -> None:
        # Not that of one index: both have found their names already.
        self._first, self._second = first, second
        self.certificates = first.certificates + second.certificates
        self.default = default
        self.until = min(first.until, second.until)

    def overshadowed(self) -> Iterator[tuple[CertificateFile, CertificateFile]]:
        """See `SniIndex`: within each of the two."""
        yield from self._first.overshadowed()
        yield from self._second.overshadowed()

    def find(self, name: bytes) -> CertificateFile | None:
        """See `SniIndex`."""
        return self._first.find(name) or self._second.find(name)


class LayeredStore:
    """The certificates of `store`, and for names that it has none for, those of `issued`. `own` is the base domain if
    that of `store` is the gateway's self-signed one: then issued ones win, and that of the base domain is the
    default. `before` are the certificates that those of `store` replace. Call `open` first, then `look`."""

    def __init__(
        self, store: WatchedStore, issued: IssuedStore, own: str | None = None, before: SniIndex | None = None
    ) -> None:
        self._store = store
        self._issued = issued
        self._own = own
        self.operators = before
        """The certificates of `store`."""

    def stop(self) -> None:
        """See `CertificateStore.stop`."""
        self._store.stop()
        self._issued.stop()

    def open(self, now: float) -> tuple[SniIndex, list[str]]:
        """See `CertificateStore.open`. Issued certificates that cannot be used are no reason not to start."""
        self.operators, warnings = self._store.open(now)
        found = self._issued.look(now, settled=True)
        names = self._layered(self.operators)
        if self._own is not None and names.default is not self.operators.default:
            # They say that the default is one which no client trusts.
            warnings = []
        return names, warnings + shortened(found.errors)

    def look(self, now: float, settled: bool = False) -> StoreChanges:
        """See `CertificateStore.look`."""
        look = self._store.look(now, settled)
        found = self._issued.look(now, settled)
        look.errors += shortened(found.errors)
        look.restored += found.restored
        look.faulty += self._issued.faulty
        if look.names is not None:
            self.operators = look.names
        if self.operators is not None and (look.names is not None or found.changed):
            look.names = self._layered(self.operators)
        return look

    def warnings(self, now: float) -> list[str]:
        """See `CertificateStore.warnings`. Issued ones are renewed by themselves."""
        return self._store.warnings(now)

    def _layered(self, operators: SniIndex) -> SniIndex:
        return layered(operators, self._issued.names, self._own) or operators


def layered(operators: SniIndex | None, issued: SniIndex | None, own: str | None) -> SniIndex | None:
    """Certificates of `operators` and issued ones as one index; see `LayeredStore`. None if there are none."""
    if operators is None or issued is None:
        return operators or issued
    if own is None:
        return _LayeredIndex(operators, issued, operators.default)
    return _LayeredIndex(issued, operators, issued.find(own.encode("ascii")) or operators.default)
