"""What came before a reset reaches the protocol of a connector's connection, on each reactor, and then it ends."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionLost
from twisted.internet.ssl import CertificateOptions
from twisted.python.failure import Failure

from koder_gateway.reactor.bytes_before_reset import deliver_bytes_before_reset
from koder_gateway.transports.reactor import UvloopReactor
from tests.kit.authority import Authority
from tests.kit.transports_running import PATIENCE, Connecting, Reason, Recorder, run, running_reactor

WORDS = b"too much" * 5000
_RESET = struct.pack("ii", 1, 0)


class Deaf(Recorder):
    """Reads nothing by itself; `handle` is its socket."""

    def connectionMade(self) -> None:
        deliver_bytes_before_reset(self.transport)
        self.handle = self.transport.getHandle()  # type: ignore[union-attr]
        self.transport.pauseProducing()  # type: ignore[union-attr]
        super().connectionMade()

    def wait_for_reset(self) -> None:
        """The reset is here."""
        poller = select.poll()
        poller.register(self.handle, 0)
        assert poller.poll(PATIENCE * 1000)


@pytest.fixture(params=["uvloop", "epoll"])
def reactor(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "epoll":
        yield EPollReactor()
    else:
        with running_reactor() as reactor:
            yield reactor


def finish(reactor: Any, coroutine: Coroutine[Any, Any, Any]) -> Any:
    if isinstance(reactor, UvloopReactor):
        return run(reactor, coroutine)
    results: list[Any] = []

    def start() -> None:
        Deferred.fromCoroutine(coroutine).addBoth(results.append).addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(start)
    late = reactor.callLater(PATIENCE, reactor.stop)
    reactor.run(installSignalHandlers=False)
    if late.active():
        late.cancel()
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return result


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        yield listener


def say_and_reset(connection: socket.socket, words: bytes) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(words)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()


async def made(reactor: Any, listener: socket.socket, protocol: Recorder) -> socket.socket:
    """Connect; the other side."""
    reactor.connectTCP("127.0.0.1", listener.getsockname()[1], Connecting(protocol))
    await protocol.made
    return listener.accept()[0]


def test_they_come_before_the_end(reactor: Any, listener: socket.socket) -> None:
    protocol = Deaf()

    async def scenario() -> Reason:
        say_and_reset(await made(reactor, listener, protocol), WORDS)
        protocol.wait_for_reset()
        protocol.transport.write(b"more")  # type: ignore[union-attr]
        return await protocol.lost

    assert finish(reactor, scenario()).kind is ConnectionLost
    assert protocol.received == WORDS


class Leaving(Deaf):
    """Has enough once it has heard anything."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.transport.abortConnection()  # type: ignore[union-attr]


def test_whoever_leaves_at_them_hears_of_the_end_once(reactor: Any, listener: socket.socket) -> None:
    protocol = Leaving()

    async def scenario() -> None:
        say_and_reset(await made(reactor, listener, protocol), WORDS)
        protocol.wait_for_reset()
        protocol.transport.write(b"more")  # type: ignore[union-attr]
        await protocol.lost
        turned: Deferred[None] = Deferred()
        reactor.callLater(0, turned.callback, None)
        await turned  # a second end would be an error in the log

    finish(reactor, scenario())
    assert protocol.received == WORDS


@pytest.mark.parametrize("leave", ["loseConnection", "abortConnection"])
def test_whoever_has_left_hears_none(reactor: Any, listener: socket.socket, leave: str) -> None:
    protocol = Deaf()

    async def scenario() -> None:
        say_and_reset(await made(reactor, listener, protocol), WORDS)
        protocol.wait_for_reset()
        protocol.transport.write(b"more")  # type: ignore[union-attr]
        getattr(protocol.transport, leave)()
        await protocol.lost

    finish(reactor, scenario())
    assert protocol.received == b""


class Secret(Recorder):
    """Speaks TLS."""

    def connectionMade(self) -> None:
        deliver_bytes_before_reset(self.transport)
        self.transport.startTLS(CertificateOptions())  # type: ignore[union-attr]
        super().connectionMade()


def test_they_are_decrypted_beneath_a_started_tls(reactor: Any, listener: socket.socket, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Authority(tmp_path).issue("127.0.0.1").both)
    protocol = Secret()
    paused = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        secured = context.wrap_socket(connection, server_side=True)
        secured.sendall(b"first")
        assert paused.wait(PATIENCE)
        secured.sendall(WORDS[:16000])
        bare = socket.socket(fileno=secured.detach())
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        bare.close()

    async def scenario() -> None:
        reactor.connectTCP("127.0.0.1", listener.getsockname()[1], Connecting(protocol))
        await protocol.made
        await protocol.has(5)
        protocol.transport.pauseProducing()  # type: ignore[union-attr]
        paused.set()
        service.join(PATIENCE)
        # So much that Twisted's TLS layer does not gather it until a turn of the global reactor.
        protocol.transport.write(b"more" * 20000)  # type: ignore[union-attr]
        await protocol.lost

    service = threading.Thread(target=serve)
    service.start()
    finish(reactor, scenario())
    assert protocol.received == b"first" + WORDS[:16000]
