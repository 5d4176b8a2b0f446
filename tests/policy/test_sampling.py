"""Which traces are recorded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.policy.sampling import Sampler

IDS = st.binary(min_size=16, max_size=16).map(lambda value: value.hex().encode())
ALL, NONE = b"0" * 16 + b"f" * 16, b"f" * 16 + b"0" * 16


@given(IDS, st.floats(0, 1))
def test_it_is_the_ratio_of_the_lower_half(trace_id: bytes, sample: float) -> None:
    """As OpenTelemetry's TraceIdRatioBased does it."""
    assert Sampler(sample, 0).takes(trace_id) == (int(trace_id[16:], 16) < round(sample * 2**64))


@pytest.mark.parametrize("trace_id", [ALL, NONE])
def test_all_are_all_and_none_is_none(trace_id: bytes) -> None:
    assert Sampler(1.0, 0).takes(trace_id)
    assert not Sampler(0.0, 0).takes(trace_id)


@pytest.mark.parametrize("sampled", [True, False])
def test_a_trusted_proxys_flag_decides(sampled: bool) -> None:
    for sample in (0.0, 1.0):
        sampler = Sampler(sample, 0)
        assert sampler.takes_clients(NONE, sampled=sampled, trusted=True, now=1.0) is sampled


def test_clients_get_so_many_traces_a_second() -> None:
    sampler = Sampler(0.0, 3)
    ask = [sampler.takes_clients(ALL, sampled=True, trusted=False, now=7.0 + n / 10) for n in range(9)]
    assert ask == [True] * 3 + [False] * 6
    assert sampler.takes_clients(ALL, sampled=True, trusted=False, now=8.0)


def test_a_client_cannot_have_more_by_its_choice_of_ids() -> None:
    sampler = Sampler(0.5, 2)
    ask = [sampler.takes_clients(NONE, sampled=False, trusted=False, now=7.0) for _ in range(9)]
    assert ask == [True] * 2 + [False] * 7


def test_what_is_not_sampled_uses_nothing_up() -> None:
    sampler = Sampler(0.5, 1)
    for _ in range(9):
        assert not sampler.takes_clients(ALL, sampled=False, trusted=False, now=7.0)
    assert sampler.takes_clients(NONE, sampled=False, trusted=False, now=7.0)
