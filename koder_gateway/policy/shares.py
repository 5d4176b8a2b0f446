"""Shares: how much one client address and one tenant may hold of what all clients use, and whose turn is next.

Places are shared: connections of a service, tunnels, client connections. An address (in the form that limits count
under, so an IPv6 /64) and a tenant may each hold a part of all places. Requests that get no place of a service wait
in a `Queue`. It serves addresses in turn, and within an address in order of arrival: a client that sends a thousand
requests from one address waits behind its own requests.

Two addresses could hold all that a tenant may, and its other clients would get nothing until these let go, however
fair the queue is. So the last places of a tenant's share are kept for addresses that hold few.

Counting costs something for each request, and makes no difference while fewer places are taken than the smaller
share. So `Places` counts only from then on, starting with the current holders, until half as many are left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

H = TypeVar("H")

# Why a request gets no place.
ADDRESS: Final = "address"
TENANT: Final = "tenant"
FULL: Final = "full"


class Owner(NamedTuple):
    """The holder of a place: the client's address in the form that limits count under, and the tenant. An empty one
    has no share, such as a proxy that stands for many clients."""

    address: bytes
    tenant: bytes


# Of a tenant's share one place of so many is kept for addresses that hold few; few is one of so many of those.
_KEPT: Final = 16
_FEW: Final = 8


@dataclass(frozen=True, slots=True)
class Shares:
    """How many places one address and one tenant may hold."""

    address: int
    tenant: int

    @classmethod
    def of(cls, places: int, address: int, tenant: int) -> Shares:
        """The percentages of so many places, at least one place each."""
        return cls(max(1, places * address // 100), max(1, places * tenant // 100))

    @property
    def kept(self) -> int:
        """How many of a tenant's places are kept for addresses that hold few: none where one address may hold all."""
        return self.tenant // _KEPT if self.address < self.tenant else 0

    @property
    def few(self) -> int:
        """An address with fewer places than this may have one of those."""
        return max(1, self.kept // _FEW)


class Counts:
    """How many places each address and each tenant holds; there is no entry for zero."""

    __slots__ = ("addresses", "tenants")

    def __init__(self) -> None:
        self.addresses: dict[bytes, int] = {}
        self.tenants: dict[bytes, int] = {}

    def add(self, owner: Owner) -> None:
        """Count one more place of `owner`."""
        address, tenant = owner
        if address:
            self.addresses[address] = self.addresses.get(address, 0) + 1
        if tenant:
            self.tenants[tenant] = self.tenants.get(tenant, 0) + 1

    def remove(self, owner: Owner) -> None:
        """Count one place less of `owner`."""
        address, tenant = owner
        if address:
            _give(self.addresses, address)
        if tenant:
            _give(self.tenants, tenant)

    def reached(self, owner: Owner, shares: Shares) -> str:
        """Which share `owner` has used up: "address", "tenant", or "" for neither. An address has used up its share
        too if it holds more than few places, and what its tenant has left is kept for others."""
        mine, held = self.addresses.get(owner.address, 0), self.tenants.get(owner.tenant, 0)
        if mine >= shares.address:
            return ADDRESS
        if held >= shares.tenant:
            return TENANT
        return ADDRESS if held >= shares.tenant - shares.kept and mine >= shares.few else ""


def _give(counts: dict[bytes, int], name: bytes) -> None:
    left = counts[name] - 1
    if left:
        counts[name] = left
    else:
        del counts[name]


class Queue(Generic[H]):
    """The waiting requests, in a queue for each address. The addresses are in the order of their turns. `tenants`
    counts the requests of each tenant."""

    __slots__ = ("_lines", "_owners", "tenants")

    def __init__(self) -> None:
        self._owners: dict[H, Owner] = {}
        self._lines: dict[bytes, dict[H, Owner]] = {}
        self.tenants: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def __iter__(self) -> Iterator[H]:
        return iter(list(self._owners))

    def __contains__(self, holder: object) -> bool:
        return holder in self._owners

    @property
    def addresses(self) -> list[bytes]:
        """The addresses in the order of their turns."""
        return list(self._lines)

    def line(self, address: bytes) -> dict[H, Owner]:
        """The waiting requests of this address, in order of arrival."""
        return self._lines.get(address, {})

    def add(self, holder: H, owner: Owner) -> None:
        """Wait behind the others of the same address."""
        self._owners[holder] = owner
        self._lines.setdefault(owner.address, {})[holder] = owner
        if owner.tenant:
            self.tenants[owner.tenant] = self.tenants.get(owner.tenant, 0) + 1

    def last_of_longest(self, tenant: bytes = b"") -> H | None:
        """The latest request of the address with the most waiting requests; with a `tenant`, only addresses are
        considered whose latest request is that tenant's. None if no address has more than one."""
        longest, most = None, 1
        for line in self._lines.values():
            if len(line) > most:
                last = next(reversed(line))
                if not tenant or line[last].tenant == tenant:
                    longest, most = last, len(line)
        return longest

    def remove(self, holder: H) -> None:
        """Stop waiting; does nothing for a request that does not wait."""
        owner = self._owners.pop(holder, None)
        if owner is not None:
            line = self._lines[owner.address]
            del line[holder]
            if not line:
                del self._lines[owner.address]
            if owner.tenant:
                _give(self.tenants, owner.tenant)

    def took_turn(self, address: bytes) -> None:
        """This address has been served: the others are next."""
        line = self._lines.pop(address, None)
        if line is not None:
            self._lines[address] = line


class Places(Generic[H]):
    """The places of one service: the holders, and those who wait. `owner` returns the owner of a holder.

    `ready` is called once when some of those who wait may go; its receiver then calls `serve`, not at once but when
    the current work is done. Each holder has at most one place.
    """

    __slots__ = ("_counts", "_due", "_owner", "_ready", "_uncounted", "held", "limit", "queue", "shares")

    def __init__(self, limit: int, shares: Shares, owner: Callable[[H], Owner], ready: Callable[[], object]) -> None:
        self.limit = limit
        self.held: dict[H, Owner | None] = {}
        self.queue: Queue[H] = Queue()
        self._owner = owner
        self._ready = ready
        self._counts: Counts | None = None
        self._due = False
        self.set_shares(shares)

    def set_shares(self, shares: Shares) -> None:
        """Change the shares; a holder above the new share keeps its places."""
        self.shares = shares
        # While fewer places than this are held, no one can exceed a share.
        self._uncounted = 0 if self._counts is not None else self._watched
        if self.queue:
            self._call()

    @property
    def _watched(self) -> int:
        return min(self.shares.address, self.shares.tenant - self.shares.kept, self.limit)

    # -- taking and giving

    def acquire(self, holder: H) -> bool:
        """Take a place; False if there is none for this holder now, or if others already wait for it."""
        held = self.held
        if len(held) < self._uncounted:
            held[holder] = None
            return True
        owner = self._owner(holder)
        if self.refusal(owner) or (self._due and self.queue):
            return False
        self._hold(holder, owner)
        return True

    def release(self, holder: H) -> None:
        """Give the place back, or stop waiting for one; otherwise does nothing."""
        owner = self.held.pop(holder, None)
        counts = self._counts
        if counts is not None:
            self._given(holder, owner, counts)

    def refusal(self, owner: Owner) -> str:
        """Why there is no place for `owner` now: "full", "address" or "tenant"; "" if there is one."""
        reached = self._counted().reached(owner, self.shares)
        return reached or (FULL if len(self.held) >= self.limit else "")

    def _hold(self, holder: H, owner: Owner) -> None:
        self.held[holder] = owner
        self._counted().add(owner)

    def _given(self, holder: H, owner: Owner | None, counts: Counts) -> None:
        if owner is None:
            self.queue.remove(holder)
        else:
            counts.remove(owner)
            if self.queue:
                self._call()
        if not self.queue and len(self.held) < self._watched // 2:
            self._counts = None
            self._uncounted = self._watched
            for each in self.held:
                self.held[each] = None

    def _counted(self) -> Counts:
        """The counts, from now on."""
        counts = self._counts
        if counts is None:
            counts = self._counts = Counts()
            self._uncounted = 0
            for holder in self.held:
                owner = self.held[holder] = self._owner(holder)
                counts.add(owner)
        return counts

    # -- waiting

    def wait(self, holder: H) -> str:
        """Wait for a place, after `acquire` has returned False. Returns why there is no room to wait: "full" or
        "tenant"; "" if there is.

        As many may wait as there are places, and a tenant has its share of that too. One address may use all of it
        while nobody else does: it gives way to others (`in_the_way`). Free places that are about to be given to those
        who wait count as room: a burst of responses does not reduce it.
        """
        owner, queue, counts, shares = self._owner(holder), self.queue, self._counted(), self.shares
        tenant = owner.tenant
        # Free places are no room for an address or a tenant that may not have them.
        given = self.limit if counts.reached(owner, shares) else len(self.held)
        if len(queue) + given >= 2 * self.limit:
            return FULL
        if tenant and queue.tenants.get(tenant, 0) + counts.tenants.get(tenant, 0) >= 2 * shares.tenant:
            return TENANT
        queue.add(holder, owner)
        return ""

    def in_the_way(self, holder: H, reason: str) -> H | None:
        """The waiting request that should give way to `holder`, which found no room for this reason: the latest of
        the address with the most waiting requests, if `holder`'s address has fewer. None if `holder` itself must be
        refused."""
        owner = self._owner(holder)
        last = self.queue.last_of_longest(owner.tenant if reason == TENANT else b"")
        if last is None:
            return None
        longest = len(self.queue.line(self._owner(last).address))
        return last if longest > len(self.queue.line(owner.address)) + 1 else None

    def _call(self) -> None:
        if not self._due:
            self._due = True
            self._ready()

    def serve(self, go: Callable[[H], object], most: int) -> None:
        """Give places to those who wait, at most `most` now, address by address in turn, and call `go` for each."""
        self._due = False
        addresses = self.queue.addresses
        # No request of a tenant that has its full share may go: checking one of them is enough.
        blocked: set[bytes] = set()
        while addresses:
            served = []
            for address in addresses:
                holder = self._first(address, blocked)
                if holder is None:
                    continue
                if not most:
                    self._call()
                    return
                most -= 1
                served.append(address)
                self._hold_first(holder, address)
                go(holder)
            addresses = served

    def _hold_first(self, holder: H, address: bytes) -> None:
        owner = self.queue.line(address)[holder]
        self.queue.remove(holder)
        self.queue.took_turn(address)
        self._hold(holder, owner)

    def _first(self, address: bytes, blocked: set[bytes]) -> H | None:
        """The first waiting request of this address that may have a place. `blocked` are tenants that are known to
        have none left; others are added."""
        if len(self.held) >= self.limit or self._counted().reached(Owner(address, b""), self.shares):
            return None
        # What is left of these is kept for others than this address.
        kept: set[bytes] = set()
        for holder, owner in self.queue.line(address).items():
            if owner.tenant not in blocked and owner.tenant not in kept:
                reason = self.refusal(owner)
                if not reason:
                    return holder
                (kept if reason == ADDRESS else blocked).add(owner.tenant)
        return None
