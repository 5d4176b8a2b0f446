"""The step of `admission` that asks the limits, and what they ask of a request."""

from __future__ import annotations

from ..policy.limit_keys import Subject
from ..policy.limit_plan import STORE, Plan
from .limit_outcome import outcome_of
from .pending import Outcome
from .shared_decision import SharedDecision
from .states import Exchange


def limits(exchange: Exchange) -> Outcome:
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
        return judge_subject(exchange, plan, subject(exchange, plan))
    return outcome_of(exchange, verdict)


def judge_subject(exchange: Exchange, plan: Plan, subject: Subject) -> Outcome:
    """Charges a plan's limits for this subject. A shared store decides about them, unless it is away."""
    shared = exchange.context.policy.limiter.shared
    if shared is None or STORE not in plan.needs:
        return outcome_of(exchange, plan.judge_subject(subject, exchange.started))
    keys = plan.keys(subject)
    if shared.store.up:
        return SharedDecision(exchange, shared.plan(plan), keys, subject.network)
    return outcome_of(exchange, shared.plan(plan).without_store(keys, subject.network))


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
