"""Messages over HTTP/2 as they come, both ways, with a service that each test plays: flow control is back-pressure.

Also what a service gets wrong: a cut or malformed answer is visibly cut or 502, never a clean end (RFC 9113, 8.1).
"""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from tests.kit.clients import HOST
from tests.kit.gateways import Services
from tests.kit.http2_client import Http2Client
from tests.kit.http2_frames import (
    CANCEL,
    DEFAULT_FRAME,
    DEFAULT_WINDOW,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    INITIAL_WINDOW_SIZE,
    LARGEST_WINDOW,
    MAX_CONCURRENT_STREAMS,
    NO_ERROR,
    block,
    data,
    headers,
    reset,
    window_update,
)
from tests.kit.services import answer
from tests.kit.waiting import until

MIB = 1 << 20
ROOM = 32 * MIB
AUTHORITY = HOST.encode()


@pytest.fixture(scope="module", params=["uvloop", "epoll"])
def services(request, tmp_path_factory):
    """A gateway on each reactor whose deadlines nothing here meets."""
    folder = tmp_path_factory.mktemp("http2")
    with Services(folder, 60, {"requests": {"max_body": "64MiB"}}, reactor=request.param) as services:
        yield services


@pytest.fixture
def take(services):
    """Hands out services of the test's own; at its end their plays must have found nothing wrong."""
    taken = []

    def take(play):
        taken.append(services.take(play))
        return taken[-1]

    yield take
    for service in taken:
        service.origin.__exit__(None, None, None)


def connect(service, *values: tuple[int, int], **options) -> Http2Client:
    """A client of the service's gateway that has begun."""
    return Http2Client.connect(service.gateway.ports[-1], AUTHORITY, **options).start(*values)


def request(service, *more: tuple[bytes, bytes], method: bytes = b"GET", below: bytes = b"") -> bytes:
    """A request's field block."""
    path = service.path.encode() + below
    pseudo = [(b":method", method), (b":scheme", b"https"), (b":path", path), (b":authority", AUTHORITY)]
    return block([*pseudo, *more])


def replies(*pieces: bytes):
    """A service that answers each request with these bytes, and ends the connection after the first."""

    def play(peer, number):
        received = peer.head()
        if received is not None:
            peer.body(received)
            for piece in pieces:
                peer.send(piece)
            peer.finish()

    return play


def head(*fields: str, status: str = "200 OK") -> bytes:
    """An answer's head."""
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode()


def pattern(size: int) -> bytes:
    """Bytes that tell when some are lost or doubled."""
    return b"".join(b"%08x" % number for number in range(size // 8))


# -- answers


@pytest.mark.parametrize("framing", ["chunked", "length", "until-close"])
def test_every_event_is_there_before_the_next_one_is_sent(take, framing):
    events = [b"data: %d\n\n" % number for number in range(20)]
    taken = threading.Semaphore(0)
    length = sum(map(len, events))
    how = {"chunked": "Transfer-Encoding: chunked", "length": f"Content-Length: {length}", "until-close": "X-A: b"}

    def play(peer, number):
        peer.head()
        peer.send(head("Content-Type: text/event-stream", how[framing]))
        for event in events:
            peer.send(b"%x\r\n%b\r\n" % (len(event), event) if framing == "chunked" else event)
            assert taken.acquire(timeout=10)
        peer.send(b"0\r\n\r\n" if framing == "chunked" else b"")
        peer.finish()

    service = take(play)
    with connect(service) as client:
        client.send(headers(1, request(service)))
        size = 0
        for event in events:
            size += len(event)
            client.data(1, size)
            taken.release()
        whole = client.answer()
        assert (whole.status, whole.complete, whole.body) == (200, True, b"".join(events))
        assert whole.values(b"transfer-encoding") == []


def test_trailers_of_an_answer(take):
    parts = (head("Transfer-Encoding: chunked", "Trailer: X-Sum"), b"4\r\nbody\r\n0\r\nX-Sum: abc\r\n\r\n")
    service = take(replies(*parts))
    with connect(service) as client:
        client.send(headers(1, request(service)))
        whole = client.answer()
        assert (whole.body, whole.complete, whole.reset) == (b"body", True, None)
        assert whole.trailers == [(b"x-sum", b"abc")]


def test_trailers_that_connections_must_not_carry(take):
    """RFC 9110 section 6.5.1, RFC 9113 section 8.2.2: dropped, and the answer is whole."""
    rest = b"4\r\nbody\r\n0\r\nConnection: close\r\nTransfer-Encoding: x\r\nContent-Length: 9\r\nX-Ok: 1\r\n\r\n"
    service = take(replies(head("Transfer-Encoding: chunked"), rest))
    with connect(service) as client:
        client.send(headers(1, request(service)))
        whole = client.answer()
        assert (whole.body, whole.complete) == (b"body", True)
        assert whole.trailers in ([(b"x-ok", b"1")], [])


def test_fields_of_an_answer(take):
    """8.2: in lower case, in order, repeated ones apart, without those of a connection and what it names."""
    fields = ["X-Upper: A", "Set-Cookie: a=b", "Set-Cookie: c=d", "Connection: close, X-Named", "X-Named: 1"]
    fields += ["Keep-Alive: timeout=5", "Proxy-Connection: close", "X-Empty:", "X-Latin: \xe4"]
    service = take(replies(head(*fields, "Content-Length: 2").replace(b"\xc3\xa4", b"\xe4"), b"ok"))
    with connect(service) as client:
        client.send(headers(1, request(service)))
        whole = client.answer()
        assert whole.values(b"x-upper") == [b"A"]
        assert whole.values(b"set-cookie") == [b"a=b", b"c=d"]
        assert whole.values(b"x-named") == []
        assert whole.values(b"x-empty") == [b""]
        assert whole.values(b"x-latin") == [b"\xe4"]
        assert whole.value(b"content-length") == b"2"
        assert whole.value(b"x-request-id")


@pytest.mark.parametrize(
    ("method", "reply", "status"),
    [
        (b"HEAD", head("Content-Length: 9"), 200),
        (b"GET", head("Content-Length: 0"), 200),
        (b"GET", head(status="204 No Content"), 204),
        (b"GET", head("ETag: x", "Content-Length: 9", status="304 Not Modified"), 304),
        (b"GET", head("Location: /x", "Content-Length: 0", status="302 Found"), 302),
    ],
    ids=["HEAD", "empty", "204", "304", "302"],
)
def test_answer_without_a_body(take, method, reply, status):
    service = take(replies(reply))
    with connect(service) as client:
        client.send(headers(1, request(service, method=method)))
        whole = client.answer()
        assert (whole.status, whole.body, whole.complete, whole.reset) == (status, b"", True, None)
        if method == b"HEAD":
            assert whole.value(b"content-length") == b"9"
        client.lives()


def test_interim_answers(take):
    """8.1: relayed or left out, and the final one is whole."""
    early = head("Link: </a>; rel=preload", status="103 Early Hints") + head(status="102 Processing")
    service = take(replies(early, answer(b"final")))
    with connect(service) as client:
        client.send(headers(1, request(service)))
        whole = client.answer()
        assert (whole.status, whole.body) == (200, b"final")
        assert set(whole.interim) <= {102, 103}


def test_unasked_switch(take):
    """8.6: there is no 101 in HTTP/2."""
    service = take(replies(head("Upgrade: x", "Connection: upgrade", status="101 Switching Protocols"), b"raw"))
    with connect(service) as client:
        client.send(headers(1, request(service)))
        assert client.answer().status == 502


def test_expectation_is_met(take):
    """RFC 9110 section 10.1.1: a client that waits for 100 gets it, and its body arrives."""
    service = take(lambda peer, number: peer.serve())
    with connect(service) as client:
        fields = ((b"expect", b"100-continue"), (b"content-length", b"4"))
        client.send(headers(1, request(service, *fields, method=b"POST"), end=False))
        while not client.answers[1].interim:
            client.next()
        assert client.answers[1].interim == [100]
        client.send(data(1, b"test", end=True))
        assert client.answer().status == 200


BROKEN = {
    "length cut short": [head("Content-Length: 9"), b"body"],
    "chunks cut short": [head("Transfer-Encoding: chunked"), b"4\r\nbody\r\n"],
    "a chunk cut short": [head("Transfer-Encoding: chunked"), b"9\r\nbody"],
}


@pytest.mark.parametrize("pieces", BROKEN.values(), ids=list(BROKEN))
def test_answer_that_is_cut(take, pieces):
    """It never ends as a whole one does."""
    service = take(replies(*pieces))
    with connect(service) as client:
        client.send(headers(1, request(service)))
        cut = client.answer()
        assert not cut.complete
        assert cut.reset not in (None, NO_ERROR)
        assert b"body".startswith(cut.body)
        client.lives()


def test_answer_that_is_cut_by_a_broken_chunk(take):
    """It comes when the beginning of the answer has been passed on."""
    passed_on = threading.Event()

    def play(peer, number):
        peer.head()
        peer.send(head("Transfer-Encoding: chunked") + b"4\r\nbody\r\n")
        assert passed_on.wait(10)
        peer.send(b"x\r\n")

    service = take(play)
    with connect(service) as client:
        client.send(headers(1, request(service)))
        client.data(1, 4)
        passed_on.set()
        cut = client.answer()
        assert not cut.complete
        assert cut.reset not in (None, NO_ERROR)
        client.lives()


MALFORMED = {
    "garbage": b"garbage\r\n\r\n",
    "another version": b"HTTP/0.9 200 OK\r\n\r\n",
    "two lengths": head("Content-Length: 1", "Content-Length: 2") + b"ab",
    "NUL in a value": head("X-A: a\0b", "Content-Length: 0"),
    "a space before the colon": head("X-A : b", "Content-Length: 0"),
    "a folded line": head("X-A: b\r\n c", "Content-Length: 0"),
    "a bare LF": head("X-A: b\nX-B: c", "Content-Length: 0"),
    "a pseudo field": head(":status: 200", "Content-Length: 0"),
    "a broken first chunk": head("Transfer-Encoding: chunked") + b"5;\r\nhello\r\n0\r\n\r\n",
    "a broken second chunk": head("Transfer-Encoding: chunked") + b"4\r\nbody\r\nx\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("reply", MALFORMED.values(), ids=list(MALFORMED))
def test_answer_that_is_malformed(take, reply):
    service = take(replies(reply))
    with connect(service) as client:
        client.send(headers(1, request(service)))
        assert client.answer().status == 502
        client.lives()


def test_large_answer(take):
    """10 MiB through windows of the default size, byte for byte."""
    body = pattern(10 * MIB)
    service = take(replies(answer(body)))
    with connect(service) as client:
        client.send(headers(1, request(service)))
        whole = client.answer(refill=True)
        assert whole.complete
        assert hashlib.sha256(whole.body).digest() == hashlib.sha256(body).digest()


def test_answer_waits_for_the_client(take):
    """Back-pressure: what the gateway takes of a service whose client does not read is bounded."""
    sent = 0
    block_of = bytes(65536)

    def play(peer, number):
        nonlocal sent
        peer.head()
        peer.socket.settimeout(None)
        peer.send(head(f"Content-Length: {64 * MIB}"))
        for _ in range(64 * MIB // len(block_of)):
            peer.send(block_of)
            sent += len(block_of)

    service = take(play)
    with connect(service) as client:
        client.send(headers(1, request(service)))
        client.data(1, DEFAULT_WINDOW)
        # The service has stopped when a look at it and another, a fence later, find the same.
        seen = -1
        while seen != sent:
            seen = sent
            for _ in range(20):
                client.fence()
        assert seen < 16 * MIB
        client.send(reset(1, CANCEL))
        until(lambda: service.origin.open == 0, "the service's connection is closed")
        client.lives()


def test_many_clients_that_do_not_read(take):
    """A hundred streams with the largest windows, and nobody takes anything: bounded memory, and others served."""
    body = bytes(4 * MIB)
    started = threading.Semaphore(0)

    def play(peer, number):
        received = peer.head()
        if received is None:
            return
        if received.target.endswith(b"/small"):
            peer.send(answer(b"small"))
            return
        started.release()
        peer.send(answer(body))

    service = take(play)
    with connect(service, (INITIAL_WINDOW_SIZE, LARGEST_WINDOW), receive_buffer=4096) as client:
        before = service.gateway.memory("VmRSS")
        client.send(window_update(0, LARGEST_WINDOW - DEFAULT_WINDOW))
        most = client.settings[MAX_CONCURRENT_STREAMS]
        client.send(*[headers(2 * number + 1, request(service)) for number in range(most)])
        for _ in range(most):
            assert started.acquire(timeout=20)
        with connect(service) as other:
            other.send(headers(1, request(service, below=b"/small")))
            assert other.answer().body == b"small"
        assert service.gateway.memory("VmRSS") - before < ROOM


@pytest.mark.parametrize("how", ["reset", "abort", "goaway"])
def test_client_that_leaves_amid_an_answer(take, how):
    """The connection to the service is closed: nobody reads what it still sends."""
    gone = threading.Event()

    def play(peer, number):
        if peer.head() is None:
            return
        peer.send(head("Transfer-Encoding: chunked") + b"4\r\nbody\r\n")
        peer.until_gone()
        gone.set()

    service = take(play)
    client = connect(service)
    try:
        client.send(headers(1, request(service)))
        client.data(1, 4)
        if how == "reset":
            client.send(reset(1, CANCEL))
            client.lives()
        elif how == "abort":
            client.abort()
        else:
            client.send(reset(1, CANCEL), b"\0\0\x08\x07\0\0\0\0\0" + bytes(8))
        assert gone.wait(10)
    finally:
        client.close()


def test_kept_connection_is_not_poisoned_by_a_reset(take):
    """What is left of a cancelled answer never becomes that of another request."""
    service = take(lambda peer, number: peer.serve(b"x" * 100_000))
    with connect(service) as client:
        for number in range(40):
            stream = 4 * number + 1
            first, second = request(service, below=b"/first"), request(service, below=b"/second")
            client.send(headers(stream, first), reset(stream, CANCEL), headers(stream + 2, second))
            whole = client.answer(stream + 2, refill=True)
            assert whole.body.startswith(service.path.encode() + b"/second ")
            assert len(whole.body) == len(service.path) + len("/second ") + 100_000


# -- requests


def upload(client: Http2Client, stream: int, body: bytes) -> None:
    """Send a body within the gateway's windows, by counting what it gives back."""
    initial = client.settings.get(INITIAL_WINDOW_SIZE, DEFAULT_WINDOW)
    room = {0: DEFAULT_WINDOW + client.given.get(0, 0), stream: initial + client.given.get(stream, 0)}
    given = dict(client.given)
    position = 0
    while position < len(body):
        for each in room:
            room[each] += client.given.get(each, 0) - given.get(each, 0)
        given = dict(client.given)
        size = min(DEFAULT_FRAME, len(body) - position, *room.values())
        if size <= 0:
            assert client.next() is not None, client.described()
            continue
        client.send(data(stream, body[position : position + size]))
        position += size
        for each in room:
            room[each] -= size
    client.send(data(stream, end=True))


@pytest.mark.parametrize("length", [True, False], ids=["length", "no length"])
def test_large_body(take, length):
    """10 MiB through the gateway's windows, which it gives back as the service takes the body."""
    body = pattern(10 * MIB)
    digests = []

    def play(peer, number):
        while (received := peer.head()) is not None:
            digests.append(hashlib.sha256(peer.body(received)).digest())
            peer.send(answer(b"done"))

    service = take(play)
    with connect(service) as client:
        fields = [(b"content-length", b"%d" % len(body))] if length else []
        client.send(headers(1, request(service, *fields, method=b"POST"), end=False))
        upload(client, 1, body)
        assert client.answer().body == b"done"
    assert digests == [hashlib.sha256(body).digest()]


def test_two_large_bodies_at_once_on_one_connection(take):
    """A body that nobody takes does not hold up another stream."""
    release = threading.Event()
    body = pattern(4 * MIB)

    def play(peer, number):
        while (received := peer.head()) is not None:
            if received.target.endswith(b"/stuck"):
                assert release.wait(20)
            peer.send(answer(hashlib.sha256(peer.body(received)).hexdigest().encode()))

    service = take(play)
    with connect(service) as client:
        client.send(headers(1, request(service, method=b"POST", below=b"/stuck"), end=False))
        initial = client.settings.get(INITIAL_WINDOW_SIZE, DEFAULT_WINDOW)
        stuck = min(initial, DEFAULT_WINDOW // 2)
        for start in range(0, stuck, DEFAULT_FRAME):
            client.send(data(1, bytes(min(DEFAULT_FRAME, stuck - start))))
        client.send(headers(3, request(service, method=b"POST"), end=False))
        upload_beside(client, 3, body, stuck)
        assert client.answer(3).body == hashlib.sha256(body).hexdigest().encode()
        release.set()
        client.send(data(1, end=True))
        assert client.answer(1).body == hashlib.sha256(bytes(stuck)).hexdigest().encode()


def upload_beside(client: Http2Client, stream: int, body: bytes, already: int) -> None:
    """As `upload`, where so much of the connection's window is taken already."""
    client.given[0] = client.given.get(0, 0) - already
    upload(client, stream, body)


def test_body_waits_for_the_service(take):
    """Back-pressure: a service that does not read gets the client no further windows."""
    done = threading.Event()

    def play(peer, number):
        if peer.head() is not None:
            assert done.wait(20)

    service = take(play)
    try:
        with connect(service) as client:
            client.send(headers(1, request(service, method=b"POST"), end=False))
            sent: dict[int, int] = {}
            saturate(client, sent, 1)
            assert sent[1] < 32 * MIB
            client.lives()
    finally:
        done.set()


def test_body_beyond_the_gateways_window(take):
    """6.9.1: a client that sends more than it may is told so."""
    done = threading.Event()

    def play(peer, number):
        if peer.head() is not None:
            assert done.wait(20)

    service = take(play)
    try:
        with connect(service) as client:
            before = service.gateway.memory("VmRSS")
            client.send(headers(1, request(service, method=b"POST"), end=False))
            for _ in range(48 * MIB // DEFAULT_FRAME):
                client.drain()
                if client.ended or client.answers[1].over or not client.send(data(1, bytes(DEFAULT_FRAME))):
                    break
            client.drain()
            while not client.ended and not client.answers[1].over and client.next() is not None:
                pass
            said = {*client.goaways, client.answers[1].reset} - {None}
            assert client.ended or said
            assert said <= {FLOW_CONTROL_ERROR, ENHANCE_YOUR_CALM}
            assert service.gateway.memory("VmRSS") - before < ROOM
    finally:
        done.set()


def windows(client: Http2Client, stream: int) -> tuple[int, int]:
    """What a new stream and the connection may carry as the gateway has said so far."""
    initial = client.settings.get(INITIAL_WINDOW_SIZE, DEFAULT_WINDOW)
    return initial + client.given.get(stream, 0), DEFAULT_WINDOW + client.given.get(0, 0)


def saturate(client: Http2Client, sent: dict[int, int], stream: int) -> tuple[int, int]:
    """Send a body until the gateway gives nothing back any more; what is left of the stream's window and of all."""
    sent.setdefault(stream, 0)
    quiet = 0
    while True:
        own, shared = windows(client, stream)
        own, shared = own - sent[stream], shared - sum(sent.values())
        size = min(own, shared, DEFAULT_FRAME)
        if size > 0:
            client.send(data(stream, bytes(size)))
            sent[stream] += size
            quiet = 0
            assert sent[stream] < 64 * MIB, "the gateway takes it all"
        elif client.comes(0.05):
            assert not client.ended, client.described()
        elif quiet == 4:
            return own, shared
        else:
            quiet += 1
            client.fence()


@pytest.fixture
def stuck(take):
    """A service that takes nothing of any body until the test ends."""
    done = threading.Event()

    def play(peer, number):
        received = peer.head()
        if received is not None and received.method == b"GET":
            peer.send(answer(b"fine"))
        elif received is not None:
            assert done.wait(20)

    yield take(play)
    done.set()


def test_one_stream_beyond_its_window(stuck):
    """6.9.1: a stream error; the others have their answers."""
    with connect(stuck) as client:
        client.send(headers(1, request(stuck, method=b"POST"), end=False))
        own, shared = saturate(client, {}, 1)
        # What has been paid back need not have been said yet: up to a window of it.
        beyond = client.settings.get(INITIAL_WINDOW_SIZE, DEFAULT_WINDOW)
        assert own == 0
        assert shared > beyond
        client.send(*[data(1, bytes(DEFAULT_FRAME)) for _ in range(beyond // DEFAULT_FRAME)], data(1, b"x"))
        client.refuses(1, FLOW_CONTROL_ERROR)
        assert not client.goaways
        client.send(headers(3, request(stuck)))
        assert client.answer(3).body == b"fine"


def test_streams_beyond_the_window_of_all(stuck):
    """6.9.1: a connection error, where each stream is within its own."""
    with connect(stuck) as client:
        sent: dict[int, int] = {}
        for stream in range(1, 2 * client.settings[MAX_CONCURRENT_STREAMS], 2):
            client.send(headers(stream, request(stuck, method=b"POST"), end=False))
            own, shared = saturate(client, sent, stream)
            if own > shared:
                break
        assert own > shared >= 0
        client.send(data(stream, bytes(shared + 1)))
        client.breaks(FLOW_CONTROL_ERROR)


def test_body_that_goes_on_behind_a_refusal(take):
    """8.1: what is on its way is forgotten, and past a bound the client is told to stop; the connection lives."""
    service = take(lambda peer, number: peer.serve())
    with connect(service) as client:
        client.send(headers(1, request(service, (b"content-length", b"%d" % (100 * MIB)), method=b"POST"), end=False))
        assert client.answer().status == 413
        sent = 0
        while client.answers[1].reset is None:
            own, shared = windows(client, 1)
            size = min(DEFAULT_FRAME, own - sent, shared - sent)
            if size <= 0:
                assert client.next() is not None, client.described()
                continue
            client.send(data(1, bytes(size)))
            sent += size
            assert sent < 8 * MIB, "it may go on for ever"
            client.fence()
        assert client.answers[1].reset == NO_ERROR
        client.send(headers(3, request(service)))
        assert client.answer(3).status == 200
        client.lives()


def test_body_that_is_refused_early(take):
    """8.1: the answer comes whole before the body has been sent, and the connection lives."""
    service = take(lambda peer, number: peer.serve())
    with connect(service) as client:
        length = (b"content-length", b"%d" % (100 * MIB))
        client.send(headers(1, request(service, length, method=b"POST"), end=False))
        whole = client.answer()
        assert (whole.status, whole.complete) == (413, True)
        client.send(data(1, bytes(DEFAULT_FRAME)), headers(3, request(service)))
        assert client.answer(3).status == 200
        client.lives()


def test_service_that_answers_before_the_body(take):
    """8.1: an early answer is relayed whole; the rest of the body goes nowhere."""

    def play(peer, number):
        received = peer.head()
        if received is not None and received.method == b"POST":
            peer.send(answer(b"enough", "Connection: close", status="403 Forbidden"))
            peer.until_gone()
        elif received is not None:
            peer.send(answer(b"next"))

    service = take(play)
    with connect(service) as client:
        client.send(headers(1, request(service, method=b"POST"), end=False), data(1, b"begun"))
        whole = client.answer()
        assert (whole.status, whole.body, whole.complete) == (403, b"enough", True)
        client.send(data(1, b"more"), data(1, b"and more", end=True), headers(3, request(service)))
        assert client.answer(3).body == b"next"
        client.lives()


def test_client_that_cancels_its_body(take):
    """The service's connection is closed: a cut body has no clean end."""
    asked, cut = threading.Event(), threading.Event()

    def play(peer, number):
        received = peer.head()
        if received is None:
            return
        asked.set()
        with pytest.raises(AssertionError):
            peer.body(received)
        cut.set()

    service = take(play)
    with connect(service) as client:
        client.send(headers(1, request(service, method=b"POST"), end=False), data(1, b"half"))
        assert asked.wait(10)
        client.send(reset(1, CANCEL))
        assert cut.wait(10)
        client.lives()


# -- the end


def test_drain(tmp_path: Path):
    """SIGTERM: GOAWAY, what is under way is answered, then the connection ends; nothing new begins."""
    go = threading.Event()
    asked = threading.Event()

    def play(peer, number):
        if peer.head() is not None:
            asked.set()
            assert go.wait(20)
            peer.send(answer(b"late"))

    with Services(tmp_path, 1, {"timeouts": {"drain": "10s"}}) as services:
        service = services.take(play)
        with service.origin, connect(service) as client:
            client.send(headers(1, request(service)))
            assert asked.wait(10)
            services.gateway.signal(15)
            while not client.goaways:
                assert client.next() is not None, client.described()
            go.set()
            assert client.answer().body == b"late"
            client.end()
            assert set(client.goaways) == {NO_ERROR}
            assert services.gateway.process.wait(20) == 0
