"""The names of a gateway on their way to certificates: who orders, what is begun, and what becomes of it.

One thread takes `turn`; each name in flight has a thread of its own, in `NameWork`. All of them change the plan and
the records under one lock, and whatever is changed is kept at once.
"""

from __future__ import annotations

import heapq
import math
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from .faults import Fault, broken
from .issued import Issued
from .known_names import LeftNames, describe, pace_for, remove_old, see_certificate, standing_of
from .layout import NameRecord, stem
from .lease_file import LIFE
from .messages import Names, Standing
from .order_plan import MAX_NAMES, OrderPlan
from .order_run import unwanted
from .renewal import ask_after, is_overdue, renewal_time, rests_until
from .reporting import Report
from .storage import Storage, StorageError

# Seconds between two looks of each kind.
_RENEW_LEASE: Final = LIFE / 3
_LOOK_AT_LEASE: Final = 2.0
_LOOK_FOR_OVERDUE: Final = 10.0
_TIDY: Final = 3600.0
_STAND: Final = 1.0
_TELL_AGAIN: Final = 600.0
# Certificates whose authority is asked at once about their renewal.
_MAX_ASKS: Final = 50
# Records of new names that are kept at once.
_MAX_NEW: Final = 500


class Work(Protocol):
    """What is done in threads of their own."""

    def begin(self, record: NameRecord) -> None:
        """Check and order a name, a copy of whose record this is, and tell the coordinator."""

    def ask(self, records: list[NameRecord]) -> None:
        """Ask the authority when these certificates are to be renewed, and tell the coordinator. At most one at a
        time."""


class Coordinator:
    """Coordinates one gateway's names, and is the `Journal` of its orders. The owner sets `work`.
    `settings` are those of `known_names.digests`."""

    work: Work

    def __init__(
        self,
        storage: Storage,
        report: Report,
        rate: int,
        now: Callable[[], float],
        part: Callable[[], float],
        settings: tuple[str, str] = ("", ""),
    ) -> None:
        self._storage = storage
        self._report = report
        self._rate = rate
        self._now = now
        self._part = part
        self._settings = settings
        self._lock = threading.RLock()
        self._ending = threading.Event()
        self._wanted: dict[str, str] = {}
        self._complete = False
        self._plan: OrderPlan | None = None
        self._leads_until = 0.0
        self._lease_at = 0.0
        self._told_at = -math.inf
        self._running = 0
        self._asks: list[tuple[float, str]] = []
        self._asking = False
        self._turned_at = self._overdue_at = self._tidy_at = self._stand_at = 0.0
        self._stood: Standing | None = None
        self._left = LeftNames()
        self._refused = 0
        self._refusal_told = False
        self._unkept: deque[str] = deque()

    # What the thread of the process calls.

    def names(self, message: Names) -> None:
        """Names from the gateway."""
        with self._lock:
            for name in message.removed:
                if self._wanted.pop(name, None) is not None:
                    self._forget(name)
            fresh = [name for name in message.added if name not in self._wanted]
            self._wanted |= dict.fromkeys(message.added, "") | dict(zip(message.added, message.owners, strict=False))
            self._complete = self._complete or message.complete
            if self._plan is not None:
                self._keeping(lambda: self._add(fresh, {}, None))

    def turn(self) -> float:
        """Do what is due; in how many seconds there is more to do."""
        with self._lock:
            now = self._now()
            if now < self._turned_at - LIFE:
                # The clock was set back: what waits by the old one is read anew, with bounds.
                self._plan, self._leads_until = None, 0.0
                self._lease_at = self._overdue_at = self._tidy_at = self._stand_at = 0.0
            self._turned_at = now
            if now >= self._lease_at or self._lease_at > now + LIFE:
                self._look_at_lease(now)
            self._keeping(self._follow)
            if self._plan is not None:
                self._begin(self._plan, now)
                self._keeping(lambda plan=self._plan: self._keep_new(plan))  # type: ignore[misc]
                self._look_for_overdue(self._plan, now)
                self._ask(self._plan, now)
                self._tidy(now)
            self._stand(now)
            self._report.flush(now)
            return 0.25 if self._plan is not None and self._plan.in_flight else 0.5

    def end(self) -> None:
        """Give up what is under way; the next process goes on with it."""
        self._ending.set()
        with self._lock:
            self._plan = None
            self._keeping(self._storage.resign)

    # What the threads of names call: they are the `Journal` of an order, and tell how it ends.

    def may_order(self, name: str) -> bool:
        """See `Journal`."""
        with self._lock:
            plan = self._present(name)
            if not plan.may_order(name, self._now()):
                return False
            self._storage.keep_pace(plan.pace)
            self._keep(plan.get(name))
            return True

    def ordered(self, name: str, url: str) -> None:
        """See `Journal`."""
        with self._lock:
            record = self._present(name).get(name)
            if record is not None:
                record.order_url = url
                self._keep(record)

    def check(self, name: str) -> None:
        """See `Journal`."""
        with self._lock:
            self._present(name)

    def wait(self, seconds: float) -> None:
        """See `Journal`."""
        if self._ending.wait(seconds):
            raise unwanted()

    def held(self, name: str, words: str, advice: str) -> None:
        """A name does not lead here."""
        with self._lock:
            record = self._record(name)
            if record is not None and self._plan is not None:
                before = record.last_fault
                self._plan.held(name, words, advice, self._now())
                self._report.held(record, before, self._now())
                self._keeping(lambda: self._keep(record))

    def postponed(self, name: str) -> None:
        """No order may be sent now."""
        with self._lock:
            if self._plan is not None:
                self._plan.postponed(name, self._now())

    def failed(self, name: str, fault: Fault) -> None:
        """An order has failed."""
        with self._lock:
            now, record, plan = self._now(), self._record(name), self._plan
            if plan is None:
                return
            begins = plan.failed(name, fault, now)
            if record is not None:
                self._report.failed(record, fault, now)
                self._keeping(lambda: self._keep(record))
            if fault.scope != "name":
                self._keeping(lambda: self._storage.keep_pace(plan.pace))
            if begins:
                self._report.paused(fault, plan.pace.paused_until, now)

    def issued(self, name: str, issued: Issued) -> None:
        """A name has a certificate, which is in use."""
        with self._lock:
            now, record, plan = self._now(), self._record(name), self._plan
            if plan is None or record is None:
                self._report.changed()
                return
            renewed = record.not_after > 0
            describe(record, issued, now, self._part())
            record.earliest = rests_until(issued.not_before, issued.not_after, now) if renewed else 0.0
            was_paused = plan.pace.failures > 0
            plan.issued(name, now)
            self._report.issued(record, renewed, now)
            if not plan.pace.failures:
                self._report.well()
            self._keeping(lambda: self._keep(record))
            if was_paused:
                self._keeping(lambda: self._storage.keep_pace(plan.pace))
            heapq.heappush(self._asks, (record.ask_again, name))

    def suggested(self, name: str, window: tuple[float, float] | None, explanation: str, after: float | None) -> None:
        """The authority has said when a certificate is to be renewed; None: it has not."""
        with self._lock:
            record = self._record(name)
            if record is None or self._plan is None:
                return
            record.ask_again = self._now() + ask_after(after) * (1 + self._part() / 10)
            heapq.heappush(self._asks, (record.ask_again, name))
            if window is not None and window != record.window:
                if explanation and explanation != record.explanation:
                    self._report.say(
                        "warn", f"the authority asks for a renewal of {name}; it says why at {explanation}"
                    )
                record.window, record.explanation = window, explanation
                self._plan.renew_at(name, renewal_time(record, self._part()))
            self._keeping(lambda: self._keep(record))

    def finished(self) -> None:
        """The thread of a name has ended."""
        with self._lock:
            self._running -= 1

    def asked(self) -> None:
        """The questions of `Work.ask` are answered."""
        with self._lock:
            self._asking = False

    # The rest is under the lock.

    def _record(self, name: str) -> NameRecord | None:
        return None if self._plan is None else self._plan.get(name)

    def _present(self, name: str) -> OrderPlan:
        """The plan, as long as this gateway is the one that orders, and the name is wanted."""
        now = self._now()
        if self._plan is None or now >= self._leads_until or self._plan.get(name) is None:
            raise unwanted()
        return self._plan

    def _keep(self, record: NameRecord | None) -> None:
        if record is not None:
            self._storage.keep_record(record)

    def _keeping(self, keep: Callable[[], object]) -> None:
        """Keep something; where that fails it is told, once, and everything else goes on."""
        try:
            keep()
        except StorageError as error:
            self._tell(error)

    def _tell(self, error: StorageError) -> None:
        now = self._now()
        if not 0 <= now - self._told_at < _TELL_AGAIN:
            self._told_at = now
            fault = broken(str(error), error.advice)
            self._report.say("error", f"the state of certificates cannot be kept: {fault.text}")

    def _look_at_lease(self, now: float) -> None:
        try:
            leads = self._storage.lead(now)
        except StorageError as error:
            leads = now < self._leads_until
            self._tell(error)
        else:
            self._leads_until = now + LIFE * 2 / 3 if leads else 0.0
        self._lease_at = now + (_RENEW_LEASE if leads else _LOOK_AT_LEASE)
        if not leads:
            self._plan = None
        elif self._plan is None and self._complete and not self._running:
            self._keeping(lambda: self._load(now))
        elif self._plan is None:
            # The names are still to come; or threads from before the lease was lost have yet to see that.
            self._lease_at = now

    def _load(self, now: float) -> None:
        """Begin with what the last one has kept."""
        kept = {record.name: record for record in self._storage.records()}
        there = set(self._storage.certificates())
        pace = pace_for(self._storage, kept.values(), *self._settings, now)
        self._plan = OrderPlan(self._rate, self._part, (), pace, now, lambda name: self._wanted.get(name, ""))
        self._asks.clear()
        self._unkept.clear()
        self._refused = 0
        for name in kept.keys() - self._wanted.keys():
            self._storage.forget_record(name)
        # Those that are known have their place, however many there are.
        names = sorted(self._wanted, key=lambda name: name not in kept)
        self._add(names, kept, there)
        self._tidy_at = now

    def _add(self, names: list[str], kept: dict[str, NameRecord], there: set[str] | None) -> None:
        """Look after names. `there` are the certificates by their files' names, None for not known."""
        plan, now = self._plan, self._now()
        if plan is None:
            return
        for index, name in enumerate(names):
            record = kept.get(name)
            known = record is not None
            record = record or self._left.take(name)
            if record is None:
                # A later one in the list is newer.
                record = NameRecord(name=name, first_seen=now + index * 1e-6)
            if there is None or (stem(name) in there) != bool(record.not_after):
                see_certificate(record, self._storage, now, self._part())
            if not plan.add(record, now):
                self._refused += 1
                continue
            if record.not_after:
                heapq.heappush(self._asks, (record.ask_again, name))
            if not known:
                self._unkept.append(name)
        if self._refused and not self._refusal_told:
            self._refusal_told = True
            text = f"{self._refused} names are beyond the {MAX_NAMES} that one gateway looks after"
            self._report.say("error", text)

    def _keep_new(self, plan: OrderPlan) -> None:
        """Keep records of new names, a few at a time: there may be very many."""
        for _ in range(min(_MAX_NEW, len(self._unkept))):
            record = plan.get(self._unkept.popleft())
            if record is not None:
                self._keep(record)

    def _forget(self, name: str) -> None:
        if self._plan is not None:
            self._left.keep(self._plan.get(name))
            self._plan.remove(name)
            self._keeping(lambda: self._storage.forget_record(name))
            self._keeping(lambda: self._storage.forget_order_key(name))

    def _follow(self) -> None:
        if self._storage.follow():
            self._report.changed()

    def _begin(self, plan: OrderPlan, now: float) -> None:
        while (record := plan.begin(now)) is not None:
            self._running += 1
            self.work.begin(msgspec.structs.replace(record))

    def _ask(self, plan: OrderPlan, now: float) -> None:
        if self._asking or now < plan.pace.paused_until:
            return
        due: list[NameRecord] = []
        while self._asks and self._asks[0][0] <= now and len(due) < _MAX_ASKS:
            at, name = heapq.heappop(self._asks)
            record = plan.get(name)
            if record is not None and record.ask_again == at and now < record.not_after:
                due.append(msgspec.structs.replace(record))
        if due:
            self._asking = True
            self.work.ask(due)

    def _look_for_overdue(self, plan: OrderPlan, now: float) -> None:
        if now < self._overdue_at:
            return
        self._overdue_at = now + _LOOK_FOR_OVERDUE
        for record in plan.records:
            if not record.warned and is_overdue(record, now):
                record.warned = True
                self._report.overdue(record, now)
                self._keeping(lambda record=record: self._keep(record))  # type: ignore[misc]

    def _tidy(self, now: float) -> None:
        """Remove what was left by others, and old certificates of names that are not wanted any more."""
        if now < self._tidy_at:
            return
        self._tidy_at = now + _TIDY
        self._keeping(lambda: self._storage.tidy(now))
        self._keeping(lambda: self._remove_old(now))

    def _remove_old(self, now: float) -> None:
        if remove_old(self._storage, self._wanted, now, self._part()):
            self._report.changed()

    def _stand(self, now: float) -> None:
        if now < self._stand_at:
            return
        self._stand_at = now + _STAND
        standing = standing_of(self._plan, self._refused)
        if standing != self._stood:
            self._stood = standing
            self._report.stands(standing)
