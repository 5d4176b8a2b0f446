"""Where certificates lie on disk: a folder of them, or the files that an endpoint names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from .certificates import CertificateError, reason

# What tells one version of a file from the next; the number of the error where there is none.
Version = tuple[int, int, int, int] | int | None


class Source(NamedTuple):
    """The files of one certificate, `extra` with further issuers; `name` is what the operator calls it."""

    name: str
    chain: str
    key: str
    extra: str | None = None

    def versions(self) -> tuple[Version, ...]:
        """The versions of its files. Asked before they are read, it misses no change."""
        chain = _version(self.chain)
        key = chain if self.key == self.chain else _version(self.key)
        return (chain, key) if self.extra is None else (chain, key, _version(self.extra))


class Place(NamedTuple):
    """Where certificates are looked for: `name` is for messages, `sources` lists what is there now.

    `sources` raises CertificateError when the place itself cannot be read, or nothing is there.
    """

    name: str
    sources: Callable[[], list[Source]]


def folder_place(folder: Path) -> Place:
    """A folder of NAME.pem (key and chain), NAME.key with NAME.crt, and certbot's NAME/privkey.pem with
    NAME/fullchain.pem, in the folder itself or in its `live`. What begins with a dot is left alone."""
    return Place(str(folder), lambda: _listed(str(folder)))


def files_place(key: Path, chain: Path, extra: Path | None) -> Place:
    """The files of one certificate."""
    source = Source(chain.stem, str(chain), str(key), None if extra is None else str(extra))
    return Place(str(chain), lambda: [source])


def _version(path: str) -> Version:
    try:
        status = os.stat(path)
    except OSError as error:
        return error.errno
    # The last of them cannot be set: it changes even where a copy keeps the time of its original.
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _listed(folder: str) -> list[Source]:
    try:
        sources = sorted(_sources(folder))
    except OSError as error:
        raise CertificateError(f"{folder}: {reason(error)}; name a folder that the gateway may read") from None
    if not sources:
        raise CertificateError(
            f"{folder}: no certificate in it; put NAME.pem (key and chain), NAME.key and NAME.crt,"
            " or certbot's live/NAME there"
        )
    return sources


def _sources(folder: str) -> Iterator[Source]:
    """What is in a folder; a certificate of which half is missing is named all the same."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name, dot, suffix = entry.name.rpartition(".")
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _certbot_folders(entry.path) if entry.name == "live" else _certbot(entry.name, entry.path)
            elif not dot:
                continue
            elif suffix == "pem":
                yield Source(name, entry.path, entry.path)
            elif suffix == "crt":
                yield Source(name, entry.path, f"{entry.path[:-4]}.key")
            elif suffix == "key" and not os.path.exists(f"{entry.path[:-4]}.crt"):
                yield Source(name, f"{entry.path[:-4]}.crt", entry.path)


def _certbot_folders(live: str) -> Iterator[Source]:
    with os.scandir(live) as entries:
        for entry in entries:
            yield from _certbot(entry.name, entry.path)


def _certbot(name: str, folder: str) -> Iterator[Source]:
    chain, key = f"{folder}/fullchain.pem", f"{folder}/privkey.pem"
    if os.path.exists(chain) or os.path.exists(key):
        yield Source(name, chain, key)
