"""Refusals as OAuth errors: what OAuth and OpenID Connect clients parse (RFC 6749 section 5.2).

The media type is `application/json`, which that section demands and which clients check before they parse. The
members of problem details are in the same object, so nobody loses any.
"""

from __future__ import annotations

from typing import Final

from ..errors import Refusal

CONTENT_TYPE: Final = b"application/json"

INVALID_REQUEST: Final = "invalid_request"
ACCESS_DENIED: Final = "access_denied"
SERVER_ERROR: Final = "server_error"
# Also for 429: `slow_down` (RFC 8628 section 3.5) would tell a device that its user has not decided yet.
UNAVAILABLE: Final = "temporarily_unavailable"

# The `error` for each code. What a client can do decides: correct its request, ask for access, or try again later.
OAUTH_ERRORS: Final = {
    "bad_request": INVALID_REQUEST,
    "tenant_required": INVALID_REQUEST,
    "tenant_conflict": INVALID_REQUEST,
    "tenant_suspended": ACCESS_DENIED,
    "not_allowed": ACCESS_DENIED,
    "no_route": INVALID_REQUEST,
    "unknown_tenant": INVALID_REQUEST,
    "method_not_allowed": INVALID_REQUEST,
    "request_timeout": UNAVAILABLE,
    "body_too_large": INVALID_REQUEST,
    "uri_too_long": INVALID_REQUEST,
    "expectation_failed": INVALID_REQUEST,
    "misdirected_request": INVALID_REQUEST,
    "rate_limited": UNAVAILABLE,
    "head_too_large": INVALID_REQUEST,
    "internal_error": SERVER_ERROR,
    "not_implemented": INVALID_REQUEST,
    "upstream_unreachable": UNAVAILABLE,
    "upstream_untrusted": SERVER_ERROR,
    "upstream_invalid": SERVER_ERROR,
    "upstream_closed": UNAVAILABLE,
    "overloaded": UNAVAILABLE,
    "draining": UNAVAILABLE,
    "upstream_timeout": UNAVAILABLE,
}
# The authentication schemes of access tokens (RFC 6750 section 2.1, RFC 9449 section 7.1), as a challenge names them.
TOKEN_SCHEMES: Final = (b"Bearer", b"DPoP")


def oauth_error(refusal: Refusal) -> str:
    """The `error` of a refusal; of a code that is not in the table, by its status."""
    error = OAUTH_ERRORS.get(refusal.code)
    return error or (INVALID_REQUEST if refusal.status < 500 else SERVER_ERROR)


def oauth_members(refusal: Refusal, problem: dict[str, object]) -> dict[str, object]:
    """The members of an OAuth error, those of the problem (`problem_details`) behind them. `error_uri` is the
    problem's type where that is a page to read."""
    members: dict[str, object] = {"error": oauth_error(refusal), "error_description": description(refusal.detail)}
    kind = str(problem["type"])
    if kind.startswith(("https:", "http:")):
        members["error_uri"] = kind
    return members | problem


def description(detail: str) -> str:
    """A detail with the characters that an `error_description` may have: printable ASCII without quotation marks and
    backslashes."""
    plain = detail.replace('"', "'").replace("\\", "/")
    return "".join(character if " " <= character <= "~" else "?" for character in plain)


def token_scheme(authorization: bytes | None) -> bytes:
    """The scheme of the access token in an Authorization header; b"" without one."""
    scheme = b"" if authorization is None else authorization.partition(b" ")[0].lower()
    return next((known for known in TOKEN_SCHEMES if known.lower() == scheme), b"")


def challenge(refusal: Refusal, scheme: bytes) -> bytes:
    """The WWW-Authenticate line for a request with an access token of this scheme; b"" where none is due.

    A protected resource such as userinfo names the error of a malformed request that has a token (RFC 6750 section
    3.1). No refusal of the gateway is about the token itself, so there is no other case.
    """
    if not scheme or refusal.status != 400:
        return b""
    said = oauth_error(refusal), description(refusal.detail)
    return b'WWW-Authenticate: %b error="%b", error_description="%b"\r\n' % (
        scheme,
        *(text.encode() for text in said),
    )
