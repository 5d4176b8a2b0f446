"""twistd's pidfile: written only on request, and a stale one is distinguished from that of a running gateway."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, Final

from .console import WARNING, say

# A word in the command line of every gateway: the name of the plugin or of the program.
_OURS: Final = b"koder-gateway"
# The contents of a pidfile: a number, or nothing. A file system may leave NULs in its place after a power failure.
_PIDFILE: Final = re.compile(rb"(?=.{0,32}\Z)(?:\s*[0-9]{1,20}\s*|[\s\0]*)", re.DOTALL)
_NUMBER: Final = re.compile(rb"[0-9]+")
_LONGEST: Final = 32


def prepare_pidfile(twistd: MutableMapping[str, Any], words: Sequence[str]) -> str | None:
    """Remove the pidfile from twistd's options unless the command line `words` asks for one, and delete a stale one.

    Returns why twistd could not write its files, in one line, or None.
    """
    # getopt(3) accepts every unambiguous prefix of a long option.
    if not any(word.startswith("--pi") for word in words):
        twistd["pidfile"] = ""
    pidfile = twistd.get("pidfile") or ""
    fault = _cleared(Path(pidfile)) if pidfile else None
    return fault or _log_fault(twistd)


def _cleared(path: Path) -> str | None:
    """Make room for a new pidfile; returns why that is not possible, in one line."""
    try:
        named = _named(path)
    except OSError as error:
        return f"{path}: the pidfile cannot be read: {error.strerror}; name another, or leave --pidfile out"
    if named is not None and not _PIDFILE.fullmatch(named):
        return f"{path}: is not a pidfile, and is left as it is; name another with --pidfile, or remove it"
    if named is not None and _stale(named):
        try:
            path.unlink()
        except OSError:
            return f"{path}: is stale and cannot be removed; remove it, or let the gateway's user write in its folder"
        if not _NUMBER.search(named):
            # As after a crash of the machine; logged for operators who look for that process.
            say(f"koder-gateway: {path}: named no running process, and is replaced", WARNING)
    if not _writable(path):
        return f"{path}: the pidfile cannot be written; let the gateway's user write there, or leave --pidfile out"
    return None


def _named(path: Path) -> bytes | None:
    """The contents of a file, up to the length of a pidfile and one byte; None if there is none. Does not block on a
    pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return os.read(descriptor, _LONGEST + 1) if regular else b"no file"
    finally:
        os.close(descriptor)


def _log_fault(twistd: Mapping[str, Any]) -> str | None:
    """Why the log cannot be written: a daemon logs to the current folder unless it is told otherwise."""
    name = twistd.get("logfile") or ("" if twistd.get("nodaemon") else "twistd.log")
    if name in ("", "-") or twistd.get("syslog") or twistd.get("logger"):
        return None
    path = Path(name)
    if _writable(path):
        return None
    return (
        f"{path.absolute()}: the log cannot be written; name a file with --logfile, or stay in the foreground with -n"
    )


def _writable(path: Path) -> bool:
    """Whether a file can be opened for writing; it is left as it was."""
    new = not path.exists()
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o644))
        if new:
            path.unlink()
    except OSError:
        return False
    return True


def _stale(named: bytes) -> bool:
    """Whether a pidfile names no running gateway: no process, one that has ended, this process itself (always PID 1
    in a container) or another program."""
    if not _NUMBER.search(named):
        return True
    pid = int(named)
    if pid == os.getpid():
        return True
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except FileNotFoundError:
        # No such process; or no /proc, and then twistd asks the kernel itself.
        return Path("/proc/self").exists()
    except OSError:
        return False
    return all(word.rpartition(b"/")[2] != _OURS for word in words)
