"""A TOML file as it stands, or the one line that says why it cannot be read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Final

from .faults import ConfigurationError, reason

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
    try:
        return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        place, wrong = _place(data[: error.start].decode("utf-8")), "is not UTF-8, which TOML must be"
    except tomllib.TOMLDecodeError as error:
        place, wrong = _syntax(str(error), data.decode("utf-8"))
    except RecursionError:
        place, wrong = "line 1, column 1", "is nested too deeply"
    except ValueError as error:
        # An integer of more digits than Python converts, a date with a month 13: no place is told.
        place, wrong = "line 1, column 1", _one_line(f"has a value that cannot be: {error}")
    raise ConfigurationError([f"{name}: {place}: {wrong}"])


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
