"""When a worker that has died is started again."""

from __future__ import annotations

from koder_gateway.workers.restart_policy import PROVEN, RestartPolicy


def test_one_that_had_served_for_a_while_starts_at_once() -> None:
    policy = RestartPolicy()
    assert [policy.died(PROVEN) for _ in range(100)] == [0.0] * 100
    assert not policy.hopeless


def test_one_that_dies_at_once_waits_longer_each_time_up_to_a_bound() -> None:
    policy = RestartPolicy()
    assert [policy.died(1.0) for _ in range(10)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0]


def test_six_in_a_row_are_hopeless_and_one_that_serves_begins_anew() -> None:
    policy = RestartPolicy()
    for _ in range(5):
        policy.died(0.0)
    assert not policy.hopeless
    policy.died(PROVEN - 0.1)
    assert policy.hopeless
    assert policy.died(PROVEN) == 0.0
    assert not policy.hopeless
    assert policy.died(0.0) == 0.1
