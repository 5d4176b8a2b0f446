"""Refusals as responses, in one of three shapes: problem details, an OAuth error, or a page."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

import msgspec

from ..errors import Refusal
from . import error_page, oauth_error
from .problem import CONTENT_TYPE, DOCS_URL, problem_details

# What every response of the gateway's own has besides: it is for one client at one time, and it is what its
# Content-Type says. Nobody keeps it, so it needs no `Vary` for the fields by which its shape is chosen.
NOSNIFF: Final = b"X-Content-Type-Options: nosniff\r\n"
OWN_FIELDS: Final = b"Cache-Control: no-store\r\n" + NOSNIFF

_BOUND: Final = 256
_encode: Final = msgspec.json.Encoder().encode


class RefusalShape(ABC):
    """One shape. Its methods return the field lines besides `OWN_FIELDS`, and the body; a request id is ASCII without
    anything to escape, and `tenant` is a slug, b"" for none."""

    __slots__ = ("writer",)

    def __init__(self, writer: RefusalWriter) -> None:
        self.writer = writer

    @abstractmethod
    def write(self, refusal: Refusal, request_id: bytes, tenant: bytes = b"") -> tuple[bytes, bytes]:
        """The response."""


class JsonShape(RefusalShape):
    """JSON objects. There are few refusals: `known` has what comes before the request id (field lines, and the body's
    beginning) by code and detail, up to a bound."""

    __slots__ = ("known",)

    def __init__(self, writer: RefusalWriter) -> None:
        super().__init__(writer)
        self.known: dict[tuple[str, str], tuple[bytes, bytes]] = {}

    def write(self, refusal: Refusal, request_id: bytes, tenant: bytes = b"") -> tuple[bytes, bytes]:
        key = refusal.code, refusal.detail
        known = self.known.get(key)
        if known is None:
            fields, members = self._parts(refusal)
            known = fields, _encode(members)[:-1]
            if len(self.known) < _BOUND:
                self.known[key] = known
        fields, front = known
        return fields + refusal.fields, b'%b,"request_id":"%b"}' % (front, request_id)

    def _parts(self, refusal: Refusal) -> tuple[bytes, dict[str, object]]:
        """Problem details (RFC 9457): field lines, and members without the request id."""
        return b"Content-Type: %b\r\n" % CONTENT_TYPE, problem_details(refusal, self.writer.docs_url)


class OAuthShape(JsonShape):
    """OAuth errors (RFC 6749 section 5.2) with the problem's members beside them. `scheme` is that of the request's
    access token, as a challenge names it; b"" for none."""

    __slots__ = ("_scheme",)

    def __init__(self, writer: RefusalWriter, scheme: bytes = b"") -> None:
        super().__init__(writer)
        self._scheme = scheme

    def _parts(self, refusal: Refusal) -> tuple[bytes, dict[str, object]]:
        fields = b"Content-Type: %b\r\n" % oauth_error.CONTENT_TYPE
        fields += oauth_error.challenge(refusal, self._scheme)
        return fields, oauth_error.oauth_members(refusal, problem_details(refusal, self.writer.docs_url))


class PageShape(RefusalShape):
    """Pages for people."""

    __slots__ = ()

    def write(
        self, refusal: Refusal, request_id: bytes, tenant: bytes = b"", advice: str = ""
    ) -> tuple[bytes, bytes]:
        """`advice` is what to do, if it is not what the code's page says."""
        body = error_page.error_page(refusal, request_id, tenant.decode("ascii"), advice)
        return error_page.FIELDS + refusal.fields, body


class RefusalWriter:
    """The shapes of refusals under one configuration. `docs_url`: see `problem.problem_type`."""

    __slots__ = ("_oauth", "docs_url", "page", "problem")

    def __init__(self, docs_url: str = DOCS_URL) -> None:
        self.docs_url = docs_url
        self.problem = JsonShape(self)
        self.page = PageShape(self)
        self._oauth = {scheme: OAuthShape(self, scheme) for scheme in (b"", *oauth_error.TOKEN_SCHEMES)}

    def oauth(self, authorization: bytes | None) -> OAuthShape:
        """The OAuth errors for requests with this Authorization header."""
        return self._oauth[oauth_error.token_scheme(authorization)]
