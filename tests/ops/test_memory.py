"""What the process does with memory that it no longer needs."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
from pathlib import Path

from koder_gateway.ops.memory import CLibrary, Trimmer, freeze_long_lived

MIB = 1 << 20


class Heap(CLibrary):
    """A C library's heap of which the test says how it stands; `trims` counts."""

    def __init__(self) -> None:
        self.free = self.whole = self.gone = 0
        self.trims = 0

    def sizes(self) -> tuple[int, int]:
        return self.free, self.whole

    def resident(self) -> int:
        return self.whole - self.gone

    def trim(self) -> None:
        """What has been given back stays free to the library."""
        self.trims += 1
        self.gone = self.free

    def use(self, used: int) -> None:
        """So much is in use, taken from what is free if there is enough."""
        self.whole = max(self.whole, used)
        self.free = self.whole - used
        self.gone = min(self.gone, self.free)


def test_memory_is_given_back_after_a_storm_and_not_before() -> None:
    heap = Heap()
    trimmer = Trimmer(lambda: heap)
    heap.use(40 * MIB)
    assert not trimmer.look(0.0)
    heap.use(300 * MIB)
    assert not trimmer.look(1.0)
    heap.use(60 * MIB)
    assert trimmer.look(2.0)
    assert heap.resident() == 60 * MIB
    for now in range(10, 600):
        assert not trimmer.look(float(now))
    assert heap.trims == 1, "what has been given back stays free, and is not tried again"


def test_the_connections_of_an_ordinary_load_are_enough() -> None:
    heap = Heap()
    trimmer = Trimmer(lambda: heap)
    heap.use(14 * MIB)
    assert not trimmer.look(0.0)
    heap.use(17 * MIB)
    assert not trimmer.look(1.0)
    heap.use(14 * MIB)
    assert trimmer.look(2.0)
    assert heap.resident() == 14 * MIB


def test_the_next_storm_counts_from_the_last() -> None:
    heap = Heap()
    trimmer = Trimmer(lambda: heap)
    for number in range(5):
        heap.use(300 * MIB)
        assert not trimmer.look(100.0 * number)
        heap.use(60 * MIB)
        assert trimmer.look(100.0 * number + 1)
    assert heap.trims == 5


def test_a_storm_between_two_looks_is_seen_by_the_size_of_the_process() -> None:
    heap = Heap()
    trimmer = Trimmer(lambda: heap)
    heap.use(40 * MIB)
    trimmer.look(0.0)
    heap.use(300 * MIB)
    heap.use(40 * MIB)
    assert trimmer.look(1.0)
    heap.use(300 * MIB)
    heap.use(40 * MIB)
    assert trimmer.look(100.0), "the library had as much free at each look"


def test_what_is_little_or_a_small_part_stays() -> None:
    heap = Heap()
    trimmer = Trimmer(lambda: heap)
    heap.use(40 * MIB)
    trimmer.look(0.0)
    heap.use(40 * MIB - MIB // 2)
    assert not trimmer.look(1.0)
    heap.use(1000 * MIB)
    trimmer.look(2.0)
    heap.use(900 * MIB)
    assert not trimmer.look(3.0)
    assert heap.trims == 0


def test_in_a_storm_it_is_rare_and_rarer_where_nothing_comes_of_it() -> None:
    heap = Heap()
    trimmer = Trimmer(lambda: heap)
    for now in range(60):
        heap.use(300 * MIB if now % 2 else 100 * MIB)
        trimmer.look(float(now))
    assert heap.trims == 60 // 6, "each sixth second, when there is something again"
    heap = Pinned()
    trimmer = Trimmer(lambda: heap)
    for now in range(600):
        heap.use(300 * MIB if now % 2 else 100 * MIB)
        trimmer.look(float(now))
    assert 5 <= heap.trims <= 12


class Pinned(Heap):
    """A heap of which every page has something in use in it."""

    def trim(self) -> None:
        self.trims += 1


class Blind(Heap):
    """A heap of a process that has no descriptor left to look at itself."""

    def resident(self) -> int:
        raise OSError(errno.EMFILE, "Too many open files")


def test_without_descriptors_it_looks_again_later() -> None:
    heap = Blind()
    trimmer = Trimmer(lambda: heap)
    heap.use(300 * MIB)
    heap.use(40 * MIB)
    assert not trimmer.look(0.0)
    assert heap.trims == 0


def test_without_such_a_library_nothing_happens() -> None:
    trimmer = Trimmer(lambda: None)
    assert not trimmer.look(0.0)


PROGRAM = """
from koder_gateway.ops.memory import CLibrary, Trimmer
heap, trimmer = CLibrary(), Trimmer()
trimmer.look(0.0)
before = heap.resident()
kept = []
storm = [bytes(4096 + number % 4096) for number in range(30_000)]
for number in range(0, len(storm), 64):
    kept.append(storm[number])
peak = heap.resident()
trimmer.look(1.0)
del storm
stays = heap.resident()
gone = trimmer.look(10.0)
print(before, peak, stays, heap.resident(), gone, trimmer.look(20.0))
"""


def test_what_the_real_one_gives_back() -> None:
    """In a process of its own, with pieces that stay between those that go."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    words = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=environment, check=True)
    *sizes, gone, again = done.stdout.split()
    before, peak, stays, after = map(int, sizes)
    assert (gone, again) == ("True", "False")
    assert stays - before > (peak - before) // 2, "the library would keep it"
    assert after - before < (peak - before) // 8


def test_what_lives_for_ever_is_looked_at_no_more_and_what_the_start_needed_goes() -> None:
    before = gc.get_freeze_count()
    heap = Heap()
    heap.use(40 * MIB)
    heap.use(38 * MIB)
    try:
        freeze_long_lived(lambda: heap)
        assert gc.get_freeze_count() > before
        assert heap.resident() == 38 * MIB
        freeze_long_lived(lambda: None)
    finally:
        gc.unfreeze()
