"""An index in parts is one dictionary, and a copy of it another one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.policy.sharded_index import PARTS, ShardedIndex

names = st.binary(max_size=2)
steps = st.lists(st.tuples(names, st.none() | st.integers(0, 9)), max_size=40)


def apply(index: ShardedIndex[int], model: dict[bytes, int], changes: list[tuple[bytes, int | None]]) -> None:
    for name, value in changes:
        if value is None:
            index.drop(name)
            model.pop(name, None)
        else:
            index.put(name, value)
            model[name] = value


@given(steps, steps, steps)
def test_it_and_its_copy_are_dictionaries(
    first: list[tuple[bytes, int | None]],
    then: list[tuple[bytes, int | None]],
    other: list[tuple[bytes, int | None]],
) -> None:
    index: ShardedIndex[int] = ShardedIndex()
    model: dict[bytes, int] = {}
    apply(index, model, first)
    copy, copied = index.copy(), dict(model)
    apply(index, model, then)
    apply(copy, copied, other)
    for one, expected in ((index, model), (copy, copied)):
        assert sorted(one) == sorted(expected)
        assert len(one) == len(expected)
        assert all(one.get(name) == value and name in one for name, value in expected.items())
        assert one.get(b"absent") is None
    assert index.count_missing(copy) == len(model.keys() - copied.keys())


def test_a_copy_has_of_its_own_what_was_changed() -> None:
    index: ShardedIndex[int] = ShardedIndex()
    for number in range(20_000):
        index.put(b"%d" % number, number)
    assert max(map(len, index.parts)) < 20_000 // PARTS * 3, "the parts are alike"
    copy = index.copy()
    copy.put(b"new", 1)
    assert sum(one is not other for one, other in zip(index.parts, copy.parts, strict=True)) == 1
    rests: list[None] = []
    assert copy.count_missing(index, lambda: rests.append(None)) == 1
    assert len(rests) == 1
