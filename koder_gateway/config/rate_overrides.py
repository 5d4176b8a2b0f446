"""A tenant's own figures for some limits, as in `limits = { login = { rate = "600/m", burst = 300 } }`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..policy.limit_overrides import misfit
from ..policy.limit_rules import MAX_QUOTA, LimitRule, RateOverride
from .faults import BoundedFaults, Located, ReadError, below, nearest, shown, step
from .kinds import Kind, Where, whole, wrong_type
from .limit_entries import RATE
from .tables import Derived, made, setting

_ANYWHERE: Final = Where(Path("/"), Path("/"))


@dataclass(frozen=True, slots=True, kw_only=True)
class OverrideEntry:
    """One table of a tenant's limits."""

    rate: tuple[int, int] | None = setting(
        RATE,
        Derived("the limit's own"),
        about="In place of the limit's `rate`. Either this or `in_flight` must be given.",
    )
    burst: int | None = setting(
        whole(1, MAX_QUOTA),
        Derived("as many as `rate`"),
        about="In place of the limit's `burst`.",
    )
    in_flight: int | None = setting(
        whole(1, MAX_QUOTA),
        Derived("the limit's own"),
        about="In place of the limit's `in_flight`: how many requests may be under way.",
    )


def _override(entry: OverrideEntry) -> RateOverride:
    if (entry.rate is None) == (entry.in_flight is None):
        given = "is missing" if entry.rate is None else "is given as well as in_flight"
        raise ReadError([(".rate", f'{given}; write either a rate such as "600/m" or in_flight')])
    if entry.rate is None:
        if entry.burst is not None:
            raise ReadError([(".burst", "has no effect with in_flight; leave it out")])
        return RateOverride(in_flight=entry.in_flight or 0)
    quota, window = entry.rate
    return RateOverride(quota, window, entry.burst or quota)


_OVERRIDE: Final = made(OverrideEntry, _override)


def read_overrides(
    value: object, rules: Mapping[str, LimitRule] | None = None
) -> tuple[Mapping[str, RateOverride], list[Located]]:
    """The overrides that can be used, and the faults of the others. `rules` are the limits by name, None if they are
    not known; one that has no effect on them is told, and stays: the limits may be read again without the tenants."""
    if not isinstance(value, dict):
        return {}, list(wrong_type(value, 'a table; write it as in { login = { rate = "600/m" } }').faults)
    overrides: dict[str, RateOverride] = {}
    faults: list[Located] = []
    for name, given in value.items():
        try:
            overrides[name] = given if isinstance(given, RateOverride) else _OVERRIDE.read(given, _ANYWHERE)
        except ReadError as misread:
            faults += below(step(name), misread.faults)
        else:
            wrong = None if rules is None else misfit(rules.get(name), overrides[name])
            if wrong is not None and rules is not None:
                # Comparing takes long, and only the first faults are told.
                known = () if name in rules or len(faults) >= BoundedFaults.KEPT else rules
                faults.append((step(name), f"{shown(name)} {wrong}" + (f"; {nearest(name, known)}" if known else "")))
    return overrides, faults


def _read(value: Any, where: Where) -> Mapping[str, RateOverride]:
    overrides, faults = read_overrides(value)
    if faults:
        raise ReadError(faults)
    return overrides


OVERRIDES: Final = Kind("table of tables", _read, OverrideEntry, ".NAME.", shape=None)
