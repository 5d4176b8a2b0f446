"""The reactor as a whole: choosing it, under twistd, as a daemon, stopping."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

from tests.kit.transports_running import Connecting, Recorder, Serving, run, running_reactor
from tests.kit.waiting import PATIENCE, until

ROOT = Path(__file__).parents[2]

APPLICATION = """
from twisted.application import service, strports
from twisted.internet.protocol import Factory
from twisted.protocols.wire import Echo
application = service.Application("echo")
strports.service("unix:" + {socket!r}, Factory.forProtocol(Echo)).setServiceParent(application)
from twisted.internet import reactor
reactor.callLater(0, lambda: open({mark!r}, "w").close())
"""


@pytest.fixture
def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def echoes(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(str(path))
        client.sendall(b"hello")
        return client.recv(5) == b"hello"


def twistd(tmp_path: Path, *options: str) -> list[str]:
    text = APPLICATION.format(socket=str(tmp_path / "socket"), mark=str(tmp_path / "mark"))
    (tmp_path / "echo.py").write_text(text)
    files = ["--pidfile", "pid", "--logfile", "log", "--python", "echo.py"]
    run = "from twisted.scripts.twistd import run; run()"
    return [sys.executable, "-c", run, "--reactor=uvloop", *options, *files]


def test_twistd_runs_on_it_and_ends_well_on_sigterm(tmp_path: Path, environment: dict[str, str]) -> None:
    process = subprocess.Popen(twistd(tmp_path, "--nodaemon"), cwd=tmp_path, env=environment)
    until((tmp_path / "mark").exists, "the reactor runs")
    assert echoes(tmp_path / "socket")
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    assert "UvloopReactor" in (tmp_path / "log").read_text()
    assert not (tmp_path / "socket").exists()


def test_twistd_becomes_a_daemon_on_it(tmp_path: Path, environment: dict[str, str]) -> None:
    subprocess.run(twistd(tmp_path), cwd=tmp_path, env=environment, check=True, timeout=PATIENCE)
    pid = int((tmp_path / "pid").read_text())
    try:
        until((tmp_path / "mark").exists, "the reactor runs")  # what was scheduled before the fork
        assert echoes(tmp_path / "socket")
    finally:
        os.kill(pid, signal.SIGTERM)
    until(lambda: not (tmp_path / "pid").exists(), "it has ended")
    log = (tmp_path / "log").read_text()
    assert "UvloopReactor" in log
    assert "Traceback" not in log


def reactor_after(code: str, environment: dict[str, str]) -> str:
    code += "\nfrom twisted.internet import reactor\nprint(type(reactor).__name__)"
    finished = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    return finished.stdout.strip()


def test_it_is_the_default_where_nobody_chose(environment: dict[str, str]) -> None:
    code = "from koder_gateway.transports import install_by_default\nassert install_by_default()"
    assert reactor_after(code, environment) == "UvloopReactor"


def test_a_reactor_that_somebody_chose_stays(environment: dict[str, str]) -> None:
    code = """
from twisted.internet import selectreactor
selectreactor.install()
from koder_gateway.transports import install_by_default
assert not install_by_default()
"""
    assert reactor_after(code, environment) == "SelectReactor"


def test_without_uvloop_twisted_keeps_its_own(environment: dict[str, str]) -> None:
    code = """
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "uvloop":
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, Missing())
from koder_gateway.transports import available, install_by_default
assert not available() and not install_by_default()
"""
    assert reactor_after(code, environment) != "UvloopReactor"


def test_stopping_tells_every_connection_and_closes_every_port() -> None:
    server, client = Recorder(), Recorder()
    ports = []

    with running_reactor() as reactor:

        async def scenario() -> None:
            ports.append(reactor.listenTCP(0, Serving(server), interface="127.0.0.1"))
            reactor.connectTCP("127.0.0.1", ports[0].getHost().port, Connecting(client))
            await client.made
            await server.made
            reactor.disconnectAll()
            for one in (server, client):
                assert (await one.lost).kind is ConnectionLost

        run(reactor, scenario())
        assert ports[0].factory.stopped == 1
        assert not reactor.streams


def test_after_a_fork_everything_moves_to_a_new_event_loop() -> None:
    with running_reactor() as reactor:
        before = reactor.loop
        called: Deferred[None] = Deferred()
        reactor.callLater(0, called.callback, None)
        reader, writer = socket.socketpair()
        watched = Watched(reader)
        reactor.addReader(watched)
        reactor.beforeDaemonize()
        reactor.afterDaemonize()
        assert before.is_closed()

        async def scenario() -> None:
            await called
            writer.sendall(b"x")
            await watched.ready

        run(reactor, scenario())
        reactor.removeReader(watched)
        for end in (reader, writer):
            end.close()


@implementer(IReadDescriptor)
class Watched:
    """A descriptor that the reactor watches until it can be read."""

    def __init__(self, reader: socket.socket) -> None:
        self.fileno = reader.fileno
        self.reader = reader
        self.ready: Deferred[None] = Deferred()

    def doRead(self) -> None:
        self.reader.recv(1)
        self.ready.callback(None)

    def connectionLost(self, reason: Any) -> None:
        raise AssertionError("never lost")

    def logPrefix(self) -> str:
        return "watched"
