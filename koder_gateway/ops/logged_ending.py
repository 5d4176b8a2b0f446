"""The ending of exchanges with an access log that follows its settings."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..config import LogSettings
from ..exchange.ending import Ending
from .access_log import AccessLog, LogTarget, open_target
from .metrics import Counters


class LoggedEnding(Ending):
    """`now` gives monotonic seconds. Raises AccessLogError where the log cannot be opened."""

    lines: AccessLog | None

    def __init__(self, counters: Counters, settings: LogSettings, now: Callable[[], float]) -> None:
        super().__init__(counters, now, time.time)
        self._settings = settings
        self._dropped_before = 0
        self._target: LogTarget | None = None
        self._use(open_log(settings))

    @property
    def dropped(self) -> int:
        """Lines that were lost."""
        return self._dropped_before + (self.lines.dropped if self.lines is not None else 0)

    def flush(self) -> None:
        """Hand over the lines that have gathered."""
        if self.lines is not None:
            self.lines.flush()

    def opened_for(self, settings: LogSettings) -> LogTarget | None:
        """The target that other settings ask for, open; None where nothing has to be opened for them. Raises
        AccessLogError, and then everything is as before."""
        return None if settings == self._settings else open_log(settings)

    def follow(self, settings: LogSettings, target: LogTarget | None) -> None:
        """Log as these settings say, to the `target` that `opened_for` gave; the same file is opened anew, since it
        may have been rotated away."""
        self.flush()
        if settings == self._settings:
            if self._target is not None:
                self._target.reopen()
            return
        if self.lines is not None:
            self._dropped_before += self.lines.dropped + self.lines.waiting
        if self._target is not None:
            self._target.close()
        self._settings = settings
        self._use(target)

    def _use(self, target: LogTarget | None) -> None:
        self._target = target
        self.lines = None if target is None else AccessLog(target)


def open_log(settings: LogSettings) -> LogTarget | None:
    """The access log's target, None where there is to be no log. Raises AccessLogError."""
    return open_target(settings.file) if settings.access else None
