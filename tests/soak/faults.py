"""What goes wrong around the gateway during a soak, one after the other. Each fault is seen to happen, and to be
over, before the next one; only those that must cost some exchange open a window."""

from __future__ import annotations

import os
import re
import resource
import signal
import ssl
from collections.abc import Callable
from pathlib import Path

from tests.soak.honest import GUEST
from tests.soak.leftovers import links, served_by
from tests.soak.load import KINDS
from tests.soak.patience import until
from tests.soak.stage import Stage
from tests.soak.wire import new_token

# What a client gets of a service that has gone.
_GONE = ("upstream_unreachable", "upstream_closed", "upstream_timeout", "overloaded", "cut")
# Descriptors that a process has left when they run short, and when there are almost none.
_SOME = 96
_FEW = 4
_FRESH = 8


def calm(stage: Stage, count: int) -> None:
    """Wait until clients of each kind have had so many more right answers, or something has failed."""
    before = {kind: stage.ledger.right[kind] for kind in KINDS}
    until(
        lambda: stage.ledger.failed or all(stage.ledger.right[kind] >= before[kind] + count for kind in KINDS),
        f"clients of each kind are served again: {dict(stage.ledger.right)} after {before}",
    )


def _seen(stage: Stage, fault: str) -> int:
    return sum(count for name, count in stage.ledger.excused.items() if name.startswith(f"{fault}: "))


def service_dies(stage: Stage) -> None:
    """A service is killed, and is back after clients have seen that."""
    fault = "service killed"
    service, before = stage.services["a"], _seen(stage, fault)
    with stage.ledger.window(fault, *_GONE, service="a"):
        service.kill()
        until(lambda: _seen(stage, fault) > before, "clients see that the service has gone")
        service.start()
        until(stage.available("a"), "the service is used again")


def service_hangs(stage: Stage) -> None:
    """A service stands still for a while. Requests wait; where there are too many, some are refused."""
    name = 'koder_gateway_upstream_connections{service="a",state="active"}'
    with stage.ledger.window("service hangs", "overloaded", service="a"):
        stage.services["a"].hang()
        try:
            until(lambda: stage.gateway.metrics()[name] >= 5, "requests wait for it")
        finally:
            stage.services["a"].go_on()
        until(lambda: stage.serves("a"), "the service goes on")


def certificate_rotates(stage: Stage) -> None:
    """A new certificate is in place, and new connections get it."""
    before = _serial(stage)
    stage.rotate()
    assert stage.reload() is None
    until(lambda: before not in {_serial(stage) for _ in range(_FRESH)}, "the new certificate is served")


def _serial(stage: Stage) -> str:
    return ssl.get_server_certificate(("127.0.0.1", stage.gateway.ports[1]))


def registry_changes(stage: Stage) -> None:
    """Tenants come and go, and one is suspended for a while: what it has open then is cut."""
    with stage.ledger.window("tenant suspended", "tenant_suspended", "cut", tenant=GUEST):
        stage.tenants(*(f"t{new_token()}" for _ in range(500)), guest="suspended")
        assert stage.reload() is None
        codes = {stage.ask("b", GUEST)[1].code for _ in range(_FRESH)}
        assert codes == {"tenant_suspended"}, codes
        stage.tenants()
        assert stage.reload() is None
    codes = {stage.ask("b", GUEST)[1].code for _ in range(_FRESH)}
    assert codes == {""}, codes


def configuration_reloads(stage: Stage) -> None:
    """A service is configured differently, a faulty file is refused, and all is as before."""
    assert stage.configure(stage.configuration(900)) is None
    calm(stage, 1)
    refused = stage.configure(stage.configuration() + "[nonsense]\n")
    assert refused is not None, "a faulty file was taken up"
    assert "nonsense" in refused.lines[0], refused
    assert stage.configure(stage.configuration()) is None


def worker_dies(stage: Stage) -> None:
    """The youngest worker is killed, and another one takes its place."""
    if stage.workers == 1:
        return
    killed = stage.gateway.workers[-1]
    with stage.ledger.window("worker killed", "cut"):
        os.kill(killed, signal.SIGKILL)
        until(lambda: killed not in stage.gateway.workers and stage.settled(), "it is replaced")


def redis_dies(stage: Stage) -> None:
    """The store of limits is killed and comes back empty: each process decides alone meanwhile."""
    stage.redis.kill()
    until(lambda: stage.gateway.metrics()["koder_gateway_limits_store_up"] == 0, "it is missed")
    calm(stage, 1)
    stage.redis.start()
    until(stage.settled, "limits are shared again")


def redis_hangs(stage: Stage) -> None:
    """The same, with a store that accepts questions and never answers."""
    stage.redis.hang()
    try:
        until(lambda: stage.gateway.metrics()["koder_gateway_limits_store_up"] == 0, "it is missed")
        calm(stage, 1)
    finally:
        stage.redis.go_on()
    until(stage.settled, "limits are shared again")


def descriptors_run_out(stage: Stage) -> None:
    """Every process has a few descriptors left, until one says that it accepts nobody.

    The limit comes down in two steps: a process learns of it when it accepts, and then accepts with care.
    """
    pids = served_by(stage.gateway)
    before = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids}
    told = _shortages(stage)
    try:
        # Before a process has learned of it, it may accept a connection that it then has to drop.
        with stage.ledger.window("descriptors run out", "overloaded", "cut"):
            for pid in pids:
                _leave(pid, _SOME)
            until(lambda: not any(_lent(stage, pid) for pid in pids), "every process accepts with care")
            for pid in pids:
                _leave(pid, _FEW)
            until(lambda: _shortages(stage) > told, "a process has no descriptors")
            _restore(before)
            until(lambda: stage.serves("a"), "they accept again")
    finally:
        _restore(before)


def _leave(pid: int, count: int) -> None:
    """Let a process have so many descriptors more than it uses."""
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    least = min(set(range(len(used) + 1)) - used) + count
    _soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (least, hard))


def _restore(limits: dict[int, tuple[int, int]]) -> None:
    for pid, each in limits.items():
        resource.prlimit(pid, resource.RLIMIT_NOFILE, each)


def _lent(stage: Stage, pid: int) -> bool:
    """Whether a process has its listening sockets twice: once for the loop, which accepts without care."""
    local = {f"0100007F:{port:04X}" for port in stage.gateway.ports}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {f"socket:[{row[9]}]" for row in rows if row[1] in local and row[3] == "0A"}
    return any(links(pid)[name] > 1 for name in listening)


def _shortages(stage: Stage) -> int:
    return len(re.findall(" paused: all | full: all ", Path(stage.folder / "gateway.log").read_text()))


Fault = Callable[[Stage], None]
FAULTS: tuple[Fault, ...] = (
    service_dies,
    certificate_rotates,
    registry_changes,
    worker_dies,
    redis_dies,
    configuration_reloads,
    descriptors_run_out,
    service_hangs,
    redis_hangs,
)
