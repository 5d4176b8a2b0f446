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

T = TypeVar("T")
E = TypeVar("E")

# The defaults of a key that must be given, and of one whose absence no TOML value can express.
REQUIRED: Final = object()
DERIVED: Final = object()
_KEY: Final = "key"


@dataclass(frozen=True, slots=True)
class _Key:
    kind: Kind[Any]
    default: object


@dataclass(frozen=True, slots=True)
class Row:
    """One key of the reference: its path, its default as TOML (None: must be given, or follows from other
    keys), and the name of its kind."""

    key: str
    default: str | None
    type: str


def setting(kind: Kind[T], default: object = REQUIRED) -> T:
    """A dataclass field that is a key: the kind of its value, and its default as it would be written in TOML.

    In an object that is made in Python, not from a file, paths are relative to the current folder.
    """
    metadata = {_KEY: _Key(kind, default)}
    if default is REQUIRED:
        return cast(T, field(metadata=metadata))
    if default is DERIVED:
        return cast(T, field(default=None, metadata=metadata))
    here = Path("koder-gateway.toml")
    return field(default_factory=lambda: kind.read(default, Where.beside(here, os.environ)), metadata=metadata)


def keys(table: type) -> dict[str, _Key]:
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

    return Kind("table", read, entry, ".")


def made(entry: type[E], make: Callable[[E], T]) -> Kind[T]:
    """A table that becomes a value, made by `make`, which may raise ReadError."""
    kind = table(entry)
    return Kind("table", lambda value, where: make(kind.read(value, where)), entry, ".")


def array(kind: Kind[T]) -> Kind[tuple[T, ...]]:
    """An array of tables."""

    def read(value: object, where: Where) -> tuple[T, ...]:
        return read_each(kind, read_array(value), where)

    return Kind("array of tables", read, kind.entry, "[].")


def read_array(value: object) -> list[Any]:
    """A TOML array; its reader checks the elements."""
    if not isinstance(value, list):
        raise wrong_type(value, "an array of tables; write the name in [[ ]]")
    return value


def mapping(
    entry: type[Any], read_one: Callable[[str, Any, Where], T], base: Mapping[str, Any]
) -> Kind[Mapping[str, T]]:
    """A table of tables with names chosen by the user, added to those of `base`."""

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

    return Kind("table of tables", read, entry, ".NAME.")


@lru_cache(maxsize=64)
def _defaults(entry: type) -> dict[str, object]:
    return {name: k.default for name, k in keys(entry).items() if k.default not in (REQUIRED, DERIVED)}


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
            yield Row(prefix + name, _toml(k.default), k.kind.name)
        if k.kind.entry is not None:
            yield from rows(k.kind.entry, prefix + name + k.kind.path)


def _toml(value: object) -> str | None:
    # For the strings, numbers, booleans and lists of defaults, JSON and TOML are the same.
    simple = not isinstance(value, dict) and not (isinstance(value, list) and value and isinstance(value[0], dict))
    return json.dumps(value) if simple and value not in (REQUIRED, DERIVED) else None
