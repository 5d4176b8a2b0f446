"""Field blocks over the limits: what is a few times too large is refused and the connection lives; what is many times
too large ends the connection, but not before what is under way on it has its answer."""

from __future__ import annotations

import pytest

from koder_gateway.http2.header_block import HeaderBlock
from tests.kit.doors import Answer as Plain
from tests.kit.http2_client import Answer, Http2Client, holding
from tests.kit.http2_frames import (
    CANCEL,
    DEFAULT_FRAME,
    ENHANCE_YOUR_CALM,
    KEPT,
    block,
    continuation,
    data,
    headers,
    in_frames,
    indexed,
    literal,
    reset,
)
from tests.kit.recording import ALLOWED, HOST, running

PATH = b"/v1/users"
HELD = PATH + b"/held"
KIB = 1024


def request(path: bytes = PATH, method: bytes = b"GET") -> bytes:
    return block([(b":method", method), (b":scheme", b"https"), (b":path", path), (b":authority", HOST)])


GET = request()
# Beyond 128 KiB, four times the largest head, a block is not kept; one of 424 fields too many is not followed.
TOO_LARGE = {
    "bytes": GET + literal(b"x-large", b"v" * 140_000),
    "bytes of 300 kB": GET + literal(b"x-large", b"v" * 300_000),
    "bytes once decoded": GET + literal(b"x-large", b"0" * 150_000, huffman=True),
    "fields": GET + literal(b"", b"", KEPT) * 10_000,
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with running(tmp_path_factory.mktemp("gateway"), secure=True) as gateway:
        yield gateway


@pytest.fixture
def gateway(shared):
    with holding(shared, HELD, GET):
        yield shared


@pytest.fixture
def client(gateway):
    with Http2Client.connect(gateway.port, HOST) as client:
        yield client.start()


def begin(client: Http2Client, gateway, stream: int) -> None:
    """A request that the service holds."""
    client.send(headers(stream, request(HELD)))
    gateway.origin.wait_until(lambda: any(message.target == HELD for message in gateway.origin.messages))


def check_too_large(answer: Answer | Plain) -> None:
    assert answer.status == 431
    assert b'"head_too_large"' in answer.body


@pytest.mark.parametrize("size", [40_000, 98_000, 120_000])
@pytest.mark.parametrize("fields", [1, 90])
@pytest.mark.parametrize("huffman", [False, True])
def test_a_head_that_is_a_few_times_too_large_is_refused_alone(gateway, client, size, fields, huffman) -> None:
    """It is followed to its end: what it puts into the table is there for the next request."""
    begin(client, gateway, 1)
    large = b"".join(literal(b"x-%d" % n, b"v" * (size // fields), huffman=huffman) for n in range(fields))
    client.send(in_frames(3, GET + literal(b"x-kept", b"one", KEPT) + large + literal(b"x-kept", b"two", KEPT)))
    check_too_large(client.answer(3))
    client.send(headers(5, GET + indexed(62) + indexed(63)))
    assert client.answer(5).status == 200
    gateway.origin.release(HELD)
    assert client.answer(1).status == 200
    client.lives()
    (message,) = [message for message in gateway.received() if message.target == PATH]
    assert message.values(b"x-kept") == [b"two", b"one"]


@pytest.mark.parametrize("whole", TOO_LARGE.values(), ids=list(TOO_LARGE))
@pytest.mark.parametrize("end", [True, False], ids=["whole", "body to come"])
def test_after_a_block_many_times_too_large_what_is_under_way_is_answered(gateway, client, whole, end) -> None:
    """No block behind it is read any more, for the table is not known; then the connection ends."""
    begin(client, gateway, 1)
    client.send(in_frames(3, whole, end=end), headers(5, GET), headers(7, GET + indexed(90)))
    check_too_large(client.answer(3))
    client.send(b"" if end else reset(3, CANCEL), headers(9, GET))
    client.fence()
    assert client.goaways == [ENHANCE_YOUR_CALM]
    assert [client.answers[stream].status for stream in (1, 5, 7, 9)] == [0] * 4
    gateway.origin.release(HELD)
    assert client.answer(1).status == 200
    client.end()
    assert client.goaways == [ENHANCE_YOUR_CALM]
    assert [message.target for message in gateway.received()] == [HELD]


@pytest.mark.parametrize("whole", TOO_LARGE.values(), ids=list(TOO_LARGE))
def test_alone_on_its_connection_it_is_answered_before_the_end(gateway, client, whole) -> None:
    """Also where more is on its way that is not read any more."""
    client.send(in_frames(1, whole), *[headers(stream, GET) for stream in range(3, 99, 2)])
    check_too_large(client.answer(1))
    client.end()
    assert (client.goaways, client.ended) == ([ENHANCE_YOUR_CALM], "closed")
    assert gateway.received() == []


def test_a_block_in_many_frames_is_too_large(gateway, client) -> None:
    client.send(in_frames(1, GET + literal(b"x-large", b"v" * 9000), size=100))
    check_too_large(client.answer(1))
    client.end()
    assert client.goaways == [ENHANCE_YOUR_CALM]


def test_a_page_may_read_that_its_head_is_too_large(gateway, client) -> None:
    origin = literal(b"origin", ALLOWED)
    for stream, whole in ((1, origin + literal(b"x", b"v" * 98_000)), (3, literal(b"x", b"v" * 98_000) + origin)):
        client.send(in_frames(stream, GET + whole))
        answer = client.answer(stream)
        check_too_large(answer)
        assert answer.value(b"access-control-allow-origin") == ALLOWED


def test_a_head_request_gets_no_body_with_its_refusal(client) -> None:
    client.send(in_frames(1, request(method=b"HEAD") + literal(b"x", b"v" * 98_000)))
    answer = client.answer(1)
    assert (answer.status, answer.body) == (431, b"")


# -- trailers


def post(client: Http2Client, stream: int, gateway) -> None:
    client.send(headers(stream, request(method=b"POST"), end=False), data(stream, b"body"))
    gateway.origin.wait_until(lambda: gateway.origin.unfinished)


def test_trailers_that_are_too_large_are_refused_alone(gateway, client) -> None:
    post(client, 1, gateway)
    client.send(in_frames(1, literal(b"x-sum", b"1" * 98_000) + literal(b"x-kept", b"one", KEPT)))
    answer = client.answer(1)
    assert (answer.status, b'"bad_request"' in answer.body) == (400, True)
    client.send(headers(3, GET + indexed(62)))
    assert client.answer(3).status == 200
    client.lives()


def test_trailers_many_times_too_large_end_the_connection_in_good_order(gateway, client) -> None:
    begin(client, gateway, 1)
    client.send(headers(3, request(method=b"POST"), end=False), data(3, b"body"))
    client.send(in_frames(3, literal(b"x-sum", b"1" * 140_000)))
    assert client.answer(3).status == 400
    client.fence()
    assert client.goaways == [ENHANCE_YOUR_CALM]
    gateway.origin.release(HELD)
    assert client.answer(1).status == 200
    client.end()


def test_trailers_behind_a_block_that_was_not_read_are_left_out(gateway, client) -> None:
    post(client, 1, gateway)
    client.send(in_frames(3, TOO_LARGE["bytes"]), headers(1, literal(b"x-sum", b"1") + indexed(90)))
    assert client.answer(1).status == 200
    client.end()
    (message,) = gateway.received()
    assert (message.body, message.trailers) == (b"body", [])


def test_trailers_pass_where_every_block_was_read(gateway, client) -> None:
    post(client, 1, gateway)
    client.send(in_frames(3, GET + literal(b"x", b"v" * 98_000)), headers(1, literal(b"x-sum", b"1", KEPT)))
    assert client.answer(1).status == 200
    (message,) = gateway.received()
    assert message.trailers == [(b"x-sum", b"1")]


# -- what is kept of them


def test_a_block_is_kept_up_to_four_times_the_largest_head() -> None:
    kept = HeaderBlock()
    kept.begin(1, 0, bytes(16 * KIB), 0.0)
    assert [kept.add(bytes(16 * KIB), 32 * KIB) for _ in range(9)] == [True] * 7 + [False] * 2
    assert (kept.stream, kept.whole(), kept.stream) == (1, None, 0)
    kept.begin(3, 0, b"one", 0.0)
    assert kept.add(b"two", 32 * KIB)
    assert kept.whole() == b"onetwo"


def test_skipped_frames_are_paid_for(gateway, client) -> None:
    """A block that goes on and on ends its connection at once, and the bytes of it are not kept."""
    client.send(headers(1, GET, done=False))
    piece = continuation(1, bytes(DEFAULT_FRAME), done=False)
    sent = 0
    while not client.goaways and not client.ended:
        sent += 1
        assert sent < 2000
        if not client.send(piece):
            break
        client.drain()
    client.end()
    assert set(client.goaways) <= {ENHANCE_YOUR_CALM}
    assert gateway.received() == []
