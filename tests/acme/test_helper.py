"""The ACME process of a gateway: told what changes, heard, and started again; a play, and the real one."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from koder_gateway.acme.helper import AcmeHelper
from koder_gateway.acme.messages import LONGEST_NAMES, Event, Names, Progress, Standing, Terms
from koder_gateway.acme.process import AcmeProcess
from koder_gateway.wire.framed_messages import Messages
from tests.kit.waiting import until


def terms(folder: Path) -> Terms:
    directory = "https://127.0.0.1:1/directory"
    where = ("127.0.0.1", 1)
    return Terms(
        str(folder), "me", directory, [], "", "tls-alpn-01", None, "ecdsa", "", 50, where, 443, "id.example", "a"
    )


class Process(AcmeProcess):
    """Takes bytes, at most `room` at once."""

    def __init__(self, room: int) -> None:
        self.taken = bytearray()
        self.room = room
        self.said: list[Progress] = []
        self.lives, self.ended, self.killed = True, False, False

    def write(self, data: bytes | memoryview) -> int:
        taken = bytes(data[: self.room])
        self.room -= len(taken)
        self.taken += taken
        return len(taken)

    def heard(self) -> Iterator[Progress]:
        said, self.said = self.said, []
        yield from said

    @property
    def alive(self) -> bool:
        return self.lives

    def end(self) -> None:
        self.ended = True

    def kill(self) -> None:
        self.killed, self.lives = True, False

    @property
    def told(self) -> list[Names]:
        return list(Messages(Names, LONGEST_NAMES).feed(bytes(self.taken)))


@pytest.fixture
def lines() -> Iterator[list[str]]:
    said: list[str] = []

    def observe(event: LogEvent) -> None:
        said.append(f"{event['log_level'].name}: {formatEvent(event)}")

    globalLogPublisher.addObserver(observe)
    yield said
    globalLogPublisher.removeObserver(observe)


class Play:
    """A helper, and the processes that it has started."""

    def __init__(self, room: int = 1 << 20) -> None:
        self._room = room
        self.processes: list[Process] = []
        self.fails = False
        self.helper = AcmeHelper(terms(Path("/nowhere")), self._start)

    def _start(self, terms: Terms) -> AcmeProcess:
        if self.fails:
            raise OSError(11, "Resource temporarily unavailable")
        self.processes.append(Process(self._room))
        return self.processes[-1]


def want(
    helper: AcmeHelper, names: list[str], added: list[str] | None = None, removed: list[str] | None = None
) -> None:
    """Say what is wanted, and how that differs from before; at first there was nothing."""
    helper.want(dict.fromkeys(names), names if added is None else added, removed or [])


def test_nothing_is_started_before_names_are_known() -> None:
    play = Play()
    play.helper.sweep(0.0)
    assert play.processes == []
    want(play.helper, ["a.example"])
    play.helper.sweep(0.25)
    assert play.processes[0].told == [Names(["a.example"], [], True)]


def test_it_hears_what_changes() -> None:
    play = Play()
    want(play.helper, ["a.example", "b.example"])
    play.helper.sweep(0.0)
    want(play.helper, ["b.example", "c.example"], ["c.example"], ["a.example"])
    want(play.helper, ["b.example", "c.example"], [], [])
    play.helper.sweep(0.25)
    assert play.processes[0].told[1:] == [Names(["c.example"], ["a.example"], True)]


def test_one_that_takes_little_at_once_hears_all() -> None:
    play = Play(room=0)
    names = [f"{number}.example" for number in range(2500)]
    want(play.helper, names)
    now = 0.0
    play.helper.sweep(now)
    process = play.processes[0]
    want(play.helper, [*names, "new.example"], ["new.example"])
    while len(process.told) < 4:
        now += 0.25
        process.room = 1000
        play.helper.sweep(now)
    assert [name for message in process.told for name in message.added] == [*names, "new.example"]


def test_one_that_has_ended_is_started_again_ever_later_and_hears_all(lines: list[str]) -> None:
    play = Play()
    want(play.helper, ["a.example"])
    now, starts = 0.0, []
    while len(starts) < 8:
        play.helper.sweep(now)
        if len(play.processes) > len(starts):
            starts.append(now)
            assert play.processes[-1].told == [Names(["a.example"], [], True)]
            play.processes[-1].lives = False
        now += 0.25
    waits = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert [round(wait) for wait in waits] == [1, 2, 4, 8, 16, 32, 64]
    assert "certificates stay as they are, and it is started again in 1 s" in lines[0]


def test_one_that_cannot_be_started_is_told(lines: list[str]) -> None:
    play = Play()
    play.fails = True
    want(play.helper, [])
    play.helper.sweep(0.0)
    assert lines == [
        "error: the ACME process cannot be started: Resource temporarily unavailable; tried again in 1 s"
    ]


def test_what_it_says_is_counted_and_logged(lines: list[str]) -> None:
    play = Play()
    want(play.helper, ["a.example"])
    play.helper.sweep(0.0)
    standing = Standing(leads=True, issued=1)
    said = Progress({"issued": 1}, [Event("warn", "a.example waits"), Event("info", "{curly}")], standing, True)
    play.processes[0].said = [said, Progress({"issued": 2})]
    play.helper.sweep(0.25)
    assert (play.helper.orders["issued"], play.helper.standing, play.helper.changes) == (3, standing, 1)
    assert lines == ["warn: acme: a.example waits", "info: acme: {curly}"]


def test_it_ends_in_time() -> None:
    play = Play()
    want(play.helper, [])
    play.helper.sweep(0.0)
    play.helper.end(1.0)
    process = play.processes[0]
    assert process.ended
    assert not play.helper.over
    play.helper.sweep(3.0)
    assert not process.killed
    play.helper.sweep(3.5)
    assert process.killed
    assert play.helper.over


def test_the_real_one_serves_and_ends_with_its_gateway(tmp_path: Path, lines: list[str]) -> None:
    """It cannot resolve the name, and says so; killed, the next one does too; asked to end, it gives up its lease."""
    helper = AcmeHelper(terms(tmp_path / "acme"))
    want(helper, ["login.example"])
    now = 0.0

    def swept(condition: object = None) -> bool:
        nonlocal now
        now += 0.01
        helper.sweep(now)
        return helper.standing is not None and helper.standing.held == 1

    until(swept, "the name is held")
    assert helper.standing is not None
    assert helper.standing.leads
    first = helper.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(lambda: swept() and helper.pid != first, "another one says the same")
    helper.end(now)
    until(lambda: (swept(), helper.over)[1], "it ends")
    assert b'"owner":""' in (tmp_path / "acme" / "lease").read_bytes()
    assert any("login.example waits: login.example cannot be resolved" in line for line in lines)


def test_a_folder_that_cannot_be_used_is_told_in_one_line(tmp_path: Path, lines: list[str]) -> None:
    (tmp_path / "acme").write_text("a file")
    helper = AcmeHelper(terms(tmp_path / "acme"))
    want(helper, ["login.example"])
    until(lambda: (helper.sweep(0.0), lines)[1], "it is told")
    assert lines[0].startswith(f"error: acme: certificates cannot be ordered: {tmp_path}/acme: ")
    assert "Traceback" not in lines[0]
    helper.end(0.0)
    until(lambda: (helper.sweep(1.0), helper.over)[1], "it ends")
