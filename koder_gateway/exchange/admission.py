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
before it (`before_tree`), then each of `GUARDED` in a guard that wraps the rest, then `route`. A guarded step that
cannot decide at once answers with a `Pending`: the exchange waits (`admission_wait`), then takes the next step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ..errors import METHODS, NO_ROUTE, NOT_ALLOWED, Refusal
from ..policy.cors import READING
from ..policy.routing import Route
from .limit_step import limits
from .pending import Outcome, decide_now
from .states import Exchange


@dataclass(frozen=True, slots=True)
class Answer:
    """A 204 of the gateway's own, with these field lines beside the exchange's."""

    name: str
    fields: bytes = b""


Step = Callable[[Exchange], Outcome]
ALLOW: Final = b"Allow: " + b", ".join(METHODS) + b"\r\n"
PREFLIGHT: Final = Answer("preflight")
OPTIONS: Final = Answer("options", ALLOW)
CLOSED: Final = NOT_ALLOWED.because("This path is only open to certain client addresses.")


def admit(exchange: Exchange, body: bytes = b"") -> Refusal | Answer | Route:
    """What becomes of a request with this body; charges its limits. It waits for nothing: a step that cannot
    decide at once lets it pass."""
    outcome = before_tree(exchange)
    for step in GUARDED:
        outcome = outcome or _decided(step(exchange), exchange, body)
    return outcome or route(exchange)


def _decided(outcome: Outcome, exchange: Exchange, body: bytes) -> Refusal | None:
    if outcome is None or isinstance(outcome, Refusal):
        return outcome
    return decide_now(outcome, body, exchange.started)


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
    known = head.route
    if known is not None and known[0] is routes:
        chosen = exchange.chosen = known[1]
    else:
        chosen = exchange.chosen = routes.match(head.path)
        if head.raw:
            head.route = routes, chosen
    if chosen is None or chosen.service not in routes.guarded:
        return None
    for closed in routes.closed_routes(chosen, head.path, head.plain):
        if not context.comes_from(closed.allow):
            exchange.route = closed.path
            return CLOSED
    return None


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
