"""Where certificates are on disk: a folder of them, or the files that an endpoint names."""

from __future__ import annotations

import os
from collections.abc import Callable
from errno import ENOENT, ENOTDIR
from pathlib import Path
from typing import Final, NamedTuple

from .certificates import CertificateError, reason

# certbot's other folders beside `live`, which are for root alone.
_CERTBOTS_OWN: Final = frozenset(("accounts", "archive", "csr", "keys", "renewal", "renewal-hooks"))
# The names of issuers' certificates beside a pair: those of Kubernetes and cert-manager, of lego, of certbot.
_ISSUERS: Final = frozenset(("ca", "ca-bundle", "chain", "issuer"))
_ISSUER_SUFFIXES: Final = (".issuer", ".chain", ".ca")
# The files of a folder with a single certificate: certbot's, and those of a Kubernetes secret.
_FOLDERS: Final = (("fullchain.pem", "privkey.pem"), ("tls.crt", "tls.key"))
# The advice for a folder without certificates.
WANTED: Final = "put NAME.pem (key and chain), NAME.key and NAME.crt, or certbot's live/NAME there"
# The version of a file; the error number if there is none.
Version = tuple[int, int, int, int] | int | None


class CertificateFiles(NamedTuple):
    """The files of one certificate, `extra` with further issuers; `name` is the operator's name for it. `loose`: they
    are among other files, and may be something else."""

    name: str
    chain: str
    key: str
    extra: str | None = None
    loose: bool = False

    def only_file(self) -> str | None:
        """Its only file, if the other is missing; None for a pair."""
        if self.chain == self.key:
            return self.chain
        there = [path for path in (self.chain, self.key) if _there(path)]
        return there[0] if len(there) == 1 else None

    def versions(self) -> tuple[Version, ...]:
        """The versions of its files. Taken before they are read, so that no change is missed."""
        chain = version_of(self.chain)
        key = chain if self.key == self.chain else version_of(self.key)
        return (chain, key) if self.extra is None else (chain, key, version_of(self.extra))


class Listing(NamedTuple):
    """The contents of a place: the files of each certificate, and the folders that cannot be read."""

    sources: list[CertificateFiles]
    unread: tuple[str, ...] = ()

    def hides(self, source: CertificateFiles) -> bool:
        """Whether a source that is not listed may still exist."""
        return source.chain.startswith(tuple(f"{folder}/" for folder in self.unread))


class CertificateLocation(NamedTuple):
    """A place with certificates: `name` is for messages, `listing` returns its present contents.

    `listing` raises CertificateError if the place itself cannot be read, or is empty.
    """

    name: str
    listing: Callable[[], Listing]


def folder_location(folder: Path) -> CertificateLocation:
    """A folder of NAME.pem (key and chain), NAME.key with NAME.crt, and certbot's NAME/privkey.pem with
    NAME/fullchain.pem, in the folder itself or in its `live`, and NAME/tls.key with NAME/tls.crt.

    Names that begin with a dot are ignored, as are issuers' certificates (ca.crt, NAME.issuer.crt, chain.pem);
    `unpaired_files` decides which of the other files are not certificates.
    """
    return CertificateLocation(str(folder), lambda: _listed(str(folder)))


def files_location(key: Path, chain: Path, extra: Path | None) -> CertificateLocation:
    """The files of one certificate."""
    source = CertificateFiles(chain.stem, str(chain), str(key), None if extra is None else str(extra))
    return CertificateLocation(str(chain), lambda: Listing([source]))


def version_of(path: str | Path) -> Version:
    """The version of a file, by one call of the kernel."""
    try:
        status = os.stat(path)
    except OSError as error:
        return error.errno
    # The last value (the change time) cannot be set: it changes even if a copy keeps the time of its original.
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _listed(folder: str) -> Listing:
    try:
        listing = _Lister().list(folder)
    except OSError as error:
        raise CertificateError(f"{folder}: {reason(error)}; name a folder that the gateway may read") from None
    if not listing.sources:
        raise CertificateError(f"{folder}: no certificate in it; {WANTED}")
    return listing


class _Lister:
    """One look at a folder.

    A certificate is also listed if a part of it is missing or unreadable: only if all of it is gone, it is not.
    """

    def __init__(self) -> None:
        self._sources: list[CertificateFiles] = []
        self._unread: list[str] = []

    def list(self, folder: str) -> Listing:
        """The contents. Raises OSError if the folder itself cannot be read."""
        with os.scandir(folder) as entries:
            seen = [entry for entry in entries if not entry.name.startswith(".")]
        names = {entry.name for entry in seen}
        for entry in seen:
            if not _is_issuer(entry.name, names):
                self._look_at(entry)
        if {"fullchain.pem", "privkey.pem"} <= names:
            # The folder itself is one of certbot's.
            pair = {f"{folder}/fullchain.pem", f"{folder}/privkey.pem"}
            self._sources = [source for source in self._sources if source.chain not in pair]
            self._add(os.path.basename(os.path.abspath(folder)), f"{folder}/fullchain.pem", f"{folder}/privkey.pem")
        return Listing(sorted(self._sources), tuple(self._unread))

    def _look_at(self, entry: os.DirEntry[str]) -> None:
        name, path = entry.name, entry.path
        stem, dot, suffix = name.rpartition(".")
        if _is_folder(entry):
            if name == "live":
                self._look_at_live(path)
            elif name not in _CERTBOTS_OWN:
                self._look_at_folder(name, path)
        elif dot and suffix == "pem":
            self._add(stem, path, path, loose=True)
        elif dot and suffix == "crt":
            self._add(stem, path, f"{path[:-4]}.key", loose=True)
        elif dot and suffix == "key":
            if not _there(f"{path[:-4]}.crt"):
                self._add(stem, f"{path[:-4]}.crt", path, loose=True)
        elif entry.is_symlink() and not os.path.isfile(path):
            # Probably to the folder of a certificate, which no longer exists.
            self._add(name, f"{path}/fullchain.pem", f"{path}/privkey.pem")

    def _look_at_folder(self, name: str, path: str) -> None:
        for chain, key in _FOLDERS:
            if _there(f"{path}/{chain}") or _there(f"{path}/{key}"):
                self._add(name, f"{path}/{chain}", f"{path}/{key}")
                return

    def _look_at_live(self, live: str) -> None:
        """Each folder in it is a certificate; the only other file is certbot's README."""
        try:
            with os.scandir(live) as entries:
                for entry in entries:
                    if not entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
                        self._add(entry.name, f"{entry.path}/fullchain.pem", f"{entry.path}/privkey.pem")
        except OSError:
            # Reading it as a certificate produces the right fault.
            self._unread.append(live)
            self._add("live", live, live)

    def _add(self, name: str, chain: str, key: str, *, loose: bool = False) -> None:
        self._sources.append(CertificateFiles(name, chain, key, loose=loose))


def _is_issuer(name: str, names: set[str]) -> bool:
    """Whether a file is an issuer's certificate beside a pair, by its name and by the files beside it: it has no key,
    and another one has."""
    stem, _, suffix = name.rpartition(".")
    if suffix == "pem" and "privkey.pem" in names:
        # Among certbot's files; elsewhere such a file may contain its key.
        return stem in ("cert", "chain")
    return suffix == "crt" and f"{stem}.key" not in names and (stem in _ISSUERS or stem.endswith(_ISSUER_SUFFIXES))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link in a circle, or through a folder that is closed


def _there(path: str) -> bool:
    """Whether something of that name exists, or may exist if that cannot be determined."""
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno not in (ENOENT, ENOTDIR)
    return True
