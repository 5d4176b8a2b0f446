"""The log of events on standard error: text or JSON, from a level on; for systemd's journal a level before each line.

Never on standard output, which is the access log's. Until the gateway serves, events are held: a start that fails
says its faults, and nothing else, on the same stream.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec
from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText
from zope.interface import implementer

from .console import CRITICAL, DEBUG, ERROR, INFO, WARNING, is_journal, say

_JOURNAL_LEVELS: Final = {
    LogLevel.critical: CRITICAL,
    LogLevel.error: ERROR,
    LogLevel.warn: WARNING,
    LogLevel.info: INFO,
    LogLevel.debug: DEBUG,
}
_ORDER: Final[dict[object, int]] = {level: number for number, level in enumerate(reversed(_JOURNAL_LEVELS))}
_OF_JOURNAL: Final = {number: level for level, number in _JOURNAL_LEVELS.items()}
_encode: Final = msgspec.json.Encoder().encode


class EventFormat:
    """How events are written, from which level on, and whether they are yet. There is one for the process: its log is
    one."""

    def __init__(self) -> None:
        self.json = False
        self.least = LogLevel.info
        self._held: list[Callable[[], object]] | None = None

    def follow(self, *, format: str, level: str) -> None:
        """As `log.format` and `log.level` say."""
        self.json = format == "json"
        self.least = LogLevel.lookupByName(level)

    def hold(self) -> None:
        """Keep events from now on, until `release` or `drop`; or until the process ends, however that comes."""
        self._held = []
        atexit.register(self.release)

    def release(self) -> None:
        """Write what is kept, and each event at once from now on."""
        held, self._held = self._held, None
        for write in held or ():
            write()

    def drop(self) -> None:
        """Forget what is kept: the reason why the process ends has been told."""
        self._held = None

    def when_released(self, write: Callable[[], object]) -> None:
        """Call `write` now, or once nothing is held."""
        if self._held is None:
            write()
        else:
            self._held.append(write)


FORMAT: Final = EventFormat()


@implementer(ILogObserver)
class EventLog:
    """Writes each event with `write`, which takes bytes; an event that cannot be written is lost. `journal`:
    systemd's journal reads it, which has a time stamp of its own."""

    def __init__(
        self,
        write: Callable[[bytes], object] = lambda data: os.write(2, data),
        journal: bool | None = None,
        format: EventFormat = FORMAT,
    ) -> None:
        self._write = write
        self._journal = is_journal(os.environ, 2) if journal is None else journal
        self._format = format

    def __call__(self, event: LogEvent) -> None:
        """See ILogObserver."""
        self._format.when_released(lambda: self._log(event))

    def _log(self, event: LogEvent) -> None:
        level = event.get("log_level") or LogLevel.info
        if _ORDER[level] < _ORDER[self._format.least]:
            return
        text = _json(event, level) if self._format.json else self._text(event)
        if not text:
            return
        mark = f"<{_JOURNAL_LEVELS[level]}>" if self._journal else ""
        lines = "".join(f"{mark}{line}\n" for line in text.splitlines())
        try:
            self._write(lines.encode("utf-8", "backslashreplace"))
        except OSError:
            return

    def _text(self, event: LogEvent) -> str:
        return eventAsText(event, includeTimestamp=not self._journal, includeSystem=not self._journal)


def _json(event: LogEvent, level: LogLevel) -> str:
    """One object: when, how grave, which part of the gateway, and what; a failure's traceback is in the message."""
    message = eventAsText(event, includeTimestamp=False, includeSystem=False)
    if not message:
        return ""
    moment = datetime.fromtimestamp(event.get("log_time") or 0.0, UTC)
    line = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level.name,
        "logger": event.get("log_namespace") or "",
        "message": message,
    }
    # A surrogate, from a name that is no UTF-8, is not JSON.
    return _encode({key: value.encode("utf-8", "backslashreplace").decode() for key, value in line.items()}).decode()


def write_line(text: str, level: int, logger: str, format: EventFormat = FORMAT) -> None:
    """Write one line of a process that has no events, and holds none: as JSON if events are, else with the program's
    name before it. `level` is one of `console`."""
    if format.json:
        event = {"log_format": "{text}", "text": text, "log_time": time.time(), "log_namespace": logger}
        say(_json(event, _OF_JOURNAL[level]), level)
    else:
        say(f"koder-gateway: {text}", level)


# The value for twistd's --logger.
EVENT_LOG: Final = f"{__name__}.EventLog"
