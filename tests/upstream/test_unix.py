"""Services behind UNIX sockets: served like any other, and told of in words when they are not there."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from koder_gateway.config import ConfigurationError, load
from tests.kit.gateways import GatewayProcess
from tests.kit.waiting import PATIENCE
from tests.upstream.test_tls_endpoint import configured, log, run

__all__ = ["log", "run"]


@contextlib.contextmanager
def listening(path: Path) -> Iterator[list[bytes]]:
    """A service at a socket, which answers every request; what it has received."""
    received: list[bytes] = []
    open_: list[socket.socket] = []
    threads: list[threading.Thread] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                received.append(data)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.settimeout(PATIENCE)
                open_.append(connection)
                threads.append(threading.Thread(target=serve, args=(connection,), daemon=True))
                threads[-1].start()

    threads.append(threading.Thread(target=accept, daemon=True))
    threads[0].start()
    try:
        yield received
    finally:
        for each in (listener, *open_):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(PATIENCE)
        listener.close()
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("form", ["unix:{}", "unix://{}"])
@pytest_twisted.ensureDeferred
async def test_a_service_behind_a_socket_is_served(run: Any, tmp_path: Path, form: str) -> None:
    path = tmp_path / "identity.sock"
    with listening(path) as received:
        running = run(f'url = "{form.format(path)}"')
        for method in ("GET", "POST", "POST"):
            assert (await running.ask("/x?y", method, b"z" if method == "POST" else b"")).body == b"hi"
        # One connection for all of them: an idle one is asked whether it is stale before a POST.
        assert running.service.opened == 1
        assert received[0].startswith(b"GET /x?y HTTP/1.1\r\nHost: acme.")


@pytest.mark.parametrize("reactor", ["uvloop", "epoll"])
@pytest_twisted.ensureDeferred
async def test_a_service_behind_a_socket_on_each_reactor(tmp_path: Path, reactor: str) -> None:
    def play() -> None:
        with GatewayProcess(tmp_path / "gateway", configured(f'url = "unix:{path}"'), reactor=reactor) as gateway:
            with gateway.connect() as client:
                assert client.ask("GET", "/").code == "upstream_unreachable"
                with listening(path):
                    until_up(client)
                    assert client.ask("POST", "/", body=b"x").body == b"hi"
                assert client.ask("POST", "/", body=b"x").code == "upstream_unreachable"
            assert f"unreachable: unix:{path}: " in gateway.log()
            assert "No such file or directory" in gateway.log()

    def until_up(client: Any) -> None:
        assert client.ask("GET", "/").body == b"hi"

    path = tmp_path / "identity.sock"
    await deferToThread(play)


@pytest_twisted.ensureDeferred
async def test_a_socket_that_is_not_there_is_told(run: Any, tmp_path: Path, log: list[str]) -> None:
    path = tmp_path / "identity.sock"
    running = run(f'url = "unix:{path}"')
    answer = await running.ask()
    assert (answer.status, answer.code) == (502, "upstream_unreachable")
    assert log[0].startswith(f"service identity: unreachable: unix:{path}: ")
    assert "No such file or directory" in log[0]


@pytest_twisted.ensureDeferred
async def test_a_socket_that_nobody_listens_on_is_told(run: Any, tmp_path: Path, log: list[str]) -> None:
    path = tmp_path / "identity.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    running = run(f'url = "unix:{path}"')
    assert (await running.ask()).code == "upstream_unreachable"
    assert "refused" in log[0]


@pytest_twisted.ensureDeferred
async def test_a_file_that_is_no_socket_is_told(run: Any, tmp_path: Path, log: list[str]) -> None:
    path = tmp_path / "identity.sock"
    path.touch()
    running = run(f'url = "unix:{path}"')
    assert (await running.ask()).code == "upstream_unreachable"
    assert "refused" in log[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may connect to every socket")
@pytest_twisted.ensureDeferred
async def test_a_socket_that_is_not_to_be_used_is_told(run: Any, tmp_path: Path, log: list[str]) -> None:
    path = tmp_path / "identity.sock"
    with listening(path):
        path.chmod(0)
        running = run(f'url = "unix:{path}"')
        assert (await running.ask()).code == "upstream_unreachable"
        assert "Permission denied" in log[0]


@pytest.mark.parametrize("url", ["unix:run/x.sock", "unix:/run/", "unix://run/x.sock", "unix:", "unix:/" + "x" * 108])
def test_what_is_no_socket_is_told(tmp_path: Path, url: str) -> None:
    path = tmp_path / "koder-gateway.toml"
    path.write_text(configured(f'url = "{url}"'))
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    (line,) = caught.value.faults
    assert line.startswith(f"{path}: services.identity.url: ")
    assert "socket" in line
