"""The lease of a shared folder: one has it, and who takes it over need not wait for one that has ended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from koder_gateway.acme.lease_file import LIFE, LeaseFile, has_ended, this_process


def alive(process: str) -> bool:
    return False


def test_one_has_it_as_long_as_it_renews_it(tmp_path: Path) -> None:
    first, second = (LeaseFile(tmp_path / "lease", owner, alive) for owner in ("first", "second"))
    assert first.take(0.0)
    assert not second.take(1.0)
    assert first.take(LIFE - 1)
    assert not second.take(LIFE + 1)
    assert second.take(2 * LIFE)
    assert not first.take(2 * LIFE)


def test_it_can_be_given_up(tmp_path: Path) -> None:
    first, second = (LeaseFile(tmp_path / "lease", owner, alive) for owner in ("first", "second"))
    assert first.take(0.0)
    second.release()
    assert not second.take(1.0)
    first.release()
    assert second.take(1.0)


def test_nobody_waits_for_a_process_that_has_ended(tmp_path: Path) -> None:
    first, second = (LeaseFile(tmp_path / "lease", owner, ended) for owner, ended in (("a", alive), ("b", bool)))
    assert first.take(0.0)
    assert second.take(1.0)


def test_the_next_process_of_the_same_gateway_has_it_at_once(tmp_path: Path) -> None:
    assert LeaseFile(tmp_path / "lease", "me", alive).take(0.0)
    assert LeaseFile(tmp_path / "lease", "me", alive).take(1.0)


def test_a_clock_that_was_wrong_holds_it_for_no_longer_than_a_life(tmp_path: Path) -> None:
    first, second = (LeaseFile(tmp_path / "lease", owner, alive) for owner in ("first", "second"))
    assert first.take(1e9)
    assert second.take(0.0)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff" * 5000])
def test_what_was_cut_off_is_nobodys(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lease").write_bytes(content)
    assert LeaseFile(tmp_path / "lease", "me", alive).take(0.0)
    assert not LeaseFile(tmp_path / "lease", "other", alive).take(1.0)


def test_which_process_has_ended() -> None:
    me = this_process()
    assert me
    assert not has_ended(me)
    assert not has_ended("")
    boot, namespace, _, begun = me.split(" ")
    with subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.DEVNULL) as child:
        child.wait()
        assert has_ended(f"{boot} {namespace} {child.pid} {begun}")
    # Another process has its number now; or it is of another system, of which nothing is known.
    assert has_ended(f"{boot} {namespace} {os.getpid()} 1")
    assert not has_ended(f"other {namespace} {child.pid} {begun}")
    assert not has_ended(f"{boot} 1 {child.pid} {begun}")
