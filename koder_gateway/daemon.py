"""The daemon of the twistd plugin: the gateway as its own process, with its signals, and the demo."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

# As in `tap`, nothing slow is imported here.
from .ops.console import say
from .ops.signals import ENDS, HANGUP, REOPEN

if TYPE_CHECKING:
    from .config import Settings
    from .workers.worker_process import WorkerProcess


def fail(text: str) -> None:
    """End the process for a fault that its operator can correct: its lines on stderr, exit code 1."""
    from .ops.event_log import FORMAT

    FORMAT.drop()
    # Not sys.stderr, which twistd turns into log events.
    say("\n".join(f"koder-gateway: {line}" for line in text.splitlines()), stream=sys.__stderr__)
    raise SystemExit(1)


def given_endpoints(
    ports: list[str] | None, admin_port: str | None, redirect_ports: list[str] | None
) -> dict[str, tuple[str, ...]]:
    """The endpoints of a command line, by their key in `[listen]`."""
    texts = {"port": ports, "admin_port": admin_port and [admin_port], "redirect_port": redirect_ports}
    return {key: tuple(value) for key, value in texts.items() if value is not None}


class Daemon(MultiService):
    """The gateway as its own process: signals, and faults that end the start with exit code 1."""

    log = Logger()

    def __init__(self, reactor: Any, process: WorkerProcess | None = None) -> None:
        """`process` is one of several workers, None for one that is alone."""
        super().__init__()
        self._reactor = reactor
        self._worker = process
        self._control: Any = None
        self._reader: Any = None
        self._gateway: Any = None
        self._ending = False

    def add(
        self,
        settings: Settings,
        ports: list[str] | None,
        admin_port: str | None,
        redirect_ports: list[str] | None = None,
        *,
        local_hosts: bool = False,
    ) -> Any:
        """Make the gateway of a configuration."""
        from .ops.access_log import AccessLogError
        from .ops.event_log import FORMAT
        from .service.gateway import Gateway

        FORMAT.follow(format=settings.log.format, level=settings.log.level)
        given = given_endpoints(ports, admin_port, redirect_ports)
        try:
            self._gateway = Gateway(
                settings,
                ports=ports,
                admin_port=admin_port,
                redirect_ports=redirect_ports,
                local_hosts=local_hosts,
                reactor=self._reactor,
                process=self._worker,
            )
        except (AccessLogError, ValueError) as error:
            from .checks import settings_faults

            # The first of them; a check finds the others as well.
            faults = settings_faults(settings, [], given=given)
            known = "\n".join(faults)
            told = isinstance(error, AccessLogError) and ": log.file: " in known
            fail("\n".join([*(each for each in str(error).splitlines() if not told and each not in known), *faults]))
        self._gateway.setServiceParent(self)
        return self._gateway

    def privilegedStartService(self) -> None:
        """Bind the ports. From here on a stop must drain, although no reactor runs yet."""
        self._hold_ends()
        if self._worker is None:
            self._open_control()
        self._or_fail(super().privilegedStartService)

    def startService(self) -> None:
        """Serve, and take signals once the reactor has set its own."""
        from .ops import memory

        self._or_fail(super().startService)
        self._reactor.callWhenRunning(self._log_events)
        self._reactor.callWhenRunning(self._take_signals)
        self._reactor.callWhenRunning(memory.freeze_long_lived)

    def _log_events(self) -> None:
        """The start has not failed: what was held is written."""
        from .ops.event_log import FORMAT

        FORMAT.release()

    @staticmethod
    def _or_fail(start: Callable[[], object]) -> None:
        from .service.gateway import StartError

        try:
            start()
        except StartError as error:
            fail(str(error))

    @staticmethod
    def _hold_ends() -> None:
        for end in ENDS:
            end.hold()

    def _take_signals(self) -> None:
        # Twisted's own handler ends the process by the signal; after a drain the exit code is 0.
        for end in ENDS:
            end.release(self._on_end)
        HANGUP.release(self._on_reload)
        # With --logfile, twistd's own handler rotates that.
        REOPEN.release(self._on_reopen, beside=True)
        # By default it would end the process.
        signal.signal(signal.SIGUSR2, self._on_renew)
        if self._worker is not None:
            self._worker.watch(self._reactor, self._end, self._leave, self._reload)
        self._hear_control()

    def _open_control(self) -> None:
        """Open the socket on which others ask for reloads (`koder-gateway reload`); they are heard once it serves."""
        from .ops.control_socket import ControlSocket

        try:
            self._control = ControlSocket(self._reload)
        except OSError as error:
            self.log.warn("`koder-gateway reload` cannot ask this process: {reason}", reason=error.strerror)

    def _hear_control(self) -> None:
        from .reactor.descriptor_reader import DescriptorReader

        control = self._control
        if control is not None and self._gateway is not None:
            self._gateway.process.control = control
            self._reader = DescriptorReader(control.fileno(), "control", control.receive)
            self._reactor.addReader(self._reader)

    def stopService(self) -> Deferred[Any]:
        """See IService."""
        if self._reader is not None:
            self._reactor.removeReader(self._reader)
            self._gateway.process.control = None
        if self._control is not None:
            self._control.close()
        self._reader = self._control = None
        return maybeDeferred(super().stopService)

    def _on_end(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self._end)

    def _on_reload(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self._reload)

    def _on_reopen(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self._reopen)

    def _reopen(self) -> None:
        if self._gateway is not None:
            self._gateway.reopen_logs()

    def _on_renew(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(
            self.log.warn, "SIGUSR2 is for the supervisor of several workers; restart instead"
        )

    def _reload(self) -> None:
        # The demo's gateway is made once its services are up.
        if self._gateway is not None:
            self._gateway.reload_aside()

    def _leave(self) -> None:
        """The next generation serves: what the admin port shows is its, and not this one's."""
        self._gateway.close_admin()
        self._end()

    def _end(self) -> None:
        if self._ending and self._worker is not None:
            # The supervisor decides when that takes too long: systemd sends the signal to every process.
            return
        if self._ending:
            # Asked twice: do not wait for the drain.
            self._reactor.callFromThread(os._exit, 1)
            return
        self._ending = True
        self._reactor.stop()


class Demo(Daemon):
    """The gateway before five stand-in services in this process."""

    def __init__(
        self, reactor: Any, ports: list[str], admin_port: str | None, redirect_ports: list[str] | None = None
    ) -> None:
        super().__init__(reactor)
        from .demo import DemoServices

        self._ports = ports
        self._demo_admin_port = admin_port
        self._redirect_ports = redirect_ports
        self._services = DemoServices(reactor)
        self._folder = tempfile.TemporaryDirectory(prefix="koder-gateway-demo-")

    def privilegedStartService(self) -> None:
        """Nothing is bound before the services are there."""
        self._hold_ends()

    def startService(self) -> None:
        """Start the services, then the gateway before them."""
        super().startService()
        started = self._services.start()
        started.addCallback(self._serve)
        started.addErrback(self._not_started)

    def _serve(self, urls: dict[str, str]) -> None:
        from .config import load
        from .demo import curl_lines, write_demo
        from .listening.endpoint_strings import expand_shorthand

        path = write_demo(Path(self._folder.name), urls)
        gateway = self._or_fail_adding(load(path))
        address = gateway.addresses[0]
        secure = expand_shorthand(self._ports[0]).removeprefix("haproxy:").startswith(("ssl:", "tls:", "tls+"))
        lines = curl_lines(address.port, secure=secure) if hasattr(address, "port") else []
        super()._log_events()
        # Not sys.stdout, which twistd turns into log events.
        print("The demo is up. Try:", *lines, sep="\n  ", file=sys.__stdout__, flush=True)

    def _log_events(self) -> None:
        """Not yet: the gateway follows its services."""

    def _or_fail_adding(self, settings: Settings) -> Any:
        """Make the gateway; as this service runs already, that starts it."""
        gateway: list[Any] = []
        ports = (self._ports, self._demo_admin_port, self._redirect_ports)
        self._or_fail(lambda: gateway.append(self.add(settings, *ports, local_hosts=True)))
        return gateway[0]

    def _not_started(self, failure: Failure) -> None:
        if failure.check(SystemExit):
            os._exit(1)
        self.log.failure("the demo did not start", failure=failure)
        super()._log_events()
        os._exit(1)

    def stopService(self) -> Deferred[Any]:
        """Stop the gateway, then the services behind it."""
        stopped = maybeDeferred(super().stopService)
        stopped.addCallback(lambda _: self._services.stop())
        stopped.addCallback(lambda _: self._folder.cleanup())
        return stopped
