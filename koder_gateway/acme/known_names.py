"""Records and certificates beside each other: what each knows of the other, and how many there are of each kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from .issued import Issued, read_issued
from .layout import NameRecord, stem
from .messages import Standing
from .order_plan import OrderPlan
from .renewal import renewal_time
from .storage import Storage

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


def remove_old(storage: Storage, wanted: Iterable[str], now: float) -> bool:
    """Remove certificates that have ended, of names that are not wanted any more; whether there were any. Raises
    StorageError."""
    files = {stem(name) for name in wanted}
    removed = False
    for name in [name for name in storage.certificates() if name not in files][:_MAX_OLD]:
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
