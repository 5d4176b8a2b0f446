"""Refusals as problem details (RFC 9457)."""

from __future__ import annotations

from typing import Final

from ..errors import Refusal

CONTENT_TYPE: Final = b"application/problem+json"
# Where each code has a section for whoever meets it; `[problems] docs_url` sets another place.
DOCS_URL: Final = "https://docs.koder.dev/gateway/errors/"
_NAMESPACE: Final = "urn:koder-gateway:"


def problem_type(code: str, docs_url: str) -> str:
    """The URI of a kind of problem: a URL below `docs_url`, or a name if there is none ("")."""
    return (docs_url or _NAMESPACE) + code


def problem_details(refusal: Refusal, docs_url: str) -> dict[str, object]:
    """The members of a problem, without the request id."""
    return {
        "type": problem_type(refusal.code, docs_url),
        "title": refusal.title,
        "status": refusal.status,
        "code": refusal.code,
        "detail": refusal.detail,
    }
