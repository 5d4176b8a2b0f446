"""Waiting beside a load: each look costs the gateway and the clients processor time, so there are few."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.kit import waiting

_TURN = 0.1


def until(condition: Callable[[], object], what: str) -> Any:
    """The condition's value once it is true; fails with `what` when that takes too long."""
    return waiting.until(condition, what, turn=_TURN)
