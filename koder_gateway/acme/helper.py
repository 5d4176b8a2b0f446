"""The ACME process of one configuration: started, told which names are wanted, heard, and started anew if it ends."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from twisted.logger import Logger

from ..wire.framed_messages import framed
from .messages import Event, Names, Progress, Standing, Terms, chunks
from .process import AcmeProcess

# Seconds before a process that has ended is started again, doubled each time while it does not live for long.
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 300.0
# A process that has lived for so many seconds has started well.
_LONG_LIFE: Final = 60.0
# Seconds that a process may take to end.
PATIENCE: Final = 2.5
# How many bytes are written at once.
_PIECE: Final = 1 << 18


class AcmeHelper:
    """The process for `terms`.

    The owner says by `want` which names are to have certificates, calls `sweep` four times a second, and at last
    `end`. `orders` counts what has become of orders, by `messages.RESULTS`; `standing` is what the process said last;
    `changes` counts changes in the folder of certificates.
    """

    log = Logger()

    def __init__(self, terms: Terms, start: Callable[[Terms], AcmeProcess] = AcmeProcess) -> None:
        self.terms = terms
        self.orders: Counter[str] = Counter()
        self.standing: Standing | None = None
        self.changes = 0
        self._start = start
        self._process: AcmeProcess | None = None
        self._wanted: Mapping[str, str] = {}
        # Made as they are sent: a million names are many messages.
        self._unsent: deque[Iterator[Names]] = deque()
        self._data = memoryview(b"")
        self._next_start = self._started = -math.inf
        self._pause = _FIRST_PAUSE
        self._deadline = math.inf
        # Without its list there is nothing to do.
        self._told = False

    def want(self, wanted: Mapping[str, str], added: list[str], removed: list[str]) -> None:
        """The names that are to have a certificate from now on with their tenants, the newest last, and how they
        differ from those before. Nobody changes them any more."""
        self._wanted = wanted
        if not self._told:
            self._told = True
        elif self._process is not None and (added or removed):
            self._unsent.append(chunks(added, removed, wanted))

    def sweep(self, now: float) -> None:
        """Start the process if there is none, tell it what it has not heard, and hear it; `now` is monotonic
        seconds."""
        if self._process is None:
            if self._told and now >= self._next_start and self._deadline == math.inf:
                self._begin(now)
            return
        self._hear()
        if not self._process.alive:
            self._hear()
            self._gone(now)
        elif now >= self._deadline:
            self._process.kill()
            self._gone(now)
        elif self._deadline == math.inf:
            self._tell()

    def end(self, now: float) -> None:
        """End the process, which takes until `PATIENCE` at most; `sweep` is still called."""
        self._deadline = now + PATIENCE
        if self._process is not None:
            self._process.end()
        self.sweep(now)

    @property
    def over(self) -> bool:
        """Whether it is to end, and its process has."""
        return self._deadline < math.inf and self._process is None

    @property
    def pid(self) -> int | None:
        """The process, None while there is none."""
        return None if self._process is None else self._process.pid

    def _begin(self, now: float) -> None:
        self._started = now
        try:
            self._process = self._start(self.terms)
        except OSError as error:
            self._wait(now)
            self.log.error(
                "the ACME process cannot be started: {reason}; tried again in {seconds:.0f} s",
                reason=error.strerror or str(error),
                seconds=self._next_start - now,
            )
            return
        self._data = memoryview(b"")
        self._unsent = deque([chunks(self._wanted, (), self._wanted)])
        self._tell()

    def _wait(self, now: float) -> None:
        if now - self._started >= _LONG_LIFE:
            self._pause = _FIRST_PAUSE
        self._next_start = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _gone(self, now: float) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
        self._unsent.clear()
        self.standing = None
        self._wait(now)
        if self._deadline == math.inf:
            self.log.error(
                "the ACME process has ended; certificates stay as they are, and it is started again in "
                "{seconds:.0f} s",
                seconds=self._next_start - now,
            )

    def _tell(self) -> None:
        """Write what there is room for: the names may be many, and the process busy."""
        while self._process is not None and (self._data or self._unsent):
            if not self._data:
                message = next(self._unsent[0], None)
                if message is None:
                    self._unsent.popleft()
                    continue
                self._data = memoryview(framed(message))
            written = self._process.write(self._data[:_PIECE])
            if not written:
                return
            self._data = self._data[written:]

    def _hear(self) -> None:
        if self._process is not None:
            for progress in self._process.heard():
                self._take(progress)

    def _take(self, progress: Progress) -> None:
        self.orders.update(progress.orders)
        self.changes += progress.changed
        if progress.standing is not None:
            self.standing = progress.standing
        for event in progress.events:
            self._log(event)

    def _log(self, event: Event) -> None:
        write = {"warn": self.log.warn, "error": self.log.error}.get(event.level, self.log.info)
        write("acme: {text}", text=event.text)
