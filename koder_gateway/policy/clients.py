"""Client addresses: the real client of a request that came through trusted proxies.

An address in a header is as trustworthy as its writer. So the search starts at the peer and moves from right to left
as long as the writer of the next entry is a trusted proxy. The first address that is not one is the client. An
unreadable entry (malformed, `unknown` or obfuscated: RFC 7239 section 6) ends the search too; the client is then the
last readable address.

X-Forwarded-For and Forwarded (RFC 7239) agree if a proxy maintains both. A proxy that maintains only one passes the
other on as the client wrote it, and the gateway cannot know which one that is. So if the two name different clients,
neither is believed, and the peer counts as the client.

Entries left of the client's address may be forged by the client and are removed: a service that takes the first entry
for the client, or reads only one of the two headers, must see the same client as limits and logs.

A balancer's PROXY header names the client of a whole connection. The balancer is then the peer and is trusted as
such: what it adds to its client's requests is believed, although its own address is in none of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

# In the list of networks this means the peers of `unix:` endpoints; it also stands for their missing address.
UNIX = "unix:"
NOWHERE = "unknown"

# How many peers are cached with the answer whether they are trusted: far more than there are proxies. The cache is
# cleared when it is full.
_REMEMBERED = 4096
# An IPv6 address in full with an embedded IPv4 one, brackets and a port has 53 bytes.
_LONGEST_NODE = 64
# No chain of proxies is longer, and the entries must not exceed a service's limits.
_MAX_HOPS = 32
# Separators and escapes in Forwarded: a value with more of them counts as malformed.
_MAX_PAIRS = 96

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# Unquoted brackets and colons violate RFC 7239 section 4, but some proxies write them, and they are unambiguous.
_PAIR = rb"(" + _TOKEN + rb')=(?:"((?:[^"\\]|\\.)*)"|([^\s";,\\]+))'
_PAIR_AND_END = re.compile(rb"[ \t]*" + _PAIR + rb"[ \t]*(;|,|\Z)")
_BRACKETED = re.compile(rb"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?")
_WITH_PORT = re.compile(rb"([0-9.]+):[0-9]{1,5}")


# IPv6 addresses with an IPv4 address in the last four bytes: mapped (RFC 4291 section 2.5.5.2), and NAT64, which is
# only for public addresses (RFC 6052 section 3.1): such a client must not be taken for a private address.
_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_NOT_PUBLIC = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.168.0.0/16",
        ),
    )
)


def _within(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address embedded in an IPv6 one."""
    mapped = address.ipv4_mapped
    if mapped is not None or address not in _NAT64:
        return mapped
    translated = IPv4Address(address.packed[12:])
    return None if any(translated in network for network in _NOT_PUBLIC) else translated


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """An IP address, one of IPv4 within IPv6 (mapped, NAT64) as the IPv4 one, a zone dropped; None if it is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (_within(address) or address) if isinstance(address, IPv6Address) else address


def parse_network(text: str) -> IPv4Network | IPv6Network:
    """A network, one of IPv4-mapped addresses as the IPv4 one: addresses have that form. Raises ValueError."""
    network = ip_network(text, strict=False)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((network.network_address.packed[12:], network.prefixlen - 96))
    return network


def plain_host(host: str | None) -> str:
    """The canonical text of a peer's address from its transport, as `parse_address` reads it."""
    if host is None or ":" not in host or isinstance(host, ProxiedAddress):
        return host or NOWHERE
    address = parse_address(host)
    return host if address is None else str(address)


class ProxiedAddress(str):
    """The address of a client, as named by a balancer's PROXY header; `balancer` is the peer's address.

    `secure` says whether the client used TLS to the balancer, None if the header does not say. It is not `named` if
    the header names no client (UNKNOWN, LOCAL): then the address is the balancer's own.
    """

    __slots__ = ("balancer", "named", "secure")

    balancer: str
    secure: bool | None
    named: bool

    def __new__(
        cls, address: str, balancer: str, secure: bool | None = None, *, named: bool = True
    ) -> ProxiedAddress:
        """A canonical address (`plain_host`), and the balancer that named it."""
        made = super().__new__(cls, address)
        made.balancer = balancer
        made.secure = secure
        made.named = named
        return made


class ForwardedChain(NamedTuple):
    """The trusted part of a request's path: the addresses from the client to the peer, and the scheme in the client's
    element of Forwarded, b"" for none.

    `certain` says that the first address is the client's. It is not certain if an entry that should name the client
    cannot be read, if the two headers contradict each other, or if the chain is too long: limits and logs then have
    the nearest proxy that is known, but nobody gets in by that proxy's address.
    """

    hops: tuple[str, ...]
    proto: bytes = b""
    certain: bool = True

    @property
    def client(self) -> str:
        """The address of the client."""
        return self.hops[0]


class NetworkSet:
    """A set of networks, immutable; `unix:` in it means any peer on a UNIX socket, which has no address.

    Raises ValueError for a bad CIDR.
    """

    __slots__ = ("_local", "_networks", "_remembered", "cidrs")

    def __init__(self, cidrs: Iterable[str] = ()) -> None:
        self.cidrs = tuple(cidrs)
        self._local = UNIX in self.cidrs
        self._networks = tuple(parse_network(cidr) for cidr in self.cidrs if cidr != UNIX)
        self._remembered: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return bool(self.cidrs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NetworkSet) and self.cidrs == other.cidrs

    def __hash__(self) -> int:
        return hash(self.cidrs)

    def __repr__(self) -> str:
        return f"NetworkSet({self.cidrs!r})"

    def covers(self, address: str) -> bool:
        """Whether this address (as text) lies in one of the networks."""
        if address == NOWHERE:
            return self._local
        if not self._networks:
            return False
        known = self._remembered.get(address)
        if known is None:
            parsed = parse_address(address)
            known = parsed is not None and any(parsed in network for network in self._networks)
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            self._remembered[address] = known
        return known


class TrustedProxies:
    """The networks of proxies that are trusted for a client's address; `unix:` means any peer on a UNIX socket.

    Raises ValueError for a bad CIDR.
    """

    __slots__ = ("_networks", "trusts")

    def __init__(self, cidrs: Iterable[str]) -> None:
        self._networks = NetworkSet(cidrs)
        # `trusts(peer: str) -> bool`: whether this address is a trusted proxy's.
        self.trusts = self._networks.covers

    def introduces(self, peer: str) -> bool:
        """Whether a balancer's PROXY header is trusted: if any proxies are configured, only from these; else from
        every peer that a `haproxy:` endpoint accepts."""
        return self.trusts(peer) or not self._networks

    def vouches(self, peer: str) -> bool:
        """Whether the writer of a request's forwarding headers is trusted: the peer, or the balancer that introduced
        it."""
        return self.trusts(peer) or (isinstance(peer, ProxiedAddress) and self.trusts(peer.balancer))

    def hides(self, peer: str, client: str) -> bool:
        """Whether this client of a connection from `peer` is a proxy that has not said for whom it asks."""
        return self.trusts(client) or (isinstance(peer, ProxiedAddress) and not peer.named and client == peer)

    def chain(self, peer: str, forwarded_for: Sequence[bytes], forwarded: Sequence[bytes]) -> ForwardedChain:
        """The path according to these headers, up to the rightmost address that is not a trusted proxy: the client's.

        `forwarded_for` and `forwarded` are the values of the X-Forwarded-For and Forwarded headers, in order. An
        empty value counts as absent. If no one is trusted, the peer is the client; a trusted balancer may still state
        the scheme of the client that it introduced.
        """
        trusted = self.trusts(peer)
        plain = self._walk(peer, _plain_nodes(forwarded_for)) if trusted and any(forwarded_for) else None
        # The entries that the search has passed, the latest first.
        elements: list[_Element] = []
        latest_first = _nodes(forwarded, elements)
        if not trusted:
            told = self.vouches(peer) and any(forwarded) and next(latest_first, None) is not None
            last = elements[0] if told else None
            return ForwardedChain(
                (peer,), last.proto if last is not None and _node_address(last.node) == peer else b""
            )
        if not any(forwarded):
            return plain or ForwardedChain((peer,))
        chain = self._walk(peer, latest_first)
        if plain is not None and plain.client != chain.client:
            return ForwardedChain((peer,), certain=False)
        believed = elements[len(chain.hops) - 2 :: -1] if len(chain.hops) > 1 else []
        certain = chain.certain and (plain is None or plain.certain)
        return ForwardedChain((plain or chain).hops, believed[0].proto if believed else b"", certain)

    def client(self, peer: str, forwarded_for: Sequence[bytes], forwarded: Sequence[bytes]) -> str:
        """The client's address according to these headers."""
        return self.chain(peer, forwarded_for, forwarded).client

    def _walk(self, peer: str, nodes: Iterable[bytes]) -> ForwardedChain:
        """Follow the entries from the peer on, the latest first, as long as a trusted proxy wrote the next one."""
        hops = [peer]
        certain = True
        for node in nodes:
            address = _node_address(node) if len(node) <= _LONGEST_NODE else None
            if address is None:
                certain = False
                break
            hops.append(address)
            if not self.trusts(address):
                break
            if len(hops) >= _MAX_HOPS:
                certain = False
                break
        return ForwardedChain(tuple(reversed(hops)), certain=certain)


def node_of(address: str) -> bytes:
    """An address as a node of Forwarded: in brackets and quotes where it has colons (RFC 7239 section 6)."""
    wire = address.encode("ascii")
    return b'"[%b]"' % wire if b":" in wire else wire or NOWHERE.encode("ascii")


def _plain_nodes(values: Sequence[bytes]) -> Iterator[bytes]:
    """The entries of X-Forwarded-For from right to left."""
    for value in reversed(values):
        # The rest, in one piece, is too long for an address and therefore ends the search.
        for node in reversed(value.rsplit(b",", _MAX_HOPS)):
            yield node.strip(b" \t")


class _Element(NamedTuple):
    """The `for` and `proto` of one element of Forwarded, empty if missing."""

    node: bytes
    proto: bytes


def _nodes(values: Sequence[bytes], seen: list[_Element]) -> Iterator[bytes]:
    """The nodes of Forwarded from right to left; their elements are added to `seen`."""
    left = _MAX_PAIRS
    for value in reversed(values):
        left -= value.count(b",") + value.count(b";") + value.count(b"\\")
        for element in reversed(_elements(value)) if left >= 0 else (_Element(b"", b""),):
            seen.append(element)
            yield element.node


def _elements(value: bytes) -> list[_Element]:
    """The elements of one Forwarded value in order.

    A malformed value counts as one unreadable element: a client's unbalanced quote must not change how the part that
    the proxy appended is read.
    """
    elements: list[_Element] = []
    said: dict[bytes, bytes] = {}
    position = 0
    while True:
        pair = _PAIR_AND_END.match(value, position)
        if pair is None:
            return [_Element(b"", b"")]
        name, quoted, plain, end = pair.groups()
        name = name.lower()
        if name in (b"for", b"proto"):
            if name in said:
                return [_Element(b"", b"")]
            said[name] = re.sub(rb"\\(.)", rb"\1", quoted) if quoted is not None else plain
        position = pair.end()
        if end != b";":
            elements.append(_Element(said.get(b"for", b""), said.get(b"proto", b"")))
            said = {}
        if not end:
            return elements


@lru_cache(maxsize=_REMEMBERED)
def _node_address(node: bytes) -> str | None:
    """The address of one entry, an IP address with or without a port; None if there is none."""
    match = _BRACKETED.fullmatch(node) or _WITH_PORT.fullmatch(node)
    text = match[1] if match else node
    # A zone is only meaningful on the proxy's own links.
    address = None if b"%" in text else parse_address(text.decode("latin-1"))
    return None if address is None else str(address)
