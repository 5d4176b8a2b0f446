"""The tables of docs/configuration.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from koder_gateway.config import Row


def table(rows: Iterable[Row]) -> str:
    """A table with a line for each key."""
    return "\n".join(_lines(rows)) + "\n"


def _lines(rows: Iterable[Row]) -> Iterator[str]:
    yield "| key | default | type | meaning |"
    yield "|---|---|---|---|"
    for row in rows:
        default = f"({row.otherwise})" if row.default is None else f"`{row.default}`"
        yield f"| `{row.key}` | {default} | {row.type} | {row.about} |"
