"""The PROXY protocol's header, versions 1 and 2: the client of a balancer's connection (HAProxy's
proxy-protocol.txt).

Parsed strictly: the sender is a program, and limits and logs must not use an address that was guessed from a broken
header.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
# Version 1 is a line of at most 107 bytes (section 2.1). Version 2 states its length, which balancers keep below this
# with all known extensions.
_MAX_LINE: Final = 107
_MAX_BLOCK: Final = 4096
_FIXED: Final = 16

_PORT: Final = rb"(0|[1-9][0-9]{0,4})"
_OCTET: Final = rb"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4: Final = rb"(%b(?:\.%b){3})" % (_OCTET, _OCTET)
_TCP4: Final = re.compile(rb"PROXY TCP4 %b %b %b %b\r\n" % (_IPV4, _IPV4, _PORT, _PORT))
_TCP6: Final = re.compile(rb"PROXY TCP6 ([0-9A-Fa-f:.]{2,45}) ([0-9A-Fa-f:.]{2,45}) %b %b\r\n" % (_PORT, _PORT))
# What follows UNKNOWN is to be ignored up to the end of the line.
_UNKNOWN: Final = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?\r\n")
_LINE_START: Final = b"PROXY "

_INET: Final = struct.Struct("!4s4sHH")
_INET6: Final = struct.Struct("!16s16sHH")
_UNIX_BYTES: Final = 216
_LOCAL, _PROXY = 0x20, 0x21
_UNSPECIFIED: Final = 0x00
# By address family and transport: the sender of a datagram is a client like any other.
_IPV4_FAMILIES: Final = frozenset((0x11, 0x12))
_IPV6_FAMILIES: Final = frozenset((0x21, 0x22))
_UNIX_FAMILIES: Final = frozenset((0x31, 0x32))
_CHECKSUM, _SSL = 0x03, 0x20
# The bit of its `client` byte that says so, and what stands before its own extensions.
_CLIENT_SSL: Final = 0x01
_SSL_FIXED: Final = 5


class ProxyHeaderError(Exception):
    """Not a PROXY header; the text has the reason."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of the client's connection to the balancer."""

    host: str
    port: int

    @property
    def is_ipv6(self) -> bool:
        """Whether the host is an IPv6 address."""
        return ":" in self.host


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A complete header of `size` bytes. `source` and `destination` are None if it has no addresses: for the
    balancer's own connections (LOCAL), and for unknown ones (UNKNOWN, a socket without an address).

    `secure` says whether the client used TLS (PP2_TYPE_SSL, section 2.2.5), which needs no address; None if the
    header does not say. A LOCAL header can only say that it did.
    """

    size: int
    source: Endpoint | None = None
    destination: Endpoint | None = None
    secure: bool | None = None


def read_proxy_header(data: bytes) -> ProxyHeader | None:
    """The header at the beginning of the data; None while it is incomplete.

    Raises ProxyHeaderError at the first byte that no header can have there.
    """
    if data.startswith(_LINE_START[: len(data)]):
        return _read_line(data)
    if data.startswith(SIGNATURE[: len(data)]):
        return _read_block(data) if len(data) >= _FIXED else None
    if data.startswith(b"\x16\x03"):
        raise ProxyHeaderError("TLS began without a PROXY header")
    raise ProxyHeaderError("something else arrived")


# -- version 1


def _read_line(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\n", 0, _MAX_LINE) + 1
    if not end:
        if len(data) >= _MAX_LINE:
            raise ProxyHeaderError(f"its line does not end within {_MAX_LINE} bytes")
        return None
    line = data[:end]
    if _UNKNOWN.fullmatch(line):
        return ProxyHeader(end)
    read_host: Callable[[str], str] = str
    match = _TCP4.fullmatch(line)
    if match is None:
        match, read_host = _TCP6.fullmatch(line), _read_inet6_host
    if match is None:
        raise ProxyHeaderError("its line is malformed")
    source, destination = (
        Endpoint(read_host(match[each].decode("ascii")), _read_port(match[each + 2])) for each in (1, 2)
    )
    return ProxyHeader(end, source, destination)


def _read_port(digits: bytes) -> int:
    port = int(digits)
    if port > 65535:
        raise ProxyHeaderError(f"its port {port} is out of range")
    return port


def _read_inet6_host(text: str) -> str:
    try:
        return _plain(IPv6Address(text))
    except ValueError:
        raise ProxyHeaderError("its address is malformed") from None


def _plain(address: IPv6Address) -> str:
    return str(address.ipv4_mapped or address)


# -- version 2


def _read_block(data: bytes) -> ProxyHeader | None:
    command, family, length = struct.unpack_from("!BBH", data, len(SIGNATURE))
    if command not in (_LOCAL, _PROXY):
        raise ProxyHeaderError(f"its version and command 0x{command:02x} are unknown")
    size = _FIXED + length
    if length > _MAX_BLOCK:
        raise ProxyHeaderError(f"it is longer than {_MAX_BLOCK} bytes")
    if len(data) < size:
        return None
    if command == _LOCAL:
        return ProxyHeader(size, secure=_read_local(data[:size], family))
    if family == _UNSPECIFIED and not _are_extensions(data[:size]):
        # All that follows is to be ignored.
        return ProxyHeader(size)
    if family == _UNSPECIFIED:
        source, destination, addresses = None, None, 0
    elif family in _IPV4_FAMILIES:
        source, destination, addresses = _read_inet(data, length)
    elif family in _IPV6_FAMILIES:
        source, destination, addresses = _read_inet6(data, length)
    elif family in _UNIX_FAMILIES:
        source, destination, addresses = None, None, _within(_UNIX_BYTES, length)
    else:
        raise ProxyHeaderError(f"its address family 0x{family:02x} is unknown")
    secure = _read_extensions(data[:size], _FIXED + addresses)
    return ProxyHeader(size, source, destination, secure)


def _read_local(header: bytes, family: int) -> bool | None:
    """Whether a balancer's own connection carries a TLS client; None if the header does not say.

    HAProxy also sends LOCAL for the clients of its UNIX sockets (`bind unix@... ssl`), with PP2_TYPE_SSL. Everything
    else in such a header must be ignored (section 2.2), and so is one that cannot be parsed.
    """
    if family != _UNSPECIFIED:
        return None
    try:
        return _read_extensions(header, _FIXED) or None
    except ProxyHeaderError:
        return None


def _within(wanted: int, length: int) -> int:
    if length < wanted:
        raise ProxyHeaderError("it is shorter than its addresses")
    return wanted


def _read_inet(data: bytes, length: int) -> tuple[Endpoint, Endpoint, int]:
    size = _within(_INET.size, length)
    source, destination, source_port, destination_port = _INET.unpack_from(data, _FIXED)
    return (
        Endpoint(str(IPv4Address(source)), source_port),
        Endpoint(str(IPv4Address(destination)), destination_port),
        size,
    )


def _read_inet6(data: bytes, length: int) -> tuple[Endpoint, Endpoint, int]:
    size = _within(_INET6.size, length)
    source, destination, source_port, destination_port = _INET6.unpack_from(data, _FIXED)
    return (
        Endpoint(_plain(IPv6Address(source)), source_port),
        Endpoint(_plain(IPv6Address(destination)), destination_port),
        size,
    )


def _extensions(data: bytes, position: int) -> Iterator[tuple[int, int, int]]:
    """The type-length-value entries (section 2.2.7) from `position` on: the type, and where the value stands."""
    while position < len(data):
        if position + 3 > len(data):
            raise ProxyHeaderError("its last extension is cut short")
        kind, length = struct.unpack_from("!BH", data, position)
        position += 3 + length
        if position > len(data):
            raise ProxyHeaderError("its last extension is cut short")
        yield kind, position - length, position


def _are_extensions(header: bytes) -> bool:
    """Whether only extensions follow a header without a family, which may have addresses in any other form there."""
    try:
        return all(_extensions(header, _FIXED))
    except ProxyHeaderError:
        return False


def _read_extensions(header: bytes, position: int) -> bool | None:
    """Whether the client used TLS. Besides that only a checksum is checked."""
    checked = False
    secure: bool | None = None
    for kind, begin, end in _extensions(header, position):
        if kind == _CHECKSUM:
            if end - begin != 4 or checked:
                raise ProxyHeaderError("its checksum is malformed")
            checked = True
            _check_sum(header, begin)
        elif kind == _SSL:
            if end - begin < _SSL_FIXED or secure is not None:
                raise ProxyHeaderError("its TLS information is malformed")
            secure = bool(header[begin] & _CLIENT_SSL)
            for _ in _extensions(header[:end], begin + _SSL_FIXED):
                """Its own extensions name ciphers and certificates; only their form matters."""
    return secure


def _check_sum(header: bytes, position: int) -> None:
    """The CRC32c of the whole header, over four zero bytes where it stands itself (section 2.2.3)."""
    stated = int.from_bytes(header[position : position + 4], "big")
    if crc32c(header[:position] + bytes(4) + header[position + 4 :]) != stated:
        raise ProxyHeaderError("its checksum is wrong")


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC_TABLE: Final = _crc_table()


def crc32c(data: bytes) -> int:
    """Castagnoli's cyclic redundancy check (RFC 3720 appendix B.4)."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _CRC_TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF
