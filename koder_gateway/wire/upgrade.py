"""Upgrades of a connection to another protocol (RFC 9110 section 7.8, RFC 6455 section 4).

Which upgrades a client may request, and whether the service's 101 matches. After a switch both sides bypass the
gateway, so only a switch that was requested in exactly this way is allowed.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha1
from typing import Final

from .fields import MAX_LISTED

# protocol = protocol-name ["/" protocol-version]
_PROTOCOL: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+)(?:/[!#$%&'*+\-.^_`|~0-9A-Za-z]+)?")
# Protocols that would carry requests past the gateway, or continue the TLS that ends here: never passed on.
_OWN: Final = re.compile(rb"https?|h[23]c?(?:-.*)?|tls|spdy|quic|connect-.*", re.IGNORECASE)
WEBSOCKET: Final = b"websocket"
KEY: Final = b"sec-websocket-key"
_ACCEPTS: Final = b"sec-websocket-accept"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def requested_upgrade(values: Iterable[bytes], method: bytes) -> bytes | None:
    """The Upgrade that a request with these `Upgrade` fields may ask a service for, as one value; None for none.

    One malformed protocol spoils all, and so do too many: then it is not clear what is asked for. A WebSocket begins
    with GET.
    """
    if method == b"HEAD":
        return None
    wanted = []
    listed = b",".join(values)
    if listed.count(b",") >= MAX_LISTED:
        return None
    for element in listed.split(b","):
        protocol = element.strip(b" \t")
        if not protocol:
            continue  # an empty element is none (RFC 9110 section 5.6.1)
        match = _PROTOCOL.fullmatch(protocol)
        if match is None:
            return None
        if _OWN.fullmatch(match[1]) is None and (method == b"GET" or match[1].lower() != WEBSOCKET):
            wanted.append(protocol)
    return b", ".join(wanted) or None


def switch_fault(asked: bytes | None, key: bytes | None, upgrade: bytes | None, lines: Iterable[bytes]) -> str:
    """What is wrong with a 101; "" when it may be believed.

    `asked` is the Upgrade that went to the service, and `key` the request's Sec-WebSocket-Key. `upgrade` is the
    101's own Upgrade where its Connection names it, `lines` are its end-to-end field lines.
    """
    if asked is None:
        return "it switched protocols without being asked"
    if upgrade is None or upgrade.count(b",") >= MAX_LISTED:
        return "its 101 does not say to which protocol it switched"
    offered = {protocol.lower() for protocol in asked.split(b", ")}
    chosen = {protocol.strip(b" \t").lower() for protocol in upgrade.split(b",")}
    if not chosen <= offered:
        return "it switched to a protocol that was not asked for"
    if WEBSOCKET in chosen:
        values = [line.partition(b":")[2].strip() for line in lines if line[:20].lower() == _ACCEPTS]
        if key is None or values != [accept(key)]:
            return "its Sec-WebSocket-Accept does not match the request's key"
    return ""


def fresh_key() -> bytes:
    """A Sec-WebSocket-Key, for a client that needs none itself (RFC 8441 section 5.1)."""
    return b64encode(os.urandom(16))


def accept(key: bytes) -> bytes:
    """The Sec-WebSocket-Accept that belongs to a Sec-WebSocket-Key (RFC 6455 section 4.2.2)."""
    return b64encode(sha1(key + _GUID, usedforsecurity=False).digest())
