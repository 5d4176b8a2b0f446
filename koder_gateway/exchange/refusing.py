"""The shape of a refusal, which depends on who reads it: a person, an OAuth client, or any other program."""

from __future__ import annotations

from ..errors import RATE_LIMITED, Refusal
from ..policy.decision import OAUTH_SERVICE
from ..wire.accept import may_prefer_page, prefers_page
from ..wire.error_page import advice_until
from ..wire.refusal_writer import JsonShape, RefusalShape
from .states import Exchange


def refusal_response(exchange: Exchange, refusal: Refusal) -> tuple[bytes, bytes]:
    """The field lines (besides `OWN_FIELDS`) and the body of the response to a request that is refused.

    A client that prefers a page gets one, in the name of the request's tenant. Else an OAuth service's path gets an
    OAuth error, and any other path problem details.
    """
    head, context = exchange.head, exchange.context
    shape = head.shape
    # A head may be met again, after a reload too.
    if shape is None or shape.writer is not context.policy.refusals:
        shape = head.shape = _chosen(exchange)
    if isinstance(shape, JsonShape):
        return shape.write(refusal, exchange.request_id)
    tenant = exchange.tenant or context.whose(head)
    if refusal.code == RATE_LIMITED.code:
        return context.policy.refusals.page.write(refusal, exchange.request_id, tenant, advice_until(exchange.fields))
    return shape.write(refusal, exchange.request_id, tenant)


def _chosen(exchange: Exchange) -> RefusalShape:
    head, policy = exchange.head, exchange.context.policy
    page = head.page
    if page is None:
        # Most clients are programs, which is seen without a look at each field.
        page = head.page = may_prefer_page(head.raw) and prefers_page(head.fields)
    if page:
        return policy.refusals.page
    # Limits refuse where the route is known, most other refusals are before that.
    route = exchange.chosen or policy.routes.match(head.path)
    if route is not None and route.service == OAUTH_SERVICE:
        return policy.refusals.oauth(head.value(b"authorization"))
    return policy.refusals.problem
