"""The files that are written from the code, and what they must have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from koder_gateway.config import health_schema, schema, section_texts, tenants_schema
from koder_gateway.config.json_schema import document_schema
from koder_gateway.config.registry import TenantsFile
from koder_gateway.config.settings import Settings

from .known_faults import known_faults
from .markdown import table
from .roff import sections
from .score import PAGE, page

ROOT: Final = Path(__file__).parents[1]
# What stands before and after a generated part, by the suffix of a file.
_MARKS: Final = {
    ".md": ('<!-- {}: written by "make reference" -->\n', "<!-- end -->\n"),
    ".5": ('.\\" {}: written by "make reference"\n', '.\\" end\n'),
}


def _json(schema: object) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _replaced(text: str, suffix: str, name: str, content: str) -> str:
    """A text with another content between the marks of this name. Raises ValueError where these are missing."""
    begin, end = _MARKS[suffix]
    before, found, rest = text.partition(begin.format(name))
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"there is no part {name}: write {begin.format(name).strip()} and {end.strip()}")
    return before + found + content + closed + after


def _filled(path: str, parts: dict[str, str]) -> str:
    file = ROOT / path
    text = file.read_text()
    for name, content in parts.items():
        text = _replaced(text, file.suffix, name, content)
    return text


def _configuration() -> str:
    parts = {
        "koder-gateway.toml": table(schema()),
        "services.NAME.health": table(health_schema()),
        "tenants.toml": table(tenants_schema()),
    }
    return _filled("docs/configuration.md", parts)


def _manual() -> str:
    abouts = section_texts()
    parts = {
        "koder-gateway.toml": sections(schema(), abouts, "SH"),
        "tenants.toml": sections(tenants_schema(), abouts, "SS"),
    }
    return _filled("docs/man/koder-gateway.toml.5", parts)


def _security() -> str:
    return _filled("docs/security.md", {"known-faults": known_faults(ROOT / "debian" / "known-faults.toml")})


# Each file by its path, with the function that makes its text.
FILES: Final[dict[str, Callable[[], str]]] = {
    "docs/configuration.md": _configuration,
    "docs/man/koder-gateway.toml.5": _manual,
    "docs/security.md": _security,
    PAGE: page,
    "docs/koder-gateway.schema.json": lambda: _json(
        document_schema(Settings, "koder-gateway.toml", "The configuration of koder-gateway.")
    ),
    "docs/tenants.schema.json": lambda: _json(
        document_schema(TenantsFile, "tenants.toml", "The tenants of koder-gateway.")
    ),
}
