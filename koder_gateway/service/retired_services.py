"""Services that a reload has replaced: each lives until its last exchange has ended."""

from __future__ import annotations

from collections.abc import Mapping

from ..upstream.pool import Service


class RetiredServices:
    """The services that no new exchange goes to. The owner calls `sweep`."""

    def __init__(self) -> None:
        self._services: list[Service] = []
        self._retries_before = 0

    @property
    def retries(self) -> int:
        """Retries of these services, and of those that were here before."""
        return self._retries_before + sum(service.retried for service in self._services)

    def retire(self, before: Mapping[str, Service], present: Mapping[str, Service]) -> None:
        """Take over the services that are not among the `present` ones."""
        for name, service in before.items():
            if present.get(name) is not service:
                service.close_idle()
                self._services.append(service)

    def sweep(self, now: float) -> None:
        """Expire what has passed its deadline, and drop services without exchanges."""
        for service in self._services:
            service.sweep(now)
            if service.capacity.empty:
                self._retries_before += service.retried
        self._services = [service for service in self._services if not service.capacity.empty]

    def close_idle(self) -> None:
        """Close every idle connection."""
        for service in self._services:
            service.close_idle()
