"""The limits of all workers as one list, for `/limits` and the status page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from ..ops.limits_page import RuleDocument
from ..policy.limit_report import SHOWN

# What each worker counts by itself.
_COUNTED: Final = ("admitted", "refused", "would_have_refused", "entries", "examined")


def merged_limits(workers: Sequence[Sequence[RuleDocument]]) -> list[RuleDocument]:
    """The rules of the first worker, with what the others say of the rules with the same name: counts are added up,
    `since` is the earliest. A key is shown as the worker knows it that has least left for it, so one that is over
    its limit in one worker and near it in another is over it.

    Workers between two generations of the configuration may know other rules; those are left out.
    """
    if not workers:
        return []
    others = [{rule["name"]: rule for rule in rules} for rules in workers[1:]]
    return [_merged([rule, *(each[rule["name"]] for each in others if rule["name"] in each)]) for rule in workers[0]]


def _merged(views: list[RuleDocument]) -> RuleDocument:
    least: dict[tuple[tuple[str, str], ...], tuple[str, dict[str, Any]]] = {}
    for view in views:
        for state in ("over", "near"):
            for use in view[state]:
                key = tuple(use["key"].items())
                before = least.get(key)
                # The same number may be left of a key in both states, of half a token.
                if before is None or (use["left"], state != "over") < (before[1]["left"], before[0] != "over"):
                    least[key] = state, use
    return {
        **views[0],
        **{name: sum(view[name] for view in views) for name in _COUNTED},
        # RFC 3339, all in UTC: these are in the order of their text.
        "since": min(view["since"] for view in views),
        "over": _fullest(least.values(), "over"),
        "near": _fullest(least.values(), "near"),
    }


def _fullest(uses: Iterable[tuple[str, dict[str, Any]]], state: str) -> list[dict[str, Any]]:
    return sorted((use for found, use in uses if found == state), key=lambda use: use["left"])[:SHOWN]
