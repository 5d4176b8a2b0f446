"""The store against a real Redis: what it decides, and what becomes of it when that is gone, hung, full or a liar."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.endpoints import UNIXClientEndpoint, UNIXServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from koder_gateway.limits_store.greeting import Credentials
from koder_gateway.limits_store.scripts import SCRIPTS
from koder_gateway.limits_store.store import LimitsStore
from koder_gateway.policy.shared_store import CROWDED, OK, SHORT, SharedAnswer, SharedRule
from koder_gateway.wire.clock import CoarseClock
from tests.conftest import LoggedErrors
from tests.kit.redis import Redis
from tests.kit.waiting import eventually

_NOBODY = Credentials()
_NUMBERS = count()
# A user who may do what docs/operations.md says, and no more.
_MAY = re.search(r"~koder-gateway:\* (.*)", (Path(__file__).parents[2] / "docs/operations.md").read_text())
assert _MAY is not None
_USER = f"user kg on >hunter2 ~kg:* {_MAY[1]}"
Answers = list[tuple[float, int]]


def rule(
    rate: float = 0.01, burst: int = 3, *, enforced: bool = True, afterwards: bool = False, name: bytes = b"r"
) -> SharedRule:
    """A rule whose tokens do not come back within a test."""
    return SharedRule(name, rate, burst, burst * 4 if afterwards else burst, enforced, afterwards)


class Counted(UNIXClientEndpoint):
    """Counts how often it was tried."""

    tried = 0

    def connect(self, protocolFactory: Any) -> Any:
        """See IStreamClientEndpoint."""
        self.tried += 1
        return super().connect(protocolFactory)


class Asker:
    """A started store, with a clock that a test moves, and the lines that it has logged."""

    def __init__(self, path: Path, credentials: Credentials = _NOBODY, timeout: float = 5.0) -> None:
        self.clock = CoarseClock(0.0, time.monotonic)
        self._name = f"redis {next(_NUMBERS)}: "
        self._endpoint = Counted(reactor, str(path))
        self.store = LimitsStore(
            reactor, self._name[:-2], self._endpoint, credentials, prefix=b"kg:", timeout=timeout, clock=self.clock
        )
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self._observe)
        self.store.start()

    def _observe(self, event: LogEvent) -> None:
        line = formatEvent(event)
        if line.startswith(self._name):
            self.lines.append(line.removeprefix(self._name))

    async def is_up(self) -> None:
        """Wait until the store can be asked."""
        await eventually(lambda: self.store.up, "the store is up")

    async def is_away(self) -> None:
        """Wait until it cannot."""
        await eventually(lambda: not self.store.up and self.lines, "the store is away")

    async def tried_again(self, times: int) -> None:
        """Wait until it has been tried so often, each attempt at once."""
        endpoint = self._endpoint
        await eventually(lambda: endpoint.tried >= times, "it is tried again")

    async def ask(
        self, *rules: SharedRule, key: bytes = b"k", missing: float = 0.0, request: bytes = b""
    ) -> Answers | None:
        """The answer about one request, whole tokens rounded down to millionths."""
        got: list[SharedAnswer] = []
        self.store.question(rules).ask([key] * len(rules), [missing] * len(rules), request, got.append)
        await eventually(lambda: got, "an answer")
        return _rounded(got[0])

    async def settle(self, rule: SharedRule, *, missing: float = 0.0, request: bytes, failed: bool) -> Answers | None:
        """The end of a request."""
        got: list[SharedAnswer] = []
        self.store.settle(rule, b"k", missing, request, failed, got.append)
        await eventually(lambda: got, "an answer")
        return _rounded(got[0])

    async def close(self) -> None:
        """Close it; nothing is left."""
        globalLogPublisher.removeObserver(self._observe)
        await self.store.close()


def _rounded(answer: SharedAnswer) -> Answers | None:
    return None if answer is None else [(round(left, 1), state) for left, state in answer]


@pytest.fixture(scope="module")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """One Redis for the tests that leave it alone."""
    with Redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(shared_redis: Redis) -> Redis:
    """The same, empty."""
    shared_redis.ask("FLUSHALL")
    return shared_redis


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Redis]:
    """A Redis that the test may kill."""
    with Redis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def make_asker() -> Iterator[Callable[..., Asker]]:
    """Makes stores, which are closed in the end."""
    made: list[Asker] = []

    def make(*args: Any, **options: Any) -> Asker:
        made.append(Asker(*args, **options))
        return made[-1]

    yield make
    for asker in made:
        pytest_twisted.blockon(ensureDeferred(asker.close()))


MakeAsker = Callable[..., Asker]


@pytest_twisted.ensureDeferred
async def test_a_bucket_is_spent_and_then_short(redis: Redis, make_asker: MakeAsker) -> None:
    asker = make_asker(redis.path)
    await asker.is_up()
    answers = [await asker.ask(rule()) for _ in range(5)]
    assert answers == [[(2.0, OK)], [(1.0, OK)], [(0.0, OK)], [(0.0, SHORT)], [(0.0, SHORT)]]


@pytest_twisted.ensureDeferred
async def test_two_gateways_share_one_bucket(redis: Redis, make_asker: MakeAsker) -> None:
    first, second = make_asker(redis.path), make_asker(redis.path)
    await first.is_up()
    await second.is_up()
    answers = [await asker.ask(rule()) for asker in (first, second, first, second)]
    assert answers == [[(2.0, OK)], [(1.0, OK)], [(0.0, OK)], [(0.0, SHORT)]]


@pytest_twisted.ensureDeferred
async def test_all_rules_are_charged_or_none(redis: Redis, make_asker: MakeAsker) -> None:
    asker = make_asker(redis.path)
    await asker.is_up()
    one, many = rule(burst=1, name=b"one"), rule(burst=9, name=b"many")
    assert await asker.ask(one, many) == [(0.0, OK), (8.0, OK)]
    assert await asker.ask(one, many) == [(0.0, SHORT), (8.0, OK)]
    assert await asker.ask(many) == [(7.0, OK)]


@pytest_twisted.ensureDeferred
async def test_a_shadow_refuses_nothing_and_is_then_not_charged(redis: Redis, make_asker: MakeAsker) -> None:
    asker = make_asker(redis.path)
    await asker.is_up()
    shadow, many = rule(burst=1, enforced=False, name=b"shadow"), rule(burst=9, name=b"many")
    assert await asker.ask(shadow, many) == [(0.0, OK), (8.0, OK)]
    assert await asker.ask(shadow, many) == [(0.0, SHORT), (7.0, OK)]


@pytest_twisted.ensureDeferred
async def test_failures_are_charged_at_the_end_and_only_so_many_requests_are_in_flight(
    redis: Redis, make_asker: MakeAsker
) -> None:
    asker = make_asker(redis.path)
    await asker.is_up()
    failures = rule(burst=1, afterwards=True)
    requests = [asker.store.request() for _ in range(5)]
    assert [await asker.ask(failures, request=each) for each in requests] == [[(1.0, OK)]] * 4 + [[(1.0, CROWDED)]]
    assert await asker.settle(failures, request=requests[0], failed=False) == [(1.0, OK)]
    assert await asker.ask(failures, request=requests[4]) == [(1.0, OK)]
    assert await asker.settle(failures, request=requests[4], failed=True) == [(0.0, OK)]
    assert await asker.ask(failures, request=requests[4]) == [(0.0, SHORT)]
    for each in requests[1:4]:
        await asker.settle(failures, request=each, failed=True)
    assert await asker.ask(failures, request=requests[4]) == [(-3.0, SHORT)]


@pytest_twisted.ensureDeferred
async def test_a_request_in_flight_is_renewed_as_long_as_its_gateway_lives(
    redis: Redis, make_asker: MakeAsker
) -> None:
    asker = make_asker(redis.path)
    await asker.is_up()
    failures = rule(afterwards=True)
    request = asker.store.request()
    await asker.ask(failures, request=request)
    [held] = redis.ask("KEYS", "*:f*")
    assert 0 < redis.ask("PTTL", held) <= 10_000
    redis.ask("PEXPIRE", held, "1500")
    asker.clock.now += 2.0
    asker.store.sweep(asker.clock.now)
    asker.clock.now += 2.0
    asker.store.sweep(asker.clock.now)
    await eventually(lambda: redis.ask("PTTL", held) > 5000, "the request is renewed")
    await asker.settle(failures, request=request, failed=False)
    assert redis.ask("EXISTS", held) == 0


@pytest_twisted.ensureDeferred
async def test_requests_of_a_gateway_that_died_are_forgotten(redis: Redis, make_asker: MakeAsker) -> None:
    asker = make_asker(redis.path)
    await asker.is_up()
    failures = rule(burst=1, afterwards=True)
    for _ in range(4):
        await asker.ask(failures, request=asker.store.request())
    [held] = redis.ask("KEYS", "*:f*")
    for member in redis.ask("ZRANGE", held, "0", "-1"):
        redis.ask("ZADD", held, str(int(time.time() * 1000) - 1), member)
    assert await asker.ask(failures, request=asker.store.request()) == [(1.0, OK)]
    assert redis.ask("ZCARD", held) == 1


@pytest_twisted.ensureDeferred
async def test_each_key_expires_when_its_bucket_is_full(redis: Redis, make_asker: MakeAsker) -> None:
    asker = make_asker(redis.path)
    await asker.is_up()
    await asker.ask(rule(rate=0.1, burst=5))
    [key] = redis.keys()
    assert 9_000 < redis.ask("PTTL", key) <= 10_001
    await asker.ask(rule(rate=0.1, burst=5))
    assert 19_000 < redis.ask("PTTL", key) <= 20_001


@pytest_twisted.ensureDeferred
async def test_tokens_come_back_by_the_servers_clock(redis: Redis, make_asker: MakeAsker) -> None:
    asker = make_asker(redis.path)
    await asker.is_up()
    quick = rule(rate=20.0, burst=2)
    await asker.ask(quick)
    await asker.ask(quick)
    await eventually(lambda: not redis.keys(), "the bucket is full again")
    answer = await asker.ask(quick)
    assert answer is not None
    assert answer[0][1] == OK


@pytest_twisted.ensureDeferred
async def test_a_value_that_is_no_bucket_counts_as_a_full_one(redis: Redis, make_asker: MakeAsker) -> None:
    asker = make_asker(redis.path)
    await asker.is_up()
    await asker.ask(rule())
    [key] = redis.keys()
    for value in (b"nonsense", b"\xff" * 16, b"\x00" * 16):
        redis.ask("SET", key, value)
        assert await asker.ask(rule()) == [(2.0, OK)]


@pytest_twisted.ensureDeferred
async def test_what_the_server_forgot_is_known_by_a_gateway_and_handed_on(
    redis: Redis, make_asker: MakeAsker
) -> None:
    knows, other = make_asker(redis.path), make_asker(redis.path)
    await knows.is_up()
    await other.is_up()
    await other.ask(rule(), key=b"fresh")
    redis.ask("FLUSHALL")
    assert await other.ask(rule()) == [(2.0, OK)]
    assert await knows.ask(rule(), missing=3.0) == [(0.0, SHORT)]
    assert await other.ask(rule()) == [(0.0, SHORT)]
    # A fuller bucket is not believed, nor one that is emptier than can be.
    assert await knows.ask(rule(), missing=0.5) == [(0.0, SHORT)]
    assert await knows.ask(rule(), key=b"x", missing=1e300) == [(0.0, SHORT)]
    assert await knows.ask(rule(burst=5), key=b"x", missing=1.0) == [(1.0, OK)]


@pytest_twisted.ensureDeferred
async def test_a_hundred_rules_are_decided_at_once(redis: Redis, make_asker: MakeAsker) -> None:
    asker = make_asker(redis.path)
    await asker.is_up()
    rules = [rule(name=b"%d" % number) for number in range(100)]
    assert await asker.ask(*rules) == [(2.0, OK)] * 100


@pytest_twisted.ensureDeferred
async def test_a_refusal_hands_on_what_is_known_and_charges_nothing(redis: Redis, make_asker: MakeAsker) -> None:
    asker = make_asker(redis.path)
    await asker.is_up()
    one, two = rule(name=b"one"), rule(burst=9, name=b"two")
    assert await asker.ask(one, two, missing=3.0) == [(0.0, SHORT), (6.0, OK)]
    assert await asker.ask(one, two) == [(0.0, SHORT), (6.0, OK)]


@pytest_twisted.ensureDeferred
async def test_a_failure_is_charged_to_what_is_known(redis: Redis, make_asker: MakeAsker) -> None:
    asker = make_asker(redis.path)
    await asker.is_up()
    failures = rule(afterwards=True)
    assert await asker.settle(failures, missing=2.0, request=b"1", failed=True) == [(0.0, OK)]
    assert await asker.settle(failures, missing=9.0, request=b"2", failed=False) == [(0.0, OK)]
    assert await asker.settle(failures, missing=9.0, request=b"3", failed=True) == [(-1.0, OK)]


@pytest_twisted.ensureDeferred
async def test_a_long_key_is_hashed(redis: Redis, make_asker: MakeAsker) -> None:
    asker = make_asker(redis.path)
    await asker.is_up()
    await asker.ask(rule(), key=b"secret" * 100)
    [key] = redis.keys()
    assert "secret" not in key
    assert len(key) < 150
    assert await asker.ask(rule(), key=b"secret" * 100) == [(1.0, OK)]
    assert await asker.ask(rule(), key=b"secret" * 101) == [(2.0, OK)]


@pytest_twisted.ensureDeferred
async def test_lost_scripts_are_sent_again(redis: Redis, make_asker: MakeAsker) -> None:
    asker = make_asker(redis.path)
    await asker.is_up()
    redis.ask("SCRIPT", "FLUSH")
    question, got = asker.store.question([rule(burst=9)]), []
    for _ in range(3):
        question.ask([b"k"], [0.0], b"", got.append)
    await eventually(lambda: len(got) == 3, "three answers")
    assert [_rounded(each) for each in got] == [[(8.0, OK)], [(7.0, OK)], [(6.0, OK)]]
    assert asker.store.up


@pytest_twisted.ensureDeferred
async def test_a_turns_questions_leave_in_one_write(redis: Redis, make_asker: MakeAsker) -> None:
    asker = make_asker(redis.path)
    await asker.is_up()
    before = int(redis.ask("INFO", "stats").split("total_reads_processed:")[1].split()[0])
    question, got = asker.store.question([rule(rate=1000.0, burst=1000)]), []
    for number in range(200):
        question.ask([b"%d" % number], [0.0], b"", got.append)
    await eventually(lambda: len(got) == 200, "200 answers")
    after = int(redis.ask("INFO", "stats").split("total_reads_processed:")[1].split()[0])
    # The two questions of this test are reads as well; 200 commands are more than Redis reads at once.
    assert after - before < 10


# What goes wrong


@pytest_twisted.ensureDeferred
async def test_it_comes_back_by_itself_after_a_restart(own_redis: Redis, make_asker: MakeAsker) -> None:
    asker = make_asker(own_redis.path)
    await asker.is_up()
    assert await asker.ask(rule()) == [(2.0, OK)]
    own_redis.kill()
    await asker.is_away()
    assert await asker.ask(rule()) is None
    own_redis.start()
    await asker.is_up()
    assert await asker.ask(rule()) == [(2.0, OK)]
    assert asker.lines == [
        "limits are shared there from now on",
        "it closed the connection; until it is back each limit acts as its on_failure says",
        "limits are shared there from now on",
    ]


@pytest_twisted.ensureDeferred
async def test_it_is_logged_once_that_nobody_is_there(tmp_path: Path, make_asker: MakeAsker) -> None:
    asker = make_asker(tmp_path / "none.sock")
    await asker.is_away()
    await asker.tried_again(5)
    assert len(asker.lines) == 1
    assert "No such file or directory; until it is back each limit acts as its on_failure says" in asker.lines[0]


@pytest_twisted.ensureDeferred
async def test_another_reason_is_logged_as_well(tmp_path: Path, make_asker: MakeAsker) -> None:
    path = tmp_path / "late.sock"
    asker = make_asker(path)
    await asker.is_away()
    liar = type("Liar", (Liar,), {"answer": b"-LOADING\r\n"})
    port = await UNIXServerEndpoint(reactor, str(path)).listen(Factory.forProtocol(liar))
    await eventually(lambda: len(asker.lines) == 2, "the second reason is logged")
    await port.stopListening()
    await asker.tried_again(5)
    assert asker.lines[1].startswith("it answers LOADING; ")
    assert len(asker.lines) == 2
    await asker.close()


@pytest_twisted.ensureDeferred
async def test_nobody_waits_for_a_hung_server(own_redis: Redis, make_asker: MakeAsker) -> None:
    asker = make_asker(own_redis.path, timeout=0.05)
    await asker.is_up()
    own_redis.hang()
    assert await asker.ask(rule()) is None
    assert not asker.store.up
    assert asker.lines[-1].startswith("it has not answered within 50 ms; ")
    assert asker.store.missed == 1
    own_redis.go_on()
    await asker.is_up()


@pytest_twisted.ensureDeferred
async def test_a_full_server_is_not_asked_until_it_has_room(tmp_path: Path, make_asker: MakeAsker) -> None:
    with Redis(tmp_path, "maxmemory-policy noeviction") as full:
        asker = make_asker(full.path)
        await asker.is_up()
        full.ask("CONFIG", "SET", "maxmemory", "1")
        assert await asker.ask(rule()) is None
        await asker.is_away()
        assert "it answers OOM command not allowed when used memory > 'maxmemory'" in asker.lines[-1]
        full.ask("CONFIG", "SET", "maxmemory", "0")
        await asker.is_up()
        assert await asker.ask(rule()) == [(2.0, OK)]


@pytest_twisted.ensureDeferred
async def test_a_replica_is_recognized_before_it_is_asked(own_redis: Redis, make_asker: MakeAsker) -> None:
    own_redis.ask("REPLICAOF", "127.0.0.1", "1")
    asker = make_asker(own_redis.path)
    await asker.is_away()
    assert "READONLY" in asker.lines[0]
    own_redis.ask("REPLICAOF", "NO", "ONE")
    await asker.is_up()


@pytest_twisted.ensureDeferred
async def test_a_password_is_given(tmp_path: Path, make_asker: MakeAsker) -> None:
    with Redis(tmp_path, _USER, password="sesame") as server:
        right = make_asker(server.path, Credentials(password=b"sesame", database=3))
        user = make_asker(server.path, Credentials(b"kg", b"hunter2"))
        wrong, none = make_asker(server.path, Credentials(password=b"guess")), make_asker(server.path)
        await right.is_up()
        await user.is_up()
        await wrong.is_away()
        await none.is_away()
        assert "it answers WRONGPASS" in wrong.lines[0]
        assert "it answers NOAUTH" in none.lines[0]
        assert not any("guess" in line or "sesame" in line for line in wrong.lines)
        for asker in (user, right):
            failures, request = rule(afterwards=True), asker.store.request()
            assert await asker.ask(rule(name=b"other"), failures, request=request) == [(2.0, OK), (3.0, OK)]
            assert await asker.settle(failures, request=request, failed=True) == [(2.0, OK)]
        assert "db3:keys=" in server.ask("INFO", "keyspace")


class Liar(Protocol):
    """Answers everything with the same bytes, and says no more."""

    answer = b""

    def dataReceived(self, data: bytes) -> None:
        """Whatever it is."""
        self.transport.write(self.answer)  # type: ignore[union-attr]


_GREETING = b"".join(b"$40\r\n%b\r\n" % script.digest for script in SCRIPTS) + b"*2\r\n:0\r\n:0\r\n"


@pytest.mark.parametrize(
    ("answers", "fault"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it sent b'HTTP/1.1 400 Bad', which is no reply of Redis"),
        (b"$99999999999\r\n", "it sent a string that nobody asked for"),
        (b"*1\r\n" * 100_000, "it sent an array that nobody asked for"),
        (b"+OK\r\n", "it does not greet as Redis does"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "it answers LOADING Redis is loading the dataset"),
        (b"-MOVED 3999 127.0.0.1:6381\r\n", "it answers MOVED 3999 127.0.0.1:6381"),
        (_GREETING.replace(b"*2", b"*3").replace(b":0\r\n:0", b":0\r\n:0\r\n:0"), "it does not decide as Redis does"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_server_that_is_no_redis_is_not_asked(
    answers: bytes, fault: str, tmp_path: Path, make_asker: MakeAsker
) -> None:
    path = tmp_path / "liar.sock"
    liar = type("Liar", (Liar,), {"answer": answers})
    port = await UNIXServerEndpoint(reactor, str(path)).listen(Factory.forProtocol(liar))
    asker = make_asker(path)
    await asker.is_away()
    assert fault in asker.lines[0]
    await asker.close()
    await port.stopListening()


class Turncoat(Protocol):
    """Greets as Redis does, and answers the first question with `answer`."""

    answer = b""
    greeted = False

    def dataReceived(self, data: bytes) -> None:
        """The greeting, or a question."""
        answer, self.greeted = (self.answer if self.greeted else _GREETING), True
        self.transport.write(answer)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"*2\r\n:4000000\r\n:4000000\r\n", "it does not answer as its scripts do"),
        (b"*1\r\n:4000003\r\n", "it does not answer as its scripts do"),
        (b"*1\r\n:16000000\r\n", "it does not answer as its scripts do"),
        (b"*1\r\n:-8000000\r\n", "it does not answer as its scripts do"),
        (b"+OK\r\n", "it does not answer as its scripts do"),
        (b"-BUSY Redis is busy running a script\r\n", "it answers BUSY Redis is busy running a script"),
        (b"-NOSCRIPT No matching script\r\n" * 5, "it answers NOSCRIPT No matching script"),
        (b"*1\r\n:1", "it has not answered within 200 ms"),
        (b"", "it has not answered within 200 ms"),
        (b"*1000\r\n", "it sent an array that nobody asked for"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_answer_that_makes_no_sense_ends_the_connection(
    answer: bytes, fault: str, tmp_path: Path, make_asker: MakeAsker
) -> None:
    path = tmp_path / "turncoat.sock"
    turncoat = type("Turncoat", (Turncoat,), {"answer": answer})
    port = await UNIXServerEndpoint(reactor, str(path)).listen(Factory.forProtocol(turncoat))
    asker = make_asker(path, timeout=0.2)
    await asker.is_up()
    got: list[SharedAnswer] = []
    asker.store.question([rule()]).ask([b"k"], [0.0], b"", got.append)
    await eventually(lambda: len(asker.lines) > 1 and got, "the connection has ended")
    assert asker.lines[1].startswith(fault)
    assert got == [None]
    await asker.close()
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_second_answer_to_one_question_ends_the_connection(tmp_path: Path, make_asker: MakeAsker) -> None:
    path = tmp_path / "turncoat.sock"
    turncoat = type("Turncoat", (Turncoat,), {"answer": b"*1\r\n:4000000\r\n*1\r\n:4000000\r\n"})
    port = await UNIXServerEndpoint(reactor, str(path)).listen(Factory.forProtocol(turncoat))
    asker = make_asker(path)
    await asker.is_up()
    assert await asker.ask(rule()) == [(1.0, OK)]
    await asker.is_away()
    assert asker.lines[1].startswith("it sent a reply that nobody asked for; ")
    await asker.close()
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_server_that_does_not_greet_is_given_up(
    tmp_path: Path, make_asker: MakeAsker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("koder_gateway.limits_store.link.OPENING", 0.1)
    path = tmp_path / "mute.sock"
    port = await UNIXServerEndpoint(reactor, str(path)).listen(Factory.forProtocol(Protocol))
    asker = make_asker(path)
    await asker.is_away()
    assert asker.lines[0].startswith("it has not answered the greeting within 0.1 seconds; ")
    await asker.close()
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_closing_waits_for_what_was_asked(redis: Redis, make_asker: MakeAsker) -> None:
    asker = make_asker(redis.path)
    await asker.is_up()
    got: list[SharedAnswer] = []
    asker.store.question([rule()]).ask([b"k"], [0.0], b"", got.append)
    await asker.close()
    assert [_rounded(each) for each in got] == [[(2.0, OK)]]
    assert not asker.store.up


@pytest_twisted.ensureDeferred
async def test_closing_waits_no_longer_than_a_decision_may_take(own_redis: Redis, make_asker: MakeAsker) -> None:
    asker = make_asker(own_redis.path, timeout=0.1)
    await asker.is_up()
    own_redis.hang()
    got: list[SharedAnswer] = []
    asker.store.question([rule()]).ask([b"k"], [0.0], b"", got.append)
    await asker.close()
    assert got == [None]
    own_redis.go_on()


@pytest_twisted.ensureDeferred
async def test_one_that_was_closed_can_be_started_again(redis: Redis, make_asker: MakeAsker) -> None:
    asker = make_asker(redis.path)
    await asker.is_up()
    await asker.close()
    assert not asker.store.up
    asker.store.start()
    await asker.is_up()
    assert await asker.ask(rule()) == [(2.0, OK)]


@pytest_twisted.ensureDeferred
async def test_a_decision_that_fails_stops_no_other(
    redis: Redis, make_asker: MakeAsker, logged_errors: LoggedErrors
) -> None:
    asker = make_asker(redis.path)
    await asker.is_up()
    question, got = asker.store.question([rule()]), []

    def fail(answer: SharedAnswer) -> None:
        raise ZeroDivisionError

    question.ask([b"k"], [0.0], b"", fail)
    question.ask([b"k"], [0.0], b"", got.append)
    await eventually(lambda: got, "the other one is decided")
    assert await asker.ask(rule()) == [(0.0, OK)]
    assert len(logged_errors.take()) == 1
