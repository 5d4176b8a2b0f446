"""Responses that are no failed guesses: a polling device, an expired refresh token, a user who has to do something.

Limits that charge failures protect against guessing. What some errors say is never that a guess was wrong, whatever
was asked (`NO_GUESSES`): wait until the user has logged in (RFC 8628 section 3.5); the user has to do something
(OpenID Connect Core section 3.1.2.6); send this nonce with your proof (RFC 9449 section 8), which a service says
before it looks at a secret, or if that was right. A short response of JSON that says so is enough, whatever its
status.

For other errors the request counts as well. Long random values need no protection against guessing, and honest
clients fail with them every morning: an application wakes up with an expired refresh token, tries once, and has its
user log in. So a 400 `invalid_grant` is not a failure in response to a refresh, but is one in response to a
password or a code.

A refresh token is a long random value (RFC 6749 section 10.10), and so is a device code (RFC 8628 section 5.2), whose
polls fail until the user has logged in (section 3.5). A client secret in the same request has an error of its own
(`invalid_client`, RFC 6749 section 5.2).

Every service must read the request in the same way, or a password could be guessed under the name of a refresh. So
the gateway looks at the request as the service gets it, and must know everything in it: POST to a path that ends in
`token`, one plain form with the names that such a request has, each once, and nothing that changes how the form is
read. Of the response only its one `error` counts, not what it may repeat of the request. In any other case the
response counts as a failure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Final

from ..wire.body import LAST_CHUNK, ChunkedDecoder
from .form_type import is_plain_form

# The longest response that is examined, and the longest body of a request, including its framing.
LONGEST_ANSWER: Final = 4096
# The longest response that is examined for one of NO_GUESSES, if the request is not known.
SHORT_ANSWER: Final = 1024
LONGEST: Final = 16384

# No query, no parameters, no escapes: if services may read a path in different ways, limits match all of them, but
# this must match none.
_START: Final = re.compile(rb"POST (?:/[A-Za-z0-9._~-]++)*?/token HTTP/1\.1")
_JSON: Final = re.compile(rb"application/json[ \t]*(?:;.*)?", re.IGNORECASE)
# Only ASCII, and no escaped control character, `%`, `&` or `;`, which would matter to a service that decodes twice or
# too early.
_VALUE: Final = re.compile(
    rb"(?:[A-Za-z0-9._~!$'()*,:@/?=+-]"
    rb"|%(?:2[0-47-9A-Fa-f]|3[0-9AC-Fac-f]|[4-6][0-9A-Fa-f]|7[0-9A-Ea-e]))*+"
)

# RFC 6749 section 2.3.1, RFC 7521 section 4.2, RFC 8707 section 2, and names that clients commonly send.
_NAMES: Final = frozenset(
    (
        b"grant_type",
        b"client_id",
        b"client_secret",
        b"client_assertion",
        b"client_assertion_type",
        b"scope",
        b"resource",
        b"audience",
    )
)
# RFC 6749 section 6; RFC 8628 section 3.4, and RFC 7636 section 4.5, whose verifier is a long random value as well.
REFRESH_NAMES: Final = _NAMES | {b"refresh_token", b"redirect_uri"}
DEVICE_NAMES: Final = _NAMES | {b"device_code", b"code_verifier"}
_KNOWN: Final = REFRESH_NAMES | DEVICE_NAMES
_DEVICE_GRANT: Final = b"urn:ietf:params:oauth:grant-type:device_code"
_COLON: Final = re.compile(rb"%3[Aa]")

_NOTHING: Final[frozenset[str]] = frozenset()
_EXPIRED: Final = frozenset(("invalid_grant",))
_WAITING: Final = frozenset(("authorization_pending", "slow_down", "expired_token"))
NO_GUESSES: Final = frozenset(("authorization_pending", "slow_down", "interaction_required", "use_dpop_nonce"))


class Excuse:
    """Decides whether a response is no failure; the whole body of the response must be added. `errors` are those that
    are none after this request, besides NO_GUESSES."""

    __slots__ = ("_answer", "_errors")

    def __init__(self, errors: frozenset[str]) -> None:
        self._errors = errors
        # None once it is too long.
        self._answer: bytes | None = b""

    def add(self, data: bytes) -> None:
        """Add a part of the response's body."""
        if self._answer is not None:
            longest = LONGEST_ANSWER if self._errors else SHORT_ANSWER
            longer = len(self._answer) + len(data) > longest
            self._answer = None if longer else self._answer + data

    @property
    def holds(self) -> bool:
        """Whether the complete response is not a failure."""
        answer = self._answer
        if answer is None:
            return False
        error = error_of(answer)
        return error in self._errors or (error in NO_GUESSES and len(answer) <= SHORT_ANSWER)


def excuse_for(request: Sequence[bytes], chunked: bool, answer_lines: Sequence[bytes]) -> Excuse | None:
    """The `Excuse` that can decide about a response with these header lines; None if it is a failure in any case.

    `request` is everything that the service got, for a 400: the head, and the body in pieces, with their framing if
    it is `chunked`. It is empty if that is not known.
    """
    return Excuse(_excusable(request, chunked)) if is_json(answer_lines) else None


def _excusable(request: Sequence[bytes], chunked: bool) -> frozenset[str]:
    if len(request) < 2 or not is_form(request[0]):
        return _NOTHING
    pieces = request[1:]
    if not chunked:
        return excusable_errors(b"".join(pieces))
    if pieces[-1] != LAST_CHUNK:
        return _NOTHING  # with trailers, which some services take for fields of the head
    framed = b"".join(pieces)
    # Framed by the gateway, which may add more bytes than the payload has if that arrived in small pieces.
    return excusable_errors(ChunkedDecoder(slack=len(framed)).feed(framed))


def is_form(head: bytes) -> bool:
    """Whether a request's head, as the service gets it, is that of a plain form for a token endpoint."""
    start, *lines = head.split(b"\r\n")
    if _START.fullmatch(start) is None:
        return False
    said = (line.partition(b":") for line in lines)
    return is_plain_form((name, value) for name, _, value in said)


def is_json(lines: Sequence[bytes]) -> bool:
    """Whether these header lines of a response announce one JSON text without a content coding."""
    said = [line.partition(b":") for line in lines]
    types = [value.strip() for name, _, value in said if name.lower() == b"content-type"]
    coded = any(name.lower() == b"content-encoding" for name, _, _ in said)
    return len(types) == 1 and _JSON.fullmatch(types[0]) is not None and not coded


def excusable_errors(body: bytes) -> frozenset[str]:
    """The errors that are not failures of a request with this body: none if it could be read in another way."""
    asked: dict[bytes, bytes] = {}
    for pair in body.split(b"&"):
        name, equals, value = pair.partition(b"=")
        if name not in _KNOWN or name in asked or not equals or not _VALUE.fullmatch(value):
            return _NOTHING
        asked[name] = value
    grant = asked.get(b"grant_type", b"")
    if grant == b"refresh_token":
        return _EXPIRED if asked.get(b"refresh_token") and asked.keys() <= REFRESH_NAMES else _NOTHING
    if _COLON.sub(b":", grant) == _DEVICE_GRANT:
        return _WAITING if asked.get(b"device_code") and asked.keys() <= DEVICE_NAMES else _NOTHING
    return _NOTHING


def error_of(answer: bytes) -> str | None:
    """The `error` member at the top level of a JSON object, which must be there once."""
    try:
        # Objects become tuples of their members, so that a repeated name is not hidden.
        members = json.loads(answer.decode(), object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        return None
    if not isinstance(members, tuple):
        return None
    errors = [value for name, value in members if name == "error"]
    return errors[0] if len(errors) == 1 and isinstance(errors[0], str) else None
