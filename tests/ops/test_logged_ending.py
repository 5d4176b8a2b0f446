"""The end of each exchange in the access log, which follows its settings."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from koder_gateway.config import LogSettings
from koder_gateway.ops.access_log import AccessLogError
from koder_gateway.ops.counters import Counters
from koder_gateway.ops.logged_ending import LoggedEnding
from tests.exchange.test_ending import exchange

SILENT = LogSettings(access=False)


def logs_to(path: Path) -> LogSettings:
    return LogSettings(access=True, file=str(path))


def lines(path: Path) -> list[dict[str, Any]]:
    """What stands in a log."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def ids(path: Path) -> list[str]:
    return [line["request_id"] for line in lines(path)]


def holders(path: Path) -> int:
    """How many of this process's descriptors have the file open, wherever it has been moved to."""
    inode = path.stat().st_ino
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += os.stat(f"/proc/self/fd/{name}").st_ino == inode
        except OSError:
            continue
    return found


class Kept:
    """The ending under test, with its clock and counters; what it opened is closed at the end."""

    def __init__(self, settings: LogSettings) -> None:
        self.clock = Clock()
        self.clock.advance(100.25)
        self.counters = Counters()
        self.ending = LoggedEnding(self.counters, settings, self.clock.seconds)

    def end(self, *request_ids: str) -> None:
        """Exchanges end under these ids."""
        for each in request_ids:
            self.ending.finished(exchange(request_id=each.encode()))

    def follow(self, settings: LogSettings) -> None:
        """As a reload does it."""
        self.ending.follow(settings, self.ending.opened_for(settings))


@pytest.fixture
def events() -> Iterator[list[str]]:
    """What the access log logs of itself."""
    seen: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_namespace") == "koder_gateway.ops.access_log":
            seen.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)


# -- logged


def test_an_exchange_is_logged_once(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    kept = Kept(logs_to(path))
    facts = {"tenant": b"koder", "route": b"/v1/users", "service": "identity", "bytes_in": 3, "bytes_out": 5}
    kept.ending.finished(exchange(401, "client_gone", **facts))
    assert path.read_text() == "", "gathered until the flush"
    kept.ending.flush()
    (line,) = lines(path)
    assert line.pop("time").endswith("Z")
    assert line == {
        "request_id": "r1",
        "tenant": "koder",
        "client": "192.0.2.1",
        "host": "",
        "method": "GET",
        "path": "/v1/users/7",
        "route": "/v1/users",
        "service": "identity",
        "status": 401,
        "code": "client_gone",
        "bytes_in": 3,
        "bytes_out": 5,
        "duration": 0.25,
        "v": 1,
        "protocol": "HTTP/1.1",
        "tls": "",
        "user_agent": "",
        "trace_id": "",
        "ttfb": None,
        "upstream_time": None,
        "retries": 0,
        "limit": "",
        "worker": 0,
    }
    kept.ending.flush()
    assert len(lines(path)) == 1
    kept.follow(SILENT)


def test_no_log_where_none_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    kept = Kept(replace(logs_to(path), access=False))
    kept.end("a")
    kept.ending.flush()
    assert not path.exists()
    assert kept.ending.dropped == 0


def test_a_log_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(AccessLogError, match=r"missing/access\.log: the access log cannot be opened"):
        Kept(logs_to(tmp_path / "missing" / "access.log"))


def test_a_full_disk_loses_lines_and_nothing_else(events: list[str]) -> None:
    kept = Kept(logs_to(Path("/dev/full")))
    kept.end("a", "b")
    kept.ending.flush()
    assert kept.ending.dropped == 2
    assert sum(kept.counters.series[""].classes) == 2
    assert len(events) == 1
    kept.follow(SILENT)


# -- the log follows its settings


def test_the_same_settings_open_nothing_and_then_the_file_anew(tmp_path: Path) -> None:
    """A log that was rotated away: what has gathered still belongs to the old file."""
    path, rotated = tmp_path / "access.log", tmp_path / "access.log.1"
    kept = Kept(logs_to(path))
    kept.end("a")
    path.rename(rotated)
    assert kept.ending.opened_for(logs_to(path)) is None
    assert not path.exists()
    kept.ending.follow(logs_to(path), None)
    kept.end("b")
    kept.ending.flush()
    assert (ids(rotated), ids(path)) == (["a"], ["b"])
    assert (holders(rotated), holders(path)) == (0, 1)
    kept.follow(SILENT)


def test_a_rotated_log_that_cannot_be_opened_goes_on(tmp_path: Path, events: list[str]) -> None:
    folder, moved = tmp_path / "log", tmp_path / "moved"
    folder.mkdir()
    kept = Kept(logs_to(folder / "access.log"))
    folder.rename(moved)
    kept.follow(logs_to(folder / "access.log"))
    kept.end("a")
    kept.ending.flush()
    assert ids(moved / "access.log") == ["a"]
    assert len(events) == 1
    kept.follow(SILENT)


def test_another_file_is_opened_before_it_is_followed(tmp_path: Path) -> None:
    old, new = tmp_path / "old.log", tmp_path / "new.log"
    kept = Kept(logs_to(old))
    kept.end("a")
    target = kept.ending.opened_for(logs_to(new))
    assert target is not None
    kept.end("b")
    kept.ending.flush()
    assert (ids(old), ids(new)) == (["a", "b"], []), "nothing has changed yet"
    kept.end("c")
    kept.ending.follow(logs_to(new), target)
    assert ids(old) == ["a", "b", "c"]
    kept.end("d")
    kept.ending.flush()
    assert (ids(old), ids(new)) == (["a", "b", "c"], ["d"])
    assert (holders(old), holders(new)) == (0, 1)
    assert kept.ending.opened_for(logs_to(new)) is None, "these are the settings now"
    kept.follow(SILENT)


def test_a_file_that_is_opened_and_not_followed_can_be_given_back(tmp_path: Path) -> None:
    """As when the reload that asked for it is refused for another reason."""
    old, new = tmp_path / "old.log", tmp_path / "new.log"
    kept = Kept(logs_to(old))
    target = kept.ending.opened_for(logs_to(new))
    assert target is not None
    assert holders(new) == 1
    target.close()
    assert holders(new) == 0
    kept.end("a")
    kept.ending.flush()
    assert ids(old) == ["a"]
    kept.follow(SILENT)


def test_another_file_that_cannot_be_opened_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    kept = Kept(logs_to(path))
    kept.end("a")
    with pytest.raises(AccessLogError):
        kept.ending.opened_for(logs_to(tmp_path / "missing" / "access.log"))
    assert path.read_text() == "", "not even flushed"
    kept.end("b")
    kept.ending.flush()
    assert ids(path) == ["a", "b"]
    kept.follow(SILENT)


def test_a_log_is_switched_off_and_on(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    on, off = logs_to(path), replace(logs_to(path), access=False)
    kept = Kept(on)
    kept.end("a")
    kept.follow(off)
    assert (ids(path), holders(path)) == (["a"], 0)
    kept.end("b")
    kept.ending.flush()
    kept.follow(off)
    kept.follow(on)
    kept.end("c")
    kept.ending.flush()
    assert (ids(path), holders(path)) == (["a", "c"], 1)
    kept.follow(off)


def test_the_standard_output_is_never_closed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "access.log"
    stdout = LogSettings(access=True, file="-")
    kept = Kept(stdout)
    kept.end("a")
    kept.follow(stdout)
    kept.end("b")
    kept.follow(logs_to(path))
    kept.end("c")
    kept.follow(stdout)
    kept.end("d")
    kept.follow(SILENT)
    os.write(1, b"still open\n")
    out = capfd.readouterr().out.splitlines()
    assert [json.loads(line)["request_id"] for line in out[:-1]] == ["a", "b", "d"]
    assert out[-1] == "still open"
    assert ids(path) == ["c"]


def test_lost_lines_stay_counted_when_the_log_moves(tmp_path: Path, events: list[str]) -> None:
    """A counter never goes down."""
    kept = Kept(logs_to(Path("/dev/full")))
    kept.end("a", "b")
    kept.ending.flush()
    kept.end("c")
    kept.follow(logs_to(tmp_path / "access.log"))
    assert kept.ending.dropped == 3
    kept.follow(SILENT)
    assert kept.ending.dropped == 3
    assert events


def test_lines_that_a_stuck_log_has_not_taken_are_lost_and_counted(tmp_path: Path) -> None:
    """A pipe that nobody empties takes a bounded number of lines; what it did not take when the log moves away."""
    pipe, path = tmp_path / "pipe", tmp_path / "access.log"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        kept = Kept(logs_to(pipe))
        kept.end(*("x" * 100 for _ in range(1000)))
        kept.follow(logs_to(path))
        taken = b""
        while piece := os.read(reader, 65536):
            taken += piece
        whole = taken.count(b"\n")
        assert 0 < whole < 1000, "the pipe was full"
        assert kept.ending.dropped == 1000 - whole
        kept.follow(SILENT)
    finally:
        os.close(reader)
