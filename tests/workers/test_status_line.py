"""The status line of several workers: their figures together, not too often, and never of one that has ended."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from koder_gateway.ops.notify import Notifier
from koder_gateway.workers.seats import Seat
from koder_gateway.workers.status_line import StatusLine
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.services import Origin
from tests.workers.test_watchdog import systemd


class Recorded(Notifier):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        super().__init__({})
        self.sent: list[str] = []

    def _send(self, message: str, status: str) -> None:
        self.sent.append(status)


class Unit:
    """Two workers, which serve."""

    def __init__(self) -> None:
        self.notifier = Recorded()
        self.seats = [Seat(1, 11, ready=True), Seat(2, 12, ready=True)]
        self.line = StatusLine(self.notifier, self.seats)
        self.notifier.ready(str(self.line))
        self.notifier.sent.clear()

    def shown(self, now: float) -> list[str]:
        self.line.look(now)
        sent, self.notifier.sent = self.notifier.sent, []
        return [line.partition(": ")[2] for line in sent]


@pytest.fixture
def unit() -> Unit:
    return Unit()


def test_it_says_how_many_serve(unit: Unit) -> None:
    assert (str(unit.line), unit.line.complete) == ("serving with 2 of 2 workers", True)
    unit.seats[0].ready = False
    assert (str(unit.line), unit.line.complete) == ("serving with 1 of 2 workers", False)


def test_requests_and_connections_are_added_up_and_tenants_are_the_same(unit: Unit) -> None:
    unit.line.heard(unit.seats[0], [10, 2, 5])
    unit.line.heard(unit.seats[1], [30, 3, 5])
    assert unit.shown(100.0) == ["40 requests/s, 5 connections, 5 tenants"]
    assert unit.shown(200.0) == []


def test_what_comes_soon_after_is_kept_for_later(unit: Unit) -> None:
    unit.line.heard(unit.seats[0], [10, 2, 5])
    assert unit.shown(100.0) == ["10 requests/s, 2 connections, 5 tenants"]
    unit.line.heard(unit.seats[1], [30, 3, 5])
    assert unit.shown(100.5) == []
    assert 100.5 < unit.line.due < math.inf
    assert unit.shown(unit.line.due) == ["40 requests/s, 5 connections, 5 tenants"]
    assert unit.line.due == math.inf


def test_one_that_has_ended_does_not_count(unit: Unit) -> None:
    unit.line.heard(unit.seats[0], [10, 2, 5])
    unit.line.heard(unit.seats[1], [30, 3, 5])
    unit.seats[0].pid = 0
    assert unit.shown(1.0) == ["30 requests/s, 3 connections, 5 tenants"]
    unit.seats[0].begin(2.0)
    unit.seats[0].pid = 13
    unit.line.heard(unit.seats[1], [30, 3, 5])
    assert unit.shown(9.0) == []


@pytest.mark.parametrize(
    ("sections", "start"),
    [
        ({}, b"STATUS=serving on "),
        ({"listen": {"workers": 2}, "limits_store": {"url": "memory:"}}, b"STATUS=serving with 2 of 2 workers: "),
    ],
    ids=["alone", "workers"],
)
def test_systemd_gets_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sections: dict[str, dict[str, object]], start: bytes
) -> None:
    """Of real processes, which count a connection that a test holds."""
    with (
        systemd(tmp_path, monkeypatch) as notices,
        Origin() as origin,
        GatewayProcess(tmp_path, configuration({"a": origin.url}, sections)) as gateway,
        gateway.connect() as client,
    ):
        assert client.ask("GET", "/a").status == 200
        while True:
            notice = notices.recv(4096)
            if notice.startswith(start) and b"requests/s, 1 connections" in notice:
                break
