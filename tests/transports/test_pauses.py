"""What ports say of accepting that pauses: where, in plain words, and at a bounded pace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.logger import formatEvent, globalLogPublisher

from koder_gateway.transports.pauses import AcceptPauseLog, port_text


class Loop:
    """An event loop's clock and timers, which the test moves on."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], object]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, call: Callable[[], object]) -> None:
        self.timers.append((self.now + seconds, call))

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        due = [call for when, call in self.timers if when <= self.now]
        self.timers = [timer for timer in self.timers if timer[0] > self.now]
        for call in due:
            call()


class Reactor:
    def __init__(self) -> None:
        self.loop = Loop()
        self.pauses = AcceptPauseLog(self)


class Port:
    def __init__(self, address: Any) -> None:
        self._address = address

    def getHost(self) -> Any:
        return self._address


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged."""
    said: list[str] = []

    def observe(event: Any) -> None:
        said.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield said
    globalLogPublisher.removeObserver(observe)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (IPv4Address("TCP", "127.0.0.1", 443), "127.0.0.1:443"),
        (IPv6Address("TCP", "::", 443), "[::]:443"),
        (UNIXAddress(b"/run/gateway.sock"), "the UNIX socket '/run/gateway.sock'"),
        (UNIXAddress(b"/run/a\nb"), "the UNIX socket '/run/a\\nb'"),
        (UNIXAddress(None), "the UNIX socket ''"),
    ],
)
def test_a_place_is_as_people_write_it(address: Any, words: str) -> None:
    assert port_text(address) == words


def test_a_port_that_flaps_is_a_few_lines_and_a_number(lines: list[str]) -> None:
    reactor = Reactor()
    port = Port(IPv4Address("TCP", "0.0.0.0", 443))
    for _ in range(50):
        reactor.pauses.say(port, "paused: no descriptors")
        reactor.pauses.say(port, "resumed")
    assert lines == ["Accepting on 0.0.0.0:443 paused: no descriptors", "Accepting on 0.0.0.0:443 resumed"] * 5
    assert len(reactor.loop.timers) == 1
    reactor.loop.pass_time(10)
    assert lines[10:] == ["90 more similar lines were left out"]
    assert not reactor.loop.timers
    reactor.pauses.say(port, "resumed")
    assert lines[11:] == ["Accepting on 0.0.0.0:443 resumed"]


def test_a_daemon_s_own_loop_tells_of_the_rest(lines: list[str]) -> None:
    reactor = Reactor()
    port = Port(UNIXAddress(b"/run/x"))
    reactor.pauses.say(port, "resumed")
    reactor.loop = Loop()
    reactor.pauses.say(port, "resumed")
    assert len(reactor.loop.timers) == 1
