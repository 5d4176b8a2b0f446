"""Verdicts on a reload: who is waited for, and how long."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from koder_gateway.workers.channel import Channel, channel_pair
from koder_gateway.workers.reload_round import ReloadRound
from koder_gateway.workers.seats import Seat


class Seats:
    """Seats of workers, with both ends of their channels."""

    def __init__(self) -> None:
        self.ends: list[Channel] = []

    def __call__(self, number: int) -> Seat:
        seat = Seat(number, pid=100 + number)
        seat.channel, theirs = channel_pair()
        self.ends += [seat.channel, theirs]
        return seat


@pytest.fixture
def seated() -> Iterator[Seats]:
    made = Seats()
    yield made
    for end in made.ends:
        end.close()


def test_it_ends_with_the_last_verdict(seated: Seats) -> None:
    one, two, without = seated(1), seated(2), Seat(3)
    round = ReloadRound()
    assert not round
    round.begin([], [one, two, without], 0.0)
    assert round
    assert not round.judged(one, ["is wrong"])
    assert not round.judged(one, ["said twice"])
    assert round.judged(two)
    (line,) = round.refusals
    assert line.startswith(
        "worker 1 (process 101): is wrong; it serves the previous configuration, the other workers"
    )
    assert round.partly
    assert not round
    assert round.due == math.inf


def test_nobody_is_asked_about_what_is_refused_already(seated: Seats) -> None:
    round = ReloadRound()
    round.begin(["a.toml: is wrong"], [seated(1)], 0.0)
    assert not round
    assert round.refusals == ["a.toml: is wrong"]
    assert not round.partly


def test_what_every_worker_refuses_has_changed_nothing(seated: Seats) -> None:
    one, two = seated(1), seated(2)
    round = ReloadRound()
    round.begin([], [one, two], 0.0)
    round.judged(two, ["is wrong"])
    round.judged(one, ["is wrong", "and this"])
    assert round.refusals == [
        "worker 2 (process 102): is wrong",
        "worker 1 (process 101): is wrong",
        "worker 1 (process 101): and this",
    ]
    assert not round.partly


def test_a_worker_that_hangs_is_not_waited_for(seated: Seats) -> None:
    one, two = seated(1), seated(2)
    round = ReloadRound()
    round.begin([], [one, two], 1000.0)
    assert not round.judged(one)
    assert not round.late(round.due - 0.1)
    assert round
    assert 1030.0 <= round.due < 1060.0, "a reload may take long, and systemctl gives up after a minute"
    assert round.late(round.due)
    assert not round
    assert ["worker 2 (process 102): hangs" in line for line in round.refusals] == [True]
    assert round.partly
    assert not round.judged(two, ["too late"])
    round.begin([], [one], 2000.0)
    assert round.judged(one)
    assert round.refusals == []
    assert not round.partly
