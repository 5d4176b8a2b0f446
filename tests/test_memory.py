"""What the process does with memory that it no longer needs."""

from __future__ import annotations

import gc

from koder_gateway.ops.memory import Trimmer, settle


def test_memory_is_given_back_after_a_storm_and_not_before() -> None:
    trimmer = Trimmer()
    assert not trimmer.look(0)
    assert not trimmer.look(10_000)
    assert not trimmer.look(9_900)
    assert trimmer.look(100)
    assert not trimmer.look(90), "what was given back once counts from there"
    assert not trimmer.look(345)
    assert trimmer.look(80)


def test_what_lives_for_ever_is_looked_at_no_more() -> None:
    before = gc.get_freeze_count()
    try:
        settle()
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()
