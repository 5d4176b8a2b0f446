"""Who may wait for the end of a turn, and when it ends."""

from __future__ import annotations

from collections.abc import Callable

from koder_gateway.reactor.early_reads import EarlyReads
from koder_gateway.reactor.joined_writes import MOST, JoinedWrites
from koder_gateway.reactor.turns import Turns


class Writer:
    """Notes its name when it sends, and then does whatever it is told to."""

    def __init__(self, name: str, sent: list[str], then: Callable[[], object] = lambda: None) -> None:
        self._name, self._sent, self._then = name, sent, then

    def flush(self) -> None:
        self._sent.append(self._name)
        self._then()


def test_nobody_waits_while_there_is_time_to_spare() -> None:
    asked: list[Callable[[], None]] = []
    joined = JoinedWrites(asked.append)
    assert not joined.takes(Writer("a", []))
    assert not asked


def test_all_who_wait_send_in_order_when_the_turn_ends() -> None:
    asked: list[Callable[[], None]] = []
    sent: list[str] = []
    joined = JoinedWrites(asked.append)
    joined.wanted = True
    assert joined.takes(Writer("a", sent))
    assert joined.takes(Writer("b", sent))
    assert (len(asked), sent) == (1, [])
    asked.pop()()
    assert (asked, sent) == ([], ["a", "b"])
    assert joined.takes(Writer("c", sent))
    asked.pop()()
    assert sent == ["a", "b", "c"]


def test_who_is_made_to_write_by_another_send_has_its_own_turn() -> None:
    asked: list[Callable[[], None]] = []
    sent: list[str] = []
    joined = JoinedWrites(asked.append)
    joined.wanted = True
    joined.takes(Writer("a", sent, lambda: joined.takes(Writer("b", sent))))
    asked.pop()()
    assert sent == ["a"]
    asked.pop()()
    assert sent == ["a", "b"]


def test_a_bounded_number_waits() -> None:
    joined = JoinedWrites(lambda _: None)
    joined.wanted = True
    assert [joined.takes(Writer("a", [])) for _ in range(MOST + 2)] == [True] * MOST + [False] * 2
    joined.send()
    assert joined.takes(Writer("a", []))


def test_what_was_written_does_not_wait_for_waiting_work() -> None:
    asked: list[Callable[[], object]] = []
    order: list[str] = []
    turns = Turns(asked.append)
    turns.joined.wanted = True
    turns.later(lambda: order.append("work"))
    turns.joined.takes(Writer("written", order))
    for call in asked:
        call()
    assert order == ["written", "work"]


def test_writes_wait_only_while_the_thread_is_known_to_be_busy() -> None:
    used = 0.0
    turns = Turns(lambda _: None)
    turns.early = EarlyReads(lambda: used)
    wanted = []
    for now, more in ((100.0, 0.0), (100.25, 0.2), (100.5, 0.02), (100.75, 0.24)):
        used += more
        turns.tick(now)
        wanted.append(turns.joined.wanted)
    assert wanted == [False, True, False, True]
