"""What the gateway tells its ACME process, and the process the gateway: see `wire.framed_messages`.

The gateway sends `Terms` once, then `Names`: first all that there are, then what changes. The process answers with
`Progress`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

# Names of one message. One has 253 characters at most.
CHUNK: Final = 1000
# Bytes of a message to the process, and of one of its own.
LONGEST_NAMES: Final = 1 << 20
LONGEST_PROGRESS: Final = 1 << 18
# What may become of an order. `rejected`: the authority has refused the name, or found no answer to its challenge;
# `limited`: it asks for patience; `failed`: it cannot be reached, or fails itself; `broken`: this side fails, as by a
# full disk; `abandoned`: the name is not wanted any more, or the process has ended.
RESULTS: Final = ("issued", "renewed", "rejected", "limited", "failed", "broken", "abandoned")


class StoreTerms(msgspec.Struct, array_like=True):
    """The Redis that has certificates and challenges: `scheme` is redis, rediss or unix. `ca` "" are the system's
    authorities, `key` the 32 bytes that encrypt private keys there."""

    scheme: str
    host: str
    port: int
    database: int
    path: str
    ca: str
    user: str
    password: str
    prefix: str
    key: bytes


class Terms(msgspec.Struct, array_like=True):
    """The settings of `[acme]`, and what else the process needs.

    `folder` is the one in which everything is (`Layout`). `owner` is this gateway's own, the same for each process
    that it starts. `ca` "" are the system's authorities. `eab` is the id and the MAC key of an external account,
    `resolver` the address and the port of a name server. `check_port` is never 0. `base_domain`: where it leads to is
    where names must lead. `agent` is the User-Agent.
    """

    folder: str
    owner: str
    directory: str
    contact: list[str]
    ca: str
    challenge: str
    eab: tuple[str, bytes] | None
    keys: str
    profile: str
    rate: int
    resolver: tuple[str, int] | None
    check_port: int
    base_domain: str
    agent: str
    store: StoreTerms | None = None


class Names(msgspec.Struct, array_like=True):
    """Names that are to have a certificate, the newest last, and those that are not any more. The first messages
    have all of them; `complete` says that the last of these was sent. `owners` are the tenants of `added`, "" for
    a name that is none's; without any it is empty."""

    added: list[str]
    removed: list[str]
    complete: bool = True
    owners: list[str] = []


class Event(msgspec.Struct, array_like=True):
    """A line for the gateway's log; `level` is info, warn or error."""

    level: str
    text: str


class Standing(msgspec.Struct, array_like=True):
    """How many names there are in each state, as far as this process knows; see `layout.State`. `leads`: it has the
    lease, so that it is the one that orders; another gateway does if not. `next_renewal` and `paused_until` are
    seconds since the epoch, 0 for none; until the latter the authority wants no orders. `refused` are the names
    beyond the bound."""

    leads: bool = False
    waiting: int = 0
    held: int = 0
    ordering: int = 0
    issued: int = 0
    failed: int = 0
    next_renewal: float = 0.0
    paused_until: float = 0.0
    refused: int = 0


class Progress(msgspec.Struct, array_like=True):
    """What has happened since the last message: how many orders have come to each of `RESULTS`, what is to be logged,
    and where everything stands, None where nothing has changed. `changed`: the folder of certificates has."""

    orders: dict[str, int] = {}
    events: list[Event] = []
    standing: Standing | None = None
    changed: bool = False


def chunks(
    names: Iterable[str], removed: Iterable[str] = (), owners: Mapping[str, str] | None = None
) -> Iterator[Names]:
    """All names at the begin, or a change, in messages that are no longer than the bound."""
    known = owners or {}
    added, gone = list(names), list(removed)
    firsts = range(0, max(len(added), len(gone), 1), CHUNK)
    for first in firsts:
        end = first + CHUNK
        some = [known.get(name, "") for name in added[first:end]]
        yield Names(added[first:end], gone[first:end], first == firsts[-1], some if any(some) else [])
