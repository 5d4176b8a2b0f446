"""The limits of several workers as one list."""

from __future__ import annotations

from typing import Any

from koder_gateway.policy.limit_report import SHOWN
from koder_gateway.workers.limits_sum import merged_limits


def use(address: str, left: int) -> dict[str, Any]:
    return {"key": {"ip": address}, "left": left, "of": 10, "wait": 3}


def rule(name: str = "login", **members: Any) -> dict[str, Any]:
    counts = {"admitted": 1, "refused": 2, "would_have_refused": 3, "entries": 4, "examined": 4}
    return {"name": name, "since": "2026-01-02T00:00:00Z", **counts, "over": [], "near": [], **members}


def test_counts_are_added_up_since_the_earliest() -> None:
    (seen,) = merged_limits([[rule()], [rule(admitted=10, since="2026-01-01T00:00:00Z")], [rule(refused=7)]])
    counts = [seen[name] for name in ("admitted", "refused", "would_have_refused", "entries", "examined")]
    assert counts == [12, 11, 9, 12, 12]
    assert seen["since"] == "2026-01-01T00:00:00Z"


def test_a_key_is_shown_once_with_the_least_that_is_left() -> None:
    one = rule(over=[use("192.0.2.1", 0)], near=[use("192.0.2.2", 2)])
    other = rule(over=[use("192.0.2.2", 0)], near=[use("192.0.2.1", 1), use("192.0.2.3", 2)])
    for workers in ([[one], [other]], [[other], [one]]):
        (seen,) = merged_limits(workers)
        assert sorted(each["key"]["ip"] for each in seen["over"]) == ["192.0.2.1", "192.0.2.2"]
        assert seen["near"] == [use("192.0.2.3", 2)]


def test_over_a_limit_goes_before_near_it_where_as_much_is_left() -> None:
    views = rule(near=[use("192.0.2.1", 0)]), rule(over=[use("192.0.2.1", 0)])
    for first, second in (views, views[::-1]):
        (seen,) = merged_limits([[first], [second]])
        assert (len(seen["over"]), seen["near"]) == (1, [])


def test_no_more_are_shown_than_of_one_worker_and_the_fullest_first() -> None:
    workers = [
        [rule(near=[use(f"192.0.2.{number + 100 * worker}", number % 3) for number in range(SHOWN)])]
        for worker in range(2)
    ]
    (seen,) = merged_limits(workers)
    left = [each["left"] for each in seen["near"]]
    assert len(left) == SHOWN
    assert left == sorted(left)
    assert max(left) < 2


def test_the_rules_are_those_of_the_first() -> None:
    seen = merged_limits([[rule("a"), rule("b")], [rule("b"), rule("gone")], []])
    assert [(each["name"], each["admitted"]) for each in seen] == [("a", 1), ("b", 2)]
    assert merged_limits([]) == []
