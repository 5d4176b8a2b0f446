"""A parsed TOML file, or the one line that says why it cannot be read."""

from __future__ import annotations

import codecs
import re
import tomllib
from pathlib import Path
from typing import Any, Final

from ..wire.encodings import wide_encoding
from .faults import ConfigurationError, reason
from .lookalikes import LOOKALIKE, character_name, replacement_advice

# The largest configuration file in bytes: parsing one needs dozens of times as much memory.
LARGEST: Final = 4 << 20
# Strings of one line, and a comment.
_QUOTED: Final = re.compile(r"""\"(?:[^"\\]|\\.)*"|'[^']*'|#.*""")
_PLACE: Final = re.compile(r"(.*) \(at line (\d+), column (\d+)\)", re.DOTALL)


# Many names in one dotted key: parsing one takes time by the square of their number.
_DEEP: Final = re.compile(
    rb"""(?<![A-Za-z0-9_-])(?:(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){128}"""
)


def read_document(path: Path, name: str) -> dict[str, Any]:
    """The TOML document in a file, which messages call `name`; ConfigurationError with one line otherwise."""
    return parse_document(read_bytes(path, name, LARGEST), name)


def read_bytes(path: Path, name: str, limit: int) -> bytes:
    """The bytes of a file of at most `limit` bytes; ConfigurationError with one line otherwise."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise ConfigurationError([f"{name}: no such file; write one, or name another"]) from None
    except PermissionError:
        raise ConfigurationError([f"{name}: permission denied; let the gateway's user read it"]) from None
    except (OSError, ValueError) as error:
        raise ConfigurationError([f"{name}: {reason(error)}; name a readable file"]) from None
    if len(data) > limit:
        raise ConfigurationError([f"{name}: is longer than {limit >> 20} MiB; name a file that is shorter"])
    wide = wide_encoding(data)
    if wide:
        raise ConfigurationError([f"{name}: is {wide}, and TOML must be UTF-8; save it again as UTF-8"])
    # A byte order mark; TOML is always UTF-8.
    return data.removeprefix(codecs.BOM_UTF8)


def parse_document(data: bytes, name: str, lines: int = 0) -> dict[str, Any]:
    """The TOML document in these bytes, which follow `lines` lines of the file that messages call `name`."""
    try:
        deep = _DEEP.search(data)
        if deep is not None:
            place = _place(data[: deep.start()].decode("utf-8"))
            wrong = "is a key of more than 128 names"
        else:
            return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        place, wrong = _place(data[: error.start].decode("utf-8")), "is not UTF-8, which TOML must be"
    except tomllib.TOMLDecodeError as error:
        text = data.decode("utf-8")
        place, wrong = _disguised(text) or _syntax(str(error), text)
    except RecursionError:
        place, wrong = (1, 1), "is nested too deeply"
    except ValueError as error:
        # An integer with more digits than Python converts, or a date with a month 13: the position is unknown.
        place, wrong = (1, 1), _one_line(f"has an impossible value: {error}")
    raise ConfigurationError([f"{name}: line {place[0] + lines}, column {place[1]}: {wrong}"])


def _disguised(text: str) -> tuple[tuple[int, int], str] | None:
    """The position and description of a character that looks like one of TOML's syntax, or of a CR alone as a line
    end, outside strings and comments as far as one line shows; None if there is none."""
    for number, line in enumerate(text.split("\n"), 1):
        bare = _QUOTED.sub(lambda match: " " * len(match[0]), line)
        match = LOOKALIKE.search(bare)
        if match is not None:
            return (number, match.start() + 1), f"has {character_name(match[0])}; {replacement_advice(match[0])}"
        if "\r" in bare.removesuffix("\r"):
            wrong = "has a line that ends in CR alone; save it again with LF or CRLF line ends"
            return (number, bare.index("\r") + 1), wrong
    return None


def _syntax(message: str, text: str) -> tuple[tuple[int, int], str]:
    match = _PLACE.fullmatch(message)
    if match is None:
        # "(at end of document)"
        return _place(text), _one_line(message.removesuffix(" (at end of document)"))
    return (int(match[2]), int(match[3])), _one_line(match[1])


def _place(before: str) -> tuple[int, int]:
    """Line and column of the next character."""
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _one_line(message: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
