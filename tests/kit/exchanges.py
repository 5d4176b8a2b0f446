"""Exchanges that have ended, to count and to log."""

from __future__ import annotations

from typing import Any

from koder_gateway.config import load
from koder_gateway.exchange.context import request_context
from koder_gateway.exchange.states import Exchange
from koder_gateway.ops.counters import Counters
from koder_gateway.tree.compose import make_policy
from koder_gateway.wire.request_head import RequestHead


def ended(
    status: int = 200, *, method: bytes = b"GET", minor: int = 1, http2: bool = False, **facts: Any
) -> Exchange:
    """An exchange that began at 0 and has ended so; `facts` are attributes of it."""
    head = RequestHead(method, b"/", minor, [])
    head.http2 = http2
    exchange = Exchange(head, request_context(_policy, head, "192.0.2.1", None), 0.0, b"r")
    exchange.status = status
    for name, value in facts.items():
        setattr(exchange, name, value)
    return exchange


def count(counters: Counters, service: str = "", status: int = 200, seconds: float = 0.1, **facts: Any) -> None:
    """Count one exchange that took so long."""
    counters.observe(ended(status, service=service, **facts), seconds)


_policy = make_policy(load(None), None)
