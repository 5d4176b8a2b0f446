"""The start of several workers: what is done once, before they are forked."""

from __future__ import annotations

import gc
import importlib
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor

from ..config import AUTO, ConfigurationError, Settings, load, shared_store_fault
from ..listening.endpoints import Endpoints
from ..ops.event_log import FORMAT
from ..ops.notify import Notifier
from ..ops.signals import HANGUP
from ..service.frontends import protocols_of
from ..service.ports import Ports
from ..tls.ticket_contexts import TicketContexts
from ..tree.compose import compose
from ..wire.clock import CoarseClock
from .bound_ports import BoundPort, PortBinder
from .environment import carries_on
from .generation import Generation, inherited
from .seats import WorkerSeat
from .supervisor import Supervisor
from .worker_count import processors
from .worker_process import WorkerProcess

# What every worker imports: imported before the fork, the workers share it.
_SHARED: Final = ("koder_gateway.service.gateway", "koder_gateway.transports.reactor", "koder_gateway.checks")


class LaunchError(Exception):
    """Workers that cannot be started; a line for each reason says what to change."""


def supervise(count: int, settings: Settings, options: Any) -> tuple[WorkerProcess | None, Settings]:
    """Start so many workers (`AUTO`: one for each processor that may be used) and supervise them.

    Returns in each worker, with its process and the settings in force; the supervisor ends with SystemExit. If one
    worker is enough, returns None for a process that is alone; a new generation has a supervisor also then, since the
    one before had one. `options` are those of the command line, whose
    `parent` is twistd's. Raises LaunchError.
    """
    fault = shared_store_fault(
        count,
        settings.limits_store.url.text,
        written="limits_store.url" in settings.written,
        limits=bool(settings.limits),
    )
    if fault is not None:
        raise LaunchError(f"--workers {'auto' if count == AUTO else count}: {fault}")
    count = processors() if count == AUTO else count
    if count == 1 and not carries_on():
        return None, settings
    _check_twistd(getattr(options, "parent", None))
    for module in _SHARED:
        with suppress(ImportError):
            importlib.import_module(module)
    launch = _Launch(settings, options)
    gc.collect()
    gc.freeze()
    return launch.run(count)


def _check_twistd(twistd: Mapping[str, Any] | None) -> None:
    """Refuse what several processes cannot do. Raises LaunchError."""
    if "twisted.internet.reactor" in sys.modules:
        raise LaunchError(
            "--workers: a reactor runs in each worker, and is chosen there; leave --reactor out, and start"
            " the gateway with `koder-gateway run` or `twistd -n`"
        )
    if twistd is None:
        raise LaunchError("--workers: start the gateway with `koder-gateway run` or `twistd -n`")
    if not twistd.get("nodaemon"):
        raise LaunchError("--workers: the supervisor stays in the foreground; write `twistd -n`")
    if twistd.get("logfile") not in (None, "-"):
        raise LaunchError("--workers: several processes cannot rotate one --logfile; redirect the output instead")


class _Launch:
    """What the supervisor keeps: the ports, and the settings that the next worker gets."""

    def __init__(self, settings: Settings, options: Any) -> None:
        before = inherited()
        self._take(settings)
        self._tickets = TicketContexts(time.monotonic())
        self._ports = _bound(settings, options, self._tickets, before)
        if before.rehearsal:
            raise SystemExit(0)
        self._before = before
        self._twistd = options.parent
        self._pidfile = Path(self._twistd["pidfile"]) if self._twistd.get("pidfile") else None
        # Each process would write it.
        self._twistd["pidfile"] = ""

    def run(self, count: int) -> tuple[WorkerProcess | None, Settings]:
        supervisor = Supervisor(
            count, Notifier(), self._reload, lambda: self._settings.timeouts, self._ports, self._before
        )
        if self._pidfile is not None:
            self._pidfile.write_text(str(os.getpid()))
        hangup, HANGUP.came = HANGUP.came, False
        result = supervisor.run(hangup)
        if isinstance(result, WorkerSeat):
            _adjust_environment()
            return WorkerProcess(result, self._ports, self._tickets), self._settings
        if self._pidfile is not None:
            with suppress(OSError):
                self._pidfile.unlink()
        raise SystemExit(result)

    def _reload(self) -> list[str]:
        """Read the configuration again; the reasons why it is refused."""
        before = self._settings
        if before.source is None:
            return []
        try:
            settings = load(before.source)
            compose(settings, settings.registered, reactor=MemoryReactor(), clock=CoarseClock())
        except ConfigurationError as error:
            return list(error.faults)
        except (OSError, ValueError) as error:
            return [f"{before.source}: {line}" for line in str(error).splitlines()]
        self._take(settings)
        return []

    def _take(self, settings: Settings) -> None:
        """Put settings into force, those of the supervisor's own lines too."""
        self._settings = settings
        FORMAT.follow(format=settings.log.format, level=settings.log.level)


def _bound(settings: Settings, options: Any, tickets: TicketContexts, before: Generation) -> list[BoundPort]:
    """Every port of the gateway, bound, and the contexts that TLS on it begins with, in `tickets`; those of the
    generation `before` are used again. Raises LaunchError if one cannot be."""
    binder: Any = PortBinder(before.ports)
    listen, tls = settings.listen, settings.tls
    admin = listen.admin_port if options["admin-port"] is None else options["admin-port"]
    # The certificates are read here too: what is wrong with them is reported once. Warnings are the workers'.
    endpoints = Endpoints(
        binder,
        tls,
        settings.state.dir,
        settings.tenants.base_domain,
        warned=lambda lines: None,
        protocols=protocols_of(settings),
        tickets=tickets,
    )
    ports = Ports(
        binder,
        endpoints,
        options["ports"] or listen.port,
        options["redirect-ports"] or listen.redirect_port,
        [admin] if admin else [],
    )
    nobody = Factory()
    faults = ports.bind(nobody, nobody, nobody)
    binder.restore_adopted()
    if faults:
        raise LaunchError("\n".join(faults))
    if not before.rehearsal:
        for port in binder.left:
            port.stopListening()
    bound: list[BoundPort] = binder.bound
    return bound


def _adjust_environment() -> None:
    """A worker is not the process that systemd has started, but has its sockets."""
    os.environ.pop("NOTIFY_SOCKET", None)
    if "LISTEN_PID" in os.environ:
        os.environ["LISTEN_PID"] = str(os.getpid())
