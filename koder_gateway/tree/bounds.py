"""The timeouts and bounds towards clients, from the settings."""

from __future__ import annotations

import resource
from typing import Final

from ..config import Settings
from ..downstream.limits import ClientLimits, ClientTimeouts
from ..policy.shares import Shares

# Descriptors that are neither clients nor services: logs, the reactor's own, files being read.
_SPARE_DESCRIPTORS: Final = 128


def client_timeouts(settings: Settings) -> ClientTimeouts:
    """The deadlines."""
    timeouts = settings.timeouts
    return ClientTimeouts(
        head=timeouts.head,
        body=timeouts.body,
        keepalive=timeouts.keepalive,
        linger=timeouts.linger,
        idle=timeouts.idle,
        exchange=timeouts.exchange,
    )


def client_limits(settings: Settings) -> ClientLimits:
    """The bounds."""
    requests = settings.requests
    connections = settings.listen.max_connections or _connections_allowed(settings)
    return ClientLimits(
        max_head=requests.max_head,
        max_target=requests.max_target,
        max_fields=requests.max_fields,
        min_rate=requests.min_rate,
        max_streams=requests.max_streams,
        max_buffered=requests.max_buffered,
        max_connections=connections,
        shares=shares_of(connections, settings),
        half_close=settings.listen.half_close,
    )


def shares_of(places: int, settings: Settings) -> Shares:
    """The shares of one address and one tenant in so many places."""
    return Shares.of(places, settings.shares.address, settings.shares.tenant)


def _connections_allowed(settings: Settings) -> int:
    """As many clients as descriptors allow when every service has all its connections open."""
    soft = descriptors_now()
    # A tunnel has a connection of its own to the service; there are no more of them than clients.
    tunnels = settings.requests.max_tunnels
    return max(soft // 2, soft - _reserved(settings) - tunnels - _SPARE_DESCRIPTORS)


def descriptors_now() -> int:
    """How many descriptors this process may have as it is."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


def _reserved(settings: Settings) -> int:
    """The connections that services may have."""
    return sum(settings.services[name].max_connections for name in {r.service for r in settings.routes})


def descriptor_warnings(settings: Settings, limit: int, whose: str) -> list[str]:
    """A warning if `limit` descriptors are too few for the connections that the settings name; `whose` limit it is.
    There is none if no number of clients is set: it is then derived from the descriptors."""
    clients, services = settings.listen.max_connections, _reserved(settings)
    wanted = clients + services + _SPARE_DESCRIPTORS
    if not clients or wanted <= limit:
        return []
    room = limit - services - _SPARE_DESCRIPTORS
    less = f"write {room} at most, or raise that limit" if room > 0 else "raise that limit"
    told = (
        f"{clients} client connections, {services} connections to services and other open files"
        f" may need {wanted} file descriptors, but {whose} allows {limit}; {less}"
    )
    return [told]
