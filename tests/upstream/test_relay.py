"""Relay, connection and pool as a play: a scripted client above, scripted services below, and every way to fail."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor as RecordingReactor
from twisted.internet.testing import StringTransport
from twisted.logger import Logger, capturedLogs, formatEvent
from twisted.web.resource import Resource

from koder_gateway.context import verify
from koder_gateway.errors import Refusal
from koder_gateway.exchange.context import request_context
from koder_gateway.exchange.ports import BodySink, Client, Producer
from koder_gateway.exchange.states import (
    ANSWERS,
    BROKEN,
    CLIENT_GONE,
    CLOSED,
    ENDED,
    FULL,
    INVALID,
    SERVICE_FAULTS,
    SLOW,
    TIMEOUT,
    TOO_LARGE,
    UNREACHABLE,
    Exchange,
)
from koder_gateway.policy.decision import Policy
from koder_gateway.policy.shares import Shares
from koder_gateway.policy.signed_context import ContextSigner, public_jwk
from koder_gateway.tree.compose import make_policy
from koder_gateway.upstream.capacity import REASONS
from koder_gateway.upstream.connection import UpstreamConnection
from koder_gateway.upstream.pool import Service
from koder_gateway.upstream.relay import Relay
from koder_gateway.wire.clock import CoarseClock
from koder_gateway.wire.request_reader import RequestReader
from koder_gateway.wire.response import ResponseHead, ResponseReader
from tests.kit.bounds import open_tunnels, service_timeouts
from tests.kit.http1 import read_message, read_messages
from tests.kit.memory import (
    DATE,
    MemoryGateway,
    MemoryReactor,
    Origin,
    Peer,
    answered,
    forwarded,
    rechunked,
    request,
    serve,
    service_settings,
    settings_with,
)
from tests.kit.signing_keys import EDDSA

Make = Callable[..., MemoryGateway]
CUTS = st.lists(st.integers(0, 4000), max_size=12)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
OK_ANSWER = answered(b"200 OK", after=(b"Content-Length: 2",), body=b"hi")


def problem(data: bytes) -> tuple[int, str]:
    """The status and code of the only answer in `data`."""
    (message,) = read_messages(data)
    return message.status, message.code


POLICY = make_policy(settings_with(), None)


# -- the relay alone, between a client that writes down its commands and a service in memory


class Caller(Client):
    """The client's side of an exchange: what the relay tells it, in order."""

    takes = False
    paused_early = crowded = connects = False

    def __init__(self, exchange: Exchange, body: bytes, done: bool) -> None:
        self.exchange = exchange
        self.body = body
        self.body_done = done
        self.trailers: list[bytes] = []
        self.sink: BodySink | None = None
        self.told: list[object] = []

    def respond(self, head: ResponseHead, body: bytes, done: bool) -> None:
        self.told.append(("respond", head.status, body, done))

    def send_body(self, data: bytes) -> None:
        self.told.append(("body", data))

    def end_body(self, trailers: list[bytes]) -> None:
        self.told.append(("end", trailers))

    def interim(self, head: ResponseHead) -> None:
        self.told.append(("interim", head.status))

    def now(self) -> float:
        return 0.0

    def ask_for_body(self) -> None:
        self.told.append("ask for the body")

    def switch(self, head: ResponseHead, data: bytes) -> None:
        self.told.append(("switch", head.status, data))

    def raw_writer(self) -> Callable[[bytes], None]:
        return self.send_body

    def refuse(self, refusal: Refusal) -> None:
        self.exchange.end()  # as every client does that answers
        self.told.append(("refuse", refusal.code))

    def cut(self, *, at_once: bool = False) -> None:
        self.told.append("cut at once" if at_once else "cut")

    def taking(self) -> bool:
        self.told.append("taking?")
        return self.takes

    def room(self) -> int:
        return 0

    def stream_from(self, producer: Producer) -> None:
        self.told.append("stream")

    def pause_body(self) -> None:
        self.told.append("pause")

    def resume_body(self) -> None:
        self.told.append("resume")

    def take(self) -> list[object]:
        """What it was told since this was last asked."""
        told, self.told = self.told, []
        return told


class Play:
    """One service with scripted addresses."""

    def __init__(
        self, addresses: int = 1, max_connections: int = 1024, isolate: bool = False, **timeouts: float
    ) -> None:
        self.reactor = MemoryReactor()
        self.clock = CoarseClock()
        self.reader = RequestReader(b"X-Tenant-ID", max_target=8192, max_fields=100)
        self.origins = [Origin() for _ in range(addresses)]
        self.reactor.origins.update(enumerate(self.origins, 4001))
        self.service = Service(
            "identity",
            [
                (f"http://127.0.0.1:{port}", TCP4ClientEndpoint(self.reactor, "127.0.0.1", port, 2))
                for port in self.reactor.origins
            ],
            ResponseReader(b"X-Tenant-ID"),
            self.clock,
            later=lambda call: self.reactor.callLater(0, call),
            timeouts=service_timeouts(**timeouts),
            max_connections=max_connections,
            tunnels=open_tunnels(self.clock),
            isolate=isolate,
        )
        self.origin = self.origins[0]

    def ask(
        self,
        raw: bytes = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
        body: bytes = b"",
        done: bool = True,
        peer: str = "192.0.2.1",
        policy: Policy = POLICY,
    ) -> Relay:
        """Begin an exchange; its client is `relay.client`."""
        head = self.reader.read(raw)
        assert head.refusal is None
        exchange = Exchange(head, request_context(policy, head, peer, None), 0.0, b"r1")
        exchange.tenant = b"koder"
        relay = Relay(Caller(exchange, body, done), self.service)
        relay.start()
        self.reactor.advance(0)
        return relay

    def advance(self, seconds: float) -> None:
        """Let time pass, with a sweep at its end."""
        self.reactor.advance(seconds)
        self.clock.now = self.reactor.seconds()
        self.service.sweep(self.clock.now)
        self.reactor.advance(0)

    def check_empty(self) -> None:
        """Nothing is left, whatever happened."""
        self.service.close_idle()
        self.reactor.advance(0)
        assert (self.service.active, self.service.idle) == (0, 0)
        assert not [call for call in self.reactor.getDelayedCalls() if call.active()]


@pytest.fixture
def play() -> Iterator[Play]:
    play = Play()
    yield play
    play.check_empty()


def told(relay: Relay) -> list[object]:
    """What the relay's client was told."""
    caller = relay.client
    assert isinstance(caller, Caller)
    return caller.take()


UPLOAD = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"


def while_connecting(play: Play) -> tuple[Relay, None]:
    play.origin.answers = "ignore"
    relay = play.ask(UPLOAD, b"12345", False)
    assert told(relay) == ["pause"]
    return relay, None


def while_waiting(play: Play) -> tuple[Relay, Peer]:
    relay = play.ask(UPLOAD, b"12345", False)
    assert told(relay) == ["pause", "resume"]
    return relay, play.origin.last


def while_relaying(play: Play) -> tuple[Relay, Peer]:
    relay, service = while_waiting(play)
    service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123")
    assert told(relay) == [("respond", 200, b"123", False), "stream"]
    return relay, service


BEGINNINGS = {"connecting": while_connecting, "waiting": while_waiting, "relaying": while_relaying}


@pytest.mark.parametrize("event", [SLOW, BROKEN, TOO_LARGE, CLIENT_GONE])
@pytest.mark.parametrize("phase", BEGINNINGS)
def test_a_failure_of_the_client_ends_the_exchange(phase: str, event: str, play: Play) -> None:
    relay, service = BEGINNINGS[phase](play)
    relay.client_failed(event)
    play.reactor.advance(0)
    if event == CLIENT_GONE:
        assert told(relay) == []
    elif phase == "relaying":
        assert told(relay) == ["cut"]
    else:
        assert told(relay) == [("refuse", ANSWERS[event].code)]
    assert relay.exchange.phase is ENDED
    assert (play.service.active, play.service.idle) == (0, 0)
    assert not play.service.failures
    if service is not None:
        assert service.closed == "reset"


def closes(play: Play, service: Peer) -> None:
    service.close()


def resets(play: Play, service: Peer) -> None:
    service.reset()


def talks_nonsense(play: Play, service: Peer) -> None:
    service.send(b"nonsense")


def is_silent(play: Play, service: Peer) -> None:
    play.advance(60)


@pytest.mark.parametrize(
    ("fails", "event"), [(closes, CLOSED), (resets, CLOSED), (talks_nonsense, INVALID), (is_silent, TIMEOUT)]
)
def test_a_failure_of_the_service_before_its_head_is_answered(
    fails: Callable[[Play, Peer], None], event: str, play: Play
) -> None:
    relay, service = while_waiting(play)
    relay.body_received(b"67890")
    relay.body_ended([])
    fails(play, service)
    assert told(relay) == [("refuse", ANSWERS[event].code)]
    assert relay.exchange.phase is ENDED
    assert play.service.failures == {event: 1}
    assert (play.service.active, play.service.idle) == (0, 0)
    assert service.gone or service.closed == "reset"


@pytest.mark.parametrize(("fails", "event"), [(closes, CLOSED), (resets, CLOSED), (is_silent, TIMEOUT)])
@pytest.mark.parametrize(
    "head", [b"Content-Length: 10\r\n\r\n123", b"Transfer-Encoding: chunked\r\n\r\n3\r\n123\r\n5\r\n12"]
)
def test_a_failure_of_the_service_in_its_body_cuts_the_answer(
    head: bytes, fails: Callable[[Play, Peer], None], event: str, play: Play
) -> None:
    relay = play.ask()
    service = play.origin.last
    service.send(b"HTTP/1.1 200 OK\r\n" + head)
    fails(play, service)
    assert told(relay)[-1] == "cut"
    assert relay.exchange.code == event
    assert relay.exchange.phase is ENDED
    assert play.service.failures == {event: 1}
    assert (play.service.active, play.service.idle) == (0, 0)


@pytest.mark.parametrize(
    "body", [b"3\r\nabcd\r\n", b"0x3\r\nabc\r\n", b"-1\r\n", b"3\nabc\r\n", b"zz\r\n", b"0\r\nContent Length\r\n\r\n"]
)
def test_broken_chunks_of_a_service_cut_the_answer(body: bytes, play: Play) -> None:
    relay = play.ask()
    service = play.origin.last
    service.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
    assert told(relay) == [("respond", 200, b"ok", False), "stream"]
    service.send(body)
    assert told(relay)[-1] == "cut"
    assert relay.exchange.code == INVALID
    assert service.closed == "reset"


def test_a_refused_connection_is_unreachable(play: Play) -> None:
    play.origin.answers = "refuse"
    relay = play.ask()
    assert told(relay) == [("refuse", "upstream_unreachable")]
    assert play.service.failures == {UNREACHABLE: 1}
    assert play.origin.attempts == 1


def test_an_address_that_is_reached_again_is_told_once(play: Play) -> None:
    with capturedLogs() as events:
        for answers in ("accept", "refuse", "accept", "accept"):
            play.origin.answers = answers
            play.ask()
            if answers == "accept":
                play.origin.last.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            play.advance(2)
    lines = [formatEvent(event) for event in events]
    assert [" is reachable again" in line for line in lines] == [False, True]


def test_a_connection_that_is_not_made_in_time_is_a_timeout(play: Play) -> None:
    play.origin.answers = "ignore"
    relay = play.ask()
    assert (play.service.active, told(relay)) == (1, [])
    play.advance(2)
    assert told(relay) == [("refuse", "upstream_timeout")]
    assert play.service.failures == {TIMEOUT: 1}


def test_who_finds_no_place_waits_for_one() -> None:
    play = Play(max_connections=1)
    first, second = play.ask(), play.ask()
    assert told(second) == []
    play.origin.only.send(OK)
    assert told(first) == [("respond", 200, b"hi", True)]
    play.origin.only.send(OK)
    assert told(second) == [("respond", 200, b"hi", True)]
    assert play.origin.attempts == 1
    play.check_empty()


def issued(sent: bytes) -> list[int]:
    """When the contexts were signed that a service was sent."""
    tokens = re.findall(rb"\r\nX-Koder-Context: ([^\r]+)\r\n", sent)
    keys = {"keys": [public_jwk(EDDSA)]}
    return [verify(token, keys, host="koder.id.koder.dev", leeway=1e9).issued for token in tokens]


ASKED = b"GET /a HTTP/1.1\r\nHost: koder.id.koder.dev\r\n\r\n"


def test_the_context_is_signed_when_the_request_goes_out() -> None:
    """Not when it is admitted: it may wait for its place, for its body, or be sent once more."""
    wall = [1_800_000_000.0]
    signing = replace(POLICY, signer=ContextSigner(EDDSA, (), lambda: wall[0]))
    play = Play(max_connections=1)
    first, second = play.ask(ASKED, policy=signing), play.ask(ASKED, policy=signing)
    service = play.origin.only
    assert issued(service.take()) == [1_800_000_000]
    wall[0] += 45.0
    service.send(OK)
    sent = service.take()
    assert issued(sent) == [1_800_000_045]
    assert sent.endswith(b"\r\n\r\n")
    assert sent.count(b"\r\n\r\n") == 1
    # The kept connection turns out to be closed: the next one gets the request once more, signed anew.
    service.send(OK)
    assert (told(first), told(second)) == ([("respond", 200, b"hi", True)],) * 2
    third = play.ask(ASKED, policy=signing)
    wall[0] += 45.0
    service.close()
    play.reactor.advance(0)
    assert third.exchange.retries == 1
    assert issued(play.origin.last.take()) == [1_800_000_090]
    play.origin.last.send(OK)
    assert told(third) == [("respond", 200, b"hi", True)]
    # The head of one with a body is held until that begins to come.
    upload = ASKED.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 2\r\n\r\n")
    late = play.ask(upload, done=False, policy=signing)
    wall[0] += 45.0
    late.body_received(b"ab")
    late.body_ended([])
    sent = play.origin.last.take()
    assert (issued(sent), sent[-6:]) == ([1_800_000_135], b"\r\n\r\nab")
    play.origin.last.send(OK)
    play.check_empty()


def test_no_place_in_time_is_overloaded() -> None:
    play = Play(max_connections=1)
    first, second = play.ask(), play.ask()
    play.advance(1.75)
    assert told(second) == []
    play.advance(0.25)
    assert told(second) == [("refuse", "overloaded")]
    assert play.service.failures == {FULL: 1}
    assert play.service.capacity.refused == dict.fromkeys(REASONS, 0) | {"timeout": 1}
    assert play.service.capacity.waiting == 0
    play.origin.only.send(OK)
    assert told(first) == [("respond", 200, b"hi", True)]
    play.check_empty()


def test_no_room_to_wait_is_overloaded_at_once() -> None:
    play = Play(max_connections=1)
    first, second, third = play.ask(), play.ask(), play.ask(peer="192.0.2.2")
    assert told(third) == [("refuse", "overloaded")]
    assert play.service.capacity.refused == dict.fromkeys(REASONS, 0) | {"full": 1}
    for relay in (first, second):
        relay.client_failed(CLIENT_GONE)
    play.check_empty()


def test_nobody_waits_where_no_time_is_given_for_it() -> None:
    play = Play(max_connections=1)
    play.service.capacity.allow(Shares(1, 1), 0.0)
    first, second = play.ask(), play.ask(peer="192.0.2.2")
    assert told(second) == [("refuse", "overloaded")]
    first.client_failed(CLIENT_GONE)
    play.check_empty()


def test_attempts_take_places_too() -> None:
    play = Play(max_connections=1)
    play.origin.answers = "ignore"
    first, second = play.ask(), play.ask()
    assert play.origin.attempts == 1
    first.client_failed(CLIENT_GONE)
    play.reactor.advance(0)
    assert play.origin.attempts == 2
    second.client_failed(CLIENT_GONE)
    play.check_empty()


def test_a_retry_keeps_its_place() -> None:
    play = Play(max_connections=1)
    stale = stale_connection(play)
    first, second = play.ask(), play.ask()
    stale.close()
    play.origin.last.send(OK)
    assert told(first) == [("respond", 200, b"hi", True)]
    assert first.exchange.retries == 1
    play.origin.last.send(OK)
    assert told(second) == [("respond", 200, b"hi", True)]
    assert play.origin.attempts == 2
    play.check_empty()


def test_what_a_service_sends_too_much_is_not_the_answer_of_one_who_waits() -> None:
    play = Play(max_connections=1)
    first, second = play.ask(), play.ask()
    service = play.origin.only
    service.near.arrive(OK)
    service.near.arrive(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray")
    play.reactor.advance(0)
    assert told(first) == [("respond", 200, b"hi", True)]
    assert told(second) == []
    play.origin.last.send(OK)
    assert told(second) == [("respond", 200, b"hi", True)]
    play.check_empty()


def test_the_body_of_one_who_waits_waits_too() -> None:
    play = Play(max_connections=1)
    first, second = play.ask(), play.ask(UPLOAD, b"12345", False)
    assert told(second) == ["pause"]
    first.client_failed(CLIENT_GONE)
    play.reactor.advance(0)
    assert told(second) == ["resume"]
    assert play.origin.last.take().endswith(b"12345")
    second.client_failed(SLOW)
    play.check_empty()


@pytest.mark.parametrize("event", [CLIENT_GONE, SLOW, BROKEN, TOO_LARGE])
def test_a_client_that_fails_while_it_waits_waits_no_longer(event: str) -> None:
    play = Play(max_connections=1)
    first, second, third = play.ask(), play.ask(UPLOAD, b"1", False), None
    second.client_failed(event)
    assert play.service.capacity.waiting == 0
    third = play.ask(peer="192.0.2.2")
    play.origin.only.send(OK)
    play.origin.only.send(OK)
    assert told(third) == [("respond", 200, b"hi", True)]
    assert told(first) == [("respond", 200, b"hi", True)]
    play.check_empty()


@pytest.mark.parametrize("event", sorted(SERVICE_FAULTS))
def test_every_fault_of_a_service_is_counted(event: str, play: Play) -> None:
    play.service.failed(event, "detail")
    play.service.failed(event, "detail")
    assert play.service.failures == {event: 2}


# -- retries


def stale_connection(play: Play) -> Peer:
    """A pooled connection that has served once."""
    relay = play.ask()
    service = play.origin.last
    service.send(OK)
    assert told(relay) == [("respond", 200, b"hi", True)]
    service.take()
    return service


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"])
@pytest.mark.parametrize("fails", [closes, resets])
def test_a_stale_connection_is_replaced_by_a_fresh_one(
    method: bytes, fails: Callable[[Play, Peer], None], play: Play
) -> None:
    stale = stale_connection(play)
    relay = play.ask(b"%b /b HTTP/1.1\r\nHost: a\r\n\r\n" % method)
    sent = stale.take()
    assert sent.startswith(method + b" /b HTTP/1.1\r\n")
    fails(play, stale)
    assert told(relay) == []
    fresh = play.origin.last
    assert fresh is not stale
    assert fresh.take() == sent
    fresh.send(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert told(relay) == [("respond", 204, b"", True)]
    assert (relay.exchange.retries, play.service.retried) == (1, 1)


@pytest.mark.parametrize("method", [b"POST", b"PATCH"])
def test_what_is_not_idempotent_is_never_sent_twice(method: bytes, play: Play) -> None:
    stale = stale_connection(play)
    relay = play.ask(b"%b /b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n" % method, b"xx")
    assert stale.received
    stale.close()
    assert told(relay) == [("refuse", "upstream_closed")]
    assert play.origin.attempts == 1


@pytest.mark.parametrize("method", [b"GET", b"POST"])
@pytest.mark.parametrize(
    "late",
    [OK, b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n", b"x", None],
    ids=["an answer", "a 408", "a byte", "the end"],
)
def test_what_waits_on_a_kept_connection_is_no_answer(method: bytes, late: bytes | None, play: Play) -> None:
    """It has come since the reactor looked last: the kernel has it, and nobody has read it yet."""
    kept = stale_connection(play)
    near, far = socket.socketpair()
    with near, far:
        kept.near.handle = near
        if late is None:
            far.shutdown(socket.SHUT_WR)
        else:
            far.sendall(late)
        relay = play.ask(method + b" /b HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (kept.closed, kept.take()) == ("reset", b"")
    fresh = play.origin.last
    assert fresh is not kept
    assert fresh.take().startswith(method + b" /b ")
    fresh.send(OK)
    assert told(relay) == [("respond", 200, b"hi", True)]


def test_a_kept_connection_on_which_nothing_waits_is_used(play: Play) -> None:
    kept = stale_connection(play)
    near, far = socket.socketpair()
    with near, far:
        kept.near.handle = near
        for _ in range(3):
            relay = play.ask()
            assert kept.take().startswith(b"GET /a ")
            kept.send(OK)
            assert told(relay) == [("respond", 200, b"hi", True)]
    assert play.origin.attempts == 1


@pytest.mark.parametrize("isolate", [True, False])
def test_isolated_tenants_have_connections_of_their_own(isolate: bool, make_gateway: Make) -> None:
    services = service_settings("identity", "http://127.0.0.1:4001", isolate=isolate)
    gateway = make_gateway(settings=settings_with(services=services))
    client = gateway.connect()
    used = []
    for tenant in (b"koder", b"acme", b"koder", b"acme", b"globex"):
        client.send(request(host=tenant + b".id.koder.dev"))
        (connection,) = [each for each in gateway.origin().connections if each.received]
        used.append(gateway.origin().connections.index(connection))
        connection.take()
        connection.send(OK)
    assert used == ([0, 1, 0, 1, 2] if isolate else [0] * 5)


def test_isolated_tenants_take_each_others_place(make_gateway: Make) -> None:
    services = service_settings("identity", "http://127.0.0.1:4001", isolate=True)
    gateway = make_gateway(settings=settings_with(services=services))
    gateway.services["identity"].max_idle = 2
    client = gateway.connect()
    for tenant in (b"a", b"b", b"c"):
        client.send(request(host=tenant + b".id.koder.dev"))
        gateway.origin().last.send(OK)
    assert gateway.idle() == (2, 0)
    assert [each.closed for each in gateway.origin().connections] == ["clean", "", ""]


def test_a_fresh_connection_that_closes_is_no_reason_to_try_again(play: Play) -> None:
    relay = play.ask()
    play.origin.last.close()
    assert told(relay) == [("refuse", "upstream_closed")]
    assert play.origin.attempts == 1


def test_there_is_one_retry_and_no_more(play: Play) -> None:
    stale = stale_connection(play)
    relay = play.ask()
    stale.close()
    play.origin.last.close()
    assert told(relay) == [("refuse", "upstream_closed")]
    assert play.origin.attempts == 2
    assert relay.exchange.retries == 1


def test_a_stale_connection_that_has_begun_to_answer_is_not_replaced(play: Play) -> None:
    stale = stale_connection(play)
    relay = play.ask()
    stale.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    assert told(relay) == [("interim", 103)]
    stale.close()
    assert told(relay) == [("refuse", "upstream_closed")]
    assert play.origin.attempts == 1


def test_a_head_cut_short_on_a_stale_connection_is_not_repeated(play: Play) -> None:
    stale = stale_connection(play)
    relay = play.ask()
    stale.send(b"HTTP/1.1 200 OK\r\nContent-")
    stale.close()
    assert told(relay) == [("refuse", "upstream_closed")]
    assert play.origin.attempts == 1


def test_a_small_upload_is_sent_again_whole(play: Play) -> None:
    stale = stale_connection(play)
    relay = play.ask(b"PUT /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"one", False)
    relay.body_received(b"two")
    stale.close()
    fresh = play.origin.last
    relay.body_received(b"three")
    relay.body_ended([b"X-Sum: 1\r\n"])
    message, rest = read_message(fresh.received)
    assert (message.body, rest) == (b"onetwothree", b"")
    fresh.send(OK)
    assert told(relay)[-1] == ("respond", 200, b"hi", True)
    assert play.service.idle == 1


def test_a_large_upload_is_not_sent_again(play: Play) -> None:
    stale = stale_connection(play)
    relay = play.ask(b"PUT /b HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n", b"x", False)
    relay.body_received(b"x" * 70000)
    stale.close()
    assert told(relay)[-1] == ("refuse", "upstream_closed")
    assert play.origin.attempts == 1


def test_a_post_asks_the_kernel_whether_its_connection_is_stale(play: Play) -> None:
    stale = stale_connection(play)
    near, far = socket.socketpair()
    with near, far:
        stale.near.handle = near
        far.close()
        relay = play.ask(b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n", b"xx")
    assert stale.received == b""
    assert stale.closed == "reset"
    play.origin.last.send(OK)
    assert told(relay) == [("respond", 200, b"hi", True)]
    assert relay.exchange.retries == 0


def test_a_post_takes_a_connection_that_is_alive(play: Play) -> None:
    alive = stale_connection(play)
    near, far = socket.socketpair()
    with near, far:
        alive.near.handle = near
        relay = play.ask(b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n", b"xx")
        assert alive.received
        alive.send(OK)
    assert told(relay) == [("respond", 200, b"hi", True)]


def test_an_unreachable_address_gives_way_to_another() -> None:
    play = Play(addresses=2)
    good, bad = play.origins
    bad.answers = "refuse"
    retried = 0
    for _ in range(4):
        relay = play.ask(b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n", b"xx")
        assert read_message(good.last.take())[0].body == b"xx"
        good.last.send(OK)
        assert told(relay) == [("respond", 200, b"hi", True)]
        retried += relay.exchange.retries
    assert (bad.attempts, retried, play.service.retried) == (1, 1, 1)  # then it was left alone
    play.check_empty()


def test_an_address_that_failed_gets_its_turn_again_ever_later() -> None:
    play = Play(addresses=2)
    good, bad = play.origins
    bad.answers = "refuse"

    def attempts_after(seconds: float) -> int:
        play.advance(seconds)
        for _ in range(4):
            relay = play.ask()
            good.last.send(OK)
            assert told(relay) == [("respond", 200, b"hi", True)]
        return bad.attempts

    assert [attempts_after(seconds) for seconds in (0, 0.75, 0.5, 1.5, 1.0)] == [1, 1, 2, 2, 3]
    bad.answers = "accept"
    play.advance(5)
    for _ in range(2):
        play.ask()
    for connection in [*bad.connections, good.last]:
        connection.send(OK)
    assert len(bad.connections) == 1
    play.check_empty()


def test_two_addresses_share_the_work_and_keep_their_connections() -> None:
    play = Play(addresses=2)
    for _ in range(10):
        relay = play.ask()
        (busy,) = [c for origin in play.origins for c in origin.connections if c.received]
        busy.take()
        busy.send(OK)
        assert told(relay) == [("respond", 200, b"hi", True)]
    assert [len(origin.connections) for origin in play.origins] == [1, 1]
    assert play.service.idle == 2
    play.check_empty()


def test_when_every_address_refuses_the_answer_is_unreachable() -> None:
    play = Play(addresses=2)
    for origin in play.origins:
        origin.answers = "refuse"
    relay = play.ask()
    assert told(relay) == [("refuse", "upstream_unreachable")]
    assert [origin.attempts for origin in play.origins] == [1, 1]
    relay = play.ask()  # all are left alone, and still one is tried
    assert told(relay) == [("refuse", "upstream_unreachable")]
    assert sum(origin.attempts for origin in play.origins) == 3
    play.check_empty()


def test_an_address_that_takes_no_connection_in_time_gives_way_to_another() -> None:
    play = Play(addresses=2)
    good, silent = play.origins
    silent.answers = "ignore"
    relay = play.ask(b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n", b"xx")
    assert silent.attempts == 1
    play.advance(2)
    assert read_message(good.last.take())[0].body == b"xx"
    good.last.send(OK)
    assert told(relay) == [("respond", 200, b"hi", True)]
    assert relay.exchange.retries == 1
    play.check_empty()


def test_over_the_budget_of_retries_the_failure_is_the_answer() -> None:
    play = Play(addresses=2)
    play.origins[1].answers = "refuse"
    while play.service.may_retry():
        pass
    relay = play.ask()
    assert told(relay) == [("refuse", "upstream_unreachable")]
    assert (relay.exchange.retries, play.service.retried, play.service.retry_budget.denied) == (0, 0, 2)
    play.check_empty()


def test_without_a_healthy_address_nothing_is_asked(play: Play) -> None:
    play.service.addresses[0].judge(False, 0.0)
    relay = play.ask()
    assert told(relay) == [("refuse", "overloaded")]
    assert (play.origin.attempts, play.service.active, play.service.failures) == (0, 0, {})
    assert relay.exchange.phase == ENDED
    play.service.addresses[0].judge(True, 0.0)
    relay = play.ask()
    play.origin.last.send(OK)
    assert told(relay) == [("respond", 200, b"hi", True)]


def first_of_two() -> Play:
    """A service whose second address is too busy to be chosen as long as the first one is available."""
    play = Play(addresses=2)
    second = play.service.addresses[1]
    second.busy.update(UpstreamConnection(second) for _ in range(99))
    return play


def fail_often(
    play: Play, end: Callable[[Peer], object], raw: bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", body: bytes = b""
) -> None:
    """A request of each of many clients, whose connections to the first address end like that."""
    for number in range(20):
        before = len(play.origin.connections)
        play.ask(raw, body, not body, peer=f"192.0.2.{number}")
        if len(play.origin.connections) > before:
            end(play.origin.last)


def test_connections_that_close_before_a_response_eject_an_address() -> None:
    play = first_of_two()
    fail_often(play, lambda peer: peer.close())
    assert (play.service.ejections, play.origin.attempts) == (1, 5)


def test_responses_that_are_malformed_eject_an_address() -> None:
    play = first_of_two()
    fail_often(play, lambda peer: peer.send(b"+PONG\r\n\r\n"))
    assert (play.service.ejections, play.origin.attempts) == (1, 5)


def test_requests_that_are_not_complete_eject_no_address() -> None:
    play = first_of_two()
    fail_often(play, lambda peer: peer.close(), UPLOAD, b"12345")
    assert (play.service.ejections, play.origin.attempts) == (0, 20)


def test_responses_that_are_cut_eject_no_address() -> None:
    play = first_of_two()
    fail_often(play, lambda peer: (peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"), peer.close()))
    assert (play.service.ejections, play.origin.attempts) == (0, 20)


def test_kept_alive_connections_that_die_eject_no_address() -> None:
    play = first_of_two()
    for number in range(20):
        play.ask()
        play.origin.last.send(OK)
        peer = f"192.0.2.{number}"
        relay = play.ask(b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n", b"xx", peer=peer)
        play.origin.last.close()
        assert told(relay) == [("refuse", "upstream_closed")]
    assert (play.service.ejections, play.origin.attempts) == (0, 20)


def test_addresses_take_turns() -> None:
    play = Play(addresses=3)
    relays = [play.ask() for _ in range(6)]
    assert [len(origin.connections) for origin in play.origins] == [2, 2, 2]
    for origin in play.origins:
        for connection in origin.connections:
            connection.send(OK)
    assert all(told(relay) == [("respond", 200, b"hi", True)] for relay in relays)
    assert (play.service.active, play.service.idle) == (0, 6)
    play.check_empty()


# -- the pool


def test_connections_are_used_last_in_first_out(play: Play) -> None:
    relays = [play.ask(), play.ask()]
    first, second = play.origin.connections
    first.send(OK)
    second.send(OK)
    assert play.service.idle == 2
    relays.append(play.ask())
    assert second.received.count(b"GET") == 2
    second.send(OK)
    assert all(told(relay) for relay in relays)


def test_no_more_than_max_idle_are_kept() -> None:
    play = Play()
    play.service.max_idle = 1
    play.ask()
    play.ask()
    for connection in play.origin.connections:
        connection.send(OK)
    assert (play.service.active, play.service.idle) == (0, 1)
    assert [connection.closed for connection in play.origin.connections] == ["", "clean"]
    play.check_empty()


def test_idle_connections_are_closed_after_a_while(play: Play) -> None:
    connection = stale_connection(play)
    play.advance(59)
    assert (connection.closed, play.service.idle) == ("", 1)
    play.advance(1)
    assert (connection.closed, play.service.idle) == ("clean", 0)


def test_an_idle_connection_that_the_service_closes_is_forgotten(play: Play) -> None:
    stale_connection(play).close()
    assert play.service.idle == 0
    relay = play.ask()
    assert len(play.origin.connections) == 2
    play.origin.last.send(OK)
    assert told(relay) == [("respond", 200, b"hi", True)]


def test_what_a_service_says_unasked_reaches_nobody(play: Play) -> None:
    connection = stale_connection(play)
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    assert (connection.closed, play.service.idle) == ("reset", 0)
    relay = play.ask()
    play.origin.last.send(OK)
    assert told(relay) == [("respond", 200, b"hi", True)]


def kept_connection(play: Play, field: bytes) -> Peer:
    """A connection whose service has said in its answer how long it keeps it."""
    relay = play.ask()
    play.origin.last.send(OK.replace(b"\r\n\r\n", b"\r\n" + field + b"\r\n\r\n"))
    assert told(relay) == [("respond", 200, b"hi", True)]
    return play.origin.last


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        (b"Keep-Alive: timeout=5", 4),
        (b"keep-alive: max=100, TIMEOUT = 5", 4),
        (b'Keep-Alive: timeout="5"', 4),
        (b"Keep-Alive: timeout=9\r\nKeep-Alive: timeout=3, timeout=4", 2),
        (b"Keep-Alive: timeout=300", 60),
        (b"Keep-Alive: timeout=", 60),
        (b"Keep-Alive: xtimeout=5", 60),
        (b"Keep-Alive: timeout=9999999999", 60),
        (b"Keep-Alive: 5", 60),
    ],
)
def test_a_service_says_how_long_it_keeps_a_connection(field: bytes, seconds: int, play: Play) -> None:
    connection = kept_connection(play, field)
    play.advance(seconds - 0.25)
    assert (connection.closed, play.service.idle) == ("", 1)
    play.advance(0.25)
    assert (connection.closed, play.service.idle) == ("clean", 0)


@pytest.mark.parametrize("field", [b"Keep-Alive: timeout=1", b"Keep-Alive: timeout=0, max=9"])
def test_a_service_that_keeps_a_connection_for_no_more_than_a_second_gets_a_new_one_each(
    field: bytes, play: Play
) -> None:
    assert kept_connection(play, field).closed == "clean"
    assert play.service.idle == 0


def test_what_a_service_has_said_last_holds(play: Play) -> None:
    connection = kept_connection(play, b"Keep-Alive: timeout=3")
    relay = play.ask()
    connection.send(OK)
    assert told(relay) == [("respond", 200, b"hi", True)]
    play.advance(59)
    assert connection.closed == ""


@pytest.mark.parametrize("isolate", [False, True])
def test_a_service_without_keepalive_gets_a_connection_for_each_request(isolate: bool) -> None:
    play = Play(keepalive=0, isolate=isolate)
    for turn in range(1, 3):
        relay = play.ask()
        play.origin.last.send(OK)
        assert told(relay) == [("respond", 200, b"hi", True)]
        assert [each.closed for each in play.origin.connections] == ["clean"] * turn
    play.check_empty()


def test_each_service_has_its_own_keepalive(make_gateway: Make) -> None:
    services = service_settings("identity", "http://127.0.0.1:4001", keepalive=2.0)
    gateway = make_gateway(settings=settings_with(services=services))
    assert {name: each.keepalive_timeout for name, each in gateway.services.items()} == {
        **dict.fromkeys(gateway.services, 60.0),
        "identity": 2.0,
    }


GIVEN_UP = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


FAREWELLS = pytest.mark.parametrize(
    "said", [GIVEN_UP, b"HTTP/1.0 408 Request Time-out\r\n\r\n<h1>408</h1>"], ids=["length", "until close"]
)


def say(service: Peer, said: bytes, pieces: int, closes_too: bool) -> None:
    """What the service says, in one or two pieces, and whether its close comes with it."""
    service.send_in([said] if pieces == 1 else [said[:20], said[20:]])
    if closes_too:
        service.close()


@pytest.mark.parametrize("closes_too", [False, True])
@pytest.mark.parametrize("pieces", [1, 2])
@FAREWELLS
@pytest.mark.parametrize("method", [b"GET", b"PUT", b"DELETE"])
def test_an_idempotent_request_that_a_408_may_have_crossed_is_sent_again(
    method: bytes, said: bytes, pieces: int, closes_too: bool, play: Play
) -> None:
    kept = stale_connection(play)
    relay = play.ask(method + b" /b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n", b"xx")
    say(kept, said, pieces, closes_too)
    assert told(relay) == []
    fresh = play.origin.last
    assert fresh is not kept
    assert fresh.take() == kept.take()
    fresh.send(OK)
    assert told(relay) == [("respond", 200, b"hi", True)]


@pytest.mark.parametrize("closes_too", [False, True])
@pytest.mark.parametrize("pieces", [1, 2])
@FAREWELLS
@pytest.mark.parametrize("framing", [b"Content-Length: 2", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("method", [b"POST", b"PATCH"])
def test_any_other_request_gets_that_408_and_is_not_sent_again(
    method: bytes, framing: bytes, said: bytes, pieces: int, closes_too: bool, play: Play
) -> None:
    """It may as well be the service's word about this request, of which it then has had every byte."""
    kept = stale_connection(play)
    relay = play.ask(method + b" /b HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n", b"xx")
    say(kept, said, pieces, closes_too)
    kept.close()
    spoken = told(relay)
    assert spoken[0] == ("respond", 408, said.partition(b"\r\n\r\n")[2], said is GIVEN_UP)
    assert "cut" not in spoken
    assert (play.origin.attempts, relay.exchange.retries) == (1, 0)


@pytest.mark.parametrize("framing", [b"Content-Length: 100000", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("method", [b"PUT", b"POST"])
def test_a_408_to_too_large_a_request_is_its_answer(method: bytes, done: bool, framing: bytes, play: Play) -> None:
    """What could not be sent again has been answered."""
    kept = stale_connection(play)
    relay = play.ask(method + b" /b HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n", b"x" * 30000, False)
    relay.body_received(b"x" * 70000)
    if done:
        relay.body_ended([])
    told(relay)
    kept.send(GIVEN_UP)
    assert told(relay) == [("respond", 408, b"", True)]
    assert play.origin.attempts == 1


def test_a_408_to_the_request_itself_is_its_answer(play: Play) -> None:
    kept = stale_connection(play)
    relay = play.ask()
    kept.send(GIVEN_UP.replace(b"Connection: close\r\n", b""))
    assert told(relay) == [("respond", 408, b"", True)]
    relay = play.ask()
    play.advance(1)
    kept.send(GIVEN_UP)
    assert told(relay) == [("respond", 408, b"", True)]
    relay = play.ask()
    assert play.origin.last is not kept
    play.origin.last.send(GIVEN_UP)
    assert told(relay) == [("respond", 408, b"", True)]


def test_a_closing_pool_keeps_nothing(play: Play) -> None:
    relay = play.ask()
    play.service.close_idle()
    play.origin.only.send(OK)
    assert told(relay) == [("respond", 200, b"hi", True)]
    assert play.origin.only.closed == "clean"
    assert (play.service.active, play.service.idle) == (0, 0)


def test_a_connection_is_made_without_delay(play: Play) -> None:
    play.ask()
    assert play.origin.only.near.no_delay
    play.origin.only.send(OK)


# -- answers


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n\r\n", b"hi"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhix", b"hi"),
        (b"HTTP/1.1 204 No Content\r\n\r\nbody", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nbody", b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\nx", b"hi"),
    ],
    ids=["second answer", "one byte", "204", "304", "chunked"],
)
@given(cuts=CUTS)
def test_after_surplus_bytes_a_connection_is_not_used_again(answer: bytes, body: bytes, cuts: list[int]) -> None:
    play = Play()
    relay = play.ask()
    service = play.origin.last
    service.send_in(rechunked(answer, cuts))
    spoken = told(relay)
    assert (
        b"".join(part[2] if part[0] == "respond" else part[1] for part in spoken if part[0] in ("respond", "body"))
        == body
    )  # type: ignore[index]
    assert "cut" not in spoken
    assert relay.exchange.phase is ENDED
    assert (service.closed, play.service.idle) == ("reset", 0)
    play.check_empty()


def test_surplus_bytes_once_do_not_spoil_the_same_answer_later(play: Play) -> None:
    for surplus, idle in ((b"x", 0), (b"", 1), (b"", 1)):
        relay = play.ask()
        play.origin.last.send(OK + surplus)
        assert told(relay) == [("respond", 200, b"hi", True)]
        assert play.service.idle == idle


def test_an_answer_to_head_has_no_body_whatever_it_says(play: Play) -> None:
    relay = play.ask(b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n")
    play.origin.last.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    assert told(relay) == [("respond", 200, b"", True)]
    assert play.service.idle == 1


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"],
)
def test_an_answer_may_end_with_its_connection(head: bytes, play: Play) -> None:
    relay = play.ask()
    service = play.origin.last
    service.send(head + b"one").send(b"two")
    service.close()
    assert told(relay) == [("respond", 200, b"one", False), "stream", ("body", b"two"), ("end", [])]
    assert (relay.exchange.code, play.service.failures) == ("", {})


def test_an_answer_that_ends_with_a_reset_is_cut(play: Play) -> None:
    relay = play.ask()
    service = play.origin.last
    service.send(b"HTTP/1.1 200 OK\r\n\r\none")
    service.reset()
    assert told(relay)[-1] == "cut"
    assert relay.exchange.code == CLOSED


CLOSING = {
    "length": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
    "chunked": b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "nothing": b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
}


@pytest.mark.parametrize("size", [1, 1000], ids=["byte by byte", "at once"])
@pytest.mark.parametrize("answer", CLOSING.values(), ids=CLOSING)
def test_a_service_that_keeps_nothing_alive_is_left_in_order(answer: bytes, size: int, play: Play) -> None:
    play.ask()
    service = play.origin.only
    service.send_in(answer[at : at + size] for at in range(0, len(answer), size))
    assert service.closed == "clean"


@pytest.mark.parametrize("answer", CLOSING.values(), ids=CLOSING)
def test_what_follows_the_end_of_an_answer_is_reset(answer: bytes, play: Play) -> None:
    play.ask()
    play.origin.only.send(answer + b"x")
    assert play.origin.only.closed == "reset"


@pytest.mark.parametrize("answer", CLOSING.values(), ids=CLOSING)
def test_a_service_that_is_owed_the_rest_of_a_request_is_reset(answer: bytes, play: Play) -> None:
    _, service = while_waiting(play)
    service.send(answer)
    assert service.closed == "reset"


@pytest.mark.parametrize("answer", [OK, CLOSING["length"]], ids=["keep-alive", "close"])
def test_a_service_that_takes_nothing_of_a_whole_request_is_left(answer: bytes, play: Play) -> None:
    relay = play.ask(UPLOAD, b"12345", False)
    service = play.origin.only
    service.stop_reading()
    relay.body_received(b"67890")
    relay.body_ended([])
    service.send(answer)
    play.service.close_idle()
    tunnels = play.service.tunnels
    assert (service.closed, len(tunnels.graceful_closes)) == ("", 1)
    tunnels.sweep(tunnels.graceful_closes.seconds - 1)
    assert service.closed == ""
    tunnels.sweep(tunnels.graceful_closes.seconds)
    play.reactor.advance(0)
    assert (service.closed, len(tunnels.graceful_closes)) == ("reset", 0)


def test_only_so_many_wait_for_services_to_take_the_rest(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("koder_gateway.upstream.graceful_close._MOST", 1)
    for _ in range(2):
        relay = play.ask(UPLOAD, b"12345", False)
        play.origin.last.stop_reading()
        relay.body_received(b"67890")
        relay.body_ended([])
        play.origin.last.send(CLOSING["length"])
    assert [service.closed for service in play.origin.connections] == ["", "reset"]
    play.service.tunnels.sweep(play.service.tunnels.graceful_closes.seconds)
    play.reactor.advance(0)


@pytest.mark.parametrize("line", [b"Connection: close", b"Connection: x, Close"])
def test_a_service_that_says_close_is_not_used_again(line: bytes, play: Play) -> None:
    play.ask()
    play.origin.last.send(b"HTTP/1.1 200 OK\r\n%b\r\nContent-Length: 0\r\n\r\n" % line)
    assert (play.service.active, play.service.idle) == (0, 0)


def test_a_service_of_http_1_0_is_used_again_only_if_it_says_so(play: Play) -> None:
    play.ask()
    play.origin.last.send(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert play.service.idle == 0
    play.ask()
    play.origin.last.send(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n")
    assert play.service.idle == 1


INVALID_HEADS = {
    "HTTP/0.9": b"<html>hello</html>\r\n\r\n",
    "no version": b"200 OK\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\n\r\n",
    "bad code": b"HTTP/1.1 20x OK\r\n\r\n",
    "code 999": b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
    "code 099": b"HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "same length twice": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    "list of lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\nx",
    "signed length": b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
    "hexadecimal length": b"HTTP/1.1 200 OK\r\nContent-Length: 0x1\r\n\r\nx",
    "length and coding": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    "gzip and chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "NUL": b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
    "space before the colon": b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n",
    "obs-fold": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "no colon": b"HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 0\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
    "bare CR": b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
    "unasked 101": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "endless head": b"HTTP/1.1 200 OK\r\n" + b"X: yyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 3000 + b"\r\n",
    "too many fields": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300 + b"\r\n",
    "too many interim answers": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 33 + OK,
    "garbage": bytes(range(256)),
}


@pytest.mark.parametrize("raw", INVALID_HEADS.values(), ids=INVALID_HEADS)
@given(cuts=CUTS)
def test_a_malformed_answer_is_502_in_any_pieces(raw: bytes, cuts: list[int]) -> None:
    play = Play()
    relay = play.ask()
    service = play.origin.last
    service.send_in(rechunked(raw, cuts))
    service.close()
    spoken = [part for part in told(relay) if part != ("interim", 103)]
    assert spoken == [("refuse", "upstream_invalid")]
    assert play.service.failures == {INVALID: 1}
    assert (play.service.active, play.service.idle) == (0, 0)
    play.check_empty()


@given(CUTS)
def test_an_answer_means_the_same_in_any_pieces(cuts: list[int]) -> None:
    gateway = MemoryGateway()
    client = gateway.connect()
    client.send(request())
    gateway.origin().only.send_in(
        rechunked(
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
            b"HTTP/1.1 201 Made\r\nSet-Cookie: a=1\r\nX-A: 1\r\nset-cookie: b=2\r\nTransfer-Encoding: chunked\r\n"
            b"Trailer: X-Sum\r\n\r\n4\r\nwiki\r\n5;a=b\r\npedia\r\n0\r\nX-Sum: 7\r\nContent-Length: 3\r\n\r\n",
            cuts,
        )
    )
    early, processing, answer = read_messages(client.received)
    assert (early.start, early.fields) == (b"HTTP/1.1 103 Early Hints", [(b"Link", b"</a>")])
    assert processing.start == b"HTTP/1.1 102 Processing"
    assert answer.start == b"HTTP/1.1 201 Made"
    assert answer.fields == [
        (b"Set-Cookie", b"a=1"),
        (b"X-A", b"1"),
        (b"set-cookie", b"b=2"),
        (b"Trailer", b"X-Sum"),
        (b"Date", DATE.strip()[6:]),
        (b"X-Request-ID", b"r1"),
        (b"Transfer-Encoding", b"chunked"),
    ]
    assert answer.body == b"wikipedia"
    assert client.received.endswith(b"0\r\nX-Sum: 7\r\n\r\n")
    assert gateway.idle() == (1, 0)
    gateway.hang_up()


@given(CUTS)
def test_an_answer_with_a_length_means_the_same_in_any_pieces(cuts: list[int]) -> None:
    gateway = MemoryGateway()
    client = gateway.connect()
    client.send(request())
    body = bytes(range(256)) * 4
    gateway.origin().only.send_in(rechunked(b"HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n" + body, cuts))
    assert client.received == answered(b"200 OK", after=(b"Content-Length: 1024",), body=body)
    assert gateway.idle() == (1, 0)
    gateway.hang_up()


# -- the whole way: what the client sees


def test_the_first_bytes_of_an_answer_leave_as_they_arrive(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"GET", b"/v1/users/events"))
    service = gateway.origin().only
    service.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
    assert client.take() == answered(
        b"200 OK", b"Content-Type: text/event-stream", after=(b"Transfer-Encoding: chunked",)
    )
    service.send(b"data: 1\n\n")
    assert client.take() == b"9\r\ndata: 1\n\n\r\n"
    gateway.advance(50)
    service.send(b"data: 2\n\n")
    assert client.take() == b"9\r\ndata: 2\n\n\r\n"
    service.close()
    assert client.take() == b"0\r\n\r\n"
    assert client.closed == ""


@pytest.mark.parametrize("cut", [Peer.close, Peer.reset])
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhal",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhal\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhal\r\n0\r\n",
    ],
)
def test_an_answer_cut_short_is_never_a_clean_end(
    answer: bytes, cut: Callable[[Peer], None], gateway: MemoryGateway
) -> None:
    client = gateway.connect()
    client.send(request())
    service = gateway.origin().only
    service.send(answer)
    cut(service)
    assert client.closed
    assert b"hal" in client.received
    assert not client.received.endswith(b"0\r\n\r\n")
    (exchange,) = gateway.exchanges
    assert (exchange.status, exchange.code) == (200, "closed")


def test_an_answer_cut_short_is_a_reset_for_a_client_that_reads_to_the_end(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(version=b"1.0"))
    service = gateway.origin().only
    service.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhal\r\n")
    assert client.received.endswith(b"Connection: close\r\n\r\nhal")
    service.close()
    assert client.closed == "reset"


def test_an_answer_without_length_ends_with_the_connection_for_http_1_0(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"GET", b"/v1/users", b"Connection: keep-alive", version=b"1.0"))
    gateway.origin().only.send(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhal\r\n0\r\nX-T: 1\r\n\r\n"
    )
    assert client.received == answered(b"200 OK", after=(b"Connection: close",), body=b"hal")
    assert client.closed == "clean"


def test_interim_answers_are_not_for_http_1_0(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(version=b"1.0"))
    gateway.origin().only.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK)
    assert client.received == answered(b"200 OK", after=(b"Content-Length: 2", b"Connection: close"), body=b"hi")


@pytest.mark.parametrize(
    ("method", "answer", "expected"),
    [
        (
            b"HEAD",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n",
            answered(b"200 OK", after=(b"Content-Length: 99",)),
        ),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", answered(b"200 OK")),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", answered(b"204 No Content")),
        (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", answered(b"204 No Content")),
        (
            b"GET",
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n",
            answered(b"304 Not Modified", after=(b"Content-Length: 99",)),
        ),
        (b"GET", b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n', answered(b"304 Not Modified", b'ETag: "a"')),
        (b"GET", b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", answered(b"200 ", after=(b"Content-Length: 0",))),
        (b"GET", b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", answered(b"200 ", after=(b"Content-Length: 0",))),
    ],
)
def test_answers_without_a_body_leave_the_connection_open(
    method: bytes, answer: bytes, expected: bytes, gateway: MemoryGateway
) -> None:
    client = gateway.connect()
    for _ in range(2):
        client.send(request(method))
        gateway.origin().only.send(answer)
        assert client.take() == expected
        assert client.closed == ""
    assert gateway.idle() == (1, 0)


def test_hop_by_hop_fields_end_here_in_both_directions(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(
        request(
            b"GET",
            b"/v1/users",
            *(b"Connection: X-Secret, Accept, X-Tenant-ID, Host", b"X-Secret: 1", b"Accept: a", b"Keep-Alive: 5"),
            *(b"TE: trailers", b"Upgrade: h2c", b"Proxy-Authorization: x", b"Proxy-Connection: x"),
            *(b"X_Tenant_ID: evil", b"X-Tenant-ID: koder"),
            *(b"X-Forwarded-For: 6.6.6.6", b"Forwarded: for=6.6.6.6", b"X-Real-IP: 6.6.6.6"),
        )
    )
    service = gateway.origin().only
    assert service.received == forwarded()
    service.send(
        b"HTTP/1.1 200 OK\r\nConnection: X-Inner\r\nX-Inner: 1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\n"
        b"X-Request-ID: theirs\r\nAccess-Control-Allow-Origin: *\r\nX-Tenant-ID: koder\r\nX-Kept: 1\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    assert client.received == answered(b"200 OK", b"X-Kept: 1", after=(b"Content-Length: 0",))


# -- expectations


class Echo(Resource):
    """Answers with the body, once all of it is there."""

    isLeaf = True

    def render_POST(self, request: Any) -> bytes:
        data: bytes = request.content.read()
        return data


EXPECTING = request(b"POST", b"/v1/users", b"Content-Length: 5", b"Expect: 100-continue")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def test_an_expectation_is_met_before_a_service_is_asked(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(EXPECTING)
    assert client.take() == CONTINUE
    assert gateway.origin().attempts == 0
    client.send(b"hello")
    service = gateway.origin().only
    head = service.take()
    assert b"Expect" not in head
    assert head.endswith(b"\r\n\r\nhello")
    service.send(CONTINUE)  # nobody has asked for it
    assert client.take() == b""
    service.send(OK)
    assert client.take() == OK_ANSWER
    assert client.closed == ""


def test_an_expectation_may_be_refused_before_the_body(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"POST", b"/nowhere", b"Content-Length: 5", b"Expect: 100-continue"))
    assert problem(client.take()) == (404, "no_route")
    assert client.closed == "clean" or client.half_closed


def test_a_body_that_does_not_wait_needs_no_continue(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(EXPECTING + b"hello")
    service = gateway.origin().only
    gateway.advance(5)
    assert client.take() == b""
    service.send(CONTINUE + OK)
    assert client.take() == OK_ANSWER


def test_an_expecting_body_that_never_comes_is_408(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(EXPECTING)
    gateway.advance(29)
    assert client.take() == CONTINUE
    gateway.advance(2)
    assert problem(client.take()) == (408, "request_timeout")
    assert gateway.origin().attempts == 0


def test_a_mounted_resource_that_wants_the_body_gets_it(make_gateway: Make) -> None:
    gateway = make_gateway(mounts={b"/echo": Echo()})
    client = gateway.connect()
    client.send(request(b"POST", b"/echo", b"Content-Length: 5", b"Expect: 100-continue"))
    assert client.take() == CONTINUE
    client.send(b"hello")
    (message,) = read_messages(client.take())
    assert message.body == b"hello"


# -- a body that has not begun


@pytest.mark.parametrize("framing", [b"Content-Length: 1000", b"Transfer-Encoding: chunked"])
def test_a_service_is_not_asked_before_the_body_has_begun(framing: bytes, gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"GET", b"/v1/users", framing))
    gateway.advance(29)
    assert gateway.idle() == (0, 0)
    assert client.received == b""
    gateway.advance(1.5)
    assert problem(client.take()) == (408, "request_timeout")
    assert gateway.origin().attempts == 0
    (exchange,) = gateway.exchanges
    assert exchange.service == ""


def test_a_body_that_ends_empty_is_whole(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"POST", b"/v1/users", b"Transfer-Encoding: chunked"))
    assert gateway.origin().attempts == 0
    client.send(b"0\r\n\r\n")
    service = gateway.origin().only
    sent = service.take()
    assert b"\r\nContent-Length: 0\r\n" in sent
    assert b"chunked" not in sent
    assert sent.endswith(b"\r\n\r\n")
    service.send(OK)
    assert client.take() == OK_ANSWER


def test_a_chunk_line_is_no_byte_of_a_body(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"POST", b"/v1/users", b"Transfer-Encoding: chunked"))
    client.send(b"5\r\n")
    assert gateway.origin().attempts == 0
    client.send(b"h")
    assert gateway.origin().only.take().endswith(b"\r\n\r\n1\r\nh\r\n")
    client.reset()
    assert gateway.idle() == (0, 0)


@pytest.mark.parametrize("leave", [Peer.close, Peer.reset])
def test_a_client_that_leaves_before_its_body(leave: Callable[[Peer], None], gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"POST", b"/v1/users", b"Content-Length: 5"))
    leave(client)
    (exchange,) = gateway.exchanges
    assert exchange.code == "client_gone"
    assert gateway.origin().attempts == 0


def test_the_end_of_the_drain_comes_before_a_body(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"POST", b"/v1/users", b"Content-Length: 5"))
    gateway.site.drain()
    gateway.site.end_drain()
    assert problem(client.take()) == (503, "draining")


def test_a_body_that_is_broken_before_it_has_begun(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"POST", b"/v1/users", b"Transfer-Encoding: chunked"))
    client.send(b"zz\r\n")
    assert problem(client.take()) == (400, "bad_request")
    assert gateway.origin().attempts == 0


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_what_else_is_expected(version: bytes, gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(
        request(b"POST", b"/v1/users", b"Content-Length: 5", b"Expect: miracles", version=version, body=b"hello")
    )
    if version == b"1.1":
        assert problem(client.received) == (417, "expectation_failed")
    else:  # HTTP/1.0 knows no expectations (RFC 9110 section 10.1.1)
        assert b"Expect" not in gateway.origin().only.received
        serve(gateway, lambda _: OK)
        assert read_messages(client.received)[0].status == 200


def test_http_1_0_is_never_told_to_continue(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"POST", b"/v1/users", b"Content-Length: 5", b"Expect: 100-continue", version=b"1.0"))
    gateway.advance(5)
    assert client.received == b""
    client.send(b"hello")
    gateway.origin().only.send(OK)
    assert read_messages(client.received)[0].status == 200


# -- deadlines of a service


def test_a_service_that_never_answers_is_504(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request())
    gateway.advance(59.5)
    assert client.received == b""
    gateway.advance(1)
    assert problem(client.take()) == (504, "upstream_timeout")
    assert client.closed == ""
    assert gateway.origin().only.closed == "reset"
    assert gateway.idle() == (0, 0)


def test_the_time_for_an_answer_begins_with_the_requests_end(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"POST", b"/v1/users", b"Content-Length: 5"))
    gateway.advance(25)
    client.send(b"hello")
    gateway.advance(59.5)
    assert client.received == b""
    gateway.advance(1)
    assert problem(client.take()) == (504, "upstream_timeout")


def test_a_head_that_drips_in_is_504_at_the_deadline(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request())
    service = gateway.origin().only
    for byte in b"HTTP/1.1 200 OK\r\nX: " + b"y" * 39:
        service.send(bytes((byte,)))
        gateway.advance(1)
    assert client.received == b""
    gateway.advance(1.5)
    assert problem(client.take()) == (504, "upstream_timeout")


def test_interim_answers_do_not_buy_time(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request())
    for _ in range(6):
        gateway.origin().only.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        gateway.advance(10)
    gateway.advance(0.5)
    assert read_messages(client.take())[-1].status == 504


def test_a_service_may_have_a_deadline_of_its_own(make_gateway: Make) -> None:
    gateway = make_gateway(
        settings=settings_with(services=service_settings("identity", "http://127.0.0.1:4001", response=3.0))
    )
    client = gateway.connect()
    client.send(request())
    gateway.advance(3.5)
    assert problem(client.take()) == (504, "upstream_timeout")


def test_an_answer_that_stalls_is_cut(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request())
    service = gateway.origin().only
    service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhal")
    gateway.advance(59)
    service.send(b"f")
    gateway.advance(59)
    assert client.closed == ""
    gateway.advance(2)
    assert client.closed
    assert client.received.endswith(b"\r\n\r\nhalf")
    (exchange,) = gateway.exchanges
    assert exchange.code == TIMEOUT


def test_a_client_that_takes_nothing_is_given_up(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request())
    client.stop_reading()
    service = gateway.origin().only
    service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").send_in([b"x" * 10000] * 20)
    assert service.near.paused
    gateway.advance(59)
    assert service.closed == ""
    gateway.advance(2)
    assert service.closed == "reset"
    assert client.closed == "reset"
    assert gateway.idle() == (0, 0)


def test_a_slow_client_that_takes_something_is_not_given_up() -> None:
    play = Play()
    relay = play.ask()
    caller = relay.client
    assert isinstance(caller, Caller)
    caller.takes = True
    service = play.origin.last
    service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhal")
    connection = relay.connection
    assert connection is not None
    connection.pauseProducing()
    told(relay)
    for _ in range(3):
        play.advance(60)
        assert told(relay) == ["taking?"]
    caller.takes = False
    play.advance(60)
    assert told(relay) == ["taking?", "cut at once"]
    play.check_empty()


def test_progress_towards_the_client_counts_as_life() -> None:
    play = Play()
    relay = play.ask()
    service = play.origin.last
    service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhal")
    connection = relay.connection
    assert connection is not None
    for _ in range(3):
        connection.pauseProducing()
        play.advance(50)
        connection.resumeProducing()
    told(relay)
    service.send(b"fhalfha")
    assert told(relay) == [("body", b"fhalfha"), ("end", [])]
    play.check_empty()


def test_a_service_that_does_not_take_the_upload_is_504(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"POST", b"/v1/users", b"Content-Length: 1000000", body=b"x"))
    service = gateway.origin().only
    service.stop_reading()
    client.send_in([b"x" * 10000] * 20)
    assert client.near.paused
    gateway.advance(59)
    assert client.received == b""
    gateway.advance(2)
    assert problem(client.received) == (504, "upstream_timeout")
    assert service.closed == "reset"


def test_a_service_that_answers_late_does_not_disturb_the_next(gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"GET", b"/v1/users/1"))
    gateway.advance(61)
    late = gateway.origin().only
    client.take()
    client.send(request(b"GET", b"/v1/users/2"))
    late.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
    assert client.received == b""
    gateway.origin().last.send(OK)
    assert client.take() == OK_ANSWER


# -- trailers and uploads


SUMMED = settings_with(requests={"allow_trailers": ("X-Sum",)})


def test_trailers_pass_but_for_those_that_mean_something_here(make_gateway: Make) -> None:
    gateway = make_gateway(settings=SUMMED)
    client = gateway.connect()
    trailers = b"X-Sum: 1\r\nContent-Length: 9\r\nAuthorization: x\r\nHost: evil\r\n"
    trailers += b"X-Tenant-ID: evil\r\nx_tenant_id: evil\r\n"
    client.send(request(b"POST", b"/v1/users", b"Transfer-Encoding: chunked", b"Trailer: X-Sum", body=b"2\r\nab\r\n"))
    client.send(b"0\r\n" + trailers + b"\r\n")
    service = gateway.origin().only
    assert service.received.endswith(b"2\r\nab\r\n0\r\nX-Sum: 1\r\n\r\n")
    message, rest = read_message(service.received)
    assert (message.body, message.one(b"trailer"), rest) == (b"ab", b"X-Sum", b"")


@given(CUTS)
def test_trailers_pass_in_any_pieces(cuts: list[int]) -> None:
    gateway = MemoryGateway(SUMMED)
    body = b"2\r\nab\r\n0\r\nX-Sum: 1\r\n\r\n"
    raw = request(b"POST", b"/v1/users", b"Transfer-Encoding: chunked", body=body)
    gateway.connect().send_in(rechunked(raw, cuts))
    assert gateway.origin().only.received.endswith(b"0\r\nX-Sum: 1\r\n\r\n")
    gateway.hang_up()


@pytest.mark.parametrize("size", [0, 1, 70000])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_an_upload_streams_as_it_comes(framing: str, size: int, gateway: MemoryGateway) -> None:
    client = gateway.connect()
    if framing == "length":
        client.send(request(b"PUT", b"/v1/users", b"Content-Length: %d" % (2 * size)))
        pieces = [b"x" * size] * 2
        end = b""
    else:
        client.send(request(b"PUT", b"/v1/users", b"Transfer-Encoding: chunked"))
        pieces = [b"%x\r\n%b\r\n" % (size, b"x" * size)] * 2 if size else []
        end = b"0\r\n\r\n"
    seen = 0
    for piece in pieces:
        client.send(piece)
        (service,) = gateway.origin().connections or [None]
        if size:
            assert service is not None
            assert len(service.received) >= seen + size
            seen = len(service.received)
    client.send(end)
    (message,) = serve(gateway, lambda _: OK)
    assert message.body == b"x" * 2 * size
    assert client.received == OK_ANSWER
    assert gateway.idle() == (1, 0)


def test_a_storm_leaves_nothing_behind(gateway: MemoryGateway) -> None:
    fates: list[Callable[[Peer], object]] = [
        Peer.close,
        Peer.reset,
        lambda service: service.send(OK),
        lambda service: service.send(b"garbage"),
        lambda service: service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhal"),
        lambda service: None,
    ]
    for number in range(120):
        client = gateway.connect()
        if number % 2:
            client.send(request())
        else:
            client.send(request(b"POST", b"/v1/users", b"Content-Length: 10", body=b"x" * (number % 11)))
        if not gateway.origin().connections:
            continue  # the first one's body has not begun
        service = gateway.origin().last
        if not service.gone and not service.closed:
            fates[number % len(fates)](service)
        if number % 5 == 0:
            client.reset()
        elif number % 7 == 0:
            client.close()
    gateway.advance(200)
    assert gateway.idle() == (0, 0)
    assert gateway.site.in_flight == 0
    assert not gateway.site.channels
    assert len(gateway.exchanges) == 120


# -- a connection and its transport


def test_nobody_stands_between_a_connection_and_the_transport_that_an_endpoint_has_made() -> None:
    reactor = RecordingReactor()
    connection = UpstreamConnection(Play().service.addresses[0])
    factory = Factory()
    factory.buildProtocol = lambda addr: connection  # type: ignore[method-assign]
    made = TCP4ClientEndpoint(reactor, "127.0.0.1", 1).connect(factory)
    transport = StringTransport()
    transport.protocol = reactor.tcpClients[0][2].buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
    assert transport.protocol is not connection
    transport.protocol.makeConnection(transport)
    assert transport.protocol is connection
    assert connection.transport is transport
    made.addCallback(lambda result: result is connection or pytest.fail("another connection"))


def test_whoever_else_stands_between_stays() -> None:
    connection = UpstreamConnection(Play().service.addresses[0])
    transport = StringTransport()
    transport.protocol = outer = object()
    connection.makeConnection(transport)
    assert transport.protocol is outer


# -- what of a service's failures is told


def test_failures_that_were_not_told_are_told_after_a_while() -> None:
    play = Play()
    lines: list[str] = []
    play.service.log = Logger(observer=lambda event: lines.append(formatEvent(event)))
    for detail in ("first", "second", "third"):
        play.service.failed(INVALID, detail)
    assert lines == ["service identity: invalid: first"]
    play.clock.now += 4.5
    play.service.sweep(play.clock.now)
    assert len(lines) == 1
    play.clock.now += 0.5
    for _ in range(3):
        play.service.sweep(play.clock.now)
    assert lines[1:] == ["service identity: 2 more failures since, the last one: invalid: third"]
