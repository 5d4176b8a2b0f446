"""The end of a client's connection as a play: what is written, how long the client is waited for, and how it ends."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from koder_gateway.downstream.lingering_close import LingeringClose, can_half_close
from koder_gateway.downstream.unsent_bytes import ClientPace
from koder_gateway.wire.clock import CoarseClock

LINGER, IDLE = 2.0, 60.0
RATE = 1024


class Transport:
    """One without half-closed connections; `unsent` bytes wait for its client, and `told` is what was asked of it."""

    def __init__(self) -> None:
        self.unsent = 0
        self.told: list[str] = []

    def loseConnection(self) -> None:
        self.told.append("close")

    def abortConnection(self) -> None:
        self.told.append("abort")


class HalfClosing(Transport):
    def loseWriteConnection(self) -> None:
        self.told.append("half-close")


class Wrapper(Transport):
    """Passes on what it does not know."""

    def __getattr__(self, name: str) -> Any:
        return getattr(HalfClosing(), name)


class Connection(LingeringClose):
    """A connection with `written` bytes so far."""

    def __init__(self, transport: Transport) -> None:
        self.clock = CoarseClock()
        timeouts = SimpleNamespace(linger=LINGER, idle=IDLE)
        self.site: Any = SimpleNamespace(clock=self.clock, timeouts=timeouts, seconds_per_byte=1 / RATE)
        self.transport: Any = transport
        self.phases: list[str] = []
        self.deadline = math.inf
        self.written = 0
        self._client_pace: ClientPace | None = None

    def _sending(self) -> tuple[object, int, bool]:
        return self, self.written, False

    def _enter_linger(self) -> None:
        self.phases.append("linger")

    def _enter_closing(self) -> None:
        self.phases.append("closing")

    def _wait(self, seconds: float) -> None:
        self.deadline = self.clock.now + seconds

    def write(self, size: int) -> None:
        self.written += size
        self.transport.unsent += size
        self._begin_pace()

    def linger(self) -> None:
        self._linger()

    def close(self) -> None:
        self._close()

    def expire(self, took: int = 0) -> None:
        """The deadline passes; until then the client has taken so many bytes."""
        self.clock.now = max(self.clock.now, self.deadline)
        self.transport.unsent -= took
        self._expire_closing(self.phases[-1] == "linger")

    @property
    def left(self) -> float:
        return self.deadline - self.clock.now


def test_who_lingers_ends_his_side_and_closes_when_it_is_quiet() -> None:
    connection = Connection(HalfClosing())
    connection.linger()
    assert (connection.transport.told, connection.left) == (["half-close"], LINGER)
    connection.expire()
    assert connection.phases == ["linger", "closing"]
    assert (connection.transport.told, connection.left) == (["half-close", "close"], IDLE)
    connection.expire()
    assert (connection.transport.told[-1], connection.deadline) == ("abort", math.inf)


@pytest.mark.parametrize("transport", [Transport(), Wrapper()], ids=["none", "wrapped"])
def test_a_side_is_only_ended_where_the_transport_itself_can(transport: Transport) -> None:
    assert not can_half_close(transport)
    connection = Connection(transport)
    connection.linger()
    assert (transport.told, connection.left) == ([], LINGER)


def test_a_connection_that_is_lost_is_not_waited_for() -> None:
    connection = Connection(Transport())
    connection.transport = None
    connection.linger()
    assert (connection.phases, connection.deadline) == (["linger"], math.inf)


def test_a_client_that_takes_what_was_written_is_waited_for() -> None:
    connection = Connection(HalfClosing())
    connection.write(1_000_000)
    connection.linger()
    for _ in range(10):
        connection.expire(took=10_000)
        assert (connection.phases, connection.left) == (["linger"], LINGER)
    # It takes nothing more.
    connection.expire()
    assert connection.phases == ["linger", "closing"]


def test_a_closing_connection_waits_as_long_as_its_client_keeps_its_pace() -> None:
    connection = Connection(Transport())
    connection.write(1_000_000)
    connection.close()
    for _ in range(5):
        connection.expire(took=2 * int(IDLE) * RATE)
        assert (connection.transport.told, connection.left) == (["close"], IDLE)
    connection.expire()
    assert connection.transport.told == ["close", "abort"]


def test_one_that_has_taken_all_is_not_waited_for() -> None:
    connection = Connection(Transport())
    connection.write(1000)
    connection.close()
    connection.expire(took=1000)
    assert connection.transport.told == ["close", "abort"]


def test_the_pace_is_measured_from_when_something_began_to_wait() -> None:
    connection = Connection(Transport())
    connection.write(1000)
    (begun, connection.clock.now) = (connection._client_pace, 10.0)
    connection.write(1000)
    assert connection._client_pace is begun
    assert begun is not None
    assert begun.due == IDLE
