"""`[tls] hsts`: whether browsers are told to use TLS only, for how long, and for which hosts (RFC 6797)."""

from __future__ import annotations

import re
from typing import Final

from .faults import ReadError, nearest, shown
from .kinds import Kind, Where
from .shapes import BOOLEAN, TEXT, either, integer
from .units import parse_duration

_YEAR: Final = 365 * 86_400
_LONGEST: Final = 10 * _YEAR
_DIRECTIVES: Final = {"max-age": "max-age", "includesubdomains": "includeSubDomains", "preload": "preload"}
# A delta-seconds, or the same as a quoted string (RFC 6797 section 6.1).
_SECONDS: Final = re.compile(r'([0-9]{1,10})|"([0-9]{1,10})"')
_RIGHT: Final = 'write true, false, a duration as in "365d", or the field as in "max-age=31536000; includeSubDomains"'


def _read(value: object, where: Where) -> str:
    """The header's value; "" for no header."""
    if isinstance(value, bool):
        return f"max-age={_YEAR}" if value else ""
    if isinstance(value, int):
        return f"max-age={_bounded(value, value)}"
    if not isinstance(value, str):
        raise ReadError.because(f"{shown(value)} is not a valid max-age; {_RIGHT}")
    if value[:1].isdigit():
        return f"max-age={_bounded(_duration(value), value)}"
    return _field(value)


def _bounded(seconds: float, value: object) -> int:
    if seconds != int(seconds) or not 0 <= seconds <= _LONGEST:
        raise ReadError.because(f'{shown(value)} is not a number of whole seconds up to ten years; write "365d"')
    return int(seconds)


def _duration(text: str) -> float:
    if text.isascii() and text.isdecimal():
        return float(text[:16])
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ReadError.because(f"{shown(text)} {error}") from None


def _field(text: str) -> str:
    found: dict[str, str] = {}
    for part in filter(None, (part.strip(" \t") for part in text.split(";"))):
        name, equals, argument = part.partition("=")
        directive = _DIRECTIVES.get(name.strip(" \t").lower())
        if directive is None:
            known = nearest(name.strip(" \t"), _DIRECTIVES.values())
            raise ReadError.because(f"{shown(text)} has an unknown directive {shown(name)}; {known}")
        if directive in found:
            raise ReadError.because(f"{shown(text)} has {directive} twice; leave one out (RFC 6797 section 6.1)")
        found[directive] = _age(argument, text) if directive == "max-age" else _bare(equals, directive, text)
    if "max-age" not in found:
        raise ReadError.because(f"{shown(text)} has no max-age; {_RIGHT}")
    _check_preload(found, text)
    return "; ".join(found.values())


def _age(argument: str, text: str) -> str:
    match = _SECONDS.fullmatch(argument.strip(" \t"))
    if match is None:
        raise ReadError.because(f"{shown(text)} has a max-age that is not a number of seconds; write max-age={_YEAR}")
    return f"max-age={_bounded(int(match[1] or match[2]), text)}"


def _bare(equals: str, directive: str, text: str) -> str:
    if equals:
        raise ReadError.because(f"{shown(text)} gives {directive} a value; write it alone")
    return directive


def _check_preload(found: dict[str, str], text: str) -> None:
    """The conditions of browsers' preload lists, which would otherwise ignore `preload`."""
    if "preload" not in found:
        return
    if "includeSubDomains" not in found or int(found["max-age"].partition("=")[2]) < _YEAR:
        raise ReadError.because(
            f"{shown(text)} is not accepted by preload lists; add includeSubDomains and a max-age of"
            f" at least {_YEAR},"
            " or leave preload out"
        )


HSTS: Final = Kind("boolean, duration, seconds or header", _read, shape=either(BOOLEAN, integer(0, _LONGEST), TEXT))
