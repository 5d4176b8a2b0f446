"""How many workers there may be: each has its own memory, so limits that are counted there must be meant so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from .faults import Located, ReadError, shown
from .kinds import Kind, Where
from .shapes import either, integer, words

# What "auto" is read as: one worker for each processor that the gateway may use.
AUTO: Final = 0
MOST: Final = 1024
_ADVICE: Final = (
    "several workers count limits each by itself, so a client may get several times as much; set limits_store.url to"
    ' a shared store, as in "redis://127.0.0.1:6379", or write limits_store.url = "memory:" to accept that'
)
_WANTED: Final = f'write "auto", or a whole number from 1 to {MOST}'


def parse_workers(value: object) -> int:
    """A number of workers, `AUTO` for the word. Raises ValueError that says what to write."""
    if value == "auto":
        return AUTO
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST:
        raise ValueError(f"{shown(value)} is not a number of workers; {_WANTED}")
    return value


def _read(value: object, where: Where) -> int:
    try:
        return parse_workers(value)
    except ValueError as error:
        raise ReadError.because(str(error)) from None


WORKERS: Final = Kind('integer or "auto"', _read, shape=either(words("auto"), integer(1, MOST)))


def shared_store_fault(workers: int, store: str, *, written: bool, limits: bool) -> str | None:
    """Why so many workers may not count limits in this store, None if they may. `written`: whether the file names
    the store itself; `limits`: whether there are any to count."""
    return _ADVICE if limits and workers != 1 and not written and store.startswith("memory:") else None


def contradictions(document: dict[str, Any]) -> Iterator[Located]:
    """A file that asks for several workers, and does not say where limits are counted."""
    listen, store = document.get("listen"), document.get("limits_store")
    workers = listen.get("workers", 1) if isinstance(listen, dict) else 1
    given = store if isinstance(store, dict) else {}
    try:
        fault = shared_store_fault(
            parse_workers(workers),
            str(given.get("url", "memory:")),
            written="url" in given,
            limits=document.get("limits") != [],
        )
    except ValueError:
        return
    if fault:
        yield "listen.workers", fault
