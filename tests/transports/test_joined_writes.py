"""While a reactor is busy, what a connection writes waits for the end of the turn; and nothing of it is ever lost."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IOpenSSLContextFactory
from zope.interface import implementer

from koder_gateway.reactor.joined_writes import MOST
from koder_gateway.transports.flow import JOINED
from koder_gateway.transports.reactor import UvloopReactor
from tests.kit.transports_running import HalfCloseable, Recorder, Serving, run, running_reactor


@pytest.fixture
def reactor() -> Iterator[UvloopReactor]:
    with running_reactor() as reactor:
        yield reactor


@pytest.fixture
def busy(reactor: UvloopReactor) -> UvloopReactor:
    reactor.turns.joined.wanted = True
    return reactor


async def several_turns(reactor: UvloopReactor) -> None:
    """Let the event loop do all that it has to do now."""
    for _ in range(5):
        turned: Deferred[None] = Deferred()
        reactor.callLater(0, turned.callback, None)
        await turned


class Peer:
    """The other end of a connection on a UNIX socket, where bytes arrive before the call that sends them returns."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "socket")
        self.socket = socket.socket(socket.AF_UNIX)

    def here(self) -> bytes | None:
        """All that has arrived by now; None if nothing has; what comes before the end if it has ended."""
        pieces: list[bytes] = []
        try:
            while piece := self.socket.recv(1 << 20, socket.MSG_DONTWAIT):
                pieces.append(piece)
        except BlockingIOError:
            return b"".join(pieces) or None
        except ConnectionResetError:
            pass
        return b"".join(pieces)


@pytest.fixture
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    made = Peer(tmp_path_factory.mktemp("p"))
    yield made
    made.socket.close()


async def serve(reactor: UvloopReactor, protocol: Any, peer: Peer) -> Any:
    """Connect `peer` to `protocol`; its transport."""
    reactor.listenUNIX(peer.path, Serving(protocol))
    peer.socket.connect(peer.path)
    await protocol.made
    return protocol.transport


class CountingSends:
    """What uvloop is told to send, and all else that it does."""

    def __init__(self, native: Any) -> None:
        self._native = native
        self.sends: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.sends.append(data)
        self._native.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._native, name)


def test_with_time_to_spare_bytes_are_sent_before_control_returns(reactor: UvloopReactor, peer: Peer) -> None:
    async def scenario() -> None:
        transport = await serve(reactor, Recorder(), peer)
        for piece in (b"first", b"second", b"third" * JOINED):
            transport.write(piece)
            assert peer.here() == piece

    run(reactor, scenario())


def test_what_a_busy_turn_writes_goes_out_in_one_send_when_it_ends(busy: UvloopReactor, peer: Peer) -> None:
    async def scenario() -> None:
        transport = await serve(busy, Recorder(), peer)
        transport._native = counting = CountingSends(transport._native)
        transport.write(b"first ")
        transport.writeSequence([b"second ", b"third "])
        transport.write(b"")
        transport.write(b"fourth")
        assert peer.here() is None
        await several_turns(busy)
        assert peer.here() == b"first second third fourth"
        transport.write(b"and the next turn")
        assert peer.here() is None
        await several_turns(busy)
        assert peer.here() == b"and the next turn"
        assert counting.sends == [b"first second third fourth", b"and the next turn"]

    run(busy, scenario())


def test_what_waits_is_sent_first_when_there_is_time_to_spare_again(busy: UvloopReactor, peer: Peer) -> None:
    async def scenario() -> None:
        transport = await serve(busy, Recorder(), peer)
        transport.write(b"first ")
        busy.turns.joined.wanted = False
        transport.write(b"second ")
        busy.turns.joined.wanted = True
        transport.write(b"third ")
        # Once bytes wait, all that fits waits with them: only the order counts.
        await several_turns(busy)
        assert peer.here() == b"first second third "

    run(busy, scenario())


@pytest.mark.parametrize("sizes", [[JOINED + 1], [5, JOINED + 1, 7], [JOINED, 1, 2], [9000, 9000, JOINED + 9, 1]])
def test_bytes_stay_in_order_and_no_more_than_a_bound_waits(
    busy: UvloopReactor, peer: Peer, sizes: list[int]
) -> None:
    data = [os.urandom(size) for size in sizes]

    async def scenario() -> None:
        transport = await serve(busy, Recorder(), peer)
        received = bytearray()
        for number, piece in enumerate(data, 1):
            transport.write(piece)
            received += peer.here() or b""
            # What has not arrived still counts as unsent, and is not more than may wait.
            assert transport.unsent == sum(sizes[:number]) - len(received) <= JOINED
        await several_turns(busy)
        assert bytes(received) + (peer.here() or b"") == b"".join(data)
        assert transport.unsent == 0

    run(busy, scenario())


def test_other_bytes_than_bytes_are_sent_as_they_are_now(busy: UvloopReactor, peer: Peer) -> None:
    async def scenario() -> None:
        transport = await serve(busy, Recorder(), peer)
        changing = bytearray(b"as it is")
        transport.write(b"first, ")
        transport.write(changing)
        changing[:] = b"XXXXXXXX"
        transport.write(memoryview(b", then this"))
        with pytest.raises(TypeError):
            transport.write("text")
        await several_turns(busy)
        assert peer.here() == b"first, as it is, then this"

    run(busy, scenario())


def _close(transport: Any) -> None:
    transport.loseConnection()


def _close_later(transport: Any) -> None:
    transport.registerProducer(Recorder(), True)
    transport.loseConnection()
    transport.unregisterProducer()


def _abort(transport: Any) -> None:
    transport.abortConnection()


def _half_close(transport: Any) -> None:
    transport.loseWriteConnection()
    transport.write(b"too late")


def _stop_reactor(transport: Any) -> None:
    for stream in transport.reactor.removeAll():
        stream.connectionLost(None)


@pytest.mark.parametrize("end", [_close, _close_later, _abort, _half_close, _stop_reactor])
def test_what_was_written_before_the_end_arrives(busy: UvloopReactor, peer: Peer, end: Callable[[Any], None]) -> None:
    async def scenario() -> None:
        protocol = HalfCloseable()
        transport = await serve(busy, protocol, peer)
        transport.write(b"answer, ")
        transport.write(b"and goodbye")
        end(transport)
        await several_turns(busy)
        assert peer.here() == b"answer, and goodbye"
        assert peer.socket.recv(1) == b""
        transport.write(b"too late")
        if end is _half_close:
            peer.socket.send(b"heard")
            await protocol.has(5)
            transport.loseConnection()
        reason = await protocol.lost
        assert (reason.kind is ConnectionAborted) == (end is _abort)

    run(busy, scenario())


class Answering(Recorder):
    """Answers whatever comes."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(b"answer")


def test_an_answer_arrives_if_the_peer_ends_with_its_question(busy: UvloopReactor, peer: Peer) -> None:
    async def scenario() -> None:
        protocol = Answering()
        await serve(busy, protocol, peer)
        peer.socket.send(b"question")
        peer.socket.shutdown(socket.SHUT_WR)
        await protocol.lost
        assert peer.here() == b"answer"

    run(busy, scenario())


def test_what_was_written_before_tls_begins_goes_first_and_plain(busy: UvloopReactor, peer: Peer) -> None:
    @implementer(IOpenSSLContextFactory)
    class Contexts:
        def getContext(self) -> SSL.Context:
            return SSL.Context(SSL.TLS_METHOD)

    async def scenario() -> None:
        transport = await serve(busy, Recorder(), peer)
        transport.write(b"ready\r\n")
        transport.startTLS(Contexts(), normal=False)
        await several_turns(busy)
        received = peer.here() or b""
        # A handshake record with a ClientHello (RFC 8446 section 5.1) follows.
        assert (received[:7], received[7:8], received[12:13]) == (b"ready\r\n", b"\x16", b"\x01")
        transport.abortConnection()

    run(busy, scenario())


class Lines:
    """A pull producer of numbered lines."""

    def __init__(self, transport: Any, most: int) -> None:
        self.transport, self.left = transport, most

    def resumeProducing(self) -> None:
        self.left -= 1
        self.transport.write(b"%d," % self.left)
        if not self.left:
            self.transport.unregisterProducer()

    def stopProducing(self) -> None:
        raise AssertionError("stopped before the end")


def test_a_pull_producer_comes_behind_what_waits_and_before_what_follows(busy: UvloopReactor, peer: Peer) -> None:
    async def scenario() -> None:
        protocol = Recorder()
        transport = await serve(busy, protocol, peer)
        transport.write(b"head:")
        transport.registerProducer(Lines(transport, 3), False)
        transport.loseConnection()
        await protocol.lost
        assert peer.here() == b"head:2,1,0,"

    run(busy, scenario())


class Paused:
    """A push producer that counts how often it is paused and resumed."""

    paused = resumed = 0

    def pauseProducing(self) -> None:
        self.paused += 1

    def resumeProducing(self) -> None:
        self.resumed += 1

    def stopProducing(self) -> None:
        pass


def test_a_producer_is_paused_when_the_kernel_does_not_take_what_waited(busy: UvloopReactor, peer: Peer) -> None:
    async def scenario() -> None:
        producer = Paused()
        transport = await serve(busy, Recorder(), peer)
        transport.registerProducer(producer, True)
        sent = 0
        while not producer.paused:
            transport.write(b"x" * JOINED)
            sent += JOINED
            await several_turns(busy)
        assert transport.unsent
        received = 0
        while received < sent:
            received += len(peer.here() or b"")
            await several_turns(busy)
        assert (producer.paused, producer.resumed, transport.unsent) == (1, 1, 0)
        transport.unregisterProducer()

    run(busy, scenario())


def test_a_descriptor_goes_with_the_byte_that_it_was_sent_with(busy: UvloopReactor, peer: Peer) -> None:
    async def scenario() -> None:
        transport = await serve(busy, Recorder(), peer)
        transport.write(b"before;")
        transport.sendFileDescriptor(transport.fileno())
        transport.write(b"with")
        await several_turns(busy)
        transport.write(b";after")
        await several_turns(busy)
        before, none, *_ = socket.recv_fds(peer.socket, 7, 1)
        first, descriptors, *_ = socket.recv_fds(peer.socket, 1, 1)
        for descriptor in descriptors:
            os.close(descriptor)
        assert (before, none, first, len(descriptors)) == (b"before;", [], b"w", 1)
        assert peer.here() == b"ith;after"

    run(busy, scenario())


def test_the_room_at_the_kernel_is_less_by_what_waits(busy: UvloopReactor, peer: Peer) -> None:
    async def scenario() -> None:
        transport = await serve(busy, Recorder(), peer)
        room = transport.room
        transport.write(b"x" * 5000)
        assert transport.room == max(0, room - 10000)

    run(busy, scenario())


def test_a_kept_write_does_nothing_once_the_connection_is_lost(busy: UvloopReactor, peer: Peer) -> None:
    async def scenario() -> None:
        protocol = Recorder()
        transport = await serve(busy, protocol, peer)
        write = transport.write
        transport.loseConnection()
        await protocol.lost
        for wanted in (True, False):
            busy.turns.joined.wanted = wanted
            write(b"too late")
            await several_turns(busy)
        assert peer.here() == b""

    run(busy, scenario())


def test_more_connections_than_may_wait_write_at_once(busy: UvloopReactor, peer: Peer) -> None:
    class Waiting:
        def flush(self) -> None:
            pass

    async def scenario() -> None:
        transport = await serve(busy, Recorder(), peer)
        for _ in range(MOST):
            assert busy.turns.joined.takes(Waiting())
        transport.write(b"at once")
        assert peer.here() == b"at once"

    run(busy, scenario())
