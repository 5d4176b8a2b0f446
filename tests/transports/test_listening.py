"""Ports of the uvloop reactor: accepting, stopping, adopting, and being out of descriptors."""

from __future__ import annotations

import os
import resource
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, islice, pairwise
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ConnectionRefusedError, UnsupportedAddressFamily
from twisted.internet.task import deferLater
from twisted.logger import formatEvent, globalLogPublisher

from koder_gateway.transports import listening
from koder_gateway.transports.reactor import UvloopReactor
from tests.kit.transports_running import Connecting, Recorder, Serving, connected, run, running_reactor


@pytest.fixture
def reactor() -> Iterator[UvloopReactor]:
    with running_reactor() as reactor:
        yield reactor


@contextmanager
def descriptor_limit(limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def next_descriptor() -> int:
    """The one that whatever is opened next gets."""
    descriptor = os.open("/dev/null", os.O_RDONLY)
    os.close(descriptor)
    return descriptor


def accepts_one_by_one(reactor: UvloopReactor, port: Any) -> bool:
    """Whether the reactor itself watches this port, instead of uvloop."""
    return port in reactor._readers


def test_out_of_descriptors_clients_wait_and_are_served_later(reactor: UvloopReactor) -> None:
    protocols = [Recorder() for _ in range(3)]
    said: list[str] = []

    def observe(event: Any) -> None:
        said.append(formatEvent(event))

    async def scenario() -> None:
        port = reactor.listenTCP(0, Serving(*protocols), interface="127.0.0.1")
        where = f"Accepting on 127.0.0.1:{port.getHost().port}"
        clients = [socket.socket() for _ in protocols]
        hoard = []
        try:
            while True:
                hoard.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        for client in clients:
            client.connect(("127.0.0.1", port.getHost().port))
            client.sendall(b"waited")
        while accepts_one_by_one(reactor, port):
            await deferLater(reactor, 0)  # until it pauses
        while hoard:
            os.close(hoard.pop())
        for protocol in protocols:
            await protocol.made
            await protocol.has(6)
        for client in clients:
            client.close()
        pauses, goes_on = (line for line in said if line.startswith("Accepting on "))
        assert pauses.startswith(f"{where} paused: all ")
        assert goes_on == f"{where} resumed"

    globalLogPublisher.addObserver(observe)
    try:
        with descriptor_limit(next_descriptor() + 40):
            run(reactor, scenario())
    finally:
        globalLogPublisher.removeObserver(observe)


def test_near_the_limit_a_port_accepts_one_by_one_and_far_from_it_leaves_that_to_uvloop(
    reactor: UvloopReactor,
) -> None:
    # It looks at some connections only, far fewer than it keeps descriptors for.
    backlog, some = 5, 16
    protocols = [Recorder() for _ in range(4 * some)]
    left = iter(protocols)

    async def accept(port: Any) -> None:
        for protocol in islice(left, some):
            with socket.create_connection(("127.0.0.1", port.getHost().port)):
                await protocol.made

    async def scenario() -> None:
        port = reactor.listenTCP(0, Serving(*protocols), backlog=backlog, interface="127.0.0.1")
        await accept(port)
        assert not accepts_one_by_one(reactor, port)
        with descriptor_limit(next_descriptor() + 2 * backlog + 62):
            await accept(port)
            assert accepts_one_by_one(reactor, port)
            await accept(port)
            assert accepts_one_by_one(reactor, port)
        await accept(port)
        assert not accepts_one_by_one(reactor, port)

    run(reactor, scenario())


def test_a_port_survives_when_uvloop_stops_listening_on_its_own(reactor: UvloopReactor) -> None:
    async def scenario() -> None:
        protocol = Recorder()
        port = reactor.listenTCP(0, Serving(protocol), interface="127.0.0.1")
        port._server.close()  # what uvloop does when accept(2) fails
        with socket.create_connection(("127.0.0.1", port.getHost().port)):
            await protocol.made

    run(reactor, scenario())


def test_clients_gone_before_they_were_accepted_are_no_trouble(reactor: UvloopReactor) -> None:
    peers = []

    class Noting(Serving):
        def buildProtocol(self, addr: Any) -> Any:
            peers.append(addr)
            return super().buildProtocol(addr)

    async def scenario() -> None:
        protocols = [Recorder() for _ in range(11)]
        port = reactor.listenTCP(0, Noting(*protocols), interface="127.0.0.1")
        for _ in range(10):
            with socket.create_connection(("127.0.0.1", port.getHost().port)) as gone:
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client = Recorder()
        reactor.connectTCP("127.0.0.1", port.getHost().port, Connecting(client))
        await client.made
        client.transport.write(b"here")
        while not any(protocol.received for protocol in protocols):
            await deferLater(reactor, 0)
        for protocol in protocols:
            if protocol.made.called and not protocol.received:
                await protocol.lost

    run(reactor, scenario())
    assert {type(peer) for peer in peers} == {IPv4Address}


def wait_in_line(port: Any, number: int) -> list[socket.socket]:
    """So many clients, connected and not yet accepted: the loop does not turn meanwhile."""
    return [socket.create_connection(("127.0.0.1", port.getHost().port)) for _ in range(number)]


async def made_in_each_turn(reactor: UvloopReactor, protocols: list[Recorder]) -> list[int]:
    """How many of these got their connection in each turn of the loop, until all have."""
    made = [0]
    while made[-1] < len(protocols):
        turned: Deferred[None] = Deferred()
        reactor.loop.call_soon(turned.callback, None)
        await turned
        made.append(sum(protocol.made.called for protocol in protocols))
    return [later - earlier for earlier, later in pairwise(made)]


@pytest.mark.parametrize("adopted", [False, True])
def test_each_turn_of_the_loop_accepts_many_and_not_all(
    reactor: UvloopReactor, monkeypatch: pytest.MonkeyPatch, adopted: bool
) -> None:
    """A turn takes milliseconds under load: who waits must not wait for many, and others have theirs between."""
    monkeypatch.setattr(listening, "monotonic", lambda: 0.0)
    protocols = [Recorder() for _ in range(200)]

    async def scenario() -> None:
        if adopted:
            with socket.create_server(("127.0.0.1", 0), backlog=200) as handed_over:
                handed_over.setblocking(False)
                port = reactor.adoptStreamPort(handed_over.fileno(), socket.AF_INET, Serving(*protocols))
        else:
            port = reactor.listenTCP(0, Serving(*protocols), backlog=200, interface="127.0.0.1")
        clients = wait_in_line(port, len(protocols))
        made = await made_in_each_turn(reactor, protocols)
        assert len(made) <= 5 + len(protocols) // 32
        assert max(made) <= 33
        for client in clients:
            client.close()

    run(reactor, scenario())


def test_a_turn_s_accepting_ends_when_it_takes_long(reactor: UvloopReactor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "monotonic", map((0.0015).__mul__, count()).__next__)
    protocols = [Recorder() for _ in range(20)]

    async def scenario() -> None:
        port = reactor.listenTCP(0, Serving(*protocols), interface="127.0.0.1")
        clients = wait_in_line(port, len(protocols))
        assert max(await made_in_each_turn(reactor, protocols)) == 3
        for client in clients:
            client.close()

    run(reactor, scenario())


def test_a_port_that_stops_leaves_who_waits_on_a_socket_that_is_another_s(reactor: UvloopReactor) -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as handed_over:
            handed_over.setblocking(False)
            first = Recorder()
            port = reactor.adoptStreamPort(handed_over.fileno(), socket.AF_INET, Serving(first))
            first.made.addCallback(lambda _made: port.stopListening())
            clients = wait_in_line(port, 3)
            await first.made
            for _ in clients[1:]:
                handed_over.accept()[0].close()
            for client in clients:
                client.close()

    run(reactor, scenario())


def test_stopping_ends_accepting_but_no_connection(reactor: UvloopReactor) -> None:
    async def scenario() -> None:
        server, client, late = Recorder(), Recorder(), Recorder()
        port = await connected(reactor, server, client)
        address, factory = port.getHost(), port.factory
        await port.stopListening()
        assert factory.stopped == 1
        client.transport.write(b"still here")
        await server.has(10)
        refused = Connecting(late)
        reactor.connectTCP(address.host, address.port, refused)
        assert (await refused.failed).kind is ConnectionRefusedError

    run(reactor, scenario())


def test_a_factory_that_builds_nothing_closes_the_connection(reactor: UvloopReactor) -> None:
    async def scenario() -> None:
        client = Recorder()
        port = reactor.listenTCP(0, Serving(), interface="127.0.0.1")
        reactor.connectTCP("127.0.0.1", port.getHost().port, Connecting(client))
        await client.lost

    run(reactor, scenario())


def test_a_factory_that_raises_closes_the_connection_and_goes_on(reactor: UvloopReactor, logged_errors: Any) -> None:
    class Failing(Serving):
        def buildProtocol(self, addr: Any) -> Any:
            if len(self.protocols) == 2:
                self.protocols.pop()
                raise ValueError("not today")
            return super().buildProtocol(addr)

    async def scenario() -> None:
        server = Recorder()
        port = reactor.listenTCP(0, Failing(server, None), interface="127.0.0.1")
        for _ in range(2):
            client = Recorder()
            reactor.connectTCP("127.0.0.1", port.getHost().port, Connecting(client))
            await client.made
        await server.made

    run(reactor, scenario())
    assert len(logged_errors.take()) == 1


def test_a_port_in_use_is_reported_at_once(reactor: UvloopReactor) -> None:
    port = reactor.listenTCP(0, Serving(), interface="127.0.0.1")
    with pytest.raises(CannotListenError):
        reactor.listenTCP(port.getHost().port, Serving(), interface="127.0.0.1")


def test_a_listening_socket_is_adopted(reactor: UvloopReactor) -> None:
    async def scenario() -> None:
        server, client = Recorder(), Recorder()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            port = reactor.adoptStreamPort(listening.fileno(), socket.AF_INET, Serving(server))
        reactor.connectTCP("127.0.0.1", port.getHost().port, Connecting(client))
        await server.made

    run(reactor, scenario())


def test_an_adopted_unix_socket_stays_its_owner_s(reactor: UvloopReactor, tmp_path: Path) -> None:
    """Its file, the file's mode, and who waits to be accepted."""
    path = str(tmp_path / "socket")

    async def scenario() -> None:
        server, client = Recorder(), Recorder()
        with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as late:
            listening.bind(path)
            os.chmod(path, 0o600)
            listening.listen()
            listening.setblocking(False)
            port = reactor.adoptStreamPort(listening.fileno(), socket.AF_UNIX, Serving(server))
            assert port.getHost().name == path.encode()
            reactor.connectUNIX(path, Connecting(client))
            await server.made
            await port.stopListening()
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
            late.connect(path)
            listening.accept()[0].close()

    run(reactor, scenario())


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_port_serves_who_has_connected_before_it_closes(reactor: UvloopReactor, tmp_path: Path, kind: str) -> None:
    server = Recorder()

    async def scenario() -> None:
        if kind == "tcp":
            port = reactor.listenTCP(0, Serving(server), interface="127.0.0.1")
            client = socket.create_connection(("127.0.0.1", port.getHost().port))
        else:
            port = reactor.listenUNIX(str(tmp_path / "socket"), Serving(server))
            client = socket.socket(socket.AF_UNIX)
            client.connect(str(tmp_path / "socket"))
        with client:
            client.sendall(b"early")
            await port.stopListening()
            await server.has(5)

    run(reactor, scenario())


@pytest.mark.parametrize("left", ["socket and lock", "lock", "socket"])
def test_what_a_killed_process_has_left_at_a_unix_path_is_no_hindrance(
    reactor: UvloopReactor, tmp_path: Path, left: str
) -> None:
    """Also where it had the same number, as every first process of a container has."""
    path = str(tmp_path / "socket")
    if "lock" in left:
        os.symlink(str(os.getpid()), f"{path}.lock")
    if "socket" in left:
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(path)

    async def scenario() -> None:
        server = Recorder()
        port = reactor.listenUNIX(path, Serving(server), wantPID=True)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            await server.made
        await port.stopListening()

    run(reactor, scenario())
    assert not list(tmp_path.iterdir())


def test_a_connected_socket_is_adopted(reactor: UvloopReactor) -> None:
    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        server = Recorder()
        with theirs:
            with ours:
                ours.setblocking(False)
                reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, Serving(server))
            theirs.sendall(b"hello")
            await server.has(5)
        await server.lost

    run(reactor, scenario())


def test_an_unknown_address_family_is_not_adopted(reactor: UvloopReactor) -> None:
    with socket.socket() as listening, pytest.raises(UnsupportedAddressFamily):
        reactor.adoptStreamPort(listening.fileno(), 2**10, Serving())


@pytest.mark.parametrize("abstract", [False, True])
def test_unix_sockets_carry_both_directions(reactor: UvloopReactor, tmp_path: Path, abstract: bool) -> None:
    path = "\0" + tmp_path.name + str(os.getpid()) if abstract else str(tmp_path / "socket")

    async def scenario() -> None:
        server, client = Recorder(), Recorder()
        port = reactor.listenUNIX(path, Serving(server), mode=0o600)
        if not abstract:
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        reactor.connectUNIX(path, Connecting(client))
        await client.made
        await server.made
        client.transport.write(b"ping")
        await server.has(4)
        server.transport.write(b"pong")
        await client.has(4)
        await port.stopListening()
        assert not os.path.exists(path.encode()) if not abstract else True

    run(reactor, scenario())


def test_a_locked_unix_socket_is_not_shared(reactor: UvloopReactor, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    reactor.listenUNIX(path, Serving(), wantPID=True)
    with pytest.raises(CannotListenError):
        reactor.listenUNIX(path, Serving(), wantPID=True)


def test_descriptors_go_between_the_bytes_written_around_them(reactor: UvloopReactor, tmp_path: Path) -> None:
    async def scenario() -> bytes:
        server = Recorder()
        path = str(tmp_path / "socket")
        reactor.listenUNIX(path, Serving(server))
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(path)
            await server.made
            reading, writing = os.pipe()
            server.transport.write(b"before ")
            server.transport.sendFileDescriptor(writing)
            server.transport.write(b"after")
            server.transport.loseConnection()
            await server.lost
            os.close(writing)
            received, descriptors, _flags, _name = socket.recv_fds(raw, 100, 1)
            if not descriptors:
                more, descriptors, _flags, _name = socket.recv_fds(raw, 100, 1)
                received += more
            os.write(descriptors[0], b"through the pipe")
            os.close(descriptors[0])
            assert os.read(reading, 100) == b"through the pipe"
            os.close(reading)
            return received + raw.recv(100)

    assert run(reactor, scenario()) == b"before after"
