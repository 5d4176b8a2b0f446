"""The beginning of an exchange: one way for HTTP/1.1, HTTP/2 and a stock request, and for `explain`."""

from __future__ import annotations

from typing import Final, Protocol

from ..errors import Refusal
from ..policy.certificates import TlsInfo
from ..policy.decision import Policy
from ..wire.identifiers import IdentifierSource
from ..wire.request_head import RequestHead
from .context import RequestContext, request_context
from .states import Exchange

_identifiers: Final = IdentifierSource()


class HeadSource(Protocol):
    """What a request's head has come on. `peer` is the address that it comes from."""

    peer: str

    def context_for(self, policy: Policy, head: RequestHead) -> RequestContext:
        """The context of a head that has come on it (`request_context`)."""

    def keep_context(self, context: RequestContext) -> Refusal | None:
        """This context is new here: keep it for heads to come, if it lasts. The refusal of a request with which its
        tenant would have more than its share of connections."""


class SingleHead(HeadSource):
    """The source of one head alone, which keeps nothing."""

    def __init__(self, peer: str, established: TlsInfo | None) -> None:
        self.peer = peer
        self._established = established

    def context_for(self, policy: Policy, head: RequestHead) -> RequestContext:
        """Made for this head."""
        return request_context(policy, head, self.peer, self._established)

    def keep_context(self, context: RequestContext) -> Refusal | None:
        """There is no other head to keep it for."""
        return None


def open_exchange(
    source: HeadSource,
    head: RequestHead,
    refusal: Refusal | None,
    kept: RequestContext | None,
    policy: Policy,
    now: float,
) -> Exchange:
    """The exchange that this head begins at `now`, in monotonic seconds.

    `refusal` is that of the head, or of what has come of its body. `kept` is the context that the source has kept.
    The exchange goes under the client's request id where that is well formed, else under a new one.
    """
    if kept is not None and kept.fits(policy, head):
        context = kept
    else:
        context = source.context_for(policy, head)
        # Whatever becomes of this request, the connection counts as this tenant's.
        full = source.keep_context(context)
        refusal = refusal or full
    exchange = Exchange(head, context, now, head.request_id or _identifiers.random_hex(32))
    exchange.refusal = refusal
    return exchange
