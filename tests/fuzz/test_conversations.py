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
STYLES = st.sampled_from(
    ["length", "length", "chunked", "interim", "last", "until close", "surplus length", "surplus chunked"]
)
# Bytes of an answer's body, at least. From some tens of thousands on a response is a large one.
ANSWERS = st.sampled_from([0, 0, 0, 200, 3000, 50_000, 200_000])
# What no request has asked for, with the tag of one that has been answered.
SURPLUS = b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n%b"
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
        # Whether anything has happened that excuses another outcome than the service's answer; `calm`: nothing may.
        self.faults = False
        self.calm = False
        self.busy = False

    # -- clients

    @initialize(
        kinds=st.lists(st.sampled_from([HTTP1, HTTP2]), min_size=1, max_size=3),
        calm=st.booleans(),
        busy=st.booleans(),
    )
    def begin(self, kinds: list[type[Client]], calm: bool, busy: bool) -> None:
        self.calm = calm
        self.writes_join(busy)
        for kind in kinds:
            self.clients.append(kind(self.gateway))

    def writes_join(self, busy: bool) -> None:
        """Have writes wait for the end of the turn, as those of a busy reactor do; a sweep would end it."""
        self.busy = self.gateway.site.turns.joined.wanted = busy

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
        answer_length=ANSWERS,
        sent=SIZES,
    )
    def ask(
        self,
        which: int,
        method: bytes,
        tenant: bytes,
        length: int,
        chunked: bool,
        extra: bytes,
        answer_length: int,
        sent: int,
    ) -> None:
        living = [client for client in self.clients if not client.over] or self.clients
        client = living[which % len(living)]
        length = length if method in (b"POST", b"PUT") else 0
        reaches = tenant != b"gone" and not extra.startswith(b"X-Tenant-ID")
        chunked = chunked and bool(length)
        trailer = chunked and not client.http2 and length % 2 == 0
        asked = Asked(tag_of(len(self.asked)), method, tenant, reaches, length, answer_length, trailer)
        self.asked[asked.tag] = asked
        client.waiting += client.ask(asked, chunked=chunked, extra=extra)
        client.flow(sent)

    @rule(how_many=st.integers(1, 4), which=PLACES)
    def ask_plainly(self, how_many: int, which: int) -> None:
        for number in range(how_many):
            self.ask(which + number, b"GET", b"koder", 0, False, b"", 0, 100_000)

    @rule(
        which=PLACES, bodies=st.lists(st.sampled_from([0, 1, 14, 300]), min_size=2, max_size=4), chunked=st.booleans()
    )
    def ask_in_a_row(self, which: int, bodies: list[int], chunked: bool) -> None:
        """Requests with bodies of one client, all in one piece."""
        living = [index for index, client in enumerate(self.clients) if not client.over]
        if not living:
            return
        client = self.clients[living[which % len(living)]]
        among = [each for each in self.clients if not each.over].index(client)
        for length in bodies:
            self.ask(among, b"POST" if length else b"GET", b"acme", length, chunked, b"", 0, 0)
        client.flow(1 << 20)

    @rule(which=PLACES, style=STYLES, length=ANSWERS, babble=st.booleans())
    def exchange(self, which: int, style: str, length: int, babble: bool) -> None:
        """A whole exchange; then its service says more, and a request of another client may get its connection."""
        self.ask(which, b"GET", b"acme", 0, False, b"", length, 1 << 20)
        self.service_answers(style, 4, 1 << 20)
        if babble and not self.calm:
            self.service_leaves(which, "babble")
        self.ask(which + 1, b"GET", b"koder", 0, False, b"", 0, 1 << 20)

    @rule(clients=st.booleans())
    def all_send(self, clients: bool) -> None:
        """All of one side send what they have in one turn of the reactor."""
        for each in [*self.clients] if clients else self.listen():
            each.flow_in_turn(1 << 20)
        self.gateway.reactor.advance(0)
        for service in self.listen():
            service.flow(0)

    @rule(busy=st.booleans())
    def reactor_is_busy(self, busy: bool) -> None:
        self.writes_join(busy)

    @rule(which=PLACES, size=SIZES)
    def client_sends(self, which: int, size: int) -> None:
        talking = [client for client in self.clients if client.waiting] or self.clients
        talking[which % len(talking)].flow(size)

    @precondition(lambda self: not self.calm and any(each.waiting and not each.over for each in self.clients))
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
            assert message.trailers == ([(b"X-Trailer", tag)] if asked.trailer else [])

    def answer(self, message: Message, style: str) -> bytes:
        """The bytes of a service's answer."""
        if style.startswith("surplus"):
            style = style.partition(" ")[2]
        asked = self.asked.get(next(iter(tags_in(message.target)), b""))
        body = asked.answer_body() if asked else b"?"
        if asked:
            asked.answer_trailer = style == "chunked" and message.method != b"HEAD"
        head = b"HTTP/1.1 200 OK\r\nX-Tag: %b\r\n" % (asked.tag if asked else b"?")
        if style == "interim":
            head = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + head
        if message.method == b"HEAD":
            return head + b"Content-Length: %d\r\n\r\n" % len(body)
        if style == "chunked":
            tag = asked.tag if asked else b"?"
            half = len(body) // 2
            chunks = b"".join(b"%x;a=b\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:]) if part)
            return head + b"Transfer-Encoding: chunked\r\n\r\n%b0\r\nX-A: %b\r\n\r\n" % (chunks, tag)
        if style == "until close":
            return head + b"\r\n" + body
        more = b"Connection: close\r\n" if style == "last" else b""
        return head + b"%bContent-Length: %d\r\n\r\n%b" % (more, len(body), body)

    @precondition(lambda self: any(service.unanswered for service in self.services.values()))
    @rule(style=STYLES, most=st.integers(1, 3), sent=SIZES)
    def service_answers(self, style: str, most: int, sent: int) -> None:
        for service in self.listen():
            while service.unanswered and most and not service.closes:
                message = service.unanswered.pop(0)
                answer = self.answer(message, style)
                if style.startswith("surplus") and not service.surplus:
                    surplus = SURPLUS % max(tags_in(message.target), default=b"?")
                    service.surplus = len(surplus)
                    answer += surplus
                service.closes = style == "until close" and message.method != b"HEAD"
                service.waiting += answer
                most -= 1
                service.flow(sent)

    @precondition(lambda self: any(service.waiting for service in self.services.values()))
    @rule(which=PLACES, size=SIZES)
    def service_sends(self, which: int, size: int) -> None:
        talking = [service for service in self.listen() if service.waiting]
        if talking:
            talking[which % len(talking)].flow(size)

    @precondition(lambda self: not self.calm and any(service.waiting for service in self.services.values()))
    @rule(which=PLACES, place=PLACES, length=st.integers(0, 4), piece=SPOILING | st.binary(max_size=3))
    def service_is_spoilt(self, which: int, place: int, length: int, piece: bytes) -> None:
        talking = [service for service in self.listen() if service.waiting]
        if talking:
            service = talking[which % len(talking)]
            service.waiting = spoilt(service.waiting, place, length, piece)
            service.surplus = 0
            self.faults = True
            self.excuse(service, spoilt=True)

    @precondition(lambda self: not self.calm and any(not service.over for service in self.services.values()))
    @rule(which=PLACES, how=st.sampled_from(["close", "reset", "babble"]))
    def service_leaves(self, which: int, how: str) -> None:
        living = [service for service in self.listen() if not service.over]
        if not living:
            return
        service = living[which % len(living)]
        self.faults = True
        if how == "babble":
            # Where nobody waits for it: bytes of an exchange that is over. Behind a body that ends with its
            # connection they would be more of that.
            if not (service.closes or service.unanswered or service.waiting or service.peer.received):
                tags = tags_in(service.all)
                service.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n%b" % min(tags, default=b"T" * 14))
        else:
            # Of a body that ends with its connection nobody can see that it is cut.
            self.excuse(service, spoilt=service.closes)
            getattr(service.peer, how)()

    def excuse(self, service: ServiceEnd, *, spoilt: bool) -> None:
        """What this service has said may come otherwise."""
        service.spoilt = service.spoilt or spoilt
        for tag in tags_in(service.all) if spoilt else ():
            self.asked[tag].answer_trailer = False

    @precondition(lambda self: not self.calm)
    @rule(answers=st.sampled_from(["accept", "accept", "refuse"]))
    def service_takes(self, answers: str) -> None:
        self.gateway.origin().answers = answers
        self.faults = self.faults or answers != "accept"

    @rule(seconds=st.sampled_from([0.3, 0.3, 3.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        seconds = 0.3 if self.calm else seconds
        for client in self.clients:
            client.hear()
            client.late = client.late or bool(client.waiting) or not client.peer.reading
        pass_time(self.gateway, seconds, 4)
        self.writes_join(self.busy)
        self.faults = self.faults or seconds > 1

    # -- what holds

    @invariant()
    def each_is_where_it_belongs(self) -> None:
        self.listen()
        for client in self.clients:
            client.hear()

    def progress(self) -> tuple[int, int]:
        """What changes while anything goes on."""
        return len(self.gateway.exchanges), sum(client.sent for client in self.clients)

    def settle(self) -> None:
        """Let everybody say all of what they have to say."""
        self.gateway.origin().answers = "accept"
        for client in self.clients:
            if not client.over:
                client.peer.start_reading()
        quiet = 0
        for _ in range(400):
            before = self.progress()
            for client in self.clients:
                client.hear()
                client.flow(1 << 20)
            self.gateway.reactor.advance(0)
            for service in self.listen():
                while service.unanswered:
                    service.waiting += self.answer(service.unanswered.pop(0), "length")
                service.flow(1 << 20)
            self.gateway.reactor.advance(0)
            busy = before != self.progress() or any(each.waiting and not each.over for each in self.clients)
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
            late = (408,) if client.late else ()
            for asked, answer in outcomes:
                assert tags_in(answer.body) <= self.may_have(asked), f"another exchange's bytes: {answer}"
                spoilt = any(each.spoilt for each in self.services.values())
                if answer.status == 200 and answer.ended == "complete" and not spoilt:
                    assert asked.reaches
                    assert answer.body == (b"" if asked.method == b"HEAD" else asked.answer_body())
                if not asked.reaches:
                    assert answer.status in (0, 400, 403, *late), answer
            if client.honest and not client.over and not self.faults:
                assert client.finished(), f"no outcome: {client.asked[len(outcomes) :]}"
                for asked, answer in outcomes:
                    assert answer.ended in ("complete", "given up")
                    assert not asked.reaches or answer.status in (200, 0, *late), answer

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
