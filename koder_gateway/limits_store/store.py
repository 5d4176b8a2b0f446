"""The store of limits: what is asked of it, and what it has been told is in flight."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint

from ..policy.shared_store import CROWDED, OK, SharedAnswer, SharedQuestion, SharedRule, SharedStore
from ..wire.clock import CoarseClock
from .greeting import Credentials, Greeting
from .link import Link
from .scripts import LEASE, MICRO, DecideCommand, renew_command, settle_command

# Upper bounds of the times of decisions, in seconds.
BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
# How many requests in flight are renewed in one sweep.
_RENEWED: Final = 2000
# A longer key is replaced by its hash.
_LONGEST_KEY: Final = 64


def store_key(prefix: bytes, rule: SharedRule, kind: bytes, key: bytes) -> bytes:
    """The store's key for what a request is counted under. `kind`: b for buckets, f for requests in flight."""
    if len(key) <= _LONGEST_KEY:
        return b"%b%b:%b=%b" % (prefix, rule.name, kind, key)
    return b"%b%b:%b#%b" % (prefix, rule.name, kind, hashlib.blake2b(key, digest_size=20).digest())


class LimitsStore(SharedStore):
    """A store at `endpoint`, which the log calls `name`.

    Nobody waits for a decision for longer than `timeout` seconds. All its keys begin with `prefix`. The owner calls
    `start`, `sweep` at each tick, and in the end `close`.
    """

    def __init__(
        self,
        reactor: Any,
        name: str,
        endpoint: IStreamClientEndpoint,
        credentials: Credentials,
        *,
        prefix: bytes,
        timeout: float,
        clock: CoarseClock,
    ) -> None:
        self.prefix = prefix
        self.time = clock.precise
        self._clock = clock
        self._link = Link(
            reactor,
            name,
            endpoint,
            lambda: Greeting(credentials, prefix),
            timeout=timeout,
            time=clock.precise,
            clock=clock,
        )
        # Requests in flight, the one that was renewed longest ago first: their keys, and when that was.
        self._held: dict[bytes, tuple[list[bytes], float]] = {}
        self._own = os.urandom(8).hex().encode("ascii")
        self._requests = 0
        self.missed = 0
        """Requests since the start for which no decision was reached in time."""
        self.seconds = 0.0
        """The time of all decisions since the start."""
        self.times = [0] * (len(BOUNDS) + 1)
        """How many decisions took up to each of BOUNDS, and longer."""

    @property
    def up(self) -> bool:  # type: ignore[override]
        """See SharedStore."""
        return self._link.up

    def start(self) -> None:
        """Begin to connect."""
        self._link.start()

    def sweep(self, now: float) -> None:
        """Renew what has been in flight for a while; `now` is that of the clock."""
        self._link.sweep(now)
        if not self._held or not self.up:
            return
        due = now - LEASE / 3
        for request in list(self._held)[:_RENEWED]:
            keys, renewed = self._held[request]
            if renewed > due:
                return
            self._link.send(renew_command(keys, request), lambda _: None)
            del self._held[request]
            self._held[request] = keys, now

    def close(self) -> Deferred[None]:
        """End it: nothing more is asked. The Deferred fires when what has been asked is answered, or the time for
        that is over."""
        self._held.clear()
        return self._link.close()

    # -- what limits ask

    def question(self, rules: Sequence[SharedRule]) -> SharedQuestion:
        """See SharedStore."""
        return _Question(self, self._link, rules)

    def request(self) -> bytes:
        """See SharedStore."""
        self._requests += 1
        return b"%b.%x" % (self._own, self._requests)

    def hold(self, request: bytes, keys: list[bytes]) -> None:
        """This request is in flight under these keys of the store, until it is settled."""
        self._held[request] = keys, self._clock.now

    def settle(
        self,
        rule: SharedRule,
        key: bytes,
        missing: float,
        request: bytes,
        failed: bool,
        answered: Callable[[SharedAnswer], None],
    ) -> None:
        """See SharedStore."""
        self._held.pop(request, None)
        bucket, in_flight = store_key(self.prefix, rule, b"b", key), store_key(self.prefix, rule, b"f", key)
        text = settle_command(rule, bucket, in_flight, missing, request, failed)
        if not self._link.send(text, lambda numbers: answered(self.read(numbers, (rule,)))):
            answered(None)

    def read(self, numbers: list[int] | None, rules: Sequence[SharedRule]) -> SharedAnswer:
        """The answer about these rules. What cannot be one ends the connection."""
        if numbers is None:
            return None
        answer: list[tuple[float, int]] = []
        if len(numbers) == len(rules):
            for rule, number in zip(rules, numbers, strict=True):
                left, state = (number >> 2) / MICRO, number & 3
                if state <= CROWDED and rule.burst - rule.most - 1 <= left <= rule.burst:
                    answer.append((left, state))
        if len(answer) == len(rules):
            return answer
        self._link.doubt("it does not answer as its scripts do")
        return None

    def took(self, seconds: float) -> None:
        """A decision took so long."""
        self.seconds += seconds
        self.times[bisect_left(BOUNDS, seconds)] += 1


class _Question(SharedQuestion):
    """What is asked about requests under the same rules."""

    __slots__ = ("_command", "_link", "_rules", "_store")

    def __init__(self, store: LimitsStore, link: Link, rules: Sequence[SharedRule]) -> None:
        self._store = store
        self._link = link
        self._rules = tuple(rules)
        self._command = DecideCommand(rules)

    def ask(
        self,
        keys: Sequence[bytes],
        missing: Sequence[float],
        request: bytes,
        answered: Callable[[SharedAnswer], None],
    ) -> None:
        """See SharedQuestion."""
        store = self._store
        stored = []
        for rule, key in zip(self._rules, keys, strict=True):
            stored.append(store_key(store.prefix, rule, b"b", key))
            if rule.afterwards:
                stored.append(store_key(store.prefix, rule, b"f", key))

        begun = store.time()

        def decided(numbers: list[int] | None) -> None:
            answer = store.read(numbers, self._rules)
            if answer is None:
                store.missed += 1
            else:
                store.took(store.time() - begun)
                if request:
                    self._hold(request, keys, answer)
            answered(answer)

        if not self._link.send(self._command(stored, missing, request), decided):
            decided(None)

    def _hold(self, request: bytes, keys: Sequence[bytes], answer: Sequence[tuple[float, int]]) -> None:
        """Remember what the scripts have counted as in flight, if the request was admitted."""
        held = []
        for rule, key, (_, state) in zip(self._rules, keys, answer, strict=True):
            if state != OK:
                if rule.enforced:
                    return
            elif rule.afterwards:
                held.append(store_key(self._store.prefix, rule, b"f", key))
        if held:
            self._store.hold(request, held)
