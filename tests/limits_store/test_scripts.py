"""The scripts decide as this process does: the same requests, in Redis and in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from koder_gateway.limits_store.scripts import DECIDE, MICRO, SETTLE, terms_of
from koder_gateway.policy.bucket_room import Room
from koder_gateway.policy.limit_plan import Plan
from koder_gateway.policy.limit_rules import LimitRule
from koder_gateway.policy.meter import Meter
from koder_gateway.policy.shared_limits import shared_rule
from koder_gateway.policy.shared_store import CROWDED
from tests.kit.redis import Redis

# Seconds until a token comes back: a test does not see a part of one.
_WINDOW = 1_000 * 86_400
_RULES = st.builds(
    lambda burst, mode, charge: ("r", burst, mode, charge),
    st.integers(1, 4),
    st.sampled_from(["enforce", "shadow"]),
    st.sampled_from(["requests", "failures"]),
)


@dataclass
class Step:
    """A request of a client, and what becomes of the oldest one that is in flight."""

    client: bytes
    settle: bool
    failed: bool


_STEPS = st.builds(Step, st.sampled_from([b"a", b"b"]), st.booleans(), st.booleans())


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """One Redis for all examples."""
    with Redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_RULES, min_size=1, max_size=3), st.lists(_STEPS, max_size=25))
def test_the_scripts_admit_and_charge_what_a_plan_does(
    redis: Redis, rules: list[tuple[str, int, str, str]], steps: list[Step]
) -> None:
    redis.ask("FLUSHALL")
    meters = tuple(
        Meter(
            LimitRule(f"r{at}", ("tenant",), 1, _WINDOW, burst, mode=mode, charge=charge),  # type: ignore[arg-type]
            Room(1000),
        )
        for at, (_, burst, mode, charge) in enumerate(rules)
    )
    plan, shared = Plan(meters), [shared_rule(meter) for meter in meters]
    under_way: list[tuple[Step, tuple[tuple[Meter, bytes], ...], str]] = []
    for number, step in enumerate(steps):
        verdict = plan.decide([step.client] * len(meters), 0.0)
        keys: list[bytes] = []
        for rule in shared:
            keys.append(b"b" + rule.name + step.client)
            if rule.afterwards:
                keys.append(b"f" + rule.name + step.client)
        request = f"request {number}"
        answer = redis.ask("EVAL", DECIDE.text, str(len(keys)), *keys, terms_of(shared), "", request)
        states = [each & 3 for each in answer]
        refused = any(state and rule.enforced for state, rule in zip(states, shared, strict=True))
        assert refused == (verdict.refused is not None)
        for meter, each in zip(meters, answer, strict=True):
            left, state = (each >> 2) / MICRO, each & 3
            expected = meter.buckets.left(step.client, 0.0)
            assert max(0.0, left) == pytest.approx(expected, abs=0.001)
            crowded = expected >= 1 and meter.crowded(step.client, expected) and not verdict.pending
            assert not crowded or state == CROWDED
        if verdict.pending:
            under_way.append((step, verdict.pending, request))  # type: ignore[arg-type]
        if step.settle and under_way:
            begun, pending, named = under_way.pop(0)
            for meter, key in pending:
                meter.settle(key, step.failed, 0.0)
                rule = shared[meters.index(meter)]
                two = b"b" + rule.name + begun.client, b"f" + rule.name + begun.client
                redis.ask(
                    "EVAL", SETTLE.text, "2", *two, terms_of([rule]), bytes(8), named, "1" if step.failed else "0"
                )
    for meter, rule in zip(meters, shared, strict=True):
        for client in (b"a", b"b"):
            held = redis.ask("ZCARD", b"f" + rule.name + client)
            assert held == meter.held.get(client, 0)
