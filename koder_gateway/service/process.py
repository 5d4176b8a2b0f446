"""The process around a gateway: what it provides, and what is different where several serve together."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..ops.control_socket import ControlSocket
from ..ops.limits_page import RuleDocument
from ..ops.metric_values import families_of
from ..ops.metrics import render
from ..ops.notify import Notifier
from ..ops.process_state import Present, ProcessState, ReloadRecord, WorkerState
from ..tls.ticket_contexts import TicketContexts

Sampling = Callable[[], Present]


class Process:
    """One that is alone. `workers` has other ones, whose `number` counts from 1."""

    number = 0

    tickets: TicketContexts | None = None
    """The contexts with the ticket keys that several have; None for one with its own."""
    control: ControlSocket | None = None
    """Where reloads are asked for whose verdict somebody waits for; its owner closes it."""

    def __init__(self) -> None:
        self._started = time.time()
        self._reloads = ReloadRecord()

    def listening_on(self, reactor: Any) -> Any:
        """What endpoints listen on: the reactor, or what has their sockets already."""
        return reactor

    def notifier(self) -> Notifier:
        """Where readiness and reloads are reported."""
        return Notifier()

    @property
    def pid(self) -> int:
        """The process that gets signals, and is asked to reload."""
        return os.getpid()

    def reloading(self) -> None:
        """A reload has begun."""
        if self.control is not None:
            self.control.begun()

    def reloaded(self, faults: Sequence[str] | None) -> None:
        """A reload has ended; `faults` are the reasons why it was refused, None if it was not."""
        self._reloads.decide(time.time(), faults)
        if self.control is not None:
            self.control.decided(faults)

    def metrics_page(self, sampling: Sampling) -> bytes:
        """The metrics page."""
        return render(sampling().registry)

    def state(self, sampling: Sampling) -> ProcessState:
        """The state of all processes that serve."""
        present = sampling()
        alone = WorkerState(self.number, os.getpid(), present.unready, 0, time.time())
        families = families_of(present.registry)
        return ProcessState(families, present.limits(), [alone], self._started, self._reloads)

    def limits(self, sampling: Sampling) -> list[RuleDocument]:
        """The limits of all processes that serve, as `/limits` shows them."""
        return sampling().limits()

    def publish(self, sampling: Sampling) -> None:
        """Show the others the present state; called once a second, and at the end."""
