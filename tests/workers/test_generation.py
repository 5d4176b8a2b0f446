"""A new generation beside the old one: by SIGUSR2, without a lost request."""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import socket
import subprocess
import threading
from pathlib import Path

from koder_gateway.ops.control_socket import ask_reload
from koder_gateway.workers.channel import channel_pair
from koder_gateway.workers.generation import OldWorker, OldWorkers
from tests.kit.clients import request
from tests.kit.gateways import GatewayProcess
from tests.kit.services import Origin, Peer, answer
from tests.kit.waiting import PATIENCE, until
from tests.workers.test_supervised import BOTH, READY, configured, gone, supervised, until_replaced

RENEWED = "a new generation serves, and the one before ends"
# A start is tried, and then done.
TWICE = 3 * PATIENCE


def renew(gateway: GatewayProcess, workers: int = 2) -> None:
    """Have a new generation of so many workers start, and wait until the one before has ended."""
    before, told = gateway.workers, gateway.log().count(RENEWED)
    gateway.signal(signal.SIGUSR2)
    until(lambda: gateway.log().count(RENEWED) > told, "a new generation serves", TWICE)
    until(lambda: not set(before) & set(gateway.workers), "the one before has ended")
    assert len(gateway.workers) == workers


def test_the_process_and_its_ports_stay(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    with Origin() as origin, supervised(tmp_path, origin.url, ports=(*BOTH, f"unix:{path}")) as gateway:
        number = path.stat().st_ino
        for _ in range(2):
            renew(gateway)
            for tls in (False, True):
                with gateway.connect(1 if tls else 0, tls=tls) as client:
                    assert client.ask("GET", "/a").status == 200
            assert path.stat().st_ino == number
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                client.sendall(request("GET", "/a", "Connection: close"))
                assert client.makefile("rb").read().startswith(b"HTTP/1.1 200 ")
            assert gateway.metrics()[READY] == 2
    assert not path.exists()
    assert not path.with_name("gateway.sock.lock").exists()


def test_exchanges_in_flight_end_with_the_old_generation(tmp_path: Path) -> None:
    held = threading.Event()
    asked: list[bytes] = []

    def play(peer: Peer, number: int) -> None:
        while (received := peer.head()) is not None:
            asked.append(received.target)
            if received.target == b"/a/held":
                assert held.wait(PATIENCE)
            peer.send(answer(received.target))

    with Origin(play) as origin, supervised(tmp_path, origin.url) as gateway, gateway.connect() as client:
        before = gateway.workers
        client.send(request("GET", "/a/held"))
        until(lambda: asked, "it is in flight")
        gateway.signal(signal.SIGUSR2)
        until(lambda: RENEWED in gateway.log(), "a new generation serves", TWICE)
        with gateway.connect() as other:
            assert other.ask("GET", "/a/new").status == 200
        # The other request may still be in flight there too.
        until(lambda: re.search("draining: [12] exchanges in flight", gateway.log()), "the old one drains")
        assert any(not gone(pid) for pid in before)
        held.set()
        seen = client.read()
        assert (seen.status, seen.get("connection")) == (200, "close")
        until(lambda: all(gone(pid) for pid in before), "the one before has ended")


def test_a_generation_that_could_not_start_changes_nothing(tmp_path: Path) -> None:
    with Origin() as origin, supervised(tmp_path, origin.url) as gateway:
        before = gateway.workers
        good = gateway.config.read_text()
        gateway.config.write_text(good.replace("[log]", "[logs]"))
        gateway.signal(signal.SIGUSR2)
        until(lambda: "no new generation: it could not start" in gateway.log(), "it is said")
        assert "koder-gateway.toml: logs: " in gateway.log()
        with gateway.connect() as client:
            assert client.ask("GET", "/a").status == 200
        assert gateway.workers == before
        gateway.config.write_text(good)
        renew(gateway)


def test_a_sigusr2_during_a_try_that_fails_is_tried_too(tmp_path: Path) -> None:
    with Origin() as origin, supervised(tmp_path, origin.url) as gateway:
        good = gateway.config.read_text()
        gateway.config.unlink()
        os.mkfifo(gateway.config)
        gateway.signal(signal.SIGUSR2)
        # It is opened for reading by the process that tries.
        with gateway.config.open("w") as pipe:
            gateway.signal(signal.SIGUSR2)
            gateway.config.unlink()
            gateway.config.write_text(good)
            pipe.write("[nonsense")
        until(lambda: "no new generation: it could not start, for the reasons above" in gateway.log(), "it is said")
        until(lambda: RENEWED in gateway.log(), "the second one is tried", TWICE)


def test_a_try_that_hangs_ends_with_the_gateway(tmp_path: Path) -> None:
    with Origin() as origin, supervised(tmp_path, origin.url) as gateway:
        workers = gateway.workers
        gateway.config.unlink()
        os.mkfifo(gateway.config)
        gateway.signal(signal.SIGUSR2)
        until(lambda: set(gateway.workers) - set(workers), "it is tried, and waits for the file")
        (trying,) = set(gateway.workers) - set(workers)
        with gateway.connect() as client:
            assert client.ask("GET", "/a").status == 200
        assert gateway.stop() == 0
        assert gone(trying)


def test_workers_lowered_to_one_and_raised_again(tmp_path: Path) -> None:
    """One worker of a new generation has a supervisor too: the process that was started stays."""
    with Origin() as origin, supervised(tmp_path, origin.url) as gateway:
        pid = gateway.pid
        for workers in (1, 3):
            gateway.config.write_text(configured(origin.url, listen={"workers": workers}))
            renew(gateway, workers)
            assert gateway.metrics()[READY] == workers
            with gateway.connect() as client:
                assert client.ask("GET", "/a").status == 200
        assert gateway.pid == pid


def test_a_process_that_is_alone_says_that_it_has_no_generations(tmp_path: Path) -> None:
    """Also where the file has been changed to several workers: it has no supervisor that could start them."""
    with Origin() as origin, GatewayProcess(tmp_path, configured(origin.url, listen={"workers": 1})) as gateway:
        gateway.config.write_text(configured(origin.url))
        gateway.signal(signal.SIGUSR2)
        until(lambda: "SIGUSR2 is for the supervisor of several workers; restart instead" in gateway.log(), "it says")
        with gateway.connect() as client:
            assert client.ask("GET", "/a").status == 200


def test_a_generation_has_the_new_configuration(tmp_path: Path) -> None:
    """Also what a reload cannot change."""
    with contextlib.ExitStack() as origins:
        old = origins.enter_context(Origin())
        new = origins.enter_context(Origin(lambda peer, number: peer.serve(b"new")))
        with supervised(tmp_path, old.url) as gateway:
            gateway.config.write_text(configured(new.url, listen={"workers": 3}))
            gateway.signal(signal.SIGUSR2)
            until(lambda: RENEWED in gateway.log(), "a new generation serves", TWICE)
            until(lambda: gateway.metrics()["koder_gateway_workers"] == 3, "the admin port is the new one's")
            with gateway.connect() as client:
                assert client.ask("GET", "/a").body == b"/a new"


def test_signals_during_the_change_are_not_lost(tmp_path: Path) -> None:
    with Origin() as origin, supervised(tmp_path, origin.url) as gateway:
        before = gateway.workers
        gateway.signal(signal.SIGUSR2)
        gateway.signal(signal.SIGHUP)
        gateway.signal(signal.SIGUSR2)
        until(lambda: gateway.log().count(RENEWED) >= 1, "a new generation serves", TWICE)
        until(lambda: "reloaded by all workers" in gateway.log(), "the reload is done")
        until(lambda: all(gone(pid) for pid in before), "the first have ended")
        pid = gateway.workers[-1]
        # The second change may end it before.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        until_replaced(gateway, pid)


def test_who_waits_for_a_verdict_is_told_by_the_new_generation(tmp_path: Path) -> None:
    told: list[object] = []
    with Origin() as origin, supervised(tmp_path, origin.url) as gateway:
        stopped = gateway.workers[0]
        os.kill(stopped, signal.SIGSTOP)
        try:
            gateway.signal(signal.SIGUSR2)
            asking = threading.Thread(target=lambda: told.append(ask_reload(gateway.pid)))
            asking.start()
            until(lambda: RENEWED in gateway.log(), "a new generation serves", TWICE)
            asking.join(PATIENCE)
            assert told == [None]
        finally:
            os.kill(stopped, signal.SIGCONT)


def test_a_second_sigusr2_during_the_change_makes_another_one(tmp_path: Path) -> None:
    with Origin() as origin, supervised(tmp_path, origin.url) as gateway:
        gateway.signal(signal.SIGUSR2)
        until(lambda: len(gateway.workers) == 3, "the next generation is tried")
        gateway.signal(signal.SIGUSR2)
        until(lambda: gateway.log().count(RENEWED) == 2, "both are done", 2 * TWICE)


def test_old_workers_that_hang_are_killed_when_their_time_is_up() -> None:
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    ours, theirs = channel_pair()
    old = OldWorkers([OldWorker(child.pid, ours)])
    assert old.due == math.inf
    old.end("leave", 40.0)
    assert old.due == 40.0
    child.send_signal(signal.SIGSTOP)
    old.kill()
    assert child.wait(PATIENCE) == -signal.SIGKILL
    assert old.due == math.inf, "once is enough"
    assert old.ended(child.pid)
    assert not old
    theirs.close()
    assert child.stdin is not None
    child.stdin.close()
