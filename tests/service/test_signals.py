"""Signals before anybody serves: a real daemon that is held up while it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.authority import write_certificate
from tests.kit.gateways import configuration, tool
from tests.kit.waiting import PATIENCE, until

ROOT = Path(__file__).parents[2]

PROGRAM = """
import signal, sys
import koder_gateway.tap as tap
print("koder_gateway.config" in sys.modules, "koder_gateway.service.gateway" in sys.modules)
before = signal.getsignal(signal.SIGHUP)
tap.Options()
print(before is signal.SIG_DFL, signal.getsignal(signal.SIGHUP) is signal.SIG_DFL)
"""


@pytest.fixture(autouse=True)
def _hangups() -> Iterator[None]:
    """Under nohup whoever is started ignores them, and goes on doing so."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_the_handler_stands_before_anything_slow_begins() -> None:
    """The first that twistd makes of the plugin are its options."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, env=environment, check=True)
    assert done.stdout.split() == ["False", "False", "True", "False"]


def test_a_process_that_ignores_it_goes_on_doing_so() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    program = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\nfrom koder_gateway.tap import Options\n"
    program += "Options()\nprint(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, env=environment, check=True)
    assert done.stdout.split() == ["True"]


COMMAND = """
import importlib.abc, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)
class Look(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        # The first that is not quick: every one of these brings many more.
        if name.partition(".")[0] in ("twisted", "cattrs", "cryptography", "OpenSSL", "tomllib"):
            print(signal.getsignal(signal.SIGHUP) is signal.SIG_DFL)
            sys.stdout.flush()
            import os
            os._exit(0)
sys.meta_path.insert(0, Look())
from koder_gateway.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(("words", "default"), [(["run"], "False"), (["check"], "True"), (["explain", "/"], "True")])
def test_the_command_keeps_it_before_anything_else_is_imported(words: list[str], default: str) -> None:
    """Tools are ended by it as ever."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", COMMAND, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment, check=True)
    assert done.stdout.split() == [default]


PLUGIN = """
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)
import twisted.plugins.koder_gateway_plugin
print("koder_gateway.tap" in sys.modules, signal.getsignal(signal.SIGHUP) is signal.SIG_DFL)
"""


@pytest.mark.parametrize(("words", "default"), [(["-n", "koder-gateway"], "False"), (["-n", "web"], "True")])
def test_the_plugin_keeps_it_as_soon_as_twistd_reads_its_file(words: list[str], default: str) -> None:
    """Which every twistd does: that of another plugin is left alone."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PLUGIN, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment, check=True)
    assert done.stdout.split() == ["False", default]


@pytest.mark.parametrize("command", [("koder-gateway", "run"), ("twistd", "-n", "--pidfile=", "koder-gateway")])
def test_one_that_comes_as_soon_as_it_is_kept_is_done_after(tmp_path: Path, command: tuple[str, ...]) -> None:
    write_certificate(tmp_path / "certs", "id.test")
    config, log = tmp_path / "koder-gateway.toml", tmp_path / "gateway.log"
    config.write_text(configuration({}))
    words = [tool(command[0]), *command[1:], "--config", str(config), "--port", "tcp:0:interface=127.0.0.1"]
    with log.open("wb") as output:
        process = subprocess.Popen(words, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        until(lambda: _caught(process.pid), "somebody keeps it")
        process.send_signal(signal.SIGHUP)
        until(lambda: "reloaded " in log.read_text() or process.poll() is not None, "it is done")
        process.terminate()
        assert process.wait(PATIENCE) == 0, log.read_text()
        assert log.read_text().count("reloaded ") == 1
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.parametrize("hangups", [1, 3])
def test_what_came_while_the_configuration_was_read_is_done_after(tmp_path: Path, hangups: int) -> None:
    """The file is a pipe: whoever has opened it waits for what is written."""
    write_certificate(tmp_path / "certs", "id.test")
    pipe, log = tmp_path / "koder-gateway.toml", tmp_path / "gateway.log"
    os.mkfifo(pipe)
    text = configuration({})
    words = [tool("twistd"), "--nodaemon", "--pidfile=", "koder-gateway", "--config", str(pipe)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*words, "--port", "tcp:0:interface=127.0.0.1"], stdout=output, stderr=output, stdin=subprocess.DEVNULL
        )
    try:
        with pipe.open("w") as file:
            # It is open on both sides: the gateway reads, and nothing has come.
            for _ in range(hangups):
                process.send_signal(signal.SIGHUP)
            until(lambda: not _pending(process.pid), "it has been seen")
            file.write(text)
        until(lambda: " serves on " in log.read_text(), "the gateway serves")
        with pipe.open("w") as file:
            file.write(text)
        until(lambda: "reloaded " in log.read_text(), "what came early is done after")
        assert process.poll() is None
        process.terminate()
        assert process.wait(PATIENCE) == 0, log.read_text()
        assert log.read_text().count("reloaded ") == 1
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


SERVES = """
import os, signal
# A shell that starts tests in the background has its children ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
from koder_gateway.service.gateway import Gateway
serve = Gateway.startService
def serve_and_end(gateway):
    serve(gateway)
    os.kill(os.getpid(), signal.SIGNAL)
Gateway.startService = serve_and_end
from twisted.scripts.twistd import run
run()
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_an_end_that_comes_before_the_reactor_runs_is_in_order(tmp_path: Path, name: str) -> None:
    """It serves already: its ports are bound, and clients may be connected."""
    write_certificate(tmp_path / "certs", "id.test")
    config, bound = tmp_path / "koder-gateway.toml", tmp_path / "gateway.sock"
    config.write_text(configuration({}))
    words = [
        "twistd",
        "--nodaemon",
        "--pidfile=",
        "koder-gateway",
        "--config",
        str(config),
        "--port",
        f"unix:{bound}",
    ]
    program = "import sys\nsys.argv = " + repr(words) + SERVES.replace("SIGNAL", name)
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    assert " serves on " in done.stderr
    assert "draining: " in done.stderr
    assert not bound.exists()


def _pending(process: int) -> bool:
    """Whether SIGHUP waits for the process to take it (proc(5), SigPnd and ShdPnd)."""
    return _among(process, "SigPnd:", "ShdPnd:")


def _caught(process: int) -> bool:
    """Whether the process has a handler for SIGHUP (proc(5), SigCgt)."""
    return _among(process, "SigCgt:")


def _among(process: int, *names: str) -> bool:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(names)]
    return any(mask >> (signal.SIGHUP - 1) & 1 for mask in masks)
