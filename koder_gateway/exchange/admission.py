"""What happens to a request, in order: the main job of the gateway. Each step passes it on, or says what it gets.

    unreadable    a request that can be read in two ways is refused, and one beyond its tenant's share of connections
    preflight     a browser's CORS question gets its response here
    whole_server  so does OPTIONS for the whole server
    too_large     a body that says beforehand that it is too large is refused
    tenant        whose request is it? Without an active tenant it is refused, but for some paths of a suspended one
    access        may its client use this path? A route with `allow` is open to some addresses only
    limits        how often may its client ask? What is over a limit is refused
    route         which service answers at its path?

`explain` takes all of them (`admit`). A request takes them on its way through the resource tree: the first four
before it (`before_tree`), then each of `GUARDED` in a guard that wraps the rest, then `route`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ..errors import METHODS, NO_ROUTE, NOT_ALLOWED, Refusal
from ..policy.cors import READING
from ..policy.decision import limit_refusal
from ..policy.limit_keys import Subject
from ..policy.limit_plan import Plan
from ..policy.routing import Route
from .states import Exchange


@dataclass(frozen=True, slots=True)
class Answer:
    """A 204 of the gateway's own, with these field lines beside the exchange's."""

    name: str
    fields: bytes = b""


Step = Callable[[Exchange], Refusal | None]
ALLOW: Final = b"Allow: " + b", ".join(METHODS) + b"\r\n"
PREFLIGHT: Final = Answer("preflight")
OPTIONS: Final = Answer("options", ALLOW)
CLOSED: Final = NOT_ALLOWED.because("This path is only open to certain client addresses.")


def admit(exchange: Exchange) -> Refusal | Answer | Route:
    """What becomes of a request; charges its limits."""
    outcome = before_tree(exchange)
    for step in GUARDED:
        outcome = outcome or step(exchange)
    return outcome or route(exchange)


def before_tree(exchange: Exchange) -> Refusal | Answer | None:
    """The steps before the tree. Most requests have neither the method nor the body that three of them are about."""
    head = exchange.head
    outcome: Refusal | Answer | None = exchange.refusal  # unreadable
    if outcome is None and head.method == b"OPTIONS":
        outcome = preflight(exchange) or whole_server(exchange)
    if outcome is None and head.length:
        outcome = too_large(exchange)
    return outcome


def preflight(exchange: Exchange) -> Answer | None:
    """The CORS filter: a preflight from an allowed origin gets the policy's fields in place of other CORS fields."""
    head, context = exchange.head, exchange.context
    fields = None if context.misplaced else context.policy.preflight(head, context.origins)
    if fields is None:
        return None
    exchange.tenant = context.whose(head)
    exchange.fields = b"X-Request-ID: %b\r\n%b%b" % (exchange.request_id, fields, context.hsts)
    return PREFLIGHT


def whole_server(exchange: Exchange) -> Answer | None:
    """OPTIONS for the whole server, or for the gateway itself (RFC 9110 sections 9.3.7 and 7.6.2)."""
    return OPTIONS if exchange.head.path == b"*" and not exchange.context.misplaced else None


def too_large(exchange: Exchange) -> Refusal | None:
    """A body of known length; others are counted as they come."""
    return exchange.context.policy.body_refusal(exchange.head)


def tenant(exchange: Exchange) -> Refusal | None:
    """Lets requests of active tenants pass, and at some paths those of suspended ones; says whose the exchange is."""
    context = exchange.context
    found = context.tenant
    if isinstance(found, Refusal):
        head = exchange.head
        exchange.tenant = context.whose(head)
        allowed = context.suspended is not None and context.policy.suspended_allow.covers(head.path)
        return None if allowed else found
    exchange.tenant = found.wire
    return None


def access(exchange: Exchange) -> Refusal | None:
    """Chooses the route by the longest path, and refuses clients that may not use it, before they can use up a limit
    of those who may."""
    head, context = exchange.head, exchange.context
    routes = context.policy.routes
    chosen = exchange.chosen = routes.match(head.path)
    if chosen is None or not (chosen.allow or (routes.closed and not head.plain)):
        return None
    for closed in routes.closed_routes(chosen, head.path, head.plain):
        if not context.comes_from(closed.allow):
            exchange.route = closed.path
            return CLOSED
    return None


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
    return None if verdict.refused is None else limit_refusal(verdict.refused.name)


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


def route(exchange: Exchange) -> Refusal | Route:
    """The route that `access` has chosen; any page may read what comes from a public one."""
    chosen = exchange.chosen
    if chosen is None:
        return NO_ROUTE
    exchange.route = chosen.path
    if chosen.public and not exchange.readable and exchange.head.method in READING:
        exchange.fields += exchange.context.policy.cors.public_fields
        exchange.readable = True
    return chosen


# The steps that a guard takes, from the outermost to the innermost.
GUARDED: Final[tuple[Step, ...]] = (tenant, access, limits)
