"""Lines on standard error, each with its level if systemd's journal reads them (sd-daemon(3))."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Final, TextIO

# syslog's levels, as used by the journal.
CRITICAL: Final = 2
ERROR: Final = 3
WARNING: Final = 4
INFO: Final = 6
DEBUG: Final = 7


def is_journal(environ: Mapping[str, str], descriptor: int = 1) -> bool:
    """Whether systemd has connected this descriptor, by default standard output, to its journal."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def say(text: str, level: int = ERROR, stream: TextIO | None = None) -> None:
    """Write each line of a text to standard error, or to another stream."""
    stream = sys.stderr if stream is None else stream
    if stream is None:
        # There is none: a daemon whose descriptors were closed.
        return
    mark = f"<{level}>" if is_journal(os.environ, 2) else ""
    stream.writelines(f"{mark}{line}\n" for line in text.splitlines())
    stream.flush()
