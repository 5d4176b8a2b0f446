"""What became of every exchange of well-behaved clients, and which faults excuse those that failed.

A fault of the surroundings opens a window, which says what it excuses: an exchange that overlaps the window may be
refused, or cut, in the ways that the window names. Everything else that is no right answer is a failure of the
gateway, and so is a wrong answer at any time.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.soak.wire import Ask

# Failures that are told in words; the others are only counted.
_TOLD = 20
# Windows that have ended and may still excuse: an exchange lasts no longer than some of them.
_KEPT = 64
EVERY = ""


@dataclass
class Window:
    """A time in which a fault excuses something. `codes` are those of refusals, and "cut"; `service` and `tenant` are
    those that it is about, `EVERY` for all."""

    fault: str
    codes: frozenset[str]
    service: str = EVERY
    tenant: str = EVERY
    ended: float = float("inf")

    def excuses(self, code: str, ask: Ask | None, began: float) -> bool:
        """Whether it excuses an exchange that has ended now; of none, only what is about all of them."""
        about = (ask.service, ask.tenant) if ask else (EVERY, EVERY)
        named = all(mine in (EVERY, its) for mine, its in zip((self.service, self.tenant), about, strict=True))
        return named and code in self.codes and began <= self.ended


@dataclass
class Ledger:
    """Counts of exchanges. Its methods may be called by any thread."""

    right: Counter[str] = field(default_factory=Counter)
    """Right answers by the kind of client."""
    excused: Counter[str] = field(default_factory=Counter)
    """Exchanges that failed in an excused way, as "FAULT: CODE"."""
    failures: list[str] = field(default_factory=list)
    failed: int = 0
    rude: Counter[str] = field(default_factory=Counter)
    """What clients that are not well-behaved did, by kind."""
    windows: list[Window] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def window(self, fault: str, *codes: str, service: str = EVERY, tenant: str = EVERY) -> Iterator[None]:
        """Excuse these codes while the body runs."""
        made = Window(fault, frozenset(codes), service, tenant)
        with self._lock:
            self.windows = [*self.windows[-_KEPT:], made]
        try:
            yield
        finally:
            made.ended = time.monotonic()

    def answered(self, kind: str) -> None:
        """A right answer."""
        with self._lock:
            self.right[kind] += 1

    def missed(self, kind: str, code: str, ask: Ask | None, began: float, detail: str = "") -> None:
        """An exchange that was refused with this code, or "cut"; None: a connection that never was."""
        with self._lock:
            for window in self.windows:
                if window.excuses(code, ask, began):
                    self.excused[f"{window.fault}: {code}"] += 1
                    return
            target = f"{ask.tenant} at {ask.target}" if ask else "nothing yet"
            self._fail(f"{kind}: {code} of {target}, which no fault excuses: {detail}")

    def wrong(self, kind: str, detail: str) -> None:
        """An answer that is not what was asked for."""
        with self._lock:
            self._fail(f"{kind}: {detail}")

    def was_rude(self, kind: str) -> None:
        """A client that is not well-behaved has done what it does."""
        with self._lock:
            self.rude[kind] += 1

    def _fail(self, text: str) -> None:
        self.failed += 1
        if len(self.failures) < _TOLD:
            self.failures.append(text[:500])

    def least(self, kinds: frozenset[str]) -> int:
        """The fewest right answers that any of these kinds has."""
        with self._lock:
            return min(self.right[kind] for kind in kinds)
