"""Endpoints of the servers that the gateway connects to: by address, by a name to look up, or by a socket's path."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IStreamClientEndpoint

from ..config import ServiceSettings
from ..reactor.direct_connections import SocketName
from ..upstream.direct_endpoint import AddressEndpoint
from ..upstream.name_resolution import Found, NamedEndpoint, ResolvedNames
from ..upstream.named_addresses import NamedAddresses
from ..upstream.tls_endpoint import SecureEndpoint
from ..upstream.trust import Trust, read_trust


def found_endpoint(reactor: Any, found: Found, port: int, connect_timeout: float) -> IStreamClientEndpoint:
    """The endpoint of an address that a look-up has found; `connect_timeout` is in seconds."""
    kind, host = found
    family = socket.AF_INET if kind is IPv4Address else socket.AF_INET6
    return AddressEndpoint(reactor, SocketName(family, (host, port)), connect_timeout)


def is_name(host: str) -> bool:
    """Whether a host is looked up."""
    return not (isIPAddress(host) or isIPv6Address(host))


def tcp_endpoint(
    reactor: Any, names: ResolvedNames, host: str, port: int, connect_timeout: float
) -> IStreamClientEndpoint:
    """The endpoint of this host; `names` looks it up, `connect_timeout` is in seconds."""
    if isIPAddress(host):
        return AddressEndpoint(reactor, SocketName(socket.AF_INET, (host, port)), connect_timeout)
    if isIPv6Address(host):
        return AddressEndpoint(reactor, SocketName(socket.AF_INET6, (host, port)), connect_timeout)
    return NamedEndpoint(reactor, names.named(host), port, connect_timeout)


def unix_endpoint(reactor: Any, path: str, connect_timeout: float) -> IStreamClientEndpoint:
    """The endpoint of a UNIX socket; `connect_timeout` is in seconds."""
    return AddressEndpoint(reactor, SocketName(socket.AF_UNIX, path), connect_timeout)


def upstream_endpoint(
    reactor: Any, url: str, connect_timeout: float, entry: ServiceSettings, trust: Trust | None, names: ResolvedNames
) -> IStreamClientEndpoint:
    """The endpoint of one address of a service: `http://host:port`, `https://host:port` or `unix:path`. `trust` is
    what `trust_of` has read for the service; `names` looks its host up."""
    if url.startswith("unix:"):
        path = "/" + url.removeprefix("unix:").lstrip("/")
        return unix_endpoint(reactor, path, connect_timeout)
    host, port = _host_and_port(url)
    plain = tcp_endpoint(reactor, names, host, port, connect_timeout)
    return _secured(reactor, url, plain, connect_timeout, entry, trust)


def named_addresses(
    reactor: Any, connect_timeout: float, entry: ServiceSettings, trust: Trust | None, names: ResolvedNames
) -> dict[str, NamedAddresses]:
    """What the addresses of a service stand for whose host is a name, by address. The name that a certificate must
    have stays that of the address."""
    return {
        url: NamedAddresses(
            url,
            names.named(_host_and_port(url)[0]),
            lambda found, url=url: _secured(  # type: ignore[misc]
                reactor,
                url,
                found_endpoint(reactor, found, _host_and_port(url)[1], connect_timeout),
                connect_timeout,
                entry,
                trust,
            ),
            reactor,
        )
        for url in entry.urls
        if not url.startswith("unix:") and is_name(_host_and_port(url)[0])
    }


def _host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _secured(
    reactor: Any,
    url: str,
    plain: IStreamClientEndpoint,
    connect_timeout: float,
    entry: ServiceSettings,
    trust: Trust | None,
) -> IStreamClientEndpoint:
    """The endpoint with TLS on it, for an https address."""
    if not url.startswith("https:"):
        return plain
    name = entry.server_name or _host_and_port(url)[0]
    return SecureEndpoint(reactor, plain, name, trust or read_trust(), connect_timeout)
