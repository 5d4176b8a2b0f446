"""What a plan says to a client that asks again at once: the same, as long as nothing has changed for it.

Whoever is over a limit often asks on, many times in the second for which the figures in the headers stay as they are.
"""

from __future__ import annotations

from math import ceil, inf

from .bucket_room import OVERFLOW
from .buckets import SLACK, WHOLE
from .meter import LimitResult, Meter


class RepeatedRefusal:
    """The refusal of the requests that a plan counts under these keys: as long as it `holds`, each further one is
    refused by `again` as by the plan itself, and charged as little."""

    __slots__ = ("_keys", "_marks", "_refusing", "_until", "result")

    def __init__(
        self, result: LimitResult, meters: tuple[Meter, ...], keys: list[bytes], lefts: list[float], now: float
    ) -> None:
        self.result = result
        self._keys = keys
        at_work = list(zip(meters, keys, lefts, strict=True))
        self._refusing = tuple((meter, meter.buckets.knock, key) for meter, key, left in at_work if left < WHOLE)
        self._marks = tuple((meter.buckets.full_at, key, meter.buckets.full_at(key)) for meter, key, _ in at_work)
        self._until = min(_unchanged(meter, key, left, now) for meter, key, left in at_work)

    def holds(self, keys: list[bytes], now: float) -> bool:
        """Whether it is what the plan would say at `now`, in monotonic seconds."""
        if now >= self._until or keys != self._keys:
            return False
        # A loop, as a generator costs as much as all it asks.
        for full_at_of, key, full_at in self._marks:  # noqa: SIM110
            if full_at_of(key) != full_at:
                return False
        return True

    def again(self, now: float) -> LimitResult:
        """Refuse one more request."""
        for meter, knock, key in self._refusing:
            meter.refused += 1
            knock(key, now)
        return self.result


def may_repeat(meters: tuple[Meter, ...], keys: list[bytes], lefts: list[float]) -> bool:
    """Whether a refusal stays the same while the buckets do: not that of places in flight, nor one beside a rule that
    looks at these, or that is only tried out."""
    for meter, key, left in zip(meters, keys, lefts, strict=True):
        if not meter.enforced or not meter.rule.quota or key.startswith(OVERFLOW):
            return False
        if left >= WHOLE and meter.pends:
            return False
    return True


def _unchanged(meter: Meter, key: bytes, left: float, now: float) -> float:
    """Until when the headers say the same of a meter, and it decides the same."""
    buckets = meter.buckets
    if left >= buckets.full:
        return inf
    owed = buckets.owed(key, now) - SLACK
    left += SLACK
    seconds = (owed if owed > 0.0 else int(left) + 1.0 - left) / buckets.rate
    # What is said is rounded up: it changes as soon as there is a whole second less to wait.
    return now + seconds - max(0, ceil(seconds) - 1)
