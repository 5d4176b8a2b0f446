"""The origins in a request's Origin header, one by one, each with its host.

A browser sends one origin, or `null` (Fetch section 3.2). Anything else (RFC 6454 section 7.1 allows lists, and a
header may be repeated) is read as the most lenient service would read it: that only removes rights, and never grants
any.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from ..wire.fields import MAX_LISTED

_BETWEEN: Final = re.compile(rb"[ \t,]+")
# The host ends where a URL's would. Each part ends at a byte that it cannot contain, so matching is linear.
_ORIGIN: Final = re.compile(
    rb"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    rb"(?:[^/?#\\@]*@)?"
    rb"(?P<host>\[[0-9a-f:.]*\]|[^:/?#\\@]*)"
    rb"(?::0*(?P<port>[0-9]*))?"
)
# How many values are cached, and the longest: a name, a scheme and a port (RFC 1035 section 2.3.4).
_REMEMBERED: Final = 1024
_KEPT: Final = 300
_LONGEST_NAME: Final = 253
_DEFAULT_PORTS: Final = {b"http": b"80", b"https": b"443"}


# An origin of a browser under a wildcard: one label (RFC 1123 section 2.1), and at least two behind it.
_ONE_LABEL: Final = re.compile(
    rb"(?P<scheme>https://)(?P<host>[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
    rb"(?P<rest>(?:\.[a-z0-9_-]{1,63}+){2,}))(?P<port>:[1-9][0-9]{0,4})?"
)


def wildcard_of(origin: bytes) -> tuple[bytes, bytes]:
    """The wildcard that would cover this origin, `https://*.app.example` for `https://a.app.example`, and the
    origin's host; (b"", b"") if none does. The scheme and a port are the same, and the asterisk stands for one whole
    label."""
    match = _ONE_LABEL.fullmatch(origin)
    if match is None or len(match["host"]) > _LONGEST_NAME:
        return b"", b""
    return b"%b*%b%b" % (match["scheme"], match["rest"], match["port"] or b""), match["host"]


def covers_tenants(origin: str, base_domain: str) -> bool:
    """Whether a configured origin is the wildcard of the tenants' own hosts, below the base domain."""
    return re.fullmatch(rf"https://\*\.{re.escape(base_domain.lower())}(?::[0-9]+)?", origin) is not None


class Page(NamedTuple):
    """An origin as it is configured (`policy.cors.origin_fault`), and its host in the form in which names are
    compared."""

    origin: bytes
    host: bytes


def pages(value: bytes) -> tuple[Page, ...] | None:
    """The origins that an Origin header names, several lines joined as one list; None if there are too many to check.

    Values without a host, such as `null`, are left out.
    """
    return _remembered(value) if len(value) <= _KEPT else _pages(value)


def _pages(value: bytes) -> tuple[Page, ...] | None:
    named = _BETWEEN.split(value.lower(), MAX_LISTED)
    if len(named) > MAX_LISTED:
        return None
    return tuple(_page(match) for match in map(_ORIGIN.match, named) if match is not None)


_remembered = lru_cache(maxsize=_REMEMBERED)(_pages)


def _page(match: re.Match[bytes]) -> Page:
    """An origin without its default port, as browsers send it. A dot at the end of the name is ignored."""
    scheme, host, port = match.groups()
    name = host.removesuffix(b".")
    suffix = b":" + port if port and port != _DEFAULT_PORTS.get(scheme) else b""
    return Page(b"%b://%b%b" % (scheme, name, suffix), name)
