"""Client addresses: who really sent a request that came through proxies the operator trusts.

An address in a header is worth as much as who wrote it, so the walk starts at the peer and goes from right
to left only while the one who wrote the next entry is a trusted proxy. It ends at the first address that is
not one. An entry that cannot be read (malformed, or `unknown` or obfuscated: RFC 7239 section 6) ends it too,
at the last address that could.

X-Forwarded-For and Forwarded (RFC 7239) say the same where a proxy maintains both. One that maintains a single
field lets the other through as the client wrote it, and nothing here tells which is which: where the two name
different clients neither is believed, and the request is the peer's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

# Peers whose verdict is remembered: far more than anyone has proxies, and forgotten all at once when full.
_REMEMBERED = 4096
# An IPv6 address in full with an embedded IPv4 one, brackets and a port has 53 bytes.
_LONGEST_NODE = 64

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# Unquoted brackets and colons break RFC 7239 section 4, yet proxies write them and they mean one thing only.
_PAIR = rb"(" + _TOKEN + rb')=(?:"((?:[^"\\]|\\.)*)"|([^\s";,\\]+))'
_PAIR_AND_END = re.compile(rb"[ \t]*" + _PAIR + rb"[ \t]*(;|,|\Z)")
_BRACKETED = re.compile(rb"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?")
_WITH_PORT = re.compile(rb"([0-9.]+):[0-9]{1,5}")


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """An IP address, an IPv4-mapped IPv6 address as the IPv4 one, a zone dropped; None if it is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


class TrustedProxies:
    """The networks whose word about a client's address is taken. Raises ValueError for a bad CIDR."""

    __slots__ = ("_networks", "_remembered")

    def __init__(self, cidrs: Iterable[str]) -> None:
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(
            ip_network(cidr, strict=False) for cidr in cidrs
        )
        self._remembered: dict[str, bool] = {}

    def trusts(self, peer: str) -> bool:
        """Whether this address (as text) is a trusted proxy's."""
        if not self._networks:
            return False
        known = self._remembered.get(peer)
        if known is None:
            address = parse_address(peer)
            known = address is not None and any(address in network for network in self._networks)
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            self._remembered[peer] = known
        return known

    def client(self, peer: str, forwarded_for: Sequence[bytes], forwarded: Sequence[bytes]) -> str:
        """The client's address: the rightmost that is no trusted proxy's; the peer itself if it is none.

        `forwarded_for` and `forwarded` are the values of the X-Forwarded-For and Forwarded fields, in order. An
        empty value counts as absent. Two fields that name different clients give the peer.
        """
        if not self.trusts(peer):
            return peer
        if not any(forwarded):
            return self._walk(peer, _plain_nodes(forwarded_for))
        client = self._walk(peer, _forwarded_nodes(forwarded))
        if any(forwarded_for) and self._walk(peer, _plain_nodes(forwarded_for)) != client:
            return peer
        return client

    def _walk(self, peer: str, hops: Iterator[bytes]) -> str:
        """From the peer on along the entries, the latest first, while a trusted proxy wrote the next one."""
        nearest = peer
        for hop in hops:
            address = _node_address(hop) if len(hop) <= _LONGEST_NODE else None
            if address is None:
                break
            nearest = address
            if not self.trusts(nearest):
                break
        return nearest


def _plain_nodes(values: Sequence[bytes]) -> Iterator[bytes]:
    """The entries of X-Forwarded-For from right to left."""
    for value in reversed(values):
        for node in reversed(value.split(b",")):
            yield node.strip(b" \t")


def _forwarded_nodes(values: Sequence[bytes]) -> Iterator[bytes]:
    """The `for` values of Forwarded from right to left; an empty one for an element without."""
    for value in reversed(values):
        yield from reversed(_elements(value))


def _elements(value: bytes) -> list[bytes]:
    """The `for` of each element of one Forwarded value.

    A value with any fault counts as one unreadable element: a client's stray quote must not decide how the
    part that the proxy appended is read.
    """
    nodes: list[bytes] = []
    node: bytes | None = None
    position = 0
    while True:
        pair = _PAIR_AND_END.match(value, position)
        if pair is None:
            return [b""]
        name, quoted, plain, end = pair.groups()
        if name.lower() == b"for":
            if node is not None:
                return [b""]
            node = re.sub(rb"\\(.)", rb"\1", quoted) if quoted is not None else plain
        if end != b";":
            nodes.append(node or b"")
            node = None
        if not end:
            return nodes
        position = pair.end()


@lru_cache(maxsize=_REMEMBERED)
def _node_address(node: bytes) -> str | None:
    """The address of one entry: an IP address, with a port or without; None if it names none."""
    match = _BRACKETED.fullmatch(node) or _WITH_PORT.fullmatch(node)
    text = match[1] if match else node
    # A zone means something on the proxy's own links only.
    address = None if b"%" in text else parse_address(text.decode("latin-1"))
    return None if address is None else str(address)
