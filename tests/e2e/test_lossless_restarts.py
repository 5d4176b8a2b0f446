"""Restarts, reloads and new generations under load: no request is lost.

The test stands in for systemd: it holds the listening socket and hears the notices. Clients ask on kept connections,
500 requests a second together where the machine can do it, and obey `Connection: close`. A request is lost if its
answer is not 200 and complete, whatever the reason.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.clients import Client
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.services import Origin, Peer, answer
from tests.kit.waiting import PATIENCE, until

CLIENTS = 10
# Seconds between two requests of a client.
PACE = CLIENTS / 500
ALONE: dict[str, dict[str, Any]] = {}
WORKERS: dict[str, dict[str, Any]] = {"listen": {"workers": 2}, "limits_store": {"url": "memory:"}}


def in_two_parts(peer: Peer, number: int) -> None:
    """A service whose responses begin before their bodies are there."""
    while (received := peer.head()) is not None:
        peer.body(received)
        head, end, body = answer(received.target + b" fresh").partition(b"\r\n\r\n")
        peer.send(head + end)
        time.sleep(0.005)
        peer.send(body)


class Load:
    """Clients that ask until they are stopped; `connect` makes a connection."""

    def __init__(self, connect: Callable[[], Client]) -> None:
        self._connect = connect
        self._enough = threading.Event()
        self.answered = 0
        self.closed = 0
        self.lost: list[str] = []
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        self.more()
        return self

    def __exit__(self, *error: object) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in self._threads)

    def more(self, count: int = 200) -> None:
        """Wait until so many more requests have been answered."""
        before = self.answered
        until(lambda: self.answered >= before + count or self.lost, "requests are answered")

    def _ask(self, number: int) -> None:
        client: Client | None = None
        turn = 0
        while not self._enough.wait(PACE):
            turn += 1
            target = f"/a/{number}/{turn}"
            try:
                if client is None:
                    client = self._connect()
                seen = client.ask("GET", target)
            except OSError as error:
                self.lost.append(f"{target}: {error}")
                client = None
                continue
            if (seen.status, seen.body, seen.ended) != (200, f"{target} fresh".encode(), "complete"):
                self.lost.append(f"{target}: {seen.status} {seen.ended}")
            self.answered += 1
            if seen.get("connection") == "close":
                self.closed += 1
                client.close()
                client = None
        if client is not None:
            client.close()


@contextlib.contextmanager
def systemd(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A listening socket, and the socket that gets notices."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=1024) as listening,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices,
    ):
        notices.bind(str(folder / "notify"))
        notices.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", str(folder / "notify"))
        yield listening, notices


def until_told(notices: socket.socket, what: bytes) -> None:
    """Wait for a notice."""
    while what not in notices.recv(4096).split(b"\n"):
        pass


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("sections", [ALONE, WORKERS], ids=["alone", "workers"])
def test_a_restart_with_systemds_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sections: dict[str, dict[str, Any]], tls: bool
) -> None:
    with Origin(in_two_parts) as origin, systemd(tmp_path, monkeypatch) as (held, told):
        config = configuration({"a": origin.url}, sections)
        kind = "tls+systemd" if tls else "systemd"

        def start() -> GatewayProcess:
            made = GatewayProcess(tmp_path, config, ports=(f"{kind}:domain=INET:name=https",), inherited=held)
            until_told(told, b"READY=1")
            return made

        gateway = start()
        try:
            door, context = held.getsockname()[1], gateway.trust()
            with Load(lambda: Client.connect(door, secure=tls, context=context if tls else None)) as load:
                for _ in range(2):
                    assert gateway.stop() == 0
                    gateway.assert_sound()
                    until_told(told, b"STOPPING=1")
                    gateway = start()
                    load.more()
            assert load.lost == []
            assert load.closed >= CLIENTS, "each has been told to go"
        finally:
            gateway.kill()


@pytest.mark.parametrize("sections", [ALONE, WORKERS], ids=["alone", "workers"])
def test_a_reload(tmp_path: Path, sections: dict[str, dict[str, Any]]) -> None:
    with (
        Origin(in_two_parts) as origin,
        Origin(in_two_parts) as other,
        GatewayProcess(tmp_path, configuration({"a": origin.url}, sections)) as gateway,
    ):
        with Load(gateway.connect) as load:
            for url in (other.url, origin.url, other.url):
                said = gateway.log().count("reloaded ")
                gateway.config.write_text(configuration({"a": url}, sections))
                gateway.signal(signal.SIGHUP)
                until(lambda said=said: gateway.log().count("reloaded ") > said, "it has reloaded")
                load.more()
        assert load.lost == []
        assert load.closed == 0
        assert other.accepted > 0


def test_a_new_generation(tmp_path: Path) -> None:
    with (
        Origin(in_two_parts) as origin,
        GatewayProcess(tmp_path, configuration({"a": origin.url}, WORKERS)) as gateway,
    ):
        with Load(gateway.connect) as load:
            for number in range(2):
                before = gateway.workers
                gateway.signal(signal.SIGUSR2)
                until(
                    lambda number=number: gateway.log().count("a new generation serves") > number,
                    "a new generation serves",
                    3 * PATIENCE,
                )
                until(lambda before=before: not set(before) & set(gateway.workers), "the one before has ended")
                load.more()
        assert load.lost == []
        assert load.closed >= CLIENTS, "each has been told to go"


def test_a_worker_that_ends_in_order(tmp_path: Path) -> None:
    with (
        Origin(in_two_parts) as origin,
        GatewayProcess(tmp_path, configuration({"a": origin.url}, WORKERS)) as gateway,
    ):
        until(lambda: len(gateway.workers) == 2, "both run")
        with Load(gateway.connect) as load:
            for pid in gateway.workers:
                os.kill(pid, signal.SIGTERM)
                until(lambda pid=pid: pid not in gateway.workers and len(gateway.workers) == 2, "it is replaced")
                load.more()
        assert load.lost == []
