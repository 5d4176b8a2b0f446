"""The process around a gateway: what it provides, and what is different where several serve together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry

from ..ops.metrics import render
from ..ops.notify import Notifier

Sampling = Callable[[], CollectorRegistry]


class Process:
    """One that is alone. `workers` has other ones."""

    def listening_on(self, reactor: Any) -> Any:
        """What endpoints listen on: the reactor, or what has their sockets already."""
        return reactor

    def notifier(self) -> Notifier:
        """Where readiness and reloads are reported."""
        return Notifier()

    def reloaded(self, faults: Sequence[str] | None) -> None:
        """A reload has ended; `faults` are the reasons why it was refused, None if it was not."""

    def metrics_page(self, sampling: Sampling) -> bytes:
        """The metrics page."""
        return render(sampling())

    def publish(self, sampling: Sampling) -> None:
        """Show the others the present metrics; called once a second, and at the end."""
