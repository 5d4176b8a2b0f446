"""The short form of `make fuzz`: every input that is kept, and the same few mutations of them each time."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.names import CORPUS, NAMES, inputs
from tests.fuzz.targets import TARGETS

# What an input is mutated with: words of libFuzzer's dictionary, and single bytes.
WORDS = [
    ast.literal_eval("b" + line)
    for line in (CORPUS.parent / "tokens.dict").read_text().splitlines()
    if line.startswith('"')
]
# Targets that play conversations take longer for an input.
SLOW = {"request_path", "response_path", "http2"}


def by_name(names: list[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", names)


@st.composite
def mutated(draw: st.DrawFn, paths: list[Path]) -> bytes:
    """An input with a few pieces of it removed, repeated, or replaced by a word or by a piece of another one."""
    data = draw(st.sampled_from(paths)).read_bytes()
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.sampled_from([0, 0, 1, 2, 9, 40])))
        match draw(st.sampled_from(["word", "byte", "remove", "repeat", "splice"])):
            case "word":
                piece = draw(st.sampled_from(WORDS))
            case "byte":
                piece = bytes([draw(st.integers(0, 255))])
            case "remove":
                piece = b""
            case "repeat":
                piece = data[start:stop] * 3
            case _:
                other = draw(st.sampled_from(paths)).read_bytes()
                piece = other[draw(st.integers(0, len(other))) :]
        data = data[:start] + piece + data[stop:]
    return data[:4096]


def test_each_target_has_inputs() -> None:
    assert set(NAMES) == set(TARGETS)
    assert all(inputs(name) for name in NAMES)


def test_the_corpus_stays_small() -> None:
    assert sum(path.stat().st_size for name in NAMES for path in inputs(name)) < 256 << 10


@by_name(NAMES)
def test_the_inputs_that_are_kept(name: str) -> None:
    for path in inputs(name):
        TARGETS[name](path.read_bytes())


@by_name(NAMES)
def test_a_few_mutations(name: str) -> None:
    """The same ones each time (`derandomize`): new ones are what `make fuzz` is for."""

    @settings(
        max_examples=12 if name in SLOW else 60,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(mutated(inputs(name)))
    def run(data: bytes) -> None:
        TARGETS[name](data)

    run()
