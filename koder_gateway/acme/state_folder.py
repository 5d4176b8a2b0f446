"""The folder of the state as a `Storage`: every file appears whole, by one rename, for its owner only."""

from __future__ import annotations

import os
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from ..files.private_file import write_private
from .layout import Layout, NameRecord, read_records, read_regular
from .lease_file import LeaseFile
from .order_plan import Pace
from .storage import Account, Challenge, StorageError

T = TypeVar("T")

# A key with its chain.
_LONGEST: Final = 1 << 20
# Seconds after which nobody asks for what a process has left: challenges are answered within minutes.
_CHALLENGE_LIFE: Final = 3600.0
_KEY_LIFE: Final = 7 * 86400.0


class StateFolder:
    """The folder `layout.root`, which is made if need be. `owner` is the gateway's own text for the lease."""

    def __init__(self, layout: Layout, owner: str) -> None:
        self.layout = layout
        self._lease = LeaseFile(layout.lease, owner)
        self._lock = threading.Lock()
        with _telling(layout.root):
            for folder in layout.folders:
                folder.mkdir(mode=0o700, exist_ok=True)
                _close_to_others(folder)

    def lead(self, now: float) -> bool:
        """See `Storage`."""
        with _telling(self.layout.lease):
            return self._lease.take(now)

    def resign(self) -> None:
        """See `Storage`."""
        with _telling(self.layout.lease):
            self._lease.release()

    def account(self, directory: str) -> Account | None:
        """See `Storage`. One that cannot be read is lost, and a new one is made."""
        return _decoded(self._read(self.layout.account(directory)), Account)

    def keep_account(self, directory: str, account: Account) -> None:
        """See `Storage`."""
        self._write(self.layout.account(directory), msgspec.json.encode(account))

    def pace(self) -> Pace:
        """See `Storage`."""
        return _decoded(self._read(self.layout.rate), Pace) or Pace()

    def keep_pace(self, pace: Pace) -> None:
        """See `Storage`."""
        self._write(self.layout.rate, msgspec.json.encode(pace))

    def records(self) -> Iterator[NameRecord]:
        """See `Storage`."""
        return read_records(self.layout)

    def keep_record(self, record: NameRecord) -> None:
        """See `Storage`. It is not waited for until it is on the disk: there may be very many, and one that is lost
        with the system is made anew."""
        path = self.layout.record(record.name)
        with _telling(path):
            descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(msgspec.json.encode(record))
                os.replace(temporary, path)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary)
                raise

    def forget_record(self, name: str) -> None:
        """See `Storage`."""
        self._remove(self.layout.record(name))

    def order_key(self, name: str) -> bytes | None:
        """See `Storage`."""
        return self._read(self.layout.order_key(name))

    def keep_order_key(self, name: str, pem: bytes) -> None:
        """See `Storage`."""
        self._write(self.layout.order_key(name), pem)

    def forget_order_key(self, name: str) -> None:
        """See `Storage`."""
        self._remove(self.layout.order_key(name))

    def certificate(self, name: str) -> bytes | None:
        """See `Storage`."""
        return self._read(self.layout.certificate(name))

    def certificates(self) -> Iterator[str]:
        """See `Storage`. Of the few names that are too long for a file there is only what `stem` makes of them."""
        with _telling(self.layout.certificates):
            yield from sorted(path.stem for path in self.layout.certificates.glob("*.pem"))

    def keep_certificate(self, name: str, pem: bytes) -> None:
        """See `Storage`."""
        self._write(self.layout.certificate(name), pem)
        self.touch()

    def forget_certificate(self, name: str) -> None:
        """See `Storage`."""
        self._remove(self.layout.certificate(name))
        self.touch()

    def touch(self) -> None:
        """Tell the gateways that certificates have changed."""
        with self._lock:
            self._write(self.layout.version, secrets.token_hex(8).encode())

    def answer(self, challenge: Challenge) -> None:
        """See `Storage`."""
        path = self._challenge(challenge)
        if path is None:
            raise StorageError("the authority's token is none of RFC 8555")
        self._write(path, challenge.content)

    def forget_challenge(self, challenge: Challenge) -> None:
        """See `Storage`."""
        path = self._challenge(challenge)
        if path is not None:
            self._remove(path)

    def tidy(self, now: float) -> None:
        """See `Storage`. What a write has left that was cut off is among it."""
        layout = self.layout
        lives = {layout.http_challenges: _CHALLENGE_LIFE, layout.alpn_challenges: _CHALLENGE_LIFE}
        lives |= {layout.orders: _KEY_LIFE}
        for folder, life in lives.items():
            self._tidy(folder, lambda path, age, life=life: age > life, now)  # type: ignore[misc]
        for folder in layout.folders:
            self._tidy(folder, _is_left, now)

    def follow(self) -> bool:
        """See `Storage`: there is nothing to bring here."""
        return False

    def _tidy(self, folder: Path, is_old: Callable[[Path, float], bool], now: float) -> None:
        with _telling(folder), os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.is_file(follow_symlinks=False):
                        age = now - entry.stat(follow_symlinks=False).st_mtime
                        if is_old(Path(entry.path), age):
                            os.unlink(entry.path)

    def _challenge(self, challenge: Challenge) -> Path | None:
        if challenge.token:
            return self.layout.http_challenge(challenge.token)
        return self.layout.alpn_challenge(challenge.name)

    def _read(self, path: Path) -> bytes | None:
        with _telling(path):
            try:
                return read_regular(path, _LONGEST)
            except FileNotFoundError:
                return None

    def _write(self, path: Path, data: bytes) -> None:
        with _telling(path):
            write_private(path, lambda file: file.write(data))

    def _remove(self, path: Path) -> None:
        with _telling(path), suppress(FileNotFoundError):
            path.unlink()


def _close_to_others(folder: Path) -> None:
    """Leave a folder to this user alone: others could read keys there, or put theirs in their place. Raises OSError,
    and StorageError where it is somebody else's."""
    found = folder.stat()
    if found.st_uid != os.geteuid() and os.geteuid() != 0:
        raise StorageError(f"{folder}: belongs to another user; let the gateway's user own it")
    if found.st_mode & 0o077:
        folder.chmod(0o700)


def _is_left(path: Path, age: float) -> bool:
    """Whether it is the beginning of a file that was never renamed."""
    whole = path.name.endswith((".pem", ".json")) or path.name in (".version", "lease")
    return not whole and age > _CHALLENGE_LIFE


def _decoded(data: bytes | None, kind: type[T]) -> T | None:
    if data is not None:
        with suppress(msgspec.MsgspecError):
            return msgspec.json.decode(data, type=kind)
    return None


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error
