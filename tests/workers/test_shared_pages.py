"""Pages that one process writes and another one reads."""

from __future__ import annotations

import os

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


def test_of_a_write_that_does_not_end_the_last_one_before_is_read() -> None:
    page = SharedPage("test")
    page.write(b"whole" * 1000)
    assert page.read() == b"whole" * 1000
    # As if the writer had been killed in the middle.
    os.pwrite(page._descriptor, b"half", 40)
    assert page.read() == b"whole" * 1000
    page.write(b"whole again")
    assert page.read() == b"whole again"
