"""The shipped limits in virtual time: days of an office of 500 behind one address, credential stuffing beside it."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any

import pytest

from koder_gateway.config import Settings
from koder_gateway.policy.grants import NO_GUESSES
from koder_gateway.policy.limit_keys import address_key
from koder_gateway.policy.limit_rules import LimitRule
from koder_gateway.policy.limits import Limiter
from koder_gateway.policy.meter import LimitResult
from tests.kit.http1 import Message, read_messages
from tests.kit.memory import MemoryGateway, Peer, request, settings_with

OFFICE, ATTACKER = address_key("203.0.113.7"), address_key("198.51.100.9")
PEOPLE = 500
HOUR = 3600.0
TOKEN, LOGIN, SESSION = b"/oauth/v2/token", b"/v1/auth/password", b"/v1/sessions/refresh"
# Of each person: those that ask the token endpoint, and those that have a session of their own.
APPLICATIONS, SESSIONS = 4, 2


class Day:
    """Requests at their times, each under way for as long as the service takes; `refused` counts what met a limit."""

    def __init__(self) -> None:
        self.limiter = Limiter(Settings().limits, 10_000)
        self.refused: Counter[str] = Counter()
        self.served: Counter[str] = Counter()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self.now = 0.0

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Do this at that time."""
        heapq.heappush(self._events, (when, next(self._order), call))

    def ask(
        self,
        who: str,
        address: bytes,
        method: bytes,
        path: bytes,
        status: int,
        took: float,
        *,
        guess: bool = True,
    ) -> None:
        """A request now, whose answer comes after it `took` so long; a 4xx that is no `guess` is excused."""
        verdict = self.limiter.admit(b"koder", address, method, path, self.now, True)
        if verdict.refused is not None:
            self.refused[who] += 1
            return
        self.served[who] += 1
        self.at(self.now + took, lambda: self._answer(verdict, status, guess))

    def _answer(self, verdict: LimitResult, status: int, guess: bool) -> None:
        self.limiter.settle(verdict, status, guess, self.now)

    def play(self) -> None:
        """Let it all happen."""
        while self._events:
            self.now, _, call = heapq.heappop(self._events)
            call()


Arrival = Callable[[Random], tuple[float, float]]


def spread(random: Random) -> tuple[float, float]:
    """Somebody comes between eight and nine, wakes a machine up, and sits down at once."""
    comes = 8 * HOUR + random.uniform(0, HOUR)
    return comes, comes


def shift(random: Random) -> tuple[float, float]:
    """All are there within some twenty minutes around nine, their machines up to five before them."""
    comes = 9 * HOUR + random.gauss(0, 300)
    return comes - random.uniform(0, 300), comes


def power_cut(random: Random) -> tuple[float, float]:
    """All machines come back within three minutes, while their people sit down by and by."""
    return 9 * HOUR + random.uniform(0, 180), 9 * HOUR + random.uniform(180, 1500)


def person(day: Day, random: Random, arrival: Arrival) -> None:
    """Within three minutes of the machine's waking each application finds that its refresh token has expired; then a
    login of five steps, a code for each application, pages all day, new tokens every ten minutes. One in ten mistypes
    the password, a few ask again and again whether a device has been let in."""
    wakes, begins = arrival(random)

    def ask(when: float, method: bytes, path: bytes, status: int, *, guess: bool = True) -> None:
        day.at(when, lambda: day.ask("office", OFFICE, method, path, status, random.uniform(0.05, 1), guess=guess))

    for _ in range(APPLICATIONS):
        ask(wakes + random.uniform(0, 180), b"POST", TOKEN, 400, guess=False)
    for _ in range(SESSIONS):
        ask(wakes + random.uniform(0, 180), b"POST", SESSION, 401)
    for step in range(5):
        ask(begins + 10 + 4 * step, b"POST", LOGIN, 200)
    for miss in range(random.choice([0] * 9 + [2])):
        ask(begins + 12 + 3 * miss, b"POST", LOGIN, 401)
    for _ in range(APPLICATIONS):
        ask(begins + 35 + random.uniform(0, 120), b"POST", TOKEN, 200)
    if random.random() < 0.02:
        for poll in range(24):
            ask(begins + 60 + 5 * poll, b"POST", TOKEN, 400, guess=False)
    for minutes in range(10, 8 * 60, 10):
        for _ in range(APPLICATIONS):
            ask(begins + 60 * minutes + random.uniform(0, 120), b"POST", TOKEN, 200)
    for _ in range(40):
        ask(begins + random.uniform(40, 8 * HOUR), b"GET", b"/v1/users/me", 200)


def stuffing(day: Day, address: bytes, begins: float, seconds: float, each_second: int, path: bytes = LOGIN) -> None:
    """A list of stolen passwords, tried as fast as it goes."""
    for number in range(int(seconds * each_second)):
        day.at(begins + number / each_second, lambda: day.ask("stuffing", address, b"POST", path, 401, 0.3))


@pytest.mark.parametrize("arrival", [spread, shift, power_cut])
def test_an_office_of_500_has_a_day_without_a_refusal(arrival: Arrival) -> None:
    day, random = Day(), Random(8628)
    for _ in range(PEOPLE):
        person(day, random, arrival)
    stuffing(day, ATTACKER, 8 * HOUR, HOUR, 20)
    day.play()
    assert day.refused["office"] == 0
    assert day.served["office"] > 240 * PEOPLE
    # An hour at 20 a second: the burst side by side, and then the rate.
    rule = shipped_rule("login-failures")
    assert rule.burst <= day.served["stuffing"] <= 4 * rule.burst + rule.rate * HOUR
    assert day.refused["stuffing"] > 0.97 * 20 * HOUR
    assert all(not meter.held for meter in day.limiter.meters)


def shipped_rule(name: str) -> LimitRule:
    """One of the shipped limits."""
    return next(rule for rule in Settings().limits if rule.name == name)


@pytest.mark.parametrize("each_second", [1, 20, 1000])
@pytest.mark.parametrize(("path", "name"), [(LOGIN, "login-failures"), (TOKEN, "secret-failures")])
def test_stuffing_is_held_to_the_rate_however_wide_it_is(each_second: int, path: bytes, name: str) -> None:
    day = Day()
    stuffing(day, ATTACKER, 0.0, 600.0, each_second, path)
    day.play()
    rule = shipped_rule(name)
    assert day.served["stuffing"] <= 4 * rule.burst + rule.rate * 600 + 1
    # Ten minutes of passwords: no more than some hundreds, of 600,000 tried at the widest.
    assert day.served["stuffing"] <= 600


# -- through the gateway


SIZED = (request(b"POST", TOKEN, b"Content-Length: 1", body=b"x"),)
TYPE = b"Content-Type: application/x-www-form-urlencoded"
DEVICE = b"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&client_id=tv&device_code=GmRhmhcxhwAz"
POLL = (request(b"POST", TOKEN, TYPE, b"Content-Length: %d" % len(DEVICE), body=DEVICE),)


def token_requests(
    gateway: MemoryGateway,
    many: int,
    body: bytes,
    status: bytes,
    cut: int = 0,
    sent: tuple[bytes, ...] = SIZED,
) -> list[Message]:
    """So many token requests at once, each `sent` in these pieces on a connection of its own; the service answers
    when all are there, in two pieces where the answer is `cut`."""
    clients: list[Peer] = [gateway.connect() for _ in range(many)]
    for client in clients:
        client.send_in(sent)
    for service in gateway.origin("oauth2").connections:
        if service.take():
            head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            answer = head % (status, len(body)) + body
            service.send_in([answer[: len(answer) - cut], answer[len(answer) - cut :]] if cut else [answer])
    return [message for client in clients for message in read_messages(client.take(), [b"POST"])]


@pytest.fixture
def shipped(make_gateway: Callable[..., MemoryGateway]) -> MemoryGateway:
    return make_gateway(settings=settings_with(limits=Settings().limits))


def test_a_hundred_good_token_requests_at_once_are_served(shipped: MemoryGateway) -> None:
    for _ in range(3):
        assert {message.status for message in token_requests(shipped, 100, b"{}", b"200 OK")} == {200}
    assert {message.status for message in token_requests(shipped, 1, b"{}", b"400 Bad Request")} == {400}
    assert {message.status for message in token_requests(shipped, 100, b"{}", b"200 OK")} == {200}


@pytest.mark.parametrize("error", [b"authorization_pending", b"slow_down"])
@pytest.mark.parametrize("cut", [0, 12, 60])
def test_a_device_that_waits_is_no_failure(error: bytes, cut: int, shipped: MemoryGateway) -> None:
    body = b'{"error": "%b", "error_description": "not yet"}' % error
    for _ in range(90):
        (message,) = token_requests(shipped, 1, body, b"400 Bad Request", cut, POLL)
        assert (message.status, message.body) == (400, body)
    (message,) = token_requests(shipped, 1, b"{}", b"200 OK")
    assert message.status == 200


@pytest.mark.parametrize("path", [TOKEN, b"/oauth/v2/introspect", b"/oauth/v2/revoke"])
@pytest.mark.parametrize("status", [b"400 Bad Request", b"401 Unauthorized", b"403 Forbidden"])
def test_who_guesses_is_charged_whatever_the_guess_is(path: bytes, status: bytes, shipped: MemoryGateway) -> None:
    """A password that the answer repeats, or an error that only a device's poll may get."""
    body = b'{"error":"expired_token","error_description":"slow_down"}'
    form = b"grant_type=password&username=a&password=slow_down"
    sent = (request(b"POST", path, TYPE, b"Content-Length: %d" % len(form), body=form),)
    statuses = [token_requests(shipped, 1, body, status, sent=sent)[0].status for _ in range(62)]
    assert statuses == [int(status[:3])] * 60 + [429] * 2


@pytest.mark.parametrize("error", sorted(NO_GUESSES))
@pytest.mark.parametrize("status", [b"400 Bad Request", b"401 Unauthorized", b"403 Forbidden", b"404 Not Found"])
def test_what_is_no_guess_whatever_was_asked(error: str, status: bytes, shipped: MemoryGateway) -> None:
    body = b'{"error":"%b"}' % error.encode()
    form = b"grant_type=password&username=a&password=b"
    sent = (request(b"POST", TOKEN, TYPE, b"Content-Length: %d" % len(form), body=form),)
    statuses = {token_requests(shipped, 1, body, status, cut, sent=sent)[0].status for cut in range(70)}
    assert statuses == {int(status[:3])}


def test_another_400_is_one(shipped: MemoryGateway) -> None:
    statuses = [
        token_requests(shipped, 1, b'{"error":"invalid_grant"}', b"400 Bad Request")[0].status for _ in range(70)
    ]
    assert statuses == [400] * 60 + [429] * 10


FORM = b"grant_type=refresh_token&client_id=app&client_secret=s&refresh_token=" + b"x" * 40
LENGTH, CHUNKED = b"Content-Length: %d" % len(FORM), b"Transfer-Encoding: chunked"
REFRESHES = {
    "at once": (request(b"POST", TOKEN, TYPE, LENGTH, body=FORM),),
    "head and body apart": (request(b"POST", TOKEN, TYPE, LENGTH), FORM),
    "byte by byte": (request(b"POST", TOKEN, TYPE, LENGTH), *(FORM[at : at + 1] for at in range(len(FORM)))),
    "chunked": (
        request(b"POST", TOKEN, TYPE, CHUNKED),
        b"9\r\n%b\r\n" % FORM[:9],
        b"%x\r\n%b\r\n0\r\n\r\n" % (len(FORM[9:]), FORM[9:]),
    ),
    "chunked byte by byte": (
        request(b"POST", TOKEN, TYPE, CHUNKED),
        *(b"1\r\n%b\r\n" % FORM[at : at + 1] for at in range(len(FORM))),
        b"0\r\n\r\n",
    ),
}
EXPIRED = b'{"error":"invalid_grant","error_description":"Token expired"}'


@pytest.mark.parametrize("sent", REFRESHES.values(), ids=REFRESHES.keys())
@pytest.mark.parametrize("cut", [0, 40])
def test_a_refresh_token_that_has_expired_is_no_failure(
    sent: tuple[bytes, ...], cut: int, shipped: MemoryGateway
) -> None:
    for _ in range(90):
        (message,) = token_requests(shipped, 1, EXPIRED, b"400 Bad Request", cut, sent)
        assert (message.status, message.body) == (400, EXPIRED)
    (message,) = token_requests(shipped, 1, b"{}", b"200 OK")
    assert message.status == 200


@pytest.mark.parametrize(
    ("sent", "answer", "status"),
    [
        (REFRESHES["at once"], b'{"error":"invalid_client"}', b"400 Bad Request"),
        (REFRESHES["at once"], EXPIRED, b"401 Unauthorized"),
        (
            (request(b"POST", TOKEN, TYPE, b"Content-Length: 20", body=b"grant_type=password&"),),
            EXPIRED,
            b"400 Bad Request",
        ),
        ((request(b"POST", TOKEN + b"?grant_type=password", TYPE, LENGTH, body=FORM),), EXPIRED, b"400 Bad Request"),
        ((request(b"POST", TOKEN, LENGTH, body=FORM),), EXPIRED, b"400 Bad Request"),
        ((request(b"POST", TOKEN, TYPE, TYPE, LENGTH, body=FORM),), EXPIRED, b"400 Bad Request"),
        ((request(b"POST", TOKEN, TYPE + b";charset=utf-7", LENGTH, body=FORM),), EXPIRED, b"400 Bad Request"),
        ((request(b"POST", TOKEN + b";a=b", TYPE, LENGTH, body=FORM),), EXPIRED, b"400 Bad Request"),
        ((request(b"POST", b"/oauth/v2/revoke", TYPE, LENGTH, body=FORM),), EXPIRED, b"400 Bad Request"),
        # Before the last byte is here nobody knows what is asked for.
        (
            (request(b"POST", TOKEN, TYPE, b"Content-Length: %d" % (len(FORM) + 1), body=FORM),),
            EXPIRED,
            b"400 Bad Request",
        ),
    ],
)
def test_what_may_be_a_guess_is_charged(
    sent: tuple[bytes, ...], answer: bytes, status: bytes, shipped: MemoryGateway
) -> None:
    statuses = [token_requests(shipped, 1, answer, status, sent=sent)[0].status for _ in range(70)]
    assert statuses == [int(status[:3])] * 60 + [429] * 10


def test_what_is_charged_to_no_limit_is_not_looked_at(
    shipped: MemoryGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[tuple[Any, ...]] = []
    monkeypatch.setattr("koder_gateway.upstream.relay.excuse_for", lambda *asked: looked.append(asked))
    token_requests(shipped, 1, EXPIRED, b"404 Not Found", sent=REFRESHES["at once"])
    token_requests(shipped, 1, EXPIRED, b"200 OK", sent=REFRESHES["at once"])
    # Only POST is charged here.
    token_requests(shipped, 1, EXPIRED, b"400 Bad Request", sent=(request(b"PUT", TOKEN, TYPE, LENGTH, body=FORM),))
    assert not looked
    token_requests(shipped, 1, EXPIRED, b"400 Bad Request", sent=REFRESHES["at once"])
    token_requests(shipped, 1, EXPIRED, b"401 Unauthorized", sent=REFRESHES["at once"])
    assert [len(asked) for asked, _, _ in looked] == [2, 0], "the request counts only for a 400"


def test_a_long_request_is_not_looked_at(shipped: MemoryGateway) -> None:
    for size, expected in (16384, 400), (16385, 429):
        body = FORM + b"x" * (size - len(FORM))
        sent = (request(b"POST", TOKEN, TYPE, b"Content-Length: %d" % size, body=body),)
        statuses = [token_requests(shipped, 1, EXPIRED, b"400 Bad Request", sent=sent)[0].status for _ in range(61)]
        assert statuses[-1] == expected
