"""Tables of the configuration as dataclasses: a key is one line that has its kind and its default.

cattrs builds the function that structures each class, and collects the faults of all its keys.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast

from cattrs import Converter
from cattrs.errors import BaseValidationError
from cattrs.gen import make_dict_structure_fn, override

from .faults import Located, ReadError, below, located, step
from .kinds import Kind, Where, read_each, wrong_type
from .shapes import Shape

T = TypeVar("T")
E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class Derived:
    """The default of a key whose absence no TOML value can express; `text` says in Markdown what applies then."""

    text: str


# The default of a key that must be given.
REQUIRED: Final = object()
_KEY: Final = "key"
_COUNTS: Final = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a table: the kind of its value, its default as in TOML, and what it means, in Markdown."""

    kind: Kind[Any]
    default: object
    about: str

    @property
    def has_default(self) -> bool:
        """Whether there is a default that TOML can express."""
        return self.default is not REQUIRED and not isinstance(self.default, Derived)


@dataclass(frozen=True, slots=True)
class Row:
    """One key of the reference: its path, its default as TOML (None: must be given, or follows from other
    keys, or is in the sample, as `otherwise` says in Markdown), the name of its kind, and what it means, in Markdown
    with links as in docs/configuration.md."""

    key: str
    default: str | None
    type: str
    about: str
    otherwise: str = ""


def setting(kind: Kind[T], default: object = REQUIRED, about: str = "") -> T:
    """A dataclass field that is a key: the kind of its value, its default as it would be written in TOML, and `about`
    what it means: Markdown, with links relative to docs/configuration.md. The reference, the manual page and the JSON
    Schema are generated from it (`make reference`).

    In an object that is made in Python, not from a file, paths are relative to the current folder.
    """
    metadata = {_KEY: Key(kind, default, about)}
    if default is REQUIRED:
        return cast(T, field(metadata=metadata))
    if isinstance(default, Derived):
        return cast(T, field(default=None, metadata=metadata))
    here = Path("koder-gateway.toml")
    return field(default_factory=lambda: kind.read(default, Where.beside(here, os.environ)), metadata=metadata)


def keys(table: type) -> dict[str, Key]:
    """The keys of a table's class by name, in its order."""
    return {item.name: item.metadata[_KEY] for item in fields(table) if _KEY in item.metadata}


def table(entry: type[T]) -> Kind[T]:
    """A table with the keys of a dataclass."""
    # For typeshed a class with a type variable is not hashable, which arguments of a cached function must be.
    handle: Any = entry

    def read(value: object, where: Where) -> T:
        if not isinstance(value, dict):
            raise wrong_type(value, "a table; write its keys in a table of its own")
        try:
            return cast(T, _structure(handle, where)({**_defaults(handle), **value}, entry))
        except BaseValidationError as error:
            raise ReadError(located(error)) from None

    return Kind("table", read, entry, ".", shape=None)


def made(entry: type[E], make: Callable[[E], T]) -> Kind[T]:
    """A table that becomes a value, made by `make`, which may raise ReadError."""
    kind = table(entry)
    return Kind("table", lambda value, where: make(kind.read(value, where)), entry, ".", shape=None)


def array(kind: Kind[T]) -> Kind[tuple[T, ...]]:
    """An array of tables."""

    def read(value: object, where: Where) -> tuple[T, ...]:
        return read_each(kind, read_array(value), where)

    return Kind("array of tables", read, kind.entry, "[].", shape=None)


def read_array(value: object) -> list[Any]:
    """A TOML array; its reader checks the elements."""
    if not isinstance(value, list):
        raise wrong_type(value, "an array of tables; write the name in [[ ]]")
    return value


def mapping(
    entry: type[Any], read_one: Callable[[str, Any, Where], T], base: Mapping[str, Any], short: Shape | None = None
) -> Kind[Mapping[str, T]]:
    """A table of tables with names chosen by the user, added to those of `base`. `short` is the shape of what may be
    written in place of a table."""

    def read(value: object, where: Where) -> Mapping[str, T]:
        if not isinstance(value, dict):
            raise wrong_type(value, "a table; write its keys in a table of its own")
        results: dict[str, T] = {}
        faults: list[Located] = []
        for name, given in {**base, **value}.items():
            try:
                results[name] = read_one(name, given, where)
            except ReadError as misread:
                faults.extend(below(step(name), misread.faults))
        if faults:
            raise ReadError(faults)
        return MappingProxyType(results)

    return Kind("table of tables", read, entry, ".NAME.", shape=short, base=base)


@lru_cache(maxsize=64)
def _defaults(entry: type) -> dict[str, object]:
    return {name: k.default for name, k in keys(entry).items() if k.has_default}


# Cached: compiling one takes milliseconds, which each refresh of the registry would spend again.
@lru_cache(maxsize=64)
def _structure(entry: type, where: Where) -> Callable[[Mapping[str, Any], Any], Any]:
    def hook(kind: Kind[Any]) -> Callable[[Any, Any], Any]:
        return lambda value, _: kind.read(value, where)

    overrides = {name: override(struct_hook=hook(k.kind)) for name, k in keys(entry).items()}
    return make_dict_structure_fn(
        entry,
        Converter(),
        _cattrs_forbid_extra_keys=True,
        _cattrs_detailed_validation=True,
        **cast(Any, overrides),
    )


def rows(entry: type, prefix: str = "") -> Iterator[Row]:
    """The complete schema below one class: every key that a file may have, parents before their parts."""
    for name, k in keys(entry).items():
        if k.kind.entry is None or k.kind.path != ".":
            yield Row(prefix + name, _toml(k.default), k.kind.name, k.about, _otherwise(k))
        if k.kind.entry is not None:
            yield from rows(k.kind.entry, prefix + name + k.kind.path)


def _toml(value: object) -> str | None:
    if value is REQUIRED or isinstance(value, Derived | dict):
        return None
    # For the strings, numbers, booleans and lists of defaults, JSON and TOML are the same.
    return None if isinstance(value, list) and value and isinstance(value[0], dict) else json.dumps(value)


def _otherwise(k: Key) -> str:
    """What is said in place of a default that cannot be written in one line."""
    if k.default is REQUIRED:
        return "must be given"
    if isinstance(k.default, Derived):
        return k.default.text
    if not isinstance(k.default, dict | list) or _toml(k.default) is not None:
        return ""
    base = len(k.default) or len(k.kind.base)
    return f"{_COUNTS[base]}, see the sample" if base else "none"
