"""One case: a server under attack, its processor time and memory, and what honest clients get beside it."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from flood_clients import CLIENTS, Clients, Report, serve_reports
from flood_servers import MOST, Target
from flood_swarm import Attack, Swarm, Tally
from servers import Cores

_forking = multiprocessing.get_context("fork")
# How often memory is looked at, in seconds.
_SAMPLE = 0.02
# Seconds without attackers at least: the kernel counts processor time in hundredths of a second.
_QUIET = 2.0
# Seconds that honest clients have before anything is measured, and the server after attackers have left.
_WARM = 0.4
_AFTER = 1.0
# Ordinary requests are measured by so many clients, for so many seconds.
_ORDINARY_CLIENTS = 12
_ORDINARY = 1.0


@dataclass
class Phase:
    """The server under so many attackers. Times in seconds, sizes in bytes.

    `cost` is the processor time of an attacker's request, `byte_cost` that of a byte, None when there were none.
    `memory` is the most that the process grew by, `left` what of it was still there a second after they had gone.
    """

    attackers: int
    requests: float
    bytes: int
    connections: int
    failures: int
    closed: int
    busy: float
    cost: float | None
    byte_cost: float | None
    memory: int
    left: int
    p50: float
    p99: float
    answers: int
    failed: int
    killed: bool = False


@dataclass
class Round:
    """One server's part of a round. `served`: processor time of an ordinary request over HTTP/1.1 and TLS,
    `alike` that of one with the answer that attackers ask for, `connected` that of a TLS connection without one.
    `quiet`: p99 of honest clients when nobody attacks, `honest`: processor time for each of their requests then, with
    all that the server does by itself meanwhile."""

    served: float
    alike: float
    connected: float
    quiet: float = 0.0
    honest: float = 0.0
    phases: list[Phase] = field(default_factory=list)


def addresses(count: int, network: int) -> list[str]:
    """So many loopback addresses that nothing has come from so far, most probably."""
    return [f"127.{network}.{random.randrange(256)}.{random.randrange(1, 255)}" for _ in range(count)]


@contextmanager
def _child(target: Callable[..., None], *arguments: object, cores: Cores) -> Iterator[Connection]:
    """`target` in a process on the load's cores, and a pipe to it; None through that ends it."""
    ours, theirs = _forking.Pipe()

    def body() -> None:
        ours.close()
        os.sched_setaffinity(0, {int(core) for core in cores.load.split(",")})
        target(*arguments, theirs)

    process = _forking.Process(target=body, daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        with suppress(OSError):
            ours.send(None)
        process.join(10)
        if process.is_alive():
            process.kill()
            process.join()
        ours.close()


def _be_honest(port: int, tunnels: bool, control: Connection) -> None:
    serve_reports(Clients(port, addresses(CLIENTS, 1), tunnels=tunnels, interval=0.5 if tunnels else 0.05), control)


def _be_ordinary(port: int, secure: bool, seconds: float, answer: str, control: Connection) -> None:
    clients = Clients(port, addresses(_ORDINARY_CLIENTS, 4), interval=0, secure=secure, answer=answer)
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        clients.turn()
    clients.take()
    control.send(None)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        clients.turn()
    control.send(clients.take())
    clients.close()


def _attack(attack: Attack, port: int, size: int, source: str, seconds: float, control: Connection) -> None:
    os.nice(3)
    end = time.monotonic() + seconds
    control.send(Swarm(attack, port, size, source).run(lambda: time.monotonic() > end))


def ordinary(target: Target, cores: Cores, answer: str = "") -> float:
    """Processor seconds of an ordinary served request over TLS, with a small answer or this one."""
    with _child(_be_ordinary, target.tls_port, True, _ORDINARY, answer, cores=cores) as control:
        control.recv()
        before = target.cpu_seconds
        report: Report = control.recv()
        return (target.cpu_seconds - before) / max(1, report.answers)


CONNECTS = Attack("connects", "", "tls", lambda: iter(()), 0, reconnect=0.0, handshakes=True)


def connected(target: Target, cores: Cores) -> float:
    """Processor seconds of a TLS connection on which nothing is asked."""
    before = target.cpu_seconds
    with _child(_attack, CONNECTS, target.tls_port, 4, addresses(1, 5)[0], 0.5, cores=cores) as control:
        tally: Tally = control.recv()
        return (target.cpu_seconds - before) / max(1, tally.connections)


def _watched(target: Target, control: Connection, patience: float) -> tuple[Any, int, bool]:
    """What comes by the pipe, the most memory that the server had meanwhile, and whether it had to be killed."""
    most, end = 0, time.monotonic() + patience
    while not control.poll(_SAMPLE):
        memory = target.memory
        most = max(most, memory)
        if memory > MOST and target.alive:
            target.kill()
            return None, most, True
        if time.monotonic() > end or not target.alive:
            return None, most, not target.alive
    return control.recv(), max(most, target.memory), False


def flood(
    target: Target, attack: Attack, size: int, honest: Connection, cores: Cores, seconds: float, known: Round
) -> Phase:
    """Attack by so many connections."""
    honest.send("take")
    honest.recv()
    port = target.plain_port if attack.transport == "plain" else target.tls_port
    source = addresses(1, 3 if attack.trusted else 2)[0]
    if attack.trusted:
        source = f"127.0.3.{random.randrange(1, 255)}"
    memory, used, began = target.memory, target.cpu_seconds, time.monotonic()
    with _child(_attack, attack, port, size, source, seconds, cores=cores) as control:
        tally, most, killed = _watched(target, control, seconds + 20)
        tally = tally or Tally()
        if not killed:
            spent, took = target.cpu_seconds - used, time.monotonic() - began
    if killed:
        return Phase(size, 0, 0, 0, 0, 0, 1, None, None, most - memory, 0, float("inf"), float("inf"), 0, 0, True)
    honest.send("take")
    report: Report
    report, later, killed = _watched(target, honest, 40)
    report = report or Report(failed=1)
    time.sleep(_AFTER)
    # Not `known.served`: each request of a few clients wakes the server, which costs twice as much as one of many at
    # full speed. Where attackers have few requests, that difference would be most of what these seem to cost.
    quiet = report.answers * known.honest
    if not attack.handshakes and attack.transport in ("tls", "h2"):
        quiet += tally.connections * known.connected
    of_attack = max(0.0, spent - quiet)
    requests = _requests(attack, tally)
    return Phase(
        attackers=size,
        requests=requests,
        bytes=tally.taken,
        connections=tally.connections,
        failures=tally.failures,
        closed=tally.closed,
        busy=spent / took,
        cost=of_attack / requests if requests >= 1 else None,
        byte_cost=of_attack / tally.taken if tally.taken else None,
        memory=max(most, later) - memory,
        left=target.memory - memory,
        p50=report.percentile(0.5),
        p99=report.percentile(0.99),
        answers=report.answers,
        failed=report.failed,
        killed=killed,
    )


def _requests(attack: Attack, tally: Tally) -> float:
    if attack.counted:
        # What makes the server close the connection was one as well.
        return max(tally.answers, tally.closed)
    if not attack.unit:
        return tally.connections
    return max(0, tally.taken - attack.begin * tally.connections) / attack.unit


def measure(target: Target, attack: Attack, sizes: list[int], cores: Cores, seconds: float) -> Round:
    """The whole case on a server that has just been started."""
    served = ordinary(target, cores)
    alike = ordinary(target, cores, attack.answer) if attack.answer else served
    known = Round(served, alike, connected(target, cores))
    with _child(_be_honest, target.tls_port, attack.honest == "tunnels", cores=cores) as honest:
        time.sleep(_WARM)
        honest.send("take")
        honest.recv()
        used = target.cpu_seconds
        time.sleep(max(_QUIET, seconds))
        honest.send("take")
        report: Report = honest.recv()
        known.quiet = report.percentile(0.99)
        known.honest = (target.cpu_seconds - used) / max(1, report.answers)
        for size in sizes:
            phase = flood(target, attack, size, honest, cores, max(seconds, attack.seconds), known)
            known.phases.append(phase)
            if phase.killed:
                break
    return known
