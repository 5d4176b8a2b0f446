"""The shape of a refusal, which depends on who reads it: a person, an OAuth client, or any other program."""

from __future__ import annotations

from ..errors import Refusal
from ..wire.accept import prefers_page
from .states import Exchange


def refusal_response(exchange: Exchange, refusal: Refusal) -> tuple[bytes, bytes]:
    """The field lines (besides `OWN_FIELDS`) and the body of the response to a request that is refused.

    A client that prefers a page gets one, in the name of the request's tenant. Else an OAuth service's path gets an
    OAuth error, and any other path problem details.
    """
    head, context = exchange.head, exchange.context
    policy = context.policy
    page = head.page
    if page is None:
        page = head.page = prefers_page(head.fields)
    if page:
        return policy.refusals.page(refusal, exchange.request_id, exchange.tenant or context.whose(head))
    if policy.speaks_oauth(head.path):
        authorization = head.value(b"authorization") if refusal.status == 400 else None
        return policy.refusals.oauth(refusal, exchange.request_id, authorization)
    return policy.refusals.problem(refusal, exchange.request_id)
