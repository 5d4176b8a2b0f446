"""What one HTTP/2 client can cost: floods, bombs and silence are bounded, and others are served meanwhile.

RFC 9113, 10.5. After every attack the connection has ended or the client is held to a bound, the gateway's memory has
not grown with it, and another connection gets its answer.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count, islice
from pathlib import Path

import pytest

from tests.kit.http2_client import Http2Client
from tests.kit.http2_frames import (
    CANCEL,
    COMPRESSION_ERROR,
    DATA,
    DEFAULT_FRAME,
    DEFAULT_WINDOW,
    ENHANCE_YOUR_CALM,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    KEPT,
    LARGEST_WINDOW,
    MAX_CONCURRENT_STREAMS,
    MAX_HEADER_LIST_SIZE,
    NO_ERROR,
    PREFACE,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    Fields,
    block,
    continuation,
    data,
    frame,
    headers,
    indexed,
    literal,
    ping,
    priority,
    reset,
    settings,
    table_size,
    weight,
    window_update,
)
from tests.kit.recording import HOST, SETTINGS, running
from tests.kit.services import ANSWER

PATH = b"/v1/users"
# Far more than a client has a reason to send; a bound must lie below.
MANY = 30_000
MIB = 1 << 20
# What an attack may add to the gateway's memory: a connection's bounds and what the allocator keeps.
ROOM = 24 * MIB
# Each at once, or nearly so; the others are left alone by the tests here.
HASTY = SETTINGS.replace(
    "[timeouts]", '[timeouts]\nhead = "1s"\nkeepalive = "1s"\nidle = "1s"\nbody = "1s"\nresponse = "2s"'
)


# What is under way of a client that is not read any more does not wait for long.
IMPATIENT = SETTINGS.replace("[timeouts]", '[timeouts]\nidle = "1s"')


def request(*more: tuple[bytes, bytes], method: bytes = b"GET", path: bytes = PATH) -> bytes:
    """A request's field block."""
    fields: Fields = [(b":method", method), (b":scheme", b"https"), (b":path", path), (b":authority", HOST)]
    return block(fields + list(more))


GET, POST = request(), request(method=b"POST")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with running(tmp_path_factory.mktemp("gateway"), secure=True) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def impatient_one(tmp_path_factory):
    with running(tmp_path_factory.mktemp("impatient"), IMPATIENT, secure=True) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def hasty_one(tmp_path_factory):
    with running(tmp_path_factory.mktemp("hasty"), HASTY, secure=True) as gateway:
        yield gateway


def checked(gateway):
    """Afterwards another client is served, and nothing alarming has been logged."""
    gateway.origin.forget()
    with Http2Client.connect(gateway.port, HOST) as bystander:
        bystander.start()
        yield gateway
    with Http2Client.connect(gateway.port, HOST) as other:
        other.start().send(headers(1, GET))
        assert other.answer().status == 200
    gateway.assert_quiet()


@pytest.fixture
def gateway(shared):
    yield from checked(shared)


@pytest.fixture
def impatient(impatient_one):
    """A gateway that waits a second for those who make no progress."""
    yield from checked(impatient_one)


@pytest.fixture
def hasty(hasty_one):
    """A gateway whose deadlines are about a second."""
    yield from checked(hasty_one)


def connect(gateway, *values: tuple[int, int], **options) -> Http2Client:
    """A client that has begun."""
    return Http2Client.connect(gateway.port, HOST, **options).start(*values)


def resident(gateway) -> int:
    """Bytes of memory that the gateway occupies."""
    text = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) * 1024


# -- floods

Make = Callable[[int], bytes]


def flood(client: Http2Client, make: Make, most: int = MANY, pack: int = 100) -> int:
    """Send until the connection has ended, or takes no further request; how often. Fails when the client may go on
    for ever. What is under way would be served: it is given up."""
    numbers = iter(range(most))
    sent = 0
    while not client.ended and not client.goaways:
        batch = [make(number) for number in islice(numbers, pack)]
        assert batch, f"{sent} of them are not enough: {client.described()}"
        sent += len(batch)
        if not client.send(*batch):
            break
        client.drain()
    client.send(*[reset(stream, CANCEL) for stream, answer in client.answers.items() if not answer.over])
    client.end()
    return sent


def odd(number: int) -> int:
    """The stream of the request of this number."""
    return 2 * number + 1


def on_a_stream(client: Http2Client) -> None:
    """Stream 1 is open, its body to come."""
    client.send(headers(1, POST, end=False))


def on_a_stuck_stream(client: Http2Client) -> None:
    """Stream 1 has an answer that waits for its window."""
    client.change((INITIAL_WINDOW_SIZE, 0))
    client.send(headers(1, GET))
    client.head()


def on_a_closed_stream(client: Http2Client) -> None:
    """Stream 1 is over."""
    client.send(headers(1, GET))
    client.answer()


def nothing(client: Http2Client) -> None:
    """No stream was ever there."""


BAD = request((b"X-Upper", b"1"))
FLOODS: dict[str, tuple[Callable[[Http2Client], None], Make]] = {
    "PING": (nothing, lambda number: ping(b"%08d" % number)),
    "answers to PINGs": (nothing, lambda number: ping(ack=True)),
    "SETTINGS": (nothing, lambda number: settings()),
    "SETTINGS of many values": (nothing, lambda number: settings(*[(0xFF, 1)] * 100)),
    "SETTINGS that move windows": (
        on_a_stuck_stream,
        lambda number: settings((INITIAL_WINDOW_SIZE, 0)),
    ),
    "PRIORITY of one stream": (nothing, lambda number: priority(1, weight())),
    "PRIORITY of new streams": (nothing, lambda number: priority(odd(number), weight())),
    "unknown frames": (nothing, lambda number: frame(0xBE)),
    "large unknown frames": (nothing, lambda number: frame(0xBE, 0, 0, bytes(1000))),
    "empty DATA": (on_a_stream, lambda number: data(1)),
    "DATA of padding": (on_a_stream, lambda number: data(1, pad=0)),
    "DATA of a closed stream": (on_a_closed_stream, lambda number: data(1)),
    "RST_STREAM of a closed stream": (on_a_closed_stream, lambda number: reset(1)),
    "WINDOW_UPDATE of a closed stream": (on_a_closed_stream, lambda number: window_update(1, 1)),
    "WINDOW_UPDATE of the connection": (nothing, lambda number: window_update(0, 1)),
    "WINDOW_UPDATE of a stream": (on_a_stream, lambda number: window_update(1, 1)),
    "rapid reset": (nothing, lambda number: headers(odd(number), GET) + reset(odd(number), CANCEL)),
    "rapid reset of bodies": (nothing, lambda number: headers(odd(number), POST, end=False) + reset(odd(number))),
    "rapid reset of refused requests": (
        nothing,
        lambda number: headers(odd(number), request(path=b"/nowhere"), end=False) + reset(odd(number)),
    ),
    "resets provoked by fields": (nothing, lambda number: headers(odd(number), BAD)),
    "resets provoked by WINDOW_UPDATE": (
        nothing,
        lambda number: headers(odd(number), POST, end=False) + window_update(odd(number), 0),
    ),
    "resets provoked by windows": (
        nothing,
        lambda number: headers(odd(number), POST, end=False) + window_update(odd(number), LARGEST_WINDOW),
    ),
    "resets provoked by lengths": (
        nothing,
        lambda number: headers(odd(number), request((b"content-length", b"1")), end=True),
    ),
    "field blocks over the limit": (
        nothing,
        lambda number: headers(odd(number), GET + literal(b"", b"", KEPT) * 300),
    ),
    "field blocks over the limit on one stream": (
        on_a_stream,
        lambda number: headers(1, literal(b"", b"", KEPT) * 300, end=False),
    ),
    "resets provoked by dependencies": (
        nothing,
        lambda number: headers(odd(number), GET, priority=weight(odd(number))),
    ),
}


@pytest.mark.parametrize(("prepare", "make"), FLOODS.values(), ids=list(FLOODS))
def test_flood(impatient, prepare, make):
    """Frames that nobody has a reason to send so often end the connection, and cost the service little."""
    with connect(impatient) as client:
        prepare(client)
        before = resident(impatient)
        flood(client, make)
        assert set(client.goaways) <= {ENHANCE_YOUR_CALM, PROTOCOL_ERROR, STREAM_CLOSED}, client.described()
        assert resident(impatient) - before < ROOM
    impatient.origin.settle()
    assert len(impatient.origin.messages) < 2000
    impatient.origin.wait_until(lambda: not impatient.origin.unfinished)


def test_streams_beyond_the_bound(impatient):
    """5.1.2: refused one by one while others wait; a client that does not listen is ended. What waits for its window
    for longer than this gateway's second is cut, and makes room for others."""
    with connect(impatient, (INITIAL_WINDOW_SIZE, 0)) as client:
        most = client.settings[MAX_CONCURRENT_STREAMS]
        flood(client, lambda number: headers(odd(number), GET))
        resets = [answer.reset for answer in client.answers.values() if answer.reset is not None]
        cut = [code for code in resets if code != REFUSED_STREAM]
        assert len(cut) < len(resets)
    impatient.origin.settle()
    assert len(impatient.origin.messages) <= most + len(cut)


def test_refused_streams_may_be_tried_again(gateway):
    """5.1.2: a stream past the bound is REFUSED_STREAM, and when another is over there is a place."""
    with connect(gateway, (INITIAL_WINDOW_SIZE, 0)) as client:
        most = client.settings[MAX_CONCURRENT_STREAMS]
        client.send(*[headers(odd(number), GET) for number in range(most + 1)])
        client.refuses(odd(most), REFUSED_STREAM)
        client.send(window_update(1, 100))
        client.answer(1)
        client.send(headers(odd(most + 1), GET), window_update(odd(most + 1), 100))
        assert client.answer(odd(most + 1)).status == 200
        client.lives()


# -- field blocks


@pytest.mark.parametrize("size", [0, 1, 1000], ids=["empty", "of a byte", "large"])
def test_flood_of_continuations(gateway, size):
    """A field block that never ends is not gathered for ever; the service hears nothing of it."""
    with connect(gateway) as client:
        before = resident(gateway)
        client.send(headers(1, GET, done=False))
        flood(client, lambda number: continuation(1, bytes(size), done=False))
        assert set(client.goaways) <= {ENHANCE_YOUR_CALM, PROTOCOL_ERROR}
        assert resident(gateway) - before < ROOM
    assert gateway.received() == []


def check_too_large(client: Http2Client, gateway, *frames: bytes, statuses: tuple[int, ...] = (431,)) -> None:
    """431, a stream error or a connection error, and nothing for the service."""
    before = resident(gateway)
    client.send(*frames)
    while not client.answers[1].over and not client.ended:
        client.next()
    answer = client.answers[1]
    assert answer.status in (0, *statuses), client.described()
    assert answer.reset in (None, NO_ERROR, CANCEL, PROTOCOL_ERROR, ENHANCE_YOUR_CALM, REFUSED_STREAM)
    assert set(client.goaways) <= {NO_ERROR, ENHANCE_YOUR_CALM, PROTOCOL_ERROR}
    assert resident(gateway) - before < ROOM
    assert gateway.received() == []


def in_frames(whole: bytes) -> bytes:
    """A field block as HEADERS and CONTINUATIONs of the largest size."""
    pieces = [whole[start : start + DEFAULT_FRAME] for start in range(0, len(whole), DEFAULT_FRAME)]
    return headers(1, pieces[0], done=len(pieces) == 1) + b"".join(
        continuation(1, piece, done=number == len(pieces) - 1) for number, piece in enumerate(pieces) if number
    )


def test_head_beyond_the_bound(gateway):
    """RFC 6585: more than requests.max_head, 32 KiB."""
    with connect(gateway) as client:
        check_too_large(
            client, gateway, in_frames(request(*[(b"x-%d" % number, b"y" * 3000) for number in range(11)]))
        )


def test_value_beyond_the_bound(gateway):
    with connect(gateway) as client:
        check_too_large(client, gateway, in_frames(request((b"x-long", b"y" * 33_000))))


def test_fields_beyond_the_bound(gateway):
    """requests.max_fields, 100."""
    with connect(gateway) as client:
        check_too_large(client, gateway, in_frames(request(*[(b"x-%d" % number, b"") for number in range(400)])))


def test_target_beyond_the_bound(gateway):
    """requests.max_target, 8 KiB."""
    with connect(gateway) as client:
        check_too_large(client, gateway, in_frames(request(path=PATH + b"/" + b"y" * 9000)), statuses=(414, 431))


def test_head_just_within_the_bounds(gateway):
    with connect(gateway) as client:
        fields = [(b"x-%d" % number, b"y" * 3000) for number in range(9)]
        client.send(in_frames(request(*fields)))
        assert client.answer().status == 200
        (message,) = gateway.received()
        assert [message.value(name) for name, _ in fields] == [value for _, value in fields]


BOMBS = {
    "one large field ten thousand times": literal(b"x-bomb", b"b" * 3900, KEPT) + indexed(62) * 10_000,
    "a small field ten thousand times": literal(b"x-bomb", b"b", KEPT) + indexed(62) * 10_000,
    "ten thousand cookies": literal(b"cookie", b"crumb=" + b"b" * 1000, KEPT) + indexed(62) * 10_000,
    "large names": literal(b"x-" + b"b" * 3900, b"", KEPT) + literal(62, b"") * 5_000,
    "Huffman": literal(b"x-bomb", b"0" * 40_000, huffman=True),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=list(BOMBS))
def test_hpack_bomb(gateway, bomb):
    """RFC 7541 section 7: few bytes that mean many."""
    with connect(gateway) as client:
        check_too_large(client, gateway, in_frames(GET + bomb))


@pytest.mark.parametrize(
    "field",
    [literal(b"", b"", KEPT), literal(b"", b""), indexed(16), indexed(62)],
    ids=["kept", "plain", "static", "dynamic"],
)
def test_a_block_many_times_over_the_limit_ends_its_connection(gateway, field):
    """33 kB of fields that say nothing: they are not followed to their end, and not refused for ever."""
    with connect(gateway) as client:
        client.send(in_frames(GET + literal(b"x", b"y", KEPT) + field * (32_900 // len(field))))
        client.breaks(ENHANCE_YOUR_CALM)
        assert client.goaways == [ENHANCE_YOUR_CALM]
    assert gateway.received() == []


def test_table_sizes_in_bulk(gateway):
    """RFC 7541 section 4.2: no encoder sends more than two; they are an error, or they cost nothing."""
    with connect(gateway) as client:
        client.send(in_frames((table_size(0) + table_size(4096)) * 3_000 + GET))
        while not client.answers[1].over and client.next() is not None:
            pass
        assert client.answers[1].status in (0, 200, 431), client.described()
        assert set(client.goaways) <= {COMPRESSION_ERROR, ENHANCE_YOUR_CALM}


def test_hpack_bombs_on_many_streams(gateway):
    """The table is filled once, and every stream makes use of it."""
    with connect(gateway) as client:
        before = resident(gateway)
        client.send(headers(1, GET + literal(b"x-bomb", b"b" * 3900, KEPT)))
        assert client.answer().status == 200
        numbers = count(1)
        bomb = GET + indexed(62) * 2000
        while not client.ended and not client.goaways and (number := next(numbers)) < 300:
            client.send(headers(odd(number), bomb))
            client.drain()
        assert not [answer for answer in list(client.answers.values())[1:] if answer.status not in (0, 431)]
        assert resident(gateway) - before < ROOM
    assert len(gateway.received()) == 1


def test_table_of_the_clients_choice(gateway):
    """A client that offers a huge table, or none, gets answers that it can decode."""
    for size in (0, 1, 100, 1 << 31):
        with connect(gateway, (HEADER_TABLE_SIZE, size)) as client:
            client._decoder.max_allowed_table_size = size
            for number in range(5):
                client.send(headers(odd(number), GET))
                assert client.answer(odd(number)).status == 200


def test_list_size_of_the_clients_choice(gateway):
    """6.5.2: advisory; the answer comes, or the stream ends."""
    with connect(gateway, (MAX_HEADER_LIST_SIZE, 1)) as client:
        client.send(headers(1, GET))
        while not client.answers[1].over and client.next() is not None:
            pass
        client.lives()


# -- windows


def test_window_that_grows_byte_by_byte(gateway):
    """6.9: each byte that there is room for comes, and no more."""
    with connect(gateway, (INITIAL_WINDOW_SIZE, 0)) as client:
        client.send(headers(1, GET))
        for size in range(1, 7):
            client.send(window_update(1, 1))
            assert len(client.data(1, size).body) == size
        assert client.answer().body == b"origin"


def test_window_of_the_connection(gateway):
    """Streams share it: what has been sent of all of them is what fits, and the rest comes when there is room."""
    gateway.origin.answers[PATH + b"/large"] = ANSWER.replace(b"6\r", b"30000\r").replace(b"origin", b"o" * 30_000)
    large = request(path=PATH + b"/large")
    with connect(gateway) as client:
        client.send(*[headers(stream, large) for stream in (1, 3, 5)])
        while sum(len(answer.body) for answer in client.answers.values()) < DEFAULT_WINDOW:
            client.next()
        client.lives()
        assert sum(len(answer.body) for answer in client.answers.values()) == DEFAULT_WINDOW
        client.send(window_update(0, 30_000))
        assert [len(client.answer(stream).body) for stream in (1, 3, 5)] == [30_000] * 3


def test_empty_answers_need_no_window(gateway):
    """6.9.1: END_STREAM on an empty frame is not held back."""
    gateway.origin.answers[PATH + b"/empty"] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    with connect(gateway, (INITIAL_WINDOW_SIZE, 0)) as client:
        client.send(headers(1, request(path=PATH + b"/empty")))
        assert client.answer().complete


@pytest.mark.parametrize(
    ("method", "path"),
    [(b"HEAD", PATH), (b"HEAD", b"/nowhere"), (b"GET", b"/nowhere")],
    ids=lambda value: value.decode(),
)
def test_answers_that_nobody_reads(gateway, method, path):
    """Heads of answers need no window: a client that asks and asks and never reads is not read any more either."""
    pseudo = [(b":method", method), (b":scheme", b"https"), (b":path", path), (b":authority", HOST)]
    with connect(gateway, receive_buffer=4096) as client:
        client.send(headers(1, b"".join(literal(name, value, KEPT) for name, value in pseudo)))
        client.head()
        before = resident(gateway)
        again = b"".join(indexed(index) for index in (65, 64, 63, 62))
        client.socket.settimeout(2.0)
        for first in range(1, 400_000, 1000):
            try:
                client.socket.sendall(b"".join(headers(odd(number), again) for number in range(first, first + 1000)))
            except OSError:
                break  # it takes no more
        # The gateway is done with what it has taken when its memory stays the same while another is served.
        with connect(gateway) as other:
            seen = 0
            while (now := resident(gateway)) != seen:
                assert now - before < ROOM
                seen = now
                for _ in range(20):
                    other.fence()


# -- silence


def ends_itself(client: Http2Client) -> None:
    """The server ends the connection, for no fault but time."""
    client.end()
    assert set(client.goaways) <= {NO_ERROR, ENHANCE_YOUR_CALM, PROTOCOL_ERROR}


@pytest.mark.parametrize("sent", [b"", PREFACE[:10], PREFACE, PREFACE + settings()[:5]], ids=len)
def test_preface_that_does_not_come(hasty, sent):
    with Http2Client.connect(hasty.port, HOST) as client:
        client.send_raw(sent)
        ends_itself(client)


def test_connection_without_requests(hasty):
    """timeouts.keepalive; GOAWAY first, so that nobody wonders about a request on its way."""
    with connect(hasty) as client:
        ends_itself(client)
        assert client.goaways == [NO_ERROR]


def test_connection_after_a_request(hasty):
    with connect(hasty) as client:
        client.send(headers(1, GET))
        assert client.answer().status == 200
        ends_itself(client)
        assert client.goaways == [NO_ERROR]


@pytest.mark.parametrize(
    "sent",
    [b"\0\0", frame(DATA, 0, 1, length=100), headers(1, GET, done=False), headers(1, GET)[:-4]],
    ids=["half a frame head", "no payload", "no CONTINUATION", "half a payload"],
)
def test_frame_that_does_not_come(hasty, sent):
    """Neither a frame nor a field block may take for ever."""
    with connect(hasty) as client:
        client.send_raw(sent)
        client.end()
    assert hasty.received() == []


def test_body_that_does_not_come(hasty):
    """timeouts.body: 408 or a stream error; the connection with the service is not left half-used."""
    with connect(hasty) as client:
        client.send(headers(1, POST, end=False), data(1, b"half"))
        while not client.answers[1].over and client.next() is not None:
            pass
        assert client.answers[1].status in (0, 408), client.described()
    assert hasty.received() == []
    hasty.origin.wait_until(lambda: not hasty.origin.unfinished)


@pytest.mark.parametrize("window", [0, 1, 5])
def test_window_that_never_opens(hasty, window):
    """timeouts.idle ends an answer that the client does not take; none is complete."""
    with connect(hasty, (INITIAL_WINDOW_SIZE, window)) as client:
        client.send(headers(1, GET))
        while client.answers[1].reset is None and not client.ended:
            client.next()
        assert not client.answers[1].complete
        assert len(client.answers[1].body) == window


def test_window_of_the_connection_that_never_opens(hasty):
    hasty.origin.answers[PATH + b"/much"] = ANSWER.replace(b"6\r", b"90000\r").replace(b"origin", b"o" * 90_000)
    with connect(hasty, (INITIAL_WINDOW_SIZE, MIB)) as client:
        client.send(headers(1, request(path=PATH + b"/much")))
        while client.answers[1].reset is None and not client.ended:
            client.next()
        assert (client.answers[1].complete, len(client.answers[1].body)) == (False, DEFAULT_WINDOW)


def test_pings_do_not_keep_a_stuck_answer(hasty):
    """timeouts.idle looks at the answer, not at what else the client says."""
    with connect(hasty, (INITIAL_WINDOW_SIZE, 0)) as client:
        client.send(headers(1, GET))
        client.head()
        while client.answers[1].reset is None and not client.ended and not client.goaways:
            client.send(ping())
            client.comes(0.05)
        assert not client.answers[1].complete


def test_service_that_does_not_answer(hasty):
    """timeouts.response, as over HTTP/1.1."""
    hasty.origin.held.add(PATH + b"/slow")
    try:
        with connect(hasty) as client:
            client.send(headers(1, request(path=PATH + b"/slow")), headers(3, GET))
            assert client.answer(3).status == 200
            assert client.answer(1).status == 504
    finally:
        hasty.origin.release(PATH + b"/slow")


def test_client_that_vanishes(gateway):
    """A reset in the middle of everything harms nobody, and the exchanges with the service end."""
    gateway.origin.held.add(PATH + b"/held")
    try:
        client = connect(gateway)
        client.send(*[headers(odd(number), request(path=PATH + b"/held")) for number in range(20)])
        client.send(headers(41, POST, end=False), data(41, b"half"))
        gateway.origin.wait_until(lambda: len(gateway.origin.messages) == 20 and gateway.origin.unfinished)
        client.abort()
        gateway.origin.wait_until(lambda: not gateway.origin.unfinished)
    finally:
        gateway.origin.release(PATH + b"/held")


# -- what is no attack


def test_many_requests_on_one_connection(gateway):
    with connect(gateway) as client:
        for first in range(0, 3000, 50):
            client.send(*[headers(odd(number), GET) for number in range(first, first + 50)])
            assert {client.answer(odd(number)).status for number in range(first, first + 50)} == {200}
            client.send(window_update(0, 50 * 6))
        client.lives()


def test_requests_with_pings_and_updates(gateway):
    """A client that says PING and gives its window back after every request may."""
    with connect(gateway) as client:
        for number in range(500):
            client.send(headers(odd(number), GET), ping(b"%08d" % number))
            assert client.answer(odd(number)).status == 200
            client.send(window_update(0, 6))
        client.lives()


def test_clients_that_cancel_now_and_then(gateway):
    """A browser that leaves pages: one in ten is cancelled."""
    with connect(gateway) as client:
        for number in range(500):
            client.send(headers(odd(number), GET))
            if number % 10:
                assert client.answer(odd(number)).status == 200
            else:
                client.send(reset(odd(number)))
            client.send(window_update(0, 6))
        client.lives()


def test_bodies_in_small_pieces(gateway):
    """An upload of small writes is none of the floods."""
    with connect(gateway) as client:
        client.send(headers(1, POST, end=False))
        for _ in range(100):
            client.send(*[data(1, b"piece") for _ in range(20)])
        client.send(data(1, end=True))
        assert client.answer().status == 200
        (message,) = gateway.received()
        assert message.body == b"piece" * 2000


def test_cookies_in_crumbs(gateway):
    """8.2.3: more crumbs than there may be fields, as one cookie of a usual length."""
    crumbs = [(b"cookie", b"c%d=v" % number) for number in range(60)]
    with connect(gateway) as client:
        client.send(headers(1, request(*crumbs)))
        assert client.answer().status == 200
        (message,) = gateway.received()
        assert message.value(b"cookie") == b"; ".join(value for _, value in crumbs)
