"""The log's line for an address that has had its refusals: one for each episode, and few in all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from koder_gateway.ops.refused_addresses import RefusedAddresses
from koder_gateway.policy.episodes import _KEPT, QUIET, Episodes
from koder_gateway.policy.limit_keys import address_key, address_text
from koder_gateway.policy.limit_rules import LimitRule
from koder_gateway.policy.limits import Limiter
from koder_gateway.wire.clock import CoarseClock
from tests.kit.recording import SETTINGS, connect, running
from tests.kit.waiting import until

RULE = LimitRule("refusals", ("ip",), 1, 60, burst=3, charge="refusals")
LIMIT = '[[limits]]\nname = "refusals"\nkey = ["ip"]\nrate = "1/h"\nburst = 20\ncharge = "refusals"\n'


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged."""
    seen: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_namespace", "").endswith("RefusedAddresses"):
            seen.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)


def refuse(limiter: Limiter, address: str, times: int, now: float) -> None:
    for _ in range(times):
        limiter.refused(address_key(address), now)


def test_a_line_for_each_address_and_episode(lines: list[str]) -> None:
    clock = CoarseClock(0.0)
    limiter, told = Limiter([RULE], 100), RefusedAddresses(clock)
    refuse(limiter, "192.0.2.1", 3, 0.0)
    told.tell(limiter, 0.0)
    assert lines == []
    for second in range(20):
        clock.now = float(second)
        refuse(limiter, "192.0.2.1", 5, clock.now)
        told.tell(limiter, clock.now)
    (line,) = lines
    assert line.startswith("192.0.2.1 has reached the limit on refusals, limits.refusals (3 at once, 1/m): ")
    refuse(limiter, "2001:db8:1:2::7", 5, 20.0)
    told.tell(limiter, 20.0)
    assert lines[1].startswith("2001:db8:1:2::/64 has reached ")
    clock.now = 20.0 + QUIET
    refuse(limiter, "192.0.2.1", 9, clock.now)
    told.tell(limiter, clock.now)
    assert len(lines) == 3


def test_many_addresses_are_few_lines(lines: list[str]) -> None:
    clock = CoarseClock(0.0)
    limiter, told = Limiter([RULE], 100_000), RefusedAddresses(clock)
    for number in range(5000):
        refuse(limiter, f"192.0.{number // 256}.{number % 256}", 4, 0.0)
    told.tell(limiter, 0.0)
    assert len(lines) == 10
    clock.now = 10.0
    told.tell(limiter, 10.0)
    assert lines[10:] == [f"{_KEPT - 10} more similar lines were left out"]


def test_a_reload_begins_no_episode_anew(lines: list[str]) -> None:
    clock = CoarseClock(0.0)
    limiter, told = Limiter([RULE], 100), RefusedAddresses(clock)
    refuse(limiter, "192.0.2.1", 5, 0.0)
    told.tell(limiter, 0.0)
    following = Limiter([RULE], 100)
    following.adopt(limiter)
    refuse(following, "192.0.2.1", 5, 1.0)
    told.tell(following, 1.0)
    assert len(lines) == 1


def test_a_shadow_ends_nobody_and_says_nothing() -> None:
    limiter = Limiter([LimitRule("refusals", ("ip",), 1, 60, mode="shadow", charge="refusals")], 100)
    refuse(limiter, "192.0.2.1", 5, 0.0)
    assert limiter.over.begun() == []


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("unknown", "unknown"),
    ],
)
def test_an_address_is_told_as_it_is_counted(address: str, text: str) -> None:
    assert address_text(address_key(address)) == text


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.floats(0, 400)), max_size=50))
def test_an_episode_lasts_until_there_is_quiet(steps: list[tuple[bytes, float]]) -> None:
    episodes, latest, now = Episodes(), dict[bytes, float](), 0.0
    for key, pause in steps:
        now += pause
        episodes.note("refusals", key, now)
        begins = key not in latest or now - latest[key] >= QUIET
        assert episodes.begun() == ([("refusals", key)] if begins else [])
        latest[key] = now


def test_a_running_gateway_says_so(tmp_path: Path) -> None:
    with running(tmp_path, SETTINGS.replace("limits = []", "") + LIMIT) as gateway:
        for _ in range(30):
            with connect(gateway.port) as client:
                client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                client.closed()
        until(
            lambda: "127.0.0.1 has reached the limit on refusals, limits.refusals (20 at once, 1/h)" in gateway.log(),
            "it says so",
        )
