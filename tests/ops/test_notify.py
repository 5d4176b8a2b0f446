"""Notifications: what systemd receives, and that nothing goes wrong where there is none."""

from __future__ import annotations

import os
import socket
import time

import pytest

from koder_gateway.ops.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def service_manager(request, tmp_path):
    """A socket as systemd opens it, and its name as systemd puts it into the environment."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.setblocking(False)
        if request.param == "path":
            name = str(tmp_path / "notify")
            receiver.bind(name)
        else:
            name = f"@koder-gateway-test-{os.getpid()}"
            receiver.bind("\0" + name[1:])
        yield receiver, {"NOTIFY_SOCKET": name}


def test_each_event_is_one_datagram(service_manager):
    receiver, environ = service_manager
    notifier = Notifier(environ)
    notifier.ready("serving 2 ports")
    notifier.stopping()
    notifier.status("draining\nREADY=1")
    assert receiver.recv(4096) == b"READY=1\nSTATUS=serving 2 ports"
    assert receiver.recv(4096) == b"STOPPING=1"
    assert receiver.recv(4096) == b"STATUS=draining READY=1"


def test_a_reload_carries_the_monotonic_time_in_microseconds(service_manager):
    receiver, environ = service_manager
    before = time.monotonic_ns() // 1000
    Notifier(environ).reloading("reading the configuration")
    after = time.monotonic_ns() // 1000
    first, second, third = receiver.recv(4096).decode().split("\n")
    assert first == "RELOADING=1"
    name, _, stamp = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(stamp) <= after
    assert third == "STATUS=reading the configuration"


@pytest.mark.parametrize("watched", [None, str(os.getpid())], ids=["any process", "this process"])
def test_the_watchdog_is_fed_twice_in_its_period(service_manager, watched):
    receiver, environ = service_manager
    environ |= {"WATCHDOG_USEC": "30000000"} | ({"WATCHDOG_PID": watched} if watched else {})
    notifier = Notifier(environ)
    assert notifier.watchdog_interval == 15.0
    notifier.watchdog()
    assert receiver.recv(4096) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"},
    ],
)
def test_nobody_watches_another_process(service_manager, extra):
    receiver, environ = service_manager
    notifier = Notifier(environ | extra)
    assert notifier.watchdog_interval is None
    notifier.watchdog()
    with pytest.raises(BlockingIOError):
        receiver.recv(4096)


@pytest.mark.parametrize("name", ["", "@", "notify", "/nowhere/notify", "/" + "x" * 200, "vsock:2:1"])
def test_without_a_service_manager_nothing_happens(service_manager, name, tmp_path, monkeypatch):
    receiver, _ = service_manager
    monkeypatch.chdir(tmp_path)  # where a socket called "notify" is, which a relative name does not mean
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000000"})
    notifier.ready("status")
    notifier.reloading()
    notifier.watchdog()
    notifier.stopping()
    with pytest.raises(BlockingIOError):
        receiver.recv(4096)


def test_the_process_s_own_environment_is_the_default(service_manager, monkeypatch):
    receiver, environ = service_manager
    monkeypatch.setenv("NOTIFY_SOCKET", environ["NOTIFY_SOCKET"])
    Notifier().ready()
    assert receiver.recv(4096) == b"READY=1"


def test_a_full_socket_is_not_waited_for(service_manager):
    receiver, environ = service_manager
    notifier = Notifier(environ)
    # More than any kernel queues for a socket that nobody reads: waiting would end here.
    for _ in range(20_000):
        notifier.status("x" * 1000)
    assert receiver.recv(4096).startswith(b"STATUS=x")
