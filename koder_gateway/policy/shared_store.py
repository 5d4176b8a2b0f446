"""What limits ask of a store that several gateways share, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

# What a rule says to a request: it may pass, no token is left, or as many requests are in flight as the tokens allow.
OK: Final = 0
SHORT: Final = 1
CROWDED: Final = 2


@dataclass(frozen=True, slots=True)
class SharedRule:
    """A rule as the store knows it: `rate` tokens per second, at most `burst`, and `most` missing at once. No other
    rule has its `name`. Unless it is `enforced` it is a shadow. With `afterwards` a request is charged at its end, if
    that is a failure."""

    name: bytes
    rate: float
    burst: int
    most: int
    enforced: bool
    afterwards: bool


# For each rule the tokens left (negative: owed), and OK, SHORT or CROWDED; None where no decision was reached.
SharedAnswer = Sequence[tuple[float, int]] | None


class SharedQuestion(Protocol):
    """What is asked for each request under the same rules."""

    __slots__ = ()

    def ask(
        self,
        keys: Sequence[bytes],
        missing: Sequence[float],
        request: bytes,
        answered: Callable[[SharedAnswer], None],
    ) -> None:
        """Let the store decide about a request. `answered` is called once, in a later turn of the reactor and within
        the store's timeout.

        `keys` has for each rule what the request is counted under, and `missing` how many tokens its bucket lacks as
        far as this gateway knows: a store that has forgotten some takes that. `request` names it until `settle`, for
        rules that charge failures; else it is b"".
        """


class SharedStore(Protocol):
    """A store of limits. `up`: it can be asked at present. What it is told while it is not is lost."""

    __slots__ = ()

    up: bool

    def question(self, rules: Sequence[SharedRule]) -> SharedQuestion:
        """What to ask about requests under these rules."""

    def request(self) -> bytes:
        """A name for a request, which no other request of any gateway has."""

    def settle(
        self,
        rule: SharedRule,
        key: bytes,
        missing: float,
        request: bytes,
        failed: bool,
        answered: Callable[[SharedAnswer], None],
    ) -> None:
        """A request that was admitted is over; `failed`: the rule, one that charges failures, is charged. `missing`:
        see `SharedQuestion.ask`, without this charge. `answered` gets what is then left, or None."""
