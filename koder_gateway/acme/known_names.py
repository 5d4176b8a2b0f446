"""Records and certificates beside each other: what each knows of the other, and how many there are of each kind."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import msgspec

from .issued import Issued, read_issued
from .layout import NameRecord, stem
from .messages import Standing, Terms
from .order_plan import OrderPlan, Pace
from .renewal import renewal_time
from .storage import Storage, StorageError

# Names that have left with failures.
MAX_LEFT: Final = 10_000
# Old certificates that are looked at each time.
_MAX_OLD: Final = 1000


class LeftNames:
    """Records of names that are not wanted any more, so that those that come back, as the domain of a tenant that was
    suspended, still wait for what has failed. The oldest ones are forgotten."""

    def __init__(self, most: int = MAX_LEFT) -> None:
        self._most = most
        self._records: dict[str, NameRecord] = {}

    def keep(self, record: NameRecord | None) -> None:
        """Remember a name, if it has failed."""
        if record is not None and record.attempts:
            self._records[record.name] = record
            if len(self._records) > self._most:
                del self._records[next(iter(self._records))]

    def take(self, name: str) -> NameRecord | None:
        """The record of one that comes back; its order is over."""
        record = self._records.pop(name, None)
        return None if record is None else msgspec.structs.replace(record, order_url="")


def describe(record: NameRecord, issued: Issued, now: float, part: float) -> None:
    """Note in a record what its new certificate says; the authority has said nothing yet of its renewal."""
    record.issuer, record.not_before, record.not_after = issued.issuer, issued.not_before, issued.not_after
    record.window, record.explanation, record.ask_again = None, "", now
    record.next_renewal = renewal_time(record, part)


def see_certificate(record: NameRecord, storage: Storage, now: float, part: float) -> None:
    """Put right a record that knows nothing of its certificate, or of one that is not there. Raises StorageError."""
    pem = storage.certificate(record.name)
    issued = None if pem is None else read_issued(pem)
    if issued is not None:
        describe(record, issued, now, part)
        record.state = "issued"
        return
    record.not_after = record.not_before = record.next_renewal = 0.0
    record.window = None
    if record.state == "issued":
        record.state = "waiting"


def digests(terms: Terms) -> tuple[str, str]:
    """What tells the authority of these terms from others, and the settings that may have to do with a fault."""
    of_account = (terms.contact, terms.ca, terms.eab, terms.keys, terms.profile)
    of_checks = (terms.challenge, terms.resolver, terms.check_port, terms.base_domain)
    return _digest(terms.directory.encode()), _digest(msgspec.json.encode((of_account, of_checks)))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def pace_for(storage: Storage, records: Iterable[NameRecord], directory: str, settings: str, now: float) -> Pace:
    """The pace that is kept. Where these `digests` are not those of the last time, nothing waits any more for what
    may be put right by that. Raises StorageError where it cannot be read.

    What the authority itself has asked for is obeyed, and what it said of one name; with another authority nothing of
    the last one is true. Looks whether a name leads here are cheap.
    """
    pace = storage.pace()
    before = pace.directory, pace.settings
    if before != (directory, settings):
        pace.directory, pace.settings = directory, settings
        if before[0]:
            _forgive(pace, records, before[0] != directory, now)
        # On a full disk it is kept with the next order.
        with suppress(StorageError):
            storage.keep_pace(pace)
    return pace


def _forgive(pace: Pace, records: Iterable[NameRecord], moved: bool, now: float) -> None:
    """Let go of waits, since settings have changed; `moved`: the authority is another one."""
    if moved or not pace.asked:
        pace.paused_until, pace.failures, pace.reason, pace.advice, pace.asked = 0.0, 0, "", "", False
    for record in records:
        if moved:
            record.order_url = ""
        if moved or record.of_all or record.state == "held":
            record.next_try, record.attempts = min(record.next_try, now), 0


def remove_old(storage: Storage, wanted: Iterable[str], now: float, part: float) -> bool:
    """Remove certificates that have ended, of names that are not wanted any more; whether there were any. Of very
    many some are looked at, from any on (`part`), so that none is always left out. Raises StorageError."""
    files = {stem(name) for name in wanted}
    removed = False
    left = [name for name in storage.certificates() if name not in files]
    first = int(part * len(left))
    for name in [*left[first:], *left[:first]][:_MAX_OLD]:
        pem = storage.certificate(name)
        issued = None if pem is None else read_issued(pem)
        if issued is None or issued.not_after < now:
            storage.forget_certificate(name)
            removed = True
    return removed


def standing_of(plan: OrderPlan | None, refused: int) -> Standing:
    """How many names there are in each state; `refused` are those beyond the bound."""
    standing = Standing(refused=refused)
    if plan is None:
        return standing
    standing.leads = True
    standing.paused_until = plan.pace.paused_until if plan.pace.failures else 0.0
    renewals = []
    for record in plan.records:
        if record.state in ("checking", "ordering"):
            standing.ordering += 1
        elif record.state == "held":
            standing.held += 1
        elif record.state == "failed":
            standing.failed += 1
        elif record.state == "issued":
            standing.issued += 1
        else:
            standing.waiting += 1
        if record.not_after:
            renewals.append(record.next_renewal)
    standing.next_renewal = min(renewals, default=0.0)
    return standing
