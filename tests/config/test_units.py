"""Durations and sizes: what is written is what is meant."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.config import parse_duration, parse_size
from koder_gateway.config.units import MAX_DURATION, MAX_SIZE, parse_percent

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}


@given(st.integers(0, int(MAX_DURATION) * 1000))
def test_milliseconds_round_trip(number: int) -> None:
    assert parse_duration(f"{number}ms") == number / 1000
    assert round(parse_duration(f"{number}ms") * 1000) == number


@given(st.integers(0, 365), st.sampled_from(sorted(SECONDS)))
def test_every_unit_of_time_is_so_many_seconds(number: int, unit: str) -> None:
    assert parse_duration(f"{number}{unit}") == number * SECONDS[unit]


@given(st.integers(0, int(MAX_DURATION) * 1000))
def test_a_fraction_of_a_second_is_its_milliseconds(number: int) -> None:
    whole, rest = divmod(number, 1000)
    assert parse_duration(f"{whole}.{rest:03}s") == parse_duration(f"{number}ms")


@given(st.integers(0, 1024), st.sampled_from(sorted(BYTES)))
def test_every_unit_of_size_is_so_many_bytes(number: int, unit: str) -> None:
    assert parse_size(f"{number}{unit}") == number * BYTES[unit]


@given(st.integers(0, MAX_SIZE // 10**6))
def test_bytes_round_trip(number: int) -> None:
    assert parse_size(f"{number}B") == number


@pytest.mark.parametrize("text", ["0", "0.0", "0s", "0ms"])
def test_no_time_needs_no_unit(text: str) -> None:
    assert parse_duration(text) == 0


def value_or_complaint(parse: Callable[[str], float], text: str) -> float | str:
    try:
        return parse(text)
    except ValueError as error:
        return str(error)


@given(st.text(max_size=20) | st.from_regex(r"[0-9]{1,4}[.]?[0-9]{0,3}[a-zA-Z]{0,3}", fullmatch=True))
def test_any_text_is_a_value_or_a_complaint(text: str) -> None:
    for parse, most in ((parse_duration, MAX_DURATION), (parse_size, float(MAX_SIZE))):
        result = value_or_complaint(parse, text)
        assert "write" in result if isinstance(result, str) else 0 <= result <= most


@pytest.mark.parametrize(
    "text", ["", "s", "-1s", "+1s", "1 s", "1s ", "1_0s", "1e3s", ".5s", "1.s", "\u0661s", "1S", "infs"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        parse_duration(text)


@pytest.mark.parametrize(
    "text", ["", "B", "-1B", "1 B", "1_0B", "1e3B", "1kib", "1Kib", "1MB", "1M", "1", "0.5B", "1025TiB"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        parse_size(text)


@given(st.integers(1, 100))
def test_percents_are_read_as_they_are_written(number: int) -> None:
    assert parse_percent(f"{number}%") == number


@pytest.mark.parametrize("text", ["", "%", "0%", "101%", "25", "25 %", "-5%", "2.5%", "1000%", "\u0661%"])
def test_what_is_no_percentage(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        parse_percent(text)
