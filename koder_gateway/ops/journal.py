"""The log for systemd's journal: a level before each line (sd-daemon(3)), and no time stamp."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText
from zope.interface import implementer

from .console import CRITICAL, DEBUG, ERROR, INFO, WARNING

_LEVELS: Final = {
    LogLevel.critical: CRITICAL,
    LogLevel.error: ERROR,
    LogLevel.warn: WARNING,
    LogLevel.info: INFO,
    LogLevel.debug: DEBUG,
}
# The value for twistd's --logger.
JOURNAL: Final = f"{__name__}.Journal"


@implementer(ILogObserver)
class Journal:
    """Writes each event with `write`, which takes bytes; an event that cannot be written is lost."""

    def __init__(self, write: Callable[[bytes], object] = lambda data: os.write(1, data)) -> None:
        self._write = write

    def __call__(self, event: LogEvent) -> None:
        """See ILogObserver."""
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        if not text:
            return
        level = _LEVELS.get(event.get("log_level"), INFO)
        lines = "".join(f"<{level}>{line}\n" for line in text.splitlines())
        try:
            self._write(lines.encode("utf-8", "backslashreplace"))
        except OSError:
            return
