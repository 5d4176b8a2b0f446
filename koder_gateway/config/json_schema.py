"""The JSON Schema (draft 7) of a file: what its keys are, of which kind, with their defaults and meanings.

Editors that know TOML complete keys by it, and show faults while one writes (taplo, Even Better TOML). It accepts
every file that the gateway accepts; what depends on files, names or several keys is left to `koder-gateway check`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .kinds import Kind
from .markup import plain
from .shapes import Shape, either
from .tables import REQUIRED, Key, keys

_DRAFT: Final = "http://json-schema.org/draft-07/schema#"


def document_schema(entry: type, title: str, about: str) -> dict[str, Any]:
    """The schema of a file whose keys are those of a class."""
    return {"$schema": _DRAFT, "title": title, "description": about, **table_schema(entry)}


def table_schema(entry: type) -> dict[str, Any]:
    """The schema of a table with the keys of a class."""
    known = keys(entry)
    schema: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _key_schema(key) for name, key in known.items()},
    }
    required = [name for name, key in known.items() if key.default is REQUIRED]
    return {**schema, "required": required} if required else schema


def _key_schema(key: Key) -> dict[str, Any]:
    schema = dict(_kind_schema(key.kind))
    if key.about:
        schema["description"] = plain(key.about)
    if key.has_default:
        schema["default"] = _with_base(key)
    return schema


def _with_base(key: Key) -> object:
    return {**key.kind.base, **key.default} if isinstance(key.default, Mapping) else key.default


def _kind_schema(kind: Kind[Any]) -> Shape:
    if kind.entry is None:
        return kind.scalar
    one: Shape = table_schema(kind.entry)
    if kind.shape is not None:
        one = either(kind.shape, one)
    if kind.path == ".":
        return one
    if kind.path == "[].":
        return {"type": "array", "items": one}
    return {"type": "object", "additionalProperties": one}
