"""Fragments of JSON Schema (draft 7) for kinds of values: as much of each kind as a schema can say.

A shape accepts at least what the kind's reader accepts, so an editor complains about no good value. The reader
decides: whether a file exists, or a name is known, is more than a schema can tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Shape = Mapping[str, Any]

TEXT: Final[Shape] = {"type": "string"}
SOME_TEXT: Final[Shape] = {"type": "string", "minLength": 1}
BOOLEAN: Final[Shape] = {"type": "boolean"}
EMPTY: Final[Shape] = {"const": ""}
ZERO: Final[Shape] = {"const": 0}


def pattern(expression: str) -> Shape:
    """A string that matches all of a regular expression, which must mean the same in Python and in ECMAScript."""
    return {"type": "string", "pattern": f"^(?:{expression})$"}


def words(*names: str) -> Shape:
    """One of a few strings."""
    return {"enum": list(names)}


def integer(minimum: int, maximum: int) -> Shape:
    """An integer within bounds, both included."""
    return {"type": "integer", "minimum": minimum, "maximum": maximum}


def array(each: Shape, at_least: int = 0) -> Shape:
    """A list of distinct values."""
    shape: dict[str, Any] = {"type": "array", "items": dict(each), "uniqueItems": True}
    return {**shape, "minItems": at_least} if at_least else shape


def either(*shapes: Shape) -> Shape:
    """A value of one shape or another."""
    flat: list[Shape] = []
    for shape in shapes:
        flat += shape["anyOf"] if set(shape) == {"anyOf"} else [shape]
    return {"anyOf": flat}
