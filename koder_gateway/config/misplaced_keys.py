"""Where a key belongs that is in the wrong section, or in the wrong one of the two files."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from .faults import UNKNOWN
from .settings import Settings
from .tables import keys, rows

_TENANT: Final = "[[tenant]] in the tenants file, which tenants.registry names"
_LISTS: Final = ("routes", "limits")
# The keys of one tenant.
TENANT_KEYS: Final = ("slug", "domains", "status", "cors_origins", "limits")


def misplaced(at: str, message: str, document: dict[str, Any]) -> str:
    """The message of a fault of the main file, completed for a key that belongs elsewhere."""
    section, _, name = at.removeprefix(".").rpartition(".")
    if not section and (name == "tenant" or (name == "tenants" and isinstance(document["tenants"], list))):
        return f"has no effect here; write {_TENANT}"
    if section == "services" and name in _homes():
        value = document["services"].get(name)
        if not isinstance(value, dict) and ":/" not in str(value):
            return f"is not a service's address; {name} belongs in {' or '.join(_homes()[name])}"
    if not message.startswith(UNKNOWN):
        return message
    if section and name in keys(Settings):
        section = f"[[{name}]]" if name in _LISTS else f"[{name}]"
        return f"{UNKNOWN} here; it is a section of its own: write {section}"
    homes = _homes().get(name) or ((_TENANT,) if name in TENANT_KEYS else ())
    return f"{UNKNOWN} here; it belongs in {' or '.join(homes)}" if homes else message


def misplaced_in_tenants(name: str, value: object, message: str) -> str:
    """The same for a key of the tenants file, at its top or in one tenant, that belongs in the main file."""
    if name in keys(Settings):
        # A list is more likely a misspelled key of this file.
        return message if isinstance(value, list) else f"{UNKNOWN} here; it is a section of the main file"
    homes = _homes().get(name)
    return f"{UNKNOWN} here; it belongs in {' or '.join(homes)} in the main file" if homes else message


@lru_cache(maxsize=1)
def _homes() -> dict[str, tuple[str, ...]]:
    """The keys of all sections and their tables, each with the sections that have it."""
    homes: dict[str, tuple[str, ...]] = {}
    for row in rows(Settings):
        section, _, key = row.key.rpartition(".")
        if section:
            written = f"[[{section[:-2]}]]" if section.endswith("[]") else f"[{section}]"
            homes[key] = (*homes.get(key, ()), written)
    return homes
