"""What systemd hears while a gateway serves: keep-alives, and figures that do not repeat themselves."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from koder_gateway.ops.notify import Notifier
from koder_gateway.ops.service_report import Counted, ServiceReport


class Systemd:
    """The socket that notices go to, and a report on figures that a test sets."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(str(folder / "notify"))
        self.notifier = Notifier({"NOTIFY_SOCKET": str(folder / "notify"), **environ})
        self.counted = Counted(0, 0, 0)
        self.asked = 0
        self.report = ServiceReport(self.notifier, self._count)

    def _count(self) -> Counted:
        self.asked += 1
        return self.counted

    def heard(self) -> list[str]:
        """What has arrived."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return found

    def after(self, seconds: range) -> list[str]:
        """What arrives when the report looks once in each of these seconds."""
        for second in seconds:
            self.report.look(float(second))
        return self.heard()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    made = Systemd(tmp_path)
    yield made
    made.socket.close()


def test_figures_follow_what_is_served(systemd: Systemd) -> None:
    systemd.notifier.ready("serving on tcp 80")
    systemd.report.look(0.0)
    systemd.counted = Counted(12_345, 1_034, 3)
    assert systemd.after(range(1, 6)) == [
        "READY=1\nSTATUS=serving on tcp 80",
        "STATUS=serving on tcp 80: 2,469 requests/s, 1,034 connections, 3 tenants",
    ]


def test_what_has_not_changed_is_not_sent_again(systemd: Systemd) -> None:
    assert systemd.after(range(30)) == ["STATUS=serving: 0 requests/s, 0 connections"]
    systemd.counted = Counted(0, 1, 0)
    assert systemd.after(range(30, 60)) == ["STATUS=serving: 0 requests/s, 1 connections"]


def test_they_are_sent_each_five_seconds_at_most(systemd: Systemd) -> None:
    for second in range(60):
        systemd.counted = Counted(second, second, 1)
        systemd.report.look(float(second))
    assert len(systemd.heard()) == 11
    assert systemd.asked == 12


def test_a_refused_reload_stays_in_the_line(systemd: Systemd) -> None:
    systemd.after(range(6))
    systemd.notifier.ready("reload refused; serving the previous configuration")
    systemd.heard()
    assert systemd.after(range(6, 20)) == [
        "STATUS=reload refused; serving the previous configuration: 0 requests/s, 0 connections"
    ]
    systemd.notifier.stopping()
    systemd.counted = Counted(0, 2, 0)
    assert systemd.after(range(20, 30)) == ["STOPPING=1", "STATUS=draining: 0 requests/s, 2 connections"]


def test_keep_alives_come_with_each_look(tmp_path: Path) -> None:
    systemd = Systemd(tmp_path, WATCHDOG_USEC="10000000")
    assert systemd.after(range(4)) == ["WATCHDOG=1"] * 4
    systemd.socket.close()


def test_nothing_is_counted_where_nobody_listens() -> None:
    report = ServiceReport(Notifier({}), lambda: pytest.fail("it is asked"))
    for second in range(20):
        report.look(float(second))
