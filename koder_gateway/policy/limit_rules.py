"""The rules of rate limits, as they are configured."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

WINDOWS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# How a header is named as a part of a key: `header:X-API-Key`. In a rule its name is in lower case.
HEADER = "header:"
# The part of a key that is an OAuth client.
CLIENT_ID = "client_id"
# The statuses of a service's responses that count as failures by default: a 404, 409 or 422 is no guess of a secret.
FAILURES = (400, 401, 403)
# Beyond this a bucket's number could not count single tokens on a machine that has been up for months.
MAX_QUOTA = 10_000_000
MAX_IN_FLIGHT = 1_000_000
_RATE = re.compile(r"([0-9]{1,9})/([smhd])")


def parse_rate(text: str) -> tuple[int, int]:
    """The quota and its window in seconds of a rate such as `10/m`; the ValueError says what would be right."""
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(f'"{text}" is not a rate; write a number and s, m, h or d, as in "10/m"')
    quota = int(match[1])
    if not 1 <= quota <= MAX_QUOTA:
        raise ValueError(f'"{text}" is out of range; the number must be from 1 to {MAX_QUOTA}')
    return quota, WINDOWS[match[2]]


@dataclass(frozen=True, slots=True)
class RateOverride:
    """What a tenant has in place of a rule's own figures: `quota` requests per `window` seconds, at most `burst` of
    them at once (0 means the quota); or at most `in_flight` requests under way, and then the others are 0."""

    quota: int = 0
    window: int = 0
    burst: int = 0
    in_flight: int = 0


@dataclass(frozen=True, slots=True)
class LimitRule:
    """One configured limit: `quota` requests per `window` seconds, at most `burst` of them at once; or at most
    `in_flight` requests under way, and then `quota` and `burst` mean nothing.

    `key` names what has a bucket of its own. `paths` (prefixes by whole segments, in any spelling) and `methods`
    narrow the rule; None means all. A "shadow" rule only counts what it would refuse. With charge "failures" only
    failed responses are charged, those with one of the `statuses`; with "refusals", which is by address alone, only
    what the gateway itself refuses. `burst` 0 means the quota. Of an IPv6 address the first `ipv6_prefix` bits count.
    `on_failure` says what happens where a shared store cannot decide: the buckets in this process do, the rule lets
    everything pass, or it refuses everything.
    """

    name: str
    key: tuple[str, ...]
    quota: int
    window: int
    burst: int = 0
    paths: tuple[bytes, ...] | None = None
    methods: frozenset[bytes] | None = None
    mode: Literal["enforce", "shadow"] = "enforce"
    charge: Literal["requests", "failures", "refusals"] = "requests"
    ipv6_prefix: int = 64
    on_failure: Literal["local", "open", "closed"] = "local"
    in_flight: int = 0
    statuses: frozenset[int] = frozenset(FAILURES)

    def __post_init__(self) -> None:
        if not self.burst:
            object.__setattr__(self, "burst", self.quota)

    def covers(self, method: bytes | None) -> bool:
        """Whether it applies to a method; None is one that no rule names. GET stands for HEAD too, since services
        answer that with the same handler (RFC 9110 section 9.3.2)."""
        methods = self.methods
        return methods is None or method in methods or (method == b"HEAD" and b"GET" in methods)

    @property
    def rate(self) -> float:
        """Tokens that come back each second."""
        return self.quota / self.window
