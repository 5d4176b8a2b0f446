"""What a limiter makes of a request."""

from __future__ import annotations

from koder_gateway.policy.limit_rules import LimitRule
from koder_gateway.policy.limits import Limiter


def rules_of(limiter: Limiter, method: bytes, path: bytes) -> tuple[LimitRule, ...]:
    """The rules that apply to a request, in the order of the configuration."""
    plan = limiter.plan(method, path)
    return () if plan is None else plan.rules
