"""The twistd plugin: options, and the service made of them (`twistd -n koder-gateway --port ssl:443`)."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

# Nothing slow is imported here: a signal that comes before `Options` is made ends the process.
from .daemon import Daemon, Demo, fail, given_endpoints
from .ops.signals import HANGUP, REOPEN

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
    optFlags = [["demo", None, "serve five stand-in services and print three curl lines to try"]]

    def __init__(self) -> None:
        HANGUP.hold()
        REOPEN.hold()
        super().__init__()
        self["config"] = self["admin-port"] = self["workers"] = None
        self["ports"] = []
        self["redirect-ports"] = []

    def opt_config(self, file: str) -> None:
        """configuration file (TOML); /etc/koder-gateway/koder-gateway.toml where it exists"""
        self._once("config", file)

    opt_c = opt_config

    def opt_admin_port(self, endpoint: str) -> None:
        """endpoint for /healthz, /readyz and /metrics; never a public one"""
        self._once("admin-port", endpoint)

    def opt_workers(self, count: str) -> None:
        """how many processes serve; auto: one for each processor that may be used"""
        self._once("workers", count)

    opt_w = opt_workers

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

    def _once(self, name: str, value: str) -> None:
        """Take an option that has one value: of two, each may be the one that is meant. Raises UsageError."""
        if self[name] is not None:
            raise UsageError(f"--{name} is given twice, as {self[name]} and as {value}; leave one out")
        self[name] = value

    def postOptions(self) -> None:
        """Check what can be checked before the configuration is read."""
        from .ops.event_log import EVENT_LOG, FORMAT
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
        if twistd is not None and not _logs_elsewhere(twistd):
            FORMAT.hold()
            twistd["logger"] = EVENT_LOG


def _workers(text: str) -> int:
    """The number of workers in an option. Raises UsageError."""
    from .config import parse_workers

    try:
        return parse_workers(int(text) if text.isascii() and text.isdecimal() else text)
    except ValueError as error:
        raise UsageError(f"--workers: {error}") from None


def _logs_elsewhere(twistd: Any) -> bool:
    """Whether twistd has been told where its log goes, or goes into the background, where it has its own file."""
    told = twistd.get("logger") or twistd.get("syslog") or twistd.get("logfile") not in (None, "-")
    return bool(told or not twistd.get("nodaemon"))


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
    from .config import ConfigurationError, load

    path = None if options["config"] is None else Path(options["config"])
    try:
        return load(path)
    except ConfigurationError as error:
        # Here, and in `Daemon.add`: a daemon that starts would keep it, and what it needs, for nothing.
        from .checks import remaining_faults

        ports, redirecting = options["ports"] or None, options["redirect-ports"] or None
        given = given_endpoints(ports, options["admin-port"], redirecting)
        fail("\n".join([*error.faults, *remaining_faults(path, given=given)]))
        raise


def _worker(options: Options, settings: Settings) -> tuple[WorkerProcess | None, Settings]:
    """Where several workers are asked for: the process of one, and the settings in force when it was started. The
    supervisor itself ends here. None for one that is alone, which is never a new generation of several."""
    from .workers.environment import carries_on

    count = settings.listen.workers if options["workers"] is None else options["workers"]
    if count == 1 and not carries_on():
        return None, settings
    from .workers.launch import LaunchError, supervise

    try:
        return supervise(count, settings, options)
    except LaunchError as error:
        fail(str(error))
        raise


def _raise_descriptor_limit() -> None:
    """Raise the limit of descriptors as far as the system allows: each connection needs one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
