"""The JSON Schemas of the configuration, as editors read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from jsonschema import Draft7Validator

_DOCS: Final = Path(__file__).parents[2] / "docs"
SCHEMAS: Final[dict[str, Any]] = {
    name: json.loads((_DOCS / f"{name}.schema.json").read_text()) for name in ("koder-gateway", "tenants")
}
_VALIDATORS: Final = {name: Draft7Validator(schema) for name, schema in SCHEMAS.items()}


def schema_faults(document: object, name: str = "koder-gateway") -> list[str]:
    """What a schema has against a document, each with its place."""
    return [f"{error.json_path}: {error.message}" for error in _VALIDATORS[name].iter_errors(document)]
