"""Faults of the service, over real sockets: what the client sees of each, and that the next request sees none of it.

A fault plays on the first connection to a service of its own; every further connection is served properly. What
a client may see is a refusal with its status and code, or the service's answer, complete or visibly cut.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kit.authority import write_certificate
from tests.kit.clients import HOST, Client, request
from tests.kit.gateways import GatewayProcess, Service, Services, configuration
from tests.kit.http1 import Message
from tests.kit.services import Origin, Peer, answer
from tests.kit.waiting import PATIENCE, until

INVALID = (502, "upstream_invalid")
CLOSED = (502, "upstream_closed")
UNREACHABLE = (502, "upstream_unreachable")
TIMEOUT = (504, "upstream_timeout")

Play = Callable[[Peer], object]


def hold(peer: Peer) -> None:
    """Leave the connection open: the gateway must end it."""
    peer.until_gone()


def close(peer: Peer) -> None:
    """Close in order."""


def reset(peer: Peer) -> None:
    """Close with a reset."""
    peer.reset()


@dataclass(frozen=True)
class Fault:
    """What a service does to its first request, and what its client sees of it: a refusal's status and code, or
    with code "" the service's own answer with this body, which is complete or cut."""

    name: str
    sends: bytes | Play
    sees: tuple[int, str]
    then: Play = hold
    method: str = "GET"
    body: bytes = b""
    complete: bool = True
    connections: int = 2

    def play(self, peer: Peer, number: int) -> None:
        """The service's side."""
        if number:
            peer.serve()
            return
        if callable(self.sends):
            self.sends(peer)
            return
        received = peer.head()
        assert received is not None
        peer.body(received)
        peer.send(self.sends)
        self.then(peer)


def refuses(name: str, sends: bytes | Play, sees: tuple[int, str] = INVALID, **more: object) -> Fault:
    """A fault before anything of an answer has been sent."""
    return Fault(name, sends, sees, **more)  # type: ignore[arg-type]


def cuts(name: str, sends: bytes, body: bytes, then: Play = close) -> Fault:
    """A fault within the body of an answer."""
    return Fault(name, sends, (200, ""), then=then, body=body, complete=False)


def passes(name: str, sends: bytes | Play, body: bytes = b"", status: int = 200, **more: object) -> Fault:
    """An oddity that the client sees nothing of."""
    return Fault(name, sends, (status, ""), body=body, **more)  # type: ignore[arg-type]


def head(*fields: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([status, *fields, "", ""]).encode("latin-1")


def closes_unread(peer: Peer) -> None:
    """A service that closes what it accepts."""


def resets_unread(peer: Peer) -> None:
    # Earlier the reset could be there before the connection, which is then made once more.
    select.select([peer.socket], [], [], PATIENCE)
    peer.reset()


def drips(peer: Peer) -> None:
    """A head of which a byte comes now and then, until the gateway has enough."""
    assert peer.head() is not None
    peer.socket.settimeout(0.05)
    for letter in b"HTTP/1.1 200 OK\r\nX-Slow: %b" % (b"z" * 2000):
        peer.send(bytes([letter]))
        with contextlib.suppress(TimeoutError):
            if not peer.more():
                return
    raise AssertionError("the gateway waits for ever")


def endless_head(peer: Peer) -> None:
    assert peer.head() is not None
    peer.send(b"HTTP/1.1 200 OK\r\n")
    for number in range(100_000):
        peer.send(b"X-Field-%d: %b\r\n" % (number, b"z" * 1000))
    raise AssertionError("the gateway takes a head without end")


def endless_interim(peer: Peer) -> None:
    assert peer.head() is not None
    for _ in range(100_000):
        peer.send(head("Link: </style.css>", status="HTTP/1.1 103 Early Hints"))
    raise AssertionError("the gateway takes interim answers without end")


def one_more_byte_at_a_time(data: bytes) -> Play:
    def play(peer: Peer) -> None:
        assert peer.head() is not None
        for letter in data:
            peer.send(bytes([letter]))
        peer.serve()

    return play


LENGTH = "Content-Length: 5"
CHUNKED = "Transfer-Encoding: chunked"

FAULTS = [
    # No answer.
    refuses("closed-before-head", b"", CLOSED, then=close),
    refuses("reset-before-head", b"", CLOSED, then=reset),
    refuses("closed-unread", closes_unread, CLOSED),
    refuses("reset-unread", resets_unread, (502, "")),
    refuses("reset-within-head", head(LENGTH)[:-2], CLOSED, then=reset),
    refuses("closed-within-head-post", head(LENGTH)[:-2], CLOSED, then=close, method="POST"),
    refuses("closed-before-head-post", b"", CLOSED, then=close, method="POST"),
    refuses("reset-before-head-post", b"", CLOSED, then=reset, method="POST"),
    refuses("never-answers", b"", TIMEOUT),
    refuses("never-answers-post", b"", TIMEOUT, method="POST"),
    refuses("slow-head", drips, TIMEOUT),
    refuses("interim-then-nothing", head(status="HTTP/1.1 103 Early Hints"), TIMEOUT),
    refuses("interim-then-closed", head(status="HTTP/1.1 103 Early Hints"), CLOSED, then=close),
    # No HTTP.
    refuses("garbage", b"\x00\xff\xfe garbage\r\n\r\n"),
    refuses("garbage-without-lines", b"\x16\x03\x01" + b"z" * 200),
    refuses("a-few-letters", b"HTT", CLOSED, then=close),
    refuses("http-09", b"<html>hello</html>", then=close),
    refuses("http-09-lines", b"<html>\r\n\r\nhello</html>", then=close),
    refuses("http-2", head(LENGTH, status="HTTP/2.0 200 OK") + b"hello"),
    refuses("http-12", head(LENGTH, status="HTTP/1.2 200 OK") + b"hello"),
    refuses("icy", head(LENGTH, status="ICY 200 OK") + b"hello"),
    refuses("request-instead", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    # Status lines.
    refuses("no-code", head(LENGTH, status="HTTP/1.1 OK") + b"hello"),
    refuses("short-code", head(LENGTH, status="HTTP/1.1 20 OK") + b"hello"),
    refuses("long-code", head(LENGTH, status="HTTP/1.1 2000 OK") + b"hello"),
    refuses("code-099", head(LENGTH, status="HTTP/1.1 099 OK") + b"hello"),
    refuses("code-600", head(LENGTH, status="HTTP/1.1 600 OK") + b"hello"),
    refuses("code-letters", head(LENGTH, status="HTTP/1.1 2x0 OK") + b"hello"),
    refuses("code-signed", head(LENGTH, status="HTTP/1.1 +20 OK") + b"hello"),
    refuses("space-before-version", head(LENGTH, status=" HTTP/1.1 200 OK") + b"hello"),
    refuses("two-spaces-in-status", head(LENGTH, status="HTTP/1.1  200 OK") + b"hello"),
    refuses("control-in-reason", head(LENGTH, status="HTTP/1.1 200 O\x01K") + b"hello"),
    refuses("cr-in-reason", head(LENGTH, status="HTTP/1.1 200 O\rK") + b"hello"),
    # Lengths.
    refuses("two-lengths", head(LENGTH, "Content-Length: 6") + b"hello!"),
    refuses("list-of-lengths", head("Content-Length: 5, 6") + b"hello!"),
    refuses("length-negative", head("Content-Length: -5") + b"hello"),
    refuses("length-signed", head("Content-Length: +5") + b"hello"),
    refuses("length-hex", head("Content-Length: 0x5") + b"hello"),
    refuses("length-letters", head("Content-Length: five") + b"hello"),
    refuses("length-empty", head("Content-Length:") + b"hello"),
    refuses("length-spaces", head("Content-Length: 5 5") + b"hello"),
    refuses("length-huge", head("Content-Length: 99999999999999999999999999") + b"hello"),
    refuses("length-and-chunks", head(LENGTH, CHUNKED) + b"5\r\nhello\r\n0\r\n\r\n"),
    refuses("chunks-and-length", head(CHUNKED, LENGTH) + b"5\r\nhello\r\n0\r\n\r\n"),
    refuses("unknown-coding", head("Transfer-Encoding: zip") + b"hello", then=close),
    refuses("coding-under-chunks", head("Transfer-Encoding: gzip, chunked") + b"5\r\nhello\r\n0\r\n\r\n"),
    refuses("chunked-twice", head(CHUNKED, CHUNKED) + b"5\r\nhello\r\n0\r\n\r\n"),
    refuses("chunks-in-http-10", head(CHUNKED, status="HTTP/1.0 200 OK") + b"5\r\nhello\r\n0\r\n\r\n"),
    refuses("odd-coding", head("Transfer-Encoding: \x0bchunked") + b"5\r\nhello\r\n0\r\n\r\n"),
    # Fields.
    refuses("huge-field", head(LENGTH, "X-Huge: " + "z" * 70_000) + b"hello"),
    refuses("many-fields", head(LENGTH, *(f"X-{number}: z" for number in range(300))) + b"hello"),
    refuses("endless-head", endless_head),
    refuses("nul-in-value", head(LENGTH, "X-Odd: a\x00b") + b"hello"),
    refuses("nul-in-name", head(LENGTH, "X-\x00Odd: b") + b"hello"),
    refuses("control-in-value", head(LENGTH, "X-Odd: a\x08b") + b"hello"),
    refuses("space-before-colon", head("Content-Length : 5") + b"hello"),
    refuses("tab-before-colon", head("Content-Length\t: 5") + b"hello"),
    refuses("space-in-name", head(LENGTH, "X Odd: a") + b"hello"),
    refuses("obs-fold", head(LENGTH, "X-Folded: a", " b") + b"hello"),
    refuses("obs-fold-tab", head(LENGTH, "X-Folded: a", "\tb") + b"hello"),
    refuses("folded-first", head(" X-Folded: a", LENGTH) + b"hello"),
    refuses("no-colon", head(LENGTH, "nonsense") + b"hello"),
    refuses("empty-name", head(LENGTH, ": a") + b"hello"),
    refuses("bare-lf", b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"),
    refuses("bare-lf-within", b"HTTP/1.1 200 OK\r\nX-A: b\nContent-Length: 5\r\n\r\nhello"),
    refuses("bare-cr-within", b"HTTP/1.1 200 OK\r\nX-A: b\rContent-Length: 5\r\n\r\nhello"),
    refuses("head-cut", b"HTTP/1.1 200 OK\r\nContent-Len", CLOSED, then=close),
    refuses("head-reset", b"HTTP/1.1 200 OK\r\nContent-Len", then=reset, sees=(502, "")),
    # Interim answers.
    refuses("unasked-101", head("Upgrade: websocket", "Connection: Upgrade", status="HTTP/1.1 101 Switching")),
    refuses("endless-interim", endless_interim),
    refuses("body-on-103", head(LENGTH, status="HTTP/1.1 103 Early Hints") + b"hello" + answer(b"later")),
    passes("several-interim", b"".join([head(status=f"HTTP/1.1 {n} X") for n in (100, 102, 103)]) + answer(b"ok"),
           b"ok", then=lambda peer: peer.serve(), connections=1),
    # Cut in the midst.
    cuts("length-cut", head("Content-Length: 10") + b"hello", b"hello"),
    cuts("length-reset", head("Content-Length: 10") + b"hello", b"hello", reset),
    cuts("length-stalled", head("Content-Length: 10") + b"hello", b"hello", hold),
    cuts("length-without-body", head("Content-Length: 10"), b""),
    cuts("chunks-cut", head(CHUNKED) + b"5\r\nhello\r\n", b"hello"),
    cuts("chunks-cut-within", head(CHUNKED) + b"a\r\nhello", b"hello"),
    cuts("chunks-cut-in-trailers", head(CHUNKED) + b"5\r\nhello\r\n0\r\nX-A: b\r\n", b"hello"),
    cuts("chunks-cut-before-last-line", head(CHUNKED) + b"5\r\nhello\r\n0\r\n", b"hello"),
    cuts("chunks-reset", head(CHUNKED) + b"5\r\nhello\r\n", b"hello", reset),
    cuts("chunks-stalled", head(CHUNKED) + b"5\r\nhello\r\n", b"hello", hold),
    refuses("chunk-size-hex", head(CHUNKED) + b"5\r\nhello\r\n0x5\r\nworld\r\n0\r\n\r\n"),
    refuses("chunk-size-signed", head(CHUNKED) + b"+5\r\nhello\r\n0\r\n\r\n"),
    refuses("chunk-size-empty", head(CHUNKED) + b"\r\nhello\r\n0\r\n\r\n"),
    refuses("chunk-size-huge", head(CHUNKED) + b"fffffffffffffffff\r\nhello"),
    refuses("chunk-size-over-63-bits", head(CHUNKED) + b"8000000000000000\r\nhello"),
    refuses("chunk-too-long", head(CHUNKED) + b"5\r\nhello!!\r\n0\r\n\r\n"),
    refuses("chunk-bare-lf", head(CHUNKED) + b"5\nhello\n0\n\n"),
    refuses("chunk-extension-empty", head(CHUNKED) + b"5;\r\nhello\r\n0\r\n\r\n"),
    refuses("chunk-extension-malformed", head(CHUNKED) + b"5;bad[=x\r\nhello\r\n0\r\n\r\n"),
    refuses("chunk-size-begins-badly", head(CHUNKED) + b"x"),
    refuses("second-chunk-malformed", head(CHUNKED) + b"5\r\nhello\r\n5;\r\nhello\r\n0\r\n\r\n"),
    passes("chunk-extension", head(CHUNKED, "Connection: close") + b"5;a=b\r\nhello\r\n0\r\n\r\n", b"hello"),
    refuses("trailer-folded", head(CHUNKED) + b"0\r\nX-A: b\r\n c\r\n\r\n"),
    refuses("trailer-malformed", head(CHUNKED) + b"0\r\nX A: b\r\n\r\n"),
    cuts("until-close-reset", head() + b"hello", b"hello", reset),
    cuts("until-close-stalled", head() + b"hello", b"hello", hold),
    # Complete, and more than that.
    passes("until-close", head() + b"hello", b"hello", then=close),
    passes("until-close-empty", head(), b"", then=close),
    passes("until-close-http-10", head(status="HTTP/1.0 200 OK") + b"hello", b"hello", then=close),
    passes("after-length", answer(b"hello") + b"surplus", b"hello"),
    passes("another-answer-after", answer(b"hello") + answer(b"evil"), b"hello"),
    passes("after-chunks", head(CHUNKED) + b"5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\nevil", b"hello"),
    passes("after-empty", answer() + answer(b"evil"), b""),
    passes("body-on-204", head(LENGTH, status="HTTP/1.1 204 No Content") + b"hello", status=204),
    passes("answer-on-204", head(status="HTTP/1.1 204 No Content") + answer(b"evil"), status=204),
    passes("body-on-304", head(LENGTH, status="HTTP/1.1 304 Not Modified") + b"hello", status=304),
    passes("body-on-head", answer(b"hello"), method="HEAD"),
    passes("chunks-on-head", head(CHUNKED) + b"5\r\nhello\r\n0\r\n\r\n", method="HEAD"),
    passes("one-byte-at-a-time", one_more_byte_at_a_time(head(CHUNKED) + b"5\r\nhello\r\n0\r\n\r\n"), b"hello",
           connections=1),
    passes("empty-reason", b"HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nhello", b"hello",
           then=lambda peer: peer.serve(), connections=1),
    passes("no-reason", b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", b"hello",
           then=lambda peer: peer.serve(), connections=1),
]  # fmt: skip

assert len({fault.name for fault in FAULTS}) == len(FAULTS)


# The deadlines of the gateway under test: long enough for what is not late. Its idle connections it leaves before the
# services lose their patience, however long all of this takes.
SECTIONS = {
    "timeouts": {
        "connect": "1s",
        "response": "1s",
        "idle": "1s",
        "linger": "1s",
        "body": "10s",
        "upstream_keepalive": "10s",
    }
}
DOORS = ("plain", "tls")


@dataclass(frozen=True)
class Seen:
    """What a client saw of a fault, whether its connection was closed after a cut, and what came next."""

    first: Message
    rest: bytes
    after: Message


def see(gateway: GatewayProcess, fault: Fault, path: str, tls: bool) -> Seen:
    """The client's side of a fault."""
    with gateway.connect(tls=tls) as client:
        first = client.ask(fault.method, f"{path}/first")
        rest = b"" if first.complete else client.rest()
    with gateway.connect(tls=tls) as client:
        return Seen(first, rest, client.ask("GET", f"{path}/next"))


@pytest.fixture(scope="module", params=["uvloop", "epoll"])
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What clients see of all faults, each at a service of its own, in both ways in, many at a time."""
    with contextlib.ExitStack() as stack:
        origins = {
            f"{door}-{fault.name}": stack.enter_context(Origin(fault.play)) for fault in FAULTS for door in DOORS
        }
        gateway = stack.enter_context(
            GatewayProcess(
                tmp_path_factory.mktemp("faults"),
                configuration({name: origin.url for name, origin in origins.items()}, SECTIONS),
                ports=(GatewayProcess.PLAIN, GatewayProcess.TLS),
                reactor=request.param,
            )
        )
        pool = stack.enter_context(ThreadPoolExecutor(12))
        yield {
            f"{door}-{fault.name}": (
                pool.submit(see, gateway, fault, f"/{door}-{fault.name}", door == "tls"),
                origins[f"{door}-{fault.name}"],
            )
            for fault in FAULTS
            for door in DOORS
        }


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_seen_for_what_it_is_and_only_once(seen: dict[str, Any], fault: Fault, door: str) -> None:
    future, origin = seen[f"{door}-{fault.name}"]
    got = future.result(PATIENCE)
    first = got.first
    status, code = fault.sees
    assert first.status == status, first
    if status >= 500:
        assert first.complete
        assert first.code == code or (not code and first.code.startswith("upstream_")), first
    else:
        assert first.body == fault.body
        assert first.complete is fault.complete, first
        assert got.rest == b""
    assert (got.after.status, got.after.complete) == (200, True)
    assert got.after.body == f"/{door}-{fault.name}/next fresh".encode()
    assert origin.accepted == fault.connections
    assert not origin.faults


# What plays one test at a time.

Take = Callable[..., Service]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with Services(tmp_path_factory.mktemp("services"), 60, SECTIONS) as services:
        yield services


@pytest.fixture(scope="module")
def lingering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Before a gateway that lingers for as long as any client may take to have its turn."""
    sections = {**SECTIONS, "timeouts": {**SECTIONS["timeouts"], "linger": f"{PATIENCE:g}s", "drain": "1s"}}
    with Services(tmp_path_factory.mktemp("lingering"), 1, sections) as services:
        yield services


@pytest.fixture
def take(services: Services) -> Iterator[Take]:
    """Hands out services of the test's own; at its end their plays must have found nothing wrong."""
    yield from hand_out(services)


@pytest.fixture
def take_lingering(lingering: Services) -> Iterator[Take]:
    """The same before the gateway that lingers."""
    yield from hand_out(lingering)


def hand_out(services: Services) -> Iterator[Take]:
    """Services of one test."""
    taken: list[Service] = []

    def take(play: Callable[[Peer, int], object], **options: bool) -> Service:
        taken.append(services.take(play, **options))
        return taken[-1]

    yield take
    for service in taken:
        service.origin.__exit__(None, None, None)


# The faults after which the client's own connection stays, since its framing was never in doubt.
@pytest.mark.parametrize(
    "name", ["garbage", "closed-before-head", "never-answers", "after-length", "body-on-204", "body-on-head"]
)
def test_the_client_s_connection_outlives_a_service_s_fault(take: Take, name: str) -> None:
    fault = next(fault for fault in FAULTS if fault.name == name)
    service = take(fault.play)
    with service.connect() as client:
        client.send(request(fault.method, f"{service.path}/first") + request("GET", f"{service.path}/next"))
        assert client.read(fault.method).status == fault.sees[0]
        assert client.read().body == f"{service.path}/next fresh".encode()


def test_an_http_1_0_client_sees_a_reset_where_nothing_else_would_show(take: Take) -> None:
    def play(peer: Peer, number: int) -> None:
        assert peer.head() is not None
        peer.send(head(CHUNKED) + b"5\r\nhello\r\n")

    service = take(play)
    with service.connect() as client:
        seen = client.ask("GET", service.path, version="1.0")
        assert (seen.status, seen.ended) == (200, "reset")


def test_refused_then_there(take: Take) -> None:
    service = take(lambda peer, number: peer.serve(), listening=False)
    with service.connect() as client:
        for method in ("GET", "POST"):
            seen = client.ask(method, service.path)
            assert (seen.status, seen.code) == UNREACHABLE
        service.origin.listen()
        assert client.ask("GET", service.path).status == 200


def test_a_service_that_does_not_take_the_connection(tmp_path: Path) -> None:
    """Its queue is full, so the kernel drops what asks for a connection."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        while True:
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0.2)
            try:
                filler.connect(listening.getsockname())
            except TimeoutError:
                break
        config = configuration({"a": f"http://127.0.0.1:{listening.getsockname()[1]}"}, SECTIONS)
        gateway = stack.enter_context(GatewayProcess(tmp_path, config))
        client = stack.enter_context(gateway.connect())
        seen = client.ask("GET", "/a")
        assert (seen.status, seen.code) == TIMEOUT


def test_a_dead_address_s_turn_goes_to_the_next_one(tmp_path: Path) -> None:
    with Origin() as origin, Origin(listening=False) as dead:
        config = configuration({"a": ""}).replace('a = ""', f'a = {{ urls = ["{dead.url}", "{origin.url}"] }}')
        with GatewayProcess(tmp_path, config) as gateway:
            for _ in range(6):
                with gateway.connect() as client:
                    assert client.ask("POST", "/a", body=b"once").body == b"/a fresh"


class Stale:
    """A service that answers one request on a connection, and closes it when the next one has come."""

    def __init__(self) -> None:
        self.heads: list[tuple[int, str, bytes]] = []

    def play(self, peer: Peer, number: int) -> None:
        for turn in range(2):
            received = peer.head()
            if received is None:
                return
            self.heads.append((number, received.method.decode(), peer.body(received)))
            if number == 0 and turn == 1:
                return
            peer.send(answer(b"%d" % number))
        peer.serve()


def retries(service: Service) -> float:
    return service.gateway.metrics()["koder_gateway_upstream_retries_total"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_a_kept_connection_that_dies_under_a_harmless_request_is_replaced_once(take: Take, method: str) -> None:
    stale = Stale()
    service = take(stale.play)
    before = retries(service)
    body = b"same" if method == "PUT" else b""
    with service.connect() as client:
        assert client.ask("GET", service.path).body == b"0"
        seen = client.ask(method, service.path, body=body)
        assert seen.status == 200
        assert seen.body == (b"" if method == "HEAD" else b"1")
    assert stale.heads == [(0, "GET", b""), (0, method, body), (1, method, body)]
    assert retries(service) == before + 1


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_what_may_have_been_done_is_never_done_twice(take: Take, method: str) -> None:
    stale = Stale()
    service = take(stale.play)
    before = retries(service)
    with service.connect() as client:
        assert client.ask("GET", service.path).body == b"0"
        seen = client.ask(method, service.path, body=b"password")
        assert (seen.status, seen.code) == CLOSED
        assert client.ask("GET", service.path).body == b"1"
    assert stale.heads == [(0, "GET", b""), (0, method, b"password"), (1, "GET", b"")]
    assert retries(service) == before


def test_a_retry_is_the_only_one(take: Take) -> None:
    heads = []

    def play(peer: Peer, number: int) -> None:
        while (received := peer.head()) is not None:
            heads.append((number, received.target.decode()[-2:]))
            if received.target.endswith(b"/2"):
                return
            peer.send(answer(b"ok"))

    service = take(play)
    with service.connect() as client:
        assert client.ask("GET", f"{service.path}/1").status == 200
        seen = client.ask("GET", f"{service.path}/2")
        assert (seen.status, seen.code) == CLOSED
    assert heads == [(0, "/1"), (0, "/2"), (1, "/2")]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_kept_connection_that_the_service_has_closed_is_not_used(take: Take, method: str) -> None:
    requests = []

    def play(peer: Peer, number: int) -> None:
        received = peer.head()
        if received is not None:
            requests.append((received.method.decode(), peer.body(received)))
            peer.send(answer(b"%d" % number))

    service = take(play)
    body = b"x" if method == "POST" else b""
    with service.connect() as client:
        for turn in range(20):
            assert client.ask(method, service.path, body=body).body == b"%d" % turn
            until(lambda: service.origin.open == 0, "the service has closed")
    assert requests == [(method, body)] * 20


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_what_comes_after_the_end_of_a_later_piece_is_nobody_s(take: Take, framing: str) -> None:
    met = threading.Event()

    def play(peer: Peer, number: int) -> None:
        if number:
            peer.serve()
            return
        assert peer.head() is not None
        chunked = framing == "chunks"
        peer.send(head(CHUNKED) + b"5\r\nhel" if chunked else head(LENGTH) + b"hel")
        assert met.wait(PATIENCE)
        peer.send((b"lo\r\n0\r\n\r\n" if chunked else b"lo") + answer(b"evil"))
        peer.until_gone()

    service = take(play)
    with service.connect() as client:
        client.send(request("GET", service.path) + request("GET", service.path))
        assert client.head().status == 200
        got = b""
        while not got.endswith(b"hel") and not got.endswith(b"hel\r\n"):
            got += client.receive()
        met.set()
        while b"HTTP/1.1 " not in got:
            got += client.receive()
        rest, _, _ = got.partition(b"HTTP/1.1 ")
        assert rest == (b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n" if framing == "chunks" else b"hello")
        client.put_back(got[len(rest) :])
        assert client.read().body.endswith(b" fresh")
    assert service.origin.accepted == 2


@pytest.mark.parametrize("farewell", [b"", b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n"])
def test_a_connection_that_has_just_been_closed_gets_no_post(farewell: bytes, tmp_path: Path) -> None:
    """The request is here before the news of the end: the gateway, stopped for a moment, finds both at once."""
    requests = []
    leave = threading.Event()

    def play(peer: Peer, number: int) -> None:
        received = peer.head()
        if received is not None:
            requests.append((number, received.method.decode(), peer.body(received)))
            peer.send(answer(b"%d" % number))
            assert number or leave.wait(PATIENCE)
            peer.send(farewell)

    with (
        Origin(play) as origin,
        GatewayProcess(tmp_path, configuration({"a": origin.url})) as gateway,
        gateway.connect() as client,
    ):
        assert client.ask("GET", "/a").body == b"0"
        gateway.signal(signal.SIGSTOP)
        client.send(request("POST", "/a", body=b"password"))
        leave.set()
        until(lambda: origin.open == 0, "the service has closed")
        gateway.signal(signal.SIGCONT)
        seen = client.read("POST")
        assert (seen.status, seen.body) == (200, b"1")
        assert requests == [(0, "GET", b""), (1, "POST", b"password")]


def test_what_an_idle_service_sends_unasked_is_nobody_s(take: Take) -> None:
    spoken = threading.Event()

    def play(peer: Peer, number: int) -> None:
        if number:
            peer.serve()
            return
        assert peer.head() is not None
        peer.send(answer(b"asked"))
        assert spoken.wait(PATIENCE)
        peer.send(answer(b"unasked"))
        peer.until_gone()

    service = take(play)
    with service.connect() as client:
        assert client.ask("GET", service.path).body == b"asked"
        assert service.connections("idle") == 1
        spoken.set()
        until(lambda: service.connections("idle") == 0, "the connection is dropped")
        assert client.ask("GET", service.path).body.endswith(b" fresh")


# Uploads.


def upload(client: Client, path: str, size: int, first: bytes) -> None:
    """A request's head with that length, and the first of its body."""
    client.send(f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {size}\r\n\r\n".encode() + first)


def race(client: Client, data: bytes) -> Message:
    """Send while reading the answer, as clients do that can be refused at any time; the answer."""

    def send() -> None:
        with contextlib.suppress(OSError):
            client.send(data)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        return client.read("POST")
    finally:
        with contextlib.suppress(OSError):
            client.socket.shutdown(socket.SHUT_WR)
        sender.join()


def test_a_service_that_does_not_read_the_upload(take: Take) -> None:
    seen_by_client = threading.Event()

    def play(peer: Peer, number: int) -> None:
        if number:
            peer.serve()
        else:
            assert seen_by_client.wait(PATIENCE)

    service = take(play)
    with service.connect() as client:
        upload(client, service.path, 9 << 20, b"")
        seen = race(client, b"z" * (9 << 20))
        seen_by_client.set()
        assert (seen.status, seen.code, seen.complete) == (*TIMEOUT, True)
        client.assert_closed()
    with service.connect() as client:
        assert client.ask("GET", service.path).status == 200


@pytest.mark.parametrize("tls", [False, True], ids=DOORS)
@pytest.mark.parametrize("ends", ["holds", "finishes"])
def test_an_early_answer_during_an_upload_is_delivered(take: Take, ends: str, tls: bool) -> None:
    def play(peer: Peer, number: int) -> None:
        if number:
            peer.serve()
            return
        assert peer.head() is not None
        assert peer.more()
        peer.send(answer(b"too much", status="413 Content Too Large"))
        if ends == "finishes":
            peer.finish()
        peer.until_gone()

    service = take(play)
    with service.connect(tls=tls) as client:
        upload(client, service.path, 9 << 20, b"z" * 100)
        seen = client.read("POST")
        assert (seen.status, seen.body, seen.complete) == (413, b"too much", True)
        assert seen.get("connection") == "close"
        if not tls:
            # The gateway has said its last and still reads, so that nothing of it is lost to a reset.
            client.send(b"z" * (1 << 20))
        client.assert_closed()
    with service.connect(tls=tls) as client:
        assert client.ask("GET", service.path).status == 200
    assert service.origin.accepted == 2


def test_an_early_answer_is_read_by_a_client_that_sends_everything_first(take_lingering: Take) -> None:
    """What is still on its way when the answer comes must not turn into a reset that destroys it."""

    def play(peer: Peer, number: int) -> None:
        while (received := peer.head()) is not None:
            peer.send(answer(b"no", status="403 Forbidden"))
            peer.body(received)

    service = take_lingering(play)
    for _ in range(5):
        with service.connect() as client:
            upload(client, service.path, 4 << 20, b"z" * (4 << 20))
            seen = client.read("POST")
            assert (seen.status, seen.body) == (403, b"no")


def test_an_early_answer_to_a_small_upload_leaves_the_connection(take: Take) -> None:
    def play(peer: Peer, number: int) -> None:
        if number:
            peer.serve()
            return
        assert peer.head() is not None
        peer.send(answer(b"no", status="403 Forbidden"))
        peer.until_gone()

    service = take(play)
    with service.connect() as client:
        upload(client, service.path, 100, b"z")
        assert client.read("POST").status == 403
        client.send(b"z" * 99)
        assert client.ask("GET", service.path).body.endswith(b" fresh")
    assert service.origin.accepted == 2


@pytest.mark.parametrize("then", [close, reset], ids=["closes", "resets"])
def test_a_service_that_dies_during_an_upload(take: Take, then: Play) -> None:
    def play(peer: Peer, number: int) -> None:
        if number:
            peer.serve()
            return
        assert peer.head() is not None
        assert peer.more()
        then(peer)

    service = take(play)
    with service.connect() as client:
        upload(client, service.path, 9 << 20, b"z" * 100)
        seen = client.read("POST")
        assert (seen.status, seen.code, seen.complete) == (*CLOSED, True)
    with service.connect() as client:
        assert client.ask("GET", service.path).status == 200


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """A gateway whose deadlines nothing here meets, and that takes the end of a client's side for one of both: by
    default a client that has ended only its own is answered (test_half_close)."""
    with Services(tmp_path_factory.mktemp("patient"), 20, {"listen": {"half_close": False}}) as services:
        yield services


@pytest.mark.parametrize("tls", [False, True], ids=DOORS)
@pytest.mark.parametrize("leave", [Client.close, Client.abort], ids=["closes", "resets"])
@pytest.mark.parametrize("phase", ["before-head", "within-body", "within-upload"])
def test_a_client_that_leaves_takes_its_exchange_along(
    patient: Services, phase: str, leave: Callable[[Client], None], tls: bool
) -> None:
    met, gone = threading.Event(), threading.Event()

    def play(peer: Peer, number: int) -> None:
        assert peer.head() is not None
        if phase == "within-body":
            peer.send(head("Content-Length: 100") + b"some")
        met.set()
        peer.until_gone()
        gone.set()

    service = patient.take(play)
    with service.origin:
        client = service.connect(tls=tls)
        if phase == "within-upload":
            upload(client, service.path, 1000, b"z" * 10)
        else:
            client.send(request("GET", service.path))
        assert met.wait(PATIENCE)
        if phase == "within-body":
            assert client.head().status == 200
        leave(client)
        assert gone.wait(PATIENCE), "the service was left alone with the exchange"
        until(lambda: service.connections("active") == 0, "its connection is given back")
        assert service.connections("idle") == 0
    assert patient.gateway.metrics()["koder_gateway_exchanges_in_flight"] == 0


# Services over TLS.


def over_tls(folder: Path, *names: str, says_goodbye: bool = True) -> Callable[[Peer, int], None]:
    """A service that speaks TLS, as one of these names, and ends its answer with the connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(write_certificate(folder, *names))

    def play(peer: Peer, number: int) -> None:
        try:
            secure = context.wrap_socket(peer.socket, server_side=True, suppress_ragged_eofs=True)
        except ssl.SSLError:
            return
        with secure:
            inner = Peer(secure)
            received = inner.head()
            assert received is not None
            inner.send(head() + b"hello " + inner.body(received))
            if says_goodbye:
                with contextlib.suppress(OSError):
                    secure.unwrap()

    return play


@pytest.mark.parametrize("says_goodbye", [True, False], ids=["close-notify", "torn"])
def test_a_service_over_tls_whose_answer_ends_with_the_connection(tmp_path: Path, says_goodbye: bool) -> None:
    """Without close_notify anybody on the way could have cut the answer (RFC 9112 section 9.8)."""
    play = over_tls(tmp_path / "service", "localhost", says_goodbye=says_goodbye)
    with (
        Origin(play) as origin,
        before_tls(tmp_path, origin, tmp_path / "service") as gateway,
        gateway.connect() as client,
    ):
        seen = client.ask("POST", "/a", body=b"world")
        assert (seen.status, seen.body) == (200, b"hello world")
        assert seen.complete is says_goodbye


@pytest.mark.parametrize("wrong", ["name", "authority", "plain"])
def test_a_service_that_does_not_prove_who_it_is_gets_nothing(tmp_path: Path, wrong: str) -> None:
    write_certificate(tmp_path / "other", "localhost")
    secure = over_tls(tmp_path / "service", "elsewhere.test" if wrong == "name" else "localhost")
    got: list[bytes] = []

    def plain(peer: Peer, number: int) -> None:
        got.append(peer.more())
        peer.send(answer(b"trust me"))

    trusted = tmp_path / ("other" if wrong == "authority" else "service")
    with (
        Origin(plain if wrong == "plain" else secure) as origin,
        before_tls(tmp_path, origin, trusted) as gateway,
        gateway.connect() as client,
    ):
        seen = client.ask("POST", "/a", "Authorization: secret", body=b"secret")
        assert (seen.status, seen.complete) == (502, True)
        assert seen.code == ("upstream_unreachable" if wrong == "plain" else "upstream_untrusted")
    assert b"secret" not in b"".join(got)


def before_tls(folder: Path, origin: Origin, trusted: Path) -> GatewayProcess:
    """A gateway whose service must be `localhost` by a certificate in this folder."""
    table = f'{{ url = "https://localhost:{origin.port}", ca = "{trusted / "default.pem"}" }}'
    return GatewayProcess(folder, configuration({"a": ""}, SECTIONS).replace('a = ""', f"a = {table}"))
