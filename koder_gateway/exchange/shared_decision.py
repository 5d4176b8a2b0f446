"""An exchange that waits until the shared store has decided about its limits."""

from __future__ import annotations

from collections.abc import Callable

from ..policy.meter import LimitResult
from ..policy.shared_limits import SharedPlan
from .limit_outcome import outcome_of, release
from .pending import Outcome, Pending
from .states import Exchange


class SharedDecision(Pending):
    """The store's decision about an exchange, counted under `keys`: each is that of the plan's rule. `network` is its
    client's.

    It comes within the store's timeout. What it has charged for an exchange that has ended meanwhile stays charged,
    but that is no request in flight any more.
    """

    __slots__ = ("_decided", "_exchange", "_keys", "_network", "_plan")

    wants_body = False

    def __init__(self, exchange: Exchange, plan: SharedPlan, keys: list[bytes], network: bytes) -> None:
        self._exchange = exchange
        self._plan = plan
        self._keys = keys
        self._network = network
        self._decided: Callable[[Outcome], None] | None = None

    def then(self, decided: Callable[[Outcome], None]) -> None:
        """See Pending."""
        self._decided = decided
        self._plan.decide(self._keys, self._network, self._answered)

    def body_came(self, body: bytes, done: bool, now: float) -> None:
        """See Pending; it wants none."""

    def cancel(self) -> None:
        """See Pending."""
        self._decided = None

    def _answered(self, verdict: LimitResult) -> None:
        decided, self._decided = self._decided, None
        if decided is None:
            release(verdict, self._exchange.started)
        else:
            decided(outcome_of(self._exchange, verdict))
