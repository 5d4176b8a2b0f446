"""The reactor's time is shared: a slice each, one after the other, and a bound for all who wait."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.task import Clock

from koder_gateway.reactor.turns import ARRIVALS, LITTLE, READS, SLICE, TURN, Turns, turns_of


class Reactor:
    """Turns of a reactor by hand, and a clock that only work moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[Callable[[], object]] = []

    def soon(self, call: Callable[[], object]) -> None:
        self.calls.append(call)

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()

    def turns(self) -> Turns:
        return Turns(self.soon, lambda: self.now)


def test_those_who_wait_are_called_in_their_order_in_a_later_turn() -> None:
    reactor = Reactor()
    turns = reactor.turns()
    called: list[str] = []
    for name in "abc":
        turns.later(lambda name=name: called.append(name))
    assert called == []
    reactor.turn()
    assert called == ["a", "b", "c"]
    assert len(turns) == 0
    assert reactor.calls == []


def test_whoever_asks_again_comes_behind_all_others_and_in_another_turn() -> None:
    reactor = Reactor()
    turns = reactor.turns()
    called: list[str] = []

    def greedy() -> None:
        called.append("greedy")
        if len(called) < 5:
            turns.later(greedy)

    turns.later(greedy)
    turns.later(lambda: called.append("modest"))
    reactor.turn()
    assert called == ["greedy", "modest"]
    reactor.turn()
    assert called == ["greedy", "modest", "greedy"]


def test_all_who_wait_have_one_bounded_part_of_a_turn() -> None:
    reactor = Reactor()
    turns = reactor.turns()
    called: list[int] = []

    def work(number: int) -> None:
        called.append(number)
        reactor.now += SLICE

    for number in range(100):
        turns.later(lambda number=number: work(number))
    reactor.turn()
    a_turn = len(called)
    assert a_turn <= TURN / SLICE + 1
    while reactor.calls:
        reactor.turn()
    assert called == list(range(100))
    assert turns.yielded == 100


def test_work_that_raises_keeps_no_other_from_its_turn() -> None:
    reactor = Reactor()
    turns = reactor.turns()
    called: list[str] = []

    def broken() -> None:
        raise ZeroDivisionError

    turns.later(broken)
    turns.later(lambda: called.append("next"))
    for _ in range(2):
        try:
            reactor.turn()
        except ZeroDivisionError:
            called.append("raised")
    assert called == ["raised", "next"]


def test_a_reactor_has_one_queue() -> None:
    clock, other = Clock(), Clock()
    assert turns_of(clock) is turns_of(clock)
    assert turns_of(clock) is not turns_of(other)
    called: list[str] = []
    turns_of(clock).later(lambda: called.append("now"))
    clock.advance(0)
    assert called == ["now"]


class Reader:
    """A transport that has always more to read, of a peer at this address."""

    def __init__(self, host: str | None = None) -> None:
        self.called = 0
        self.host = str(id(self)) if host is None else host

    def getPeer(self) -> Reader:
        return self

    def next_turn(self) -> None:
        self.called += 1


def test_one_who_reads_alone_has_all_reads_of_each_turn() -> None:
    reactor = Reactor()
    turns, reader = reactor.turns(), Reader()
    for _ in range(3):
        count = 1
        while turns.may_read_on(reader):
            count += 1
        assert count == READS
        reactor.turn()
    assert reader.called == 3


def test_what_was_read_in_an_earlier_turn_does_not_count() -> None:
    reactor = Reactor()
    turns, reader = reactor.turns(), Reader()
    for _ in range(20):
        assert turns.may_read_on(reader)
        reactor.turn()
    assert reader.called == 0


def test_many_who_read_have_a_bounded_part_of_a_turn_and_then_each_a_turn() -> None:
    reactor = Reactor()
    turns, readers = reactor.turns(), [Reader() for _ in range(50)]
    reads = 0
    for reader in readers:
        reads += 1
        while turns.may_read_on(reader):
            reads += 1
    assert reads == READS + len(readers) - 1
    for _ in range(3 * len(readers)):
        before = [reader.called for reader in readers]
        reactor.turn()
        (called,) = [reader for reader, count in zip(readers, before, strict=True) if reader.called > count]
        reads = 1
        while turns.may_read_on(called):
            reads += 1
        assert READS - 1 <= reads <= READS
    assert [reader.called for reader in readers] == [3] * len(readers)


def test_who_reads_little_at_once_waits_after_each_read_with_the_others() -> None:
    reactor = Reactor()
    turns, readers = reactor.turns(), [Reader() for _ in range(10)]
    for reader in readers:
        turns.read_later(reader)
    calls = []
    for _ in range(10):
        reactor.turn()
        calls.append(sum(reader.called for reader in readers))
    assert calls == list(range(1, 11))
    assert [reader.called for reader in readers] == [1] * 10


def test_one_who_reads_much_does_not_wait_for_a_hundred_of_another_address() -> None:
    reactor = Reactor()
    turns, crowd, other = reactor.turns(), [Reader("192.0.2.1") for _ in range(100)], Reader("192.0.2.2")
    for reader in (*crowd, other):
        turns.read_later(reader)
    reactor.turn()
    reactor.turn()
    assert (sum(reader.called for reader in crowd), other.called) == (1, 1)


# -- many who bring something in one turn


class Crowd:
    """A reactor on which `size` bytes of each connection are a second of work, and what came of whom."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.turns = self.reactor.turns()
        self.served: list[str] = []

    def serve(self, name: str, work: float = ARRIVALS / 10) -> None:
        self.served.append(name)
        self.reactor.now += work

    def bring(self, name: str, size: int = 1, address: str = "", work: float = ARRIVALS / 10) -> bool:
        """Whether it is served at once."""
        if not self.turns.over():
            self.serve(name, work)
            return True
        self.turns.arrived(size, address, lambda: self.serve(name, work))
        return False


def test_first_slices_have_a_bounded_part_of_a_turn_all_together() -> None:
    crowd = Crowd()
    at_once = [crowd.bring(str(number)) for number in range(1000)]
    assert 9 <= at_once.count(True) <= 12
    assert at_once == sorted(at_once, reverse=True)
    before = len(crowd.served)
    crowd.reactor.turn()
    assert 9 <= len(crowd.served) - before <= 12
    while crowd.reactor.calls:
        crowd.reactor.turn()
    assert crowd.served == [str(number) for number in range(1000)]


def test_who_comes_in_a_later_turn_does_not_wait_for_the_crowd() -> None:
    crowd = Crowd()
    for number in range(1000):
        crowd.bring(str(number))
    crowd.reactor.turn()
    assert crowd.bring("late")
    assert len(crowd.turns) > 900


def test_what_is_little_does_not_wait_for_what_is_much() -> None:
    crowd = Crowd()
    for number in range(100):
        crowd.bring(f"much {number}", LITTLE + 1, work=SLICE)
    assert not crowd.bring("little")
    crowd.reactor.turn()
    assert "little" in crowd.served
    assert len(crowd.turns) > 50


def test_handshakes_and_what_is_much_wait_in_lines_of_their_own() -> None:
    crowd = Crowd()
    crowd.serve("first", ARRIVALS * 2) if not crowd.turns.over() else None
    for number in range(100):
        crowd.turns.greeted("", lambda number=number: crowd.serve(f"hello {number}", SLICE))
        crowd.bring(f"much {number}", LITTLE + 1, work=SLICE)
    crowd.reactor.turn()
    assert {name.split()[0] for name in crowd.served} == {"first", "hello", "much"}
    assert len(crowd.served) <= 1 + 2 * (TURN / SLICE + 1)


@pytest.mark.parametrize("size", [1, LITTLE + 1])
def test_of_those_who_wait_addresses_take_turns(size: int) -> None:
    crowd = Crowd()
    for number in range(1000):
        crowd.bring(str(number), size, "many")
    crowd.bring("a colleague", size, "one")
    crowd.reactor.turn()
    assert "a colleague" in crowd.served
    assert len(crowd.turns) > 900


def test_those_beside_do_not_wait_for_each_other() -> None:
    crowd = Crowd()
    beside = crowd.turns.beside()
    for number in range(100):
        crowd.bring(str(number))
    probed: list[str] = []
    beside.later(lambda: probed.append("probe"))
    crowd.reactor.turn()
    assert probed == ["probe"]
    assert len(crowd.turns) > 50


def test_on_a_clock_that_tests_move_no_turn_is_over() -> None:
    turns = turns_of(Clock())
    assert not any(turns.over() for _ in range(3))
    assert turns.time is not None


def test_a_window_that_began_in_an_earlier_turn_lengthens_none_by_more_than_itself() -> None:
    crowd = Crowd()
    for _ in range(5):
        assert crowd.bring("alone")
    crowd.reactor.turn()
    at_once = [crowd.bring(str(number)) for number in range(1000)]
    assert at_once.count(True) <= 2 * 10 + 1
    assert at_once == sorted(at_once, reverse=True)


def test_who_is_served_at_once_asks_for_a_mark_now_and_then_and_not_in_each_turn() -> None:
    crowd = Crowd()
    marks = 0
    for _ in range(1000):
        assert crowd.bring("alone", work=ARRIVALS / 100)
        marks += len(crowd.reactor.calls)
        crowd.reactor.turn()
    assert marks <= 11


def test_a_turn_is_late_once_arriving_data_has_to_wait() -> None:
    reactor = Reactor()
    turns = reactor.turns()
    assert not turns.late, "nothing has arrived in this turn"
    assert not turns.over()
    assert not turns.late
    reactor.now += ARRIVALS
    assert turns.late
    assert turns.over()
    reactor.turn()
    assert not turns.late, "the next turn has time of its own"
