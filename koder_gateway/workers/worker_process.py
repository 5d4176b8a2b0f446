"""The process of one worker, as its gateway sees it: ports, notices and metrics are shared with the other workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..ops.metrics import render
from ..ops.notify import Notifier
from ..service.process import Process, Sampling
from .bound_ports import BoundPort, InheritedPorts
from .channel import Channel
from .metrics_sum import Family, FamilyCollector, read_snapshot, summed, taken
from .seats import WorkerSeat

_log = Logger()


class WorkerProcess(Process):
    """A worker in its seat, with the ports that the supervisor has bound."""

    def __init__(self, seat: WorkerSeat, ports: Iterable[BoundPort]) -> None:
        self._seat = seat
        self._ports = list(ports)

    def listening_on(self, reactor: Any) -> Any:
        """The sockets of the supervisor."""
        return InheritedPorts(reactor, self._ports)

    def notifier(self) -> Notifier:
        """The supervisor: it speaks for all workers to systemd."""
        return _ChannelNotifier(self._seat.channel)

    def reloaded(self, faults: Sequence[str] | None) -> None:
        """Tell the supervisor."""
        self._seat.channel.send(refusals=None if faults is None else list(faults))

    def metrics_page(self, sampling: Sampling) -> bytes:
        """The metrics of all workers: those of this one as they are, those of the others at most a second old."""
        self.publish(sampling)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(FamilyCollector(self._families))
        return render(registry)

    def publish(self, sampling: Sampling) -> None:
        """Write the page of this worker."""
        seat = self._seat
        seat.pages[seat.number].write(taken(sampling(), seat.run))

    def watch(self, reactor: Any, end: Callable[[], object], reload: Callable[[], object]) -> None:
        """Do what the supervisor says from now on, and end when it has ended."""
        reactor.addReader(_Orders(reactor, self._seat.channel, {"end": end, "reload": reload}))

    def _families(self) -> list[Family]:
        # The workers first: one that ends in between is then in both, and counted once.
        found = [(number, read_snapshot(page.read())) for number, page in enumerate(self._seat.pages)][1:]
        past = read_snapshot(self._seat.pages[0].read())
        live = {number: each.families for number, each in found if each.run > past.ended.get(number, 0)}
        return summed(past.families, live)


class _ChannelNotifier(Notifier):
    """Notices for the supervisor."""

    def __init__(self, channel: Channel) -> None:
        super().__init__({})
        self._channel = channel

    def _send(self, message: str, status: str) -> None:
        self._channel.send(notify=message, status=status)


@implementer(IReadDescriptor)
class _Orders:
    """The channel on the reactor."""

    def __init__(self, reactor: Any, channel: Channel, calls: dict[str, Callable[[], object]]) -> None:
        self._reactor = reactor
        self._channel = channel
        self._calls: Final = calls

    def fileno(self) -> int:
        """See IFileDescriptor."""
        return self._channel.fileno()

    def logPrefix(self) -> str:
        """See ILoggingContext."""
        return "supervisor"

    def doRead(self) -> None:
        """See IReadDescriptor."""
        messages = self._channel.receive()
        if messages is None:
            self._reactor.removeReader(self)
            _log.warn("the supervisor has ended, and so does this worker")
            self._calls["end"]()
            return
        for message in messages:
            call = self._calls.get(message.get("do", ""))
            if call is not None:
                call()

    def connectionLost(self, reason: Failure) -> None:
        """See IFileDescriptor."""
