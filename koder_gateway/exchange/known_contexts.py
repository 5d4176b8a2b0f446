"""Contexts of clients that open one connection after another: most of these ask for what the one before did."""

from __future__ import annotations

from typing import Final

from ..policy.certificates import TlsInfo
from ..policy.decision import Policy
from ..wire.request_head import RequestHead
from .context import RequestContext, request_context

# How many contexts are kept, some 2 KiB each, and how long what names one may be.
_KEPT: Final = 1024
_LONGEST: Final = 512


class KnownContexts:
    """The contexts of one configuration, for connections to come. To be dropped with it."""

    def __init__(self) -> None:
        self._kept: dict[object, RequestContext] = {}

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._kept)

    def context(self, policy: Policy, head: RequestHead, peer: str, secured: TlsInfo | None) -> RequestContext:
        """See `request_context`. `secured` has to be the same object for what is the same, or nothing is found."""
        if type(peer) is not str or (secured is not None and secured.client):
            # What a balancer says of its client is no part of the address, and a client's certificate belongs to its
            # connection.
            return request_context(policy, head, peer, secured)
        key = (peer, head.host, head.origin, head.tenants, secured)
        kept = self._kept
        context = kept.get(key)
        if context is not None and context.fits(policy, head):
            return context
        context = request_context(policy, head, peer, secured)
        if context.lasting and _is_short(head):
            kept.pop(key, None)
            if len(kept) >= _KEPT:
                del kept[next(iter(kept))]
            kept[key] = context
        return context


def _is_short(head: RequestHead) -> bool:
    return len(head.host) + len(head.origin or b"") + sum(map(len, head.tenants)) <= _LONGEST
