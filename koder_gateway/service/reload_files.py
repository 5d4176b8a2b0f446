"""The present contents of a configuration's files, for a reload."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..config import Settings, StableReading, load, read_again, read_keys_again, read_tenants
from ..policy.tenants import Registry


def read_files(settings: Settings, rest: Callable[[], object], caution: StableReading) -> tuple[Settings, Registry]:
    """The settings and the registry of the files that `settings` came from. `rest` is called between any two steps,
    and `caution` says how a registry file is looked at that may be half written. Raises what `load` raises."""
    settings = (
        _named_again(settings, rest, caution)
        if settings.source is None
        else load(settings.source, rest=rest, caution=caution)
    )
    return settings, Registry(settings.registered, rest)


def _named_again(settings: Settings, rest: Callable[[], object], caution: StableReading) -> Settings:
    """Settings that came from no file, with the present contents of the files that they name."""
    settings = replace(
        settings,
        tls=replace(settings.tls, client_ca=read_again(settings.tls.client_ca)),
        context=read_keys_again(settings.context),
    )
    registry = settings.tenants.registry
    if not isinstance(registry, Path):
        return settings
    base_domain = settings.tenants.base_domain
    tenants, version = read_tenants(registry, str(registry), base_domain, rest, caution)
    return replace(settings, registered=tenants, registry_version=version)
