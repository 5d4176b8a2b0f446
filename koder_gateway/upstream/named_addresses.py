"""The addresses that a service's URL stands for, where its host is a name: each is an address of the service.

localhost stays one address: it is ::1 as well, where few services listen. So does a name that is not known yet: its
endpoint waits for the look-up. `ResolvedName` looks it up again; if that brings nothing, the last good addresses
stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from twisted.internet.address import IPv6Address
from twisted.internet.interfaces import IStreamClientEndpoint

from .name_resolution import Found, ResolvedName

_LOCALHOST: Final = {"127.0.0.1", "::1"}
# Makes the endpoint of one of a name's addresses.
MakeEndpoint = Callable[[Found], IStreamClientEndpoint]


class NamedAddresses:
    """What `url` stands for. `reactor` is that of `name`."""

    def __init__(self, url: str, name: ResolvedName, make: MakeEndpoint, reactor: Any) -> None:
        self._url = url
        self._name = name
        self._make = make
        self._reactor = reactor
        self._known: tuple[Found, ...] = ()
        self._found: frozenset[Found] = frozenset()

    def changed(self) -> bool:
        """Whether the name stands for others than it did at the last call. Their order does not matter."""
        known = self._name.known
        if known is self._known:
            return False
        self._known = known
        found, self._found = self._found, frozenset(known)
        return found != self._found

    def endpoints(self) -> Mapping[str, Callable[[], IStreamClientEndpoint] | None]:
        """The present addresses as URLs, each with what makes its endpoint; None: the URL has an endpoint itself."""
        if {host for _, host in self._known} <= _LOCALHOST:
            return {self._url: None}
        return {self._labelled(found): lambda found=found: self._make(found) for found in self._known}  # type: ignore[misc]

    def _labelled(self, found: Found) -> str:
        kind, host = found
        parts = urlsplit(self._url)
        port = f":{parts.port}" if parts.port is not None else ""
        return f"{parts.scheme}://{f'[{host}]' if kind is IPv6Address else host}{port}"

    def unreachable(self) -> None:
        """One of the addresses could not be connected to: the name may have another one now."""
        self._name.unreachable(self._reactor.seconds())
