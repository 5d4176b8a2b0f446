"""The page `/limits` of the admin port: who is near a limit or over it, and what shadow limits would have refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from ..policy.limit_report import Figures, KeyUse, RuleUse, rule_uses
from ..policy.limit_rules import WINDOWS, LimitRule
from ..policy.limits import Limiter

_UNITS = {seconds: unit for unit, seconds in WINDOWS.items()}


RuleDocument = dict[str, Any]
"""One rule as `/limits` shows it."""


def limits_document(rules: Sequence[RuleDocument], store: str, epoch: float) -> dict[str, Any]:
    """The page's members. `store` says where buckets are kept, `epoch` is now in seconds since 1970."""
    return {"time": _time(epoch), "store": store, "rules": rules}


def rule_documents(limiter: Limiter, figures: Figures, now: float, epoch: float) -> list[RuleDocument]:
    """The rules as this process knows them. `now` is monotonic seconds, `epoch` the same moment in seconds since
    1970. Times in it are UTC (RFC 3339)."""
    return [
        _rule(use, counts, _time(epoch - (now - use.meter.since)))
        for use, counts in zip(rule_uses(limiter, figures, now), limiter.counts_as_it_is(), strict=True)
    ]


def rule_members(rule: LimitRule) -> dict[str, Any]:
    """What is configured of a rule, in the words of the configuration."""
    return {
        "name": rule.name,
        "key": list(rule.key),
        "rate": None if rule.in_flight else f"{rule.quota}/{_UNITS[rule.window]}",
        "burst": None if rule.in_flight else rule.burst,
        "in_flight": rule.in_flight or None,
        "paths": None if rule.paths is None else [path.decode("utf-8", "replace") for path in rule.paths],
        "methods": None if rule.methods is None else sorted(method.decode("ascii") for method in rule.methods),
        "mode": rule.mode,
        "charge": rule.charge,
    }


def _rule(use: RuleUse, counts: tuple[str, int, int, int], since: str) -> RuleDocument:
    _, admitted, refused, shadowed = counts
    return {
        **rule_members(use.meter.rule),
        "since": since,
        "admitted": admitted,
        "refused": refused,
        "would_have_refused": shadowed,
        "entries": use.entries,
        "examined": use.examined,
        "over": _keys(use.over),
        "near": _keys(use.near),
    }


def _keys(uses: Iterable[KeyUse]) -> list[dict[str, Any]]:
    return [{"key": dict(use.parts), "left": use.left, "of": use.most, "wait": use.wait} for use in uses]


def _time(epoch: float) -> str:
    return datetime.fromtimestamp(int(epoch), UTC).isoformat().replace("+00:00", "Z")
