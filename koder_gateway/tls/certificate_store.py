"""The certificates of one place on disk: read once completely, then checked again and again for changes.

A file may be seen half-written, a key before its certificate, a folder while it is replaced. So a good certificate
stays until another good one is there, and a fault is reported once, when it is still the same at the next look.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .certificates import RENEW_BEFORE, CertificateError, CertificateFile, CertificateReader, self_signed
from .folder import WANTED, CertificateFiles, CertificateLocation, Listing, Version
from .sni_index import SniIndex
from .unpaired_files import UnpairedFile, separated_pairs, unpaired_file

# Seconds between two checks of expiry dates.
_DAILY: Final = 3600.0
# How many faults, and warnings, one look reports; of the others only the number.
_REPORTED: Final = 10
# After how many looks a fault is reported even if the file differs each time.
_LOOKS: Final = 3


@dataclass(slots=True)
class StoreChanges:
    """The result of a look.

    `names` is None if nothing has changed; `errors` and `warnings` are lines to log, and `restored` are lines about
    reported faults that are gone. `faulty` is the number of certificates that cannot be used; with `unsettled` the
    next look should come soon.
    """

    names: SniIndex | None = None
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    faulty: int = 0
    unsettled: bool = False


@dataclass(slots=True)
class _Kept:
    """One source: the last good certificate, and the fault of the files of `versions`. `half` is their contents if
    they clearly are not a pair; `idle` says that the other half is not missed."""

    versions: tuple[Version, ...] = ()
    certificate: CertificateFile | None = None
    fault: str = ""
    logged: bool = True
    looks: int = 0
    missing: bool = False
    half: UnpairedFile | None = None
    idle: bool = False

    @property
    def faulty(self) -> bool:
        """Whether there is something to correct."""
        return bool(self.fault) and not self.idle


class CertificateStore:
    """The certificates of one place. Call `open` first, then `look`; both read files, in any one thread at a time.

    `default` names the one for unknown names. `before` are the certificates of another place that this one replaces:
    they stay until there are others of the same name.
    """

    def __init__(self, place: CertificateLocation, default: str = "", before: SniIndex | None = None) -> None:
        self._place = place
        self._default = default
        self._before = before
        self._served = before
        self._reader = CertificateReader()
        self._kept: dict[CertificateFiles, _Kept] = {}
        self._place_fault = ""
        self._place_logged = ""
        self._default_logged = False
        self._warned: set[str] = set()
        self._calendar = 0.0
        self._stopped = False

    def stop(self) -> None:
        """Cancel a look in another thread, whose result is no longer needed."""
        self._stopped = True

    def open(self, now: float) -> tuple[SniIndex, list[str]]:
        """All certificates, and lines of warning; `now` is in seconds since the epoch.

        Raises CertificateError with a line for each fault.
        """
        found = self.look(now, settled=True)
        kept = self._kept.values()
        faults = [line for line in (self._place_fault, *(each.fault for each in kept if not each.idle)) if line]
        if faults:
            # A name that no source has is wrong, whatever the faults of the sources.
            if not any(source.name == self._default for source in self._kept):
                faults += [line for line in found.errors if line.startswith("tls.default: ")]
            raise CertificateError(*faults)
        if found.names is None:
            nothing = f"{self._place.name}: has no certificate with its key in it; {WANTED}"
            raise CertificateError(*(found.errors or [nothing]))
        return found.names, self.warnings(now)

    def look(self, now: float, settled: bool = False) -> StoreChanges:
        """The changes since the last look. `settled`: read everything again, and accept it as it is now."""
        look = StoreChanges()
        changed = self._look_at_place(settled, look)
        # A certificate that was not valid yet may now be the best for a name.
        if changed or (self._served is not None and now >= self._served.until):
            look.names = self._assembled(look, now)
        if self._served is not None and (changed or now >= self._calendar):
            self._calendar = now + _DAILY
            lines = self.warnings(now)
            look.warnings += shortened([line for line in lines if line not in self._warned])
            self._warned = set(lines)
        look.faulty = sum(kept.faulty for kept in self._kept.values()) + bool(self._place_fault)
        return look

    @property
    def fault(self) -> str:
        """What is wrong with the place itself, as of the last look; "" for nothing."""
        return self._place_fault

    def entries(self) -> Iterator[tuple[CertificateFiles, CertificateFile | None, str]]:
        """Each certificate of the last look: its files, itself if it has been good, and its fault ("" for none).
        Files that are no fault, and no pair, are left out."""
        for source, kept in self._kept.items():
            if not kept.idle:
                yield source, kept.certificate, kept.fault

    def _look_at_place(self, settled: bool, look: StoreChanges) -> bool:
        try:
            listing = self._place.listing()
        except CertificateError as error:
            return self._place_failed(str(error), settled, look)
        if self._place_logged:
            look.restored.append(f"{self._place.name}: can be read again")
        self._place_fault = self._place_logged = ""
        changed = self._dropped(listing, settled, look)
        for source in listing.sources:
            if self._stopped:
                return False
            kept = self._kept.get(source)
            if kept is None:
                kept = self._kept[source] = _Kept()
            faulty = kept.faulty and kept.logged
            changed |= self._read(source, kept, settled)
            if faulty and not kept.fault:
                look.restored.append(f"{source.chain}: can be used again")
        self._set_apart()
        look.unsettled |= any(kept.faulty and not kept.logged for kept in self._kept.values())
        look.errors += shortened(self._to_tell(settled))
        return changed

    def _set_apart(self) -> None:
        """Find the files that are not faults: not a pair and not needed, or with the matching key in another file."""
        halves = {kept.half.path: kept for kept in self._kept.values() if kept.half is not None}
        if not halves:
            return
        served = [kept.certificate for kept in self._kept.values() if kept.certificate is not None]
        wanted: list[UnpairedFile] = []
        for kept in halves.values():
            half = kept.half
            assert half is not None, "so they were chosen"
            kept.idle = kept.certificate is None and (not half.key or half.covered(served))
            if not kept.idle:
                wanted.append(half)
        for (first, *others), line in separated_pairs(wanted):
            halves[first.path].fault = line
            for other in others:
                # One line reports all of them.
                halves[other.path].idle = True

    def _place_failed(self, fault: str, settled: bool, look: StoreChanges) -> bool:
        """The place cannot be read. Its certificates stay in use, even if their files are gone."""
        if settled or (fault == self._place_fault and fault != self._place_logged):
            self._place_logged = fault
            look.errors.append(f"{fault}; the previous certificates stay" if self._served else fault)
        look.unsettled = fault != self._place_logged
        self._place_fault = fault
        return False

    def _dropped(self, listing: Listing, settled: bool, look: StoreChanges) -> bool:
        """Drop certificates whose files are gone, at this look and the one before."""
        present = set(listing.sources)
        changed = False
        for source in [source for source in self._kept if source not in present]:
            kept = self._kept[source]
            if listing.hides(source):
                continue
            if settled or kept.missing:
                del self._kept[source]
                changed = True
            else:
                kept.missing = look.unsettled = True
        return changed

    def _read(self, source: CertificateFiles, kept: _Kept, settled: bool) -> bool:
        """Read a source if it has changed; returns whether it contained another certificate."""
        kept.missing = False
        versions = source.versions()
        if versions == kept.versions and not settled:
            # Its writer has had the time between two looks to finish.
            kept.looks = _LOOKS
            return False
        kept.versions = versions
        try:
            certificate = self._reader.read(
                source.name,
                Path(source.chain),
                Path(source.key),
                None if source.extra is None else Path(source.extra),
            )
        except CertificateError as error:
            kept.looks = kept.looks + 1 if kept.fault and not kept.logged else 0
            kept.fault, kept.logged = str(error), False
            kept.half, kept.idle = unpaired_file(source), False
            return False
        kept.fault, kept.logged, kept.half, kept.idle = "", True, None, False
        if kept.certificate is not None and kept.certificate.same(certificate):
            return False
        kept.certificate = certificate
        return True

    def _to_tell(self, settled: bool) -> list[str]:
        lines = []
        for kept in self._kept.values():
            if not kept.logged and not kept.idle and (settled or kept.looks >= _LOOKS):
                kept.logged = True
                stays = "; the previous one stays" if kept.certificate is not None else ""
                lines.append(kept.fault + stays)
        return lines

    def _assembled(self, look: StoreChanges, now: float) -> SniIndex | None:
        """The certificates to serve from now on; None if they cannot be used."""
        before = {} if self._before is None else {each.name: each for each in self._before.certificates}
        certificates = []
        missing = False
        for source, kept in self._kept.items():
            if kept.idle:
                continue
            certificate = kept.certificate or before.get(source.name)
            if certificate is not None:
                certificates.append(certificate)
            if kept.certificate is None:
                missing = True
        if not certificates:
            return None
        if not missing:
            self._before = None
        certificates.sort(key=lambda each: (each.name, str(each.path)))
        try:
            names = SniIndex(certificates, self._default, now)
            self._default_logged = False
        except CertificateError as error:
            if self._served is None:
                look.errors.append(str(error))
                return None
            if not self._default_logged:
                self._default_logged = True
                look.errors.append(f"{error}; the previous default stays")
            names = SniIndex(certificates, self._served.default, now)
        self._served = names
        return names

    def warnings(self, now: float) -> list[str]:
        """Lines about served certificates that clients refuse, or soon will."""
        if self._served is None:
            return []
        lines = [line for certificate in self._served.certificates for line in certificate.warnings(now)]
        for hidden, served in self._served.overshadowed():
            lines.append(
                f"{hidden.path}: is never used for its names: {served.path} has the same names with"
                " another type of key, and is valid for longer; keep one of the two (all current"
                " clients accept ECDSA)"
            )
        return lines


class OwnCertificateStore:
    """The gateway's own certificate, if none is configured: like a `CertificateStore`, but no one else writes its
    file."""

    def __init__(self, state_dir: Path, base_domain: str) -> None:
        self._state_dir = state_dir
        self._base_domain = base_domain
        self._served: CertificateFile | None = None
        self._told = ""

    def stop(self) -> None:
        """See `CertificateStore.stop`; this one never takes long."""

    def open(self, now: float) -> tuple[SniIndex, list[str]]:
        """See `CertificateStore.open`."""
        self._served = made = self_signed(self._state_dir, self._base_domain, now=now)
        return SniIndex([made]), [self._warning(made)]

    def look(self, now: float, settled: bool = False) -> StoreChanges:
        """See `CertificateStore.look`; a new certificate is made in time."""
        served = self._served
        if served is not None and not settled and served.expires - now >= RENEW_BEFORE:
            return StoreChanges()
        try:
            made = self_signed(self._state_dir, self._base_domain, now=now)
        except CertificateError as error:
            fresh = str(error) != self._told or settled
            self._told = str(error)
            return StoreChanges(errors=[f"{error}; the previous certificate stays"] if fresh else [], faulty=1)
        self._told = ""
        if served is not None and made.same(served):
            return StoreChanges(warnings=[self._warning(made)] if settled else [])
        self._served = made
        return StoreChanges(SniIndex([made]), warnings=[self._warning(made)])

    def warnings(self, now: float) -> list[str]:
        """See `CertificateStore.warnings`; the gateway renews it by itself."""
        return []

    def _warning(self, made: CertificateFile) -> str:
        return (
            f"no certificate is configured: serving a self-signed one for {self._base_domain} and its subdomains,"
            f" SHA-256 fingerprint {made.fingerprint} ({made.path}); set tls.certificates for one that clients trust"
        )


def shortened(lines: Iterable[str]) -> list[str]:
    """The first of many lines, and how many more there are."""
    every = list(lines)
    if len(every) <= _REPORTED:
        return every
    return [
        *every[:_REPORTED],
        f"and {len(every) - _REPORTED} more certificates like these; `koder-gateway check` lists all",
    ]
