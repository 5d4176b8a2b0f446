"""Header names in the configuration: the tenant header, and lists of headers that may pass."""

from __future__ import annotations

from typing import Final

from ..wire.body import trailer_passes
from ..wire.fields import HOP_BY_HOP, PROTECTED, TOKEN, UNREMOVABLE, folded
from ..wire.spoofable_fields import SPOOFABLE_FIELDS, is_spoofable
from .faults import close
from .kinds import matching
from .shapes import pattern

_ALWAYS: Final = frozenset(("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "x-real-ip"))
_TAKEN: Final = frozenset(
    map(folded, PROTECTED | HOP_BY_HOP | {b"cookie2", b"content-location", b"ratelimit", b"ratelimit-policy"})
)
# Clients choose these as they like for each request, or the message itself does: a limit by one would limit nothing.
_CHOSEN: Final = frozenset(
    (
        b"client-cert",
        b"client-cert-chain",
        b"x-koder-context",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"cookie",
        b"date",
        b"max-forwards",
        b"origin",
        b"range",
        b"traceparent",
        b"tracestate",
        b"via",
        b"x-request-id",
    )
)
_TAKEN_PREFIXES: Final = (b"x-forwarded-", b"access-control-", b"content-", b"sec-", b"proxy-")


def _token_fault(text: str) -> str | None:
    if text.isascii() and TOKEN.fullmatch(text.encode()):
        return None
    return 'is not a header name (RFC 9110 section 5.1); write letters, digits and -, as in "X-Tenant-ID"'


def _tenant_header_fault(text: str) -> str | None:
    wrong = _token_fault(text)
    if wrong is not None:
        return wrong
    name = folded(text.encode())
    if "_" in text:
        return 'has an underscore, and the gateway drops such headers; write it with -, as in "X-Tenant-ID"'
    if name in _TAKEN or text.lower().encode().startswith(_TAKEN_PREFIXES):
        return 'is a header that HTTP or the gateway itself uses; write another name, as in "X-Tenant-ID"'
    return None


def _is_claim(name: str) -> bool:
    return _token_fault(name) is None and "_" not in name and is_spoofable(name.encode())


def _claim_fault(text: str) -> str | None:
    name = text.lower()
    if _is_claim(name):
        return None
    meant = close(name, sorted(claim.decode("ascii") for claim in SPOOFABLE_FIELDS))
    hint = f'did you mean "{meant}"?' if meant else 'write one of those, as in "X-HTTP-Method-Override"'
    return f"is not one of the headers that the gateway drops; {hint}"


def _trailer_fault(text: str) -> str | None:
    wrong = _token_fault(text)
    if wrong is None and not trailer_passes(text.encode(), b""):
        wrong = (
            "must stand before the body and is never passed on as a trailer (RFC 9110 section 6.5.1); leave it out"
        )
    return wrong


def _forwarded_fault(text: str) -> str | None:
    name = text.lower()
    if name in _ALWAYS:
        return "is always set by the gateway; leave it out"
    if name.startswith("x-forwarded-") and _token_fault(text) is None and "_" not in name:
        return None
    if _is_claim(name):
        return None
    return 'is not one of the headers that the gateway drops; write one of those, as in "X-Forwarded-Port"'


def counted_header_fault(name: str) -> str | None:
    """What is wrong with a header (in lower case) as something that limits count apart; None if nothing is."""
    wrong = _token_fault(name)
    if wrong is not None:
        return wrong
    wire = name.encode("ascii")
    if "_" in name:
        return 'has an underscore, and the gateway drops such headers; write it with -, as in "header:X-API-Key"'
    if name in _ALWAYS or name.startswith("x-forwarded-") or is_spoofable(wire):
        return 'names a header that clients can forge; count by "ip", which trusts your proxies alone'
    if wire in HOP_BY_HOP | UNREMOVABLE or wire in _CHOSEN or name.startswith(("access-control-", "sec-")):
        return 'names a header that says nothing about who asks; write another, as in "header:X-API-Key"'
    return None


_NAME: Final = pattern(TOKEN.pattern.decode())

FIELD_NAME: Final = matching("header name", _token_fault, shape=_NAME)
TENANT_HEADER: Final = matching("header name", _tenant_header_fault, shape=_NAME)
FORWARDED_FIELD: Final = matching("header name", _forwarded_fault, shape=_NAME)
SPOOFABLE_FIELD: Final = matching("header name", _claim_fault, shape=_NAME)
TRAILER: Final = matching("header name", _trailer_fault, shape=_NAME)
