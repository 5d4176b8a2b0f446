"""Kinds of configuration values, each with its reader, and combinators that make kinds from kinds."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from .credentials import credentials_folder
from .faults import Located, ReadError, below, nearest, shown
from .lookalikes import invisible_fault
from .shapes import EMPTY, TEXT, Shape, array, either, integer, words

T = TypeVar("T")

# How many wrong values of one list are reported; the others are only counted.
_REPORTED: Final = 100


@dataclass(frozen=True, slots=True)
class Where:
    """What the reading of a value depends on, besides the value.

    `folder` is the absolute folder of the configuration file: paths are relative to it. `state` is the state folder
    that applies when none is configured, `credentials` the one of systemd's credentials, None without any.
    """

    folder: Path
    state: Path
    credentials: Path | None = None

    @classmethod
    def beside(cls, file: Path, environ: Mapping[str, str]) -> Where:
        """The place of values in `file`."""
        return cls(Path(os.path.abspath(file)).parent, state_folder(environ), credentials_folder(environ))


def state_folder(environ: Mapping[str, str]) -> Path:
    """systemd's STATE_DIRECTORY (the first of several), else the user's own by the XDG rules."""
    given = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    base = environ.get("XDG_STATE_HOME", "")
    # The specification says to ignore relative paths in these variables.
    if not os.path.isabs(base):
        base = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".local", "state")
    return Path(base, "koder-gateway")


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """A kind of value: its name in the reference, and the function that reads one.

    `read` raises ReadError for a wrong value. A kind of tables names the class of its `entry`, and in `path` how an
    entry's keys are reached from the key of this kind. `shape` is the JSON Schema of its values; of a kind of tables
    it is that of what may be written in place of one table, None for nothing. `located`: its text is a path, or may
    be one, that is relative to the folder of the file. `base` are the entries of a table of tables that a file adds
    to.
    """

    name: str
    read: Callable[[Any, Where], T]
    entry: type | None = None
    path: str = ""
    shape: Shape | None = field(default_factory=lambda: TEXT)
    located: bool = False
    base: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scalar(self) -> Shape:
        """The shape of a value that is no table of its own."""
        return {} if self.shape is None else self.shape

    @property
    def plural(self) -> str:
        """The plural of its name, for lists."""
        if self.name.endswith('"'):
            return self.name
        return f"{self.name}es" if self.name.endswith("s") else f"{self.name}s"


def wrong_type(value: object, wanted: str) -> ReadError:
    """The fault of a value of the wrong TOML type."""
    return ReadError.because(f"{shown(value)} is not {wanted}")


def read_text(value: object) -> str:
    """A TOML string."""
    if not isinstance(value, str):
        raise wrong_type(value, "a string; write it in quotes")
    return value


def parsed(
    name: str,
    parse: Callable[[str], T],
    bare: Callable[[object], str | None] = lambda value: None,
    *,
    shape: Shape = TEXT,
) -> Kind[T]:
    """A string that `parse` accepts, or refuses with a ValueError. `bare` gives the message for other types."""

    def read(value: object, where: Where) -> T:
        if not isinstance(value, str):
            raise ReadError.because(bare(value) or f"{shown(value)} is not a string; write it in quotes")
        try:
            return parse(value)
        except ValueError as error:
            raise ReadError.because(f"{shown(value)} {invisible_fault(value) or error}") from None

    return Kind(name, read, shape=shape)


def matching(name: str, fault: Callable[[str], str | None], *, shape: Shape = TEXT) -> Kind[str]:
    """A string kept as it is, unless `fault` returns what is wrong with it."""

    def parse(text: str) -> str:
        wrong = fault(text)
        if wrong is not None:
            raise ValueError(wrong)
        return text

    return parsed(name, parse, shape=shape)


def refined(kind: Kind[T], accept: Callable[[T], bool], otherwise: str, *, shape: Shape | None = None) -> Kind[T]:
    """A kind without the values that `accept` refuses; `otherwise` says why and what would be right. `shape`: None
    for that of the kind."""

    def read(value: object, where: Where) -> T:
        result = kind.read(value, where)
        if not accept(result):
            raise ReadError.because(f"{shown(value)} {otherwise}")
        return result

    return Kind(kind.name, read, shape=kind.shape if shape is None else shape, located=kind.located)


def whole(minimum: int, maximum: int) -> Kind[int]:
    """An integer within bounds, both included."""

    def read(value: object, where: Where) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise wrong_type(value, f"an integer; write a whole number of at least {minimum}")
        if not minimum <= value <= maximum:
            raise ReadError.because(f"{shown(value)} is out of range; write {minimum} to {maximum}")
        return value

    return Kind("integer", read, shape=integer(minimum, maximum))


def optional(kind: Kind[T]) -> Kind[T | None]:
    """A kind, or an empty string for none."""

    def read(value: object, where: Where) -> T | None:
        return None if value == "" else kind.read(value, where)

    return Kind(kind.name, read, shape=either(EMPTY, kind.scalar), located=kind.located)


def optional_text(kind: Kind[str]) -> Kind[str]:
    """A kind of string, or the empty string itself."""

    def read(value: object, where: Where) -> str:
        return "" if value == "" else kind.read(value, where)

    return Kind(kind.name, read, shape=either(EMPTY, kind.scalar))


def choice(*names: str) -> Kind[str]:
    """One of a few words."""

    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(f"is not an accepted value; {nearest(text, names)}")
        return text

    return parsed(" or ".join(f'"{name}"' for name in names), parse, shape=words(*names))


def listing(kind: Kind[T], *, at_least: int = 0) -> Kind[tuple[T, ...]]:
    """A list of distinct values of one kind; every wrong one is reported with its index."""

    def read(value: object, where: Where) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise wrong_type(value, "a list; write the values in [ ]")
        if len(value) < at_least:
            raise ReadError.because("the list is empty; write at least one value")
        results = read_each(kind, value, where)
        if len(set(results)) < len(results):
            raise ReadError(_repeated(results))
        return results

    return Kind(f"list of {kind.plural}", read, shape=array(kind.scalar, at_least), located=kind.located)


def one_or_more(kind: Kind[T]) -> Kind[tuple[T, ...]]:
    """One value, or a list of at least one."""
    several = listing(kind, at_least=1)

    def read(value: object, where: Where) -> tuple[T, ...]:
        return several.read(value, where) if isinstance(value, list) else (kind.read(value, where),)

    return Kind(f"{kind.name} or {several.name}", read, shape=either(kind.scalar, several.scalar))


def any_number(kind: Kind[T]) -> Kind[tuple[T, ...]]:
    """One value, a list of them, or an empty string for none."""
    several = listing(kind)

    def read(value: object, where: Where) -> tuple[T, ...]:
        if value == "":
            return ()
        return several.read(value, where) if isinstance(value, list) else (kind.read(value, where),)

    return Kind(f"{kind.name} or {several.name}", read, shape=either(EMPTY, kind.scalar, several.scalar))


def collect(kind: Kind[T], values: list[Any], where: Where) -> tuple[list[T], list[Located]]:
    """The readable values of a list, and the faults of the others, at most a hundred of them."""
    results: list[T] = []
    faults: list[Located] = []
    wrong = 0
    for index, value in enumerate(values):
        try:
            results.append(kind.read(value, where))
        except ReadError as misread:
            wrong += 1
            if wrong <= _REPORTED:
                faults.extend(below(f"[{index}]", misread.faults))
    return results, _and_more(faults, wrong)


def _and_more(faults: list[Located], wrong: int) -> list[Located]:
    """The faults of the first wrong values of a list, and how many more there are."""
    return faults if wrong <= _REPORTED else [*faults, ("", f"{wrong - _REPORTED:,} more values are wrong")]


def read_each(kind: Kind[T], values: list[Any], where: Where) -> tuple[T, ...]:
    """All values of a list; ReadError with the faults of all of them."""
    results, faults = collect(kind, values, where)
    if faults:
        raise ReadError(faults)
    return tuple(results)


def _repeated(values: tuple[object, ...]) -> list[Located]:
    first: dict[object, int] = {}
    repeated = [index for index, value in enumerate(values) if first.setdefault(value, index) != index]
    shown = repeated[:_REPORTED]
    faults = [(f"[{index}]", f"is the same as [{first[values[index]]}]; leave one out") for index in shown]
    return _and_more(faults, len(repeated))
