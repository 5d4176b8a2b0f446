"""The orders of certificates, as long as a gateway serves: which names are to have one, and the process that orders.

The registry is the list of those who may have one: the domains of its active tenants, and `acme.names`. Names that
the operator has a certificate for are not ordered. Of several workers the first one does this.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..acme.helper import AcmeHelper
from ..acme.layout import Layout, is_name
from ..acme.messages import RESULTS, StoreTerms, Terms
from ..config import AcmeSettings, Settings, acme_packages_fault, acme_port_fault
from ..config.acme import HTTP
from ..policy.tenants import Registry, unpacked
from ..reactor.daemon_threads import daemon_threads
from ..tenants.remote_registry import UnreadTenants
from ..tenants.thread_throttle import ThreadThrottle
from ..tls.sni_index import SniIndex
from ..tree.compose import Composition
from ..version import VERSION

# Seconds between two looks at a process that ends.
_LOOK: Final = 0.05


@dataclass(frozen=True, slots=True)
class _Source:
    """What the names follow from; the same if all of it are the same objects."""

    registry: Registry
    names: tuple[str, ...]
    operators: SniIndex | None

    def same(self, other: _Source | None) -> bool:
        return (
            other is not None
            and self.registry is other.registry
            and self.names == other.names
            and self.operators is other.operators
        )


@dataclass(frozen=True, slots=True)
class NamesChange:
    """The names that are wanted with their tenants ("" for none), the newest last, and how they differ from those
    before."""

    wanted: dict[str, str]
    added: list[str]
    removed: list[str]


class AcmeFollower:
    """Owns the ACME process of the settings in force, and those before it that are still ending. `worker` is the
    number of this process among its workers. `redirects`: whether there is a redirect port."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        time: Callable[[], float],
        worker: int,
        redirects: bool,
        start: Callable[[Terms], AcmeHelper] = AcmeHelper,
    ) -> None:
        self._reactor = reactor
        self._threads: Any = getattr(daemon_threads(reactor, "acme"), "getThreadPool", None)
        self._time = time
        self._leads = worker <= 1
        self.operators: Callable[[], SniIndex | None] = _none
        """Returns the operator's certificates, None for none."""
        self._redirects = redirects
        self._start = start
        self._owner = secrets.token_hex(8)
        self._helper: AcmeHelper | None = None
        self._leaving: list[AcmeHelper] = []
        self._past = dict.fromkeys(RESULTS, 0)
        self._composition: Composition | None = None
        self._wanted: dict[str, str] = {}
        # What the names that the process knows follow from, and what those follow from that are being found.
        self._told: _Source | None = None
        self._finding: _Source | None = None
        self._complained = ""

    def follow(self, composition: Composition) -> None:
        """Order as this generation's settings say, for its tenants, from now on."""
        if not self._leads:
            return
        self._composition = composition
        terms = self._terms(composition.settings)
        before = self._helper
        if before is not None and before.terms == terms:
            return
        if before is not None:
            before.end(self._time())
            self._leaving.append(before)
        self._helper = None if terms is None else self._start(terms)
        self._wanted, self._told, self._finding = {}, None, None

    def sweep(self, now: float, running: bool) -> None:
        """Look after the process, and what it is to know; called four times a second. `running`: the gateway
        serves."""
        for each in self._leaving:
            each.sweep(now)
        if any(each.over for each in self._leaving):
            self._forget()
        if self._helper is not None and running:
            if not self._leaving:
                # Two processes would work on the same names, and the first one to end give up the lease of both.
                self._helper.sweep(now)
            self._find()

    def close(self, others: Deferred[Any]) -> Deferred[Any]:
        """End the process. The Deferred fires when it has ended, and `others` have fired."""
        if self._helper is not None:
            self._helper.end(self._time())
            self._leaving.append(self._helper)
        self._helper = self._finding = None
        if not self._leaving:
            return others
        over: Deferred[None] = Deferred()
        self._look(over)
        return DeferredList([others, over])

    @property
    def on(self) -> bool:
        """Whether this process orders."""
        return self._helper is not None

    @property
    def orders(self) -> dict[str, int]:
        """What has become of orders since the start, by `messages.RESULTS`."""
        return self._summed([*self._leaving, self._helper] if self._helper is not None else self._leaving)

    @property
    def names(self) -> dict[str, int]:
        """How many names are in each state."""
        standing = None if self._helper is None else self._helper.standing
        states = ("waiting", "held", "ordering", "issued", "failed")
        return {each: 0 if standing is None else int(getattr(standing, each)) for each in states}

    @property
    def next_renewal(self) -> float:
        """When the next certificate is renewed, in seconds since the epoch; 0 if that is not known."""
        standing = None if self._helper is None else self._helper.standing
        return 0.0 if standing is None else standing.next_renewal

    def _summed(self, helpers: list[AcmeHelper]) -> dict[str, int]:
        return {result: self._past[result] + sum(each.orders[result] for each in helpers) for result in RESULTS}

    def _look(self, over: Deferred[None]) -> None:
        self.sweep(self._time(), False)
        if self._leaving:
            self._reactor.callLater(_LOOK, self._look, over)
        else:
            over.callback(None)

    def _forget(self) -> None:
        """Let go of processes that have ended, but not of what they count."""
        self._past = self._summed([each for each in self._leaving if each.over])
        self._leaving = [each for each in self._leaving if not each.over]

    # -- the names

    def _find(self) -> None:
        """Find the names, in a thread, if what they follow from has changed. Until the registry has been read once
        nothing is known of them, which is not the same as that there are none."""
        composition = self._composition
        if composition is None or self._finding is not None or isinstance(composition.policy.tenants, UnreadTenants):
            return
        source = _Source(composition.policy.registry, composition.settings.acme.names, self.operators())
        if source.same(self._told):
            return
        self._finding = source
        if self._threads is None:
            self._found(find_names(source, self._wanted, _no_rest), source)
            return
        work = deferToThreadPool(self._reactor, self._threads(), find_names, source, self._wanted, ThreadThrottle())
        work.addCallback(self._found, source).addErrback(self._failed, source)

    def _found(self, change: NamesChange, source: _Source) -> None:
        if self._finding is not source or self._helper is None:
            # A reload has replaced the process meanwhile, or it ends.
            return
        first = self._told is None
        self._finding, self._told, self._wanted = None, source, change.wanted
        if first or change.added or change.removed:
            self._helper.want(change.wanted, change.added, change.removed)

    def _failed(self, failure: Failure, source: _Source) -> None:
        self.log.failure(
            "the names that are to have certificates could not be found; the previous ones stay", failure
        )
        if self._finding is source:
            self._finding, self._told = None, source

    # -- the process

    def _terms(self, settings: Settings) -> Terms | None:
        """What the process has to know; None where there is to be none."""
        acme = settings.acme
        if acme.directory is None:
            return None
        fault = _fault(acme, self._redirects)
        if fault != self._complained:
            self._complained = fault
            if fault:
                self.log.warn("{fault}; no certificates are ordered", fault=fault)
        if fault:
            return None
        return Terms(
            folder=str(Layout.below(settings.state.dir).root),
            owner=self._owner,
            directory=acme.directory,
            contact=list(acme.contact),
            ca="" if acme.ca is None else str(acme.ca),
            challenge=acme.challenge,
            eab=None if acme.eab is None else (acme.eab.key_id, acme.eab.key.value),
            keys=acme.keys,
            profile=acme.profile,
            rate=acme.rate,
            resolver=acme.resolver,
            check_port=acme.check_port or (80 if acme.challenge == HTTP else 443),
            base_domain=settings.tenants.base_domain,
            agent=f"koder-gateway/{VERSION}",
            store=_store_terms(settings),
        )


def _fault(acme: AcmeSettings, redirects: bool) -> str:
    """Why nothing can be ordered; "" for nothing."""
    missing = acme_packages_fault()
    if missing is not None:
        return f"acme.directory {missing}"
    fault = acme_port_fault(acme, redirects)
    return "" if fault is None else f"acme.challenge: {fault}"


def find_names(source: _Source, before: dict[str, str], rest: Callable[[], object]) -> NamesChange:
    """The names that are to have certificates. `before` are those of the last time, which keep their order; `rest`
    is called between any two names. Makes nothing but new objects: for a thread."""
    present = dict(_candidates(source, rest))
    # One that is another tenant's now as well.
    added = [name for name, owner in present.items() if before.get(name) != owner]
    removed = [name for name in before if name not in present]
    wanted = {name: present[name] for name in before if name in present}
    wanted.update((name, present[name]) for name in added)
    return NamesChange(wanted, added, removed)


def wanted_names(registry: Registry, names: tuple[str, ...], operators: SniIndex | None) -> list[str]:
    """The names that are to have certificates, by a registry, `acme.names` and the operator's certificates."""
    return list(dict(_candidates(_Source(registry, names, operators), _no_rest)))


def _candidates(source: _Source, rest: Callable[[], object]) -> Iterator[tuple[str, str]]:
    """The names and their tenants, in any order."""
    operators = source.operators
    for name, owner in itertools.chain(((name, "") for name in source.names), _domains(source.registry, rest)):
        if is_name(name) and (operators is None or operators.find(name.encode("ascii")) is None):
            yield name, owner


def _domains(registry: Registry, rest: Callable[[], object]) -> Iterator[tuple[str, str]]:
    """The custom domains of all active tenants. A domain that two claim is one of the tenant that keeps it."""
    tenants, domains = registry.indices.tenants, registry.indices.domains
    for part in domains.parts:
        for domain, slug in part.items():
            rest()
            record = tenants.get(slug)
            tenant = None if record is None else unpacked(slug, record)
            if tenant is not None and tenant.status == "active":
                yield domain.decode("ascii"), tenant.slug


def _store_terms(settings: Settings) -> StoreTerms | None:
    acme, store = settings.acme, settings.limits_store
    if acme.storage != "store" or acme.storage_key_file is None:
        return None
    url = store.url
    return StoreTerms(
        scheme=url.scheme,
        host=url.host,
        port=url.port,
        database=url.database,
        path=url.path,
        ca="" if store.ca is None else str(store.ca),
        user=store.user,
        password="" if store.password_file is None else store.password_file.value,
        prefix=store.prefix,
        key=acme.storage_key_file.value,
    )


def _none() -> SniIndex | None:
    """The operator has no certificates."""
    return None


def _no_rest() -> None:
    """There is no thread that others would wait for."""
