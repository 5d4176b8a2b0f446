"""Clients' connections, by the address that each comes from and the tenant that it asks for."""

from __future__ import annotations

from typing import Final

from ..policy.shares import TENANT, Counts, Owner, Shares

_NOBODY: Final = Owner(b"", b"")


class ConnectionCounts:
    """Who has how many connections. A connection is any object that hashes; `shares` say what is too many."""

    def __init__(self, shares: Shares) -> None:
        self.shares = shares
        self._counts = Counts()
        self._owners: dict[object, Owner] = {}

    def opened(self, connection: object, address: bytes) -> int:
        """Count a connection from this address (b"": one that stands for many, and is not counted); how many it now
        has beyond its share."""
        if not address:
            return 0
        self._put(connection, Owner(address, b""))
        return self._counts.addresses[address] - self.shares.address

    def succeeded(self, connection: object, successor: object) -> None:
        """Another object stands for the connection."""
        owner = self._owners.pop(connection, None)
        if owner is not None:
            self._owners[successor] = owner

    def closed(self, connection: object) -> None:
        """The connection is gone."""
        owner = self._owners.pop(connection, None)
        if owner is not None:
            self._counts.remove(owner)

    def asks_for(self, connection: object, tenant: bytes) -> bool:
        """Count a connection as this tenant's from now on; False where the tenant has its share, and the connection
        stays whose it was."""
        owner = self._owners.get(connection, _NOBODY)
        if not owner.address or owner.tenant == tenant:
            return True
        if self._counts.reached(Owner(b"", tenant), self.shares) == TENANT:
            return False
        self._counts.remove(owner)
        self._put(connection, Owner(owner.address, tenant))
        return True

    def _put(self, connection: object, owner: Owner) -> None:
        self._owners[connection] = owner
        self._counts.add(owner)
