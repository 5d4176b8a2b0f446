"""The lines on which a TOML file has its keys, which Python's parser does not tell.

Each statement of a file, a header or a key with its value, is a document of its own. So lines are put together until
they can be parsed, and what is found in them is on the first of these lines.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from .faults import step

# So many characters are parsed at most, over and over where a value has many lines: then the rest is not looked at.
_PARSED: Final = 1 << 24
# A value of several lines ends with one of these.
_ENDS: Final = ("]", '"""', "'''")


def key_lines(text: str) -> dict[str, int]:
    """The line of every key and table, by its path as in `limits[0].rate`; `text` is valid TOML. Keys of inline
    tables are on the line where their statement begins."""
    found: dict[str, int] = {}
    tables = _Tables()
    for number, piece, parsed in _statements(text):
        if piece.lstrip().startswith("["):
            found.setdefault(tables.enter(parsed), number)
        else:
            for at in _keys(tables.current, parsed):
                found.setdefault(at.removeprefix("."), number)
    return found


def _statements(text: str) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """Each statement, with the number of its first line and what it says."""
    piece, first, left = "", 0, _PARSED
    for number, line in enumerate(text.split("\n"), 1):
        if not piece:
            first = number
        elif not any(end in line for end in _ENDS):
            piece += line + "\n"
            continue
        piece += line + "\n"
        left -= len(piece)
        if left < 0:
            return
        try:
            parsed = tomllib.loads(piece)
        except (tomllib.TOMLDecodeError, RecursionError):
            continue
        if parsed:
            yield first, piece, parsed
        piece = ""


class _Tables:
    """Follows headers: which table the next keys are in."""

    def __init__(self) -> None:
        self.current = ""
        self._lengths: dict[str, int] = {}

    def enter(self, header: Mapping[str, Any]) -> str:
        """The path of the table of this header, which is the current one from now on."""
        at, rest = "", header
        while rest:
            ((name, value),) = rest.items()
            at += step(name)
            is_last = isinstance(value, list)
            if is_last:
                self._lengths[at] = self._lengths.get(at, 0) + 1
            if at in self._lengths:
                at += f"[{self._lengths[at] - 1}]"
            rest = {} if is_last else value
        self.current = at
        return at.removeprefix(".")


def _keys(at: str, value: object) -> Iterator[str]:
    """The path of each key in a value that is at this path."""
    if isinstance(value, dict):
        for name, each in value.items():
            below = at + step(name)
            yield below
            yield from _keys(below, each)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            if isinstance(each, dict):
                yield from _keys(f"{at}[{index}]", each)
