"""The ending of exchanges with an access log that follows its settings."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..config import LogSettings
from ..exchange.ending import Ending
from .access_lines import CombinedLines, JsonLines
from .access_log import AccessLog, LogTarget, open_target
from .counters import Counters
from .event_log import FORMAT


class LoggedEnding(Ending):
    """`now` returns monotonic seconds; `worker` is the number of this process among its workers, 0 for a single one.
    Raises AccessLogError if the log cannot be opened."""

    lines: AccessLog | None

    def __init__(self, counters: Counters, settings: LogSettings, now: Callable[[], float], worker: int = 0) -> None:
        super().__init__(counters, now, time.time)
        self._worker = worker
        self._settings = settings
        self._dropped_before = 0
        self._target: LogTarget | None = None
        self._use(open_log(settings))

    @property
    def dropped(self) -> int:
        """The number of lost lines."""
        return self._dropped_before + (self.lines.dropped if self.lines is not None else 0)

    def flush(self) -> None:
        """Write the collected lines."""
        if self.lines is not None:
            self.lines.flush()

    def opened_for(self, settings: LogSettings) -> LogTarget | None:
        """The target for new settings, opened; None if nothing has to be opened for them. Raises AccessLogError, and
        then nothing has changed."""
        return None if _same_log(settings, self._settings) else open_log(settings)

    def follow(self, settings: LogSettings, target: LogTarget | None) -> None:
        """Log as these settings say, events too, and exchanges to the `target` from `opened_for`; the same file is
        opened again, since it may have been rotated."""
        FORMAT.follow(format=settings.format, level=settings.level)
        if _same_log(settings, self._settings):
            self.reopen()
            return
        self.flush()
        if self.lines is not None:
            self._dropped_before += self.lines.dropped + self.lines.waiting
        if self._target is not None:
            self._target.close()
        self._settings = settings
        self._use(target)

    def reopen(self) -> None:
        """Write what is collected, and open the file again: it has been rotated."""
        self.flush()
        if self._target is not None:
            self._target.reopen()

    def _use(self, target: LogTarget | None) -> None:
        self._target = target
        lines = CombinedLines() if self._settings.access_format == "combined" else JsonLines(self._worker)
        self.lines = None if target is None else AccessLog(target, lines)


def _same_log(one: LogSettings, other: LogSettings) -> bool:
    return (one.access, one.file, one.access_format) == (other.access, other.file, other.access_format)


def open_log(settings: LogSettings) -> LogTarget | None:
    """The access log's target, None if the access log is off. Raises AccessLogError."""
    return open_target(settings.file) if settings.access else None
