"""A connection that is being made directly: its deadline, its refusal, and giving it up."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError

from koder_gateway.exchange.states import TIMEOUT, UNREACHABLE
from koder_gateway.upstream.attempt import Attempt
from koder_gateway.upstream.direct_endpoint import DirectEndpoint
from koder_gateway.upstream.pool import Service, ServiceTimeouts
from koder_gateway.upstream.tunnel import Tunnels
from koder_gateway.wire.clock import CoarseClock
from koder_gateway.wire.response import ResponseReader


class Endpoint(DirectEndpoint):
    """An endpoint that is told what comes of its connections; `calls` says in order what was asked of it."""

    timeout = 2.0

    def __init__(self, *, directly: bool = True) -> None:
        self.calls: list[str] = []
        self.seeker: Any = None
        self.deferred: Deferred[Any] = Deferred()
        self._directly = directly

    def begin(self, seeker: Any) -> Any:
        self.calls.append("begin")
        self.seeker = seeker
        return self if self._directly else None

    def give_up(self) -> None:
        self.calls.append("give up")

    def late(self) -> None:
        self.calls.append("late")

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        self.calls.append("connect")
        return self.deferred


class Exchange:
    """Seeks a connection; `events` says what came of it."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def connected(self, connection: object) -> None:
        self.events.append(connection)

    def failed(self, event: str, detail: str = "") -> None:
        self.events.append((event, detail))


class Play:
    """A service of one address, and an exchange that seeks a connection to it."""

    def __init__(self, *, directly: bool = True) -> None:
        self.clock = CoarseClock()
        self.endpoint = Endpoint(directly=directly)
        self.service = Service(
            "identity",
            [("http://192.0.2.1", self.endpoint)],  # type: ignore[list-item]
            ResponseReader(b"x-tenant-id"),
            self.clock,
            later=lambda call: call(),
            timeouts=ServiceTimeouts(1.0, 1.0, 1.0),
            max_connections=10,
            tunnels=Tunnels(self.clock),
        )
        self.exchange: Any = Exchange()
        self.attempt: Attempt = self.service.connect(self.service.addresses[0], self.exchange)

    def pass_time(self, seconds: float) -> None:
        """What the sweeper does."""
        self.clock.now += seconds
        self.service.sweep(self.clock.now)


@pytest.fixture
def play() -> Play:
    return Play()


def test_without_an_answer_it_is_given_up_once_the_timeout_has_passed_since_the_first_tick(play: Play) -> None:
    play.pass_time(0.25)
    play.pass_time(1.75)
    assert play.exchange.events == []
    assert play.service.active == 1
    play.pass_time(0.25)
    assert play.exchange.events == [
        (
            TIMEOUT,
            "http://192.0.2.1: User timeout caused connection failure: no connection within 2 seconds.",
        )
    ]
    assert play.endpoint.calls == ["begin", "give up", "late"]
    assert play.service.active == 0
    assert not play.service.addresses[0].available(play.clock.now)


def test_a_refused_one_is_tried_by_the_endpoint_which_says_what_is_wrong(play: Play) -> None:
    play.endpoint.seeker.refused(OSError(111, "Connection refused"))
    assert play.endpoint.calls == ["begin", "connect"]
    assert play.service.active == 1
    play.endpoint.deferred.errback(ConnectionRefusedError(111))
    [(event, detail)] = play.exchange.events
    assert event == UNREACHABLE
    assert detail == "http://192.0.2.1: Connection was refused by other side: 111."
    assert play.service.active == 0


def test_where_nothing_is_made_directly_the_endpoint_connects_and_keeps_its_own_time() -> None:
    play = Play(directly=False)
    assert play.endpoint.calls == ["begin", "connect"]
    play.pass_time(100)
    assert play.exchange.events == []
    play.attempt.cancel()


def test_a_cancelled_one_is_given_up_and_counts_no_longer(play: Play) -> None:
    play.attempt.cancel()
    assert play.endpoint.calls == ["begin", "give up"]
    assert play.service.active == 0
    play.pass_time(100)
    assert play.exchange.events == []
