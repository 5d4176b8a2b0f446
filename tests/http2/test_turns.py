"""A connection of HTTP/2 that brings much reads it in slices, and whatever it brings means the same as at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from itertools import repeat

from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from koder_gateway.reactor.turns import PIECES, Turns
from tests.kit.http2_client import Http2Client
from tests.kit.http2_frames import (
    CANCEL,
    DATA,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PROTOCOL_ERROR,
    Frame,
    block,
    continuation,
    data,
    frame,
    frames_of,
    goaway,
    headers,
    ping,
    priority,
    reset,
    settings,
    weight,
    window_update,
)
from tests.kit.http2_memory import Http2, Mounted, asking, code
from tests.kit.memory import MemoryGateway, rechunked
from tests.kit.recording import HOST as NAME
from tests.kit.recording import running

KNOWN = (b"x-request-id", b"r1")


def asked(path: bytes, method: bytes = b"GET", *more: tuple[bytes, bytes]) -> bytes:
    return asking(path, method, KNOWN, *more)


class Time:
    """A clock that jumps by a second whenever the script says so, each time that it is looked at."""

    def __init__(self, jumps: Iterable[bool]) -> None:
        self.now = 0.0
        self.jumps = iter(jumps)

    def __call__(self) -> float:
        self.now += next(self.jumps, False)
        return self.now


class ByHand:
    """Turns of a reactor, one at a time."""

    def __init__(self, gateway: MemoryGateway, jumps: Iterable[bool] = ()) -> None:
        self.calls: list[Callable[[], object]] = []
        self.turns = gateway.site.turns = Turns(self.calls.append, Time(jumps))

    def turn(self) -> None:
        calls = self.calls[:]
        self.calls.clear()
        for call in calls:
            call()


def patient(gateway: MemoryGateway, jumps: Iterable[bool]) -> Turns:
    """Turns whose slices are over when the script says so."""
    turns = gateway.site.turns = Turns(lambda work: gateway.reactor.callLater(0, work), Time(jumps))
    return turns


def answers(pieces: Iterable[bytes], jumps: Iterable[bool]) -> dict[int, list[Frame]]:
    """What comes back on each stream when this arrives and is read so."""
    gateway = MemoryGateway(mounts={b"/mounted": Mounted()})
    turns = patient(gateway, jumps)
    client = Http2(gateway)
    for piece in pieces:
        client.peer.send(piece)
    for _ in range(1000):
        gateway.reactor.advance(0)
        if not len(turns):
            break
    # A frame may be refused by its header before the rest of it is here: a GOAWAY then says the same in other words.
    came = [
        each._replace(payload=each.payload[:8]) if each.kind == GOAWAY else each
        for each in frames_of(client.peer.take())
    ]
    for channel in list(gateway.site.channels):
        assert not getattr(channel, "awaits_turn", False)
    return {stream: [each for each in came if each.stream == stream] for stream in {each.stream for each in came}}


GOOD = [
    headers(1, asked(b"/mounted")),
    headers(3, asked(b"/nowhere")),
    headers(5, asked(b"/mounted", b"POST"), end=False),
    ping(b"whatever"),
    data(5, b"a body"),
    *[frame(0xBE, 0, 0, b"unknown")] * 20,
    data(5, b" of two frames"),
    headers(5, block([(b"x-trailer", b"1")])),
    window_update(0, 100),
    priority(9, weight()),
    headers(7, asked(b"/mounted", b"POST"), end=False),
    reset(7, CANCEL),
    headers(9, asked(b"/mounted")[:20], done=False),
    continuation(9, asked(b"/mounted")[20:]),
    settings((INITIAL_WINDOW_SIZE, 70_000)),
    *[ping(b"%08d" % number) for number in range(40)],
    headers(11, asked(b"/mounted")),
]
ENDS = {
    "nothing": b"",
    "an error": data(0, b"on the connection"),
    "a block that cannot be decoded": headers(13, b"\xff\xff\xff\xff\xff\xff"),
    "goodbye": goaway(),
    "half a frame": ping()[:12],
}


@given(
    st.lists(st.sampled_from(range(len(GOOD))), max_size=4),
    st.sampled_from(sorted(ENDS)),
    st.lists(st.integers(0, 5000), max_size=8),
    st.lists(st.booleans(), max_size=200),
)
@example_settings(max_examples=150, deadline=None)
def test_what_is_read_later_means_the_same(left_out: list[int], end: str, cuts: list[int], jumps: list[bool]) -> None:
    session = b"".join(each for number, each in enumerate(GOOD) if number not in left_out) + ENDS[end]
    assert answers(rechunked(session, cuts), jumps) == answers([session], [])


def test_a_slice_is_over_after_so_many_frames_and_others_have_their_turn() -> None:
    gateway = MemoryGateway(mounts={b"/mounted": Mounted()})
    by_hand = ByHand(gateway)
    greedy, modest = Http2(gateway), Http2(gateway)
    greedy.peer.near.arrive(b"".join(headers(2 * number + 1, asked(b"/nowhere")) for number in range(PIECES * 3)))
    modest.peer.near.arrive(headers(1, asked(b"/mounted")))
    assert by_hand.turns.yielded == 1
    assert greedy.peer.near.paused
    gateway.reactor.advance(0)
    begun = [each.stream for each in frames_of(greedy.peer.take()) if each.kind == HEADERS]
    assert begun == [2 * number + 1 for number in range(PIECES)]
    assert [each.kind for each in frames_of(modest.peer.take())] == [HEADERS, DATA, DATA]
    by_hand.turn()
    gateway.reactor.advance(0)
    assert len(list(frames_of(greedy.peer.take()))) == 2 * PIECES
    assert greedy.peer.near.paused
    by_hand.turn()
    gateway.reactor.advance(0)
    assert not greedy.peer.near.paused
    assert len(list(frames_of(greedy.peer.take()))) == 2 * PIECES


def test_nothing_is_read_while_the_client_takes_nothing() -> None:
    gateway = MemoryGateway()
    turns = patient(gateway, [])
    client = Http2(gateway)
    client.peer.stop_reading()
    client.peer.near.arrive(b"".join(headers(2 * number + 1, asked(b"/nowhere", b"HEAD")) for number in range(3000)))
    for _ in range(200):
        gateway.reactor.advance(0)
    begun = len(gateway.exchanges)
    assert begun < 1000
    assert (len(turns), client.peer.near.paused) == (0, True)
    client.peer.start_reading()
    for _ in range(200):
        gateway.reactor.advance(0)
    assert len(gateway.exchanges) == 3000
    assert not client.peer.near.paused


def test_a_client_that_is_gone_has_no_turn() -> None:
    gateway = MemoryGateway()
    turns = patient(gateway, repeat(True))
    client = Http2(gateway)
    client.peer.near.arrive(b"".join(headers(2 * number + 1, asked(b"/nowhere")) for number in range(100)))
    assert len(turns) == 1
    client.peer.reset()
    gateway.reactor.advance(0)
    assert len(turns) == 0
    assert len(gateway.exchanges) < 100


def test_a_drain_and_the_deadlines_wait_for_what_has_come() -> None:
    """A request that only waits for its turn is no idle connection, and its last stream is not said before it."""
    gateway = MemoryGateway(mounts={b"/mounted": Mounted()})
    by_hand = ByHand(gateway, repeat(True))
    client = Http2(gateway)
    client.peer.near.arrive(b"".join(headers(2 * number + 1, asked(b"/mounted")) for number in range(10)))
    assert len(by_hand.turns) == 1
    gateway.site.drain()
    came = client.after(200)
    assert code(came, GOAWAY) == 0
    for _ in range(20):
        by_hand.turn()
    came += client.after(3)
    assert {each.stream for each in came if each.kind == HEADERS} == {2 * number + 1 for number in range(10)}
    assert client.peer.closed


def test_an_error_in_a_later_turn_ends_the_connection() -> None:
    gateway = MemoryGateway()
    patient(gateway, repeat(True))
    client = Http2(gateway)
    client.peer.near.arrive(
        b"".join(headers(2 * number + 1, asked(b"/nowhere")) for number in range(10)) + data(0, b"wrong")
    )
    came: list[Frame] = []
    for _ in range(20):
        gateway.reactor.advance(0)
        came += client.after(0)
    assert code(came, GOAWAY) == PROTOCOL_ERROR


def test_others_are_served_between_the_slices(tmp_path) -> None:
    """Over sockets: 5,000 requests that are refused, in one go, and another client's answers meanwhile."""
    with running(tmp_path, secure=True) as gateway:
        with Http2Client.connect(gateway.port, NAME) as greedy, Http2Client.connect(gateway.port, NAME) as modest:
            greedy.start()
            modest.start()
            refused = b"".join(headers(2 * number + 1, asking(b"/nowhere")) for number in range(5000))
            greedy.remember(refused)
            greedy.socket.setblocking(False)
            sent = 0
            served = 0
            while sent < len(refused) and served < 200:
                with contextlib.suppress(OSError):
                    sent += greedy.socket.send(refused[sent : sent + 16384])
                modest.send(headers(2 * served + 1, asking(b"/nowhere")))
                assert modest.answer(2 * served + 1).status in (404, 421)
                served += 1
            assert served >= 10
        gateway.assert_quiet()
