"""Which name is looked at next, and whether an order may be sent: decided here, done elsewhere.

A name is in flight from `begin` until `done`: it is checked, and then ordered if `may_order`. Of the names that are
ready the newest goes first, but every fourth turn is that of the name that has waited for longest, and every fourth
that of the certificate that ends first: however many come, none waits for ever.

Tenants take turns before any of this, or one with thousands of domains would be alone here (start-time fair
queueing, Goyal et al. 1996): a name that becomes ready gets a round, the present one or the next after that of its
tenant's name before it, and earlier rounds go first.

The orders of the last hour are counted before they are sent, so not even a process that is killed sends more.

Times are seconds since the epoch, given by the caller; `part` gives random numbers from 0 to 1.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

import msgspec

from .faults import LONGEST_PATIENCE, Fault
from .layout import NameRecord
from .renewal import retry_latest

# Names that are checked or ordered at the same time.
MAX_IN_FLIGHT: Final = 4
# Names that one gateway looks after; that many are renewed at 70 orders an hour.
MAX_NAMES: Final = 100_000
_HOUR: Final = 3600.0
# Seconds until a name that does not lead here is looked at again, doubled each time; a look is cheap.
_FIRST_LOOK: Final = 60.0
_LATEST_LOOK: Final = 3600.0
# The same after an order that the authority has refused: it counts these.
_FIRST_RETRY: Final = 600.0
# The same where it found no answer to a challenge, which may be mended within seconds. Let's Encrypt allows five of
# these an hour for one name: with four times as long each time, there are never more.
_CHALLENGE_CODES: Final = frozenset(("connection", "dns", "incorrectResponse", "tls", "unauthorized"))
_FIRST_VALIDATION: Final = 30.0
_VALIDATION_GROWTH: Final = 4.0
# The same for all orders, when the authority fails, and when the account or this machine does.
_FIRST_PAUSE: Final = 30.0
_LONGEST_PAUSE: Final = 3600.0
# What is added to each of these, or taken from it, at random.
_JITTER: Final = 0.25
_TURNS: Final = ("newest", "renewal", "newest", "oldest")


class Pace(msgspec.Struct, kw_only=True):
    """What all orders have to wait for, as it is kept: the times of those of the last hour, and until when the
    authority is left alone, after how many failures in a row, and why. `asked`: the authority has named that time.
    `directory` and `settings` tell whether any of it is still true: see `known_names.pace_for`."""

    times: list[float] = []
    paused_until: float = 0.0
    failures: int = 0
    reason: str = ""
    advice: str = ""
    asked: bool = False
    directory: str = ""
    settings: str = ""


class OrderPlan:
    """The names of a gateway. `rate` is the most orders in any hour. `owner` says whose a name is, "" if no tenant's,
    which is a tenant by itself here. Records that it gets are its own, and it changes them; whoever calls keeps them
    after `done`."""

    def __init__(
        self,
        rate: int,
        part: Callable[[], float],
        records: Iterable[NameRecord] = (),
        pace: Pace | None = None,
        now: float = 0.0,
        owner: Callable[[str], str] = str,
    ) -> None:
        self._rate = rate
        self._owner = owner
        self._part = part
        self._records: dict[str, NameRecord] = {}
        self._future: list[tuple[float, float, str]] = []
        self._ready: dict[str, list[tuple[int, float, str]]] = {"newest": [], "renewal": [], "oldest": []}
        # The round of the name that was begun last, and of each tenant the first that its next name may have.
        self._round = 0
        self._rounds: dict[str, int] = {}
        # When each name is ready; entries of the heaps with another time are stale.
        self._at: dict[str, float] = {}
        self._waits: set[str] = set()
        self._in_flight: set[str] = set()
        self._turn = 0
        self.pace = pace or Pace()
        self._times = deque(sorted(min(time, now) for time in self.pace.times)[-rate:])
        # A clock that was set back must not stop orders for long.
        self.pace.paused_until = min(self.pace.paused_until, now + LONGEST_PATIENCE)
        for record in records:
            self.add(record, now)

    def add(self, record: NameRecord, now: float) -> bool:
        """Look after a name from now on; whether there is room for it."""
        if record.name not in self._records and len(self._records) >= MAX_NAMES:
            return False
        if record.state in ("checking", "ordering"):
            # Its process has ended, and it is taken up at once.
            record.state = "issued" if record.not_after else "waiting"
            record.next_try = min(record.next_try, now)
        # Nor must it stop one name.
        record.next_try = min(record.next_try, now + LONGEST_PATIENCE)
        self._records[record.name] = record
        self._schedule(record)
        return True

    def remove(self, name: str) -> None:
        """Forget a name; one in flight ends when it is done."""
        self._records.pop(name, None)
        self._at.pop(name, None)
        self._waits.discard(name)

    def get(self, name: str) -> NameRecord | None:
        """The record of a name."""
        return self._records.get(name)

    @property
    def records(self) -> Iterable[NameRecord]:
        """All records."""
        return self._records.values()

    @property
    def in_flight(self) -> frozenset[str]:
        """The names that are checked or ordered."""
        return frozenset(self._in_flight)

    def begin(self, now: float) -> NameRecord | None:
        """The next name, which is in flight then; None if none is to be begun now."""
        if not self._has_room(now):
            return None
        self._ripen(now)
        name = self._choose()
        if name is None:
            return None
        self._in_flight.add(name)
        record = self._records[name]
        record.state = "checking"
        record.last_try = now
        return record

    def may_order(self, name: str, now: float) -> bool:
        """Count an order that is about to be sent, if one may be; `pace.times` are kept before it is."""
        self._forget_times(now)
        record = self._records.get(name)
        if record is None or name not in self._in_flight or len(self._times) >= self._rate:
            return False
        self._times.append(now)
        self.pace.times = list(self._times)
        record.state = "ordering"
        return True

    def held(self, name: str, words: str, advice: str, now: float) -> None:
        """A name does not lead here: it is looked at again, ever less often."""
        self._failed(name, Fault("held", "name", words, advice), now, _FIRST_LOOK, _LATEST_LOOK)

    def postponed(self, name: str, now: float) -> None:
        """A name was ready, but nothing was tried: it is ready again soon."""
        record = self._land(name)
        if record is not None:
            record.state = "issued" if record.not_after else "waiting"
            record.next_try = now + self._jittered(_FIRST_PAUSE)
            self._schedule(record)

    def failed(self, name: str, fault: Fault, now: float) -> bool:
        """An order has failed. What it is the fault of waits; whether all orders do from now on."""
        record = self._records.get(name)
        if fault.scope == "name":
            latest = _LONGEST_PAUSE if record is None else retry_latest(record, now)
            if fault.result == "rejected" and fault.code in _CHALLENGE_CODES:
                self._failed(name, fault, now, _FIRST_VALIDATION, latest, _VALIDATION_GROWTH)
            else:
                self._failed(name, fault, now, _FIRST_RETRY, latest)
            return False
        # Its own wait as well: a name at which the authority fails must not hold up the others.
        self._failed(name, replace(fault, after=None), now, _FIRST_LOOK, _LATEST_LOOK)
        if record is not None:
            record.of_all = True
        return self.pause(fault, now)

    def issued(self, name: str, now: float) -> None:
        """A name has a certificate, whose times its record has: `next_renewal` above all. An order that was under way
        before a pause ends none: the authority is asked again when it wants."""
        if now >= self.pace.paused_until:
            self.well()
        record = self._land(name)
        if record is not None:
            record.state = "issued"
            record.attempts, record.next_try = 0, 0.0
            record.last_fault = record.advice = record.order_url = ""
            record.warned = False
            self._schedule(record)

    def renew_at(self, name: str, at: float) -> None:
        """The authority suggests another time for a renewal."""
        record = self._records.get(name)
        if record is not None:
            record.next_renewal = at
            if name not in self._in_flight:
                self._schedule(record)

    def pause(self, fault: Fault, now: float) -> bool:
        """Leave the authority alone for a while: as long as it asks, else ever longer; whether this begins now. Those
        that were in flight together fail together, and that is one failure."""
        pace = self.pace
        paused = now < pace.paused_until
        if paused and fault.after is None:
            return False
        pace.failures += not paused
        pause = min(_FIRST_PAUSE * 2.0 ** min(pace.failures - 1, 16), _LONGEST_PAUSE)
        wait = self._jittered(pause) if fault.after is None else max(fault.after, 1.0) + pause * self._part() / 8
        pace.asked = fault.after is not None or fault.result == "limited" or (paused and pace.asked)
        pace.paused_until = max(pace.paused_until, now + min(wait, LONGEST_PATIENCE))
        pace.reason, pace.advice = fault.words, fault.advice
        return not paused

    def well(self) -> None:
        """The authority answers as it should."""
        self.pace.failures, self.pace.reason, self.pace.advice = 0, "", ""

    def next_look(self, now: float) -> float:
        """When `begin` may have something to say, at the latest if nothing else happens."""
        if self._in_flight and not self._has_room(now):
            return math.inf
        soonest = self.pace.paused_until
        self._forget_times(now)
        if len(self._times) + len(self._in_flight) >= self._rate and self._times:
            soonest = max(soonest, self._times[0] + _HOUR)
        if soonest > now:
            return soonest
        self._ripen(now)
        if any(self._ready.values()):
            return now
        return self._future[0][0] if self._future else math.inf

    def _has_room(self, now: float) -> bool:
        if now < self.pace.paused_until:
            return False
        self._forget_times(now)
        # After failures one order finds out whether it is well again.
        most = 1 if self.pace.failures else MAX_IN_FLIGHT
        return len(self._in_flight) < min(most, self._rate - len(self._times))

    def _forget_times(self, now: float) -> None:
        while self._times and self._times[0] <= now - _HOUR:
            self._times.popleft()

    def _schedule(self, record: NameRecord) -> None:
        at = max(record.next_try, record.next_renewal if record.not_after else 0.0)
        self._at[record.name] = at
        self._waits.add(record.name)
        heapq.heappush(self._future, (at, -record.first_seen, record.name))

    def _ripen(self, now: float) -> None:
        while self._future and self._future[0][0] <= now:
            at, _, name = heapq.heappop(self._future)
            if self._at.get(name) != at or name not in self._waits:
                continue
            record = self._records[name]
            number = self._round_of(name)
            heapq.heappush(self._ready["oldest"], (number, at or record.first_seen, name))
            if record.not_after:
                heapq.heappush(self._ready["renewal"], (number, record.not_after, name))
            elif not record.attempts:
                heapq.heappush(self._ready["newest"], (number, -record.first_seen, name))
            self._waits.discard(name)

    def _round_of(self, name: str) -> int:
        owner = self._owner(name) or name
        number = max(self._round, self._rounds.get(owner, 0))
        if len(self._rounds) >= MAX_NAMES:
            # Those of the past say nothing any more.
            self._rounds = {each: first for each, first in self._rounds.items() if first > self._round}
        self._rounds[owner] = number + 1
        return number

    def _choose(self) -> str | None:
        turn = _TURNS[self._turn % len(_TURNS)]
        for which in (turn, "newest", "renewal", "oldest"):
            heap = self._ready[which]
            while heap:
                number, _, name = heapq.heappop(heap)
                if self._is_ready(name):
                    self._turn += 1
                    self._round = max(self._round, number)
                    return name
        return None

    def _is_ready(self, name: str) -> bool:
        return name in self._records and name not in self._in_flight and name not in self._waits

    def _land(self, name: str) -> NameRecord | None:
        self._in_flight.discard(name)
        return self._records.get(name)

    def _failed(self, name: str, fault: Fault, now: float, first: float, latest: float, growth: float = 2.0) -> None:
        record = self._land(name)
        if record is None:
            return
        record.attempts += 1
        wait = self._jittered(min(first * growth ** min(record.attempts - 1, 16), latest))
        wait = wait if fault.after is None else max(fault.after, 1.0)
        record.state = "held" if fault.result == "held" else "failed"
        record.last_fault, record.advice, record.of_all = fault.words, fault.advice, False
        if fault.result in ("rejected", "abandoned"):
            # Any other order is gone on with.
            record.order_url = ""
        record.next_try = now + min(wait, LONGEST_PATIENCE)
        self._schedule(record)

    def _jittered(self, seconds: float) -> float:
        return seconds * (1 + _JITTER * (2 * self._part() - 1))
