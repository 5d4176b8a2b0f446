"""Logs which addresses get no response to refused requests any more, and what to check."""

from __future__ import annotations

from twisted.logger import Logger

from ..policy.limit_keys import address_text
from ..policy.limit_rules import LimitRule
from ..policy.limits import Limiter
from ..wire.clock import CoarseClock
from ..wire.rate_limited_log import RateLimitedLog

_UNITS = {1: "s", 60: "m", 3600: "h"}


class RefusedAddresses:
    """One line for each address and episode, rate-limited; the owner calls `tell` about every second."""

    log = Logger()

    def __init__(self, clock: CoarseClock) -> None:
        self._fault_log = RateLimitedLog(clock, self.log.warn)

    def tell(self, limiter: Limiter, now: float) -> None:
        """Log the addresses that have passed a limit on refusals since the last call."""
        rules = {rule.name: rule for rule in limiter.refusal_rules}
        for name, key in limiter.over.begun():
            rule = rules.get(name)
            if rule is not None:
                self._fault_log.warn(_line(rule, address_text(key)))
        self._fault_log.sweep(now)


def _line(rule: LimitRule, address: str) -> str:
    return (
        f"{address} has reached the limit on refusals, limits.{rule.name} ({rule.burst} at once,"
        f" {rule.quota}/{_UNITS[rule.window]}): requests that would be refused get no response"
        " and their connections close, and other requests are served; if it is your proxy, add"
        " it to listen.trusted_proxies"
    )
