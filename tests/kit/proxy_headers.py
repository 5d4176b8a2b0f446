"""Headers of the PROXY protocol, as balancers send them."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from koder_gateway.wire.proxy_header import SIGNATURE, crc32c

V4 = IPv4Address("203.0.113.7").packed + IPv4Address("192.0.2.1").packed + struct.pack("!HH", 50000, 443)
V6 = IPv6Address("2001:db8::7").packed + IPv6Address("2001:db8::1").packed + struct.pack("!HH", 50000, 443)
UNIX = b"/run/client".ljust(108, b"\0") + b"/run/balancer".ljust(108, b"\0")


def binary(block: bytes, *, family: int = 0x11, command: int = 0x21) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(block)) + block


def extension(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def summed(block: bytes, *, family: int = 0x11) -> bytes:
    """A header with a checksum that fits, as its last extension."""
    empty = binary(block + extension(3, bytes(4)), family=family)
    return empty[:-4] + crc32c(empty).to_bytes(4, "big")


TLS = extension(0x20, b"\1\0\0\0\0" + extension(0x21, b"TLSv1.3") + extension(0x23, b"TLS_AES_128_GCM_SHA256"))
NO_TLS = extension(0x20, bytes(5))
# What HAProxy 2.6 sends with send-proxy-v2-ssl for clients of `bind unix@... ssl`, and of one without ssl.
HAPROXY_LOCAL_TLS = bytes.fromhex("0d0a0d0a000d0a515549540a 20000012 20000f 01 00000000 210007 544c5376312e33")
HAPROXY_LOCAL_PLAIN = bytes.fromhex("0d0a0d0a000d0a515549540a 20000008 200005 00 00000000")
