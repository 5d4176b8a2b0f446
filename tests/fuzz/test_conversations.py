"""Whole conversations on both sides at once, in pieces of any size, in any order, with faults of both.

What holds, whatever happens: each request has one outcome, over HTTP/1.1 in order; no byte of one exchange is in
another; services get well-formed requests of the resolved tenant, each once; in the end nothing is left.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.fuzz.paths import LONG, check_forwarded, pass_time, playing
from tests.fuzz.talkers import Asked, Client, Http2Talker, ServiceEnd, tag_of, tags_in
from tests.kit.http1 import Message

# How many are played; with a number of one's own they are others each time.
EXAMPLES = int(os.environ.get("KODER_FUZZ_EXAMPLES", "0"))
SETTINGS = settings(
    max_examples=EXAMPLES or 40,
    stateful_step_count=40,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
SIZES = st.sampled_from([1, 2, 5, 20, 70, 300, 100_000])
PLACES = st.integers(0, 1 << 16)
SPOILING = st.sampled_from(
    [b"", b"\0", b"\r\n", b"\n", b"\r\n\r\n", b"Content-Length: 3\r\n", b":", b" ", b"0\r\n\r\n"]
)
HTTP1, HTTP2 = Client, Http2Talker
_ENOUGH = 4


def spoilt(data: bytes, place: int, length: int, piece: bytes) -> bytes:
    """`data` with something else at one place."""
    start = place % (len(data) + 1)
    return data[:start] + piece + data[start + length :]


class Conversations(RuleBasedStateMachine):
    """One gateway, its clients and the services' ends of its connections."""

    def __init__(self) -> None:
        super().__init__()
        self._playing = playing()
        self.gateway = self._playing.__enter__()
        self.clients: list[Client] = []
        self.asked: dict[bytes, Asked] = {}
        self.services: dict[int, ServiceEnd] = {}
        # Whether anything has happened that excuses another outcome than the service's answer.
        self.faults = False

    # -- clients

    @initialize(kinds=st.lists(st.sampled_from([HTTP1, HTTP2]), min_size=1, max_size=3))
    def begin(self, kinds: list[type[Client]]) -> None:
        for kind in kinds:
            self.clients.append(kind(self.gateway))

    @rule(kind=st.sampled_from([HTTP1, HTTP2]))
    def connect(self, kind: type[Client]) -> None:
        if len(self.clients) < _ENOUGH:
            self.clients.append(kind(self.gateway))

    @rule(
        which=PLACES,
        method=st.sampled_from([b"GET", b"GET", b"HEAD", b"POST", b"PUT"]),
        tenant=st.sampled_from([b"koder", b"koder", b"acme", b"gone"]),
        length=st.sampled_from([0, 1, 14, 50, 3000]),
        chunked=st.booleans(),
        extra=st.sampled_from([b"", b"", b"X-Tenant-ID: umbrella\r\n", b"X-Forwarded-For: 1.1.1.1\r\nX_Tag: a\r\n"]),
        sent=SIZES,
    )
    def ask(
        self, which: int, method: bytes, tenant: bytes, length: int, chunked: bool, extra: bytes, sent: int
    ) -> None:
        living = [client for client in self.clients if not client.over] or self.clients
        client = living[which % len(living)]
        length = length if method in (b"POST", b"PUT") else 0
        reaches = tenant != b"gone" and not extra.startswith(b"X-Tenant-ID")
        asked = Asked(tag_of(len(self.asked)), method, tenant, reaches, length)
        self.asked[asked.tag] = asked
        client.waiting += client.ask(asked, chunked=chunked and bool(length), extra=extra)
        client.flow(sent)

    @rule(how_many=st.integers(1, 4), which=PLACES)
    def ask_plainly(self, how_many: int, which: int) -> None:
        for number in range(how_many):
            self.ask(which + number, b"GET", b"koder", 0, False, b"", 100_000)

    @rule(which=PLACES, size=SIZES)
    def client_sends(self, which: int, size: int) -> None:
        talking = [client for client in self.clients if client.waiting] or self.clients
        talking[which % len(talking)].flow(size)

    @precondition(lambda self: any(client.waiting and not client.over for client in self.clients))
    @rule(which=PLACES, place=PLACES, length=st.integers(0, 4), piece=SPOILING | st.binary(max_size=3))
    def client_is_spoilt(self, which: int, place: int, length: int, piece: bytes) -> None:
        talking = [client for client in self.clients if client.waiting and not client.over]
        client = talking[which % len(talking)]
        client.hear()
        client.waiting = spoilt(client.waiting, place, length, piece)
        client.honest = False

    @precondition(lambda self: len(self.asked) > 2)
    @rule(which=PLACES, how=st.sampled_from(["close", "reset", "stream", "stream", "stream"]))
    def client_leaves(self, which: int, how: str) -> None:
        client = self.clients[which % len(self.clients)]
        if how == "stream":
            if isinstance(client, Http2Talker):
                client.give_up(which >> 4)
        elif not client.over:
            client.hear()
            getattr(client.peer, how)()

    @rule(which=PLACES, reads=st.booleans())
    def client_reads(self, which: int, reads: bool) -> None:
        peer = self.clients[which % len(self.clients)].peer
        peer.start_reading() if reads else peer.stop_reading()

    # -- services

    def listen(self) -> list[ServiceEnd]:
        """All connections that were made to services, with what they have got checked."""
        for name in self.gateway.services:
            for peer in self.gateway.origin(name).connections:
                if id(peer) not in self.services:
                    self.services[id(peer)] = ServiceEnd(peer)
        for service in self.services.values():
            for message in service.hear():
                self.judge_request(message)
        return list(self.services.values())

    def judge_request(self, message: Message) -> None:
        check_forwarded(message)
        (tag,) = tags_in(message.target) or {b""}
        tags = tags_in(message.raw)
        if not tag:
            return
        asked = self.asked[tag]
        owner = next(client for client in self.clients if asked in client.asked)
        assert tags <= {each.tag for each in owner.asked}, f"another client's bytes: {message.raw!r}"
        if owner.honest:
            assert tags == {tag}, f"bytes of another request: {message.raw!r}"
            assert asked.reaches
            assert (message.method, message.body) == (asked.method, asked.body)
            assert message.values(b"x-tenant-id") == [asked.tenant]
            assert message.values(b"x-request-id") == [tag]

    def answer(self, message: Message, style: str) -> bytes:
        """The bytes of a service's answer."""
        asked = self.asked.get(next(iter(tags_in(message.target)), b""))
        body = asked.answer_body() if asked else b"?"
        head = b"HTTP/1.1 200 OK\r\nX-Tag: %b\r\n" % (asked.tag if asked else b"?")
        if style == "interim":
            head = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + head
        if message.method == b"HEAD":
            return head + b"Content-Length: %d\r\n\r\n" % len(body)
        if style == "chunked":
            return head + b"Transfer-Encoding: chunked\r\n\r\n%x;a=b\r\n%b\r\n0\r\nX-A: 1\r\n\r\n" % (len(body), body)
        more = b"Connection: close\r\n" if style == "last" else b""
        return head + b"%bContent-Length: %d\r\n\r\n%b" % (more, len(body), body)

    @precondition(lambda self: any(service.unanswered for service in self.services.values()))
    @rule(
        style=st.sampled_from(["length", "length", "chunked", "interim", "last"]), most=st.integers(1, 3), sent=SIZES
    )
    def service_answers(self, style: str, most: int, sent: int) -> None:
        for service in self.listen():
            while service.unanswered and most:
                service.waiting += self.answer(service.unanswered.pop(0), style)
                most -= 1
                service.flow(sent)

    @precondition(lambda self: any(service.waiting for service in self.services.values()))
    @rule(which=PLACES, size=SIZES)
    def service_sends(self, which: int, size: int) -> None:
        talking = [service for service in self.listen() if service.waiting]
        if talking:
            talking[which % len(talking)].flow(size)

    @precondition(lambda self: any(service.waiting for service in self.services.values()))
    @rule(which=PLACES, place=PLACES, length=st.integers(0, 4), piece=SPOILING | st.binary(max_size=3))
    def service_is_spoilt(self, which: int, place: int, length: int, piece: bytes) -> None:
        talking = [service for service in self.listen() if service.waiting]
        if talking:
            service = talking[which % len(talking)]
            service.waiting = spoilt(service.waiting, place, length, piece)
            self.faults = service.spoilt = True

    @precondition(lambda self: any(not service.over for service in self.services.values()))
    @rule(which=PLACES, how=st.sampled_from(["close", "reset", "babble"]))
    def service_leaves(self, which: int, how: str) -> None:
        living = [service for service in self.listen() if not service.over]
        if not living:
            return
        service = living[which % len(living)]
        self.faults = True
        if how == "babble":
            # Where nobody waits for it: bytes of an exchange that is over.
            if not (service.unanswered or service.waiting or service.peer.received):
                tags = tags_in(service.all)
                service.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n%b" % min(tags, default=b"T" * 14))
        else:
            getattr(service.peer, how)()

    @rule(answers=st.sampled_from(["accept", "accept", "refuse"]))
    def service_takes(self, answers: str) -> None:
        self.gateway.origin().answers = answers
        self.faults = self.faults or answers != "accept"

    @rule(seconds=st.sampled_from([0.3, 0.3, 3.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        pass_time(self.gateway, seconds, 4)
        self.faults = self.faults or seconds > 1

    # -- what holds

    @invariant()
    def each_is_where_it_belongs(self) -> None:
        self.listen()
        for client in self.clients:
            client.hear()

    def settle(self) -> None:
        """Let everybody say all of what they have to say."""
        self.gateway.origin().answers = "accept"
        for client in self.clients:
            if not client.over:
                client.peer.start_reading()
        quiet = 0
        for _ in range(400):
            before = len(self.gateway.exchanges)
            for client in self.clients:
                client.hear()
                client.flow(1 << 20)
            self.gateway.reactor.advance(0)
            for service in self.listen():
                while service.unanswered:
                    service.waiting += self.answer(service.unanswered.pop(0), "length")
                service.flow(1 << 20)
            self.gateway.reactor.advance(0)
            busy = before != len(self.gateway.exchanges) or any(
                each.waiting and not each.over for each in self.clients
            )
            quiet = 0 if busy else quiet + 1
            if quiet > 3:
                return
        raise AssertionError("it does not come to an end")

    def may_have(self, asked: Asked) -> set[bytes]:
        """Whose bytes an answer may have: its own, and what a service whose bytes were spoilt has said late."""
        spoilt = [tags_in(each.all + each.peer.received) for each in self.services.values() if each.spoilt]
        return {asked.tag}.union(*(tags for tags in spoilt if asked.tag in tags))

    def judge_outcomes(self) -> None:
        for client in self.clients:
            outcomes = client.outcomes()
            for asked, answer in outcomes:
                assert tags_in(answer.body) <= self.may_have(asked), f"another exchange's bytes: {answer}"
                if answer.status == 200 and answer.ended == "complete" and not self.faults:
                    assert asked.reaches
                    assert answer.body == (b"" if asked.method == b"HEAD" else asked.answer_body())
                if not asked.reaches:
                    assert answer.status in (0, 400, 403), answer
            if client.honest and not client.over and not self.faults:
                assert client.finished(), f"no outcome: {client.asked[len(outcomes) :]}"
                for asked, answer in outcomes:
                    assert answer.ended in ("complete", "given up")
                    assert not asked.reaches or answer.status in (200, 0), answer

    def judge_repeats(self) -> None:
        """A request that a service may have acted upon is never sent again, unless that does no harm."""
        for tag, asked in self.asked.items():
            line = b"%b %b HTTP/1.1\r\n" % (asked.method, asked.target)
            owner = next((client for client in self.clients if asked in client.asked), None)
            if owner is not None and owner.honest:
                times = sum((each.all + each.peer.received).count(line) for each in self.services.values())
                assert times <= (1 if asked.method == b"POST" else 2), f"{tag!r} was sent {times} times"

    def teardown(self) -> None:
        self.settle()
        self.judge_outcomes()
        self.judge_repeats()
        gateway = self.gateway
        pass_time(gateway, LONG)
        self.listen()
        for client in self.clients:
            client.outcomes()
        gateway.hang_up()
        assert not gateway.site.in_flight
        assert not gateway.site.buffered.total
        self._playing.__exit__(None, None, None)


class TestConversations(Conversations.TestCase):
    """Played by pytest."""

    settings = SETTINGS
