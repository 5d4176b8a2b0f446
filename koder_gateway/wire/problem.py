"""Answers of the gateway's own, as problem details (RFC 9457)."""

from __future__ import annotations

import msgspec

from ..errors import Refusal

CONTENT_TYPE = b"application/problem+json"

_encode = msgspec.json.Encoder().encode
# The parts of a refusal's body around the request id. Refusals are few; details made for one request are not kept.
_parts: dict[tuple[str, str], bytes] = {}
_BOUND = 256


def problem_body(refusal: Refusal, request_id: bytes) -> bytes:
    """The JSON body for a refusal; `request_id` is ASCII without anything to escape."""
    key = refusal.code, refusal.detail
    front = _parts.get(key)
    if front is None:
        front = _encode(
            {
                "type": f"urn:koder-gateway:{refusal.code}",
                "title": refusal.title,
                "status": refusal.status,
                "code": refusal.code,
                "detail": refusal.detail,
            }
        )[:-1]
        if len(_parts) < _BOUND:
            _parts[key] = front
    return b'%b,"request_id":"%b"}' % (front, request_id)
