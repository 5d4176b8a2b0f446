"""What is known of a head that is refused unparsed, so that its response has the usual headers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from .accept import ACCEPT, MODE, prefers_page
from .target import host_fault

_ORIGIN_LINE: Final = b"\r\norigin:"
_HOST_LINE: Final = b"\r\nhost:"
# Where an origin has ended: no scheme, name and port are longer. A host is a part of it.
_LONGEST_ORIGIN: Final = 512
_BARE: Final = re.compile(rb"[\r\n]")


def known_of(raw: bytes) -> tuple[bytes, bytes | None, bool]:
    """The Host and the Origin in a head that was not, or not wholly, understood, and whether its client prefers a
    page, as a browser with too many cookies does. b"" and None unless there is exactly one of each, and the former a
    good one."""
    # Not in the request line, which may be long.
    raw = raw[raw.find(b"\n") - 1 :] if b"\n" in raw else b""
    lower = raw.lower()
    said = [(name, _sole_line(raw, lower, b"\r\n%b:" % name)) for name in (MODE, ACCEPT)]
    page = prefers_page((name, value) for name, value in said if value is not None)
    return _good(_sole_line(raw, lower, _HOST_LINE)), _sole_line(raw, lower, _ORIGIN_LINE), page


def known_of_fields(fields: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, bytes | None, bool]:
    """The same of fields with lower-case names."""
    hosts, origins = set(), []
    for name, value in fields:
        if name in (b"host", b":authority"):
            hosts.add(value)
        elif name == b"origin":
            origins.append(value)
    origin = origins[0] if len(origins) == 1 else None
    return _good(hosts.pop() if len(hosts) == 1 else None), origin, prefers_page(fields)


def _good(host: bytes | None) -> bytes:
    return b"" if host is None or host_fault(host) is not None else host


def _sole_line(raw: bytes, lower: bytes, line: bytes) -> bytes | None:
    begin = lower.find(line)
    if begin < 0 or lower.find(line, begin + 1) >= 0:
        return None
    begin += len(line)
    value, line_end, _ = raw[begin : begin + _LONGEST_ORIGIN].partition(b"\r\n")
    return value.strip(b" \t") if line_end and not _BARE.search(value) else None
