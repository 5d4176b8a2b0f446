"""The line of those who wait: addresses take turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.reactor.fair_queue import FairQueue


def taken(line: FairQueue) -> list[object]:
    return [line.pop()() for _ in range(len(line))]


def test_addresses_take_turns_and_within_one_the_first_come_first() -> None:
    line = FairQueue()
    for name in ("a1", "a2", "a3", "b1", "c1", "c2"):
        line.add(name[0], lambda name=name: name)
    assert len(line) == 6
    assert taken(line) == ["a1", "b1", "c1", "a2", "c2", "a3"]
    assert len(line) == 0


def test_who_waits_again_comes_behind_the_other_addresses() -> None:
    line = FairQueue()
    line.add("a", lambda: "a1")
    line.add("b", lambda: "b1")
    assert line.pop()() == "a1"
    line.add("a", lambda: "a2")
    assert taken(line) == ["b1", "a2"]


def test_an_empty_line_has_nobody() -> None:
    with pytest.raises(IndexError):
        FairQueue().pop()


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans())))
def test_all_are_taken_and_no_address_waits_for_two_of_another(steps: list[tuple[int, bool]]) -> None:
    line = FairQueue()
    waiting: list[tuple[int, int]] = []
    since: dict[int, list[int]] = {}
    for number, (address, take) in enumerate(steps):
        line.add(address, lambda each=(address, number): each)
        waiting.append((address, number))
        since.setdefault(address, [])
        if take:
            each = line.pop()()
            assert isinstance(each, tuple)
            waiting.remove(each)
            assert not [other for other in waiting if other[0] == each[0] and other[1] < each[1]]
            since.pop(each[0])
            for others in since.values():
                others.append(each[0])
                assert len(others) == len(set(others)), "somebody had two turns while another address waited"
            if any(other[0] == each[0] for other in waiting):
                since[each[0]] = []
    assert len(line) == len(waiting)
    assert sorted(each for each in taken(line) if isinstance(each, tuple)) == sorted(waiting)
