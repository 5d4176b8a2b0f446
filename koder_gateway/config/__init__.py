"""Configuration: TOML to frozen settings, with all faults reported at once."""

from __future__ import annotations

from .client_auth import Authorities, read_again
from .entries import ServiceSettings
from .faults import ConfigurationError
from .file_looks import Caution, Version, file_state, look_at
from .loading import DEFAULT_PATH, load
from .registry import TenantsFile, file_version, load_tenants, parse_tenants, read_tenants
from .salvage import Salvage, salvage
from .settings import (
    CorsSettings,
    LimitsStoreSettings,
    ListenSettings,
    LogSettings,
    RequestSettings,
    Settings,
    ShareSettings,
    StateSettings,
    TenantSettings,
    TimeoutSettings,
    TlsSettings,
)
from .tables import Row, rows
from .units import parse_duration, parse_size
from .warnings import misspelled_services, warning_lines


def schema() -> tuple[Row, ...]:
    """Every key of koder-gateway.toml, with its default and kind, in the order of the sections."""
    return tuple(rows(Settings))


def tenants_schema() -> tuple[Row, ...]:
    """Every key of tenants.toml."""
    return tuple(rows(TenantsFile))


__all__ = [
    "DEFAULT_PATH",
    "Authorities",
    "Caution",
    "ConfigurationError",
    "CorsSettings",
    "LimitsStoreSettings",
    "ListenSettings",
    "LogSettings",
    "RequestSettings",
    "Row",
    "Salvage",
    "ServiceSettings",
    "Settings",
    "ShareSettings",
    "StateSettings",
    "TenantSettings",
    "TimeoutSettings",
    "TlsSettings",
    "Version",
    "file_state",
    "file_version",
    "load",
    "load_tenants",
    "look_at",
    "misspelled_services",
    "parse_duration",
    "parse_size",
    "parse_tenants",
    "read_again",
    "read_tenants",
    "salvage",
    "schema",
    "tenants_schema",
    "warning_lines",
]
