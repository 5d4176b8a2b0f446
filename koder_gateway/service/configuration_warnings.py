"""Warnings about a valid configuration."""

from __future__ import annotations

from typing import Final

from ..config import Settings, misspelled_services, warning_lines
from ..tree.bounds import descriptor_warnings, descriptors_now
from ..tree.compose import Composition, certificate_warnings
from .dependencies import degradations

# How many seconds before its expiry there is a warning about a certificate that is shown to services.
_SOON: Final = 30 * 86_400.0


def warnings_of(composition: Composition, now: float) -> list[str]:
    """A line for each warning about the settings and the files that they name; `now`: seconds since the epoch."""
    authorities = composition.settings.tls.client_ca
    of_clients = () if authorities is None else authorities.warnings(now)
    settings = composition.settings
    return [*degradations(), *_of_settings(settings), *certificate_warnings(composition, now, _SOON), *of_clients]


def _of_settings(settings: Settings) -> list[str]:
    origins = settings.origins
    few = descriptor_warnings(settings, descriptors_now(), "RLIMIT_NOFILE (LimitNOFILE of the unit, ulimit -n)")
    misspelled = [origins.line(at, fault) for at, fault in misspelled_services(settings)]
    left_out = [f"left out of the registry: {fault}" for fault in settings.registry_faults]
    return [
        *misspelled,
        *left_out,
        *warning_lines(settings),
        *(origins.line("listen.max_connections", each) for each in few),
    ]


def changed_ports(before: Settings, present: Settings) -> list[str]:
    """The keys in `[listen]` that have changed, and need a restart."""
    keys = ("port", "redirect_port", "admin_port", "workers")
    return [key for key in keys if getattr(before.listen, key) != getattr(present.listen, key)]
