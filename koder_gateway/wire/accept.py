"""Whether a client would rather get a page for a person to read than JSON.

Browsers say what a request is for (Fetch Metadata, `Sec-Fetch-Mode`), and no page can change what they say. Without
that field the Accept header decides, by its quality values (RFC 9110 section 12.5.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

MODE: Final = b"sec-fetch-mode"
ACCEPT: Final = b"accept"
_NAMES: Final = frozenset((MODE, ACCEPT))
# Bytes of all Accept headers together. Browsers send less than 200; a longer one prefers nothing.
_LONGEST: Final = 1024
# The types that compete: a page's, and those of the gateway's JSON.
_PAGE: Final = b"text/html"
_JSON: Final = (b"application/problem+json", b"application/json")
_TEXT: Final = b"text/plain"
_RANGE: Final = re.compile(
    rb"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)/([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*(?:;(.*))?", re.DOTALL
)
_QUALITY: Final = re.compile(rb"(?:\A|;)[ \t]*[qQ]=([01](?:\.[0-9]{0,3})?)[ \t]*(?:;|\Z)")


def negotiating_fields(fields: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Those of a head's fields that decide, unless they are too long to."""
    chosen = [pair for pair in fields if pair[0].lower() in _NAMES]
    return chosen if sum(len(value) for _, value in chosen) <= _LONGEST else []


def may_prefer_page(head: bytes) -> bool:
    """Whether a client with this head could prefer a page; b"" if its bytes are not at hand. A quick look: no client
    does whose head does not say one of these words."""
    lower = head.lower()
    return not lower or b"text/" in lower or b"navigate" in lower


def prefers_page(fields: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the client navigates to a page, or prefers `text/html` to JSON. Not if it takes both alike (`*/*`)."""
    modes: list[bytes] = []
    ranges: list[bytes] = []
    for name, value in fields:
        lower = name.lower()
        if lower == ACCEPT:
            ranges.append(value)
        elif lower == MODE:
            modes.append(value)
    if modes:
        return len(modes) == 1 and modes[0].strip(b" \t").lower() == b"navigate"
    accepted = b",".join(ranges)
    # Most clients that are no browsers name no page: that is seen without parsing.
    if len(accepted) > _LONGEST or b"text/" not in accepted.lower():
        return False
    return _prefers(accepted)


def names_json(fields: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the client names `application/json` in its Accept header, and prefers neither text nor a page to it.
    `*/*` names nothing."""
    accepted = b",".join(value for name, value in fields if name.lower() == ACCEPT)
    if len(accepted) > _LONGEST or b"json" not in accepted.lower():
        return False
    quality = _qualities(accepted)
    return quality.get(_JSON[1], 0.0) > 0.0 and quality[_JSON[1]] >= max(_of(_TEXT, quality), _of(_PAGE, quality))


def _prefers(accepted: bytes) -> bool:
    quality = _qualities(accepted)
    return _of(_PAGE, quality) > max(_of(kind, quality) for kind in _JSON)


def _qualities(accepted: bytes) -> dict[bytes, float]:
    quality: dict[bytes, float] = {}
    for part in accepted.split(b","):
        match = _RANGE.fullmatch(part)
        if match is None:
            continue
        name = b"%b/%b" % (match[1].lower(), match[2].lower())
        quality[name] = max(_weight(match[3]), quality.get(name, 0.0))
    return quality


def _weight(parameters: bytes | None) -> float:
    """The quality of a media range with these parameters; a malformed one counts for nothing."""
    if parameters is None:
        return 1.0
    match = _QUALITY.search(parameters)
    if match is not None:
        return min(float(match[1]), 1.0)
    return 0.0 if re.search(rb"(?:\A|;)[ \t]*[qQ]=", parameters) else 1.0


def _of(kind: bytes, quality: dict[bytes, float]) -> float:
    """The quality of one type: the most specific range decides (RFC 9110 section 12.5.1)."""
    for name in (kind, kind.partition(b"/")[0] + b"/*", b"*/*"):
        if name in quality:
            return quality[name]
    return 0.0
