"""Waiting for a condition, and for no longer than anything here takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater

# Seconds; much longer than anything here takes, also the start of a gateway beside four processes for each processor:
# only what hangs meets it.
PATIENCE = 60.0
_TURN = 0.005


def until(condition: Callable[[], object], what: str, patience: float = PATIENCE, turn: float = _TURN) -> Any:
    """The condition's value once it is true; fails with `what` when that takes too long. It is looked at every `turn`
    seconds: a look that costs others processor time needs a longer one."""
    ends = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > ends:
            raise AssertionError(f"never happened: {what}")
        time.sleep(turn)


async def eventually(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Turn the reactor until the condition is true; fails with `what` when that takes too long."""
    ends = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < ends, f"never happened: {what}"
        await deferLater(reactor, _TURN, lambda: None)  # type: ignore[arg-type]
