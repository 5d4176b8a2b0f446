"""The lease of a folder that several gateways share: one of them orders, until it ends or is not heard of.

The file is read and written under flock(2), so no two take it at once. Clocks of machines that share a folder must
agree to within a third of its life.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from .layout import Lease

# Seconds that it lives for, unless it is renewed each third of that.
LIFE: Final = 30.0
_LONGEST: Final = 4096
_BOOT: Final = "/proc/sys/kernel/random/boot_id"
_NAMESPACE: Final = "/proc/self/ns/pid"


def this_process() -> str:
    """Which process this is: of which start of the system, among which processes, and when it began; "" where the
    system does not say."""
    try:
        boot = Path(_BOOT).read_text().strip()
        return f"{boot} {os.stat(_NAMESPACE).st_ino} {os.getpid()} {_begun(os.getpid())}"
    except (OSError, ValueError):
        return ""


def has_ended(process: str) -> bool:
    """Whether a process of this system has ended; False where that cannot be known."""
    parts, here = process.split(" "), this_process().split(" ")
    if len(parts) != 4 or parts[:2] != here[:2] or not parts[2].isdigit():
        return False
    try:
        return _begun(int(parts[2])) != parts[3]
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False


def _begun(pid: int) -> str:
    """When a process began, in ticks since the system did (proc(5), field 22); a zombie has ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    if fields[0] in "ZX":
        raise FileNotFoundError(pid)
    return fields[19]


class LeaseFile:
    """The lease at `path`, as `owner` has it. Raises OSError where the file cannot be used."""

    def __init__(self, path: Path, owner: str, ended: Callable[[str], bool] = has_ended) -> None:
        self._path = path
        self._owner = owner
        self._process = this_process()
        self._ended = ended

    def take(self, now: float) -> bool:
        """Take it, or keep it; whether this owner has it then."""
        with self._locked() as descriptor:
            lease = _read(descriptor)
            # Nobody has it for longer than a life: a clock was wrong.
            taken = lease is not None and now < lease.until <= now + 2 * LIFE
            if lease is not None and taken and lease.owner != self._owner and not self._ended(lease.process):
                return False
            _write(descriptor, Lease(owner=self._owner, until=now + LIFE, process=self._process))
            return True

    def release(self) -> None:
        """Give it up, if this owner has it."""
        with self._locked() as descriptor:
            lease = _read(descriptor)
            if lease is not None and lease.owner == self._owner:
                _write(descriptor, Lease(owner="", until=0.0))

    @contextmanager
    def _locked(self) -> Iterator[int]:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)


def _read(descriptor: int) -> Lease | None:
    with suppress(msgspec.MsgspecError):
        return msgspec.json.decode(os.pread(descriptor, _LONGEST, 0), type=Lease)
    return None


def _write(descriptor: int, lease: Lease) -> None:
    # In one write of less than a block; what a full disk cuts off is nobody's lease.
    data = msgspec.json.encode(lease)
    os.pwrite(descriptor, data, 0)
    os.ftruncate(descriptor, len(data))
