"""koder-gateway: a multi-tenant HTTPS gateway for Koder ID, on Twisted.

`load` reads a configuration and `Gateway` is the service made of it. Neither is imported before it is asked for,
so that importing the package installs no reactor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import ConfigurationError, Settings, load
    from .service.gateway import Gateway, StartError
    from .tree.mounted import MountedRequest, mounted_request

__all__ = [
    "ConfigurationError",
    "Gateway",
    "MountedRequest",
    "Settings",
    "StartError",
    "load",
    "mounted_request",
]

_HOMES = {
    "ConfigurationError": "config",
    "Gateway": "service.gateway",
    "Settings": "config",
    "StartError": "service.gateway",
    "load": "config",
    "MountedRequest": "tree.mounted",
    "mounted_request": "tree.mounted",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{home}", __name__), name)
