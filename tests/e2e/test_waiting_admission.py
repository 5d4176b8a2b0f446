"""A request that waits for a decision, on every way in: its body, its end, and what comes after the decision."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import hpack
import pytest
from twisted.internet.address import IPv4Address
from twisted.web.resource import Resource
from twisted.web.server import Site

from koder_gateway.errors import DRAINING, TENANT_SUSPENDED
from koder_gateway.exchange.states import ENDED, HELD
from koder_gateway.http2.receive_window import CONNECTION_WINDOW, STREAM_WINDOW
from koder_gateway.tree.proxy import ProxyResource
from koder_gateway.twisted_site.adapter import SiteAdapter
from koder_gateway.wire.upgrade import accept
from tests.conftest import LoggedErrors
from tests.kit.decisions import REFUSED, Decision, Waiting, waiting
from tests.kit.http1 import is_whole, read_message, read_messages
from tests.kit.http2_frames import (
    CANCEL,
    DATA,
    HEADERS,
    RST_STREAM,
    WINDOW_UPDATE,
    Frame,
    block,
    data,
    headers,
    reset,
)
from tests.kit.http2_memory import Http2, asking
from tests.kit.memory import HOST, MemoryGateway, forwarded, join, request, settings_with

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nserved"
Make = Callable[..., MemoryGateway]


class Mounted(Resource):
    """Somebody else's resource: says what it was sent."""

    isLeaf = True

    def render(self, request: Any) -> bytes:
        return b"%b:%b" % (request.method, request.content.read())


class Way:
    """One way in. A way with a `body` begins with the head alone; `more` sends the body. `target` is what it asks."""

    body = False
    target = b"/v1/users"

    def __init__(self, gateway: MemoryGateway) -> None:
        self.gateway = gateway
        self.client: Any = None

    def ask(self) -> None:
        self.client = self.gateway.connect()
        self.client.send(request(b"GET", self.target))

    def more(self, piece: bytes, *, done: bool) -> None:
        raise NotImplementedError

    def leave(self) -> None:
        self.client.reset()

    def answers(self) -> list[tuple[int, bytes]]:
        """The status and body of each response so far."""
        return [(message.status, message.body) for message in read_messages(self.client.received)]

    def refused(self, status: int, code: str) -> bool:
        """Whether the one response is this refusal."""
        ((answered, body),) = self.answers()
        return (answered, json.loads(body)["code"]) == (status, code)

    def received(self) -> bytes:
        """What the service has got."""
        for _ in range(3):
            self.gateway.reactor.advance(0)
        received: bytes = self.gateway.origin().only.received
        return received

    def forwarded(self) -> bytes:
        """The body that the service has got; b"" where it was asked without one."""
        message, rest = read_message(self.received())
        assert not rest
        return message.body

    def serve(self) -> None:
        """The service answers, and its answer must arrive."""
        self.received()
        self.gateway.origin().only.send(OK)
        assert self.answers()[:1] == [(200, b"served")]


class Plain(Way):
    """A GET over HTTP/1.1."""


class Pipelined(Way):
    """The same with another behind it, which waits."""

    def ask(self) -> None:
        super().ask()
        self.client.send(request(b"GET", b"/nowhere"))


class Upgrade(Way):
    """One that asks for another protocol."""

    def ask(self) -> None:
        self.client = self.gateway.connect()
        asks = (
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Key: " + KEY,
            b"Sec-WebSocket-Version: 13",
        )
        self.client.send(request(b"GET", self.target, *asks)).send(b"first words")

    def forwarded(self) -> bytes:
        return self.received().partition(b"\r\n\r\n")[2]

    def serve(self) -> None:
        lines = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept(KEY)
        self.received()
        service = self.gateway.origin().only
        service.take()
        service.send(b"HTTP/1.1 101 Switching Protocols\r\n" + lines + b"\r\n\r\nhello")
        assert self.client.received.endswith(b"\r\n\r\nhello")
        assert service.received == b"first words"


class Length(Way):
    """A POST whose length is known."""

    body = True
    framing = b"Content-Length: 9000"

    def ask(self) -> None:
        self.client = self.gateway.connect()
        self.client.send(request(b"POST", self.target, self.framing))

    def more(self, piece: bytes, *, done: bool) -> None:
        self.client.send(piece)


class Chunked(Length):
    """A POST in chunks, with a trailer behind them."""

    framing = b"Transfer-Encoding: chunked"

    def more(self, piece: bytes, *, done: bool) -> None:
        chunk = b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
        self.client.send(chunk + (b"0\r\nX-Last: 1\r\n\r\n" if done else b""))

    def forwarded(self) -> bytes:
        received = self.received()
        assert received.endswith(b"\r\n0\r\nX-Last: 1\r\n\r\n") == is_whole(received)
        return read_message(received)[0].body


class Http2Plain(Way):
    """A GET over HTTP/2."""

    def ask(self) -> None:
        self.client = Http2(self.gateway)
        self.came: list[Frame] = []
        self._send(self.head())

    def head(self) -> bytes:
        return headers(1, asking(self.target))

    def _send(self, *pieces: bytes) -> None:
        self.came += self.client.send(*pieces)

    def leave(self) -> None:
        self._send(reset(1))

    def answers(self) -> list[tuple[int, bytes]]:
        self._send()
        (head,) = [each.payload for each in self.came if each.kind == HEADERS and each.stream == 1] or (b"",)
        if not head:
            return []
        status = int(hpack.Decoder().decode(head, raw=True)[0][1])
        return [(status, b"".join(each.payload for each in self.came if each.kind == DATA))]


class Http2Body(Http2Plain):
    """A POST over HTTP/2."""

    body = True

    def head(self) -> bytes:
        return headers(1, asking(self.target, b"POST"), end=False)

    def more(self, piece: bytes, *, done: bool) -> None:
        pieces = [piece[at : at + 16384] for at in range(0, len(piece), 16384)] or [b""]
        self._send(*(data(1, each, end=done and each is pieces[-1]) for each in pieces))


class Http2Trailers(Http2Body):
    """The same with trailers."""

    def more(self, piece: bytes, *, done: bool) -> None:
        super().more(piece, done=False)
        if done:
            self._send(headers(1, block([(b"x-last", b"1")])))

    def forwarded(self) -> bytes:
        received = self.received()
        assert received.lower().endswith(b"\r\n0\r\nx-last: 1\r\n\r\n") == is_whole(received)
        return read_message(received)[0].body


class Connect(Http2Plain):
    """An extended CONNECT."""

    def head(self) -> bytes:
        pseudo = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"https")]
        rest = [(b":path", self.target), (b":authority", HOST), (b"sec-websocket-version", b"13")]
        return headers(1, block(pseudo + rest), end=False) + data(1, b"first words")

    def forwarded(self) -> bytes:
        return self.received().partition(b"\r\n\r\n")[2]

    def serve(self) -> None:
        self.received()
        service = self.gateway.origin().only
        key = service.take().partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
        lines = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept(key)
        service.send(b"HTTP/1.1 101 Switching Protocols\r\n" + lines + b"\r\n\r\nhello")
        assert self.answers() == [(200, b"hello")]
        assert service.received == b"first words"


class Stock(Way):
    """A request of a stock site, whose body is complete."""

    def ask(self) -> None:
        gateway, made = self.gateway, self.gateway.composition
        adapter = SiteAdapter(made.resource, made.policy, made.reader, gateway.finished, gateway.reactor.seconds)
        site = Site(adapter, reactor=gateway.reactor, parsePOSTFormSubmission=False)
        channel = site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 50000))
        self.client = join(gateway.reactor, channel, peer="192.0.2.1")
        self.adapter = adapter
        gateway.clients.append(self.client)
        self.client.send(self.asked())

    def asked(self) -> bytes:
        return request(b"GET", self.target)


class StockBody(Stock):
    """The same with a body."""

    def asked(self) -> bytes:
        return request(b"POST", self.target, b"Content-Length: 5", body=b"hello")

    def forwarded(self) -> bytes:
        return super().forwarded().replace(b"hello", b"")


class OnMounted(Way):
    """A mounted resource in place of a service."""

    target = b"/mounted/x"

    def forwarded(self) -> bytes:
        return b""

    def serve(self) -> None:
        assert self.answers() == [(200, b"GET:")]


class OnMountedStock(OnMounted, Stock):
    """A mounted resource in a stock site."""


class OnMountedHttp2(OnMounted, Http2Plain):
    """A mounted resource over HTTP/2."""


WAYS = (
    Plain,
    Pipelined,
    Upgrade,
    Length,
    Chunked,
    Http2Plain,
    Http2Body,
    Http2Trailers,
    Connect,
    Stock,
    StockBody,
    OnMounted,
    OnMountedStock,
    OnMountedHttp2,
)
WITH_BODY = tuple(way for way in WAYS if way.body)
ways = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
ways_with_body = pytest.mark.parametrize("way", WITH_BODY, ids=lambda way: way.__name__)
MOUNTS = {b"/mounted": Mounted()}
TRAILING = settings_with(requests={"allow_trailers": ("X-Last",)})
BODY = bytes(range(200)) * 45


def asked(
    make_gateway: Make, way: type[Way], *coming: Decision, **options: Any
) -> tuple[Way, Waiting, MemoryGateway]:
    """A request that waits."""
    gateway = make_gateway(mounts=MOUNTS, **{"settings": TRAILING, **options})
    guard = waiting(gateway, *coming)
    asking = way(gateway)
    asking.ask()
    return asking, guard, gateway


def assert_held(asking: Way, gateway: MemoryGateway) -> None:
    assert not gateway.origin().connections
    assert not asking.answers()
    assert not gateway.exchanges


# -- without a word of the body


@ways
def test_it_waits_and_goes_on(way: type[Way], make_gateway: Make) -> None:
    asking, guard, gateway = asked(make_gateway, way)
    assert_held(asking, gateway)
    gateway.advance(1.0)
    assert_held(asking, gateway)
    guard.only.decide()
    if asking.body:
        asking.more(BODY, done=True)
        assert asking.forwarded() == BODY
    elif not isinstance(asking, OnMounted):
        assert asking.forwarded() == b""
    asking.serve()
    assert not guard.made[0].cancelled


@ways
def test_it_waits_and_is_refused(way: type[Way], make_gateway: Make) -> None:
    asking, guard, gateway = asked(make_gateway, way)
    guard.only.decide(REFUSED)
    assert not gateway.origin().connections
    if way is Pipelined:
        assert [status for status, _ in asking.answers()] == [429]
        assert len(guard.made) == 2, "the next one waits for a decision of its own"
        guard.made[1].decide()
        assert [status for status, _ in asking.answers()] == [429, 404]
        return
    assert asking.refused(429, "rate_limited")
    (exchange,) = gateway.exchanges
    assert (exchange.code, exchange.phase) == ("rate_limited", ENDED)


@ways
def test_a_client_that_leaves_cancels_the_decision(way: type[Way], make_gateway: Make) -> None:
    asking, guard, gateway = asked(make_gateway, way)
    asking.leave()
    assert guard.only.cancelled
    (exchange,) = gateway.exchanges
    assert (exchange.code, exchange.status) == ("client_gone", 0)
    assert not gateway.origin().connections


@ways
def test_one_decision_may_follow_another(way: type[Way], make_gateway: Make) -> None:
    asking, guard, gateway = asked(make_gateway, way)
    second = Decision()
    guard.only.decide(second)
    assert_held(asking, gateway)
    asking.leave()
    assert second.cancelled


@ways
def test_decisions_at_two_guards(way: type[Way], make_gateway: Make) -> None:
    gateway = make_gateway(mounts=MOUNTS)
    inner = Waiting(gateway.composition.resource)
    outer = Waiting(inner)
    gateway.use_tree(outer)
    asking = way(gateway)
    asking.ask()
    assert not inner.made
    outer.only.decide()
    assert_held(asking, gateway)
    inner.only.decide(REFUSED)
    assert asking.answers()[0][0] == 429


@ways
def test_a_decision_at_once(way: type[Way], make_gateway: Make) -> None:
    class Sudden(Decision):
        def then(self, decided: Any) -> None:
            super().then(decided)
            self.decide()

    asking, guard, gateway = asked(make_gateway, way, Sudden())
    if asking.body:
        asking.more(BODY, done=True)
    gateway.reactor.advance(0)
    if not isinstance(asking, OnMounted):
        assert asking.forwarded() == (BODY if asking.body else b"")
    if way is Pipelined:
        guard.made[-1].wanted = 0
    asking.serve()


OWN_WAYS = tuple(way for way in WAYS if not issubclass(way, Stock))


@pytest.mark.parametrize("way", OWN_WAYS, ids=lambda way: way.__name__)
def test_an_exchange_that_has_had_its_time(way: type[Way], make_gateway: Make, monkeypatch: Any) -> None:
    asking, guard, gateway = asked(make_gateway, way)
    (channel,) = gateway.site.channels
    (begun,) = channel.under_way()
    begun.expire()
    assert guard.only.cancelled if way is not Pipelined else guard.made[0].cancelled
    status, body = asking.answers()[0]
    assert (status, json.loads(body)["code"]) == (504, "upstream_timeout")


@pytest.mark.parametrize("way", OWN_WAYS, ids=lambda way: way.__name__)
def test_the_end_of_a_drain(way: type[Way], make_gateway: Make) -> None:
    asking, guard, gateway = asked(make_gateway, way)
    gateway.site.drain()
    assert_held(asking, gateway)
    gateway.site.end_drain()
    assert guard.made[0].cancelled
    assert asking.refused(503, DRAINING.code)


@pytest.mark.parametrize("way", [Stock, StockBody, OnMountedStock], ids=lambda way: way.__name__)
def test_a_stock_request_whose_tenant_is_suspended(way: type[Stock], make_gateway: Make) -> None:
    asking, guard, gateway = asked(make_gateway, way)
    assert isinstance(asking, Stock)
    (client,) = asking.adapter.clients
    client.give_up(TENANT_SUSPENDED, TENANT_SUSPENDED.code)
    assert guard.only.cancelled
    assert asking.refused(403, "tenant_suspended")
    assert len(gateway.exchanges) == 1


@ways
def test_a_reload_leaves_it_to_the_tree_that_it_began_with(way: type[Way], make_gateway: Make) -> None:
    asking, guard, gateway = asked(make_gateway, way)
    gateway.use_tree(Waiting(Mounted()))
    guard.made[0].decide()
    if asking.body:
        asking.more(BODY, done=True)
    gateway.reactor.advance(0)
    asking.serve()


@pytest.mark.parametrize("way", [Plain, Http2Plain], ids=lambda way: way.__name__)
def test_a_tree_that_fails_after_the_decision_is_a_500(
    way: type[Way], make_gateway: Make, logged_errors: LoggedErrors
) -> None:
    class Failing:
        isLeaf = streams_body = True

        def render(self, request: object) -> int:
            raise RuntimeError("on purpose")

    gateway = make_gateway()
    guard = Waiting(Failing())
    gateway.use_tree(guard)
    asking = way(gateway)
    asking.ask()
    guard.only.decide()
    assert asking.refused(500, "internal_error")
    assert len(logged_errors.take()) == 1


# -- the body


@ways_with_body
@pytest.mark.parametrize("at_once", [True, False])
def test_the_body_waits_too(way: type[Way], at_once: bool, make_gateway: Make) -> None:
    asking, guard, gateway = asked(make_gateway, way)
    asking.more(BODY[:3000], done=False)
    if at_once:
        asking.more(BODY[3000:], done=True)
    assert_held(asking, gateway)
    guard.only.decide()
    gateway.reactor.advance(0)
    if not at_once:
        asking.more(BODY[3000:], done=True)
    assert asking.forwarded() == BODY
    asking.serve()
    (exchange,) = gateway.exchanges
    assert exchange.bytes_in == len(BODY)


@ways_with_body
def test_a_client_has_no_deadline_while_its_body_is_not_taken(way: type[Way], make_gateway: Make) -> None:
    asking, guard, gateway = asked(make_gateway, way)
    gateway.advance(100.0)
    assert_held(asking, gateway)
    guard.only.decide()
    gateway.advance(29.0)
    assert_held(asking, gateway)
    gateway.advance(2.0)
    assert asking.refused(408, "request_timeout")


@ways_with_body
def test_a_client_sends_no_more_than_is_read_ahead(way: type[Way], make_gateway: Make) -> None:
    asking, _, gateway = asked(make_gateway, way)
    (channel,) = gateway.site.channels
    near: Any = asking.client.peer.near if isinstance(asking, Http2Plain) else asking.client.near
    if isinstance(asking, Http2Plain):
        asking.more(bytes(STREAM_WINDOW), done=False)
        assert not [each for each in asking.came if each.kind == WINDOW_UPDATE and each.stream == 1]
    else:
        assert near.paused
    (begun,) = channel.under_way()
    assert begun.body == b""


@ways_with_body
@pytest.mark.parametrize("pieces", [(1,) * 10, (4095, 1), (4096,), (4097,), (9000,), (0, 10)])
def test_the_first_part_is_enough(way: type[Way], pieces: tuple[int, ...], make_gateway: Make) -> None:
    wanted = min(sum(pieces), 4096)
    asking, guard, gateway = asked(make_gateway, way, Decision(wanted))
    at = 0
    for size in filter(None, pieces):
        assert_held(asking, gateway)
        asking.more(BODY[at : at + size], done=False)
        at += size
    seen, done = guard.only.seen[-1]
    assert (seen, done) == (BODY[:at], at == len(BODY) and way is Length)
    gateway.reactor.advance(0)
    asking.more(BODY[at:], done=True)
    assert asking.forwarded() == BODY
    asking.serve()


@ways_with_body
def test_a_body_that_is_shorter_than_wanted(way: type[Way], make_gateway: Make) -> None:
    asking, guard, gateway = asked(make_gateway, way, Decision(100_000))
    asking.more(BODY, done=True)
    assert guard.only.seen[-1] == (BODY, True) or guard.only.wanted
    if guard.only.wanted:
        pytest.fail("the whole body was here")
    gateway.reactor.advance(0)
    assert asking.forwarded() == BODY


@ways_with_body
def test_nothing_is_read_beyond_the_first_part(way: type[Way], make_gateway: Make) -> None:
    asking, guard, gateway = asked(make_gateway, way, Decision(100_000))
    asking.more(BODY[:4096], done=False)
    assert guard.only.seen == [(BODY[:4096], False)]
    asking.more(BODY[4096:8000], done=False)
    gateway.advance(50.0)
    assert guard.only.seen == [(BODY[:4096], False)], "the client's time stands still, and so does its body"
    assert_held(asking, gateway)
    asking.leave()


@ways_with_body
def test_refused_for_its_body(way: type[Way], make_gateway: Make) -> None:
    asking, guard, gateway = asked(make_gateway, way, Decision(4096, REFUSED))
    asking.more(BODY, done=True)
    assert guard.only.seen[-1][0][:4096] == BODY[:4096]
    assert asking.refused(429, "rate_limited")
    assert not gateway.origin().connections


@ways_with_body
def test_from_the_body_to_another_decision(way: type[Way], make_gateway: Make) -> None:
    second = Decision()
    asking, _, gateway = asked(make_gateway, way, Decision(10, second))
    asking.more(BODY[:10], done=False)
    asking.more(BODY[10:], done=True)
    assert_held(asking, gateway)
    second.decide()
    gateway.reactor.advance(0)
    assert asking.forwarded() == BODY


@ways_with_body
def test_from_another_decision_to_the_body(way: type[Way], make_gateway: Make) -> None:
    asking, guard, gateway = asked(make_gateway, way)
    asking.more(BODY[:10], done=False)
    second = Decision(4096)
    guard.only.decide(second)
    gateway.reactor.advance(0)
    asking.more(BODY[10:], done=True)
    assert second.seen[-1][0][:4096] == BODY[:4096]
    gateway.reactor.advance(0)
    assert asking.forwarded() == BODY


@ways_with_body
def test_the_body_comes_with_its_time(way: type[Way], make_gateway: Make) -> None:
    asking, guard, gateway = asked(make_gateway, way, Decision(1))
    gateway.advance(5.0)
    asking.more(BODY, done=True)
    assert guard.only.times == [gateway.reactor.seconds()]


@ways_with_body
def test_a_body_that_does_not_come_is_late(way: type[Way], make_gateway: Make) -> None:
    asking, guard, gateway = asked(make_gateway, way, Decision(4096))
    asking.more(BODY[:3], done=False)
    gateway.advance(31.0)
    assert asking.refused(408, "request_timeout")
    assert guard.only.cancelled


@ways_with_body
def test_a_body_that_is_too_large(way: type[Way], make_gateway: Make) -> None:
    if way is Length:
        pytest.skip("it says so beforehand, and never waits")
    asking, guard, _ = asked(make_gateway, way, Decision(4096), settings=settings_with(requests={"max_body": 100}))
    asking.more(BODY[:200], done=False)
    assert asking.refused(413, "body_too_large")
    assert guard.only.cancelled


def test_a_body_that_is_broken(make_gateway: Make) -> None:
    asking, guard, _ = asked(make_gateway, Chunked, Decision(4096))
    asking.client.send(b"zz\r\n")
    assert asking.refused(400, "bad_request")
    assert guard.only.cancelled


def test_a_body_that_is_broken_and_waits(make_gateway: Make) -> None:
    """It is found out when the decision lets it pass."""
    asking, guard, gateway = asked(make_gateway, Chunked)
    asking.client.send(b"zz\r\n")
    assert_held(asking, gateway)
    guard.only.decide()
    gateway.reactor.advance(0)
    assert asking.refused(400, "bad_request")
    assert not gateway.origin().connections


def test_a_stream_that_breaks_the_rules(make_gateway: Make) -> None:
    asking, guard, gateway = asked(make_gateway, Http2Plain)
    came = asking.client.send(data(1, b"x"))
    assert [each.kind for each in came if each.stream == 1] == [RST_STREAM]
    assert guard.only.cancelled
    (exchange,) = gateway.exchanges
    assert exchange.code == "broken"


def test_many_streams_that_wait_hold_no_more_than_the_connections_window(make_gateway: Make) -> None:
    gateway = make_gateway()
    guard = waiting(gateway)
    client = Http2(gateway)
    for stream in range(1, 9, 2):
        client.send(headers(stream, asking(method=b"POST"), end=False))
        client.send(*[data(stream, bytes(16384)) for _ in range(STREAM_WINDOW // 16384)])
    came = client.after(1.0)
    assert not [each for each in came if each.kind == WINDOW_UPDATE]
    assert CONNECTION_WINDOW == 4 * STREAM_WINDOW
    (channel,) = gateway.site.channels
    assert [begun.body for begun in channel.under_way()] == [b""] * 4
    client.send(*(reset(stream, CANCEL) for stream in range(1, 9, 2)))
    assert [made.cancelled for made in guard.made] == [True] * 4
    assert len(gateway.exchanges) == 4


@pytest.mark.parametrize("wanted", [0, 1])
def test_a_client_that_expects_100_is_asked_once_and_only_for_a_body(wanted: int, make_gateway: Make) -> None:
    gateway = make_gateway()
    guard = waiting(gateway, Decision(wanted))
    client = gateway.connect()
    client.send(request(b"POST", b"/v1/users", b"Content-Length: 2", b"Expect: 100-continue"))
    hundred = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert client.received == hundred * wanted
    if not wanted:
        guard.only.decide()
        assert client.received == hundred
    client.send(b"hi")
    gateway.reactor.advance(0)
    assert read_message(gateway.origin().only.received)[0].body == b"hi"
    gateway.origin().only.send(OK)
    assert client.received.count(b"100 Continue") == 1
    assert client.closed == ""


def test_a_decision_that_wants_a_body_and_then_none_asks_once(make_gateway: Make) -> None:
    gateway = make_gateway()
    guard = waiting(gateway, Decision(1))
    client = gateway.connect()
    client.send(request(b"POST", b"/v1/users", b"Content-Length: 2", b"Expect: 100-continue"))
    guard.only.decide()
    client.send(b"hi")
    gateway.reactor.advance(0)
    assert client.received == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert read_message(gateway.origin().only.received)[0].body == b"hi"


# -- guards below the root


def test_a_guard_around_a_mounted_resource(make_gateway: Make) -> None:
    for target in (b"/door", b"/door/a/b"):
        guard = Waiting(Mounted())
        gateway = make_gateway(mounts={b"/door": guard})
        client = gateway.connect()
        client.send(request(b"POST", target, b"Content-Length: 2"))
        guard.only.decide()
        client.send(b"hi")
        assert read_messages(client.received)[0].body == b"POST:hi"


class Branch(Resource):
    """A resource of others with a guard below it."""

    def __init__(self, guard: Waiting) -> None:
        super().__init__()
        self.putChild(b"door", guard)


@pytest.mark.parametrize(
    "way", [Plain, Length, Stock, StockBody, Http2Plain, Http2Body], ids=lambda way: way.__name__
)
@pytest.mark.parametrize("target", [b"/branch/door", b"/branch/door/a/b"])
def test_a_guard_below_a_mounted_resource(way: type[Way], target: bytes, make_gateway: Make) -> None:
    guard = Waiting(Mounted())
    gateway = make_gateway(mounts={b"/branch": Branch(guard)})
    asking = way(gateway)
    asking.target = target
    asking.ask()
    guard.only.decide()
    if asking.body:
        asking.more(BODY, done=True)
    posted = b"POST:" + (b"hello" if way is StockBody else BODY)
    assert asking.answers() == [(200, b"GET:" if way in (Plain, Stock, Http2Plain) else posted)]


@pytest.mark.parametrize("way", [Length, Chunked, Http2Body], ids=lambda way: way.__name__)
def test_a_service_below_a_mounted_resource_gets_its_body(way: type[Way], make_gateway: Make) -> None:
    branch = Resource()
    gateway = make_gateway(mounts={b"/branch": branch}, settings=TRAILING)
    guard = Waiting(ProxyResource(gateway.services["identity"]))
    branch.putChild(b"door", guard)
    asking = way(gateway)
    asking.target = b"/branch/door"
    asking.ask()
    asking.more(BODY[:3000], done=False)
    guard.only.decide()
    gateway.reactor.advance(0)
    asking.more(BODY[3000:], done=True)
    assert asking.forwarded() == BODY


def test_what_is_forwarded_is_what_came(make_gateway: Make) -> None:
    asking, guard, gateway = asked(make_gateway, Plain)
    assert guard.only.waited_for
    (channel,) = gateway.site.channels
    (begun,) = channel.under_way()
    assert begun.exchange.phase is HELD
    guard.only.decide()
    assert asking.received() == forwarded()
