"""Which address gets the next exchange, and when one is out of use: back-off, ejection, trial, slow start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from koder_gateway.upstream.address import Address
from koder_gateway.upstream.failure_window import Ejection
from koder_gateway.upstream.name_resolution import Found, ResolvedName
from koder_gateway.upstream.named_addresses import NamedAddresses
from koder_gateway.upstream.pool import Service
from koder_gateway.wire.clock import CoarseClock
from koder_gateway.wire.response import ResponseReader
from tests.kit.bounds import open_tunnels, service_timeouts
from tests.kit.memory import MemoryReactor


class Lot:
    """Numbers that are drawn: 0.5 unless a test says others."""

    def __init__(self) -> None:
        self.next: list[float] = []
        self.always = 0.5

    def __call__(self) -> float:
        return self.next.pop(0) if self.next else self.always


class Play:
    """A service whose addresses are judged by hand."""

    def __init__(self, count: int, named: dict[str, NamedAddresses] | None = None, **options: float) -> None:
        self.clock = CoarseClock(1000.0)
        self.lot = Lot()
        reactor = MemoryReactor()
        urls = list(named or ()) or [f"http://192.0.2.{number}" for number in range(1, count + 1)]
        self.service = Service(
            "identity",
            [(url, TCP4ClientEndpoint(reactor, "192.0.2.1", 80)) for url in urls],
            ResponseReader(b"X-Tenant-ID"),
            self.clock,
            later=lambda call: None,
            timeouts=service_timeouts(),
            max_connections=1024,
            tunnels=open_tunnels(self.clock),
            named=named,
            ejection=Ejection(5, 10.0),
            draw=self.lot,
            **options,  # type: ignore[arg-type]
        )
        self.service.sweep(self.clock.now)

    @property
    def addresses(self) -> list[Address]:
        return self.service.addresses

    @property
    def urls(self) -> list[str]:
        return [address.url for address in self.addresses]

    def pass_time(self, seconds: float) -> None:
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now = min(self.clock.now + 0.25, end)
            self.service.sweep(self.clock.now)

    def fail(self, address: Address, clients: int = 5) -> None:
        """A request of each of so many clients fails there."""
        for number in range(clients):
            address.failed(b"client %d" % number, self.clock.now)

    def chosen(self, times: int = 12) -> Counter[Address | None]:
        """How often each address is given an exchange."""
        return Counter(self.service.next_address() for _ in range(times))


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        lines.append(f"{event['log_level'].name}: {formatEvent(event)}")

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


# -- the choice


def test_addresses_with_as_many_exchanges_take_turns() -> None:
    play = Play(3)
    assert play.chosen() == dict.fromkeys(play.addresses, 4)


def test_of_two_the_one_with_fewer_exchanges_is_taken() -> None:
    play = Play(2)
    first, second = play.addresses
    first.busy.update([object()] * 1)  # type: ignore[list-item]
    assert play.chosen() == {second: 12}
    second.attempts.update([object(), object()])  # type: ignore[arg-type]
    assert play.chosen() == {first: 12}


def test_the_one_that_is_compared_is_drawn() -> None:
    play = Play(3)
    for address, pending in zip(play.addresses, (5, 3, 4), strict=True):
        address.busy.update(object() for _ in range(pending))  # type: ignore[misc]
    taken = set()
    for drawn in (0.0, 0.4, 0.6, 0.99):
        play.lot.always = drawn
        taken |= set(play.chosen(3))
    assert taken == set(play.addresses[1:]), "the busiest of three is never the better one of two"


# -- ejection


def test_an_address_that_fails_for_several_clients_is_ejected_and_comes_back(log: list[str]) -> None:
    play = Play(2)
    bad, good = play.addresses
    play.fail(bad)
    assert play.chosen() == {good: 12}
    assert log == [
        "warn: service identity: http://192.0.2.1 gets no requests for 1 s: 5 failures for 5 clients, and 0 responses"
    ]
    assert play.service.ejections == 1
    play.pass_time(1.25)
    play.lot.always = 0.0
    assert bad in play.chosen()


def test_clients_that_are_too_few_eject_nothing() -> None:
    play = Play(2)
    bad, good = play.addresses
    for _ in range(50):
        play.fail(bad, clients=2)
    assert play.chosen() == {bad: 6, good: 6}


def test_a_single_address_is_never_ejected() -> None:
    play = Play(1)
    (only,) = play.addresses
    for _ in range(100):
        play.fail(only)
        play.pass_time(1)
    assert play.service.ejections == 0
    assert play.chosen() == {only: 12}


@pytest.mark.parametrize(("count", "most"), [(2, 1), (3, 1), (4, 2), (5, 2)])
def test_no_more_than_half_of_the_addresses_are_ejected(count: int, most: int) -> None:
    play = Play(count)
    for address in play.addresses:
        play.fail(address)
    assert sum(address.ejected_until > play.clock.now for address in play.addresses) == most


def test_the_last_address_that_is_available_is_not_ejected() -> None:
    play = Play(4)
    last = play.addresses[0]
    for other in play.addresses[1:]:
        other.judge(False, play.clock.now)
    play.fail(last)
    assert play.chosen() == {last: 12}


def test_each_ejection_is_longer_until_one_goes_well_for_long() -> None:
    play = Play(2)
    bad, _ = play.addresses
    play.lot.always = 0.0
    lasted = []
    for _ in range(7):
        play.fail(bad)
        lasted.append(bad.ejected_until - play.clock.now)
        play.pass_time(lasted[-1])
    assert lasted == [1, 2, 4, 8, 16, 24, 24]
    play.lot.always = 0.999
    play.fail(bad)
    assert 29 < bad.ejected_until - play.clock.now < 30, "with the longest jitter"
    play.pass_time(65)
    bad.answered += 1
    play.fail(bad)
    assert bad.ejected_until - play.clock.now < 1.25


def test_an_address_on_trial_gets_one_request_a_second_and_one_failure_ends_it() -> None:
    play = Play(2, slow_start=0)
    bad, good = play.addresses
    play.fail(bad)
    play.pass_time(1.25)
    assert play.chosen() == {bad: 1, good: 11}
    assert play.chosen() == {good: 12}
    play.pass_time(1)
    assert play.chosen() == {bad: 1, good: 11}
    play.fail(bad, clients=1)
    assert play.chosen() == {good: 12}
    assert play.service.ejections == 2


def test_a_response_ends_the_trial() -> None:
    play = Play(2, slow_start=0)
    bad, good = play.addresses
    play.fail(bad)
    play.pass_time(1.25)
    bad.answered += 1
    assert play.chosen() == {bad: 6, good: 6}
    play.fail(bad, clients=1)
    assert play.chosen() == {bad: 6, good: 6}


def test_requests_from_before_the_ejection_do_not_count_again() -> None:
    play = Play(2, slow_start=0)
    bad, _ = play.addresses
    begun = play.clock.now
    play.fail(bad)
    play.pass_time(2)
    for number in range(10):
        bad.failed(b"client %d" % number, begun)
    assert play.service.ejections == 1


# -- the slow start


def test_the_share_of_an_address_that_comes_back_rises() -> None:
    play = Play(2, slow_start=10)
    late, other = play.addresses
    late.judge(False, play.clock.now)
    assert play.chosen() == {other: 12}
    play.pass_time(5)
    late.judge(True, play.clock.now)
    shares = [late.share(play.clock.now)]
    for _ in range(5):
        play.pass_time(2.5)
        shares.append(late.share(play.clock.now))
    assert shares == [0.1, 0.25, 0.5, 0.75, 1.0, 1.0]


def test_an_address_is_passed_over_as_its_share_says() -> None:
    play = Play(2, slow_start=10)
    late, other = play.addresses
    late.judge(False, play.clock.now)
    late.judge(True, play.clock.now)
    play.pass_time(3)
    play.lot.always = 0.29
    assert play.chosen() == {late: 6, other: 6}
    play.lot.always = 0.31
    assert play.chosen() == {other: 12}


def test_where_all_start_slowly_none_waits() -> None:
    play = Play(2, slow_start=10)
    for address in play.addresses:
        address.judge(False, play.clock.now)
        address.judge(True, play.clock.now)
    play.lot.always = 0.99
    assert None not in play.chosen()


# -- connections that fail


def test_an_address_whose_connection_failed_gets_one_attempt_at_a_time() -> None:
    play = Play(2, slow_start=0)
    lost, other = play.addresses
    lost.refused(play.clock.now)
    assert play.chosen() == {other: 12}
    play.pass_time(1)
    assert play.service.next_address() is not None
    attempt = object()
    lost.attempts.add(attempt)  # type: ignore[arg-type]
    other.busy.update([object(), object()])  # type: ignore[list-item]
    assert play.chosen() == {other: 12}, "although it has more exchanges"
    lost.attempts.clear()
    other.busy.clear()
    lost.reached()
    assert play.chosen() == {lost: 6, other: 6}


def test_of_failed_addresses_the_one_that_failed_longest_ago_is_tried() -> None:
    play = Play(2)
    first, second = play.addresses
    first.refused(play.clock.now)
    play.pass_time(0.25)
    second.refused(play.clock.now)
    assert play.chosen() == {first: 12}


def test_unhealthy_addresses_are_not_tried_and_without_others_there_is_none() -> None:
    play = Play(2)
    first, second = play.addresses
    first.judge(False, play.clock.now)
    second.refused(play.clock.now)
    assert play.chosen() == {second: 12}
    second.judge(False, play.clock.now)
    assert play.chosen() == {None: 12}


def test_a_description_says_which_address_is_out_of_use_and_why() -> None:
    play = Play(4)
    unhealthy, refused, ejected, _ = play.addresses
    play.fail(ejected)
    unhealthy.judge(False, play.clock.now)
    refused.refused(play.clock.now)
    assert play.service.description == (
        "http://192.0.2.1 (out of use: its health probes fail), "
        "http://192.0.2.2 (out of use: a connection has failed), "
        "http://192.0.2.3 (out of use: its requests have failed), http://192.0.2.4"
    )


# -- names


FIRST: Found = (IPv4Address, "192.0.2.1")
SECOND: Found = (IPv4Address, "192.0.2.2")
SIXTH: Found = (IPv6Address, "2001:db8::1")


class Named(Play):
    """A service with the address of a name, which a test has stand for others."""

    URL = "https://a.test:8443"

    def __init__(self, *known: Found) -> None:
        reactor = MemoryReactor()
        self.asked: list[str] = []
        self.name = ResolvedName("a.test", self.look_up, reactor)
        self.name.known = known
        self.made: list[Found] = []
        self.reactor = reactor
        super().__init__(0, {self.URL: NamedAddresses(self.URL, self.name, self.make, reactor)})

    def look_up(self, host: str) -> tuple[Found, ...]:
        self.asked.append(host)
        return self.name.known

    def make(self, found: Found) -> TCP4ClientEndpoint:
        self.made.append(found)
        return TCP4ClientEndpoint(self.reactor, found[1], 8443)

    def renew(self, *known: Found) -> None:
        self.name.known = known
        self.service.sweep(self.clock.now)


def test_a_name_with_several_addresses_is_several_addresses() -> None:
    play = Named(FIRST, SIXTH)
    assert play.urls == ["https://192.0.2.1:8443", "https://[2001:db8::1]:8443"]
    assert play.made == [FIRST, SIXTH]
    assert play.chosen() == dict.fromkeys(play.addresses, 6)


def test_a_name_without_a_look_up_or_of_this_machine_is_one_address() -> None:
    play = Named()
    assert play.urls == [Named.URL]
    play.renew((IPv6Address, "::1"), (IPv4Address, "127.0.0.1"))
    assert play.urls == [Named.URL]
    assert not play.made


def test_an_address_that_stays_keeps_its_state_and_a_new_one_starts_slowly(log: list[str]) -> None:
    play = Named(FIRST)
    (first,) = play.addresses
    first.answered = 7
    assert first.share(play.clock.now) == 1.0
    play.renew(SECOND, FIRST)
    second, kept = play.addresses
    assert kept is first
    assert second.share(play.clock.now) < 1.0
    play.renew(FIRST, SECOND)
    assert play.addresses == [second, first], "another order changes nothing"
    assert len(log) == 2
    assert play.made == [FIRST, SECOND]


def test_an_address_that_is_gone_ends_with_its_last_exchange(log: list[str]) -> None:
    play = Named(FIRST)
    (first,) = play.addresses
    first.answered = 7
    busy = Connection()
    first.busy.add(busy)  # type: ignore[arg-type]
    play.renew(SECOND)
    assert play.urls == ["https://192.0.2.2:8443"]
    assert log[-1] == "info: service identity: its addresses are https://192.0.2.2:8443"
    assert (play.service.active, play.service.answered) == (1, 7)
    first.release(busy)  # type: ignore[arg-type]
    assert busy.closed
    play.service.sweep(play.clock.now)
    assert (play.service.active, play.service.idle) == (0, 0)


def test_a_name_is_looked_up_at_once_when_an_address_cannot_be_reached() -> None:
    play = Named(FIRST)
    play.addresses[0].refused(play.clock.now)
    assert play.asked == ["a.test"]


class Connection:
    """A connection that serves an exchange."""

    relay = None

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True
