"""twistd's pidfile: written only where somebody asks for one, and a stale one told from that of a live gateway."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

# A word in the command line of every gateway: the plugin's name, or that of the program.
_OURS: Final = b"koder-gateway"


def settle(twistd: MutableMapping[str, Any], words: Sequence[str]) -> str | None:
    """Leave the pidfile of twistd's options out unless the command line `words` asks for one, and remove a stale one;
    what keeps twistd from writing its files, in one line, None when nothing does."""
    # getopt(3) takes every beginning of a long option that leaves no doubt.
    if not any(word.startswith("--pi") for word in words):
        twistd["pidfile"] = ""
    pidfile = twistd.get("pidfile") or ""
    if pidfile:
        path = Path(pidfile)
        if _stale(path):
            with suppress(OSError):
                path.unlink()
        if not _writable(path):
            return (
                f"{path}: the pidfile cannot be written; let the gateway's user write there, or leave --pidfile out"
            )
    return _log_fault(twistd)


def _log_fault(twistd: Mapping[str, Any]) -> str | None:
    """Whether the log can be written: a daemon has its own in the present folder, unless it is told another."""
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


def _stale(path: Path) -> bool:
    """Whether the process that a pidfile names is no gateway any more: it has ended, its number is this process's own
    (PID 1 of a container, each time) or that of another program. Nothing is said of a file that names none."""
    try:
        pid = int(path.read_text())
    except (OSError, ValueError):
        return False
    if pid == os.getpid():
        return True
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except FileNotFoundError:
        # No such process; or no /proc, and then twistd asks the kernel by itself.
        return Path("/proc/self").exists()
    except OSError:
        return False
    return all(word.rpartition(b"/")[2] != _OURS for word in words)
