"""The readable part of a file with faults, so that other faults are reported at the same time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .entries import SERVICES
from .faults import ConfigurationError, Located, ReadError
from .kinds import Kind, Where, optional
from .loading import read_source
from .settings import Settings
from .tables import keys
from .values import ENDPOINT, FILE
from .warnings import misspelled, unrouted


@dataclass(frozen=True, slots=True)
class PartialSettings:
    """Settings in which unreadable values have their defaults.

    `unread` are their keys, as in `tls.certificates`, or whole sections. `endpoints` are the readable ones, by their
    key in `[listen]`. `given` and `routed` are the names of services in the file, whatever is wrong with them.
    `files` are, for each unreadable service, its ca, client_cert and client_key as far as given.
    """

    settings: Settings
    unread: frozenset[str]
    endpoints: Mapping[str, tuple[str, ...]]
    given: frozenset[str]
    routed: frozenset[str]
    files: Mapping[str, tuple[Path | None, Path | None, Path | None]]

    def misspelled(self) -> Iterator[Located]:
        """Services that no route uses and whose names are similar to those of default services."""
        readable = set(unrouted(self.settings))
        return misspelled(
            name
            for name in sorted(self.given - self.routed)
            if name in readable or f"services.{name}" in self.unread or "services" in self.unread
        )


def load_partially(path: Path | None, environ: Mapping[str, str] = os.environ) -> PartialSettings | None:
    """The readable part of a file, with what the environment has in place of some keys; None if it is not TOML."""
    try:
        source = read_source(path, environ)
    except ConfigurationError:
        return None
    reading = _Reading(source.document, source.where)
    parts = {name: reading.part(name) for name in keys(Settings)}
    # The others are reported as faults of the file.
    parts["routes"] = tuple(route for route in parts["routes"] if route.service in parts["services"])
    return PartialSettings(
        Settings(**parts, source=source.path, variables=source.variables),
        frozenset(reading.unread),
        {key: reading.endpoints(key, parts["listen"]) for key in ("port", "redirect_port", "admin_port")},
        frozenset(reading.table("services")),
        frozenset(route["service"] for route in reading.tables("routes") if isinstance(route.get("service"), str)),
        reading.files,
    )


class _Reading:
    """Reads each section as a whole if possible, else key by key."""

    def __init__(self, document: dict[str, Any], where: Where) -> None:
        self._document = document
        self._where = where
        self.unread: set[str] = set()
        self.files: dict[str, tuple[Path | None, Path | None, Path | None]] = {}

    def table(self, name: str) -> dict[str, Any]:
        """A table of the document; an empty one if it is not a table."""
        value = self._document.get(name)
        return value if isinstance(value, dict) else {}

    def tables(self, name: str) -> list[dict[str, Any]]:
        """The tables of an array of the document."""
        value = self._document.get(name)
        return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []

    def part(self, name: str) -> Any:
        """One section."""
        section = keys(Settings)[name]
        kind, default = section.kind, section.default
        try:
            return kind.read(self._document.get(name, default), self._where)
        except ReadError:
            self.unread.add(name)
        if kind.path == "." and kind.entry is not None:
            self.unread.discard(name)
            return self._keys(name, kind.entry)
        if name == "services":
            return self._services()
        value = self._document[name]
        return tuple(one for each in value for one in self._one(kind, [each], ())) if isinstance(value, list) else ()

    def _keys(self, name: str, entry: type) -> Any:
        values: dict[str, Any] = {}
        given = self.table(name)
        for key, row in keys(entry).items():
            try:
                values[key] = row.kind.read(given.get(key, row.default), self._where)
            except ReadError:
                self.unread.add(f"{name}.{key}")
                values[key] = row.kind.read(row.default, self._where)
        return entry(**values)

    def _services(self) -> Any:
        self.unread.discard("services")
        services = dict(SERVICES.read({}, self._where))
        for name, value in self.table("services").items():
            try:
                services[name] = SERVICES.read({name: value}, self._where)[name]
            except ReadError:
                self.unread.add(f"services.{name}")
                # A service that a route uses exists, though not at its default address: nothing can be checked there.
                services.pop(name, None)
                if isinstance(value, dict) and _may_speak_tls(value):
                    ca, cert, key = (self._file(value.get(each)) for each in ("ca", "client_cert", "client_key"))
                    self.files[name] = (ca, cert, key)
        return services

    def _file(self, value: object) -> Path | None:
        return None if value is None else self._one(optional(FILE), value, None)

    def _one(self, kind: Kind[Any], value: object, otherwise: Any) -> Any:
        try:
            return kind.read(value, self._where)
        except ReadError:
            return otherwise

    def endpoints(self, key: str, listen: Any) -> tuple[str, ...]:
        """The endpoint strings of one key, without values of other types."""
        if f"listen.{key}" not in self.unread:
            texts = getattr(listen, key)
            return texts if isinstance(texts, tuple) else (texts,)
        value = self.table("listen")[key]
        texts = value if isinstance(value, list) else [value]
        return tuple(text for text in texts if self._one(ENDPOINT, text, ""))


def _may_speak_tls(service: dict[str, Any]) -> bool:
    """Whether it may use TLS, as far as its addresses can be read."""
    urls = [service.get("url"), *(service["urls"] if isinstance(service.get("urls"), list) else ())]
    texts = [url for url in urls if isinstance(url, str) and url]
    return not texts or any(not url.startswith(("http:", "unix:")) for url in texts)
