"""The shipped limits in virtual time: a day of an office of 500 behind one address, credential stuffing beside it."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from itertools import count
from random import Random

import pytest
from memory import MemoryGateway, Message, Peer, read_messages, request, settings_with

from koder_gateway.config import Settings
from koder_gateway.policy.limits import Limiter, Verdict, address_key

OFFICE, ATTACKER = address_key("203.0.113.7"), address_key("198.51.100.9")
PEOPLE = 500
HOUR = 3600.0
TOKEN, LOGIN, DEVICE = b"/oauth/v2/token", b"/v1/auth/password", b"/oauth/v2/token"


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

    def _answer(self, verdict: Verdict, status: int, guess: bool) -> None:
        self.limiter.settle(verdict, status, guess, self.now)

    def play(self) -> None:
        """Let it all happen."""
        while self._events:
            self.now, _, call = heapq.heappop(self._events)
            call()


def person(day: Day, random: Random) -> None:
    """Comes between eight and nine: an expired refresh token, a login of five steps, pages all day, a new token every
    ten minutes. One in ten mistypes the password, a few ask again and again whether a device has been let in."""
    begins = 8 * HOUR + random.uniform(0, HOUR)

    def ask(when: float, method: bytes, path: bytes, status: int, *, guess: bool = True) -> None:
        day.at(when, lambda: day.ask("office", OFFICE, method, path, status, random.uniform(0.05, 1), guess=guess))

    ask(begins, b"POST", TOKEN, 400)
    for step in range(5):
        ask(begins + 10 + 4 * step, b"POST", LOGIN, 200)
    for miss in range(random.choice([0] * 9 + [2])):
        ask(begins + 12 + 3 * miss, b"POST", LOGIN, 401)
    if random.random() < 0.02:
        for poll in range(24):
            ask(begins + 60 + 5 * poll, b"POST", DEVICE, 400, guess=False)
    for minutes in range(0, 8 * 60, 10):
        ask(begins + 40 + 60 * minutes, b"POST", TOKEN, 200)
    for _ in range(40):
        ask(begins + random.uniform(40, 8 * HOUR), b"GET", b"/v1/users/me", 200)


def stuffing(day: Day, address: bytes, begins: float, seconds: float, each_second: int) -> None:
    """A list of stolen passwords, tried as fast as it goes."""
    for number in range(int(seconds * each_second)):
        day.at(begins + number / each_second, lambda: day.ask("stuffing", address, b"POST", LOGIN, 401, 0.3))


def test_an_office_of_500_has_a_day_without_a_refusal() -> None:
    day, random = Day(), Random(8628)
    for _ in range(PEOPLE):
        person(day, random)
    stuffing(day, ATTACKER, 8 * HOUR, HOUR, 20)
    day.play()
    assert day.refused["office"] == 0
    assert day.served["office"] > 90 * PEOPLE
    # An hour at 20 a second: the burst side by side, and then the rate.
    rule = next(rule for rule in Settings().limits if rule.name == "login-failures")
    assert rule.burst <= day.served["stuffing"] <= 4 * rule.burst + rule.rate * HOUR
    assert day.refused["stuffing"] > 0.97 * 20 * HOUR
    assert all(not meter.held for meter in day.limiter.meters)


@pytest.mark.parametrize("each_second", [1, 20, 1000])
def test_stuffing_is_held_to_the_rate_however_wide_it_is(each_second: int) -> None:
    day = Day()
    stuffing(day, ATTACKER, 0.0, 600.0, each_second)
    day.play()
    rule = next(rule for rule in Settings().limits if rule.name == "login-failures")
    assert day.served["stuffing"] <= 4 * rule.burst + rule.rate * 600 + 1


# -- through the gateway


def token_requests(gateway: MemoryGateway, many: int, body: bytes, status: bytes, cut: int = 0) -> list[Message]:
    """So many token requests at once, each on a connection of its own; the service answers them when all are there,
    with the answer in two pieces where it is `cut`."""
    clients: list[Peer] = [gateway.connect() for _ in range(many)]
    for client in clients:
        client.send(request(b"POST", TOKEN, b"Content-Length: 1", body=b"x"))
    for service in gateway.origin("oauth2").connections:
        if service.take():
            answer = b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)
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
        (message,) = token_requests(shipped, 1, body, b"400 Bad Request", cut)
        assert (message.status, message.body) == (400, body)
    (message,) = token_requests(shipped, 1, b"{}", b"200 OK")
    assert message.status == 200


def test_another_400_is_one(shipped: MemoryGateway) -> None:
    statuses = [
        token_requests(shipped, 1, b'{"error":"invalid_grant"}', b"400 Bad Request")[0].status for _ in range(70)
    ]
    assert statuses == [400] * 60 + [429] * 10
