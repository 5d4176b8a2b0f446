"""GETs off the data path: one connection each, bounded, cut off at once; in memory, and over TLS for real."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.threads import deferToThread

from koder_gateway.upstream.fetch import Fetcher, FetchError
from koder_gateway.upstream.tls_endpoint import SecureEndpoint
from koder_gateway.upstream.trust import read_trust
from tests.kit.authority import write_certificate
from tests.kit.memory import MemoryReactor, Origin, Peer
from tests.kit.waiting import PATIENCE

LIMIT = 1 << 20
URL = "http://127.0.0.1:4005/v1/list?all=1"


class Asked:
    """A fetcher, the network that it asks over, and what each question came to: an answer, or an exception."""

    def __init__(self, url: str = URL) -> None:
        self.reactor = MemoryReactor()
        self.origin = self.reactor.origins[4005] = Origin()
        self.fetcher = Fetcher(self.reactor, TCP4ClientEndpoint(self.reactor, "127.0.0.1", 4005, 2), url, LIMIT)
        self.results: list[Any] = []

    def ask(self, **headers: str) -> Peer:
        """Ask; the service's end of the connection."""
        self.begin(**headers)
        return self.origin.last

    def begin(self, **headers: str) -> None:
        asking = self.fetcher.get(headers)
        asking.addCallbacks(lambda fetched: fetched[:3], lambda failure: failure.value)
        asking.addCallback(self.results.append)
        self.turn()

    def turn(self) -> None:
        for _ in range(3):
            self.reactor.advance(0)

    def finish(self) -> None:
        """Let whoever waits for a turn have it."""
        while len(self.fetcher.turns):
            self.turn()

    @property
    def fault(self) -> str:
        """Why the only question so far was not answered."""
        (result,) = self.results
        assert isinstance(result, FetchError), result
        return str(result)


@pytest.fixture
def asked() -> Iterator[Asked]:
    """Each test's; whatever it did, nothing may stay scheduled."""
    asked = Asked()
    yield asked
    asked.fetcher.cut()
    asked.turn()
    assert asked.reactor.getDelayedCalls() == []


def test_a_question_and_its_answer(asked: Asked) -> None:
    service = asked.ask(Accept="application/json")
    head, *fields = service.take().split(b"\r\n")
    assert head == b"GET /v1/list?all=1 HTTP/1.1"
    named = dict(field.lower().split(b": ", 1) for field in fields if field)
    assert named[b"host"] == b"127.0.0.1:4005"
    assert named[b"connection"] == b"close"
    assert named[b"accept"] == b"application/json"
    service.send(b'HTTP/1.1 200 OK\r\nETag: "7"\r\nContent-Length: 5\r\n\r\nhel')
    assert asked.results == []
    service.send(b"lo")
    assert asked.results == [(200, '"7"', b"hello")]
    assert service.closed == "clean"


@pytest.mark.parametrize(
    ("url", "target", "host"),
    [
        ("http://[::1]:4005/", b"/", b"[::1]:4005"),
        ("http://other.example", b"/", b"other.example"),
        ("https://127.0.0.1/%C3%A4/b%2fc?q=%2f", b"/%C3%A4/b%2fc?q=%2f", b"127.0.0.1"),
    ],
)
def test_the_endpoint_is_asked_whatever_the_url_says(url: str, target: bytes, host: bytes) -> None:
    asked = Asked(url)
    service = asked.ask()
    lines = service.take().split(b"\r\n")
    assert lines[0] == b"GET %b HTTP/1.1" % target
    assert [line for line in lines if line.lower().startswith(b"host:")] == [b"Host: " + host]
    service.send(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert asked.results == [(204, "", b"")]


def test_redirects_and_cookies_are_not_followed(asked: Asked) -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 0\r\n\r\n"
    asked.ask().send(moved)
    assert asked.results == [(302, "", b"")]
    assert len(asked.origin.connections) == 1
    assert b"cookie" not in asked.ask().take().lower()
    assert len(asked.origin.connections) == 2


def test_an_unmodified_answer_has_no_body(asked: Asked) -> None:
    asked.ask().send(b'HTTP/1.1 304 Not Modified\r\nETag: W/"7"\r\nContent-Length: 500\r\n\r\n')
    assert asked.results == [(304, 'W/"7"', b"")]


@pytest.mark.parametrize("fields", [b'ETag: "a"\r\nETag: "b"', b'ETag: "\xff"', b"Server: none"])
def test_an_etag_that_cannot_be_sent_back_is_none(asked: Asked, fields: bytes) -> None:
    asked.ask().send(b"HTTP/1.1 200 OK\r\n%b\r\nContent-Length: 0\r\n\r\n" % fields)
    assert asked.results == [(200, "", b"")]


def test_a_body_may_end_with_its_connection(asked: Asked) -> None:
    service = asked.ask().send(b"HTTP/1.1 200 OK\r\n\r\nall")
    service.close()
    assert asked.results == [(200, "", b"all")]


def test_a_compressed_answer(asked: Asked) -> None:
    body = gzip.compress(b"x" * 100_000)
    service = asked.ask()
    assert b"accept-encoding: gzip" in service.take().lower()
    service.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    assert asked.results == [(200, "", b"x" * 100_000)]


@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1])
def test_a_body_has_a_limit(asked: Asked, size: int) -> None:
    """Without a length it is known when it comes."""
    service = asked.ask().send(b"HTTP/1.1 200 OK\r\n\r\n")
    service.send_in([b"x" * 65536] * 16)
    asked.finish()
    assert asked.results == []
    if size == LIMIT:
        service.close()
        assert asked.results == [(200, "", b"x" * LIMIT)]
    else:
        service.send(b"x")
        assert asked.results == [(200, "", None)]
        assert service.closed == "reset"


def test_a_body_that_says_that_it_is_too_long_is_not_read(asked: Asked) -> None:
    service = asked.ask().send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (LIMIT + 1))
    assert asked.results == [(200, "", None)]
    assert service.closed == "reset"


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("piece", [1 << 20, 100_000, 4096])
@pytest.mark.parametrize("head", [CHUNKED, b"HTTP/1.1 200 OK\r\n\r\n"], ids=["chunked", "until-close"])
def test_a_body_that_is_too_long_has_one_reason_however_it_comes(asked: Asked, head: bytes, piece: int) -> None:
    """Also where one read takes it over both bounds, that of the body and that of all bytes."""
    body = b"%x\r\n%b\r\n" % (8 * LIMIT, b" " * 8 * LIMIT) if head == CHUNKED else b" " * 8 * LIMIT
    service = asked.ask().send(head)
    for start in range(0, len(body), piece):
        if service.closed:
            break
        service.send(body[start : start + piece])
        asked.finish()
    assert asked.results == [(200, "", None)]
    assert service.closed == "reset"


def test_framing_without_a_body_is_too_long_as_well(asked: Asked) -> None:
    service = asked.ask().send(CHUNKED)
    while not service.closed:
        service.send(b"1;%b\r\nx\r\n" % (b"e" * 900) * 40)
        asked.finish()
    assert asked.fault == f"is longer than {LIMIT} bytes"


# -- turns


def test_a_large_read_is_handed_on_a_slice_a_turn(asked: Asked) -> None:
    """Others have their turn in between; nothing more is read meanwhile."""
    turns, now = asked.fetcher.turns, [0.0]

    def time() -> float:
        now[0] += 0.0001
        return now[0]

    turns.time = time
    service = asked.ask().send(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n")
    service.near.arrive(b"x" * 200_000)
    assert service.near.paused
    assert (len(turns), asked.results) == (1, [])
    asked.finish()
    assert turns.yielded > 10
    assert asked.results == [(200, "", b"x" * 200_000)]


def test_what_came_before_the_end_of_the_connection_is_handed_on_before_it(asked: Asked) -> None:
    service = asked.ask().send(b"HTTP/1.1 200 OK\r\n\r\n")
    asked.fetcher.turns.time = iter(range(10_000)).__next__
    service.near.arrive(b"x" * 5000)
    service.near.lose(ConnectionDone())
    assert asked.results == []
    asked.finish()
    assert asked.results == [(200, "", b"x" * 5000)]


def test_a_question_that_is_cut_hands_nothing_on(asked: Asked) -> None:
    service = asked.ask().send(b"HTTP/1.1 200 OK\r\n\r\n")
    asked.fetcher.turns.time = iter(range(10_000)).__next__
    service.near.arrive(b"x" * 5000)
    service.near.lose(ConnectionDone())
    asked.fetcher.cut()
    asked.finish()
    (result,) = asked.results
    assert isinstance(result, CancelledError)


def test_what_was_compressed_counts_as_what_it_becomes(asked: Asked) -> None:
    bomb = gzip.compress(bytes(1 << 26))
    service = asked.ask().send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb))
    tracemalloc.start()
    try:
        service.send(bomb)
        _size, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert asked.results == [(200, "", None)]
    assert service.closed == "reset"
    assert peak < 10 * LIMIT


def test_a_head_has_a_limit(asked: Asked) -> None:
    service = asked.ask().send(b"HTTP/1.1 200 OK\r\n")
    service.send_in([b"X-More: %b\r\n" % (b"x" * 8000)] * 200)
    assert asked.fault == "its head is too long"
    assert service.closed == "reset"


@pytest.mark.parametrize("before", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"])
def test_a_head_is_bounded_by_itself_and_not_by_the_body_s_limit(asked: Asked, before: bytes) -> None:
    service = asked.ask().send(before)
    for _ in range(20):
        if service.closed:
            break
        service.send(b"a: bbbbbbbb\r\n" * 600)
    else:
        raise AssertionError("the head goes on")
    assert asked.fault == "its head is too long"


@pytest.mark.parametrize(
    "script",
    [
        [],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"],
    ],
)
def test_an_answer_cut_short_is_none(asked: Asked, script: list[bytes]) -> None:
    asked.ask().send_in(script).close()
    assert asked.fault == "Connection was closed cleanly."
    assert "\n" not in asked.fault


@pytest.mark.parametrize("junk", [b"SSH-2.0-OpenSSH_9.6\r\n\r\n", b"HTTP/1.1 xyz\r\n\r\n", b"\0" * 100_000])
def test_what_is_not_http_is_no_answer(asked: Asked, junk: bytes) -> None:
    service = asked.ask().send(junk)
    asked.turn()
    assert asked.fault
    assert service.closed


def test_nobody_there(asked: Asked) -> None:
    asked.origin.answers = "refuse"
    asked.begin()
    assert asked.fault == "Connection was refused by other side."


def test_nobody_answers_the_connection(asked: Asked) -> None:
    asked.origin.answers = "ignore"
    asked.begin()
    asked.reactor.advance(2)
    assert "imeout" in asked.fault


@pytest.mark.parametrize("sent", [None, b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\nhal"])
def test_a_cut_ends_it_at_once(asked: Asked, sent: bytes | None) -> None:
    asked.origin.answers = "ignore" if sent is None else "accept"
    asked.begin()
    if sent is not None:
        asked.origin.last.send(sent)
    asked.fetcher.cut()
    (result,) = asked.results
    assert isinstance(result, CancelledError)
    assert [service.closed for service in asked.origin.connections] == ([] if sent is None else ["reset"])


def test_asking_again_cuts_off_what_was_asked_before(asked: Asked) -> None:
    first = asked.ask()
    second = asked.ask()
    assert first.closed == "reset"
    assert isinstance(asked.results[0], CancelledError)
    second.send(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert asked.results[1:] == [(204, "", b"")]


class Mute:
    """An HTTPS service in a thread that answers once and then never says goodbye."""

    def __init__(self, certificate: Path) -> None:
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificate)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.heard = threading.Event()
        """The client's own goodbye is here."""

    def serve(self) -> str:
        """Serve one client; how it has left, at last."""
        connection, _ = self._listener.accept()
        self._listener.close()
        connection.settimeout(PATIENCE)
        with self._context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(65536)
            secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            assert secured.recv(65536) == b""  # the client's close_notify, which stays unanswered
            self.heard.set()
            with socket.socket(fileno=secured.detach()) as bare:
                bare.settimeout(PATIENCE)
                try:
                    return "closed" if bare.recv(65536) == b"" else "open"
                except ConnectionResetError:
                    return "closed"


@pytest_twisted.ensureDeferred
async def test_a_peer_that_never_says_goodbye_is_left_behind(tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path, "localhost")
    mute = Mute(certificate)
    served = deferToThread(mute.serve)
    plain = TCP4ClientEndpoint(reactor, "127.0.0.1", mute.port)
    endpoint = SecureEndpoint(reactor, plain, "localhost", read_trust(certificate), PATIENCE)
    fetcher = Fetcher(reactor, endpoint, "https://localhost/", LIMIT)
    assert (await fetcher.get({}))[:3] == (200, "", b"ok")
    # A reset before it is read would take it away.
    assert await deferToThread(mute.heard.wait, PATIENCE)
    fetcher.cut()
    assert await served == "closed"
