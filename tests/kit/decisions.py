"""Decisions that a test takes, and a guard that waits for them."""

from __future__ import annotations

from collections.abc import Callable

from koder_gateway.errors import Refusal
from koder_gateway.exchange.pending import Outcome, Pending
from koder_gateway.exchange.states import Exchange
from koder_gateway.tree.guards import Guard
from tests.kit.memory import MemoryGateway

REFUSED = Refusal(429, "rate_limited", "Too Many Requests", "Decided late.", fields=b"Retry-After: 7\r\n")


class Decision(Pending):
    """Decided by `decide`, or by itself once `wanted` bytes of the body are here, or all of it: then as `verdict`.

    `seen` is what has come of the body, each time, and `times` when it came. It holds the other side to the contract.
    """

    def __init__(self, wanted: int = 0, verdict: Outcome = None) -> None:
        self.wanted = wanted
        self.verdict = verdict
        self.seen: list[tuple[bytes, bool]] = []
        self.times: list[float] = []
        self.cancelled = False
        self._decided: Callable[[Outcome], None] | None = None

    @property
    def waited_for(self) -> bool:
        """Whether somebody waits for it."""
        return self._decided is not None

    @property
    def wants_body(self) -> bool:
        assert self._decided is not None
        return self.wanted > 0

    def then(self, decided: Callable[[Outcome], None]) -> None:
        assert not self.waited_for, "then was called before"
        self._decided = decided

    def body_came(self, body: bytes, done: bool, now: float) -> None:
        assert self.waited_for, "nobody waits for it"
        assert self.wanted, "it wants no body"
        assert done or body, "nothing has come"
        assert not self.seen or len(body) > len(self.seen[-1][0]) or done, "nothing more has come"
        self.seen.append((body, done))
        self.times.append(now)
        if done or len(body) >= self.wanted:
            self.wanted = 0
            self.decide(self.verdict)

    def cancel(self) -> None:
        assert self.waited_for, "nobody waits for it"
        self.cancelled = True
        self._decided = None

    def decide(self, outcome: Outcome = None) -> None:
        """Take it."""
        assert self._decided is not None, "nobody waits for it"
        decided, self._decided = self._decided, None
        decided(outcome)


class Waiting(Guard):
    """Has every request wait for the next decision of `coming`, or for a new one. `made` are those so far."""

    def __init__(self, inner: object, *coming: Decision) -> None:
        super().__init__(inner)  # type: ignore[arg-type]
        self.made: list[Decision] = []
        self._coming = list(coming)

    def admit(self, exchange: Exchange) -> Outcome:
        decision = self._coming.pop(0) if self._coming else Decision()
        self.made.append(decision)
        return decision

    @property
    def only(self) -> Decision:
        """The one decision."""
        (decision,) = self.made
        return decision


def waiting(gateway: MemoryGateway, *coming: Decision) -> Waiting:
    """Put such a guard around a gateway's tree, and of its stock sites."""
    guard = Waiting(gateway.composition.resource, *coming)
    gateway.use_tree(guard)
    return guard
