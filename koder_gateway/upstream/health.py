"""Active health probes: each address of a service that has a health path is asked for it every few seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from .fetch import Fetcher, NotSentError
from .pool import Address

# Seconds from the beginning of one probe to that of the next, and until the whole response must be there.
INTERVAL: Final = 5.0
TIMEOUT: Final = 2.0
# Failures in a row after which an address gets no more exchanges; one success brings it back.
FAILURES: Final = 2
# Bytes of a response that are read, only to see that it arrives; of a longer one the status decides.
_BODY: Final = 65_536


class _Probe:
    """The probes of one address."""

    log = Logger()

    def __init__(self, reactor: Any, address: Address, path: str, host: str) -> None:
        self.address = address
        self.path = path
        self.host = host
        self._fetcher = Fetcher(reactor, address.endpoint, _origin(address.url) + path, _BODY, host)
        self._asking: Deferred[Any] | None = None
        self._due = float("-inf")
        self._deadline = 0.0
        self._failures = 0

    def sweep(self, now: float) -> None:
        """Begin a probe, or end one, whose time has come."""
        if self._asking is not None:
            if now >= self._deadline:
                self._fetcher.cut()
        elif now >= self._due:
            self._due = now + INTERVAL
            self._deadline = now + TIMEOUT
            asking: Deferred[Any] = self._fetcher.get({"Accept": "*/*"})
            self._asking = asking
            asking.addCallbacks(self._answered, self._failed)

    def stop(self) -> None:
        """Probe no more. The address keeps the health that it has."""
        self._asking = None
        self._fetcher.cut()

    def _answered(self, answer: tuple[int, str, bytes | None]) -> None:
        status = answer[0]
        self._ended("" if 200 <= status < 400 else f"it responds with {status}")

    def _failed(self, failure: Failure) -> None:
        if self._asking is None:
            return
        if failure.check(NotSentError):
            # This says nothing about the service.
            self._asking = None
            return
        late = failure.check(CancelledError) is not None
        self._ended(f"no complete response within {TIMEOUT:g} seconds" if late else failure.getErrorMessage())

    def _ended(self, fault: str) -> None:
        self._asking = None
        address = self.address
        self._failures = self._failures + 1 if fault else 0
        named: dict[str, Any] = {"service": address.service.name, "url": address.url, "path": self.path}
        if not fault and not address.healthy:
            address.healthy = True
            self.log.info("service {service}: {url} is healthy again ({path})", **named)
        elif self._failures >= FAILURES and address.healthy:
            address.healthy = False
            self.log.warn("service {service}: {url} is unhealthy ({path}): {fault}", fault=fault, **named)


class Probes:
    """Every probe of the gateway. `sweep` drives them, so that nothing is left on the reactor when it ends.

    An unhealthy address gets no exchange while another is available. Where all are unhealthy they are used like
    before: a probe that errs, or a health path that was renamed, must not take a whole service away.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._probes: dict[Address, _Probe] = {}

    def watch(self, targets: Iterable[tuple[Address, str, str]]) -> None:
        """Probe these addresses, each by its health path and with its Host ("": what the address is called), and no
        others. What is probed already goes on."""
        before, self._probes = self._probes, {}
        for address, path, host in targets:
            probe = before.get(address)
            if probe is not None and (probe.path, probe.host) == (path, host):
                self._probes[address] = before.pop(address)
            else:
                self._probes[address] = _Probe(self._reactor, address, path, host)
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
