"""The export of spans under one configuration: what is collected, and the process that sends it, started anew if it
ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

from .exporter_process import ExporterProcess
from .recorder import BOUND, SpanRecorder
from .records import Progress, Terms

# Seconds before a process that has ended is started again.
_PAUSE: Final = 10.0
# Seconds that a process may take to end.
PATIENCE: Final = 2.5


class SpanExport:
    """Exports what `recorder` takes. The owner calls `sweep` four times a second, and at last `end`. `exported`,
    `lost` and `failures` are sums of `Progress`; `lost` are also the spans that a process had when it ended."""

    log = Logger()

    def __init__(self, terms: Terms, start: Callable[[Terms], ExporterProcess] = ExporterProcess) -> None:
        self.terms = terms
        self.recorder = SpanRecorder(self._write)
        self.exported = self.lost = self.failures = 0
        self._start = start
        self._process: ExporterProcess | None = None
        self._next_start = -math.inf
        self._deadline = math.inf
        self._ended = False

    def sweep(self, now: float) -> None:
        """Start the process if there is none, send what is collected, and hear how it goes; `now` is monotonic
        seconds."""
        if self._process is None:
            if now >= self._next_start and self._deadline == math.inf:
                self._begin(now)
            return
        self._hear()
        if not self._process.alive:
            self._hear()
            self._gone(now)
            return
        self.recorder.flush()
        if self._deadline < math.inf and not self._ended and not self.recorder.waiting:
            self._ended = True
            self._process.end()
        if now >= self._deadline:
            self._process.kill()
            self._gone(now)

    def end(self, now: float) -> None:
        """Send what is left, and end the process, which takes until `PATIENCE` at most; `sweep` is still called."""
        if self._process is None and self.recorder.waiting:
            self._begin(now)
        self._deadline = now + PATIENCE
        self.sweep(now)

    @property
    def over(self) -> bool:
        """Whether it has ended, and its process too."""
        return self._deadline < math.inf and self._process is None

    def _begin(self, now: float) -> None:
        try:
            self._process = self._start(self.terms)
        except OSError as error:
            self._next_start = now + _PAUSE
            self.log.error(
                "the exporter of spans cannot be started: {reason}; tried again in {seconds:g} seconds",
                reason=error.strerror or str(error),
                seconds=_PAUSE,
            )

    def _gone(self, now: float) -> None:
        """The process has ended, and all that it had is lost."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
        self.recorder.forget()
        self.lost = self.recorder.collected - self.exported
        self._next_start = now + _PAUSE
        if self._deadline == math.inf:
            self.log.error(
                "the exporter of spans has ended; it is started again in {seconds:g} seconds", seconds=_PAUSE
            )

    def _write(self, data: bytes) -> int:
        return 0 if self._process is None else self._process.write(data)

    def _hear(self) -> None:
        if self._process is not None:
            for progress in self._process.heard():
                self._count(progress)

    def _count(self, progress: Progress) -> None:
        self.exported += progress.exported
        self.lost += progress.lost
        self.failures += progress.failures
        url, gone = self.terms.url, self.lost + self.recorder.dropped
        if progress.fault:
            self.log.warn(
                "spans cannot be exported to {url}: {fault}; up to {bound} MiB of them wait, others are dropped",
                url=url,
                fault=progress.fault,
                bound=BOUND >> 20,
            )
        elif progress.fault is not None:
            self.log.warn("spans are exported to {url} again; lost so far: {count}", url=url, count=gone)
