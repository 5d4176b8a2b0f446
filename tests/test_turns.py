"""The reactor's time is shared: a slice each, one after the other, and a bound for all who wait."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock

from koder_gateway.layers.turns import READS, SLICE, TURN, Turns, turns_of


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
    """A transport that has always more to read."""

    def __init__(self) -> None:
        self.called = 0

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
