"""Deadlines and bounds as a configuration without any says them, with some of them changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from koder_gateway.config import Settings
from koder_gateway.downstream.limits import ClientLimits, ClientTimeouts
from koder_gateway.tree import bounds
from koder_gateway.upstream.pool import ServiceTimeouts
from koder_gateway.upstream.tunnel import Tunnels
from koder_gateway.wire.clock import CoarseClock

SETTINGS = Settings()


def client_timeouts(**changes: float) -> ClientTimeouts:
    """Deadlines towards clients, in seconds."""
    return replace(bounds.client_timeouts(SETTINGS), **changes)


def client_limits(**changes: Any) -> ClientLimits:
    """Bounds towards clients; no address and no tenant has a share, and no limit of descriptors counts."""
    whole: dict[str, Any] = {"max_connections": 65536, "shares": None}
    return replace(bounds.client_limits(SETTINGS), **{**whole, **changes})


def service_timeouts(**changes: float) -> ServiceTimeouts:
    """Deadlines towards a service, in seconds."""
    timeouts = SETTINGS.timeouts
    return ServiceTimeouts(timeouts.response, timeouts.idle, timeouts.upstream_keepalive)._replace(**changes)


def open_tunnels(clock: CoarseClock) -> Tunnels:
    """As many tunnels as a gateway allows."""
    tunnels = Tunnels(clock)
    timeouts = SETTINGS.timeouts
    tunnels.allow(SETTINGS.requests.max_tunnels, timeout=timeouts.tunnel, ending=timeouts.idle)
    return tunnels
