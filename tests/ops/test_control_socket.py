"""Reloads on request: who is heard, and who gets which verdict."""

from __future__ import annotations

import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from koder_gateway.ops.control_socket import (
    ControlSocket,
    LeftControl,
    NoGatewayError,
    Refused,
    ask_reload,
    running_gateways,
)
from tests.kit.waiting import PATIENCE, until


class Gateway:
    """A gateway that reloads when a test says so, and answers in a thread."""

    def __init__(self) -> None:
        self.asked = 0
        self.control = ControlSocket(self.ask)

    def ask(self) -> None:
        self.asked += 1

    def hear(self, count: int) -> None:
        """Wait until so many requests have come."""
        until(lambda: self.control.receive() or self.asked >= count, "it is asked")


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    made = Gateway()
    yield made
    made.control.close()


@pytest.fixture
def asking() -> Iterator[Callable[[], list[object]]]:
    """Has a thread ask this process; what it was told is in the list."""
    threads: list[threading.Thread] = []

    def ask() -> list[object]:
        told: list[object] = []
        threads.append(threading.Thread(target=lambda: told.append(ask_reload(os.getpid()))))
        threads[-1].start()
        return told

    yield ask
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    "verdict", [None, Refused(["a.toml: b: is wrong"]), Refused(["one", "two"]), Refused(["worker 1: one"], True)]
)
def test_who_asks_is_told(gateway: Gateway, asking: Callable[[], list[object]], verdict: Refused | None) -> None:
    told = asking()
    gateway.hear(1)
    gateway.control.begun()
    gateway.control.decided(*verdict or [None])
    until(lambda: told, "it is told")
    assert told == [verdict]


def test_a_process_with_a_thousand_descriptors_may_ask(gateway: Gateway, asking: Callable[[], list[object]]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    beyond = 1024  # what select(2) can take
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, beyond + 100), hard))
    kept: list[int] = []
    try:
        while not kept or kept[-1] < beyond:
            kept.append(os.open(os.devnull, os.O_RDONLY))
        told = asking()
        gateway.hear(1)
        gateway.control.begun()
        gateway.control.decided(None)
        until(lambda: told, "it is told")
        assert told == [None]
    finally:
        for each in kept:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_version_before_does_not_say_whether_it_is_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be upgraded while its gateway runs."""
    monkeypatch.setattr("koder_gateway.ops.control_socket._verdict", lambda *verdict: old)
    old = b'{"reloaded": false, "refusals": ["is wrong"]}'
    gateway = Gateway()
    told: list[object] = []
    asking = threading.Thread(target=lambda: told.append(ask_reload(os.getpid())))
    asking.start()
    gateway.hear(1)
    gateway.control.decided(["is wrong"])
    asking.join(PATIENCE)
    gateway.control.close()
    assert told == [Refused(["is wrong"])]


def test_who_asks_during_a_reload_is_told_of_the_next_one(
    gateway: Gateway, asking: Callable[[], list[object]]
) -> None:
    """The one under way may have read the files before they were changed."""
    gateway.control.begun()
    told = asking()
    gateway.hear(1)
    gateway.control.decided(["of the first"])
    gateway.control.begun()
    gateway.control.decided(["of the second"])
    until(lambda: told, "it is told")
    assert told == [Refused(["of the second"])]


def test_a_verdict_that_is_too_long_is_cut(gateway: Gateway, asking: Callable[[], list[object]]) -> None:
    told = asking()
    gateway.hear(1)
    gateway.control.decided([f"fault {number} {'z' * 5000}" for number in range(1000)])
    until(lambda: told, "it is told")
    (refused,) = told
    assert isinstance(refused, Refused)
    assert refused.lines[0].startswith("fault 0 zzz")
    assert refused.lines[-1] == "and more, which the log has"


def test_other_words_and_nameless_senders_are_not_heard(gateway: Gateway) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"reload", f"\0koder-gateway/{os.getpid()}")
        gateway.control.receive()
        sender.bind("")
        sender.sendto(b"stop", f"\0koder-gateway/{os.getpid()}")
        gateway.control.receive()
        assert gateway.asked == 0
        sender.sendto(b"reload", f"\0koder-gateway/{os.getpid()}")
        gateway.control.receive()
        assert gateway.asked == 1


def test_other_users_are_not_heard(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.bind("")
        sender.sendto(b"reload", f"\0koder-gateway/{os.getpid()}")
        user = os.getuid()
        # As another user's process would come: neither root nor this one.
        monkeypatch.setattr("koder_gateway.ops.control_socket._sender", lambda ancillary: (1, user + 77))
        gateway.control.receive()
    assert gateway.asked == 0


def test_no_more_than_64_wait(gateway: Gateway) -> None:
    senders = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(70)]
    for sender in senders:
        sender.bind("")
        sender.sendto(b"reload", f"\0koder-gateway/{os.getpid()}")
        gateway.control.receive()
        assert gateway.asked <= 64
    for sender in senders:
        sender.close()


def test_a_process_that_is_none_is_said() -> None:
    with pytest.raises(NoGatewayError, match=r"999999999 is no gateway that can be asked \(Connection refused\)"):
        ask_reload(999999999)


def test_gateways_that_run_are_found(gateway: Gateway) -> None:
    assert os.getpid() in running_gateways()
    gateway.control.close()
    assert os.getpid() not in running_gateways()


def test_one_process_has_one(gateway: Gateway) -> None:
    with pytest.raises(OSError, match="Address already in use"):
        ControlSocket(lambda: None)


def test_more_may_ask_than_wait_in_the_queue(gateway: Gateway, asking: Callable[[], list[object]]) -> None:
    """The kernel's queue has room for ten or so."""
    told = [asking() for _ in range(40)]
    gateway.hear(40)
    gateway.control.decided(None)
    until(lambda: all(each == [None] for each in told), "each is told")


def test_those_who_wait_are_left_to_the_next_program(asking: Callable[[], list[object]]) -> None:
    before = Gateway()
    waits = asking()
    before.hear(1)
    before.control.begun()
    came_later = asking()
    before.hear(2)
    unread = asking()
    left = before.control.left()
    control = ControlSocket(lambda: heard.append(None), LeftControl(os.dup(left.descriptor), left.waiting))
    heard: list[None] = []
    before.control.close()
    until(lambda: control.receive() or heard, "what has not been read is read")
    control.begun()
    control.decided(["is wrong"])
    until(lambda: waits == came_later == unread == [Refused(["is wrong"])], "each is told")
    control.close()
