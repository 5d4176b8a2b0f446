"""Refusals as responses, in one of three shapes: problem details, an OAuth error, or a page."""

from __future__ import annotations

from typing import Final

import msgspec

from ..errors import Refusal
from . import error_page, oauth_error, problem

# What every response of the gateway's own has besides: it is for one client at one time, and it is what its
# Content-Type says. Nobody keeps it, so it needs no `Vary` for the fields by which its shape is chosen.
OWN_FIELDS: Final = b"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"

_BOUND: Final = 256
_encode: Final = msgspec.json.Encoder().encode
_PROBLEM: Final = b"Content-Type: %b\r\n" % problem.CONTENT_TYPE
_OAUTH: Final = b"Content-Type: %b\r\n" % oauth_error.CONTENT_TYPE


class RefusalWriter:
    """Writes refusals. Each method returns the field lines besides `OWN_FIELDS`, and the body; a request id is ASCII
    without anything to escape.

    `docs_url`: see `problem.problem_type`. There are few refusals: what comes before the request id is cached, of
    those with a detail of their own up to a bound.
    """

    __slots__ = ("_oauth", "_problems", "docs_url")

    def __init__(self, docs_url: str = problem.DOCS_URL) -> None:
        self.docs_url = docs_url
        self._problems: dict[tuple[str, str], bytes] = {}
        self._oauth: dict[tuple[str, str], bytes] = {}

    def problem(self, refusal: Refusal, request_id: bytes) -> tuple[bytes, bytes]:
        """Problem details (RFC 9457)."""
        key = refusal.code, refusal.detail
        front = self._problems.get(key)
        if front is None:
            front = _kept(self._problems, key, problem.problem_details(refusal, self.docs_url))
        return _PROBLEM + refusal.fields, b'%b,"request_id":"%b"}' % (front, request_id)

    def oauth(self, refusal: Refusal, request_id: bytes, authorization: bytes | None) -> tuple[bytes, bytes]:
        """An OAuth error (RFC 6749 section 5.2) with the problem's members beside it. `authorization`: the request's
        Authorization header, None where there is none or it does not matter."""
        key = refusal.code, refusal.detail
        front = self._oauth.get(key)
        if front is None:
            details = problem.problem_details(refusal, self.docs_url)
            front = _kept(self._oauth, key, oauth_error.oauth_members(refusal, details))
        fields = _OAUTH + refusal.fields
        if authorization is not None:
            fields += oauth_error.challenge(refusal, authorization)
        return fields, b'%b,"request_id":"%b"}' % (front, request_id)

    def page(self, refusal: Refusal, request_id: bytes, tenant: bytes, advice: str = "") -> tuple[bytes, bytes]:
        """A page for a person, in the name of the tenant with this slug (b"" for none). `advice` is what to do, if it
        is not what the code's page says."""
        body = error_page.error_page(refusal, request_id, tenant.decode("ascii"), advice)
        return error_page.FIELDS + refusal.fields, body


def _kept(cache: dict[tuple[str, str], bytes], key: tuple[str, str], members: dict[str, object]) -> bytes:
    """An object's JSON without its end, cached if there is room."""
    front = _encode(members)[:-1]
    if len(cache) < _BOUND:
        cache[key] = front
    return front
