"""What a guarded step answers that cannot decide at once: its decision follows, and the exchange waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from ..errors import Refusal

# As much of a request's body is read for a decision, in bytes; the rest waits for it.
FIRST_PART: Final = 4096


class Pending(Protocol):
    """A decision that a step has not taken yet. The step makes it; who asked the step (`AdmissionWait`) owns it.

    The owner calls `then` once, before all else, and `cancel` once where the exchange ends before the decision.
    Meanwhile the exchange stays HELD: nothing of it is forwarded, and its client's body is paused, except for the
    first part while the decision `wants_body`.

    The owner is told of the decision at most once, and never after `cancel`: within `then`, within `body_came`, or
    later from the reactor's thread. By then the exchange must have all that the decision brings (`Exchange.fields`,
    `limited`, `charges`). No method may raise. A decision that waits for something else than the body has a deadline
    of its own: the owner sets none.
    """

    __slots__ = ()

    @property
    def wants_body(self) -> bool:
        """Whether the decision depends on the body. Asked after `then` and after each `body_came`."""

    def then(self, decided: Callable[[Outcome], None]) -> None:
        """Tell `decided` of the decision: a refusal, None to let the exchange pass, or another decision that is still
        pending, which is waited for in the same way."""

    def body_came(self, body: bytes, done: bool, now: float) -> None:
        """The body as far as it has come, from its first byte on; `done`: that is all of it. Called only while the
        decision `wants_body`, each time with more, until `body` has `FIRST_PART` bytes or is `done`: by then the
        decision must be taken, or want no body any more. `body` may be longer than that, and is empty where all of it
        is. `now` is monotonic seconds: a limit is charged at this time, and not at the time when the exchange began.
        """

    def cancel(self) -> None:
        """The exchange has ended: nobody waits for the decision any more."""


Outcome = Refusal | Pending | None


def decide_now(pending: Pending, body: bytes, now: float) -> Refusal | None:
    """The decision about a request whose body is known, for who cannot wait; None where it is not taken at once."""
    outcomes: list[Outcome] = []
    while True:
        pending.then(outcomes.append)
        if not outcomes and pending.wants_body:
            pending.body_came(body, True, now)
        if not outcomes:
            pending.cancel()
            return None
        outcome = outcomes.pop()
        if outcome is None or isinstance(outcome, Refusal):
            return outcome
        pending = outcome
