"""Tenants that are written as nearly all are, read by one expression: TOML's parser takes ten times as long.

It knows a part of TOML (1.0), in which each entry has its keys in one order and on lines of their own, and strings
have nothing to be escaped. What it does not know is the parser's, and so is every message.
"""

from __future__ import annotations

import re
from typing import Any, Final

# Printable ASCII without quotation marks and backslashes.
_TEXT: Final = rb'"[ !#-\[\]-~]*+"'
_BLANK: Final = re.compile(rb"(?:[ \t]*+(?:#[\t -~]*+)?\n)*+")
_ENTRY: Final = re.compile(
    rb"%b\[\[tenant\]\]\nslug = (%b)(?:\ndomains = \[(%b(?:, %b)*+)?\])?(?:\nstatus = (%b))?(?:\n|\Z)"
    % (_BLANK.pattern, _TEXT, _TEXT, _TEXT, _TEXT)
)


def plain_entries(part: bytes) -> dict[str, Any] | None:
    """The document in this part of a tenants file; None if it is not written in the usual way."""
    tenants: list[dict[str, Any]] = []
    at = 0
    while entry := _ENTRY.match(part, at):
        slug, domains, status = entry.groups()
        tenant: dict[str, Any] = {"slug": slug[1:-1].decode("ascii")}
        if domains is not None:
            tenant["domains"] = domains[1:-1].decode("ascii").split('", "')
        if status is not None:
            tenant["status"] = status[1:-1].decode("ascii")
        tenants.append(tenant)
        at = entry.end()
    rest = _BLANK.match(part, at)
    return {"tenant": tenants} if tenants and rest is not None and rest.end() == len(part) else None
