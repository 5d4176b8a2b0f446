"""Systemd's watchdog over several workers: fed while all of them turn, and not while one hangs."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from koder_gateway.ops.notify import Notifier
from koder_gateway.workers.seats import Seat
from koder_gateway.workers.watchdog import Watchdog
from tests.kit.gateways import GatewayProcess
from tests.kit.services import Origin
from tests.kit.waiting import PATIENCE, until
from tests.workers.test_generation import renew
from tests.workers.test_supervised import READY, configured, supervised, until_replaced

ALIVE = b"WATCHDOG=1"
# More than two of the supervisor's keep-alives are apart.
QUIET = 2.5


@contextlib.contextmanager
def systemd(folder: Path, monkeypatch: pytest.MonkeyPatch, **environ: str) -> Iterator[socket.socket]:
    """The socket that a gateway started from now on notifies, and what else it has in its environment."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(folder / "notify"))
        notices.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", str(folder / "notify"))
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        yield notices


def drop_received(notices: socket.socket) -> None:
    """Forget what has arrived and was not read."""
    notices.settimeout(0)
    with contextlib.suppress(BlockingIOError):
        while True:
            notices.recv(4096)
    notices.settimeout(PATIENCE)


def alive_within(notices: socket.socket, seconds: float) -> bool:
    """Whether a keep-alive comes within so many seconds from now; figures may."""
    drop_received(notices)
    end = time.monotonic() + seconds
    try:
        while (left := end - time.monotonic()) > 0:
            notices.settimeout(left)
            if notices.recv(4096) == ALIVE:
                return True
    except TimeoutError:
        pass
    finally:
        notices.settimeout(PATIENCE)
    return False


def until_alive(notices: socket.socket, times: int = 1) -> None:
    """Wait for so many keep-alives from now on."""
    drop_received(notices)
    for _ in range(times):
        while notices.recv(4096) != ALIVE:
            pass


def test_it_is_fed_while_both_turn_and_not_while_one_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        systemd(tmp_path, monkeypatch, WATCHDOG_USEC="6000000") as notices,
        Origin() as origin,
        GatewayProcess(tmp_path, configured(origin.url, timeouts={"worker": 0})) as gateway,
    ):
        until(lambda: gateway.metrics()[READY] == 2, "both workers are ready")
        assert notices.recv(4096).startswith((b"READY=1\n", ALIVE))
        # Longer than a worker's silence may be.
        until_alive(notices, 5)
        hanging = gateway.workers[1]
        os.kill(hanging, signal.SIGSTOP)
        until(lambda: f"(process {hanging}) hangs: " in gateway.log(), "it is told")
        assert not alive_within(notices, QUIET)
        os.kill(hanging, signal.SIGCONT)
        until_alive(notices, 2)
        assert gateway.log().count(" hangs: ") == 1
        assert gateway.log().count(f"(process {hanging}) is heard again") == 1


@pytest.mark.parametrize("environ", [{}, {"WATCHDOG_USEC": "6000000"}], ids=["alone", "systemd"])
def test_a_worker_that_hangs_is_replaced_and_the_others_serve_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    with (
        systemd(tmp_path, monkeypatch, **environ),
        Origin() as origin,
        GatewayProcess(tmp_path, configured(origin.url, timeouts={"worker": "3s"})) as gateway,
    ):
        until(lambda: gateway.metrics()[READY] == 2, "both workers are ready")
        hanging, other = gateway.workers
        os.kill(hanging, signal.SIGSTOP)

        def replaced() -> bool:
            assert gateway.ask_admin("/readyz")[0] == 200, "those that serve are ready"
            with gateway.connect() as client:
                assert client.ask("GET", "/a").status == 200
            return "hung" in gateway.log()

        until(replaced, "it is killed")
        until_replaced(gateway, hanging)
        assert other in gateway.workers
        line = f"worker 1 (process {hanging}) hung and was killed; it is started again"
        assert gateway.log().count(line) == 1
        assert "was killed by" not in gateway.log()
        assert gateway.log().count(" hangs: ") == len(environ), "without systemd there is one line"


def test_it_is_fed_while_workers_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        systemd(tmp_path, monkeypatch, WATCHDOG_USEC="6000000") as notices,
        Origin() as origin,
        supervised(tmp_path, origin.url) as gateway,
    ):
        killed, ended = gateway.workers
        os.kill(killed, signal.SIGKILL)
        until_replaced(gateway, killed)
        os.kill(ended, signal.SIGTERM)
        until_replaced(gateway, ended)
        until_alive(notices, 5)
        renew(gateway)
        until_alive(notices, 5)
        assert " hangs: " not in gateway.log()


@pytest.mark.parametrize("environ", [{}, {"WATCHDOG_USEC": "6000000", "WATCHDOG_PID": "1"}])
def test_without_a_watchdog_nothing_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    with (
        systemd(tmp_path, monkeypatch, **environ) as notices,
        Origin() as origin,
        supervised(tmp_path, origin.url),
    ):
        assert notices.recv(4096).startswith(b"READY=1\n")
        assert not alive_within(notices, QUIET)


def test_the_supervisor_s_lines_are_json_too(tmp_path: Path) -> None:
    config = configured("http://127.0.0.1:9", log={"file": "access.log", "format": "json"})
    with GatewayProcess(tmp_path, config) as gateway:
        until(lambda: len(gateway.workers) == 2, "both are there")
        killed = gateway.workers[0]
        os.kill(killed, signal.SIGKILL)
        until(lambda: "was killed by SIGKILL" in gateway.log(), "it is told")
        lines = [json.loads(line) for line in gateway.log().splitlines()]
    told = next(line for line in lines if "was killed by SIGKILL" in line["message"])
    assert told.keys() == {"time", "level", "logger", "message"}
    assert told["message"].startswith(f"worker 1 (process {killed}) was killed by SIGKILL")
    assert (told["level"], told["logger"]) == ("warn", "koder_gateway.workers.supervisor")


# The rule, without processes. Systemd's period is 20 s, so a worker may be silent for 10 s.


class Counting(Notifier):
    """Counts keep-alives."""

    def __init__(self, interval: float | None = 10.0) -> None:
        super().__init__({})
        self.watchdog_interval = interval
        self.sent = 0

    def watchdog(self) -> None:
        self.sent += 1


class Unit:
    """A watchdog over two workers, which have the processes 11 and 12."""

    def __init__(self, interval: float | None = 10.0, serving: bool = True, limit: float = 0.0) -> None:
        self.notifier = Counting(interval)
        self.told: list[str] = []
        self.killed: list[tuple[int, int]] = []
        self.watchdog = Watchdog(
            self.notifier,
            lambda: 40.0,
            lambda: limit,
            self.told.append,
            serving,
            lambda *each: self.killed.append(each),
        )
        self.seats = [Seat(1, 11), Seat(2, 12)]
        for seat in self.seats:
            self.watchdog.started(seat, 0.0)

    def fed(self, now: float) -> bool:
        """Whether a look sends a keep-alive. Those before it, each second, are left out."""
        if self.watchdog.due < now - 1.0:
            self.watchdog.due = now
        before = self.notifier.sent
        self.watchdog.look(self.seats, now)
        return self.notifier.sent > before

    def hear(self, notice: str, now: float, *numbers: int) -> None:
        for number in numbers or (1, 2):
            self.watchdog.heard(self.seats[number - 1], notice, now)


def test_a_keep_alive_is_sent_once_a_second() -> None:
    unit = Unit()
    assert [unit.fed(now) for now in (0.0, 0.5, 0.99, 1.0, 1.5, 2.0)] == [True, False, False, True, False, True]
    assert unit.watchdog.due == 3.0


def test_nothing_is_sent_before_the_first_is_ready() -> None:
    unit = Unit(serving=False)
    assert not unit.fed(1.0)
    unit.hear("READY=1", 1.5, 1)
    assert unit.fed(2.0)


def test_one_silent_worker_stops_it_and_is_named_once() -> None:
    unit = Unit()
    unit.hear("READY=1", 0.0)
    unit.hear("WATCHDOG=1", 5.0, 1)
    assert unit.fed(9.9)
    assert not unit.fed(10.9)
    assert not unit.fed(12.0)
    assert unit.told == [
        "worker 2 (process 12) hangs: systemd's watchdog gets no keep-alive until it is heard or replaced"
    ]
    unit.hear("WATCHDOG=1", 12.5)
    assert unit.fed(13.0)
    assert unit.told[1:] == ["worker 2 (process 12) is heard again"]


def test_a_short_period_does_not_make_a_late_worker_a_hanging_one() -> None:
    unit = Unit(interval=0.5)
    unit.hear("READY=1", 0.0)
    assert unit.fed(2.9)
    assert not unit.fed(3.9)


def test_a_worker_may_take_its_time_to_start_and_to_end() -> None:
    unit = Unit()
    unit.hear("READY=1", 0.0, 1)
    unit.hear("STOPPING=1", 5.0, 1)
    unit.hear("WATCHDOG=1", 6.0, 1)
    assert unit.fed(44.9)
    assert not unit.fed(45.9)
    unit.hear("WATCHDOG=1", 85.0, 1)
    assert unit.fed(89.9)
    assert not unit.fed(90.9)
    assert [line[:8] for line in unit.told] == ["worker 1", "worker 1", "worker 2"]


def test_a_seat_without_a_process_does_not_count() -> None:
    unit = Unit()
    unit.hear("READY=1", 0.0)
    unit.hear("WATCHDOG=1", 10.0, 1)
    assert not unit.fed(10.0)
    unit.seats[1].pid = 0
    assert unit.fed(11.0)
    unit.seats[1].pid = 13
    unit.watchdog.started(unit.seats[1], 11.5)
    assert unit.fed(12.0)
    assert len(unit.told) == 1


def test_without_a_watchdog_only_who_hangs_is_killed() -> None:
    unit = Unit(interval=None, limit=10.0)
    unit.hear("READY=1", 0.0)
    for now in range(1, 20):
        unit.hear("WATCHDOG=1", now, 1)
        assert unit.killed == ([] if now < 11 else [(12, signal.SIGKILL)]), now
        unit.watchdog.look(unit.seats, now)
    assert unit.told == [], "its end is told"
    assert [seat.hung for seat in unit.seats] == [False, True]


def test_who_hangs_is_not_killed_before_systemd_would_miss_it_nor_at_all_without_a_limit() -> None:
    for limit, killed in ((3.0, 1), (0.0, 0)):
        unit = Unit(interval=5.0, limit=limit)
        unit.hear("READY=1", 0.0)
        for now in (1.0, 2.0, 3.0, 4.0, 4.99):
            unit.watchdog.look(unit.seats, now)
        assert unit.killed == []
        for now in range(6, 100):
            unit.hear("WATCHDOG=1", now, 1)
            unit.watchdog.look(unit.seats, now)
        assert len(unit.killed) == killed


def test_a_supervisor_that_stood_still_does_not_blame_the_workers() -> None:
    """As in a container that was paused: they stood still too."""
    unit = Unit(interval=None, limit=10.0)
    unit.hear("READY=1", 0.0)
    unit.watchdog.look(unit.seats, 0.0)
    unit.watchdog.look(unit.seats, 3600.0)
    unit.hear("WATCHDOG=1", 3600.1, 1)
    for now in range(3601, 3611):
        unit.hear("WATCHDOG=1", now, 1)
        unit.watchdog.look(unit.seats, now)
    assert unit.killed == [(12, signal.SIGKILL)], "from then on it counts"


def test_a_reload_may_take_until_its_time_is_up() -> None:
    unit = Unit(interval=None, limit=10.0)
    unit.hear("READY=1", 0.0)
    unit.watchdog.asked(unit.seats, 45.0)
    unit.watchdog.answered(unit.seats[0], 1.0)
    for now in range(1, 12):
        unit.watchdog.look(unit.seats, now)
    assert unit.killed == [(11, signal.SIGKILL)], "it has answered, and hangs since"
    for now in range(12, 56):
        unit.watchdog.look(unit.seats, now)
        assert len(unit.killed) == (1 if now < 52 else 2), now
    unit.watchdog.asked(unit.seats, math.inf)


def test_an_answer_to_a_reload_does_not_shorten_the_drain() -> None:
    unit = Unit(interval=None, limit=10.0)
    unit.hear("READY=1", 0.0)
    unit.hear("STOPPING=1", 1.0)
    unit.watchdog.answered(unit.seats[0], 2.0)
    for now in range(2, 40):
        unit.watchdog.look(unit.seats, now)
    assert unit.killed == []
