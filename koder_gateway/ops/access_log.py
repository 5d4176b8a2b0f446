"""The access log: one line for each exchange, buffered, so that no exchange ever waits for it.

Lines are collected in memory and written once a second. If the target accepts nothing (a stuck pipe), the buffer
grows up to a bound; if it fails (a full disk), the buffer is dropped. In both cases the lost lines are counted, and
one event reports it, not one for each line.
"""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Callable

from twisted.logger import Logger

from ..exchange.ending import ExchangeLines
from ..exchange.states import Exchange
from .access_lines import LineFormat
from .writable import is_writable

_log = Logger()

# How many times `limit` the buffer may hold while its target accepts nothing.
_PATIENCE = 4
# How many bytes a writable pipe accepts without blocking the writer (POSIX, PIPE_BUF).
_PIPE_BUF = 4096


class AccessLogError(Exception):
    """A log file that cannot be opened; the text is one line."""


class AccessLog(ExchangeLines):
    """Collects the lines, in the format of `lines`.

    `write` takes bytes and returns how many it accepted, None for all of them. After a short count the rest is kept
    for the next time; OSError and ValueError (a closed file) drop the collected lines. `limit` is in bytes: beyond it
    the lines are written without waiting for `flush`.
    """

    def __init__(self, write: Callable[[bytes], object], lines: LineFormat, *, limit: int = 65_536) -> None:
        self._write = write
        self._line = lines.line
        self._limit = limit
        self._bound = limit * _PATIENCE
        self._due = limit
        self._buffer = bytearray()
        # The target ends inside a line: its rest is at the head of the buffer, or has been lost.
        self._cut = False
        self._torn = False
        self._failing = False
        self._reported = 0
        self.lines = 0
        """Lines collected since the start."""
        self.dropped = 0
        """Lines lost since the start."""

    def line(self, exchange: Exchange, limit: str, now: float, ended: float) -> None:
        """Add one exchange; see `ExchangeLines`."""
        if len(self._buffer) >= self._due and not self._has_room():
            return
        self.lines += 1
        self._buffer += self._line(exchange, limit, now, ended)

    def _has_room(self) -> bool:
        """Write the collected lines, unless that was just tried; returns whether there is room for one more line."""
        if len(self._buffer) < self._bound:
            self.flush()
        if len(self._buffer) < self._bound:
            return True
        self.dropped += 1
        return False

    @property
    def waiting(self) -> int:
        """Lines that have not been written yet."""
        return self._buffer.count(b"\n")

    def flush(self) -> None:
        """Write the collected lines; the owner calls this once a second and at its end. Raises nothing."""
        buffer = self._buffer
        if not buffer:
            return
        data = b"\n" + buffer if self._torn else bytes(buffer)
        try:
            taken = self._write(data)
        except (OSError, ValueError) as error:
            self._lose(error)
            return
        size = taken if isinstance(taken, int) else len(data)
        if size > 0:
            del buffer[: size - self._torn]
            self._torn = False
            self._cut = not data.endswith(b"\n", 0, size)
        self._due = min(len(buffer) + self._limit, self._bound)
        if not buffer and (self._failing or self.dropped > self._reported):
            self._recover()

    def _lose(self, error: Exception) -> None:
        """Drop the collected lines: they cannot be written, and memory must not grow with them."""
        self.dropped += self._buffer.count(b"\n")
        self._buffer.clear()
        self._torn |= self._cut
        self._cut = False
        self._due = self._limit
        if not self._failing:
            self._failing = True
            _log.error("the access log cannot be written and loses lines: {reason}", reason=str(error))

    def _recover(self) -> None:
        # A stuck target is only reported now: events may be written to the same target.
        _log.warn("the access log is written again; lines lost: {count}", count=self.dropped - self._reported)
        self._failing = False
        self._reported = self.dropped


class LogTarget:
    """A file, pipe or terminal that is written without blocking."""

    def __init__(self, descriptor: int, path: str = "") -> None:
        """`close` closes `descriptor` only if `path` shows that it was opened here."""
        self._path = path
        self._use(descriptor)

    def __call__(self, data: bytes) -> int:
        """Write; returns how many bytes were accepted, 0 if none can be now. Raises OSError."""
        if self._regular:
            return os.write(self._descriptor, data)
        start, size = 0, len(data)
        while start < size and self._poll.poll(0):
            end = start + _PIPE_BUF
            if end < size:
                # Whole lines where possible, so that the lines of other writers to a shared pipe do not split them.
                end = data.rfind(b"\n", start, end) + 1 or end
            try:
                start += os.write(self._descriptor, data[start:end])
            except BlockingIOError:
                break
        return start

    def reopen(self) -> None:
        """Open the path again, after a log rotation. Raises nothing: on failure the old file stays."""
        if not self._path:
            return
        try:
            fresh = _open(self._path)
        except AccessLogError as error:
            _log.error("{error}; the old file stays in use", error=str(error))
            return
        os.close(self._descriptor)
        self._use(fresh)

    def close(self) -> None:
        """Close the file; nothing may be written after that."""
        if self._path:
            os.close(self._descriptor)

    def _use(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)


def open_target(spec: str) -> LogTarget:
    """The target for a setting: "-" is the standard output, anything else a path to append to.

    Raises AccessLogError.
    """
    return LogTarget(1) if spec == "-" else LogTarget(_open(spec), spec)


def _open(path: str) -> int:
    # Without O_NONBLOCK a named pipe without a reader would block the start.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(path, flags, 0o640)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise AccessLogError(
            f"{path}: the access log cannot be opened: {reason}; set log.file to a file that the gateway may"
            ' write, or to "-"'
        ) from None


def log_fault(spec: str) -> str | None:
    """Why `open_target` would fail for a setting, as far as that can be tested without leaving a file; None if it
    would not."""
    path = os.path.realpath(spec)
    there = os.path.exists(path)
    needed = path if there else os.path.dirname(path)
    if spec == "-" or (os.access(path, os.W_OK) if there else is_writable(needed)):
        return None
    return (
        f'{needed} cannot be written; let the gateway\'s user write there, name another file, or write "-" for stdout'
    )
