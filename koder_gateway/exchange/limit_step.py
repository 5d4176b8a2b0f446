"""The step of `admission` that asks the limits, and what they ask of a request."""

from __future__ import annotations

from collections.abc import Callable

from ..policy.client_id import NOBODY, by_form, by_head
from ..policy.limit_keys import Subject
from ..policy.limit_plan import STORE, Plan
from ..policy.limit_rules import CLIENT_ID
from ..wire.request_head import RequestHead
from .limit_outcome import outcome_of
from .pending import FIRST_PART, Outcome, Pending
from .shared_decision import SharedDecision
from .states import Exchange


def limits(exchange: Exchange) -> Outcome:
    """Charges the limits that apply, and refuses what is over them; the response says what is left either way."""
    head, context = exchange.head, exchange.context
    limiter, known = context.policy.limiter, head.plan
    if known is not None and known[0] is limiter:
        plan: Plan | None = known[1]
    else:
        plan = limiter.plan(head.method, head.path, head.plain)
        if head.raw:
            head.plan = limiter, plan
    if plan is None:
        return None
    if context.limits:
        plan = limiter.for_tenant(plan, exchange.tenant, context.limits)
    if plan.sole is not None:
        verdict = plan.sole.judge(exchange.tenant, context.key, exchange.started)
        if verdict.refused is not None:
            return outcome_of(exchange, verdict)
        # `outcome_of`, inlined: this runs for most requests.
        exchange.fields += verdict.fields
        exchange.limited = True
        exchange.charges = verdict
        return None
    if not plan.needs:
        return outcome_of(exchange, plan.judge(exchange.tenant, context.key, exchange.started))
    if CLIENT_ID not in plan.needs:
        return judge_subject(exchange, plan, subject(exchange), exchange.started)
    client = by_head(head)
    if client is None:
        return FormDecision(exchange, plan)
    return judge_subject(exchange, plan, subject(exchange, client), exchange.started)


def judge_subject(exchange: Exchange, plan: Plan, subject: Subject, now: float) -> Outcome:
    """Charges a plan's limits for this subject. A shared store decides about them, unless it is away. `now` is
    monotonic seconds."""
    shared = exchange.context.policy.limiter.shared
    if shared is None or STORE not in plan.needs:
        return outcome_of(exchange, plan.judge_subject(subject, now))
    keys = plan.keys(subject)
    if shared.store.up:
        return SharedDecision(exchange, shared.plan(plan), keys, subject.network)
    return outcome_of(exchange, shared.plan(plan).without_store(keys, subject.network))


def subject(exchange: Exchange, client: bytes = NOBODY) -> Subject:
    """What the rules of a plan ask of a request beside its tenant and network; `client` is its OAuth client."""
    context, chosen = exchange.context, exchange.chosen
    return Subject(
        exchange.tenant,
        context.address.decode("ascii"),
        context.key,
        exchange.head,
        b"" if chosen is None else chosen.path,
        client,
    )


def client_of(head: RequestHead, body: bytes) -> bytes:
    """The OAuth client of a request with this body."""
    client = by_head(head)
    return by_form(head, body[:FIRST_PART], len(body) < FIRST_PART) if client is None else client


class FormDecision(Pending):
    """The limits' decision about a request whose form says from which OAuth client it comes: once its first part is
    here. Always exactly that part is read, so that a client has no other key if its form comes in other pieces: of a
    form as long as that part, the end may still have to come."""

    __slots__ = ("_decided", "_exchange", "_plan")

    def __init__(self, exchange: Exchange, plan: Plan) -> None:
        self._exchange = exchange
        self._plan = plan
        self._decided: Callable[[Outcome], None] | None = None

    @property
    def wants_body(self) -> bool:
        """Until it is decided."""
        return self._decided is not None

    def then(self, decided: Callable[[Outcome], None]) -> None:
        """See Pending."""
        self._decided = decided

    def body_came(self, body: bytes, done: bool, now: float) -> None:
        """See Pending."""
        decided = self._decided
        if decided is None or not (done or len(body) >= FIRST_PART):
            return
        self._decided = None
        exchange = self._exchange
        client = by_form(exchange.head, body[:FIRST_PART], done and len(body) < FIRST_PART)
        decided(judge_subject(exchange, self._plan, subject(exchange, client), now))

    def cancel(self) -> None:
        """See Pending."""
        self._decided = None
