"""Faults of the configuration: the key, what is wrong, and the line that reports it."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_SHOWN: Final = 80
# A user and password before an @ in text that is not a URL; not a socket's path.
_PASSWORD: Final = re.compile(r"(?!unix:).*:.", re.DOTALL)
_QUERY: Final = re.compile(r"([?#]).+", re.DOTALL)
_TYPES: Final = (
    (bool, "a boolean"),
    (int, "an integer"),
    (float, "a number"),
    (list, "a list"),
    (dict, "a table"),
)

# How the message for an unknown key begins.
UNKNOWN: Final = "is an unknown key"
# The place of a fault, as in `limits[0].rate`, and the message: what is wrong and what would be right.
Located = tuple[str, str]


class ConfigurationError(Exception):
    """The configuration cannot be used. `faults` has a finished line for each reason; `str()` joins them."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults: list[str] = list(faults)
        super().__init__("\n".join(self.faults))


class BoundedFaults:
    """The faults of a list from another system: ten lines are kept, the others are only counted."""

    KEPT: Final = 10

    def __init__(self, name: str) -> None:
        self._name = name
        self._lines: list[str] = []
        self.count = 0

    @property
    def full(self) -> bool:
        """Whether another line would only be counted, and so need not be made."""
        return self.count >= self.KEPT

    def add(self, at: str, message: str) -> None:
        """Add a fault."""
        if not self.full:
            self._lines.append(line(self._name, at, message))
        self.count += 1

    def add_all(self, faults: Iterable[Located]) -> None:
        """Add several faults."""
        for at, message in faults:
            self.add(at, message)

    def lines(self) -> tuple[str, ...]:
        """The first faults, and how many more there are."""
        more = [f"{self._name}: and {self.count - self.KEPT:,} more"] if self.count > self.KEPT else []
        return (*self._lines, *more)


class ReadError(Exception):
    """A value that cannot be used, with all its faults, located relative to that value."""

    def __init__(self, faults: Iterable[Located]) -> None:
        self.faults: tuple[Located, ...] = tuple(faults)
        super().__init__(*self.faults)

    @classmethod
    def because(cls, message: str) -> ReadError:
        """The fault of a value itself."""
        return cls([("", message)])


def step(name: str) -> str:
    """One key as a step of a path; quoted if TOML would have to quote it."""
    return f".{name}" if _BARE_KEY.fullmatch(name) else f".{shown(name)}"


def below(prefix: str, faults: Iterable[Located]) -> Iterator[Located]:
    """The faults of a part, located relative to its whole."""
    return ((prefix + path, message) for path, message in faults)


def line(file: str, path: str, message: str) -> str:
    """The line of the report: `FILE: key.path: what is wrong, what would be right`."""
    return f"{file}: {path.removeprefix('.')}: {message}"


def located(error: BaseException) -> Iterator[Located]:
    """All faults in an exception of a cattrs converter."""
    if isinstance(error, ReadError):
        yield from error.faults
    elif isinstance(error, ClassValidationError):
        inner, outer = error.group_exceptions()
        for fault, note in inner:
            yield from below(step(note.name), _missing_or_located(fault))
        for fault in outer:
            yield from located(fault)
    elif isinstance(error, ForbiddenExtraKeysError):
        known = tuple(sorted(_keys_of(error.cl)))
        yield from ((step(name), unknown_key(name, known)) for name in sorted(error.extra_fields))
    else:
        raise error


def _missing_or_located(fault: BaseException) -> Iterator[Located]:
    if isinstance(fault, KeyError):
        yield "", "is missing, and it has no default; write it"
    else:
        yield from located(fault)


def _keys_of(table: type) -> Iterable[str]:
    return getattr(table, "__dataclass_fields__", {})


@lru_cache(maxsize=256)
def unknown_key(name: str, known: tuple[str, ...]) -> str:
    """The message for an unknown key: the similar known key, or all known ones."""
    return f"{UNKNOWN}; {nearest(name, known)}"


def reason(error: Exception) -> str:
    """Why a file cannot be used, in the operating system's words."""
    if isinstance(error, FileNotFoundError):
        return "no such file or folder"
    text = error.strerror if isinstance(error, OSError) and error.strerror else "the path is not usable"
    return text[:1].lower() + text[1:]


def nearest(name: str, known: Iterable[str]) -> str:
    """A question with the similar name, or the list of all known names."""
    names = list(known)
    meant = close(name, names)
    return f'did you mean "{meant}"?' if meant else f"known here: {', '.join(names)}"


def close(name: str, known: Iterable[str]) -> str:
    """The name that was probably meant; "" for none."""
    # Comparing takes time by the square of the length, and no known name is that long.
    found = difflib.get_close_matches(name, list(known), n=1) if len(name) <= 64 else []
    return found[0] if found else ""


def without_secrets(text: str) -> str:
    """A text without secrets of a URL, or of text that was meant to be one: user and password, the query."""
    scheme, mark, rest = text.partition("://")
    if not mark:
        scheme, rest = "", text
    # A password may contain an @, or a slash that should be escaped.
    before, at, after = rest.rpartition("@")
    if at and (mark or _PASSWORD.match(before)):
        rest = f"***@{after}"
    return scheme + mark + (_QUERY.sub(r"\1***", rest) if mark else rest)


def shown(value: object) -> str:
    """A value as messages show it: on one line, shortened, its type if its text would not help, and without
    secrets."""
    if isinstance(value, str):
        value = without_secrets(value)
        text = value if len(value) <= _SHOWN else value[:_SHOWN] + "..."
        # Characters that a terminal cannot show are escaped: a message must stay on one line.
        return json.dumps(text, ensure_ascii=not text.isprintable())
    return shown_type(value)


def shown_type(value: object) -> str:
    """A value of the wrong type: its text if that is short, else its type."""
    if isinstance(value, (bool, int, float)) and len(text := _number(value)) <= _SHOWN:
        return text
    return next((name for kind, name in _TYPES if isinstance(value, kind)), "a date or time")


def _number(value: float) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    # Python refuses to convert an integer of thousands of digits to decimal (sys.set_int_max_str_digits).
    return hex(value) if isinstance(value, int) and value.bit_length() > 256 else str(value)
