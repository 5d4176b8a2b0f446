"""Answers 400 of a token endpoint that are no guess: a device that waits for its user, a token that has had its time.

Limits that charge failures are against guessing. What nobody can guess needs none, and honest clients fail with it
each morning: an application wakes up with a refresh token that has expired, asks once, and has its user log in. So
`invalid_grant` is no failure of a request for a refresh, and still one where a password or a code was wrong. A
refresh token is a long random value (RFC 6749 section 10.10), and so is a device's code (RFC 8628 section 5.2), whose
polls fail until the user has come by (section 3.5). The client's secret, which may come beside either, is judged
under another name (`invalid_client`, RFC 6749 section 5.2).

What was asked for must be read as every service reads it, or a password would be guessed under this name. So it is
looked at as the service gets it, and everything in it is known: POST to a path that ends in `token`, one plain form
of the fields that such a request has, each once, and nothing that says how else to read them. Of the answer its one
`error` counts, not what it may repeat of the request. Whatever cannot be told is a failure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Final

from ..wire.body import LAST_CHUNK, ChunkedDecoder
from ..wire.fields import folded

# The longest answer that is looked at, and how long a request's body may be, as it was framed.
LONGEST_ANSWER: Final = 4096
LONGEST: Final = 16384

# No query, no parameters, no escapes: where services differ about a path limits are lenient, and this is not.
_START: Final = re.compile(rb"POST (?:/[A-Za-z0-9._~-]++)*?/token HTTP/1\.1")
# Another charset (UTF-7, UTF-16) makes another form of the same bytes.
_FORM: Final = re.compile(
    rb"application/x-www-form-urlencoded"
    rb'(?:[ \t]*;[ \t]*charset=(?:utf-8|us-ascii|"utf-8"|"us-ascii"))?',
    re.IGNORECASE,
)
_JSON: Final = re.compile(rb"application/json[ \t]*(?:;.*)?", re.IGNORECASE)
# ASCII alone, and no escape of a control, `%`, `&` or `;`, which would matter to who decodes twice or too early.
_VALUE: Final = re.compile(
    rb"(?:[A-Za-z0-9._~!$'()*,:@/?=+-]"
    rb"|%(?:2[0-47-9A-Fa-f]|3[0-9AC-Fac-f]|[4-6][0-9A-Fa-f]|7[0-9A-Ea-e]))*+"
)

# RFC 6749 section 2.3.1, RFC 7521 section 4.2, RFC 8707 section 2, and what clients are used to send.
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


class Excuse:
    """What is needed to tell whether an answer 400 is no failure, of which the whole body has to be added."""

    __slots__ = ("_answer", "_errors")

    def __init__(self, errors: frozenset[str]) -> None:
        self._errors = errors
        # None once it is too long.
        self._answer: bytes | None = b""

    def add(self, data: bytes) -> None:
        """More of the answer's body."""
        if self._answer is not None:
            longer = len(self._answer) + len(data) > LONGEST_ANSWER
            self._answer = None if longer else self._answer + data

    @property
    def holds(self) -> bool:
        """Whether the complete answer is no failure."""
        return self._answer is not None and error_of(self._answer) in self._errors


def excuse_for(request: Sequence[bytes], chunked: bool, answer_lines: Sequence[bytes]) -> Excuse | None:
    """What may excuse an answer 400 with these field lines, None where nothing does. `request` is all that the
    service has got: the head, and the body in pieces, which are framed where it is `chunked`."""
    if len(request) < 2 or not is_form(request[0]) or not is_json(answer_lines):
        return None
    pieces = request[1:]
    if chunked:
        if pieces[-1] != LAST_CHUNK:
            return None  # with trailers, which some services take for fields of the head
        framed = b"".join(pieces)
        # Of our own framing, which may be more than the payload where that has come in small pieces.
        body = ChunkedDecoder(slack=len(framed)).feed(framed)
    else:
        body = b"".join(pieces)
    errors = excusable_errors(body)
    return Excuse(errors) if errors else None


def is_form(head: bytes) -> bool:
    """Whether a request's head, as the service gets it, is that of a plain form for a token endpoint."""
    start, *lines = head.split(b"\r\n")
    if _START.fullmatch(start) is None:
        return False
    typed = False
    for line in lines:
        name, _, value = line.partition(b":")
        # Content-Type in another spelling, Content-Encoding, Content-Language, Content-Range: each may be read.
        if not folded(name).startswith(b"content"):
            continue
        lower = name.lower()
        if lower == b"content-type" and not typed and _FORM.fullmatch(value.strip(b" \t")):
            typed = True
        elif lower != b"content-length":
            return False
    return typed


def is_json(lines: Sequence[bytes]) -> bool:
    """Whether these field lines of an answer are those of a JSON text, once and without a content coding."""
    said = [line.partition(b":") for line in lines]
    types = [value.strip() for name, _, value in said if name.lower() == b"content-type"]
    coded = any(name.lower() == b"content-encoding" for name, _, _ in said)
    return len(types) == 1 and _JSON.fullmatch(types[0]) is not None and not coded


def excusable_errors(body: bytes) -> frozenset[str]:
    """The errors that are no failure of a request with this body: none where it could be read in another way."""
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
    """The `error` of a JSON object, which stands there once; what is deeper in it is none."""
    try:
        # Objects become tuples of their members, so that none hides another of the same name.
        members = json.loads(answer.decode(), object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        return None
    if not isinstance(members, tuple):
        return None
    errors = [value for name, value in members if name == "error"]
    return errors[0] if len(errors) == 1 and isinstance(errors[0], str) else None
