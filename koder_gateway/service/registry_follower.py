"""Follows the tenant registry of the configuration in force: a file that changes, or a list of the Admin service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import Settings, Version
from ..policy.decision import Policy
from ..policy.tenants import Registry
from ..reactor.daemon_threads import daemon_threads
from ..tenants.list_reader import MAX_PAGE
from ..tenants.registry_cache import RegistryCache
from ..tenants.registry_file import RegistryFile
from ..tenants.registry_in_force import RegistryCounters, RegistryInForce
from ..tenants.remote_registry import RegistryLocation, RemoteRegistry, UnreadTenants
from ..tree.compose import Composition, tenant_policy
from ..tree.server_endpoints import upstream_endpoint


class RegistryFollower:
    """Reads the registry again when it changes, in a thread of its own, and passes each new one to `refreshed`.
    `in_force` returns the generation that a new list is compared with."""

    def __init__(
        self,
        reactor: Any,
        in_force: Callable[[], Composition],
        counters: RegistryCounters,
        refreshed: Callable[[Registry], object],
        *,
        local_hosts: bool,
    ) -> None:
        self._reactor = reactor
        self._threads = daemon_threads(reactor, "registry")
        self._in_force = RegistryInForce(
            lambda: in_force().policy.registry,
            lambda: in_force().settings.tenants.max_loss,
            lambda: {rule.name: rule for rule in in_force().settings.limits},
        )
        self._counters = counters
        self._refreshed = refreshed
        self._local_hosts = local_hosts
        self.registry: RemoteRegistry | RegistryFile | None = None

    @property
    def seen(self) -> Version | None:
        """The version of the registry file that was read last; None where there is none."""
        return self.registry.seen if isinstance(self.registry, RegistryFile) else None

    def follow(self, composition: Composition, before: Composition | None) -> Composition:
        """Follow the registry of these settings from now on. Returns the generation with the tenants that apply until
        it has been read."""
        settings = composition.settings
        source = settings.tenants.registry
        if isinstance(source, str):
            place = RegistryLocation(source, settings.tenants.base_domain, settings.state.dir)
            return self._follow_url(place, composition, before)
        self.stop()
        if source is not None:
            self.registry = RegistryFile(
                source,
                settings.tenants.base_domain,
                settings.registry_version,
                self._in_force,
                self._counters,
                self._refreshed,
                self._threads,
                self._cache(settings, source),
                contested=bool(settings.registry_faults) and before is None,
            )
        return composition

    def _cache(self, settings: Settings, source: Path) -> RegistryCache | None:
        """Where the tenants of a file are kept for the next start; None on a reactor without threads."""
        if self._threads is self._reactor:
            return None
        return RegistryCache(settings.state.dir, str(source), settings.tenants.base_domain)

    def _follow_url(
        self, place: RegistryLocation, composition: Composition, before: Composition | None
    ) -> Composition:
        """The previous tenants stay until the list has been read, if they were known."""
        present = replace(composition, policy=self._policy_until_then(composition, before))
        same = before is not None and (before.registry, before.registry_trust) == (
            present.registry,
            present.registry_trust,
        )
        followed = self.registry
        if not isinstance(followed, RemoteRegistry) or followed.place != place or not same:
            self.stop()
            followed = self.registry = self._remote(place, present)
        followed.again()
        return present

    def _policy_until_then(self, composition: Composition, before: Composition | None) -> Policy:
        """The policy with the tenants that are known so far."""
        policy = composition.policy
        if before is None or before.policy.registry.is_open or isinstance(before.policy.tenants, UnreadTenants):
            return replace(policy, registry=Registry(()), tenants=UnreadTenants())
        registry = before.policy.registry
        tenants = tenant_policy(composition.settings, registry, self._local_hosts)
        return replace(policy, registry=registry, tenants=tenants)

    def _remote(self, place: RegistryLocation, composition: Composition) -> RemoteRegistry:
        # A MiB of memory, for a registry that is no file.
        from ..upstream.fetch import Fetcher

        service = composition.registry
        assert service is not None, "a registry behind a URL is some service's"
        connect = service.connect or composition.settings.timeouts.connect
        trust, names = composition.registry_trust, composition.names
        endpoint = upstream_endpoint(self._reactor, place.url, connect, service, trust, names)
        source = Fetcher(self._reactor, endpoint, place.url, MAX_PAGE)
        return RemoteRegistry(place, source, self._in_force, self._counters, self._refreshed, self._threads)

    def sweep(self, now: float, settings: Settings) -> None:
        """Read it again if it is time."""
        if self.registry is not None:
            self.registry.sweep(now, settings.tenants.refresh)

    def stop(self) -> None:
        """Stop following."""
        if self.registry is not None:
            self.registry.stop()
        self.registry = None
