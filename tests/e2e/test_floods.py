"""Each attack of `make bench-floods` in a short form: three attackers over sockets, and what others get meanwhile.

How long anybody waits is the benchmark's to say. Here another client has to be served while the attack goes on, the
gateway must hold little for the attackers, and outlive them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from flood_cases import cases
from flood_clients import Clients
from flood_errands import MESSAGES_ERRAND
from flood_marks import MEMORY, MEMORY_HTTP2
from flood_measuring import addresses
from flood_servers import TENANTS, configuration
from flood_service import Service
from flood_swarm import Attack, Swarm

from tests.kit.gateways import GatewayProcess
from tests.kit.waiting import PATIENCE

ATTACKERS = 3
# Of the service of honest clients: attackers could hold them all, with a hundred streams each.
CONNECTIONS = 64
# What others have to be answered while the attack goes on.
ANSWERS = 20
# An attack goes on until the gateway has taken so much of it or takes nothing more for a moment, but not for long.
TAKEN = 1 << 19
TAKEN_UNREAD = 1 << 21
_MOMENT = 0.12
_MOMENT_HELD = 0.8
_LONG = 0.2
_LONG_UNREAD = _LONG_HELD = 1.5
# What the process may grow by whatever happens.
_OWN = 8 << 20


def _attacks() -> list[Attack]:
    """Every attack, by TLS where it goes over both."""
    attacks = [case for case in cases() if isinstance(case, Attack)]
    over_tls = {attack.name for attack in attacks if attack.transport == "tls"}
    return [attack for attack in attacks if attack.transport != "plain" or attack.name not in over_tls]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway with the shipped limits, before a service for honest clients and one for attackers."""
    folder: Path = tmp_path_factory.mktemp("flooded")
    (folder / "tenants.toml").write_text(TENANTS)
    with ExitStack() as stack:
        services = Service(), Service()
        for service in services:
            thread = threading.Thread(target=service.run)
            thread.start()
            stack.callback(thread.join)
            stack.callback(service.stop)
        ports = GatewayProcess.PLAIN, GatewayProcess.TLS
        config = configuration(services[0].port, services[1].port, CONNECTIONS)
        yield stack.enter_context(GatewayProcess(folder, config, ports=ports, admin=False))


class Flood:
    """An attack that goes on in a thread until its context is left."""

    def __init__(self, attack: Attack, gateway: GatewayProcess) -> None:
        plain, secure = gateway.ports
        source = "127.0.3.9" if attack.trusted else addresses(1, 2)[0]
        holds = attack.item == "3" and attack.transport == "h2"
        self.swarm = Swarm(attack, plain if attack.transport == "plain" else secure, ATTACKERS, source)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self.swarm.run, args=(self._over.is_set,))
        self._much = TAKEN if attack.reads else TAKEN_UNREAD
        self._moment = _MOMENT_HELD if holds else _MOMENT
        self._long = _LONG_HELD if holds else _LONG if attack.reads else _LONG_UNREAD
        self._began = 0.0
        self._seen = (-1, 0.0)

    def __enter__(self) -> Flood:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def done(self) -> bool:
        """Whether it has done what it can."""
        if self.swarm.tally.connections < ATTACKERS:
            return False
        taken, now = self.swarm.taken, time.monotonic()
        self._began = self._began or now
        if taken != self._seen[0]:
            self._seen = taken, now
        return taken >= self._much or now - self._seen[1] > self._moment or now - self._began > self._long


@pytest.mark.parametrize("attack", _attacks(), ids=lambda attack: f"{attack.name}/{attack.transport}")
def test_others_are_served_and_little_is_kept(attack: Attack, gateway: GatewayProcess) -> None:
    before = gateway.memory("RssAnon")
    others = Clients(gateway.ports[-1], addresses(2, 1), interval=0.005)
    try:
        with Flood(attack, gateway) as flood:
            ends = time.monotonic() + PATIENCE
            while others.report.answers < ANSWERS or not flood.done():
                others.turn()
                assert time.monotonic() < ends, f"{others.report.answers} answers beside {flood.swarm.tally}"
            growth = gateway.memory("RssAnon") - before
    finally:
        others.close()
    assert gateway.process.poll() is None
    assert others.report.failed == 0
    bound = (MEMORY_HTTP2 if attack.transport == "h2" else MEMORY) + attack.allowance
    assert growth <= _OWN + ATTACKERS * bound


def test_small_frames_of_an_honest_client_are_no_flood(gateway: GatewayProcess) -> None:
    assert MESSAGES_ERRAND.run(gateway.ports[-1]) == MESSAGES_ERRAND.wanted
