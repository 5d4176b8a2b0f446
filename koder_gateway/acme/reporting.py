"""What the gateway is told: results of orders, lines for its log, and where everything stands."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable
from typing import Final

from .faults import Fault
from .layout import NameRecord
from .messages import Event, Progress, Standing

# Lines about single names in a minute: the others are counted, and `koder-gateway certificates` has them.
MAX_LINES: Final = 20
_MINUTE: Final = 60.0
# Lines that wait for the next message.
_MAX_EVENTS: Final = 30
# Characters of one line.
_LONGEST_LINE: Final = 1000


class Report:
    """Collects, until `send` takes it. `now` of each method is in seconds since the epoch. For one thread at a
    time."""

    def __init__(self, send: Callable[[Progress], None]) -> None:
        self._send = send
        self._orders: Counter[str] = Counter()
        self._events: list[Event] = []
        self._changed = False
        self._standing: Standing | None = None
        self._minute = 0.0
        self._lines = 0
        self._left_out = 0
        self._pause_reason = ""

    def issued(self, record: NameRecord, renewed: bool, now: float) -> None:
        """A name has a new certificate, which is in use."""
        self._orders["renewed" if renewed else "issued"] += 1
        self._changed = True
        until = day(record.not_after)
        how = "the certificate of {} is renewed" if renewed else "{} has its certificate"
        self._about_name("info", f"{how.format(record.name)}, by {record.issuer}, until {until}", now)

    def held(self, record: NameRecord, before: str, now: float) -> None:
        """A name does not lead here; `before` is what was wrong with it last time, which is not said again."""
        if record.last_fault != before:
            self._about_name("warn", f"{record.name} waits: {record.last_fault}; {record.advice}", now)

    def failed(self, record: NameRecord, fault: Fault, now: float) -> None:
        """An order has failed, or could not be sent."""
        self._orders[fault.result] += 1
        if fault.result == "abandoned":
            return
        said = f"{fault.text}; tried again in {duration(record.next_try - now)}"
        if record.not_after:
            said = f"the certificate of {record.name} is not renewed, and stays until {day(record.not_after)}: {said}"
        else:
            said = f"{record.name} gets no certificate: {said}"
        # What concerns all orders is told once, by `paused`.
        if fault.scope == "name":
            self._about_name("warn", said, now)

    def paused(self, fault: Fault, until: float, now: float) -> None:
        """No orders are sent for a while."""
        # Of this machine's own faults each names another file.
        reason = fault.scope if fault.scope == "local" else fault.words
        if reason != self._pause_reason:
            self._pause_reason = reason
            wait = duration(until - now)
            whose = "" if fault.scope == "local" else "the authority fails: "
            self._add(
                "error", f"no certificates are ordered for {wait}: {whose}{fault.text}; those that are there stay"
            )

    def well(self) -> None:
        """Orders succeed again."""
        if self._pause_reason:
            self._pause_reason = ""
            self._add("info", "certificates are ordered again")

    def overdue(self, record: NameRecord, now: float) -> None:
        """A renewal has not happened for too long."""
        left = record.not_after - now
        ends = f"ends in {duration(left)}" if left > 0 else "has ended"
        why = f": {record.last_fault}; {record.advice}" if record.last_fault else ""
        self._about_name("error", f"the certificate of {record.name} {ends}, and is not renewed{why}", now)

    def say(self, level: str, text: str) -> None:
        """Anything else."""
        self._add(level, text)

    def stands(self, standing: Standing) -> None:
        """Where everything stands."""
        self._standing = standing

    def changed(self) -> None:
        """The folder of certificates has changed."""
        self._changed = True

    def flush(self, now: float) -> None:
        """Send what there is."""
        if now - self._minute >= _MINUTE or now < self._minute:
            left_out, self._left_out = self._left_out, 0
            self._minute, self._lines = now, 0
            if left_out:
                self._add("warn", f"{left_out} more lines about names are left out; see koder-gateway certificates")
        if self._orders or self._events or self._changed or self._standing is not None:
            self._send(Progress(dict(self._orders), self._events, self._standing, self._changed))
            self._orders.clear()
            self._events, self._changed, self._standing = [], False, None

    def _about_name(self, level: str, text: str, now: float) -> None:
        if now - self._minute >= _MINUTE:
            self.flush(now)
        if self._lines < MAX_LINES:
            self._lines += 1
            self._add(level, text)
        else:
            self._left_out += 1

    def _add(self, level: str, text: str) -> None:
        if len(self._events) < _MAX_EVENTS:
            self._events.append(Event(level, text[:_LONGEST_LINE]))


def day(moment: float) -> str:
    """A time, for people."""
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def duration(seconds: float) -> str:
    """How long, for people."""
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 1.5 * size:
            return f"{round(seconds / size)} {name}s"
    return f"{max(1, round(seconds))} seconds"
