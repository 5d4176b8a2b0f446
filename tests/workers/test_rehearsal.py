"""The try of the next generation: how long it may take, and how its end is told."""

from __future__ import annotations

import os
import signal

import pytest

from koder_gateway.workers import generation
from koder_gateway.workers.ended_processes import ended_processes
from koder_gateway.workers.rehearsal import Rehearsal
from tests.kit.waiting import until


def begun(monkeypatch: pytest.MonkeyPatch, script: str, longest: int = 60) -> Rehearsal:
    """A try by a program that does this."""
    monkeypatch.setattr(generation, "_command", lambda: ["/bin/sh", "-c", script])
    made = Rehearsal(longest)
    assert not made
    made.begin([])
    assert made
    return made


def fault(rehearsal: Rehearsal) -> str | None:
    """What is told of its end."""
    ended = until(lambda: list(ended_processes()), "it ends")
    ((pid, code),) = ended
    assert rehearsal.ended(pid + 1, code) is None
    told = rehearsal.ended(pid, code)
    assert not rehearsal
    rehearsal.stop()
    return told


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("exit 0", ""),
        ("exit 1", "it could not start, for the reasons above"),
        ("kill -9 $$", "trying it was ended by SIGKILL"),
    ],
)
def test_how_it_ends(monkeypatch: pytest.MonkeyPatch, script: str, told: str) -> None:
    assert fault(begun(monkeypatch, script)) == told


def test_one_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the supervisor is gone: the kernel does it."""
    assert fault(begun(monkeypatch, "exec sleep 1000", longest=1)) == "trying it took longer than 1 s"


def test_it_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    rehearsal = begun(monkeypatch, "exec sleep 1000")
    rehearsal.stop()
    assert fault(rehearsal) == "trying it was ended by SIGKILL"


def test_it_gets_the_sockets_but_not_systemds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    script = 'test -z "$NOTIFY_SOCKET" -a -n "$KODER_GATEWAY_REHEARSAL" -a -n "$KODER_GATEWAY_GENERATION"'
    assert fault(begun(monkeypatch, script)) == ""
    assert "KODER_GATEWAY_GENERATION" not in os.environ


def test_the_alarm_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fault(begun(monkeypatch, "exit 0", longest=30)) == ""
    assert signal.alarm(0) == 0
