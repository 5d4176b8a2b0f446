"""Messages as they come, both ways: first bytes, interim answers, trailers, old clients, and bounded memory."""

from __future__ import annotations

import contextlib
import hashlib
import select
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.clients import HOST, Client, request
from tests.kit.gateways import KERNEL_RECEIVES, KERNEL_SENDS, GatewayProcess, Service, Services, configuration
from tests.kit.services import Origin, Peer, answer
from tests.kit.waiting import PATIENCE, until

CHUNKED = "Transfer-Encoding: chunked"
MIB = 1 << 20


@pytest.fixture(scope="module", params=["uvloop", "epoll"])
def services(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """A gateway on each reactor whose deadlines nothing here meets."""
    folder = tmp_path_factory.mktemp("streaming")
    with Services(
        folder, 60, {"requests": {"max_body": "64MiB", "allow_trailers": ["X-Checksum"]}}, reactor=request.param
    ) as services:
        yield services


Take = Callable[[Callable[[Peer, int], object]], Service]


@pytest.fixture
def take(services: Services) -> Iterator[Take]:
    """Hands out services of the test's own; at its end their plays must have found nothing wrong."""
    taken: list[Service] = []

    def take(play: Callable[[Peer, int], object]) -> Service:
        taken.append(services.take(play))
        return taken[-1]

    yield take
    for service in taken:
        service.origin.__exit__(None, None, None)


over = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])


def head(*fields: str, status: str = "200 OK", version: str = "1.1") -> bytes:
    return "\r\n".join([f"HTTP/{version} {status}", *fields, "", ""]).encode()


def upload_head(path: str, *fields: str, method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {HOST}", *fields, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


# Downloads.


@over
@pytest.mark.parametrize("framing", ["chunked", "length", "until-close"])
def test_every_event_is_there_before_the_next_one_is_sent(take: Take, tls: bool, framing: str) -> None:
    events = [b"data: %d\n\n" % number for number in range(20)]
    taken = threading.Semaphore(0)

    def play(peer: Peer, number: int) -> None:
        assert peer.head() is not None
        fields = {"chunked": [CHUNKED], "length": [f"Content-Length: {sum(map(len, events))}"], "until-close": []}
        peer.send(head("Content-Type: text/event-stream", *fields[framing]))
        for event in events:
            assert taken.acquire(timeout=PATIENCE), "the client did not get what was sent before"
            peer.send(chunk(event) if framing == "chunked" else event)
        if framing == "chunked":
            peer.send(b"0\r\n\r\n")

    service = take(play)
    with service.connect(tls=tls) as client:
        client.send(request("GET", service.path, "Accept: text/event-stream"))
        seen = client.head()
        assert seen.status == 200
        assert seen.get("content-type") == "text/event-stream"
        received = b""
        for event in events:
            taken.release()
            while (event if framing == "length" else chunk(event)) not in received:
                received += client.receive()
        while framing != "length" and not received.endswith(b"\r\n0\r\n\r\n"):
            received += client.receive()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_pieces_come_together_to_what_was_sent(take: Take, method: str) -> None:
    body = bytes(range(256)) * 4096

    def play(peer: Peer, number: int) -> None:
        received = peer.head()
        assert received is not None
        peer.body(received)
        peer.send(head(CHUNKED))
        for start in range(0, len(body), 40_000):
            peer.send(chunk(body[start : start + 40_000]))
        peer.send(b"0\r\n\r\n")
        peer.serve()

    service = take(play)
    with service.connect() as client:
        seen = client.ask(method, service.path)
        assert seen.complete
        assert seen.body == body
        assert seen.get("transfer-encoding") == "chunked"
        assert client.ask("GET", service.path).body.endswith(b" fresh")
    assert service.origin.accepted == 1


@pytest.mark.parametrize("asks", ["1.1", "1.0", "1.0 keep-alive"])
@pytest.mark.parametrize("framing", ["chunked", "length", "until-close", "1.0 until-close", "1.0 keep-alive"])
def test_each_framing_reaches_each_client_in_a_form_that_it_knows(take: Take, asks: str, framing: str) -> None:
    def play(peer: Peer, number: int) -> None:
        if peer.head() is None:
            return
        if framing == "chunked":
            peer.send(head(CHUNKED) + chunk(b"hello") + chunk(b" world") + b"0\r\n\r\n")
        elif framing == "length":
            peer.send(answer(b"hello world"))
        elif framing == "1.0 keep-alive":
            peer.send(head("Connection: keep-alive", "Content-Length: 11", version="1.0") + b"hello world")
        else:
            peer.send(head(version="1.0" if framing.startswith("1.0") else "1.1") + b"hello world")
            return
        peer.serve()

    service = take(play)
    version, _, kept = asks.partition(" ")
    with service.connect() as client:
        fields = [f"Connection: {kept}"] if kept else []
        seen = client.ask("GET", service.path, *fields, version=version)
        assert (seen.status, seen.body, seen.ended) == (200, b"hello world", "complete")
        counted = framing in ("length", "1.0 keep-alive")
        assert seen.get("content-length") == ("11" if counted else None)
        assert seen.get("transfer-encoding") == ("chunked" if not counted and version == "1.1" else None)
        if version == "1.1" or (kept and counted):
            assert seen.get("connection") == ("keep-alive" if kept else None)
            assert client.ask("GET", service.path).status == 200
        else:
            assert seen.get("connection") == "close"
            client.assert_closed()


@pytest.mark.parametrize("length", [None, 1234])
@pytest.mark.parametrize(("method", "status"), [("HEAD", "200 OK"), ("GET", "304 Not Modified")])
def test_an_answer_without_a_body_keeps_its_length(take: Take, method: str, status: str, length: int | None) -> None:
    def play(peer: Peer, number: int) -> None:
        while peer.head() is not None:
            peer.send(head('ETag: "v1"', *([] if length is None else [f"Content-Length: {length}"]), status=status))

    service = take(play)
    with service.connect() as client:
        for _ in range(3):
            seen = client.ask(method, service.path)
            assert f"{seen.status} {seen.reason}" == status
            assert (seen.body, seen.get("etag")) == (b"", '"v1"')
            assert seen.get("content-length") == (None if length is None else str(length))
    assert service.origin.accepted == 1


def test_204_has_neither_body_nor_length(take: Take) -> None:
    def play(peer: Peer, number: int) -> None:
        while peer.head() is not None:
            peer.send(head("X-A: b", "Content-Length: 0", status="204 No Content"))

    service = take(play)
    with service.connect() as client:
        for _ in range(3):
            seen = client.ask("DELETE", service.path)
            assert (seen.status, seen.get("x-a")) == (204, "b")
            assert seen.get("content-length") is None
            assert seen.get("transfer-encoding") is None
    assert service.origin.accepted == 1


def test_trailers_of_an_answer_are_passed_on_but_for_those_that_could_do_harm(take: Take) -> None:
    def play(peer: Peer, number: int) -> None:
        assert peer.head() is not None
        trailers = b"X-Checksum: abc\r\nContent-Length: 5\r\nSet-Cookie: a=b\r\nAccess-Control-Allow-Origin: *\r\n"
        peer.send(head(CHUNKED, "Trailer: X-Checksum") + chunk(b"hello") + b"0\r\n" + trailers + b"\r\n")
        peer.serve()

    service = take(play)
    with service.connect() as client:
        seen = client.ask("GET", service.path)
        assert seen.body == b"hello"
        assert seen.get("trailer") == "X-Checksum"
        names = [name for name, _ in seen.trailers]
        assert (b"X-Checksum", b"abc") in seen.trailers
        assert b"Content-Length" not in names
        assert b"Access-Control-Allow-Origin" not in names
        assert client.ask("GET", service.path).body.endswith(b" fresh")


# Uploads.


@over
@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_every_piece_of_an_upload_is_there_before_the_next_one_is_sent(take: Take, tls: bool, framing: str) -> None:
    pieces = [b"piece %d" % number for number in range(20)]
    got: list[bytes] = []

    def play(peer: Peer, number: int) -> None:
        received = peer.head()
        assert received is not None
        assert received.get("content-length" if framing == "chunked" else "transfer-encoding") is None
        got.append(b"")
        for piece in peer.pieces(received):
            got[0] += piece
        peer.send(answer(b"all"))
        peer.serve()

    service = take(play)
    with service.connect(tls=tls) as client:
        length = sum(map(len, pieces))
        client.send(upload_head(service.path, CHUNKED if framing == "chunked" else f"Content-Length: {length}"))
        for number, piece in enumerate(pieces, 1):
            client.send(chunk(piece) if framing == "chunked" else piece)
            sent = b"".join(pieces[:number])
            until(lambda sent=sent: got and got[0] == sent, "the service has what was sent")
        if framing == "chunked":
            client.send(b"0\r\n\r\n")
        assert client.read("POST").body == b"all"
        assert client.ask("GET", service.path).body.endswith(b" fresh")
    assert service.origin.accepted == 1


@pytest.mark.parametrize("framing", ["chunked", "length"])
@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 3 * MIB + 1])
def test_an_upload_of_any_size_arrives_whole(take: Take, size: int, framing: str) -> None:
    body = (bytes(range(251)) * (size // 251 + 1))[:size]
    got: list[bytes] = []

    def play(peer: Peer, number: int) -> None:
        while (received := peer.head()) is not None:
            got.append(peer.body(received))
            peer.send(answer(b"all"))

    service = take(play)
    with service.connect() as client:
        for _ in range(2):
            if framing == "chunked":
                pieces = (chunk(body[start : start + 70_000]) for start in range(0, size, 70_000))
                client.send(b"".join((upload_head(service.path, CHUNKED), *pieces, b"0\r\n\r\n")))
            else:
                client.send(upload_head(service.path, f"Content-Length: {size}") + body)
            assert client.read("POST").body == b"all"
    assert got == [body, body]


@pytest.mark.parametrize("at_once", [True, False], ids=["at-once", "apart"])
def test_trailers_of_an_upload_are_passed_on_but_for_those_that_could_do_harm(take: Take, at_once: bool) -> None:
    trailers: list[list[bytes]] = []

    def play(peer: Peer, number: int) -> None:
        received = peer.head()
        assert received is not None
        assert peer.body(received) == b"hello"
        trailers.append(peer.trailers)
        peer.send(answer(b"all"))

    service = take(play)
    with service.connect() as client:
        parts = [
            upload_head(service.path, CHUNKED, "Trailer: X-Checksum"),
            chunk(b"hello"),
            b"0\r\nX-Checksum: abc\r\nContent-Length: 5\r\nAuthorization: evil\r\n",
            b"X-Tenant-ID: evil\r\nHost: evil\r\n\r\n",
        ]
        if at_once:
            client.send(b"".join(parts))
        else:
            head, body, *rest = parts
            client.send(head)
            for part in (body, *rest):
                client.send(part)
                until(lambda: service.origin.accepted, "the service has met the request")
        assert client.read("POST").body == b"all"
    assert trailers == [[b"X-Checksum: abc"]]


def test_answer_and_upload_stream_at_the_same_time(take: Take) -> None:
    def play(peer: Peer, number: int) -> None:
        received = peer.head()
        assert received is not None
        peer.send(head(CHUNKED))
        for piece in peer.pieces(received):
            peer.send(chunk(piece))
        peer.send(b"0\r\n\r\n")

    service = take(play)
    with service.connect() as client:
        client.send(upload_head(service.path, "Content-Length: 100") + b"piece 0000")
        assert client.head().status == 200
        received = b""
        for number in range(10):
            if number:
                client.send(b"piece %04d" % number)
            while chunk(b"piece %04d" % number) not in received:
                received += client.receive()
        while not received.endswith(b"\r\n0\r\n\r\n"):
            received += client.receive()


# Interim answers.

EXPECTS = "Expect: 100-continue"


def test_a_client_that_expects_100_gets_it_before_a_service_is_asked(take: Take) -> None:
    def play(peer: Peer, number: int) -> None:
        received = peer.head()
        assert received is not None
        assert received.get("expect") is None
        peer.send(head(status="100 Continue"))  # nobody has asked for it
        assert peer.body(received) == b"hello"
        peer.send(answer(b"all"))
        peer.serve()

    service = take(play)
    with service.connect() as client:
        client.send(upload_head(service.path, "Content-Length: 5", EXPECTS))
        assert client.head().status == 100
        assert service.origin.accepted == 0
        client.send(b"hello")
        seen = client.read("POST")
        assert (seen.status, seen.body, seen.interim) == (200, b"all", [])
        assert client.ask("GET", service.path).body.endswith(b" fresh")
    assert service.origin.accepted == 1


def test_a_client_that_does_not_wait_for_100_is_not_held_up(take: Take) -> None:
    def play(peer: Peer, number: int) -> None:
        received = peer.head()
        assert received is not None
        assert peer.body(received) == b"hello"
        peer.send(answer(b"all"))

    service = take(play)
    with service.connect() as client:
        client.send(upload_head(service.path, "Content-Length: 5", EXPECTS) + b"hello")
        assert client.read("POST").body == b"all"


def test_an_http_1_0_client_gets_no_interim_answer(take: Take) -> None:
    def play(peer: Peer, number: int) -> None:
        received = peer.head()
        assert received is not None
        peer.send(head(status="103 Early Hints"))
        peer.body(received)
        peer.send(answer(b"all"))

    service = take(play)
    with service.connect() as client:
        seen = client.ask("POST", service.path, EXPECTS, body=b"hello", version="1.0")
        assert (seen.status, seen.interim) == (200, [])


def test_103_is_relayed_at_once_with_its_fields(take: Take) -> None:
    hinted = threading.Event()

    def play(peer: Peer, number: int) -> None:
        assert peer.head() is not None
        peer.send(head("Link: </a.css>; rel=preload", "Connection: X-Hop", "X-Hop: 1", status="103 Early Hints"))
        assert hinted.wait(PATIENCE)
        peer.send(head("Link: </b.css>; rel=preload", status="103 Early Hints") + answer(b"page"))
        peer.serve()

    service = take(play)
    with service.connect() as client:
        client.send(request("GET", service.path))
        first = client.head()
        assert (first.status, first.get("link"), first.get("x-hop")) == (103, "</a.css>; rel=preload", None)
        hinted.set()
        seen = client.read()
        assert [each.get("link") for each in seen.interim] == ["</b.css>; rel=preload"]
        assert (seen.status, seen.body, seen.get("link")) == (200, b"page", None)
        assert client.ask("GET", service.path).body.endswith(b" fresh")


# Order.


def test_pipelined_requests_are_answered_in_order_though_the_first_is_slow(take: Take) -> None:
    asked: list[str] = []
    release = threading.Event()

    def play(peer: Peer, number: int) -> None:
        while (received := peer.head()) is not None:
            asked.append(received.target.decode())
            body = peer.body(received)
            if received.target.endswith(b"/0"):
                assert release.wait(PATIENCE)
            peer.send(answer(received.target + body))

    service = take(play)
    with service.connect() as client:
        requests = [
            request("POST" if number % 3 else "GET", f"{service.path}/{number}", body=b"!" * (number % 3))
            for number in range(40)
        ]
        client.send(b"".join(requests))
        until(lambda: asked, "the first is asked")
        release.set()
        for number in range(40):
            assert client.read().body == f"{service.path}/{number}".encode() + b"!" * (number % 3)
    assert asked == [f"{service.path}/{number}" for number in range(40)]


# Slow clients.


@over
@pytest.mark.parametrize("asks", ["1.0", "1.1 close"])
def test_a_slow_client_gets_all_of_an_answer_that_closes_its_connection(tmp_path: Path, asks: str, tls: bool) -> None:
    """The connection is closed when the client has everything, not some time after it was written."""
    sizes = [number * 96 * 1024 for number in range(1, 60, 2)]

    def play(peer: Peer, number: int) -> None:
        while (received := peer.head()) is not None:
            peer.send(answer(b"z" * int(received.target.rpartition(b"/")[2])))

    with Origin(play) as origin, contextlib.ExitStack() as stack:
        config = configuration({"a": origin.url}, {"timeouts": {"linger": "100ms", "head": "1s"}})
        gateway = stack.enter_context(
            GatewayProcess(tmp_path, config, ports=(GatewayProcess.PLAIN, GatewayProcess.TLS))
        )
        clients: dict[int, Client] = {}
        version, _, option = asks.partition(" ")
        fields = [f"Connection: {option}"] if option else []
        for size in sizes:
            # Each asks at once: the time for a head is short.
            client = clients[size] = stack.enter_context(gateway.connect(tls=tls, receive_buffer=16384))
            client.send(request("GET", f"/a/{size}", *fields, version=version))
        until(gateway.access, "an exchange has ended")
        # Somebody else's deadline, which is later than any that could be meant for them.
        with gateway.connect() as another:
            assert another.read().ended == "nothing"
        for size, client in clients.items():
            seen = client.read()
            assert (len(seen.body), seen.ended) == (size, "complete")


# Memory. The payload is never held: one side makes it up, the other counts it.

SIZE = 1024 * MIB
ALLOWED = 16 * MIB
BLOCK = hashlib.shake_128(b"block").digest(MIB)
# Sent and not read yet, of a client with a small buffer of its own and of a service: what the kernel keeps is most
# of it, by machine more or less; without back-pressure it would be hundreds.
DOWN = max(64 * MIB, KERNEL_RECEIVES + 2 * KERNEL_SENDS + ALLOWED)
UP = max(64 * MIB, 2 * (KERNEL_RECEIVES + KERNEL_SENDS) + ALLOWED)
# How often the reader stops until nothing moves any more.
PAUSES = 8


@pytest.fixture(scope="module")
def bulk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """A gateway that lets uploads of a gigabyte pass."""
    with Services(tmp_path_factory.mktemp("bulk"), 8, {"requests": {"max_body": "2GiB"}}) as services:
        yield services


class Sender:
    """Sends SIZE bytes and says when the other side has not taken any for a while."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.sent = 0
        self.stuck = threading.Event()

    def run(self) -> None:
        """Send everything."""
        self._connection.settimeout(None)
        while self.sent < SIZE:
            if not select.select([], [self._connection], [], 0.05)[1]:
                self.stuck.set()
                select.select([], [self._connection], [], PATIENCE)
            self.sent += self._connection.send(memoryview(BLOCK)[self.sent % MIB :])
            self.stuck.clear()


def read_in_steps(connection: Any, sender: Sender, begun: bytes = b"") -> int:
    """Read SIZE bytes, `begun` of which are here, but stop at every step until the sender is stuck; the most that was
    on its way then."""
    connection.settimeout(PATIENCE)
    buffer = bytearray(MIB)
    matches(0, memoryview(begun))
    taken, most = len(begun), 0
    for step in range(1, PAUSES + 1):
        assert sender.stuck.wait(PATIENCE) or sender.sent == SIZE, "the sender is never stopped"
        most = max(most, sender.sent - taken)
        while taken < SIZE * step // PAUSES:
            size = connection.recv_into(buffer, min(MIB, SIZE * step // PAUSES - taken))
            assert size, "the end comes too early"
            matches(taken, memoryview(buffer)[:size])
            taken += size
    return most


def matches(taken: int, data: memoryview) -> None:
    """What was received is what was sent."""
    start = taken % MIB
    first = min(len(data), MIB - start)
    assert data[:first] == memoryview(BLOCK)[start : start + first]
    assert data[first:] == memoryview(BLOCK)[: len(data) - first]


def warmed_up(service: Service, tls: bool) -> None:
    """What the gateway allocates once is there before memory is looked at."""
    with service.connect(tls=tls) as client:
        for _ in range(3):
            assert client.ask("GET", f"{service.path}/small").status == 200


@over
def test_a_gigabyte_down_through_a_slow_reader_costs_little_memory(bulk: Services, tls: bool) -> None:
    senders: list[Sender] = []
    met = threading.Event()

    def play(peer: Peer, number: int) -> None:
        while (received := peer.head()) is not None:
            if received.target.endswith(b"/small"):
                peer.send(answer(b"small"))
                continue
            peer.send(head(f"Content-Length: {SIZE}"))
            # The head by itself first, so that everything else is counted in one place.
            assert met.wait(PATIENCE)
            senders.append(Sender(peer.socket))
            senders[0].run()

    service = bulk.take(play)
    gateway = bulk.gateway
    with service.origin:
        warmed_up(service, tls)
        before = gateway.memory("VmRSS")
        gateway.forget_peak()
        with service.connect(tls=tls, receive_buffer=256 * 1024) as client:
            client.send(request("GET", service.path))
            assert client.head().get("content-length") == str(SIZE)
            met.set()
            until(lambda: senders, "the service sends")
            most = read_in_steps(client.socket, senders[0])
        extra = gateway.memory("VmHWM") - before
        assert extra < ALLOWED, f"{extra / MIB:.1f} MiB"
        assert most < DOWN


@over
def test_a_gigabyte_up_through_a_slow_reader_costs_little_memory(bulk: Services, tls: bool) -> None:
    senders: list[Sender] = []
    most: list[int] = []

    def play(peer: Peer, number: int) -> None:
        while (received := peer.head()) is not None:
            if received.target.endswith(b"/small"):
                peer.send(answer(b"small"))
                continue
            assert received.get("content-length") == str(SIZE)
            until(lambda: senders, "the client sends")
            begun = peer.take()
            most.append(read_in_steps(peer.socket, senders[0], begun))
            peer.send(answer(b"all"))

    service = bulk.take(play)
    gateway = bulk.gateway
    with service.origin:
        warmed_up(service, tls)
        before = gateway.memory("VmRSS")
        gateway.forget_peak()
        with service.connect(tls=tls) as client:
            client.send(upload_head(service.path, f"Content-Length: {SIZE}"))
            sender = Sender(client.socket)
            senders.append(sender)
            sender.run()
            client.socket.settimeout(PATIENCE)
            assert client.read("POST").body == b"all"
        extra = gateway.memory("VmHWM") - before
        assert extra < ALLOWED, f"{extra / MIB:.1f} MiB"
        assert most[0] < UP
