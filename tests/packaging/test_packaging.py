"""The wheel and the editable install, each in a virtual environment of its own, as a user has them."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import time
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from posixpath import dirname, join, normpath

import pytest

from tests.kit.waiting import until

PROJECT = Path(__file__).parents[2]
# Much longer than anything here takes: only a daemon that hangs meets it.
PATIENCE = 60.0
TENANT = "acme.id.localhost"
NOT_SOURCE = shutil.ignore_patterns(
    ".*", "__pycache__", "*.egg-info", "build", "dist", "bench*", "tests", "dropin.cache"
)


def run(*words: object, cwd: Path) -> str:
    """What the command wrote; it must exit with 0."""
    done = subprocess.run(
        [*map(str, words)],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what would let the project be found outside the one tested."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "NOTIFY_SOCKET", "STATE_DIRECTORY")
    return {name: value for name, value in os.environ.items() if name not in hidden} | more


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project: setuptools builds inside the tree that it is given."""
    copy = tmp_path_factory.mktemp("source") / "project"
    shutil.copytree(PROJECT, copy, ignore=NOT_SOURCE)
    # What `find:` would pick up.
    (copy / "tests").mkdir()
    (copy / "tests" / "__init__.py").touch()
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        folder,
        source,
        cwd=folder,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def distribution(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, built by the setuptools that pyproject.toml asks for."""
    folder = tmp_path_factory.mktemp("distribution")
    (needed,) = tomllib.loads((PROJECT / "pyproject.toml").read_text())["build-system"]["requires"]
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--target", folder / "tools", needed, cwd=folder)
    build = f"import sys; sys.path.insert(0, {str(folder / 'tools')!r})\nfrom setuptools import build_meta"
    run(sys.executable, "-c", f"{build}\nbuild_meta.build_sdist({str(folder)!r})", cwd=source)
    (built,) = folder.glob("*.tar.gz")
    return built


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an environment with the gateway and what it requires, and nothing else."""
    folder = tmp_path_factory.mktemp(request.param)
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    commands = folder / "venv" / "bin"
    install = (commands / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    if request.param == "wheel":
        run(*install, request.getfixturevalue("wheel"), cwd=folder)
    else:
        run(*install, "--editable", request.getfixturevalue("source"), cwd=folder)
    return commands


def test_the_wheel_has_the_packages_and_the_plugin_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    folders = (PROJECT / "koder_gateway", PROJECT / "twisted" / "plugins")
    sources = {str(path.relative_to(PROJECT)) for folder in folders for path in folder.rglob("*.py")}
    page = {f"koder_gateway/ops/page/status.{kind}" for kind in ("html", "css", "js")}
    assert names == sources | page | {"koder_gateway/py.typed"}
    assert "twisted/plugins/koder_gateway_plugin.py" in names
    assert names.isdisjoint({"twisted/__init__.py", "twisted/plugins/__init__.py"})


def test_the_wheel_carries_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (licence,) = [name for name in archive.namelist() if name.endswith("/LICENSE")]
        assert archive.read(licence) == (PROJECT / "LICENSE").read_bytes()
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        assert re.search(rb"^License(-Expression)?: MIT$", archive.read(metadata), re.MULTILINE)


def test_the_source_distribution_has_the_pages_and_what_they_link(distribution: Path) -> None:
    with tarfile.open(distribution) as archive:
        texts = {
            name.partition("/")[2]: file.read().decode("utf-8", "replace")
            for name in archive.getnames()
            if (file := archive.extractfile(name)) is not None
        }
    assert texts["LICENSE"] == (PROJECT / "LICENSE").read_text()
    pages = [name for name in texts if name.endswith(".md")]
    assert {"CHANGELOG.md", "CONTRIBUTING.md", "README.md", "SECURITY.md", "docs/operations.md"} <= set(pages)
    for page in pages:
        links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", texts[page])
        assert [link for link in links if normpath(join(dirname(page), link)) not in texts] == [], page


def test_nothing_of_ours_shadows_twisted_or_is_called_tests(installed: Path, tmp_path: Path) -> None:
    ours = "importlib.metadata.distribution('koder-gateway').files"
    script = f"import importlib.metadata; print(*[str(f) for f in {ours}], sep='\\n')"
    files = run(installed / "python", "-c", script, cwd=tmp_path).split()
    assert not [name for name in files if name.startswith("tests/") or name.endswith("twisted/__init__.py")]
    find = "import importlib.util; print(importlib.util.find_spec('tests'))"
    if "wheel" in str(installed):
        assert run(installed / "python", "-c", find, cwd=tmp_path).strip() == "None"
    twisted = run(installed / "python", "-c", "import twisted; print(twisted.__file__)", cwd=tmp_path)
    assert Path(twisted.strip()).is_relative_to(installed.parent)


@pytest.mark.parametrize("command", ["twistd", "twist"])
def test_the_plugin_is_listed(installed: Path, tmp_path: Path, command: str) -> None:
    assert "koder-gateway" in run(installed / command, "--help", cwd=tmp_path)


@pytest.mark.parametrize("command", [["twistd", "-n"], ["twist"]], ids=["twistd", "twist"])
def test_the_plugin_explains_its_options(installed: Path, tmp_path: Path, command: list[str]) -> None:
    told = run(installed / command[0], *command[1:], "koder-gateway", "--help", cwd=tmp_path)
    for option in ("--config", "--port", "--admin-port", "--demo"):
        assert option in told


def test_the_tool_accepts_the_sample(installed: Path, tmp_path: Path) -> None:
    run(installed / "koder-gateway", "check", "--config", PROJECT / "etc" / "koder-gateway.toml", cwd=tmp_path)


class Daemon:
    """A gateway serving the demo, started by a command line of the environment tested."""

    def __init__(self, command: list[str | Path], folder: Path) -> None:
        self._log = folder / "log"
        notices = folder / "notices"
        options = ["koder-gateway", "--demo", "--port", "ssl:0:interface=127.0.0.1"]
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as told, self._log.open("wb") as log:
            told.bind(str(notices))
            self._process = subprocess.Popen(
                [*command, *options],
                cwd=folder,
                env=environment(NOTIFY_SOCKET=str(notices), STATE_DIRECTORY=str(folder / "state")),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            self._wait_until_ready(told)
        # The demo says where it is once it is ready.
        try:
            shown = until(lambda: re.search(rf"https://{TENANT}:([0-9]+)/", self.log), "the demo says where it is")
        except AssertionError:
            self.kill()
            raise
        self.port = int(shown[1])

    def _wait_until_ready(self, told: socket.socket) -> None:
        """Returns at the notice that systemd would wait for; fails when the process has ended, or hangs."""
        told.settimeout(0.2)
        deadline = time.monotonic() + PATIENCE
        while self._process.poll() is None and time.monotonic() < deadline:
            with suppress(TimeoutError):
                if b"READY=1" in told.recv(65536).split(b"\n"):
                    return
        self.kill()
        pytest.fail(f"it did not get ready:\n{self.log}")

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def get(self, path: str) -> tuple[int, dict[str, object]]:
        """Status and JSON of one request, the certificate verified."""
        address = ("127.0.0.1", self.port)
        context = ssl.create_default_context(cadata=ssl.get_server_certificate(address, timeout=PATIENCE))
        with (
            socket.create_connection(address, PATIENCE) as raw,
            context.wrap_socket(raw, server_hostname=TENANT) as stream,
        ):
            head = f"GET {path} HTTP/1.1\r\nHost: {TENANT}:{self.port}\r\nConnection: close\r\n\r\n"
            stream.sendall(head.encode())
            with closing(http.client.HTTPResponse(stream)) as response:
                response.begin()
                return response.status, json.loads(response.read())

    def stop(self) -> int:
        """Its exit status after SIGTERM."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(PATIENCE)

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@pytest.fixture(params=[["twistd", "-n", "--pidfile="], ["twist"]], ids=["twistd", "twist"])
def daemon(request: pytest.FixtureRequest, installed: Path, tmp_path: Path) -> Iterator[Daemon]:
    running = Daemon([installed / request.param[0], *request.param[1:]], tmp_path)
    yield running
    running.kill()


def test_it_serves_the_demo_and_stops_in_good_order(daemon: Daemon) -> None:
    assert daemon.get("/v1/users")[0] == 200
    status, problem = daemon.get("/nowhere")
    assert (status, problem["code"]) == (404, "no_route")
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.log
