"""Services that a reload has replaced: each lives until its last exchange has ended."""

from __future__ import annotations

from collections.abc import Mapping
from weakref import WeakKeyDictionary

from ..upstream.pool import Service


class RetiredServices:
    """The services of earlier trees. The owner calls `sweep`.

    An exchange that waits for a decision, or for its body, holds its service before it has a place there. So a
    service is swept as long as anybody holds it.
    """

    def __init__(self) -> None:
        # With the retries of each that are in `_retries`.
        self._services: WeakKeyDictionary[Service, int] = WeakKeyDictionary()
        self._retries = 0

    @property
    def retries(self) -> int:
        """Retries of these services, and of those that were here before."""
        return self._retries + sum(service.retried - counted for service, counted in self._services.items())

    def retire(self, before: Mapping[str, Service], present: Mapping[str, Service]) -> None:
        """Take over the services that are not among the `present` ones."""
        for name, service in before.items():
            if present.get(name) is not service:
                service.close_idle()
                self._services[service] = 0

    def sweep(self, now: float) -> None:
        """Expire what has passed its deadline."""
        for service, counted in list(self._services.items()):
            service.sweep(now)
            self._retries += service.retried - counted
            self._services[service] = service.retried

    def close_idle(self) -> None:
        """Close every idle connection."""
        for service in list(self._services):
            service.close_idle()
