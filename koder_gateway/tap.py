"""The twistd plugin: options, and the service made of them (`twistd -n koder-gateway --port ssl:443`)."""

from __future__ import annotations

import os
import resource
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
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

# Nothing slow is imported here: a signal that comes before `Options` is made ends the process.
from .ops.console import is_journal, say
from .ops.signals import ENDS, HANGUP

if TYPE_CHECKING:
    from .config import Settings
    from .workers.worker_process import WorkerProcess


class Options(UsageOptions):
    """The command line behind `koder-gateway`."""

    synopsis = (
        "[--config FILE] [--port ENDPOINT ...] [--admin-port ENDPOINT] [--redirect-port ENDPOINT ...]"
        " [--workers N|auto] [--demo]"
    )
    longdesc = (
        "A multi-tenant HTTPS gateway for Koder ID: terminates TLS, resolves the tenant, limits rates, answers CORS,"
        " routes by path and proxies. ENDPOINT is a Twisted server endpoint string, such as ssl:443 or tcp:8080."
    )
    optParameters = [
        [
            "config",
            "c",
            None,
            "configuration file (TOML); /etc/koder-gateway/koder-gateway.toml where it exists",
        ],
        ["admin-port", None, None, "endpoint for /healthz, /readyz and /metrics; never a public one"],
        ["workers", "w", None, "how many processes serve; auto: one for each processor that may be used"],
    ]
    optFlags = [["demo", None, "serve five stand-in services and print three curl lines to try"]]

    def __init__(self) -> None:
        HANGUP.hold()
        super().__init__()
        self["ports"] = []
        self["redirect-ports"] = []

    def opt_port(self, endpoint: str) -> None:
        """endpoint to serve clients on; may be given more than once"""
        self["ports"].append(endpoint)

    opt_p = opt_port

    def opt_version(self) -> None:
        """display the gateway's version and exit"""
        from .version import VERSION

        print(f"koder-gateway {VERSION}")
        raise SystemExit(0)

    def opt_redirect_port(self, endpoint: str) -> None:
        """plain endpoint that redirects to https and shows ACME challenges; may be given more than once"""
        self["redirect-ports"].append(endpoint)

    def postOptions(self) -> None:
        """Check what can be checked before the configuration is read."""
        from .ops.journal import JOURNAL
        from .ops.pidfile import prepare_pidfile

        if self["demo"] and self["config"] is not None:
            raise UsageError("--demo brings its own configuration; leave --config out")
        if self["workers"] is not None:
            self["workers"] = _workers(self["workers"])
            if self["demo"]:
                raise UsageError("--demo is one process with its services; leave --workers out")
        # twistd's own options; twist, and who asks for these alone, has none.
        twistd: Any = getattr(self, "parent", None)
        fault = prepare_pidfile(twistd, sys.argv[1:]) if twistd is not None and "pidfile" in twistd else None
        if fault is not None:
            fail(fault)
        if twistd is not None and is_journal(os.environ) and not _logs_elsewhere(twistd):
            twistd["logger"] = JOURNAL


def _workers(text: str) -> int:
    """The number of workers in an option. Raises UsageError."""
    from .config import parse_workers

    try:
        return parse_workers(int(text) if text.isascii() and text.isdecimal() else text)
    except ValueError as error:
        raise UsageError(f"--workers: {error}") from None


def _logs_elsewhere(twistd: Any) -> bool:
    """Whether twistd has been told where its log goes."""
    return bool(twistd.get("logger") or twistd.get("syslog") or twistd.get("logfile") not in (None, "-"))


def fail(text: str) -> None:
    """End the process for a fault that its operator can correct: its lines on stderr, exit code 1."""
    # Not sys.stderr, which twistd turns into log events.
    say("\n".join(f"koder-gateway: {line}" for line in text.splitlines()), stream=sys.__stderr__)
    raise SystemExit(1)


def makeService(options: Options) -> MultiService:
    """The daemon of a command line. Exits with one line for each fault of the configuration."""
    _raise_descriptor_limit()
    settings, process = None, None
    if not options["demo"]:
        settings = _settings(options)
        process, settings = _worker(options, settings)
    from .transports import install_by_default

    # Not before: no reactor survives the fork of the workers.
    install_by_default()
    from twisted.internet import reactor

    if settings is None:
        ports = options["ports"] or ["ssl:8443:interface=127.0.0.1"]
        return Demo(reactor, ports, options["admin-port"], options["redirect-ports"])
    daemon = Daemon(reactor, process)
    daemon.add(settings, options["ports"] or None, options["admin-port"], options["redirect-ports"] or None)
    return daemon


def _settings(options: Options) -> Settings:
    """The configuration that the command line names. Exits with one line for each fault."""
    from .checks import remaining_faults
    from .config import ConfigurationError, load

    path = None if options["config"] is None else Path(options["config"])
    try:
        return load(path)
    except ConfigurationError as error:
        ports, redirecting = options["ports"] or None, options["redirect-ports"] or None
        given = _given(ports, options["admin-port"], redirecting)
        fail("\n".join([*error.faults, *remaining_faults(path, given=given)]))
        raise


def _worker(options: Options, settings: Settings) -> tuple[WorkerProcess | None, Settings]:
    """Where several workers are asked for: the process of one, and the settings in force when it was started. The
    supervisor itself ends here. None for one that is alone."""
    count = settings.listen.workers if options["workers"] is None else options["workers"]
    if count == 1:
        return None, settings
    from .workers.launch import LaunchError, supervise

    try:
        return supervise(count, settings, options)
    except LaunchError as error:
        fail(str(error))
        raise


def _given(
    ports: list[str] | None, admin_port: str | None, redirect_ports: list[str] | None
) -> dict[str, tuple[str, ...]]:
    """The endpoints of a command line, by their key in `[listen]`."""
    texts = {"port": ports, "admin_port": admin_port and [admin_port], "redirect_port": redirect_ports}
    return {key: tuple(value) for key, value in texts.items() if value is not None}


def _raise_descriptor_limit() -> None:
    """Raise the limit of descriptors as far as the system allows: each connection needs one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


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
        from .checks import settings_faults
        from .ops.access_log import AccessLogError
        from .service.gateway import Gateway

        given = _given(ports, admin_port, redirect_ports)
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
        self._reactor.callWhenRunning(self._take_signals)
        self._reactor.callWhenRunning(memory.freeze_long_lived)

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
        signal.signal(signal.SIGUSR1, self._on_reopen)
        signal.signal(signal.SIGUSR2, self._on_renew)
        if self._worker is not None:
            self._worker.watch(self._reactor, self._end, self._reload)
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
            self._gateway.reopen_log()

    def _on_renew(self, number: int, frame: object) -> None:
        text = "SIGUSR2 starts a new generation of several workers (--workers), and there is one process; restart it"
        self._reactor.callFromThread(self.log.warn, text)

    def _reload(self) -> None:
        # The demo's gateway is made once its services are up.
        if self._gateway is not None:
            self._gateway.reload_aside()

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
        # Not sys.stdout, which twistd turns into log events.
        print("The demo is up. Try:", *lines, sep="\n  ", file=sys.__stdout__, flush=True)

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
        os._exit(1)

    def stopService(self) -> Deferred[Any]:
        """Stop the gateway, then the services behind it."""
        stopped = maybeDeferred(super().stopService)
        stopped.addCallback(lambda _: self._services.stop())
        stopped.addCallback(lambda _: self._folder.cleanup())
        return stopped
