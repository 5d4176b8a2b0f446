"""The log as systemd's journal takes it: a level before each line (sd-daemon(3)), and no time stamp of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Final

from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText
from zope.interface import implementer

_LEVELS: Final = {
    LogLevel.critical: 2,
    LogLevel.error: 3,
    LogLevel.warn: 4,
    LogLevel.info: 6,
    LogLevel.debug: 7,
}
_INFO: Final = 6
# What twistd's --logger takes.
JOURNAL: Final = f"{__name__}.Journal"


def is_journal(environ: Mapping[str, str], descriptor: int = 1) -> bool:
    """Whether a descriptor, by default the standard output, is what systemd has connected to its journal."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


@implementer(ILogObserver)
class Journal:
    """Writes each event by `write`, which takes bytes; what it cannot write is lost."""

    def __init__(self, write: Callable[[bytes], object] = lambda data: os.write(1, data)) -> None:
        self._write = write

    def __call__(self, event: LogEvent) -> None:
        """See ILogObserver."""
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        if not text:
            return
        level = _LEVELS.get(event.get("log_level"), _INFO)
        lines = "".join(f"<{level}>{line}\n" for line in text.splitlines())
        try:
            self._write(lines.encode("utf-8", "backslashreplace"))
        except OSError:
            return
