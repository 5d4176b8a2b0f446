"""A process that runs out of file descriptors says so, is `overloaded`, and goes on once there are some again."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import socket
from pathlib import Path

import pytest
from twisted.internet.error import ConnectBindError, ConnectionRefusedError

from koder_gateway.reactor.descriptor_shortage import shortage
from tests.kit.recording import Running, request, running
from tests.kit.waiting import until


def lowest_free(gateway: Running) -> int:
    """The descriptor that the gateway gets next."""
    used = {int(name) for name in os.listdir(f"/proc/{gateway.process.pid}/fd")}
    return min(set(range(len(used) + 1)) - used)


def allow(gateway: Running, descriptors: int) -> None:
    """Let the gateway have descriptors below this number."""
    _soft, hard = resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE, (descriptors, hard))


def test_a_shortage_is_overload_and_names_the_setting(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        before, _hard = resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE)
        with gateway.client() as first:
            first.send(request())
            assert first.answer().status == 200
            # From here on it accepts with care, once it has looked: it does so at one connection of sixteen.
            allow(gateway, lowest_free(gateway) + 32)
            for _ in range(16):
                with gateway.client() as passing:
                    passing.send(request())
                    assert passing.answer().status == 200
            with gateway.client() as second:
                second.send(request())
                assert second.answer().status == 200
                gateway.origin.held.add(b"/v1/users/held")
                first.send(request(b"/v1/users/held"))
                until(lambda: any(each.target.endswith(b"/held") for each in gateway.origin.messages), "it waits")
                allow(gateway, lowest_free(gateway))
                second.send(request(b"/v1/users/second"))
                answer = second.answer()
                assert (answer.status, answer.code) == (503, "overloaded")
                with gateway.client() as third:
                    third.send(request())
                    until(lambda: " paused: all " in gateway.log(), "it says why it accepts nobody")
                    allow(gateway, before)
                    assert third.answer().status == 200
                gateway.origin.release(b"/v1/users/held")
                assert first.answer().status == 200
                # Nothing is held against the service.
                second.send(request())
                assert second.answer().status == 200
    lines = [json.loads(line) for line in (tmp_path / "access.log").read_text().splitlines()]
    told = [line for line in lines if line["status"] == 503]
    assert [(line["code"], line["path"]) for line in told] == [("overloaded", "/v1/users/second")]
    assert re.search(r"service identity: full: .*raise LimitNOFILE", gateway.log())
    assert re.search(r"paused: all \d+ file descriptors .*raise LimitNOFILE.*ulimit -n", gateway.log())
    assert "unreachable" not in gateway.log()


def test_a_client_that_has_closed_its_side_is_served_in_a_shortage(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        before, _hard = resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE)
        with gateway.client() as first, gateway.client() as second:
            second.send(request())
            assert second.answer().status == 200
            gateway.origin.held.add(b"/v1/users/held")
            first.send(request(b"/v1/users/held"))
            until(lambda: any(each.target.endswith(b"/held") for each in gateway.origin.messages), "it waits")
            allow(gateway, lowest_free(gateway))
            first.socket.shutdown(socket.SHUT_WR)
            # The gateway has seen that side's end once it has answered this.
            second.send(request())
            assert second.answer().status == 503
            gateway.origin.release(b"/v1/users/held")
            assert first.answer().status == 200
            allow(gateway, before)


@pytest.mark.parametrize(
    ("error", "setting"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "LimitNOFILE"),
        (ConnectBindError(errno.EMFILE, "Too many open files"), "LimitNOFILE"),
        (ConnectBindError(errno.ENFILE, "Too many open files in system"), "fs.file-max"),
    ],
)
def test_each_names_its_setting(error: Exception, setting: str) -> None:
    assert setting in shortage(error)


def test_nothing_else_is_a_shortage() -> None:
    assert shortage(ConnectionRefusedError(errno.ECONNREFUSED, "refused")) == ""
    assert shortage(ValueError("no number")) == ""
