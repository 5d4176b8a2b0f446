"""Active health probes: each address of a service that has a health path is asked for it every few seconds. While
probes say that all addresses of a service are unhealthy, its requests are refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from .address import Address

# Bytes of a response that are read, only to see that it arrives; of a longer one the status decides.
_BODY: Final = 65_536


class ProbePlan(NamedTuple):
    """How an address is probed: the path and the Host ("": what the address is called), the seconds from the
    beginning of one probe to that of the next and until the whole response must be there, how many failures and
    successes in a row change the health, and the statuses of a success (ranges, both ends included)."""

    path: str
    host: str = ""
    interval: float = 5.0
    timeout: float = 2.0
    unhealthy: int = 2
    healthy: int = 1
    statuses: tuple[tuple[int, int], ...] = ((200, 399),)


class _Probe:
    """The probes of one address."""

    log = Logger()

    def __init__(self, reactor: Any, address: Address, plan: ProbePlan) -> None:
        # It comes with a client for HTTP that takes a MiB, and few services are probed.
        from .fetch import Fetcher

        self.address = address
        self.plan = plan
        self._fetcher = Fetcher(reactor, address.endpoint, _origin(address.url) + plan.path, _BODY, plan.host)
        self._asking: Deferred[Any] | None = None
        self._now = 0.0
        self._due = float("-inf")
        self._deadline = 0.0
        self._failures = self._successes = 0

    def sweep(self, now: float) -> None:
        """Begin a probe, or end one, whose time has come."""
        self._now = now
        if self._asking is not None:
            if now >= self._deadline:
                self._fetcher.cut()
        elif now >= self._due:
            self._due = now + self.plan.interval
            self._deadline = now + self.plan.timeout
            asking: Deferred[Any] = self._fetcher.get({"Accept": "*/*"})
            self._asking = asking
            asking.addCallbacks(self._answered, self._failed)

    def stop(self) -> None:
        """Probe no more. The address keeps the health that it has."""
        self._asking = None
        self._fetcher.cut()

    def _answered(self, answer: tuple[int, str, bytes | None]) -> None:
        status = answer[0]
        good = any(low <= status <= high for low, high in self.plan.statuses)
        self._ended("" if good else f"it responds with {status}")

    def _failed(self, failure: Failure) -> None:
        from .fetch import NotSentError

        if self._asking is None:
            return
        if failure.check(NotSentError):
            # This says nothing about the service.
            self._asking = None
            return
        late = failure.check(CancelledError) is not None
        self._ended(
            f"no complete response within {self.plan.timeout:g} seconds" if late else failure.getErrorMessage()
        )

    def _ended(self, fault: str) -> None:
        self._asking = None
        address, plan = self.address, self.plan
        self._failures = self._failures + 1 if fault else 0
        self._successes = 0 if fault else self._successes + 1
        named: dict[str, Any] = {"service": address.service.name, "url": address.url, "path": plan.path}
        if not address.healthy and self._successes >= plan.healthy:
            self.log.info("service {service}: {url} is healthy again ({path})", **named)
            address.judge(True, self._now)
        elif address.healthy and self._failures >= plan.unhealthy:
            self.log.warn("service {service}: {url} is unhealthy ({path}): {fault}", fault=fault, **named)
            address.judge(False, self._now)


class Probes:
    """Every probe of the gateway. `sweep` drives them, so that nothing is left on the reactor when it ends.

    An unhealthy address gets no exchange.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._probes: dict[Address, _Probe] = {}

    def watch(self, targets: Iterable[tuple[Address, ProbePlan]]) -> None:
        """Probe these addresses, each as planned, and no others. What is probed already goes on."""
        before, self._probes = self._probes, {}
        for address, plan in targets:
            probe = before.get(address)
            if probe is not None and probe.plan == plan:
                self._probes[address] = before.pop(address)
            else:
                self._probes[address] = _Probe(self._reactor, address, plan)
        for probe in before.values():
            probe.stop()

    def sweep(self, now: float) -> None:
        """Do what is due; called several times a second while the gateway runs. `now`: monotonic seconds."""
        for probe in list(self._probes.values()):
            probe.sweep(now)

    def stop(self) -> None:
        """End the probes in flight; without further sweeps there are no others."""
        for probe in self._probes.values():
            probe.stop()

    @property
    def healthy(self) -> Mapping[tuple[str, str], bool]:
        """Whether each probed address is healthy, by service and address."""
        return {(a.service.name, a.url): a.healthy for a in self._probes}


def _origin(url: str) -> str:
    """What an address is called in the probe's URL. A socket has no name of its own, and Host must have one."""
    return "http://localhost" if url.startswith("unix:") else url
