"""The plugin's options and daemon, and the gateway as a service: started, signalled, reloaded and stopped."""

from __future__ import annotations

import gc
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import treq
from twisted.application.service import IService, MultiService
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint as ServerEndpoint
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.python.usage import UsageError
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface.verify import verifyObject

from koder_gateway import Gateway, Settings, StartError, load, mounted_request
from koder_gateway.daemon import Daemon, Demo, fail
from koder_gateway.tap import Options, makeService
from tests.kit.authority import write_certificate
from tests.kit.gateways import parse_metrics
from tests.kit.waiting import PATIENCE, eventually

ROOT = Path(__file__).parents[2]
LOOPBACK = "tcp:0:interface=127.0.0.1"
TENANTS = '[[tenant]]\nslug = "koder"\n[[tenant]]\nslug = "acme"\n'
CONFIG = """
[tenants]
registry = "tenants.toml"
[services]
identity = "http://127.0.0.1:{identity}"
[timeouts]
response = "{response}"
drain = "5s"
[requests]
max_body = "{max_body}"
[state]
dir = "state"
[tls]
certificates = "certs"
[log]
file = "{log}"
[[limits]]
name = "few"
key = ["tenant"]
rate = "2/h"
paths = ["/v1/users"]
"""


def configuration(
    identity: int = 4001, response: str = "60s", max_body: str = "1KiB", log: str = "access.log", more: str = ""
) -> str:
    """The daemon's configuration: `certs`, `tenants.toml` and the log are beside it."""
    return CONFIG.format(identity=identity, response=response, max_body=max_body, log=log) + more


class Files:
    """A configuration without a fault, in a folder. Nobody has changed its registry lately."""

    def __init__(self, folder: Path, certificates: Path) -> None:
        self.folder = folder
        self.config = folder / "koder-gateway.toml"
        self.config.write_text(configuration())
        self.tenants = folder / "tenants.toml"
        self.tenants.write_text(TENANTS)
        os.utime(self.tenants, (time.time() - 1000,) * 2)
        shutil.copytree(certificates, folder / "certs")

    def options(self, *words: str) -> Options:
        """The options of a command line with this configuration."""
        options = Options()
        options.parseOptions(["--config", str(self.config), *words])
        return options


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys take their time to be made, so they are made once."""
    return write_certificate(tmp_path_factory.mktemp("keys") / "certs", "id.koder.dev", "*.id.koder.dev").parent


@pytest.fixture
def files(certificates: Path, tmp_path: Path) -> Files:
    return Files(tmp_path, certificates)


@pytest.fixture(autouse=True)
def _process_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a daemon changes in its process is changed back. It hears no requests of other processes: most daemons
    here are never stopped, which would close the socket for these."""
    monkeypatch.setattr(Daemon, "_open_control", lambda daemon: None)
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    handlers = [signal.getsignal(number) for number in numbers]
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)
    resource.setrlimit(resource.RLIMIT_NOFILE, files)
    gc.unfreeze()


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What the gateway logs, with its level."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if str(event.get("log_namespace", "")).startswith("koder_gateway."):
            lines.append(f"{event['log_level'].name}: {formatEvent(event)}")

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


class DaemonReactor(MemoryReactorClock):
    """Time by hand, and what signal handlers ask for waits until `turn`, as does what is to be done in threads."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[Any, ...]] = []

    def callFromThread(self, call: Callable[..., object], *words: object) -> None:
        self.asked.append((call, *words))

    def getThreadPool(self) -> DaemonReactor:
        return self

    def callInThreadWithCallback(self, done: Callable[..., None], job: Callable[..., Any], *words: Any) -> None:
        def work() -> None:
            try:
                result = job(*words)
            except Exception:
                done(False, Failure())
            else:
                done(True, result)

        self.asked.append((work,))

    def turn(self) -> None:
        """Do what was asked for, and what threads ask for that read meanwhile."""
        while True:
            for thread in threading.enumerate():
                if thread.name == "reload":
                    thread.join()
            if not self.asked:
                return
            call, *words = self.asked.pop(0)
            call(*words)

    def begin(self) -> None:
        """Run, as far as those notice who wait for that."""
        hooks, self.whenRunningHooks = self.whenRunningHooks, []
        for call, words, names in hooks:
            call(*words, **names)


def told(capfd: pytest.CaptureFixture[str]) -> list[str]:
    """The lines on the real standard error."""
    return capfd.readouterr().err.splitlines()


# -- options


def test_options_of_a_whole_command_line() -> None:
    options = Options()
    options.parseOptions(
        ["--config", "a.toml", "--port", "ssl:443", "-p", "tcp:80", "--port=unix:/s", "--admin-port", "tcp:9090"]
    )
    assert options["config"] == "a.toml"
    assert options["ports"] == ["ssl:443", "tcp:80", "unix:/s"]
    assert (options["admin-port"], options["demo"]) == ("tcp:9090", 0)


def test_options_of_an_empty_one() -> None:
    options = Options()
    options.parseOptions([])
    assert (options["config"], options["ports"], options["admin-port"], options["demo"]) == (None, [], None, 0)
    another = Options()
    another.parseOptions(["--port", "tcp:1"])
    assert options["ports"] == [], "each command line has its own"


@pytest.mark.parametrize(
    "words",
    [["--nonsense"], ["--port"], ["stray"], ["--demo", "--config", "a.toml"], ["-c", "a.toml", "--demo"]],
)
def test_options_that_are_none(words: list[str]) -> None:
    with pytest.raises(UsageError):
        Options().parseOptions(words)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--admin-port", "tcp:1", "--admin-port=tcp:2"], "--admin-port is given twice, as tcp:1 and as tcp:2; "),
        (["-c", "a.toml", "--config", "a.toml"], "--config is given twice, as a.toml and as a.toml; "),
        (["--workers", "2", "-w", "3"], "--workers is given twice, as 2 and as 3; "),
    ],
)
def test_an_option_with_one_value_is_given_once(words: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        Options().parseOptions(words)


def test_a_demo_may_have_ports() -> None:
    options = Options()
    options.parseOptions(["--demo", "--port", "tcp:8080", "--admin-port", "tcp:9090"])
    assert (options["demo"], options["ports"], options["admin-port"]) == (1, ["tcp:8080"], "tcp:9090")


def test_what_a_daemon_does_not_use_takes_no_memory(tmp_path: Path) -> None:
    """The checks of a configuration without faults, the client of a registry behind a URL, and what these need."""
    (tmp_path / "gateway.toml").write_text('[log]\naccess = false\n[state]\ndir = "state"\n')
    program = (
        "import sys\nfrom koder_gateway.tap import Options, makeService\n"
        "options = Options()\noptions.parseOptions(['--config', 'gateway.toml', '--port', 'tcp:0'])\n"
        "makeService(options)\nprint(*sys.modules)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True)
    loaded = {name for name in ran.stdout.split() if not name.startswith("koder_gateway.")}
    assert not loaded & {"treq", "multipart", "twisted.internet.testing", "twisted.web.client", "doctest", "pdb"}
    assert "koder_gateway.checks" not in ran.stdout.split()


def chosen(before: str) -> list[str]:
    """What reactor a process has that runs `before`, then parses the plugin's options, then makes its service."""
    program = (
        f"import sys\n{before}\nfrom koder_gateway.tap import Options, makeService\n"
        "options = Options()\noptions.parseOptions(['--demo', '--port', 'tcp:80'])\n"
        "print('twisted.internet.reactor' in sys.modules)\n"
        "makeService(options)._folder.cleanup()\n"
        "from twisted.internet import reactor\nprint(type(reactor).__name__)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_the_reactor_is_ours_where_nobody_has_chosen() -> None:
    pytest.importorskip("uvloop")
    assert chosen("") == ["False", "UvloopReactor"]


def test_a_reactor_that_was_chosen_is_left_alone() -> None:
    """As twistd's --reactor does before it asks for the options."""
    install = "from twisted.internet.pollreactor import install\ninstall()"
    assert chosen(install) == ["True", "PollReactor"]


# -- faults that an operator can mend


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("one", ["koder-gateway: one"]),
        ("one\ntwo\n", ["koder-gateway: one", "koder-gateway: two"]),
        ("", []),
    ],
)
def test_failing_says_why_and_ends_with_1(text: str, lines: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        fail(text)
    assert ended.value.code == 1
    assert told(capfd) == lines


def test_failing_without_a_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "__stderr__", None)
    with pytest.raises(SystemExit) as ended:
        fail("nobody hears this")
    assert ended.value.code == 1


def refused(make: Callable[[], object], capfd: pytest.CaptureFixture[str]) -> list[str]:
    """What is said of a start that is refused."""
    with pytest.raises(SystemExit) as ended:
        make()
    assert ended.value.code == 1
    lines = told(capfd)
    assert all(line.startswith("koder-gateway: ") for line in lines), lines
    return [line.removeprefix("koder-gateway: ") for line in lines]


def test_every_fault_of_the_configuration(files: Files, capfd: pytest.CaptureFixture[str]) -> None:
    files.config.write_text('[timeouts]\nhead = "soon"\n[tenants]\nregistry = "missing.toml"\nrefresh = 1\n')
    lines = refused(lambda: makeService(files.options()), capfd)
    assert sorted(line.split(": ")[1] for line in lines) == ["tenants.refresh", "tenants.registry", "timeouts.head"]


def test_a_configuration_that_is_missing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = Options()
    options.parseOptions(["--config", str(tmp_path / "missing.toml")])
    (line,) = refused(lambda: makeService(options), capfd)
    assert line.startswith(f"{tmp_path / 'missing.toml'}: ")


def test_a_service_that_cannot_be_connected_to(files: Files, capfd: pytest.CaptureFixture[str]) -> None:
    (files.folder / "ca.pem").write_text("nothing\n")
    text = 'identity = { url = "https://a.example", ca = "ca.pem" }'
    files.config.write_text(re.sub("identity = .*", text, configuration()))
    (line,) = refused(lambda: makeService(files.options()), capfd)
    assert "services.identity: " in line
    assert "ca.pem: " in line


def test_a_log_that_cannot_be_opened(files: Files, capfd: pytest.CaptureFixture[str]) -> None:
    """A link to itself is found out by opening it."""
    (files.folder / "access.log").symlink_to(files.folder / "access.log")
    (line,) = refused(lambda: makeService(files.options()), capfd)
    assert line.startswith(f"{files.folder / 'access.log'}: the access log cannot be opened: ")


@pytest_twisted.ensureDeferred
async def test_ports_that_cannot_be_listened_on(files: Files, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        public = [LOOPBACK, f"tcp:{number}:interface=127.0.0.1", "nonsense:80"]
        admin = "ssl:0:interface=127.0.0.1:privateKey=/missing"
        words = [word for text in public for word in ("--port", text)]
        daemon = makeService(files.options(*words, "--admin-port", admin))
        lines = refused(daemon.privilegedStartService, capfd)
    assert [re.match(r'endpoint "([^"]*)": ', line)[1] for line in lines] == [*public[1:], admin]  # type: ignore[index]
    gateway: Any = daemon.getServiceNamed("koder-gateway")
    assert gateway.addresses == [], "the port that was free is given back"


# -- the daemon


def test_a_service_is_made_of_the_options(files: Files) -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 1, hard))
    daemon = makeService(files.options("--port", "tcp:8080"))
    assert type(daemon) is Daemon
    verifyObject(IService, daemon)
    gateway: Any = daemon.getServiceNamed("koder-gateway")
    assert gateway.settings.source == files.config
    assert gateway.settings.requests.max_body == 1024
    assert gateway.unready() == ["not started"]
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)


@pytest_twisted.ensureDeferred
async def test_a_service_without_ports_on_its_command_line_has_the_files(files: Files) -> None:
    files.config.write_text(configuration(more=f'[listen]\nport = "{LOOPBACK}"\n'))
    daemon = makeService(files.options())
    daemon.privilegedStartService()
    gateway: Any = daemon.getServiceNamed("koder-gateway")
    assert len(gateway.addresses) == 1
    await gateway.stopService()


def started(files: Files, ports: list[str] | None = None) -> tuple[Daemon, Any, DaemonReactor]:
    """A daemon that has been started in memory, its gateway and its reactor."""
    memory = DaemonReactor()
    daemon = Daemon(memory)
    gateway = daemon.add(load(files.config), ["tcp:8080"] if ports is None else ports, None)
    daemon.privilegedStartService()
    daemon.startService()
    return daemon, gateway, memory


def test_the_ports_of_the_command_line_win_over_the_files(files: Files) -> None:
    def listening(ports: list[str] | None, admin: str | None) -> list[int]:
        memory = DaemonReactor()
        daemon = Daemon(memory)
        daemon.add(load(files.config), ports, admin)
        daemon.privilegedStartService()
        return [server[0] for server in memory.tcpServers]

    files.config.write_text(configuration(more='[listen]\nport = "tcp:1000"\nadmin_port = "tcp:1001"\n'))
    assert listening(None, None) == [1000, 1001]
    assert listening(["tcp:80", "tcp:81"], "tcp:82") == [80, 81, 82]
    assert listening(["tcp:80"], None) == [80, 1001]
    assert listening(None, "") == [1000]


def test_ports_are_bound_while_the_process_may(files: Files) -> None:
    memory = DaemonReactor()
    daemon = Daemon(memory)
    gateway = daemon.add(load(files.config), ["tcp:80", "ssl:443"], "tcp:9090")
    assert memory.tcpServers == []
    daemon.privilegedStartService()
    assert [server[0] for server in memory.tcpServers] == [80, 443, 9090]
    daemon.startService()
    assert len(memory.tcpServers) == 3
    assert gateway.unready() == []
    daemon.stopService()


def test_signals_are_taken_once_the_reactor_runs(files: Files) -> None:
    """Before that, the reactor's own would take their place."""

    def before(number: int, frame: object) -> None:
        """Somebody's, such as a reactor's that has run in this process already. Default ones are held: see Held."""

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    for number in numbers:
        signal.signal(number, before)
    daemon, _gateway, memory = started(files)
    assert {signal.getsignal(number) for number in numbers} == {before}
    memory.begin()
    handlers = [signal.getsignal(number) for number in numbers]
    assert before not in handlers
    assert all(map(callable, handlers))
    daemon.stopService()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_once_it_ends_in_order_and_asked_twice_at_once(number: int, files: Files) -> None:
    daemon, _gateway, memory = started(files)
    memory.begin()
    os.kill(os.getpid(), number)
    assert not memory.hasStopped, "not within the handler, which may interrupt anything"
    memory.turn()
    assert memory.hasStopped
    os.kill(os.getpid(), signal.SIGTERM)
    ((end, *words),) = memory.asked
    memory.asked.clear()
    end(*words)
    assert memory.asked == [(os._exit, 1)]
    memory.asked.clear()
    daemon.stopService()


def test_sighup_reloads(files: Files, log: list[str]) -> None:
    daemon, gateway, memory = started(files)
    memory.begin()
    files.config.write_text(configuration(max_body="2KiB"))
    os.kill(os.getpid(), signal.SIGHUP)
    assert gateway.settings.requests.max_body == 1024, "not within the handler"
    memory.turn()
    assert gateway.settings.requests.max_body == 2048
    files.config.write_text("nonsense = 1\n")
    os.kill(os.getpid(), signal.SIGHUP)
    memory.turn()
    assert gateway.settings.requests.max_body == 2048
    assert [line for line in log if line.startswith("error: reload refused, nothing has changed: ")]
    assert not memory.hasStopped
    daemon.stopService()


HALF = '[[tenant]]\nslug = "koder"\n'
WHOLE = HALF + 'status = "suspended"\n'


def test_sighup_in_the_midst_of_writing_switches_no_tenant_on(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when logs are rotated just then."""
    files.tenants.write_text(WHOLE)
    daemon, gateway, memory = started(files)
    memory.begin()
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 1:
            files.tenants.write_text(WHOLE)

    monkeypatch.setattr("koder_gateway.service.gateway._wait", wait)
    files.tenants.write_text(HALF)
    files.config.write_text(configuration(max_body="2KiB"))
    os.kill(os.getpid(), signal.SIGHUP)
    memory.turn()
    assert gateway.settings.requests.max_body == 2048
    assert [tenant.status for tenant in gateway.resource.policy.registry] == ["suspended"]
    assert waited
    waited.clear()
    os.kill(os.getpid(), signal.SIGHUP)
    memory.turn()
    assert gateway.counters.reloads_ok == 2
    assert not waited, "what is in force needs no second look"
    daemon.stopService()


def test_a_registry_that_a_reload_names_is_looked_at_twice(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon, gateway, _memory = started(files)
    other = files.tenants.with_name("other.toml")
    other.write_text(HALF)
    steps = [lambda: other.write_text(WHOLE), lambda: None]
    monkeypatch.setattr("koder_gateway.service.gateway._wait", lambda seconds: steps.pop(0)())
    files.config.write_text(configuration().replace(files.tenants.name, other.name))
    assert gateway.reload()
    assert [tenant.status for tenant in gateway.resource.policy.registry] == ["suspended"]
    daemon.stopService()


def test_a_second_sighup_during_a_reload_is_one_more(files: Files, log: list[str]) -> None:
    daemon, gateway, memory = started(files)
    memory.begin()
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGHUP)
    asked = len(memory.asked)
    for _ in range(asked):
        call, *words = memory.asked.pop(0)
        call(*words)
    files.config.write_text(configuration(max_body="2KiB"))
    memory.turn()
    assert gateway.counters.reloads_ok == 2, "of those that came while it was under way, one"
    assert gateway.settings.requests.max_body == 2048
    daemon.stopService()


def test_sighup_before_anybody_serves_is_a_reload_once_somebody_does(files: Files, log: list[str]) -> None:
    options = files.options()
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGHUP)
    memory = DaemonReactor()
    daemon = Daemon(memory)
    gateway = daemon.add(load(files.config), ["tcp:8080"], None)
    daemon.privilegedStartService()
    daemon.startService()
    assert options["config"] == str(files.config)
    memory.turn()
    assert gateway.counters.reloads_ok == 0
    memory.begin()
    memory.turn()
    assert gateway.counters.reloads_ok == 1
    daemon.stopService()


# -- the demo


def test_a_demo_is_made_of_the_options() -> None:
    options = Options()
    options.parseOptions(["--demo"])
    demo = makeService(options)
    assert type(demo) is Demo
    demo.privilegedStartService()
    assert list(demo) == [], "nothing is bound before the services are there"
    demo._folder.cleanup()


def test_a_demo_that_is_not_up_yet_has_nothing_to_reload() -> None:
    memory = DaemonReactor()
    demo = Demo(memory, [LOOPBACK], None)
    memory.callWhenRunning(demo._take_signals)
    memory.begin()
    os.kill(os.getpid(), signal.SIGHUP)
    assert len(memory.asked) == 1, "the signal has been taken"
    memory.turn()
    assert (list(demo), memory.asked) == ([], [])
    demo._folder.cleanup()


async def get(url: str, host: str) -> tuple[int, Any]:
    """The status and the JSON of an answer."""
    response = await treq.get(url, headers={"Host": host}, persistent=False)
    return response.code, await response.json()


@pytest_twisted.ensureDeferred
async def test_the_demo_serves_and_leaves_nothing_behind(capfd: pytest.CaptureFixture[str]) -> None:
    demo = Demo(reactor, [LOOPBACK], LOOPBACK)
    folder = Path(demo._folder.name)
    assert folder.is_dir()
    demo.privilegedStartService()
    demo.startService()
    await eventually(lambda: "koder-gateway" in demo.namedServices, "the gateway is there")
    gateway: Any = demo.getServiceNamed("koder-gateway")
    public, admin = (address.port for address in gateway.addresses)
    first, *rest = capfd.readouterr().out.splitlines()
    assert first == "The demo is up. Try:"
    assert [line for line in rest if f"http://acme.id.localhost:{public}/v1/users" in line]
    url = f"http://127.0.0.1:{public}/v1/users"
    status, answer = await get(url, "acme.id.localhost")
    assert (status, answer["service"], answer["tenant"]) == (200, "identity", "acme")
    assert (await get(url, "closed.id.localhost"))[1]["code"] == "tenant_suspended"
    assert (await get(url, "nobody.id.localhost"))[1]["code"] == "unknown_tenant"
    assert (await get(url, f"127.0.0.1:{public}"))[1]["code"] == "tenant_required"
    ready = await treq.get(f"http://127.0.0.1:{admin}/readyz", persistent=False)
    assert (ready.code, await ready.text()) == (200, "ready\n")
    await demo.stopService()
    assert not folder.exists()
    assert not any(listens(number) for number in (public, admin))


def listens(number: int) -> bool:
    with socket.socket() as client:
        client.settimeout(5)
        return client.connect_ex(("127.0.0.1", number)) == 0


# -- the gateway as a service


class Echo(Resource):
    """A mounted resource that says whose it is."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        tenant: bytes = request.getHeader(b"x-tenant-id")
        return b'{"tenant":"%b"}' % tenant


class Asking(Resource):
    """A mounted resource that says what it may ask of a request."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        return json.dumps(asdict(mounted_request(request))).encode()


@pytest_twisted.ensureDeferred
async def test_a_mounted_resource_may_ask_whose_a_request_is(files: Files) -> None:
    ports = {"ports": [LOOPBACK], "redirect_ports": [LOOPBACK], "admin_port": LOOPBACK}
    gateway = Gateway(load(files.config), mounts={"/hello": Asking()}, **ports)  # type: ignore[arg-type]
    gateway.startService()
    site = await ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Site(gateway.resource, timeout=None))
    try:
        addresses = gateway.addresses
        kinds = (addresses.ports, addresses.redirect_ports, addresses.admin_ports)
        assert [*map(len, kinds)] == [1, 1, 1]
        assert list(addresses) == [address for kind in kinds for address in kind]
        for port in (addresses.ports[0].port, site.getHost().port):
            answer = await treq.get(
                f"http://127.0.0.1:{port}/hello",
                headers={"Host": "acme.id.koder.dev", "X-Request-ID": "0123456789abcdef"},
                persistent=False,
            )
            assert await answer.json() == {
                "tenant": "acme",
                "client": "127.0.0.1",
                "request_id": "0123456789abcdef",
            }
    finally:
        await site.stopListening()
        await gateway.stopService()
    with pytest.raises(TypeError, match="came by no gateway"):
        mounted_request(object())


@pytest.mark.parametrize("path", ["hello", "", "/a/../b", "/a?b", "/\xe9", "/%2e", "/\ud800"])
def test_a_mount_s_path_is_checked_as_a_route_s_is(files: Files, path: str) -> None:
    with pytest.raises(ValueError, match=r"^mounts: .* can match no request"):
        Gateway(load(files.config), ports=[], mounts={path: Echo()})


@pytest.mark.parametrize("other", ["/%61", "/%61/", "/a/", "/%61%2D"])
def test_no_path_is_mounted_twice(files: Files, other: str) -> None:
    """The last of them would win, and nobody would know."""
    plain = "/a-" if "%2D" in other else "/a"
    for paths in ((other, "/b", plain), (plain, "/b", other)):
        with pytest.raises(ValueError, match=r"^mounts: ") as raised:
            Gateway(load(files.config), ports=[], mounts={path: Echo() for path in paths})
        assert str(raised.value) == (
            f'mounts: "{paths[2]}" is the same path as "{paths[0]}"; write another, or leave one out'
        )


@pytest.mark.parametrize("name", ["ports", "redirect_ports"])
def test_one_string_is_no_list_of_ports(files: Files, name: str) -> None:
    options: Any = {name: "ssl:443"}
    with pytest.raises(TypeError, match=rf"^{name} takes a list; write {name}=\['ssl:443'\]$"):
        Gateway(load(files.config), **options)


NO_ADMIN_PORT = 'is not an endpoint string; write one, as in admin_port="tcp:9100:interface=127.0.0.1"'


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ports": [443]}, 'ports: 443 is not an endpoint string; write strings, as in ports=["ssl:443"]'),
        (
            {"ports": [b"ssl:443"]},
            "ports: b'ssl:443' is not an endpoint string; write strings, as in ports=[\"ssl:443\"]",
        ),
        (
            {"ports": b"ssl:443"},
            "ports: b'ssl:443' is not a list of endpoint strings; write one, as in ports=[\"ssl:443\"]",
        ),
        ({"ports": 443}, 'ports: 443 is not a list of endpoint strings; write one, as in ports=["ssl:443"]'),
        (
            {"ports": {"ssl": 443}},
            'ports: dict is not a list of endpoint strings; write one, as in ports=["ssl:443"]',
        ),
        (
            {"redirect_ports": [None]},
            'redirect_ports: None is not an endpoint string; write strings, as in redirect_ports=["tcp:8080"]',
        ),
        ({"admin_port": 9100}, f"admin_port: 9100 {NO_ADMIN_PORT}"),
        ({"admin_port": b"tcp:9100"}, f"admin_port: b'tcp:9100' {NO_ADMIN_PORT}"),
        ({"admin_port": ["tcp:9100"]}, f"admin_port: list {NO_ADMIN_PORT}"),
        (
            {"mounts": {"/hello": object()}},
            "mounts: object is not a resource; write an instance of a class that derives from Resource",
        ),
        (
            {"mounts": {"/hello": None}},
            "mounts: None is not a resource; write an instance of a class that derives from Resource",
        ),
        ({"mounts": {"/hello": Echo}}, "mounts: Echo is a class; write an instance of it, Echo()"),
        ({"mounts": {b"/hello": Echo()}}, "mounts: b'/hello' is not a path; write a string, as in \"/hello\""),
        ({"mounts": {7: Echo()}}, 'mounts: 7 is not a path; write a string, as in "/hello"'),
        ({"mounts": [Echo()]}, 'mounts: list is not a dict of resources; write one, as in {"/hello": Hello()}'),
        ({"mounts": []}, 'mounts: list is not a dict of resources; write one, as in {"/hello": Hello()}'),
        ({"settings": "a.toml"}, "settings: 'a.toml' is not a Settings object; write load('a.toml')"),
        (
            {"settings": Settings},
            ("settings: the class Settings is not a Settings object; write load('koder-gateway.toml')"),
        ),
    ],
    ids=lambda value: re.sub(" at 0x[0-9a-f]+", "", repr(value)),
)
def test_an_argument_of_another_kind_says_what_to_write(files: Files, options: dict[str, Any], says: str) -> None:
    with pytest.raises(TypeError) as raised:
        Gateway(**{"settings": load(files.config), "ports": [], **options})
    assert str(raised.value) == says


def test_each_wrong_argument_has_its_line(files: Files) -> None:
    with pytest.raises(TypeError) as raised:
        Gateway(load(files.config), ports=[], mounts={b"/a": Echo, "/b": 1})  # type: ignore[dict-item]
    assert str(raised.value).splitlines() == [
        "mounts: b'/a' is not a path; write a string, as in \"/a\"",
        "mounts: Echo is a class; write an instance of it, Echo()",
        "mounts: 1 is not a resource; write an instance of a class that derives from Resource",
    ]


def test_whatever_gives_endpoint_strings_gives_ports(files: Files) -> None:
    for ports in ([LOOPBACK], (LOOPBACK,), iter([LOOPBACK]), {LOOPBACK}):
        gateway: Any = Gateway(load(files.config), ports=ports)  # type: ignore[arg-type]
        assert gateway._ports.public == (LOOPBACK,)


def embedded(files: Files, **options: Any) -> Gateway:
    return Gateway(load(files.config), ports=[LOOPBACK], mounts={"/hello": Echo()}, **options)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("privileged", [True, False])
async def test_it_lives_and_ends_with_its_parent(files: Files, privileged: bool) -> None:
    parent = MultiService()
    gateway = embedded(files)
    verifyObject(IService, gateway)
    gateway.setServiceParent(parent)
    assert parent.getServiceNamed("koder-gateway") is gateway
    assert (gateway.running, gateway.addresses) == (0, [])
    if privileged:
        parent.privilegedStartService()
        assert (gateway.running, len(gateway.addresses)) == (0, 1)
    parent.startService()
    assert (gateway.running, gateway.unready()) == (1, [])
    (address,) = gateway.addresses
    url = f"http://127.0.0.1:{address.port}/hello"
    assert await get(url, "acme.id.koder.dev") == (200, {"tenant": "acme"})
    assert (await get(url, "nobody.id.koder.dev"))[0] == 404
    await parent.stopService()
    assert (gateway.running, gateway.addresses) == (0, [])
    assert not listens(address.port)
    assert gateway.unready() == ["draining"]


@pytest_twisted.ensureDeferred
async def test_a_parent_that_runs_starts_it_and_disowning_stops_it(files: Files) -> None:
    parent = MultiService()
    parent.startService()
    gateway = embedded(files)
    gateway.setServiceParent(parent)
    (address,) = gateway.addresses
    assert (await get(f"http://127.0.0.1:{address.port}/hello", "acme.id.koder.dev"))[0] == 200
    await gateway.disownServiceParent()
    assert list(parent) == []
    assert not listens(address.port)
    await parent.stopService()


@pytest_twisted.ensureDeferred
async def test_two_gateways_of_one_parent(files: Files) -> None:
    """The second needs another name, as any service does."""
    parent = MultiService()
    one, other = embedded(files), embedded(files)
    other.setName("another")
    one.setServiceParent(parent)
    other.setServiceParent(parent)
    parent.startService()
    for gateway in (one, other):
        (address,) = gateway.addresses
        assert (await get(f"http://127.0.0.1:{address.port}/hello", "acme.id.koder.dev"))[0] == 200
    pages = [parse_metrics(gateway.metrics().decode()) for gateway in (one, other)]
    assert [page["koder_gateway_connections_total"] for page in pages] == [1, 1], "each counts its own"
    await parent.stopService()


def test_a_gateway_that_was_never_started_can_be_stopped(files: Files) -> None:
    memory = MemoryReactorClock()
    ended: list[object] = []
    Gateway(load(files.config), ports=[], reactor=memory).stopService().addCallback(ended.append)
    memory.advance(0)
    assert ended == [None]
    assert memory.getDelayedCalls() == []


def test_asked_twice_to_stop_it_ends_for_both(files: Files) -> None:
    gateway = Gateway(load(files.config), ports=[], reactor=MemoryReactorClock())
    gateway.startService()
    ended: list[object] = []
    stopping = gateway.stopService()
    again = gateway.stopService()
    for deferred in (stopping, again):
        deferred.addCallback(ended.append)
    gateway._reactor.advance(0)
    assert ended == [None, None]


@pytest_twisted.ensureDeferred
async def test_a_start_that_fails_can_be_seen_by_an_embedder(files: Files) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        gateway = Gateway(load(files.config), ports=[LOOPBACK, text, "nonsense:1"])
        with pytest.raises(StartError) as refused:
            gateway.startService()
    assert [line.split(": ")[0] for line in str(refused.value).splitlines()] == [
        f'endpoint "{text}"',
        'endpoint "nonsense:1"',
    ]
    assert (gateway.running, gateway.addresses) == (0, [])


# -- what a reload that is refused leaves


class Living:
    """A gateway in memory that has been bound, and what can be seen of it."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.memory = MemoryReactorClock()
        self.gateway = Gateway(load(files.config), ports=["ssl:8443"], reactor=self.memory, clock=self.memory.seconds)
        self.gateway.privilegedStartService()

    def spend(self, tenant: bytes = b"koder") -> bool:
        """Spend a token of the limit; whether there was one."""
        limiter = self.gateway.composition.policy.limiter
        return limiter.admit(tenant, b"a", b"GET", b"/v1/users", 0.0).refused is None

    def seen(self) -> dict[str, object]:
        """Everything that a reload would change."""
        gateway = self.gateway
        composition, site, resource = gateway.composition, gateway.site, gateway.resource
        page = parse_metrics(gateway.metrics().decode())
        return {
            "settings": gateway.settings,
            "composition": composition,
            "site": (site.resource, site.policy, site.reader, site.timeouts, site.max_head, site.max_connections),
            "entrance": (resource.inner, resource.policy, resource.reader),
            "services": {
                name: (service, service.reader, service.response_timeout, service.idle_timeout)
                for name, service in composition.services.items()
            },
            "buckets": [(meter.buckets, meter.admitted) for meter in composition.policy.limiter.meters],
            "certificates": {name: value for name, value in page.items() if "certificate_expiry" in name},
            "tenants": (page["koder_gateway_tenants"], len(composition.policy.registry)),
            "reloads": page['koder_gateway_reloads_total{result="ok"}'],
            "logs": sorted(holders(self.files.folder)),
        }

    @property
    def failed(self) -> float:
        return self.gateway.counters.reloads_failed


def holders(folder: Path) -> list[str]:
    """The files in the folder that this process has open."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if path.startswith(f"{folder}/"):
            found.append(path.removeprefix(f"{folder}/"))
    return found


@pytest.fixture
def living(files: Files) -> Iterator[Living]:
    made = Living(files)
    yield made
    made.gateway.stopService()
    made.memory.advance(0)


CHANGED = {"identity": 5001, "response": "5s", "max_body": "7KiB", "log": "another.log"}
MORE = (
    '[limits_store]\nmax_entries = 70\n[cors]\norigins = ["https://app.example.com"]\n'
    '[listen]\nmax_connections = 7\n[[limits]]\nname = "fewer"\nkey = ["ip"]\nrate = "1/h"\n'
)


def bad_configuration(files: Files) -> None:
    files.config.write_text(configuration(**CHANGED, more=MORE + 'nonsense = 1\n[timeout]\nhead = "1s"\n'))


def no_configuration(files: Files) -> None:
    files.config.unlink()


def bad_registry(files: Files) -> None:
    files.config.write_text(configuration(**CHANGED, more=MORE))
    files.tenants.write_text('[[tenant]]\nslug = "UP"\n')


def bad_log(files: Files) -> None:
    """A folder is no log; that it is one is seen when it is opened, if not before."""
    (files.folder / "another.log").mkdir()
    files.config.write_text(configuration(**CHANGED, more=MORE))


def log_that_cannot_be_opened(files: Files) -> None:
    """A link to itself is found out by opening it."""
    (files.folder / "another.log").symlink_to(files.folder / "another.log")
    files.config.write_text(configuration(**CHANGED, more=MORE))


def bad_service(files: Files) -> None:
    (files.folder / "ca.pem").write_text("nothing\n")
    text = configuration(**CHANGED, more=MORE)
    files.config.write_text(re.sub("identity = .*", 'identity = { url = "https://a.example", ca = "ca.pem" }', text))


FAULTS = [
    bad_configuration,
    no_configuration,
    bad_registry,
    bad_log,
    log_that_cannot_be_opened,
    bad_service,
]


@pytest.mark.parametrize("spoil", FAULTS)
def test_a_reload_that_is_refused_leaves_everything(
    spoil: Callable[[Files], None], files: Files, living: Living, log: list[str]
) -> None:
    assert living.spend()
    before = living.seen()
    spoil(files)
    assert living.gateway.reload() is False
    assert living.seen() == before
    assert living.failed == 1
    errors = [line for line in log if line.startswith("error: ")]
    assert errors
    assert all(line.startswith("error: reload refused, nothing has changed: ") for line in errors)
    assert living.gateway.reload() is False
    assert living.seen() == before
    assert living.spend()
    assert not living.spend(), "the bucket goes on where it was"


def test_a_reload_changes_everything_at_once(files: Files, living: Living, log: list[str]) -> None:
    gateway = living.gateway
    before = living.seen()
    assert living.spend()
    kept = gateway.composition.services["auth"]
    replaced = gateway.composition.services["identity"]
    files.config.write_text(configuration(**CHANGED, more=MORE))
    files.tenants.write_text(TENANTS + '[[tenant]]\nslug = "globex"\n')
    write_certificate(files.folder / "certs", "other.example").rename(files.folder / "certs" / "other.pem")
    assert gateway.reload() is True
    after = living.seen()
    assert [name for name in after if after[name] == before[name]] == []
    assert gateway.settings.requests.max_body == 7168
    assert gateway.composition.services["auth"] is kept
    assert kept.response_timeout == 5.0
    assert gateway.composition.services["identity"] is not replaced
    assert gateway.site.policy is gateway.resource.policy is gateway.composition.policy
    assert gateway.site.max_connections == 7
    assert after["tenants"] == (3, 3)
    assert after["logs"] == ["another.log"]
    assert [line for line in log if line.startswith("error")] == []
    assert living.spend()
    assert not living.spend(), "the bucket goes on where it was"


def bad_certificate(files: Files) -> None:
    files.config.write_text(configuration(**CHANGED, more=MORE))
    write_certificate(files.folder / "certs", "good.example").rename(files.folder / "certs" / "good.pem")
    (files.folder / "certs" / "bad.pem").write_text("nonsense\n")


def no_certificate(files: Files) -> None:
    files.config.write_text(configuration(**CHANGED, more=MORE))
    shutil.rmtree(files.folder / "certs")
    (files.folder / "certs").mkdir()


@pytest.mark.parametrize(
    ("spoil", "served", "says"),
    [
        (bad_certificate, "good", "bad.pem: no certificate in it"),
        (no_certificate, "default", "certs: no certificate in it"),
    ],
)
def test_a_reload_takes_everything_but_a_broken_certificate(
    spoil: Callable[[Files], None], served: str, says: str, files: Files, living: Living, log: list[str]
) -> None:
    spoil(files)
    assert living.gateway.reload() is True
    assert living.gateway.settings.requests.max_body == 7168
    page = parse_metrics(living.gateway.metrics().decode())
    assert page["koder_gateway_certificate_faults"] == 1
    expiring = [name for name in page if "certificate_expiry" in name]
    assert expiring == [f'koder_gateway_certificate_expiry_timestamp_seconds{{certificate="{served}"}}']
    (error,) = [line for line in log if line.startswith("error: ")]
    assert says in error


def test_after_a_refused_reload_a_good_one_is_taken(files: Files, living: Living) -> None:
    bad_service(files)
    assert not living.gateway.reload()
    (files.folder / "ca.pem").unlink()
    files.config.write_text(configuration(**CHANGED, more=MORE))
    assert living.gateway.reload()
    assert living.gateway.settings.requests.max_body == 7168
    assert holders(files.folder) == ["another.log"]
    assert (living.failed, living.gateway.counters.reloads_ok) == (1, 1)


def test_systemd_hears_the_end_of_every_reload(files: Files, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A reload that never becomes ready again hangs `systemctl reload`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        living = Living(files)

        def messages() -> list[str]:
            found = []
            try:
                while True:
                    found.append(systemd.recv(4096).decode().partition("\n")[0])
            except BlockingIOError:
                return found

        assert messages() == []
        assert living.gateway.reload()
        assert messages() == ["RELOADING=1", "READY=1"]
        for spoil in (bad_service, bad_registry, no_configuration):
            spoil(files)
            assert not living.gateway.reload()
            assert messages() == ["RELOADING=1", "READY=1"]
        living.gateway.stopService()
        living.memory.advance(0)


# -- the registry beside it


@pytest_twisted.ensureDeferred
async def test_a_change_of_the_registry_while_it_starts_is_not_lost(files: Files) -> None:
    """Between the reading of the settings and the first look at the file a minute may pass."""
    settings = load(files.config)
    files.tenants.write_text(TENANTS + '[[tenant]]\nslug = "globex"\n')
    gateway = Gateway(settings, ports=[])
    assert gateway.counters.tenants == 2
    gateway.startService()
    await eventually(lambda: gateway.counters.tenants != 2, "the registry is read again")
    assert gateway.counters.tenants == 3
    assert gateway.resource.policy.registry.find(b"globex") is not None
    await gateway.stopService()


def test_a_registry_that_is_read_again_by_a_reload_without_a_file(files: Files) -> None:
    """Settings of an embedder's own making have no file to be read again, but their registry has."""
    settings = replace(load(files.config), source=None)
    memory = MemoryReactorClock()
    gateway = Gateway(settings, ports=[], reactor=memory)
    files.tenants.write_text(TENANTS + '[[tenant]]\nslug = "globex"\n')
    assert gateway.reload()
    assert gateway.counters.tenants == 3
    files.tenants.write_text("nonsense = 1\n")
    assert not gateway.reload()
    assert gateway.counters.tenants == 3
    gateway.stopService()
    memory.advance(0)


@pytest_twisted.ensureDeferred
async def test_the_tree_in_a_site_of_somebody_elses(files: Files) -> None:
    """A reload reaches it there too."""
    gateway = Gateway(load(files.config), ports=[], mounts={"/hello": Echo()})
    gateway.startService()
    port = reactor.listenTCP(0, Site(gateway.resource, timeout=None), interface="127.0.0.1")  # type: ignore[attr-defined]
    url = f"http://127.0.0.1:{port.getHost().port}/hello"
    assert (await get(url, "globex.id.koder.dev"))[0] == 404
    files.tenants.write_text(TENANTS + '[[tenant]]\nslug = "globex"\n')
    assert gateway.reload()
    assert await get(url, "globex.id.koder.dev") == (200, {"tenant": "globex"})
    await port.stopListening()
    await gateway.stopService()
