"""The process of one worker, as its gateway sees it: ports, notices and metrics are shared with the other workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.logger import Logger

from ..ops.limits_page import RuleDocument
from ..ops.metrics import render
from ..ops.notify import Notifier
from ..ops.process_state import ProcessState, WorkerState
from ..reactor.descriptor_reader import DescriptorReader
from ..service.process import Process, Sampling
from ..tls.ticket_contexts import TicketContexts
from .bound_ports import BoundPort, InheritedPorts
from .limits_sum import merged_limits
from .metrics_sum import FamilyCollector, Snapshot, read_snapshot, summed, taken
from .seats import WorkerSeat

_log = Logger()


class WorkerProcess(Process):
    """A worker in its seat, with the ports that the supervisor has bound."""

    def __init__(self, seat: WorkerSeat, ports: Iterable[BoundPort], tickets: TicketContexts) -> None:
        super().__init__()
        self._seat = seat
        self.number = seat.number
        self.tickets = tickets
        self._ports = list(ports)
        self._listening: InheritedPorts | None = None

    def listening_on(self, reactor: Any) -> Any:
        """The sockets of the supervisor."""
        if self._listening is None:
            self._listening = InheritedPorts(reactor, self._ports)
        return self._listening

    def notifier(self) -> Notifier:
        """The supervisor: it speaks for all workers to systemd."""
        return _ChannelNotifier(self._seat)

    @property
    def pid(self) -> int:
        """That of the supervisor."""
        return os.getppid()

    def reloading(self) -> None:
        """The supervisor knows."""

    def reloaded(self, faults: Sequence[str] | None) -> None:
        """Tell the supervisor."""
        self._seat.channel.send(refusals=None if faults is None else list(faults))

    def metrics_page(self, sampling: Sampling) -> bytes:
        """The metrics of all workers: those of this one as they are, those of the others at most a second old."""
        state = self.state(sampling)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(FamilyCollector(lambda: state.families))
        return render(registry)

    def state(self, sampling: Sampling) -> ProcessState:
        """That of all workers: what the others say is at most a second old."""
        found, past = self._snapshots(sampling)
        workers, live = [], {}
        for number, each in found:
            runs = each.run > past.ended.get(number, 0)
            if runs:
                live[number] = each.families
            pid, unready = (each.pid, each.unready) if runs else (0, ["not started"])
            workers.append(WorkerState(number, pid, unready, max(0, each.run - 1), each.time))
        limits = self._limits(found, past)
        return ProcessState(summed(past.families, live), limits, workers, past.started, past.reloads)

    def limits(self, sampling: Sampling) -> list[RuleDocument]:
        """Those of all workers: what the others say is at most a second old."""
        return self._limits(*self._snapshots(sampling))

    def _limits(self, found: list[tuple[int, Snapshot]], past: Snapshot) -> list[RuleDocument]:
        # This worker's own come first: its rules are those in force.
        own_first = sorted(found, key=lambda each: each[0] != self.number)
        return merged_limits([each.limits for number, each in own_first if each.run > past.ended.get(number, 0)])

    def _snapshots(self, sampling: Sampling) -> tuple[list[tuple[int, Snapshot]], Snapshot]:
        """The pages of all workers, by number, and the supervisor's."""
        self.publish(sampling)
        # The workers first: one that ends in between is then in both, and counted once.
        found = [(number, read_snapshot(page.read())) for number, page in enumerate(self._seat.pages)][1:]
        return found, read_snapshot(self._seat.pages[0].read())

    def publish(self, sampling: Sampling) -> None:
        """Write this worker's page."""
        seat = self._seat
        seat.pages[seat.number].write(taken(sampling(), seat.run))

    def watch(
        self, reactor: Any, end: Callable[[], object], leave: Callable[[], object], reload: Callable[[], object]
    ) -> None:
        """Do what the supervisor says from now on, and end when it has ended. `leave` ends too, and leaves the admin
        port to the next generation at once."""
        channel, calls = self._seat.channel, {"end": end, "leave": leave, "reload": reload}

        def read() -> None:
            messages = channel.receive()
            if messages is None:
                reactor.removeReader(reader)
                _log.warn("the supervisor has ended, and so does this worker")
                end()
                return
            for message in messages:
                calls.get(message.get("do", ""), _nothing)()

        reader = DescriptorReader(channel.fileno(), "supervisor", read)
        reactor.addReader(reader)


def _nothing() -> None:
    """For orders of another version."""


class _ChannelNotifier(Notifier):
    """Notices for the supervisor."""

    def __init__(self, seat: WorkerSeat) -> None:
        super().__init__({})
        self._channel = seat.channel
        self._figures: list[int] = []
        self.listened = seat.listened

    def figures(self, requests: int, connections: int, tenants: int) -> None:
        """This worker's own, for the supervisor to add up."""
        figures = [requests, connections, tenants]
        if figures != self._figures and not self._channel.blocked:
            self._figures = figures
            self._channel.send(figures=figures)

    def watchdog(self) -> None:
        """Still alive, whether or not systemd has a watchdog; nothing for a supervisor that does not read, as of
        workers that a new generation replaces."""
        if not self._channel.blocked:
            self._send("WATCHDOG=1", "")

    def _send(self, message: str, status: str) -> None:
        self._channel.send(notify=message, status=status)
