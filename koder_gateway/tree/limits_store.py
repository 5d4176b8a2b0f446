"""The store that the limits of one configuration are shared on, if they are."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from twisted.internet.interfaces import IStreamClientEndpoint

from ..config import Settings
from ..config.limits_store import Password, StoreUrl
from ..limits_store.greeting import Credentials
from ..limits_store.link import OPENING
from ..limits_store.store import LimitsStore
from ..policy.limit_keys import SECRET
from ..policy.shared_limits import SharedLimits
from ..upstream.name_resolution import ResolvedNames
from ..upstream.trust import Trust, read_trust
from ..wire.clock import CoarseClock
from .server_endpoints import tcp_endpoint, unix_endpoint
from .store_endpoint import SecureStoreEndpoint


@dataclass(frozen=True, slots=True)
class _Terms:
    """What makes two stores the same; the contents of files, whatever they are called."""

    url: StoreUrl
    timeout: float
    user: str
    password: Password | None
    prefix: str
    trust: Trust | None


@dataclass(frozen=True, slots=True)
class Sharing:
    """A store, the limits that are shared on it, and the secret with which gateways that share them hash."""

    store: LimitsStore
    limits: SharedLimits
    secret: bytes
    terms: _Terms

    @property
    def trust(self) -> Trust | None:
        """The files with which the store's certificate is verified; None without TLS."""
        return self.terms.trust


def make_sharing(
    settings: Settings,
    reactor: Any,
    clock: CoarseClock,
    names: ResolvedNames,
    before: Sharing | None,
) -> Sharing | None:
    """The store of these settings, None if limits are not shared. It is that of `before` where nothing has changed; a
    new one is not started. Raises ValueError, a line for each fault of a file."""
    store = settings.limits_store
    if store.url.scheme == "memory":
        return None
    trust = read_trust(store.ca) if store.url.scheme == "rediss" else None
    terms = _Terms(store.url, store.timeout, store.user, store.password_file, store.prefix, trust)
    if before is not None and before.terms == terms:
        return before
    password = "" if store.password_file is None else store.password_file.value
    made = LimitsStore(
        reactor,
        store.url.text,
        _endpoint(reactor, names, store.url, trust),
        Credentials(store.user.encode("ascii"), password.encode("utf-8"), store.url.database),
        prefix=store.prefix.encode("ascii"),
        timeout=store.timeout,
        clock=clock,
    )
    return Sharing(made, SharedLimits(made, clock.precise), _shared_secret(store.prefix, password), terms)


def secret_of(sharing: Sharing | None) -> bytes:
    """With what keys are hashed: with a secret of this process, where no other must know them."""
    return SECRET if sharing is None else sharing.secret


def _shared_secret(prefix: str, password: str) -> bytes:
    """Gateways with the same prefix share their limits, so they must hash alike. It is a secret only with a password:
    else whoever reads the store can try values."""
    key = blake2b(password.encode("utf-8"), digest_size=32).digest() if password else b""
    return blake2b(prefix.encode("ascii"), digest_size=32, key=key, person=b"koder-gateway").digest()


def _endpoint(reactor: Any, names: ResolvedNames, url: StoreUrl, trust: Trust | None) -> IStreamClientEndpoint:
    if url.scheme == "unix":
        return unix_endpoint(reactor, url.path, OPENING)
    plain = tcp_endpoint(reactor, names, url.host, url.port, OPENING)
    return plain if trust is None else SecureStoreEndpoint(reactor, plain, url.host, trust, OPENING)
