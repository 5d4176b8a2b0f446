"""Request targets and Host values: one reading for routing, limiting and forwarding (RFC 9112 section 3.2).

What two readers could take differently is refused here, before anything decides on it.
"""

from __future__ import annotations

import re
from typing import Final

from ..errors import BAD_REQUEST, Refusal

# Nearly every real path: no escape, no dot at a segment's start, nothing to look at twice.
# Each repetition begins with its slash, so there is one way to match, and what has matched is never given back.
CLEAN_PATH: Final = re.compile(rb"(?=/)(?:/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*+)*+/?")
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_TWOFOLD_ESCAPE: Final = re.compile(rb"%(?:2[eEfF]|5[cC]|00)")
# A dot segment, also with the path parameter that some servers strip before they resolve it.
_DOT_SEGMENT: Final = re.compile(rb"/\.\.?(?:[/;]|$)")
_PRINTABLE: Final = bytes(range(0x21, 0x7F))
_ABSOLUTE: Final = re.compile(rb"(?i:https?)://([^/?#]*)([^#]*)")
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{0,5}))?")


def path_fault(path: bytes) -> str | None:
    """Why a path is refused, in a sentence for the client's developer; None for a good one."""
    if CLEAN_PATH.fullmatch(path):
        return None
    if not path.startswith(b"/"):
        return "The target must be a path that begins with a slash."
    if path.translate(None, _PRINTABLE):
        return "The path has a control, space or 8-bit character; escape it."
    if b"#" in path:
        return "The target has a fragment; leave it out."
    if b"\\" in path:
        return "The path has a backslash, which some servers read as a slash."
    if _BAD_ESCAPE.search(path):
        return "The path has a percent sign that two hexadecimal digits do not follow."
    if _TWOFOLD_ESCAPE.search(path):
        return "The path has an escaped dot, slash, backslash or NUL, which servers read differently."
    if _DOT_SEGMENT.search(path):
        return "The path has a dot segment; resolve it first."
    return None


def query_fault(query: bytes) -> str | None:
    """Why a query is refused; None for a good one. Its escapes are the service's to judge."""
    if query.translate(None, _PRINTABLE):
        return "The query has a control, space or 8-bit character; escape it."
    if b"#" in query:
        return "The target has a fragment; leave it out."
    return None


def host_fault(host: bytes) -> str | None:
    """Why a Host value is refused: a list, userinfo, a path, a bad port or character (RFC 9112 section 3.2)."""
    match = _HOST.fullmatch(host)
    if match is None:
        return "The Host is not a host name or address with an optional port."
    if match[1] and int(match[1]) > 65535:
        return "The Host has a port above 65535."
    return None


def _comparable(authority: bytes) -> bytes:
    lower = authority.lower()
    for default in (b":443", b":80", b":"):
        if lower.endswith(default):
            return lower[: -len(default)]
    return lower


def same_authority(one: bytes, other: bytes) -> bool:
    """Whether two authorities are the same in all but case and a default port."""
    return one == other or _comparable(one) == _comparable(other)


def origin_form(target: bytes, host: bytes) -> tuple[bytes, bytes] | Refusal:
    """The authority and origin-form of an absolute-form target (RFC 9112 section 3.2.2); Host must agree with it."""
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        return BAD_REQUEST.because("The target is neither a path nor an http or https URL.")
    authority, rest = match[1], match[2]
    if host_fault(authority) is not None:
        return BAD_REQUEST.because("The target's authority is not a host with an optional port.")
    if host and not same_authority(authority, host):
        return BAD_REQUEST.because("The target's authority and the Host differ.")
    return authority, rest if rest.startswith(b"/") else b"/" + rest
