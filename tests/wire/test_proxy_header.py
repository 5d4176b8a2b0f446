"""The PROXY protocol's header, versions 1 and 2: what is read, how early the rest is refused, and the checksum."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.wire.proxy_header import (
    SIGNATURE,
    Endpoint,
    ProxyHeader,
    ProxyHeaderError,
    crc32c,
    read_proxy_header,
)
from tests.kit.proxy_headers import (
    HAPROXY_LOCAL_PLAIN,
    HAPROXY_LOCAL_TLS,
    NO_TLS,
    TLS,
    UNIX,
    V4,
    V6,
    binary,
    extension,
    summed,
)

FROM_V4 = (Endpoint("203.0.113.7", 50000), Endpoint("192.0.2.1", 443))
FROM_V6 = (Endpoint("2001:db8::7", 50000), Endpoint("2001:db8::1", 443))
NOBODY = (None, None)


def twice_summed(block: bytes) -> bytes:
    """A header with two checksums, the first of which fits."""
    empty = binary(block + extension(3, bytes(4)) + extension(3, bytes(4)))
    return empty[:-11] + crc32c(empty).to_bytes(4, "big") + empty[-7:]


GOOD = {
    "1, IPv4": (b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 443\r\n", FROM_V4),
    "1, IPv6": (b"PROXY TCP6 2001:db8::7 2001:DB8:0:0::1 50000 443\r\n", FROM_V6),
    "1, IPv4 within IPv6": (b"PROXY TCP6 ::ffff:203.0.113.7 ::ffff:192.0.2.1 50000 443\r\n", FROM_V4),
    "1, unknown": (b"PROXY UNKNOWN\r\n", NOBODY),
    "1, unknown with addresses": (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", NOBODY),
    "1, the longest": (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", NOBODY),
    "2, IPv4": (binary(V4), FROM_V4),
    "2, IPv4 datagrams": (binary(V4, family=0x12), FROM_V4),
    "2, IPv6": (binary(V6, family=0x21), FROM_V6),
    "2, IPv6 datagrams": (binary(V6, family=0x22), FROM_V6),
    "2, IPv4 within IPv6": (
        binary(b"".join(bytes(10) + b"\xff\xff" + V4[at : at + 4] for at in (0, 4)) + V4[8:], family=0x21),
        FROM_V4,
    ),
    "2, UNIX": (binary(UNIX, family=0x31), NOBODY),
    "2, local": (binary(b"", family=0x00, command=0x20), NOBODY),
    "2, local with anything": (binary(b"\xff" * 7, family=0xFF, command=0x20), NOBODY),
    "2, unspecified": (binary(b"\xff" * 7, family=0x00), NOBODY),
    "2, extensions": (binary(V4 + extension(1, b"h2") + extension(4, b"") + extension(0xE5, bytes(300))), FROM_V4),
    "2, TLS": (binary(V4 + TLS), (*FROM_V4, True)),
    "2, UNIX and TLS": (binary(UNIX + TLS, family=0x31), (*NOBODY, True)),
    "2, UNIX datagrams and TLS": (binary(UNIX + TLS, family=0x32), (*NOBODY, True)),
    "2, IPv4 datagrams and TLS": (binary(V4 + TLS, family=0x12), (*FROM_V4, True)),
    "2, IPv6 and TLS": (binary(V6 + extension(4, b"") + TLS, family=0x21), (*FROM_V6, True)),
    "2, unspecified and TLS": (binary(extension(1, b"h2") + TLS, family=0x00), (*NOBODY, True)),
    "2, unspecified and no TLS": (binary(extension(0x20, bytes(5)), family=0x00), (*NOBODY, False)),
    "2, unspecified addresses and TLS": (binary(V4 + TLS, family=0x00), NOBODY),
    "2, local and TLS": (binary(V4 + TLS, command=0x20), NOBODY),
    "2, local of no family and TLS": (binary(TLS, family=0x00, command=0x20), (*NOBODY, True)),
    "2, local of no family and no TLS": (binary(NO_TLS, family=0x00, command=0x20), NOBODY),
    "2, local of no family and broken TLS": (binary(extension(0x20, b"\1"), family=0x00, command=0x20), NOBODY),
    "2, local, TLS and a wrong checksum": (
        binary(TLS + extension(3, bytes(4)), family=0x00, command=0x20),
        NOBODY,
    ),
    "2, HAProxy for its UNIX socket with TLS": (HAPROXY_LOCAL_TLS, (*NOBODY, True)),
    "2, HAProxy for its UNIX socket without TLS": (HAPROXY_LOCAL_PLAIN, NOBODY),
    "2, a client certificate without TLS": (binary(V4 + extension(0x20, b"\6\0\0\0\0")), (*FROM_V4, False)),
    "2, a client certificate on TLS": (binary(V4 + extension(0x20, b"\7\0\0\0\0")), (*FROM_V4, True)),
    "2, checksum, UNIX and TLS": (summed(UNIX + TLS, family=0x31), (*NOBODY, True)),
    "2, checksum": (summed(V4 + extension(5, b"id")), FROM_V4),
    "2, checksum and UNIX": (summed(UNIX, family=0x32), NOBODY),
    "2, the longest": (binary(V4 + extension(4, bytes(4096 - len(V4) - 3))), FROM_V4),
}
good = pytest.mark.parametrize(("header", "ends"), GOOD.values(), ids=GOOD.keys())


@good
def test_a_header_says_whom_it_speaks_for(header: bytes, ends: tuple[Endpoint | None, Endpoint | None]) -> None:
    for rest in (b"", b"GET / HTTP/1.1\r\n\r\n", header):
        assert read_proxy_header(header + rest) == ProxyHeader(len(header), *ends)


@good
def test_a_header_that_is_not_whole_may_still_become_one(header: bytes, ends: object) -> None:
    for length in range(len(header)):
        assert read_proxy_header(header[:length]) is None, length


def test_nothing_is_the_beginning_of_a_header() -> None:
    assert read_proxy_header(b"") is None


BROKEN = {
    "TLS": (b"\x16\x03\x01\x02\x00\x01", "TLS began without a PROXY header"),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "something else arrived"),
    "one wrong byte": (b"G", "something else arrived"),
    "in lower case": (b"proxy tcp4", "something else arrived"),
    "another signature": (SIGNATURE[:-1] + b"x", "something else arrived"),
    "a line without an end": (b"PROXY UNKNOWN " + b"x" * 93, "does not end within 107 bytes"),
    "a line that ends too late": (b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", "does not end within 107 bytes"),
    "a line that ends in LF": (b"PROXY UNKNOWN\n", "its line is malformed"),
    "CR within the line": (b"PROXY UNKNOWN a\rb\r\n", "its line is malformed"),
    "no family": (b"PROXY \r\n", "its line is malformed"),
    "another family": (b"PROXY UDP4 203.0.113.7 192.0.2.1 50000 443\r\n", "its line is malformed"),
    "two spaces": (b"PROXY TCP4  203.0.113.7 192.0.2.1 50000 443\r\n", "its line is malformed"),
    "an address too few": (b"PROXY TCP4 203.0.113.7 50000 443\r\n", "its line is malformed"),
    "a port too few": (b"PROXY TCP4 203.0.113.7 192.0.2.1 443\r\n", "its line is malformed"),
    "more behind": (b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 443 \r\n", "its line is malformed"),
    "an octet too large": (b"PROXY TCP4 203.0.113.256 192.0.2.1 50000 443\r\n", "its line is malformed"),
    "an octal octet": (b"PROXY TCP4 203.0.113.07 192.0.2.1 50000 443\r\n", "its line is malformed"),
    "the other family's address": (b"PROXY TCP4 ::1 ::2 50000 443\r\n", "its line is malformed"),
    "no IPv6 address": (b"PROXY TCP6 1:2:3 ::1 50000 443\r\n", "its address is malformed"),
    "a zone": (b"PROXY TCP6 fe80::1%eth0 ::1 50000 443\r\n", "its line is malformed"),
    "a port too large": (b"PROXY TCP4 203.0.113.7 192.0.2.1 65536 443\r\n", "its port 65536 is out of range"),
    "a port in octal": (b"PROXY TCP4 203.0.113.7 192.0.2.1 0443 443\r\n", "its line is malformed"),
    "version 1 in binary": (binary(V4, command=0x11), "its version and command 0x11 are unknown"),
    "another command": (binary(V4, command=0x22), "its version and command 0x22 are unknown"),
    "no such family": (binary(V4, family=0x41), "its address family 0x41 is unknown"),
    "no such transport": (binary(V4, family=0x13), "its address family 0x13 is unknown"),
    "a family without a transport": (binary(V4, family=0x10), "its address family 0x10 is unknown"),
    "too long": (binary(bytes(4097)), "it is longer than 4096 bytes"),
    "too short for IPv4": (binary(V4[:-1]), "it is shorter than its addresses"),
    "too short for IPv6": (binary(V6[:-1], family=0x21), "it is shorter than its addresses"),
    "too short for UNIX": (binary(UNIX[:-1], family=0x31), "it is shorter than its addresses"),
    "an extension's head cut short": (binary(V4 + b"\x04\x00"), "its last extension is cut short"),
    "an extension cut short": (binary(V4 + b"\x04\x00\x02x"), "its last extension is cut short"),
    "a checksum that does not fit": (summed(V4)[:-1] + b"\x00", "its checksum is wrong"),
    "words for addresses": (b"PROXY TCP6 deadbeef cafe 1 2\r\n", "its address is malformed"),
    "one word": (b"PROXY TCP6 ::1 cafe 1 2\r\n", "its address is malformed"),
    "another family's address": (b"PROXY TCP6 203.0.113.7 192.0.2.1 1 2\r\n", "its address is malformed"),
    "addresses of two families": (b"PROXY TCP6 ::1 192.0.2.1 1 2\r\n", "its address is malformed"),
    "numbers for addresses": (b"PROXY TCP6 12345 1.2 1 2\r\n", "its address is malformed"),
    "TLS cut short": (binary(V4 + extension(0x20, bytes(4))), "its TLS information is malformed"),
    "TLS cut short, unspecified": (
        binary(extension(0x20, bytes(4)), family=0x00),
        "its TLS information is malformed",
    ),
    "TLS twice, UNIX": (binary(UNIX + TLS + TLS, family=0x31), "its TLS information is malformed"),
    "a checksum that does not fit, unspecified": (
        summed(TLS, family=0x00)[:-1] + b"\x00",
        "its checksum is wrong",
    ),
    "TLS twice": (binary(V4 + TLS + TLS), "its TLS information is malformed"),
    "TLS with half an extension": (
        binary(V4 + extension(0x20, b"\1\0\0\0\0\x21\0\7T")),
        "its last extension is cut short",
    ),
    "a checksum of five bytes": (binary(V4 + extension(3, bytes(5))), "its checksum is malformed"),
    "two checksums": (summed(V4 + extension(3, bytes(4))), "its checksum is wrong"),
    "two checksums, the first of which fits": (twice_summed(V4), "its checksum is malformed"),
}


@pytest.mark.parametrize(("data", "says"), BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_header_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(ProxyHeaderError, match=says):
        read_proxy_header(data)


def test_a_length_over_the_bound_is_refused_before_the_bytes_come() -> None:
    with pytest.raises(ProxyHeaderError, match="longer than 4096"):
        read_proxy_header(binary(bytes(4097))[:16])


def test_a_changed_bit_does_not_fit_the_checksum() -> None:
    header = summed(V4 + extension(5, b"id"))
    for place in range(16, len(header)):
        if len(header) - 7 <= place < len(header) - 4 or len(header) - 12 <= place < len(header) - 9:
            continue  # the extensions' own heads, whose change makes other extensions
        changed = header[:place] + bytes((header[place] ^ 1,)) + header[place + 1 :]
        with pytest.raises(ProxyHeaderError, match="checksum is wrong"):
            read_proxy_header(changed)


def test_the_checksum_is_castagnoli_s() -> None:
    assert crc32c(b"") == 0
    # RFC 3720 appendix B.4, in the order of its bytes.
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


addresses = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)), st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6))
)
ports = st.integers(0, 65535)


@given(addresses, ports, ports, st.binary(max_size=40))
def test_both_versions_carry_any_address(
    pair: tuple[IPv4Address, IPv4Address], source: int, destination: int, rest: bytes
) -> None:
    version = pair[0].version
    ends = [Endpoint(_plain(str(each)), port) for each, port in zip(pair, (source, destination), strict=True)]
    line = b"PROXY TCP%d %b %b %d %d\r\n" % (version, *(str(each).encode() for each in pair), source, destination)
    packed = pair[0].packed + pair[1].packed + struct.pack("!HH", source, destination)
    for header in (line, summed(packed, family=0x11 if version == 4 else 0x21)):
        assert read_proxy_header(header + rest) == ProxyHeader(len(header), *ends)


def _plain(text: str) -> str:
    address = ip_address(text)
    return str((address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address)


beginnings = st.sampled_from(
    [b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11", binary(V4), summed(V4)]
)


@given(beginnings, st.binary(max_size=300))
def test_any_bytes_are_a_header_or_its_beginning_or_an_error(beginning: bytes, rest: bytes) -> None:
    """And more bytes change nothing of a verdict."""
    data = beginning + rest
    verdict: object = None
    for length in range(len(data) + 1):
        try:
            now: object = read_proxy_header(data[:length])
        except ProxyHeaderError as error:
            now = str(error)
        assert verdict is None or now == verdict
        verdict = now
    if verdict is None:
        assert len(data) < 16 + 4096
