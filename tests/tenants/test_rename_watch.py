"""How a file came under its name, as the kernel tells it."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import pytest

from koder_gateway.tenants.rename_watch import RenameWatch, last_rename

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "list").write_text("one")
    return tmp_path / "list"


def rename(path: Path) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text("two")
    fresh.replace(path)


def create(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.write_text("two")


def test_a_rename_is_told_from_a_file_that_is_made(path: Path) -> None:
    arrivals = RenameWatch(path)
    assert arrivals.latest() is None
    rename(path)
    assert arrivals.latest() is True
    assert arrivals.latest() is None, "it is told once"
    create(path)
    assert arrivals.latest() is False
    create(path)
    rename(path)
    assert arrivals.latest() is True, "the last counts"
    rename(path)
    create(path)
    assert arrivals.latest() is False
    arrivals.close()


def test_other_names_and_writing_in_place_are_nothing(path: Path) -> None:
    arrivals = RenameWatch(path)
    for other in ("lis", "list.bak", "list2"):
        create(path.with_name(other))
        rename(path.with_name(other))
    path.write_text("three")
    assert arrivals.latest() is None
    arrivals.close()


def test_when_too_much_has_come_the_answer_is_the_careful_one() -> None:
    """The kernel keeps so many events of a folder, and says with one of its own when there were more."""
    moved = struct.pack("iIII", 1, 0x80, 0, 16) + b"list".ljust(16, b"\0")
    overflow = struct.pack("iIII", -1, 0x4000, 0, 0)
    assert last_rename(moved, b"list", None) is True
    assert last_rename(moved + overflow, b"list", None) is False
    assert last_rename(overflow + moved, b"list", None) is True
    assert last_rename(moved, b"lis", None) is None


def test_a_folder_that_is_not_there_tells_nothing(tmp_path: Path) -> None:
    arrivals = RenameWatch(tmp_path / "none" / "list")
    assert arrivals.latest() is None
    arrivals.close()


def test_after_the_end_nothing_is_told_and_nothing_stays_open(path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    arrivals = RenameWatch(path)
    rename(path)
    arrivals.close()
    arrivals.close()
    assert arrivals.latest() is None
    assert len(os.listdir("/proc/self/fd")) == len(before)
