"""Keys of the configuration from environment variables, which take the place of the file's.

`KODER_GATEWAY_LISTEN__ADMIN_PORT` is `listen.admin_port`, `KODER_GATEWAY_SERVICES__IDENTITY` the address of a
service, and `KODER_GATEWAY_SERVICES__IDENTITY__CONNECT` another of its keys. A value is written as in TOML, and text
also without quotes. Tables in an array (routes, limits) have no variables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from . import defaults
from .document import parse_document
from .entries import ServiceEntry
from .faults import ConfigurationError, ReadError, close, shown, step
from .kinds import Kind, Where
from .origins import told
from .settings import Settings
from .tables import keys
from .values import SERVICE_URL

PREFIX: Final = "KODER_GATEWAY_"
# What the gateway and its unit use for something else: options of the command line, and a new generation of workers.
OWN: Final = frozenset((f"{PREFIX}OPTIONS", f"{PREFIX}GENERATION", f"{PREFIX}REHEARSAL"))
# What Kubernetes sets in each container for a Service that is called koder-gateway, or koder-gateway-something.
_OF_A_SERVICE: Final = re.compile(
    r"(?:[A-Z0-9]+_){0,16}(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_[A-Z]+)?)"
)
_PORT: Final = re.compile(r"(?:[A-Z0-9]+_){0,16}PORT")
_LINK: Final = re.compile(r"(?:tcp|udp|sctp)://.*")
_NOT_IN_A_NAME: Final = re.compile(r"[^A-Z0-9]")
_SIMPLE: Final = re.compile(r"[A-Za-z0-9_]{1,100}")
_ADDRESS: Final = ("url", "urls")
_HOW: Final = "write the section, two underscores and the key, as in KODER_GATEWAY_LISTEN__ADMIN_PORT"


@dataclass(frozen=True, slots=True)
class Overridden:
    """A document with the keys that the environment sets. `variables` has the variable of each; `faults` is a line
    for each variable that cannot be used."""

    document: dict[str, Any]
    variables: Mapping[str, str]
    faults: tuple[str, ...]


def overridden(document: dict[str, Any], environ: Mapping[str, str], where: Where) -> Overridden:
    """The document with what the environment has in place of its keys."""
    reading = _Reading(document, where)
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable not in OWN:
            reading.take(variable, environ[variable])
    return Overridden(reading.document, reading.variables, tuple(reading.faults))


class _Reading:
    """The variables that were read so far."""

    def __init__(self, document: dict[str, Any], where: Where) -> None:
        self.document = dict(document)
        self.variables: dict[str, str] = {}
        self.faults: list[str] = []
        self._where = where

    def take(self, variable: str, text: str) -> None:
        """Read one variable."""
        name = variable.removeprefix(PREFIX)
        try:
            if name in sections():
                path, kind = sections()[name]
                self._set(path, variable, self._value(kind, text))
            elif name.startswith("SERVICES__"):
                self._take_service(name.removeprefix("SERVICES__"), variable, text)
            elif not _is_kubernetes(name, text):
                raise ReadError.because(_unknown(name))
        except ReadError as misread:
            called = variable if _SIMPLE.fullmatch(variable) else shown(variable)
            self.faults += (told(called, at, message) for at, message in misread.faults)

    def _take_service(self, name: str, variable: str, text: str) -> None:
        folded, _, key = name.partition("__")
        known = keys(ServiceEntry)
        if not folded or (key and (key.lower() not in known or key != key.upper())) or folded != folded.upper():
            raise ReadError.because(_unknown(f"SERVICES__{name}"))
        kind = known[key.lower()].kind if key else SERVICE_URL
        self._set(("services", self._service(folded), key.lower() or "url"), variable, self._value(kind, text))

    def _service(self, folded: str) -> str:
        """The service that a variable means: signs that no variable can have are underscores in it."""
        given = self.document.get("services")
        names = {*defaults.SERVICES, *(given if isinstance(given, dict) else ())}
        meant = sorted(name for name in names if _NOT_IN_A_NAME.sub("_", name.upper()) == folded)
        if len(meant) > 1:
            raise ReadError.because(f"may mean each of the services {', '.join(meant)}; write its key in the file")
        return meant[0] if meant else folded.lower()

    def _value(self, kind: Kind[Any], text: str) -> object:
        """The value in a variable: TOML if that is one for this key, else the text itself."""
        toml = list(_toml(text))
        wrong: list[ReadError] = []
        for value in (*toml, text):
            try:
                kind.read(value, self._where)
            except ReadError as misread:
                wrong.append(misread)
            else:
                return value
        if text.startswith(("[", "{", '"', "'")) and not toml:
            raise ReadError.because('is not a value of TOML; write it as in the file, as in ["10.0.0.0/8"]')
        # Here text needs no quotes, so that a number has none is not what is wrong.
        raise wrong[-1] if _wants_quotes(wrong[0]) else wrong[0]

    def _set(self, path: tuple[str, ...], variable: str, value: object) -> None:
        """Put a value into the document, unless a table of it is none, which is a fault of the file."""
        before = path[0] + "".join(map(step, path[1:-1]))
        twin = self._twin(before, path[-1])
        if twin is not None:
            raise ReadError.because(f"sets what {twin} sets too; leave one out")
        table = self.document
        for depth, name in enumerate(path[:-1]):
            inner = table.get(name, {})
            if depth and name not in table and path[0] == "services":
                inner = defaults.SERVICES.get(name, {})
                if not inner:
                    # All of the service is the variable's.
                    self.variables.setdefault(before, variable)
            inner = {"url": inner} if depth and isinstance(inner, str) else inner
            if not isinstance(inner, dict):
                return
            table[name] = table = dict(inner)
        if path[0] == "services" and path[-1] in _ADDRESS:
            # One address in place of several, or the other way round.
            for key in _ADDRESS:
                table.pop(key, None)
        table[path[-1]] = value
        self.variables[before + step(path[-1])] = variable

    def _twin(self, before: str, key: str) -> str | None:
        """The variable that has already set the same."""
        same = _ADDRESS if before.startswith("services.") and key in _ADDRESS else (key,)
        return next((self.variables[at] for each in same if (at := before + step(each)) in self.variables), None)


def _wants_quotes(misread: ReadError) -> bool:
    return any("is not a string" in message for _, message in misread.faults)


def _toml(text: str) -> Iterator[object]:
    """The value of TOML that a text is, if it is one."""
    try:
        document = parse_document(b"value = " + text.encode("utf-8", "surrogateescape"), "")
    except ConfigurationError:
        return
    if document.keys() == {"value"}:
        yield document["value"]


@lru_cache(maxsize=1)
def sections() -> Mapping[str, tuple[tuple[str, ...], Kind[Any]]]:
    """The path and the kind of the key that each variable sets, without the prefix, but for those of services."""
    return {"__".join(path).upper(): (path, kind) for path, kind in _scalars((), Settings)}


def _scalars(before: tuple[str, ...], entry: type) -> Iterator[tuple[tuple[str, ...], Kind[Any]]]:
    """The keys of tables, and of tables within these; the tables themselves too, but for sections."""
    for name, key in keys(entry).items():
        path = (*before, name)
        if before:
            yield path, key.kind
        if key.kind.path == "." and key.kind.entry is not None:
            yield from _scalars(path, key.kind.entry)


def _is_kubernetes(name: str, text: str) -> bool:
    """Whether a variable tells a container where a Service is: none that anybody has written for the gateway."""
    if "__" in name or len(name) > 255:
        return False
    return bool(_OF_A_SERVICE.fullmatch(name) or (_PORT.fullmatch(name) and _LINK.fullmatch(text)))


def _unknown(name: str) -> str:
    section = name.partition("__")[0].lower()
    table = keys(Settings).get(section)
    if table is not None and table.kind.path == "[].":
        return f"is not possible: {section} are tables of their own; write [[{section}]] in the file"
    services = [f"SERVICES__{service.upper()}" for service in defaults.SERVICES]
    of_services = [f"{service}__{key.upper()}" for service in services for key in keys(ServiceEntry)]
    meant = close(name, [*sections(), *services, *of_services])
    return f"is no key of the configuration; {f'did you mean {PREFIX}{meant}?' if meant else _HOW}"
