"""Pages that one process writes and another one reads."""

from __future__ import annotations

import os
from copy import copy

import pytest

from koder_gateway.workers.shared_pages import SharedPage


def test_a_reader_has_what_was_written_last_whatever_its_size() -> None:
    page = SharedPage("test")
    assert page.read() == b""
    for data in (b"short", b"long" * 100_000, b"", b"short again"):
        page.write(data)
        assert page.read() == data


def test_a_reader_in_another_process_has_it_too() -> None:
    page = SharedPage("test")
    pid = os.fork()
    if pid == 0:
        page.write(b"from the child")
        os._exit(0)
    os.waitpid(pid, 0)
    assert page.read() == b"from the child"


@pytest.mark.parametrize("before", [1, 2, 3])
def test_a_writer_that_is_killed_in_the_middle_leaves_what_was_before(before: int) -> None:
    page = SharedPage("test")
    for number in range(before):
        page.write(b"whole %d" % number * 1000)
    # The copy that is not shown, half written.
    os.pwrite(page._copies[1 - page._shown()], b"half", 80)
    reader = copy(page)
    assert reader.read() == b"whole %d" % (before - 1) * 1000
    page.write(b"whole again")
    assert reader.read() == b"whole again"


def test_a_reader_never_sees_parts_of_two_writes() -> None:
    page = SharedPage("test")
    page.write(b"0" * 50_000)
    pid = os.fork()
    if pid == 0:
        for number in range(300):
            page.write(b"%d" % (number % 10) * 50_000)
        os._exit(0)
    seen = {page.read() for _ in range(300)}
    os.waitpid(pid, 0)
    assert all(len(set(data)) == 1 and len(data) == 50_000 for data in seen)
