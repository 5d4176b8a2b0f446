"""What a limit counts apart: the parts of a rule's key, each a function of the request's subject.

An IPv4 address inside an IPv6 one (mapped: RFC 4291 section 2.5.5.2, NAT64: RFC 6052 section 2.1) counts as itself.

A header's value may be a secret, so a key has a hash of it, under a secret of the process, or under one that all
gateways on a shared store have. A request without the header, with an empty one, or with several lines of that name
counts under one shared key: services differ in which of several lines they read, so each line more would be a fresh
bucket for the same value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from secrets import token_bytes
from typing import Final

from ..wire.request_head import RequestHead
from .client_id import NOBODY
from .clients import parse_address
from .limit_rules import CLIENT_ID, HEADER, LimitRule

# The network that counts as one client by default: an IPv6 host owns its whole /64.
HOST_PREFIX: Final = 64
# For hashes that only this process must be able to compare.
SECRET: Final = token_bytes(32)
_HASHED: Final = 16
_NAT64: Final = IPv6Network("64:ff9b::/96")
# The bytes of an IPv6 address.
_PACKED: Final = 16


@dataclass(slots=True)
class Subject:
    """Whose request it is, as far as limits may ask.

    The `tenant`, the client's `address` as text and the `network` of it that counts as one client (`address_key`),
    the `head`, the path of the `route`, b"" for none, and the OAuth client (`client_id`) if a rule needs that.
    """

    tenant: bytes
    address: str
    network: bytes
    head: RequestHead
    route: bytes = b""
    client: bytes = NOBODY


@lru_cache(maxsize=4096)
def address_key(text: str, prefix: int = HOST_PREFIX) -> bytes:
    """The key under which limits count an address: four bytes of IPv4; eight of an IPv6 /64, or all sixteen of
    a network of another size. A peer without an address (on a UNIX socket) is its own text."""
    address = parse_address(text)
    if isinstance(address, IPv6Address) and address in _NAT64:
        # Also of a private address, which `parse_address` does not translate, since nobody may be trusted for it.
        return address.packed[12:]
    if address is None:
        return text.encode("utf-8")
    if prefix == HOST_PREFIX or isinstance(address, IPv4Address):
        return address.packed[:8]
    return (int(address) >> 128 - prefix << 128 - prefix).to_bytes(_PACKED, "big")


def key_of(rule: LimitRule, secret: bytes) -> Callable[[Subject], bytes] | None:
    """How the key of a request is made; None where its tenant and network are all that counts (`Meter.key`)."""
    if rule.ipv6_prefix == HOST_PREFIX and {"tenant", "ip"}.issuperset(rule.key):
        return None
    parts = [_part(name, rule, secret) for name in rule.key]
    if len(parts) == 1:
        return parts[0]
    return lambda subject: b"".join([b"%d:%b" % (len(part), part) for part in [read(subject) for read in parts]])


def _part(name: str, rule: LimitRule, secret: bytes) -> Callable[[Subject], bytes]:
    if name.startswith(HEADER):
        header = name.removeprefix(HEADER).encode("ascii")
        return lambda subject: _hashed(counted_value(subject.head, header), secret)
    prefix = rule.ipv6_prefix
    return {
        "tenant": lambda subject: subject.tenant,
        "ip": lambda subject: address_key(subject.address, prefix),
        "route": lambda subject: subject.route,
        CLIENT_ID: lambda subject: subject.client,
    }[name]


def counted_value(head: RequestHead, name: bytes) -> bytes:
    """The value of the only line of this header, b"" if there is not exactly one."""
    values = [value for each, value in head.fields if each.lower() == name]
    value = values[0].strip(b" \t") if len(values) == 1 else b""
    if name != b"authorization":
        return value
    # The scheme is not case-sensitive, and any number of spaces follows it (RFC 9110 sections 11.1 and 11.4).
    scheme, _, rest = value.partition(b" ")
    return b"%b %b" % (scheme.lower(), rest.lstrip(b" \t")) if rest else value


def _hashed(value: bytes, secret: bytes) -> bytes:
    return blake2b(value, digest_size=_HASHED, key=secret).digest() if value else b""


def key_parts(rule: LimitRule, key: bytes) -> tuple[tuple[str, str], ...]:
    """The parts of a key that `rule` has made, by name, as text for a person; a hash stays one."""
    if not rule.key:
        return ()
    if len(rule.key) == 1:
        parts = [key]
    elif key_of(rule, SECRET) is None:
        tenant, _, network = key.partition(b"/")
        parts = [tenant if name == "tenant" else network for name in rule.key]
    else:
        parts = []
        while key:
            size, _, rest = key.partition(b":")
            parts.append(rest[: int(size)])
            key = rest[int(size) :]
    return tuple((name, _text(name, part, rule)) for name, part in zip(rule.key, parts, strict=True))


def _text(name: str, part: bytes, rule: LimitRule) -> str:
    if name == "ip":
        return address_text(part, rule.ipv6_prefix)
    if name.startswith(HEADER):
        return f"hash {part.hex()}" if part else "none, or several"
    return part.decode("utf-8", "replace") or ("none, or several" if name == CLIENT_ID else "none")


def address_text(key: bytes, prefix: int = HOST_PREFIX) -> str:
    """The address, or IPv6 network, that a limit counts under this key (`address_key`)."""
    if len(key) == 4:
        return str(IPv4Address(key))
    if len(key) == 8:
        return f"{IPv6Address(key + bytes(8))}/{HOST_PREFIX}"
    if len(key) == _PACKED:
        return f"{IPv6Address(key)}/{prefix}"
    return key.decode("utf-8", "replace")
