"""What a protocol may expect of a connection on uvloop, over loopback."""

from __future__ import annotations

import array
import fcntl
import gc
import itertools
import socket
import termios
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost

from koder_gateway.reactor.turns import READS, Turns
from koder_gateway.transports.bounded_reads import BOUND, LITTLE
from koder_gateway.transports.reactor import UvloopReactor
from tests.kit.transports_running import HalfCloseable, Recorder, Serving, connected, run, running_reactor

MIB = 1024 * 1024


@pytest.fixture
def reactor() -> Iterator[UvloopReactor]:
    with running_reactor() as reactor:
        yield reactor


async def several_turns(reactor: UvloopReactor) -> None:
    """Let the event loop do all that it has to do now."""
    for _ in range(10):
        turned: Deferred[None] = Deferred()
        reactor.callLater(0, turned.callback, None)
        await turned


class Source:
    """A push producer of `total` bytes that writes until it is paused."""

    def __init__(self, transport: Any, total: int) -> None:
        self.transport, self.left = transport, total
        self.paused = False
        self.pauses = 0
        self.most_waiting = 0

    def resumeProducing(self) -> None:
        self.paused = False
        while self.left and not self.paused:
            self.transport.write(b"x" * 65536)
            self.left -= 65536
            self.most_waiting = max(self.most_waiting, self.transport._native.get_write_buffer_size())
        if not self.left:
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def pauseProducing(self) -> None:
        self.paused = True
        self.pauses += 1

    def stopProducing(self) -> None:
        self.left = 0


class Counter(Recorder):
    """Counts what arrives, and pauses reading at every MiB until the event loop has gone round."""

    count = 0

    def dataReceived(self, data: bytes) -> None:
        before, self.count = self.count, self.count + len(data)
        if before // MIB != self.count // MIB:
            self.transport.pauseProducing()
            self.transport.reactor.callLater(0, self.transport.resumeProducing)


@pytest.mark.parametrize("server_sends", [True, False], ids=["download", "upload"])
def test_a_slow_reader_pauses_the_producer_and_loses_nothing(reactor: UvloopReactor, server_sends: bool) -> None:
    sender, reader = Recorder(), Counter()

    async def scenario() -> Source:
        await connected(reactor, *((sender, reader) if server_sends else (reader, sender)))
        source = Source(sender.transport, 64 * MIB)
        sender.transport.registerProducer(source, True)
        source.resumeProducing()
        await reader.lost
        return source

    source = run(reactor, scenario())
    assert reader.count == 64 * MIB
    assert source.pauses > 0
    assert source.most_waiting <= 2 * 65536


def test_what_is_not_read_stops_the_producer_until_it_is(reactor: UvloopReactor) -> None:
    sender, reader = Recorder(), Counter()

    async def scenario() -> None:
        await connected(reactor, sender, reader)
        reader.transport.pauseProducing()
        source = Source(sender.transport, 64 * MIB)
        sender.transport.registerProducer(source, True)
        source.resumeProducing()
        assert source.paused
        assert source.left
        assert reader.count == 0
        reader.transport.resumeProducing()
        await reader.lost

    run(reactor, scenario())
    assert reader.count == 64 * MIB


class Pulled:
    """A pull producer of numbered lines."""

    def __init__(self, transport: Any, lines: int) -> None:
        self.transport, self.lines, self.next = transport, lines, 0

    def resumeProducing(self) -> None:
        self.transport.write(b"%d\n" % self.next)
        self.next += 1
        if self.next == self.lines:
            self.transport.unregisterProducer()

    def stopProducing(self) -> None:
        raise AssertionError("stopped before the end")


def test_closing_waits_for_a_pull_producer(reactor: UvloopReactor) -> None:
    sender, reader = Recorder(), Recorder()

    async def scenario() -> None:
        await connected(reactor, sender, reader)
        sender.transport.registerProducer(Pulled(sender.transport, 1000), False)
        sender.transport.loseConnection()
        await reader.lost

    run(reactor, scenario())
    assert reader.received == b"".join(b"%d\n" % number for number in range(1000))


def test_closing_at_once_with_a_producer_reads_nothing_more(reactor: UvloopReactor) -> None:
    class Closing(Recorder):
        def connectionMade(self) -> None:
            self.transport.registerProducer(self, True)
            self.transport.loseConnection()
            super().connectionMade()

    async def scenario() -> None:
        server = Closing()
        port = reactor.listenTCP(0, Serving(server), interface="127.0.0.1")
        with socket.create_connection(("127.0.0.1", port.getHost().port)) as raw:
            raw.sendall(b"sent before anything was accepted")
            await server.made
            await several_turns(reactor)
            assert not server.lost.called
            server.transport.unregisterProducer()
            await server.lost
        assert server.received == b""

    run(reactor, scenario())


def test_closing_reads_nothing_while_it_waits_for_a_producer(reactor: UvloopReactor) -> None:
    async def scenario() -> None:
        server, client = Recorder(), Recorder()
        await connected(reactor, server, client)
        server.transport.registerProducer(Pulled(client.transport, 1), True)
        server.transport.loseConnection()
        client.transport.write(b"too late")
        await several_turns(reactor)
        assert not server.lost.called
        server.transport.unregisterProducer()
        await server.lost
        assert server.received == b""

    run(reactor, scenario())


def test_a_second_producer_is_refused(reactor: UvloopReactor) -> None:
    async def scenario() -> None:
        server, client = Recorder(), Recorder()
        await connected(reactor, server, client)
        server.transport.registerProducer(object(), True)
        with pytest.raises(RuntimeError):
            server.transport.registerProducer(object(), True)
        server.transport.unregisterProducer()

    run(reactor, scenario())


def test_a_half_closed_connection_still_answers(reactor: UvloopReactor) -> None:
    server, client = HalfCloseable(), HalfCloseable()

    async def scenario() -> None:
        await connected(reactor, server, client)
        client.transport.write(b"question" * MIB)
        client.transport.loseWriteConnection()
        client.transport.write(b"never sent")
        await server.read_closed
        await client.write_closed
        server.transport.write(b"answer")
        server.transport.loseConnection()
        await client.has(6)
        client.transport.loseConnection()
        assert (await client.lost).kind is ConnectionDone

    run(reactor, scenario())
    assert server.received == b"question" * MIB
    assert client.received == b"answer"


def test_closing_sends_everything_first_and_both_hear_of_a_clean_end(reactor: UvloopReactor) -> None:
    server, client = Recorder(), Recorder()

    async def scenario() -> None:
        await connected(reactor, server, client)
        server.transport.writeSequence([b"x" * MIB] * 8)
        server.transport.loseConnection()
        assert (await client.lost).kind is ConnectionDone
        assert (await server.lost).kind is ConnectionDone

    run(reactor, scenario())
    assert len(client.received) == 8 * MIB


def test_aborting_resets_the_connection(reactor: UvloopReactor) -> None:
    async def scenario() -> None:
        server, client = Recorder(), Recorder()
        await connected(reactor, server, client)
        server.transport.abortConnection()
        server.transport.abortConnection()
        assert (await server.lost).kind is ConnectionAborted
        assert (await client.lost).kind is ConnectionLost

    run(reactor, scenario())


def test_what_a_protocol_raises_ends_its_connection(reactor: UvloopReactor, logged_errors: Any) -> None:
    class Broken(Recorder):
        def dataReceived(self, data: bytes) -> None:
            raise FileNotFoundError("of the protocol's own")

    async def scenario() -> None:
        server, client = Broken(), Recorder()
        await connected(reactor, server, client)
        client.transport.write(b"x")
        assert (await server.lost).kind is FileNotFoundError
        await client.lost

    run(reactor, scenario())
    assert len(logged_errors.take()) == 1


@pytest.mark.parametrize("elsewhere", [False, True])
def test_nothing_arrives_while_a_protocol_that_paused_at_once_is_paused(
    reactor: UvloopReactor, elsewhere: bool
) -> None:
    class Paused(Recorder):
        def connectionMade(self) -> None:
            self.transport.pauseProducing()
            if elsewhere:
                self.transport.deliver_to(self.dataReceived)
            super().connectionMade()

    async def scenario() -> None:
        server = Paused()
        port = reactor.listenTCP(0, Serving(server), interface="127.0.0.1")
        with socket.create_connection(("127.0.0.1", port.getHost().port)) as raw:
            raw.sendall(b"sent before anything was accepted")
            await server.made
            await several_turns(reactor)
            assert server.received == b""
            server.transport.resumeProducing()
            await server.has(33)

    run(reactor, scenario())


def left_to_read(transport: Any) -> int:
    """Bytes that the kernel holds for the transport to read."""
    room = array.array("i", [0])
    fcntl.ioctl(transport.fileno(), termios.FIONREAD, room)
    return room[0]


def test_what_comes_while_a_protocol_that_paused_at_once_is_paused_stays_with_the_kernel(
    reactor: UvloopReactor,
) -> None:
    class Paused(Recorder):
        def connectionMade(self) -> None:
            self.transport.pauseProducing()
            super().connectionMade()

    async def scenario() -> None:
        server = Paused()
        port = reactor.listenTCP(0, Serving(server), interface="127.0.0.1")
        sent = bytes(range(250)) * 200
        with socket.create_connection(("127.0.0.1", port.getHost().port)) as raw:
            raw.sendall(sent)
            await server.made
            await several_turns(reactor)
            assert left_to_read(server.transport) >= len(sent) - 512
            server.transport.resumeProducing()
            await server.has(len(sent))
            assert server.received == sent

    run(reactor, scenario())


def test_a_replaced_data_received_is_called(reactor: UvloopReactor) -> None:
    async def scenario() -> None:
        server, client = Recorder(), Recorder()
        await connected(reactor, server, client)
        seen: Deferred[bytes] = Deferred()
        server.dataReceived = seen.callback  # type: ignore[method-assign]
        client.transport.write(b"x")
        assert await seen == b"x"

    run(reactor, scenario())


def test_a_protocol_may_have_its_bytes_brought_elsewhere(reactor: UvloopReactor) -> None:
    async def scenario() -> None:
        server, client = Recorder(), Recorder()
        await connected(reactor, server, client)
        received: list[bytes] = []
        server.transport.deliver_to(received.append)
        client.transport.write(b"elsewhere")
        await several_turns(reactor)
        server.transport.pauseProducing()
        client.transport.write(b", and after a pause")
        await several_turns(reactor)
        assert b"".join(received) == b"elsewhere"
        server.transport.resumeProducing()
        await several_turns(reactor)
        assert b"".join(received) == b"elsewhere, and after a pause"
        assert server.received == b""
        client.transport.loseConnection()
        await server.lost
        server.transport.deliver_to(received.append)  # does nothing any more

    run(reactor, scenario())


def test_nothing_arrives_after_closing_and_late_writes_are_dropped(reactor: UvloopReactor) -> None:
    class Once(Recorder):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            self.transport.loseConnection()

    server = Once()

    async def scenario() -> None:
        client = Recorder()
        await connected(reactor, server, client)
        client.transport.write(b"first")
        client.transport.write(b"second" * MIB)
        await server.lost
        server.transport.write(b"too late")
        server.transport.writeSequence([b"too", b"late"])
        server.transport.loseConnection()
        server.transport.abortConnection()
        assert server.transport.fileno() == -1
        await client.lost

    run(reactor, scenario())
    assert server.received.startswith(b"first")
    assert len(server.received) < 6 * MIB


def test_a_lost_connection_is_freed_without_the_garbage_collector(reactor: UvloopReactor) -> None:
    async def scenario() -> list[weakref.ref[Any]]:
        server, client = Recorder(), Recorder()
        await connected(reactor, server, client)
        client.transport.getHandle()
        client.transport.loseConnection()
        await server.lost
        await client.lost
        alive = [weakref.ref(one) for one in (server.transport, client.transport)]
        server.transport = client.transport = None
        return alive

    gc.collect()
    gc.disable()
    try:
        alive = run(reactor, scenario())
        run(reactor, several_turns(reactor))
        assert [one() for one in alive] == [None, None]
        assert not any(isinstance(stream, Recorder) for stream in reactor.streams)
    finally:
        gc.enable()


def test_addresses_and_options(reactor: UvloopReactor) -> None:
    async def scenario() -> None:
        server, client = Recorder(), Recorder()
        port = await connected(reactor, server, client)
        assert server.transport.getHost() == client.transport.getPeer() == port.getHost()
        assert client.transport.getHost() == server.transport.getPeer()
        assert (client.transport.getTcpNoDelay(), server.transport.getTcpNoDelay()) == (True, True)
        for wanted in (False, True):
            client.transport.setTcpNoDelay(wanted)
            client.transport.setTcpKeepAlive(wanted)
            assert client.transport.getTcpNoDelay() is wanted
            assert client.transport.getTcpKeepAlive() is wanted
        assert client.transport.getHandle().getpeername() == server.transport.getHandle().getsockname()

    run(reactor, scenario())


class Yielding(Recorder):
    """Lets others go first after each read, and counts the reads between two turns of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.reads = 0
        self.stops_at = 0
        # How many reads each turn had.
        self.turns: list[int | str] = []

    def dataReceived(self, data: bytes) -> None:
        if not self.reads:
            self.transport.reactor.soon(self._turned)
        self.reads += 1
        self.count += len(data)
        self.transport.end_turn()
        if self.stops_at and self.count >= self.stops_at:
            self.transport.pauseProducing()

    def _turned(self) -> None:
        self.turns.append(self.reads)
        self.reads = 0


def fill(transport: Any) -> None:
    """Send as much as the kernel takes."""
    with socket.socket(fileno=socket.dup(transport.fileno())) as raw:
        raw.setblocking(False)
        try:
            while True:
                raw.send(b"x" * MIB)
        except BlockingIOError:
            pass


@pytest.mark.parametrize("others", [0, 3])
def test_reads_that_fill_the_buffer_are_shared(reactor: UvloopReactor, others: int) -> None:
    """A connection reads a turn's part in one go, and then somebody else who waits has one."""
    sender, reader = Recorder(), Yielding()

    class Other:
        def getPeer(self) -> object:
            return self

        def next_turn(self) -> None:
            reader.turns.append("other")
            if reader.connected:
                reactor.soon(self.read)

        def read(self) -> None:
            reactor.turns.read_later(self)

    async def scenario() -> None:
        await connected(reactor, sender, reader)
        reader.transport.pauseProducing()
        fill(sender.transport)
        for _ in range(others):
            Other().read()
        reader.transport.resumeProducing()
        sender.transport.write(b"x" * MIB)
        sender.transport.loseConnection()
        await reader.lost

    run(reactor, scenario())
    assert reader.count > 2 * MIB
    assert max(count for count in reader.turns if isinstance(count, int)) <= READS
    rows = [at for at, who in enumerate(reader.turns) if who != "other"]
    for before, after in itertools.pairwise(rows):
        assert bool(others) == ("other" in reader.turns[before:after])


class Bulk(Recorder):
    """Reads what fits while the next one is full. `turns` are the numbers of reads of all such in each turn."""

    def __init__(self, turns: list[int]) -> None:
        super().__init__()
        self.count = 0
        self.turns = turns

    def dataReceived(self, data: bytes) -> None:
        if not self.count:
            self.transport.read_fitting(lambda: 0)
        self.count += len(data)
        if not self.turns[-1]:
            self.transport.reactor.soon(lambda: self.turns.append(0))
        self.turns[-1] += 1


def test_full_reads_into_smaller_buffers_are_shared_too(reactor: UvloopReactor) -> None:
    turns = [0]
    senders, readers = [Recorder() for _ in range(4)], [Bulk(turns) for _ in range(4)]

    async def scenario() -> None:
        for sender, reader in zip(senders, readers, strict=True):
            await connected(reactor, sender, reader)
            reader.transport.pauseProducing()
            fill(sender.transport)
        for sender, reader in zip(senders, readers, strict=True):
            reader.transport.resumeProducing()
            sender.transport.loseConnection()
        for reader in readers:
            await reader.lost

    run(reactor, scenario())
    assert all(reader.count > 2 * MIB for reader in readers)
    # Each has read once when it hears that the turn's reads are used up, and each has one that is not full.
    assert max(turns) <= READS + 2 * len(readers)


def test_a_pause_after_the_end_of_a_turn_lasts(reactor: UvloopReactor) -> None:
    sender, reader = Recorder(), Yielding()
    reader.stops_at = 1

    async def scenario() -> None:
        await connected(reactor, sender, reader)
        sender.transport.write(b"x" * MIB)
        while not reader.count:
            await several_turns(reactor)
        count = reader.count
        await several_turns(reactor)
        assert reader.count == count
        assert not reader.transport.reading()
        reader.stops_at = 0
        reader.transport.resumeProducing()
        sender.transport.loseConnection()
        await reader.lost

    run(reactor, scenario())
    assert reader.count == MIB


class Little(Recorder):
    """Asks for little at a time once it has got something, and keeps the sizes of the reads that follow."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.data = b""

    def dataReceived(self, data: bytes) -> None:
        if self.data:
            self.sizes.append(len(data))
        self.data += data
        self.transport.read_little()


class LittleOnce(Little):
    """Asks for little once."""

    def dataReceived(self, data: bytes) -> None:
        if self.data:
            self.sizes.append(len(data))
        else:
            self.transport.read_little()
        self.data += data


def test_who_asks_for_little_gets_all_of_it_in_small_pieces(reactor: UvloopReactor) -> None:
    sender, reader = Recorder(), Little()
    data = b"".join(number.to_bytes(4, "big") for number in range(MIB // 2))

    async def scenario() -> None:
        await connected(reactor, sender, reader)
        for position in range(0, len(data), 65536):
            sender.transport.write(data[position : position + 65536])
            await several_turns(reactor)
        sender.transport.loseConnection()
        await reader.lost

    run(reactor, scenario())
    assert reader.data == data
    assert max(reader.sizes) <= LITTLE


def test_who_asked_for_little_once_reads_more_again_after_many_full_reads(reactor: UvloopReactor) -> None:
    """What seemed expensive was not: another process had the processor meanwhile."""
    sender, reader = Recorder(), LittleOnce()
    data = bytes(4 * MIB)

    async def scenario() -> None:
        await connected(reactor, sender, reader)
        for position in range(0, len(data), 1 << 18):
            sender.transport.write(data[position : position + (1 << 18)])
            await several_turns(reactor)
        sender.transport.loseConnection()
        await reader.lost

    run(reactor, scenario())
    assert reader.data == data
    larger = next(n for n, size in enumerate(reader.sizes) if size > LITTLE)
    assert larger >= 64


def test_who_asks_for_little_can_pause_and_leaves_no_cycle(reactor: UvloopReactor) -> None:
    sender, reader = Recorder(), Little()

    async def scenario() -> Any:
        await connected(reactor, sender, reader)
        sender.transport.write(b"x")
        while not reader.data:
            await several_turns(reactor)
        reader.transport.pauseProducing()
        sender.transport.write(b"y" * 100)
        await several_turns(reactor)
        assert reader.data == b"x"
        reader.transport.resumeProducing()
        while len(reader.data) < 101:
            await several_turns(reactor)
        gone = weakref.ref(reader.transport)
        sender.transport.loseConnection()
        await reader.lost
        reader.transport = None
        return gone

    gc.collect()
    gc.disable()
    try:
        gone = run(reactor, scenario())
        assert gone() is None
    finally:
        gc.enable()


class PassingOn(Recorder):
    """Hands what it gets to another transport, whose producer it is, and keeps the sizes of the reads, and what of
    each the other one did not get rid of at once."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.reads: list[tuple[int, int]] = []
        self.onwards: Any = None
        self.paused = False

    def dataReceived(self, data: bytes) -> None:
        self.onwards.write(data)
        self.reads.append((len(data), self.onwards.unsent))
        if self.way == "bounded" or len(self.reads) == 1:
            getattr(self.transport, f"read_{self.way}")(lambda: self.onwards.room)

    def pauseProducing(self) -> None:
        self.paused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        self.transport.loseConnection()


@pytest.mark.parametrize(("way", "most"), [("bounded", LITTLE), ("fitting", BOUND)])
def test_what_is_passed_on_waits_as_one_small_read(reactor: UvloopReactor, way: str, most: int) -> None:
    """Whoever does not read makes the transport hold a bounded read, however much the kernel took before."""
    source, passing, sink, end = Recorder(), PassingOn(way), Recorder(), Counter()

    async def scenario() -> None:
        await connected(reactor, sink, end)
        end.transport.pauseProducing()
        await connected(reactor, source, passing)
        passing.onwards = sink.transport
        sink.transport.registerProducer(passing, True)
        for _ in range(64):
            source.transport.write(bytes(MIB))
        while not passing.paused:
            await several_turns(reactor)
        await several_turns(reactor)
        *before, last = passing.reads
        assert {unsent for _, unsent in before} == {0}
        assert 0 < last[1] <= last[0] <= most
        assert max(size for size, _ in before) > BOUND, "what there is room for is read at once"
        assert sink.transport.room == 0
        end.transport.resumeProducing()
        sink.transport.abortConnection()
        await end.lost

    run(reactor, scenario())


@pytest.mark.parametrize("way", ["bounded", "fitting"])
def test_late_in_a_turn_little_is_read_at_once(
    reactor: UvloopReactor, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read then is held until there is a turn: of a hundred connections a hundred times as much."""
    source, passing, sink, end = Recorder(), PassingOn(way), Recorder(), Recorder()

    async def scenario() -> None:
        await connected(reactor, sink, end)
        await connected(reactor, source, passing)
        passing.onwards = sink.transport
        source.transport.write(bytes(MIB))
        await end.has(MIB)
        early = len(passing.reads)
        monkeypatch.setattr(Turns, "late", True)
        source.transport.write(bytes(MIB))
        await end.has(2 * MIB)
        assert max(size for size, _ in passing.reads[early:]) == LITTLE
        assert max(size for size, _ in passing.reads[:early]) > LITTLE
        source.transport.abortConnection()
        sink.transport.abortConnection()
        await end.lost

    run(reactor, scenario())


def test_reads_are_bounded_until_they_are_free_again(reactor: UvloopReactor) -> None:
    sizes: list[int] = []

    class Bounded(Recorder):
        def dataReceived(self, data: bytes) -> None:
            sizes.append(len(data))
            super().dataReceived(data)

    sender, reader = Recorder(), Bounded()

    async def scenario() -> None:
        await connected(reactor, sender, reader)
        reader.transport.read_bounded()
        sender.transport.write(bytes(range(256)) * 4096)
        await reader.has(MIB)
        assert max(sizes) <= BOUND
        assert reader.received == bytes(range(256)) * 4096
        reader.transport.pauseProducing()
        fill(sender.transport)
        reader.transport.read_freely()
        await several_turns(reactor)
        assert len(reader.received) == MIB, "it is paused still"
        reader.transport.resumeProducing()
        await reader.has(2 * MIB)
        assert max(sizes) > BOUND

    run(reactor, scenario())


@pytest.mark.parametrize("held", [False, True], ids=["at once", "after a pause"])
def test_reads_can_be_bounded_before_the_first(reactor: UvloopReactor, held: bool) -> None:
    """Nobody knows what a connection brings: its first read may be the largest. A full read is the last of its turn,
    since the loop would go on reading before it sends any of it on."""
    sizes: list[int] = []
    turns: list[int] = []
    turn = 0

    def next_turn() -> None:
        nonlocal turn
        turn += 1

    class Careful(Recorder):
        def connectionMade(self) -> None:
            super().connectionMade()
            self.transport.read_bounded(lambda: 0)
            if held:
                self.transport.pauseProducing()

        def dataReceived(self, data: bytes) -> None:
            sizes.append(len(data))
            turns.append(turn)
            reactor.callLater(0, next_turn)
            super().dataReceived(data)

    sender, reader = Recorder(), Careful()

    async def scenario() -> None:
        await connected(reactor, sender, reader)
        sender.transport.write(bytes(MIB))
        await several_turns(reactor)
        if held:
            reader.transport.resumeProducing()
        await reader.has(MIB)
        assert max(sizes) == LITTLE
        full = [of for of, size in zip(turns, sizes, strict=True) if size == LITTLE]
        assert len(set(full)) == len(full)

    run(reactor, scenario())


# -- reads before it is the loop's turn


class Peer(Recorder):
    """Sends with a socket call of its own, so that the bytes are there at once."""

    def send_now(self, data: bytes) -> None:
        self.transport.getHandle().send(data)


def test_what_has_come_can_be_read_before_the_loop_reads_it(reactor: UvloopReactor) -> None:
    async def scenario() -> None:
        server, client = Recorder(), Peer()
        port = await connected(reactor, server, client)
        client.send_now(b"early")
        server.transport.read_now()
        assert server.received == b"early"
        server.transport.read_now()
        client.send_now(b", late")
        await server.has(len(b"early, late"))
        assert server.received == b"early, late"
        port.stopListening()

    run(reactor, scenario())


def test_nothing_is_read_early_that_is_not_to_be_read(reactor: UvloopReactor) -> None:
    async def scenario() -> None:
        server, client = Recorder(), Peer()
        port = await connected(reactor, server, client)
        server.transport.pauseProducing()
        client.send_now(b"paused")
        server.transport.read_now()
        assert not server.received
        server.transport.resumeProducing()
        await server.has(6)
        server.transport.loseConnection()
        client.send_now(b"unheard")
        server.transport.read_now()
        await server.lost
        server.transport.read_now()
        assert server.received == b"paused"
        port.stopListening()

    run(reactor, scenario())


def test_the_end_of_a_connection_is_found_by_the_loop(reactor: UvloopReactor) -> None:
    async def scenario() -> None:
        server, client = Recorder(), Peer()
        port = await connected(reactor, server, client)
        client.send_now(b"last")
        client.transport.getHandle().shutdown(socket.SHUT_WR)
        server.transport.read_now()
        server.transport.read_now()
        assert server.received == b"last"
        assert not server.lost.called
        assert (await server.lost).kind is ConnectionDone
        port.stopListening()

    run(reactor, scenario())


def test_a_protocol_that_fails_in_an_early_read_loses_its_connection(
    reactor: UvloopReactor, logged_errors: Any
) -> None:
    class Failing(Recorder):
        def dataReceived(self, data: bytes) -> None:
            raise ZeroDivisionError

    async def scenario() -> None:
        server, client = Failing(), Peer()
        port = await connected(reactor, server, client)
        client.send_now(b"bad")
        server.transport.read_now()
        assert (await server.lost).kind is ZeroDivisionError
        port.stopListening()

    run(reactor, scenario())
    assert len(logged_errors.take()) == 1
