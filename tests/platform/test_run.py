"""`run.sh` of the example, which `make run-platform` calls: it starts all parts, says so, and leaves nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from tests.kit.identity_platform import EXAMPLE, node
from tests.kit.ports import free_ports
from tests.kit.waiting import PATIENCE, until

_PORTS = ("8443", "9100", "4001", "4002", "4003", "3000")
_PROGRAMS = Path(sys.executable).parent


@pytest.fixture
def ports() -> dict[str, int]:
    """A free port for each of the example."""
    return dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))


@pytest.fixture
def folder(tmp_path: Path, ports: dict[str, int]) -> Path:
    """The example with these ports, and what npm has installed."""
    for path in EXAMPLE.iterdir():
        text = path.read_text()
        for old, new in ports.items():
            text = text.replace(f":{old}", f":{new}").replace(f": {old}", f": {new}")
        (tmp_path / path.name).write_text(text)
    shutil.copymode(EXAMPLE / "run.sh", tmp_path / "run.sh")
    (tmp_path / "node_modules").symlink_to(Path(os.environ["KODER_TEST_E2E"]).resolve() / "node_modules")
    return tmp_path


@contextlib.contextmanager
def started(folder: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The script, in a session of its own: with what it prints."""
    said = folder / "said"
    with said.open("wb") as file:
        process = subprocess.Popen(
            [folder / "run.sh"],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PATH": f"{_PROGRAMS}:{os.environ['PATH']}", **environment},
        )
    try:
        yield process, said
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def issuer_of(tenant: str, port: int, authority: Path) -> str:
    """What discovery says at the host of a tenant, to a client that trusts the certificate of `authority`."""
    name = f"{tenant}.id.localhost"
    context = ssl.create_default_context(cafile=str(authority))
    with (
        contextlib.closing(HTTPSConnection("127.0.0.1", port)) as connection,
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as plain,
    ):
        connection.sock = context.wrap_socket(plain, server_hostname=name)
        connection.request("GET", "/.well-known/openid-configuration", headers={"Host": f"{name}:{port}"})
        return str(json.loads(connection.getresponse().read())["issuer"])


def taken(port: int) -> bool:
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), timeout=PATIENCE):
        return True
    return False


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_both_tenants_until_it_is_ended(folder: Path, ports: dict[str, int], sent: signal.Signals) -> None:
    with started(folder) as (process, said):
        until(lambda: "The identity platform runs" in said.read_text() or process.poll() is not None, "it runs")
        assert process.poll() is None, said.read_text()
        for tenant in ("acme", "globex"):
            issuer = issuer_of(tenant, ports["8443"], folder / "certs" / "id.localhost.crt")
            assert issuer == f"https://{tenant}.id.localhost:{ports['8443']}"
        assert "warning: " not in said.read_text()

        # Ctrl-C reaches each process of the terminal, a manager of services' SIGTERM only the script.
        if sent == signal.SIGINT:
            os.killpg(process.pid, sent)
        else:
            process.send_signal(sent)
        assert process.wait(PATIENCE) == 0, said.read_text()
        assert [port for port in ports.values() if taken(port)] == []


def test_it_ends_with_a_reason_when_a_part_cannot_start(folder: Path, ports: dict[str, int]) -> None:
    with socket.create_server(("127.0.0.1", ports["8443"])), started(folder) as (process, said):
        assert process.wait(PATIENCE) == 1, said.read_text()
        assert said.read_text().endswith("run.sh: the platform or the gateway has ended: its last lines say why\n")
        assert [port for old, port in ports.items() if old != "8443" and taken(port)] == []


def test_it_says_what_is_missing(folder: Path) -> None:
    with started(folder, KODER_GATEWAY="no-such-gateway") as (process, said):
        assert process.wait(PATIENCE) == 1
        assert said.read_text() == "run.sh: no-such-gateway is not installed, or not in the PATH\n"


def test_node_is_the_one_that_the_other_tests_use() -> None:
    said = subprocess.run(
        [_PROGRAMS / "node", "-p", "process.execPath"], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert Path(said.stdout.strip()).samefile(node())
