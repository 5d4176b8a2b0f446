"""Which fields of a stock resource's response are sent: those that are not the gateway's own to say.

A resource that is mounted in the tree sets what it likes. Framing and persistence belong to the connection (RFC 9110
section 7.6.1), the date to the gateway's clock, and the request id, CORS and HSTS to the exchange.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from twisted.web.http_headers import Headers

_OURS: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"date", b"x-request-id")
)
_CORS: Final = b"access-control-"
_HSTS: Final = b"strict-transport-security"


def is_ours(name: bytes, drops_hsts: bool) -> bool:
    """Whether the gateway says this field, whose name is in lower case. `drops_hsts`: HSTS is one that it says."""
    return name in _OURS or name.startswith(_CORS) or (drops_hsts and name == _HSTS)


def sent_fields(headers: Headers, drops_hsts: bool) -> Iterator[tuple[bytes, bytes]]:
    """Names, as the resource has them, and values of those fields that are sent."""
    for name, values in headers.getAllRawHeaders():
        if not is_ours(name.lower(), drops_hsts):
            for value in values:
                yield name, value
