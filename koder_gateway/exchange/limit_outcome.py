"""What the verdict of the limits means for an exchange."""

from __future__ import annotations

from ..errors import Refusal
from ..policy.decision import limit_refusal, undecided_refusal
from ..policy.meter import Crowded, LimitResult
from ..policy.shared_limits import Undecided
from .states import Exchange


def outcome_of(exchange: Exchange, verdict: LimitResult) -> Refusal | None:
    """Note what the exchange owes and what its responses say of its limits; its refusal, None if it may pass."""
    fields = verdict.fields
    if fields:
        exchange.fields += fields
        exchange.limited = True
    exchange.charges = verdict
    refused = verdict.refused
    if refused is None:
        return None
    return (
        undecided_refusal(refused.name)
        if isinstance(verdict, Undecided)
        else limit_refusal(refused.name, refused.in_flight, isinstance(verdict, Crowded))
    )


def release(verdict: LimitResult, now: float) -> None:
    """An exchange ended before this verdict came: nothing was forwarded, so it is no failure. `now` is monotonic
    seconds."""
    for meter, key in verdict.pending:
        meter.settle(key, False, now)
