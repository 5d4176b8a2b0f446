"""The step of `admission` that asks the limits, and what they ask of a request."""

from __future__ import annotations

from ..errors import Refusal
from ..policy.decision import limit_refusal
from ..policy.limit_keys import Subject
from ..policy.limit_plan import Plan
from .states import Exchange


def limits(exchange: Exchange) -> Refusal | None:
    """Charges the limits that apply, and refuses what is over them; the response says what is left either way."""
    head, context = exchange.head, exchange.context
    plan = context.policy.limiter.plan(head.method, head.path, head.plain)
    if plan is None:
        return None
    if plan.sole is not None:
        verdict = plan.sole.judge(exchange.tenant, context.key, exchange.started)
    elif not plan.needs:
        verdict = plan.judge(exchange.tenant, context.key, exchange.started)
    else:
        verdict = plan.judge_subject(subject(exchange, plan), exchange.started)
    fields = verdict.fields
    if fields:
        exchange.fields += fields
        exchange.limited = True
    exchange.charges = verdict
    refused = verdict.refused
    return None if refused is None else limit_refusal(refused.name, refused.in_flight)


def subject(exchange: Exchange, plan: Plan) -> Subject:
    """What the rules of a plan ask of a request beside its tenant and network."""
    context, chosen = exchange.context, exchange.chosen
    return Subject(
        exchange.tenant,
        context.address.decode("ascii"),
        context.key,
        exchange.head,
        b"" if chosen is None else chosen.path,
    )
