"""Configuration: TOML to frozen settings, with all faults reported at once."""

from __future__ import annotations

from .acme import AcmeSettings, ExternalAccount, SecretFile, acme_packages_fault, acme_port_fault
from .client_auth import Authorities, read_again
from .entries import ServiceSettings
from .faults import ConfigurationError
from .health_entries import HealthSettings
from .in_force import entries_in_force, json_entries, toml_lines
from .listen_settings import ListenSettings, TlsSettings
from .loading import DEFAULT_PATH, load, read_source
from .partial_loading import PartialSettings, load_partially
from .registry import TenantsFile, file_version, load_tenants, parse_tenants, read_tenants
from .request_settings import RequestSettings, ShareSettings, TimeoutSettings
from .settings import LimitsStoreSettings, LogSettings, Settings, StateSettings
from .signing_keys import ContextSettings, read_keys_again
from .stable_reads import StableReading, Version, file_state, read_once
from .tables import Row, keys, rows
from .tenant_entries import ListContext, TenantList
from .tenant_settings import CorsSettings, TenantSettings
from .tracing import TracingSettings
from .units import parse_duration, parse_size
from .warnings import misspelled_services, warning_lines
from .worker_limits import AUTO, parse_workers, shared_store_fault


def schema() -> tuple[Row, ...]:
    """Every key of koder-gateway.toml, with its default and kind, in the order of the sections."""
    return tuple(rows(Settings))


def tenants_schema() -> tuple[Row, ...]:
    """Every key of tenants.toml."""
    return tuple(rows(TenantsFile))


def health_schema() -> tuple[Row, ...]:
    """Every key of the table that `services.NAME.health` may be."""
    return tuple(rows(HealthSettings))


def section_texts() -> dict[str, str]:
    """What each section of koder-gateway.toml is for, in Markdown."""
    return {name: key.about for name, key in keys(Settings).items()}


__all__ = [
    "AUTO",
    "DEFAULT_PATH",
    "AcmeSettings",
    "Authorities",
    "ConfigurationError",
    "ContextSettings",
    "CorsSettings",
    "ExternalAccount",
    "LimitsStoreSettings",
    "ListContext",
    "ListenSettings",
    "LogSettings",
    "PartialSettings",
    "RequestSettings",
    "Row",
    "SecretFile",
    "ServiceSettings",
    "Settings",
    "ShareSettings",
    "StableReading",
    "StateSettings",
    "TenantList",
    "TenantSettings",
    "TimeoutSettings",
    "TlsSettings",
    "TracingSettings",
    "Version",
    "acme_packages_fault",
    "acme_port_fault",
    "entries_in_force",
    "file_state",
    "file_version",
    "health_schema",
    "json_entries",
    "load",
    "load_partially",
    "load_tenants",
    "misspelled_services",
    "parse_duration",
    "parse_size",
    "parse_tenants",
    "parse_workers",
    "read_again",
    "read_keys_again",
    "read_once",
    "read_source",
    "read_tenants",
    "schema",
    "section_texts",
    "shared_store_fault",
    "tenants_schema",
    "toml_lines",
    "warning_lines",
]
