"""A TOML file as it stands, or the one line that says why it cannot be read."""

from __future__ import annotations

import codecs
import re
import tomllib
import unicodedata
from pathlib import Path
from typing import Any, Final

from .faults import ConfigurationError, reason

# Strings of one line, and a comment.
_QUOTED: Final = re.compile(r"""\"(?:[^"\\]|\\.)*"|'[^']*'|#.*""")
# Spaces that are not plain, marks without width, and quotation marks of word processors.
_SPACES: Final = "\u00a0\u1680\u2000-\u200d\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
_LOOKALIKE: Final = re.compile(f"[{_SPACES}\u201c\u201d\u201e\u2018\u2019]")
_MEANT: Final = dict.fromkeys("\u201c\u201d\u201e", '"') | dict.fromkeys("\u2018\u2019", "'")
_PLACE: Final = re.compile(r"(.*) \(at line (\d+), column (\d+)\)", re.DOTALL)


def read_document(path: Path, name: str) -> dict[str, Any]:
    """The TOML document in a file, which messages call `name`; ConfigurationError with one line otherwise."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigurationError([f"{name}: no such file; write one, or name another"]) from None
    except PermissionError:
        raise ConfigurationError([f"{name}: permission denied; let the gateway's user read it"]) from None
    except (OSError, ValueError) as error:
        raise ConfigurationError([f"{name}: {reason(error)}; name a readable file"]) from None
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigurationError([f"{name}: is UTF-16, and TOML must be UTF-8; save it again as that"])
    # An editor's mark, which says what TOML is in any case.
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        place, wrong = _place(data[: error.start].decode("utf-8")), "is not UTF-8, which TOML must be"
    except tomllib.TOMLDecodeError as error:
        text = data.decode("utf-8")
        place, wrong = _disguised(text) or _syntax(str(error), text)
    except RecursionError:
        place, wrong = "line 1, column 1", "is nested too deeply"
    except ValueError as error:
        # An integer of more digits than Python converts, a date with a month 13: no place is told.
        place, wrong = "line 1, column 1", _one_line(f"has a value that cannot be: {error}")
    raise ConfigurationError([f"{name}: {place}: {wrong}"])


def _disguised(text: str) -> tuple[str, str] | None:
    """Where a character stands that looks like one that TOML knows, outside strings and comments as far as a line
    tells; None where no such character does."""
    for number, line in enumerate(text.split("\n"), 1):
        bare = _QUOTED.sub(lambda match: " " * len(match[0]), line)
        match = _LOOKALIKE.search(bare)
        if match is not None:
            character = match[0]
            name = unicodedata.name(character, "a character").lower()
            return (
                f"line {number}, column {match.start() + 1}",
                f"has {name} (U+{ord(character):04X}); type {_MEANT.get(character, 'a plain space')} there",
            )
    return None


def _syntax(message: str, text: str) -> tuple[str, str]:
    match = _PLACE.fullmatch(message)
    if match is None:
        # "(at end of document)"
        return _place(text), _one_line(message.removesuffix(" (at end of document)"))
    return f"line {match[2]}, column {match[3]}", _one_line(match[1])


def _place(before: str) -> str:
    lines = before.split("\n")
    return f"line {len(lines)}, column {len(lines[-1]) + 1}"


def _one_line(message: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
