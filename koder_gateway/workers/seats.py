"""A worker's place: as the supervisor sees it, and as the worker does."""

from __future__ import annotations

import math
import signal
from dataclasses import dataclass, field

from .channel import Channel
from .restart_policy import RestartPolicy
from .shared_pages import SharedPage


@dataclass(slots=True, eq=False)
class Seat:
    """One worker, and its successors when it dies; times are monotonic seconds."""

    number: int
    """From 1."""
    pid: int = 0
    """0 while there is no process."""
    channel: Channel | None = None
    ready: bool = False
    run: int = 0
    """How many processes there have been."""
    due: float = -math.inf
    """When the next process may start."""
    silent_until: float = math.inf
    """When it hangs if nothing is heard of it; the watchdog's, as are the next two."""
    ends: bool = False
    """Whether it has said that it ends."""
    hung: bool = False
    """Whether it has been killed because it hung."""
    figures: tuple[int, int, int] = (0, 0, 0)
    """Requests a second, connections and tenants, as the worker has said last; the status line's."""
    _since: float = 0.0
    _policy: RestartPolicy = field(default_factory=RestartPolicy)

    def begin(self, now: float) -> None:
        """A process starts."""
        self.run += 1
        self.figures = (0, 0, 0)
        self.ends = self.hung = False
        self._since = now

    def died(self, now: float) -> float:
        """The process has died. Returns the pause before the next one."""
        pause = self._policy.died(now - self._since)
        self.due = now + pause
        return pause

    def fate(self, code: int) -> str:
        """How the process has ended, by its exit code, negative for a signal."""
        if self.hung:
            return "hung and was killed"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    @property
    def hopeless(self) -> bool:
        """Whether every process dies at once."""
        return self._policy.hopeless


@dataclass(frozen=True, slots=True)
class WorkerSeat:
    """What a worker has of the supervisor: its number and how many processes had it, the channel, and the pages with
    the metrics, that of the supervisor first, then one for each worker; and whether systemd gets figures."""

    number: int
    run: int
    channel: Channel
    pages: tuple[SharedPage, ...]
    listened: bool = False
