"""Lines on the standard error, each with its level where systemd's journal reads them (sd-daemon(3))."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Final, TextIO

# syslog's levels, as the journal has them.
CRITICAL: Final = 2
ERROR: Final = 3
WARNING: Final = 4
INFO: Final = 6
DEBUG: Final = 7


def is_journal(environ: Mapping[str, str], descriptor: int = 1) -> bool:
    """Whether a descriptor, by default the standard output, is what systemd has connected to its journal."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def say(text: str, level: int = ERROR, stream: TextIO | None = None) -> None:
    """Write each line of a text to the standard error, or to the stream that stands for it."""
    stream = sys.stderr if stream is None else stream
    if stream is None:
        # Nobody has one: a daemon whose descriptors were closed.
        return
    mark = f"<{level}>" if is_journal(os.environ, 2) else ""
    stream.writelines(f"{mark}{line}\n" for line in text.splitlines())
    stream.flush()
