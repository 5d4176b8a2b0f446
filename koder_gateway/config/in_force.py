"""The configuration in force: each key with its value, defaults included, and where that comes from.

Values are as in TOML, not as the gateway uses them, so what is written of them can be read again; paths are absolute,
so it can be read from anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from .credentials import PREFIX
from .faults import step, without_secrets
from .key_lines import key_lines
from .kinds import Kind
from .loading import Source
from .settings import Settings
from .tables import Key, keys
from .toml_text import toml_key, toml_value

# URLs that are shown to everybody anyway.
_PUBLIC: Final = frozenset(("problems.docs_url",))


@dataclass(frozen=True, slots=True)
class Entry:
    """One key: `table` is the header above it, "" for a key before all tables, and `path` names it as faults do, as
    in `routes[0].path`. `name` is that of the file or of the variable, "" for a default; `line` is that of the file,
    else 0."""

    table: str
    path: str
    key: str
    value: object
    source: Literal["default", "file", "environment"]
    name: str
    line: int = 0


def entries_in_force(source: Source) -> list[Entry]:
    """Every key that has a value, in the order in which TOML can have them."""
    reading = _Reading(source)
    entries = [entry for section, key in keys(Settings).items() for entry in reading.section(section, key)]
    return sorted(entries, key=lambda entry: entry.table != "")


def toml_lines(entries: list[Entry]) -> Iterator[str]:
    """The entries as a file, with a comment on where each comes from."""
    table = place = ""
    for entry in entries:
        before = entry.path.rpartition(".")[0]
        if (entry.table, before) != (table, place) and entry.table:
            if place:
                yield ""
            yield entry.table
        table, place = entry.table, before
        origin = (entry.name or entry.source) + (f":{entry.line}" if entry.line else "")
        comment = "".join(letter if letter.isprintable() else "?" for letter in origin)
        yield f"{toml_key(entry.key)} = {toml_value(entry.value)}  # {comment}"


def json_entries(entries: list[Entry]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [
        {
            "key": entry.path,
            "value": entry.value,
            "source": entry.source,
            "name": entry.name or None,
            "line": entry.line or None,
        }
        for entry in entries
    ]


class _Reading:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._lines = key_lines(source.text)

    def section(self, name: str, key: Key) -> Iterator[Entry]:
        """The entries of one section, or of one array or table of tables."""
        kind, given = key.kind, self._source.document.get(name, key.default)
        entry: Any = kind.entry
        if kind.path == ".":
            yield from self._table(f"[{name}]", name, entry, given)
        elif kind.path == "[].":
            for number, table in enumerate(given):
                yield from self._table(f"[[{name}]]", f"{name}[{number}]", entry, table, name)
            if not given:
                yield self._entry("", name, name, given, name)
        else:
            for each, table in {**kind.base, **given}.items():
                at = name + step(each)
                yield from self._table(f"[{at}]", at, entry, {"url": table} if isinstance(table, str) else table)

    def _table(self, header: str, at: str, entry: type, given: Mapping[str, Any], whole: str = "") -> Iterator[Entry]:
        """The keys of one table; `whole` is the array that it belongs to, all of which comes from one place."""
        for name, key in keys(entry).items():
            if name not in given and not key.has_default:
                continue
            value = given.get(name, key.default)
            # Of a service's url and urls one is none.
            if at.startswith("services.") and name in ("url", "urls") and not value:
                continue
            shown = self._shown(key.kind, value, f"{at}.{name}")
            yield self._entry(header, f"{at}.{name}", name, shown, whole if name in given else "")

    def _entry(self, header: str, path: str, key: str, value: object, whole: str) -> Entry:
        variable = self._source.variables.get(path)
        if variable is not None:
            return Entry(header, path, key, value, "environment", variable)
        written = whole in self._source.written if whole else _has(self._source.written, path)
        if written:
            # A service that is an address alone has no key for it.
            line = self._lines.get(path) or self._lines.get(path.removesuffix(".url"), 0)
            return Entry(header, path, key, value, "file", str(self._source.path), line)
        return Entry(header, path, key, value, "default", "")

    def _shown(self, kind: Kind[Any], value: object, path: str) -> object:
        """A value without secrets, and with an absolute path."""
        if isinstance(value, list):
            return [self._shown(kind, each, path) for each in value]
        if not isinstance(value, str):
            return value
        if "URL" in kind.name and path not in _PUBLIC:
            value = without_secrets(value)
        if not kind.located or value in ("", "-") or "://" in value or value.startswith(PREFIX):
            return value
        return os.path.normpath(Path(self._source.where.folder, value))


def _has(written: Mapping[str, Any], path: str) -> bool:
    """Whether a file has this key; a service that it has as an address has its `url`."""
    first, _, rest = path.partition(".")
    if first == "services":
        services = written.get(first)
        for name, given in services.items() if isinstance(services, dict) else ():
            if rest.startswith(step(name)[1:] + "."):
                key = rest[len(step(name)) :]
                return key == "url" if isinstance(given, str) else key in given
        return False
    section = written.get(first)
    return isinstance(section, dict) and rest in section
