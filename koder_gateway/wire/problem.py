"""Responses of the gateway itself, as problem details (RFC 9457)."""

from __future__ import annotations

import msgspec

from ..errors import Refusal

CONTENT_TYPE = b"application/problem+json"

_FIELDS = b"Content-Type: %b\r\nCache-Control: no-store\r\n" % CONTENT_TYPE
_encode = msgspec.json.Encoder().encode
# A refusal's body up to the request id. There are few refusals; those with a detail of their own are cached up to a
# bound.
_kept: dict[tuple[str, str], bytes] = {}
_BOUND = 256


def problem(refusal: Refusal, request_id: bytes) -> tuple[bytes, bytes]:
    """The field lines and the JSON body for a refusal; `request_id` is ASCII without anything to escape."""
    key = refusal.code, refusal.detail
    front = _kept.get(key)
    if front is None:
        front = _front(refusal)
        if len(_kept) < _BOUND:
            _kept[key] = front
    return _FIELDS + refusal.fields, b'%b,"request_id":"%b"}' % (front, request_id)


def _front(refusal: Refusal) -> bytes:
    return _encode(
        {
            "type": f"urn:koder-gateway:{refusal.code}",
            "title": refusal.title,
            "status": refusal.status,
            "code": refusal.code,
            "detail": refusal.detail,
        }
    )[:-1]
