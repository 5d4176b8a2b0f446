"""A flood that uses up a connection's budget ends what is begun on it, not what is under way: one client of a proxy
must not end the requests of the others, who share its connection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.kit.http2_client import Http2Client, holding
from tests.kit.http2_frames import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    GOAWAY,
    KEPT,
    block,
    data,
    frames_of,
    headers,
    in_frames,
    indexed,
    literal,
    ping,
    reset,
    settings,
    window_update,
)
from tests.kit.http2_memory import Http2, asking
from tests.kit.memory import MemoryGateway
from tests.kit.recording import HOST, SETTINGS, running
from tests.kit.services import ANSWER

PATH = b"/v1/users"
HELD = PATH + b"/held"
LARGE = PATH + b"/large"
OTHERS = (1, 3, 5, 7, 9)
FIRST = 11
TRUSTED = SETTINGS + '[listen]\ntrusted_proxies = ["127.0.0.1"]\n'
IMPATIENT = SETTINGS.replace("[timeouts]", '[timeouts]\nidle = "1s"')
# More PINGs than both budgets are.
BEYOND = 5000


def request(path: bytes = PATH, method: bytes = b"GET") -> bytes:
    return block([(b":method", method), (b":scheme", b"https"), (b":path", path), (b":authority", HOST)])


GET, POST = request(), request(method=b"POST")


def each(make: Any, count: int) -> bytes:
    """What `make` makes of so many streams behind the others'."""
    return b"".join(make(stream) for stream in range(FIRST, FIRST + 2 * count, 2))


FLOODS = {
    "heads over the limit": each(lambda stream: in_frames(stream, GET + literal(b"x", b"v" * 59_000)), 200),
    "fields over the limit": each(lambda stream: headers(stream, GET + literal(b"", b"", KEPT) * 394), 200),
    "requests that are cancelled": each(lambda stream: headers(stream, GET) + reset(stream, CANCEL), 400),
    "bodies that are cancelled": each(lambda stream: headers(stream, POST, end=False) + reset(stream, CANCEL), 400),
    "streams that are malformed": each(lambda stream: headers(stream, request() + literal(b"X", b"")), 400),
    "streams too many": each(lambda stream: headers(stream, request(HELD)), 500),
    "PING": ping() * 3000,
    "SETTINGS": settings() * 300,
    "WINDOW_UPDATE": window_update(0, 1) * 3000,
    "empty DATA": headers(FIRST, POST, end=False) + data(FIRST) * 3000,
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with running(tmp_path_factory.mktemp("gateway"), TRUSTED, secure=True) as gateway:
        yield gateway


@pytest.fixture
def gateway(shared: Any) -> Iterator[Any]:
    with holding(shared, HELD, GET):
        yield shared


@pytest.fixture
def proxy(gateway: Any) -> Iterator[Http2Client]:
    with Http2Client.connect(gateway.port, HOST) as client:
        yield client.start()


def begin(proxy: Http2Client, gateway: Any) -> None:
    """Requests of others are with the service."""
    proxy.send(*[headers(stream, request(HELD)) for stream in OTHERS])
    gateway.origin.wait_until(lambda: len(gateway.origin.messages) == len(OTHERS))


def told(proxy: Http2Client) -> None:
    """The proxy has heard that it begins no further stream."""
    while not proxy.goaways:
        assert proxy.next() is not None, proxy.described()


@pytest.mark.parametrize("flood", FLOODS.values(), ids=list(FLOODS))
def test_what_is_under_way_is_answered(gateway: Any, proxy: Http2Client, flood: bytes) -> None:
    begin(proxy, gateway)
    proxy.send(flood)
    told(proxy)
    assert [proxy.answers[stream].over for stream in OTHERS] == [False] * 5
    gateway.origin.release(HELD)
    assert [proxy.answer(stream).status for stream in OTHERS] == [200] * 5
    if FIRST in proxy.answers and not proxy.answers[FIRST].over:
        proxy.send(reset(FIRST, CANCEL))
    proxy.end()
    assert (proxy.goaways, proxy.ended) == ([ENHANCE_YOUR_CALM], "closed")


def test_what_is_under_way_goes_on_both_ways(gateway: Any, proxy: Http2Client) -> None:
    """Bodies and windows are read behind the GOAWAY; of trailers only the end, for no table is kept any more."""
    gateway.origin.answers[LARGE] = ANSWER.replace(b"6\r", b"90000\r").replace(b"origin", b"o" * 90_000)
    proxy.send(headers(1, request(LARGE, b"POST"), end=False), data(1, b"one"))
    proxy.send(each(lambda stream: headers(stream, GET) + reset(stream, CANCEL), 400))
    told(proxy)
    proxy.send(data(1, b"two"), headers(1, literal(b"x-sum", b"1")))
    answer = proxy.answer(1, refill=True)
    assert (answer.status, len(answer.body)) == (200, 90_000)
    proxy.end()
    assert (proxy.goaways, proxy.ended) == ([ENHANCE_YOUR_CALM], "closed")
    (message,) = [message for message in gateway.received() if message.body]
    assert (message.body, message.trailers) == (b"onetwo", [])


def test_what_is_on_its_way_behind_the_end_is_passed_over(gateway: Any, proxy: Http2Client) -> None:
    """More streams than are remembered, whatever is said on them; their blocks mean nothing."""
    begin(proxy, gateway)
    proxy.send(FLOODS["requests that are cancelled"])
    told(proxy)
    fresh = range(1001, 1601, 2)
    proxy.send(*[headers(stream, GET + indexed(90), end=False) for stream in fresh])
    proxy.send(*[data(stream, b"body") for stream in fresh])
    proxy.send(*[headers(stream, indexed(90)) for stream in fresh])
    proxy.send(*[reset(stream, CANCEL) for stream in fresh])
    proxy.fence()
    gateway.origin.release(HELD)
    assert [proxy.answer(stream).status for stream in OTHERS] == [200] * 5
    proxy.end()
    assert (proxy.goaways, proxy.ended) == ([ENHANCE_YOUR_CALM], "closed")
    assert not [answer for stream, answer in proxy.answers.items() if stream in fresh and answer.over]


def test_a_flood_that_goes_on_is_not_read(gateway: Any, proxy: Http2Client) -> None:
    """Answers still go out."""
    begin(proxy, gateway)
    pings = [b"%08d" % number for number in range(BEYOND)]
    proxy.send(*[ping(payload) for payload in pings])
    told(proxy)
    gateway.origin.release(HELD)
    assert [proxy.answer(stream).status for stream in OTHERS] == [200] * 5
    proxy.end()
    assert proxy.goaways == [ENHANCE_YOUR_CALM]
    assert BEYOND - 4100 < len(proxy._pings) < BEYOND - 2000


def test_who_floods_on_is_not_served_without_end(tmp_path: Any) -> None:
    """timeouts.idle, however long the service may take."""
    with running(tmp_path, IMPATIENT, secure=True) as gateway:
        gateway.origin.held.add(HELD)
        with Http2Client.connect(gateway.port, HOST) as client:
            begin(client.start(), gateway)
            client.send(ping() * BEYOND)
            client.end()
            assert set(client.goaways) == {ENHANCE_YOUR_CALM}
            assert not any(client.answers[stream].status for stream in OTHERS)
        gateway.origin.release(HELD)
        gateway.assert_quiet()


def test_a_client_that_is_not_read_any_more_may_leave(gateway: Any) -> None:
    """Its requests end with it."""
    with Http2Client.connect(gateway.port, HOST) as client:
        begin(client.start(), gateway)
        client.send(headers(FIRST, POST, end=False), data(FIRST, b"half"))
        gateway.origin.wait_until(lambda: gateway.origin.unfinished)
        client.send(ping() * BEYOND)
        told(client)
        client.abort()
    gateway.origin.wait_until(lambda: not gateway.origin.unfinished)


def test_a_drain_behind_it_says_no_higher_stream() -> None:
    """RFC 9113 section 6.8: the last stream that was said may not grow."""
    gateway = MemoryGateway()
    client = Http2(gateway)
    came = client.send(
        headers(1, asking()), *[headers(stream, asking()) + reset(stream) for stream in range(3, 603, 2)]
    )
    gateway.site.drain()
    came += client.after(gateway.site.timeouts.linger + 1)
    (said,) = [int.from_bytes(each.payload[:4], "big") for each in came if each.kind == GOAWAY]
    gateway.origin().connections[0].send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    came = client.after(0)
    assert {each.stream for each in came} == {1}
    assert 1 < said < 601
    assert list(frames_of(client.peer.take())) == []


# -- a cookie in crumbs


def test_a_cookie_of_more_crumbs_than_browsers_have_is_refused(gateway: Any, proxy: Http2Client) -> None:
    """RFC 9113 section 8.2.3: each is as little as a byte."""
    empty = indexed(32)
    proxy.send(headers(1, GET + literal(b"cookie", b"a=b") * 256))
    assert proxy.answer(1).status == 200
    proxy.send(headers(3, GET + empty * 500), headers(5, GET))
    assert (proxy.answer(3).status, proxy.answer(5).status) == (431, 200)
    proxy.lives()
    proxy.send(headers(7, GET + empty * 3200))
    assert proxy.answer(7).status == 431
    proxy.end()
    assert proxy.goaways == [ENHANCE_YOUR_CALM]
