"""`[problems] docs_url`: where people can read what the gateway's errors mean."""

from __future__ import annotations

import re
from typing import Final

from .kinds import Kind, parsed
from .shapes import EMPTY, either, pattern

_RIGHT: Final = 'write a URL as in "https://docs.example.com/errors/", or "" for none'
# The characters of a URL (RFC 3986 section 2), which an `error_uri` may have too (RFC 6749 section 5.2).
_URL: Final = re.compile(r"https?://[A-Za-z0-9\[][A-Za-z0-9.:\[\]-]*/[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*")
_LONGEST: Final = 512


def _parse(text: str) -> str:
    if not text:
        return text
    if len(text) > _LONGEST:
        raise ValueError(f"is longer than {_LONGEST} characters; {_RIGHT}")
    if _URL.fullmatch(text) is None:
        raise ValueError(f"is not an absolute http or https URL; {_RIGHT}")
    if text[-1] not in "/#=":
        raise ValueError('does not end in "/", "#" or "=", and an error\'s code is put behind it; add one of them')
    return text


DOCS_URL: Final[Kind[str]] = parsed("URL", _parse, shape=either(EMPTY, pattern("https?://.+[/#=]")))
