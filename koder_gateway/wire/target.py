"""Request targets and Host values: one interpretation for routing, limiting and forwarding (RFC 9112 section 3.2).

A target that two readers could interpret differently is refused here, before anything is decided.
"""

from __future__ import annotations

import re
from binascii import a2b_qp
from typing import Final, NamedTuple

from ..errors import BAD_REQUEST, Refusal

# Nearly every real path: nothing to look at twice, and nothing that a service could fold, or take for a format behind
# a dot (see `policy.routing`). Repetitions take all they can and give nothing back.
PLAIN_PATH: Final = re.compile(rb"(?=/)(?:/\.?[a-z0-9_~-]++)*+/?")
# Nothing to look at twice: no escape, no dot at a segment's start.
CLEAN_PATH: Final = re.compile(rb"(?=/)(?:/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*+)*+/?")
# Such expressions take a step for each segment, which of an honest path are few. A path of more bytes is looked
# through as a whole, in C: it may be 8 KiB of slashes.
SHORT_PATH: Final = 256
_PLAIN_BYTES: Final = b"abcdefghijklmnopqrstuvwxyz0123456789_~-/"
# All but what servers read differently where it is escaped.
_SAFE: Final = bytes(code for code in range(256) if code not in b"./\\\x00")
# A dot segment may have a path parameter, which some servers strip before they resolve it.
_PARAMETER_AS_SLASH: Final = bytes.maketrans(b";", b"/")
_AS_QUOTED: Final = bytes.maketrans(b"%", b"=")
# An escaped unreserved character (RFC 3986 section 2.3); the dot is refused before.
_NEEDLESS_ESCAPE: Final = re.compile(rb"%(?:2[dD]|3[0-9]|[46][1-9A-Fa-f]|[57][0-9aA]|5[fF]|7[eE])")
_MEANT: Final = {form % code: bytes((code,)) for code in range(0x2D, 0x7F) for form in (b"%%%02x", b"%%%02X")}
# How many characters of a path are surely without such escapes; no configured path is longer. A bound, since a target
# may be all escapes.
LONGEST_PREFIX: Final = 128
# As many bytes are surely as many characters, and one more.
_ESCAPED_PREFIX: Final = 3 * (LONGEST_PREFIX + 2)
_PRINTABLE: Final = bytes(range(0x21, 0x7F))
_SLASH: Final = ord("/")
_ABSOLUTE: Final = re.compile(rb"((?i:https?))://([^/?#]*)([^#]*)")
_DEFAULT_PORTS: Final = {b"http": b":80", b"https": b":443"}
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{0,5}))?")


def is_plain(path: bytes) -> bool:
    """Whether no service reads another path in this one (`PLAIN_PATH`). Of a long path with dots it is not known."""
    if len(path) <= SHORT_PATH:
        return PLAIN_PATH.fullmatch(path) is not None
    return path[0] == _SLASH and not path.translate(None, _PLAIN_BYTES) and b"//" not in path


def path_fault(path: bytes) -> str | None:
    """Why a path is refused, in a sentence for the client's developer; None for a good one."""
    if len(path) <= SHORT_PATH and CLEAN_PATH.fullmatch(path):
        return None
    if not path.startswith(b"/"):
        return "The target must be a path that begins with a slash."
    if path.translate(None, _PRINTABLE):
        return "The path has a control, space or 8-bit character; escape it."
    if b"#" in path:
        return "The target has a fragment; leave it out."
    if b"\\" in path:
        return "The path has a backslash, which some servers read as a slash."
    if b"%" in path:
        decoded = _decoded(path)
        if decoded is None:
            return "The path has a percent sign without two hexadecimal digits after it."
        if decoded.translate(None, _SAFE) != path.translate(None, _SAFE):
            return "The path has an escaped dot, slash, backslash or NUL, which servers read differently."
    # A search for two bytes takes long where there are many of the first one.
    if b"." in path and b"/." in path and _has_dot_segment(path):
        return "The path has a dot segment; resolve it first."
    return None


def _has_dot_segment(path: bytes) -> bool:
    segments = path.translate(_PARAMETER_AS_SLASH) if b";" in path else path
    return b"/./" in segments or b"/../" in segments or segments.endswith((b"/.", b"/.."))


def _decoded(path: bytes) -> bytes | None:
    """A printable path with its escapes decoded, None where one is malformed. Paths may be 8 KiB of escapes, so this
    is done in C: quoted-printable is percent-encoding with another sign, and each escape takes two bytes off."""
    quoted = path.replace(b"=", b"=3D").translate(_AS_QUOTED)
    decoded = a2b_qp(quoted)
    return decoded if len(quoted) - len(decoded) == 2 * quoted.count(b"=") else None


def without_needless_escapes(path: bytes) -> bytes:
    """A good path without escapes of unreserved characters, which mean nothing (RFC 3986 section 6.2.2.2): the form
    by which requests are routed, limited and logged. What is forwarded stays as it came."""
    if b"%" not in path:
        return path
    end = _ESCAPED_PREFIX
    if len(path) > end:
        # No escape is cut in two.
        end = path.rfind(b"%", end - 2, end) if b"%" in path[end - 2 : end] else end
        return _NEEDLESS_ESCAPE.sub(_unescaped, path[:end]) + path[end:]
    return _NEEDLESS_ESCAPE.sub(_unescaped, path)


def _unescaped(escape: re.Match[bytes]) -> bytes:
    return _MEANT[escape[0]]


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


def _comparable(authority: bytes, scheme: bytes) -> bytes:
    lower = authority.lower()
    for default in (_DEFAULT_PORTS.get(scheme, b":"), b":"):
        if lower.endswith(default):
            return lower[: -len(default)]
    return lower


def same_authority(one: bytes, other: bytes, scheme: bytes) -> bool:
    """Whether two authorities are the same in all but case and the default port of a (lower-case) scheme."""
    return one == other or _comparable(one, scheme) == _comparable(other, scheme)


class AbsoluteForm(NamedTuple):
    """An absolute-form target taken apart: its scheme in lower case, and the origin-form of the rest."""

    scheme: bytes
    authority: bytes
    target: bytes


def origin_form(method: bytes, target: bytes, host: bytes) -> AbsoluteForm | Refusal:
    """What an absolute-form target says (RFC 9112 section 3.2.2); Host must agree with it. OPTIONS of no path at all
    is that of the whole server (section 3.2.4)."""
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        return BAD_REQUEST.because("The target is neither a path nor an http or https URL.")
    scheme, authority, rest = match[1].lower(), match[2], match[3]
    if host_fault(authority) is not None:
        return BAD_REQUEST.because("The target's authority is not a host with an optional port.")
    if host and not same_authority(authority, host, scheme):
        return BAD_REQUEST.because("The target's authority and the Host differ.")
    if not rest and method == b"OPTIONS":
        return AbsoluteForm(scheme, authority, b"*")
    return AbsoluteForm(scheme, authority, rest if rest.startswith(b"/") else b"/" + rest)
