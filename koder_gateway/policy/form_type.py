"""Which requests carry one plain form, that every service reads in the same way."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from ..wire.fields import folded

# Another charset (UTF-7, UTF-16) makes another form of the same bytes.
_FORM: Final = re.compile(
    rb"application/x-www-form-urlencoded"
    rb'(?:[ \t]*;[ \t]*charset=(?:utf-8|us-ascii|"utf-8"|"us-ascii"))?',
    re.IGNORECASE,
)


def is_plain_form(fields: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request with these headers (names and values) has one form as its body, without a content coding."""
    typed = False
    for name, value in fields:
        # Content-Type in another spelling, Content-Encoding, Content-Language, Content-Range: a service may read any
        # of them.
        if not folded(name).startswith(b"content"):
            continue
        lower = name.lower()
        if lower == b"content-type" and not typed and _FORM.fullmatch(value.strip(b" \t")):
            typed = True
        elif lower != b"content-length":
            return False
    return typed
