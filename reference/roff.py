"""The generated part of koder-gateway.toml(5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from koder_gateway.config import Row
from koder_gateway.config.markup import plain

# Code and bold text, both of which a manual page shows in bold.
_BOLD: Final = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*")
_SENTENCE: Final = re.compile(r"(?<=[.;]) (?=[A-Z0-9\"`\[(])")
_SPECIAL: Final = {"\\": r"\e", "-": r"\-", '"': r"\(dq", "'": r"\(aq", "^": r"\(ha", "~": r"\(ti", "`": r"\(ga"}


def sections(rows: Iterable[Row], abouts: Mapping[str, str], heading: str) -> str:
    """The sections of a file, each with its keys; `abouts` says what a section is for, and `heading` is the macro of
    their headings."""
    return "\n".join(_lines(rows, abouts, heading)) + "\n"


def _lines(rows: Iterable[Row], abouts: Mapping[str, str], heading: str) -> Iterator[str]:
    last = ""
    for row in rows:
        name, _, key = row.key.partition(".")
        section = name.removesuffix("[]")
        if section != last:
            is_array = name.endswith("[]") or row.type == "array of tables"
            yield f".{heading} [[{section}]]" if is_array else f".{heading} [{section}]"
            yield from _text(abouts.get(section, row.about))
            last = section
        if key:
            yield ".TP"
            yield f'.B "{_escaped(key.rpartition(".")[2])} \\fR({_kind(row)})"'
            yield from _text(row.about)


def _kind(row: Row) -> str:
    if row.default is None:
        return f"{_bold(row.type)}; {_bold(row.otherwise)}"
    return f"{_bold(row.type)}; default {_escaped(row.default)}"


def _text(markdown: str) -> Iterator[str]:
    """The lines of a paragraph, a sentence each: what roff fills, and what is easy to compare."""
    for sentence in _SENTENCE.split(plain(markdown)):
        line = _bold(sentence)
        # A line that begins with one of these would be a request.
        yield f"\\&{line}" if line.startswith((".", "'")) else line


def _bold(markdown: str) -> str:
    done = 0
    parts = []
    for match in _BOLD.finditer(markdown):
        parts += [_escaped(markdown[done : match.start()]), r"\fB", _escaped(match[1] or match[2]), r"\fR"]
        done = match.end()
    return "".join([*parts, _escaped(markdown[done:])])


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(letter, letter) for letter in text)
