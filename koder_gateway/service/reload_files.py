"""The present contents of a configuration's files, for a reload."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..config import ListContext, Settings, StableReading, load, read_again, read_keys_again, read_tenants
from ..policy.tenants import Registry


def read_files(settings: Settings, rest: Callable[[], object], caution: StableReading, before: Registry) -> Settings:
    """The present settings, with the registry, of the files that `settings` came from. `rest` is called between any
    two steps, and `caution` says how a registry file is looked at that may be half written. `before` is the registry
    in force. Raises what `load` raises."""
    if settings.source is not None:
        return load(settings.source, rest=rest, caution=caution, before=before)
    return _named_again(settings, rest, caution, before)


def _named_again(
    settings: Settings, rest: Callable[[], object], caution: StableReading, before: Registry
) -> Settings:
    """Settings that came from no file, with the present contents of the files that they name."""
    settings = replace(
        settings,
        tls=replace(settings.tls, client_ca=read_again(settings.tls.client_ca)),
        context=read_keys_again(settings.context),
    )
    registry = settings.tenants.registry
    if not isinstance(registry, Path):
        return settings
    rules = {rule.name: rule for rule in settings.limits}
    context = ListContext(settings.tenants.base_domain, before, rules, rest)
    found, version = read_tenants(registry, str(registry), context, caution)
    found.check(str(registry), settings.tenants.max_loss)
    return replace(
        settings,
        registered=found.registry,
        registry_faults=found.faults,
        registry_skipped=found.skipped,
        registry_version=version,
    )
