"""Answers 400 of a token endpoint that are no guess: a device that waits for its user, a token that has had its time.

Limits that charge failures are against guessing. What nobody can guess needs none, and honest clients fail with it
each morning: an application wakes up with a refresh token that has expired, asks once, and has its user log in. So
`invalid_grant` is no failure of a request for a refresh, and still one where a password or a code was wrong. A
refresh token is a long random value (RFC 6749 section 10.10); the client's secret, which may come beside it, is
judged under another name (`invalid_client`, section 5.2).

What was asked for must be read as every service reads it, or a password would be guessed under this name: one form
of the fields that such a request has (RFC 6749 section 6), each once and spelled plainly, and nothing in the query.
"""

from __future__ import annotations

import re
from typing import Final

# What of an answer is looked at for its reason, and how long a request's body may be.
REASON: Final = 1024
LONGEST: Final = 16384

# RFC 8628 section 3.5: until the user has come by, and when the device has waited too long.
_WAITING: Final = re.compile(rb'"error"\s*:\s*"(?:authorization_pending|slow_down|expired_token)"')
_INVALID_GRANT: Final = re.compile(rb'"error"\s*:\s*"invalid_grant"')

# RFC 6749 sections 2.3.1 and 6, RFC 7521 section 4.2, RFC 8707 section 2, and two that clients are used to send.
_NAMES: Final = frozenset(
    (
        b"grant_type",
        b"refresh_token",
        b"client_id",
        b"client_secret",
        b"client_assertion",
        b"client_assertion_type",
        b"scope",
        b"resource",
        b"audience",
        b"redirect_uri",
    )
)
_VALUE: Final = re.compile(rb"[A-Za-z0-9._~!$'()*,:@/?=+%-]*+")


def is_no_guess(target: bytes, request: bytes | None, reason: bytes) -> bool:
    """Whether an answer 400 that begins with `reason` is no failure of a request with this target and body, None for
    one that is too long or not whole."""
    if _WAITING.search(reason):
        return True
    return (
        _INVALID_GRANT.search(reason) is not None
        and request is not None
        and b"?" not in target
        and asks_for_refresh(request)
    )


def asks_for_refresh(body: bytes) -> bool:
    """Whether a body asks for a refresh and can be read as nothing else."""
    asked: dict[bytes, bytes] = {}
    for pair in body.split(b"&"):
        name, equals, value = pair.partition(b"=")
        if name not in _NAMES or name in asked or not equals or not _VALUE.fullmatch(value):
            return False
        asked[name] = value
    return asked.get(b"grant_type") == b"refresh_token" and bool(asked.get(b"refresh_token"))
