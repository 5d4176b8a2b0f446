"""What arrives on a service's idle connections is found before the next request goes out, by one look at all."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from koder_gateway.upstream.idle_watch import LOOK_EVERY, IdleWatch


class Connection:
    """One end of a pair of sockets. `found`: how often something that nobody asked for has been seen on it."""

    def __init__(self, watch: IdleWatch, stack: ExitStack) -> None:
        near, far = socket.socketpair()
        self.near, self.far = stack.enter_context(near), stack.enter_context(far)
        self.idle = True
        self.found = 0
        watch.add(self.near.fileno(), self)

    def unasked(self) -> None:
        """Something has arrived."""
        self.found += 1


class Watching:
    """A watch whose time the test moves, and its connections."""

    def __init__(self, stack: ExitStack) -> None:
        self.now = 1000.0
        self.watch = IdleWatch(lambda: self.now)
        self._stack = stack

    def connection(self) -> Connection:
        """One more."""
        return Connection(self.watch, self._stack)

    def look(self) -> None:
        """Look, long enough after the last time."""
        self.now += LOOK_EVERY
        self.watch.look()


@pytest.fixture
def watching() -> Iterator[Watching]:
    with ExitStack() as stack:
        yield Watching(stack)


def test_one_look_finds_every_connection_on_which_something_has_arrived(watching: Watching) -> None:
    quiet, spoken, ended = (watching.connection() for _ in range(3))
    watching.look()
    assert [each.found for each in (quiet, spoken, ended)] == [0, 0, 0]
    spoken.far.send(b"x")
    ended.far.close()
    watching.look()
    assert [each.found for each in (quiet, spoken, ended)] == [0, 1, 1]


def test_what_a_connection_that_serves_a_request_gets_is_its_answer(watching: Watching) -> None:
    connection = watching.connection()
    connection.idle = False
    connection.far.send(b"HTTP/1.1 200 OK\r\n")
    watching.look()
    assert connection.found == 0
    # Read only in part, or followed by more: the rest is found as soon as nothing is asked any more.
    connection.near.recv(4)
    connection.idle = True
    watching.look()
    assert connection.found == 1


def test_a_look_is_good_for_a_moment(watching: Watching) -> None:
    connection = watching.connection()
    watching.look()
    connection.far.send(b"x")
    watching.now += LOOK_EVERY / 2
    watching.watch.look()
    assert connection.found == 0
    watching.now += LOOK_EVERY
    watching.watch.look()
    assert connection.found == 1


def test_a_removed_connection_is_not_looked_at(watching: Watching) -> None:
    connection = watching.connection()
    connection.far.send(b"x")
    watching.watch.remove(connection.near.fileno(), connection)
    watching.look()
    assert (connection.found, len(watching.watch)) == (0, 0)
    watching.watch.add(connection.near.fileno(), connection)
    watching.look()
    assert connection.found == 1


def test_a_descriptor_belongs_to_whoever_has_it_now(watching: Watching) -> None:
    """A closed connection's number may be another's before its own is told that it is gone."""
    gone = watching.connection()
    number = gone.near.fileno()
    gone.near.close()
    successor = watching.connection()
    assert successor.near.fileno() == number
    watching.watch.remove(number, gone)
    successor.far.send(b"x")
    watching.look()
    assert (gone.found, successor.found) == (0, 1)


def test_removing_one_that_is_closed_is_no_error(watching: Watching) -> None:
    connection = watching.connection()
    number = connection.near.fileno()
    connection.near.close()
    watching.watch.remove(number, connection)
    watching.watch.remove(number, connection)
    watching.look()
    assert connection.found == 0
