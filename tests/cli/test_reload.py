"""`koder-gateway reload`: what the running gateway says of a new configuration."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.kit.gateways import GatewayProcess, configuration, tool
from tests.kit.services import Origin
from tests.kit.waiting import PATIENCE

ALONE: dict[str, dict[str, Any]] = {}
WORKERS: dict[str, dict[str, Any]] = {"listen": {"workers": 2}, "limits_store": {"url": "memory:"}}


def reload(*words: str, **environ: str) -> tuple[int, str, str]:
    """The exit code, and what it says."""
    done = subprocess.run(
        [tool("koder-gateway"), "reload", *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, **environ},
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("sections", [ALONE, WORKERS], ids=["alone", "workers"])
def test_it_waits_for_the_verdict(tmp_path: Path, sections: dict[str, dict[str, Any]]) -> None:
    with contextlib.ExitStack() as origins:
        old = origins.enter_context(Origin())
        new = origins.enter_context(Origin(lambda peer, number: peer.serve(b"new")))
        with GatewayProcess(tmp_path, configuration({"a": old.url}, sections)) as gateway:
            pid = str(gateway.pid)
            gateway.config.write_text(configuration({"a": new.url}, sections))
            assert reload("--pid", pid) == (0, "reloaded\n", "")
            with gateway.connect() as client:
                assert client.ask("GET", "/a").body == b"/a new"
            gateway.config.write_text("[tenants]\nrefresh = 1\nbase_domain = 2\n")
            code, said, refused = reload("--pid", pid)
            assert (code, said) == (1, "")
            lines = refused.splitlines()
            start = f"reload refused, nothing has changed: {gateway.config}: tenants."
            assert [line.startswith(start) for line in lines] == [True, True]
            # By its admin port, and by the variable that systemd sets for ExecReload.
            gateway.config.write_text(configuration({"a": old.url}, sections))
            assert reload("--admin", f"http://127.0.0.1:{gateway.admin}") == (0, "reloaded\n", "")
            assert reload(MAINPID=pid) == (0, "reloaded\n", "")
            with gateway.connect() as client:
                assert client.ask("GET", "/a").body == b"/a fresh"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--pid", "999999999"), 1, "process 999999999 is no gateway that can be asked"),
        (("--admin", "http://127.0.0.1:1"), 1, "http://127.0.0.1:1: no gateway answers there"),
        (("--admin", "nonsense"), 1, "nonsense: no gateway answers there"),
        (("--pid", "x"), 2, "invalid int value"),
        (("--pid", "1", "--admin", "x"), 2, "not allowed with"),
    ],
)
def test_what_cannot_be_asked_is_said(words: tuple[str, ...], code: int, says: str) -> None:
    done, _, said = reload(*words)
    assert done == code
    assert says in said
    assert "Traceback" not in said


def test_the_admin_port_may_be_a_unix_socket(tmp_path: Path) -> None:
    """As for `limits` and `explain`. The process that it names is none here."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "admin.sock"))
        listening.listen()

        def answer() -> None:
            with listening.accept()[0] as asked:
                assert asked.recv(65536).startswith(b"GET /process HTTP/1.1\r\n")
                asked.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"pid": 999999999}')

        serving = threading.Thread(target=answer)
        serving.start()
        done, _, said = reload("--admin", f"unix:{tmp_path}/admin.sock")
        serving.join(PATIENCE)
    assert done == 1
    assert "process 999999999 is no gateway that can be asked" in said


def test_one_that_ends_meanwhile_is_said() -> None:
    """It hears the question, and is killed before it answers: the socket is this test's, which sees the question."""
    gateway = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asked:
        asked.bind(f"\0koder-gateway/{gateway.pid}")
        asked.settimeout(PATIENCE)
        asking = subprocess.Popen(
            [tool("koder-gateway"), "reload", "--pid", str(gateway.pid)], stderr=subprocess.PIPE, text=True
        )
        try:
            assert asked.recv(64) == b"reload"
            gateway.kill()
            gateway.communicate(timeout=PATIENCE)
            _, said = asking.communicate(timeout=PATIENCE)
        finally:
            gateway.kill()
            asking.kill()
    assert asking.returncode == 1
    assert said == (
        f"koder-gateway reload: process {gateway.pid} has ended before it had reloaded; look into its log\n"
    )
