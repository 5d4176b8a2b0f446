"""Tenants' own figures for limits, kept once however many tenants have the same: few sets are sold to many."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import Final

import msgspec

from .limit_rules import RateOverride

# How many different sets of figures have a number. Those of tenants beyond that are kept with each of them.
_MAX_SETS: Final = 4096
_encode: Final = msgspec.msgpack.Encoder().encode


class SharedFigures:
    """Sets of figures, numbered from 1 in the order in which they were first seen, for as long as the process runs. A
    registry is read in a thread: `number` may be called from several."""

    __slots__ = ("_lock", "_most", "_numbers", "_sets")

    def __init__(self, most: int = _MAX_SETS) -> None:
        self._lock = Lock()
        self._most = most
        self._numbers: dict[bytes, int] = {}
        self._sets: list[dict[str, RateOverride]] = []

    def number(self, figures: Mapping[str, RateOverride]) -> int | None:
        """The number of these figures, None if there are too many others."""
        key = _encode(sorted(figures.items()))
        number = self._numbers.get(key)
        if number is not None or len(self._sets) >= self._most:
            return number
        with self._lock:
            number = self._numbers.get(key)
            if number is None and len(self._sets) < self._most:
                self._sets.append(dict(figures))
                number = self._numbers[key] = len(self._sets)
            return number

    def __getitem__(self, number: int) -> Mapping[str, RateOverride]:
        """The figures with this number, which nobody changes."""
        return self._sets[number - 1]
