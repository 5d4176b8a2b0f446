"""What the documentation says and shows: examples and snippets are run, tables are held to the code."""

from __future__ import annotations

import ast
import contextlib
import functools
import http.client
import importlib
import inspect
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import treq
import yaml
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.web.resource import Resource
from twisted.web.server import Site

import koder_gateway
from koder_gateway import Gateway, errors, load
from koder_gateway.config import parse_size, schema
from koder_gateway.demo import curl_lines
from koder_gateway.errors import Refusal
from koder_gateway.exchange.context import request_context
from koder_gateway.exchange.states import ANSWERS, CLIENT_GONE, CUT, EVENTS, HELD, MOVES, Exchange
from koder_gateway.ops.access_lines import JsonLines
from koder_gateway.ops.access_log import AccessLog
from koder_gateway.ops.acme_metrics import AcmeCollector, AcmeFigures
from koder_gateway.ops.address_metrics import AddressCollector, AddressUse
from koder_gateway.ops.counters import Counters
from koder_gateway.ops.metric_sources import Sources, SpanFigures, StoreFigures
from koder_gateway.ops.metrics import GatewayCollector
from koder_gateway.tls.handshake_failures import TOLD
from koder_gateway.tree.compose import make_policy
from koder_gateway.wire.request_head import RequestHead
from koder_gateway.workers.metrics_sum import read_snapshot
from koder_gateway.workers.totals import Totals
from tests.house.test_floors import FLOORS, PURE
from tests.kit.authority import write_certificate
from tests.kit.exchanges import count
from tests.kit.gateways import kill_quietly, tool
from tests.kit.services import Origin, Peer, answer
from tests.kit.waiting import PATIENCE, until

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (DOCS / "architecture.md").read_text()
OPERATIONS = (DOCS / "operations.md").read_text()
EMBEDDING = (DOCS / "embedding.md").read_text()
HOST = "acme.id.example.com"
ANY_PORT = "0:interface=127.0.0.1"

_STARTED = re.compile(r" starting on ([0-9]+)")
_CODE = re.compile(r"`([^`]+)`")


# -- reading the documentation


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(text: str) -> dict[str, str]:
    """The commands of the console blocks, each with the output that is shown for it."""
    found: dict[str, str] = {}
    command = ""
    for line in "".join(blocks(text, "console")).splitlines(keepends=True):
        if line.startswith("$ "):
            command = line[2:].rstrip("\n")
            found[command] = ""
        else:
            found[command] += line
    return found


def table(text: str, first: str) -> list[list[str]]:
    """The cells of the rows of the table whose head begins with the cell `first`; a `|` in a cell is not used."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith(f"| {first} |"):
            next(lines)
            rows = itertools.takewhile(lambda row: row.startswith("|"), lines)
            return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    raise AssertionError(f"there is no table that begins with {first}")


def names(cell: str) -> list[str]:
    """What a cell has in code."""
    return _CODE.findall(cell)


# -- running what it shows


def environment(folder: Path) -> dict[str, str]:
    """This process's environment, with the commands of its Python first and a state folder of its own."""
    path = f"{Path(tool('python')).parent}:{os.environ.get('PATH', '')}"
    kept = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "STATE_DIRECTORY": str(folder / "state")}


class Running:
    """A process of a command line; `ports` are those that it has said to listen on."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace")

    @property
    def ports(self) -> list[int]:
        """In the order of starting; twistd's log may say each twice."""
        return list(dict.fromkeys(map(int, _STARTED.findall(self.log()))))

    def has_written(self, text: str) -> bool:
        """Whether it has written this; fails when it has ended without."""
        log = self.log()
        assert text in log or self.process.poll() is None, log
        return text in log


@contextlib.contextmanager
def running(folder: Path, line: str, ready: str) -> Iterator[Running]:
    """Run a shell's line, let it write `ready`, and stop it by SIGTERM at the end: in order, without a traceback."""
    path = folder / "log"
    with path.open("wb") as log:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {line}"],
            cwd=folder,
            env=environment(folder),
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
    try:
        there = Running(process, path)
        until(lambda: there.has_written(ready), f"{line}: {ready}")
        yield there
        process.send_signal(signal.SIGTERM)
        # Twisted's own reactors let the process end by the signal itself.
        assert process.wait(PATIENCE) in (0, -signal.SIGTERM), there.log()
        assert "Traceback" not in there.log()
    finally:
        kill_quietly(process)


Answer = tuple[int, Mapping[str, str], bytes]


def ask(port: int, path: str, host: str = HOST, body: bytes | None = None) -> Answer:
    """One request on a connection of its own."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.request("GET" if body is None else "POST", path, body, {"Host": host})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def code(answered: Answer) -> object:
    """The code of a problem."""
    return json.loads(answered[2])["code"]


# -- the embedding example


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[Origin, list[tuple[str | None, bytes]]]]:
    """A service, and the tenant and body of each request that it has got."""
    received: list[tuple[str | None, bytes]] = []

    def play(peer: Peer, number: int) -> None:
        while (head := peer.head()) is not None:
            received.append((head.get("X-Tenant-ID"), peer.body(head)))
            peer.send(answer(b"from the service"))

    with Origin(play) as origin:
        yield origin, received


@pytest.fixture(scope="module")
def application(service: tuple[Origin, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The example, run as its first line says, but on free ports and with a service behind it."""
    folder = tmp_path_factory.mktemp("embedding")
    copy = shutil.copytree(DOCS / "examples", folder / "docs" / "examples")
    script = copy / "embedding.py"
    text = script.read_text()
    for port in ("8080", "8081"):
        assert f'"tcp:{port}:' in text
        text = text.replace(f'"tcp:{port}:', '"tcp:0:')
    script.write_text(text)
    with (copy / "embedding.toml").open("a") as configuration:
        configuration.write(f'\n[services]\nidentity = "{service[0].url}"\n')
    (line,) = [line for line in text.splitlines() if line.startswith("twistd ")]
    with running(folder, line, "serves on no port of its own") as there:
        assert len(there.ports) == 2
        yield there


BOTH = pytest.mark.parametrize("which", [0, 1], ids=["on a port of its own", "in a stock site"])


@BOTH
def test_the_examples_resource_answers_behind_tenants_and_limits(application: Running, which: int) -> None:
    status, fields, body = ask(application.ports[which], "/status")
    assert status == 200
    answered = json.loads(body)
    assert (answered["tenant"], answered["client"]) == ("acme", "127.0.0.1")
    assert answered["seconds"] >= 0
    assert fields["ratelimit-policy"] == '"traffic";q=50;w=1'
    assert re.fullmatch("[0-9a-f]{32}", fields["x-request-id"])
    refused = ask(application.ports[which], "/status", host="acme.example.org")
    assert (refused[0], code(refused)) == (421, "misdirected_request")
    assert any(ask(application.ports[which], "/status")[0] == 429 for _ in range(5000))


@BOTH
def test_the_examples_service_is_reached(
    application: Running, service: tuple[Origin, list[tuple[str | None, bytes]]], which: int
) -> None:
    port = application.ports[which]
    posted = until(lambda: next((got for got in [ask(port, "/v1/users", body=b"a=b")] if got[0] != 429), None), "200")
    assert (posted[0], posted[2]) == (200, b"from the service")
    assert service[1][-1] == ("acme", b"a=b")


def test_the_example_names_the_ports_that_its_curl_lines_ask() -> None:
    text = (DOCS / "examples" / "embedding.py").read_text()
    asked = re.findall(r"^curl .*http://127\.0\.0\.1:([0-9]+)/", text, re.MULTILINE)
    assert asked == re.findall(r'"tcp:([0-9]+):', text)
    assert f"'Host: {HOST}'" in text


# -- README


TARGETS = [line.removeprefix("make ") for line in commands(README) if line.startswith("make ")]
TOOLS = [line for line in commands(README) if line.startswith("koder-gateway ")]
CURLS = [line for line in commands(README) if line.startswith("curl ")]
DAEMONS = [line for line in commands(README) if line.startswith("twistd ")]
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def recipe(target: str) -> list[str]:
    """The lines that make would run."""
    # Under `make test` a make below it would say where it is.
    command = ["make", "-n", "--no-print-directory", target]
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(command, cwd=ROOT, env=outside, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_snippet_of_the_readme_is_run_here() -> None:
    tried = [*(f"make {target}" for target in TARGETS), *TOOLS, *CURLS, *DAEMONS]
    assert sorted(tried) == sorted(commands(README))
    assert all(tried.count(line) == 1 for line in tried)
    assert set(re.findall(r"^```(\w+)$", README, re.MULTILINE)) == {"console", "toml", "python"}
    assert [len(blocks(README, language)) for language in ("toml", "python")] == [1, 1]


@needs_make
@pytest.mark.parametrize("target", TARGETS)
def test_make_knows_the_targets(target: str) -> None:
    assert recipe(target)


@needs_make
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_what_make_run_starts_answers_the_curl_lines(tmp_path: Path) -> None:
    assert curl_lines(8443) == CURLS
    line = recipe("run")[-1].removeprefix("exec ").replace(".venv/bin/", "")
    assert ":8443:" in line
    with running(tmp_path, line.replace(":8443:", ":0:"), "The demo is up") as there:
        (printed,) = re.findall(r"\.localhost:([0-9]+)/v1/users$", there.log(), re.MULTILINE)[:1]
        assert int(printed) == there.ports[-1]
        answers = [
            subprocess.run(
                ["sh", "-c", line.replace(":8443/", f":{printed}/")],
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
            for line in CURLS
        ]
    assert [done.returncode for done in answers] == [0, 0, 0]
    users, discovery, preflight = (done.stdout for done in answers)
    assert json.loads(users)["tenant"] == "acme"
    assert json.loads(discovery)["issuer"].startswith("https://globex.id.localhost")
    assert preflight.startswith(("HTTP/1.1 204 ", "HTTP/2 204 "))
    assert "\naccess-control-allow-origin: https://app.example.com\n" in preflight.lower()


@pytest.mark.parametrize("line", DAEMONS)
def test_the_daemons_line_serves_and_has_an_admin_port(tmp_path: Path, line: str) -> None:
    anywhere = line.replace("ssl:8443", f"ssl:{ANY_PORT}").replace("tcp:9100:interface=127.0.0.1", f"tcp:{ANY_PORT}")
    assert anywhere.count(ANY_PORT) == 2
    with running(tmp_path, anywhere, "serves on") as there:
        assert ask(there.ports[-1], "/healthz", "localhost")[0] == 200
        assert ask(there.ports[-1], "/readyz", "localhost")[::2] == (200, b"ready\n")


@pytest.mark.parametrize("line", TOOLS)
def test_the_tools_say_what_is_shown(tmp_path: Path, line: str) -> None:
    done = subprocess.run(
        ["sh", "-c", line],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == commands(README)[line].replace("/home/you/koder-gateway/", f"{ROOT}/")


def test_five_lines_are_a_configuration(tmp_path: Path) -> None:
    (text,) = blocks(README, "toml")
    assert len(text.splitlines()) == 5
    path = tmp_path / "koder-gateway.toml"
    path.write_text(text)
    (tmp_path / "tenants.toml").write_text('[[tenant]]\nslug = "acme"\n')
    write_certificate(tmp_path / "certs", HOST)
    settings = load(path)
    assert settings.tenants.registry == tmp_path / "tenants.toml"
    assert settings.tls.certificates == tmp_path / "certs"
    assert f'"{settings.services["identity"].urls[0]}"' in text
    assert f'"{settings.listen.admin_port}"' in text
    assert len(settings.services) == 5


def test_the_readmes_application_serves(tmp_path: Path) -> None:
    (text,) = blocks(README, "python")
    (tmp_path / "application.py").write_text(text)
    (tmp_path / "koder-gateway.toml").write_text(
        f'tenants.base_domain = "id.example.com"\nlisten.port = "tcp:{ANY_PORT}"\n'
    )
    with running(tmp_path, "twistd -n --pidfile= -y application.py", "serves on") as there:
        answered = ask(there.ports[0], "/nowhere")
    assert (answered[0], code(answered)) == (404, "no_route")


# -- every page


PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


# -- docs/embedding.md


def test_the_arguments_are_those_of_the_gateway() -> None:
    told = [name for row in table(EMBEDDING, "argument") for name in names(row[0])]
    assert told == list(inspect.signature(Gateway).parameters)


def test_the_attributes_are_there(tmp_path: Path) -> None:
    path = tmp_path / "koder-gateway.toml"
    path.write_text("log.access = false\n")
    gateway = Gateway(load(path), ports=[])
    for row in table(EMBEDDING, "attribute"):
        assert hasattr(gateway, names(row[0])[0].removesuffix("()"))


class Fields(Resource):
    """Answers with the fields of the request."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        """See IResource."""
        found = {name.decode().lower(): values for name, values in request.requestHeaders.getAllRawHeaders()}
        return json.dumps({name: [value.decode() for value in values] for name, values in found.items()}).encode()


@pytest_twisted.ensureDeferred
async def test_a_mounted_resource_gets_the_fields_of_a_service_wherever_the_tree_stands(tmp_path: Path) -> None:
    path = tmp_path / "koder-gateway.toml"
    path.write_text('log.access = false\ntenants.base_domain = "id.example.com"\n')
    gateway = Gateway(load(str(path)), ports=[f"tcp:{ANY_PORT}"], mounts={"/v1": Fields()})
    gateway.privilegedStartService()
    gateway.startService()
    below = Resource()
    below.putChild(b"v1", gateway.resource)
    sites = [Site(gateway.resource, parsePOSTFormSubmission=False), Site(below, parsePOSTFormSubmission=False)]
    ports = [await serverFromString(reactor, f"tcp:{ANY_PORT}").listen(site) for site in sites]
    made_up = {"Host": HOST, "X_Tenant_ID": "globex", "X-Forwarded-For": "192.0.2.9", "X-Real-IP": "192.0.2.9"}
    try:
        for address in (*gateway.addresses, *(port.getHost() for port in ports)):
            for target in ("/v1", "/v1/a/b"):
                url = f"http://127.0.0.1:{address.port}{target}"
                response = await treq.get(url, headers=made_up, persistent=False)
                fields = json.loads(await response.content())
                assert response.code == 200
                assert (fields["x-tenant-id"], fields["x-forwarded-for"]) == (["acme"], ["127.0.0.1"])
                assert fields.keys().isdisjoint({"x_tenant_id", "x-real-ip", "connection"})
    finally:
        for port in ports:
            await port.stopListening()
        await gateway.stopService()


def test_the_pages_python_runs(tmp_path: Path) -> None:
    path = tmp_path / "koder-gateway.toml"
    path.write_text("log.access = false\n")
    lines = "".join(blocks(EMBEDDING, "python"))
    before = (
        "from pathlib import Path\nfrom twisted.web.server import Site\nfrom koder_gateway import Gateway, load\n"
    )
    gateway = f"gateway = Gateway(load(Path({str(path)!r})), ports=[])\n"
    after = "assert settings.tenants.base_domain == 'id.example.com'\nassert site.resource is gateway.resource\n"
    done = subprocess.run(
        [tool("python"), "-c", before + gateway + lines + after],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")


# -- docs/architecture.md


def test_the_floors_are_those_of_the_code() -> None:
    assert [tuple(names(row[0])) for row in table(ARCHITECTURE, "floor")] == [tuple(floor) for floor in FLOORS]
    assert "The first six are pure" in ARCHITECTURE
    assert {name for floor in FLOORS[:6] for name in floor} == set(PURE)


def test_the_diagram_has_every_move_and_no_other() -> None:
    (diagram,) = blocks(ARCHITECTURE, "mermaid")
    moves: dict[tuple[str, str], tuple[str, str]] = {}
    for start, end, events, action in re.findall(r"^ *(\w+) --> (\w+): (.+) / (\w+)$", diagram, re.MULTILINE):
        for event in events.split(", "):
            assert (start, event) not in moves
            moves[start, event] = (end, action)
    assert moves == MOVES
    unlabelled = re.findall(r"^ *(\S+) --> (\S+)$", diagram, re.MULTILINE)
    assert unlabelled == [("[*]", HELD), ("ended", "[*]")]
    assert len(diagram.splitlines()) == 1 + len(unlabelled) + len(re.findall(" / ", diagram))


def test_the_events_and_their_answers_are_those_of_the_code() -> None:
    rows = table(ARCHITECTURE, "event")
    assert [names(row[0]) for row in rows] == [[event] for event in EVENTS]
    told = {names(row[0])[0]: names(row[2])[0] for row in rows if names(row[2])}
    assert told == {event: refusal.code for event, refusal in ANSWERS.items()}


def amount(text: str) -> int:
    """The number that a cell begins with, in bytes where it has a unit of size."""
    found = re.match(r"([0-9]+)(?: (KiB|MiB))?(?![0-9])", text)
    assert found, f"{text} does not begin with a number"
    return parse_size(found[1] + found[2]) if found[2] else int(found[1])


def bound(where: str) -> object:
    """What the code has as this bound: a default of the configuration, an argument's, a cache's or a constant."""
    defaults = {row.key: row.default for row in schema()}
    if where in defaults:
        value = tomllib.loads(f"value = {defaults[where]}")["value"]
        return parse_size(value) if isinstance(value, str) else value
    name, _, argument = where.removesuffix(")").partition("(")
    value = functools.reduce(_step, name.split("."), koder_gateway)
    if argument:
        return inspect.signature(value).parameters[argument].default
    return value.cache_parameters()["maxsize"] if hasattr(value, "cache_parameters") else value


def _step(value: Any, name: str) -> Any:
    if inspect.ismodule(value) and hasattr(value, "__path__"):
        return importlib.import_module(f"{value.__name__}.{name}")
    return getattr(value, name)


BOUNDS = [row for row in table(ARCHITECTURE, "what") if len(row) == 4 and row[3]]


@pytest.mark.parametrize("row", BOUNDS, ids=lambda row: names(row[3])[0])
def test_a_bound_is_that_of_the_code(row: list[str]) -> None:
    (where,) = names(row[3])
    assert amount(row[1]) == bound(where)


# Where what a peer can fill is kept, and what a bound's name looks like.
BOUNDED = (
    "acme",
    "exchange",
    "reactor",
    "tls_bio",
    "downstream",
    "http1",
    "http2",
    "listening",
    "upstream",
    "tree",
    "tls",
    "tracing",
    "ops",
    "policy",
    "wire",
)
LOOKS_LIKE = re.compile(
    r"MAX|BOUND|REMEMBERED|KEPT|LONGEST|SLACK|PATIENCE|BUDGET|TURNED|BACKLOG|LOGGED|SIZE$|PIECE$|BODY$|HEAD$"
)
NO_BOUNDS = {
    "acme.layout._LONGEST_STEM": "of a file's name, for which a longer one is hashed",
    "acme.layout._KEPT_OF_IT": "of such a name",
    "policy.cors.DEFAULT_MAX_AGE": "seconds",
    "policy.limit_rules.MAX_IN_FLIGHT": "what may be configured",
    "policy.limit_rules.MAX_QUOTA": "what may be configured",
    "wire.body._MAX_SIZE": "of one chunk, which is not kept",
    "wire.http2_frames.HEADER_SIZE": "of every frame",
    "wire.http2_frames.MAX_STREAM": "the protocol's",
    "wire.http2_frames.MAX_WINDOW": "the protocol's",
    "wire.hpack._MAX_INTEGER": "of a number that is read, not kept",
    "wire.hpack._OVERHEAD": "what the protocol counts for a field",
    "wire.hpack._STATIC_SIZE": "the protocol's",
    "wire.hpack.encode_status": "statuses are some hundred",
    "http2.request._encoded_date": "of the gateway's own line",
    "policy.origins._LONGEST_NAME": "the protocol's",
    "policy.clients._node_address": "policy.clients._REMEMBERED",
    "policy.tenants._unregistered": "policy.tenants._REMEMBERED",
    "tracing.otlp._server_parts": "tracing.otlp._REMEMBERED",
    "tracing.otlp._client_parts": "tracing.otlp._REMEMBERED",
}


def bounds_in_the_code() -> Iterator[str]:
    """Constants whose name says that they bound something, and caches."""
    package = Path(koder_gateway.__file__).parent
    for path in sorted(path for folder in BOUNDED for path in (package / folder).rglob("*.py")):
        module = ".".join(path.relative_to(package).with_suffix("").parts)
        for node in ast.parse(path.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            for target in targets:
                if isinstance(target, ast.Name) and target.id.isupper() and LOOKS_LIKE.search(target.id):
                    constant = getattr(importlib.import_module(f"koder_gateway.{module}"), target.id)
                    if type(constant) is int:
                        yield f"{module}.{target.id}"
            if isinstance(node, ast.FunctionDef) and any("cache" in ast.unparse(d) for d in node.decorator_list):
                yield f"{module}.{node.name}"


def test_every_bound_is_told() -> None:
    told = {names(row[3])[0] for row in BOUNDS}
    found = set(bounds_in_the_code())
    # The states of connections are small numbers that are called HEAD and BODY.
    found -= {
        f"{module}.{name}" for module in ("http1.channel", "upstream.connection_reader") for name in ("HEAD", "BODY")
    }
    assert found - told - set(NO_BOUNDS) == set()
    assert set(NO_BOUNDS) <= found
    assert {key for key in told if key.startswith("requests.")} == {
        row.key for row in schema() if row.key.startswith("requests.max_")
    }


# -- docs/operations.md


def test_every_code_is_told_with_its_status() -> None:
    told = {(names(row[0])[0], int(row[1])) for row in table(OPERATIONS, "code")}
    refusals = [value for value in vars(errors).values() if isinstance(value, Refusal)]
    assert told == {(refusal.code, refusal.status) for refusal in refusals}


def test_every_key_of_the_access_log_is_told() -> None:
    written: list[bytes] = []
    log = AccessLog(written.append, JsonLines())
    head = RequestHead(b"GET", b"/", 1, [])
    policy = make_policy(load(None), None)
    log.line(Exchange(head, request_context(policy, head, "192.0.2.1", None), 0.0, b"r"), "", 0.0, 0.0)
    log.flush()
    told = [name for row in table(OPERATIONS, "key") for name in names(row[0])]
    assert told == list(json.loads(written[0]))


def test_every_early_end_is_told() -> None:
    (row,) = [row for row in table(OPERATIONS, "key") if names(row[0]) == ["code"]]
    told = names(row[1])[:-1]
    cut = [event for event in EVENTS if any(action == CUT and of == event for (_, of), (_, action) in MOVES.items())]
    assert sorted(told) == sorted([CLIENT_GONE, *cut])


def test_every_reason_of_a_failed_handshake_is_told() -> None:
    assert [names(row[0]) for row in table(OPERATIONS, "reason")] == [[reason] for reason in TOLD]


def test_every_metric_is_told_with_its_labels() -> None:
    counters = Counters()
    count(counters, "s")
    counters.refuse("no_route")
    sources = Sources(
        upstream=lambda: {"s": (1, 1)},
        healthy=lambda: {("s", "a"): True},
        available=lambda: {("s", "a"): True},
        ejections=lambda: {"s": 1},
        retries_denied=lambda: {"s": 1},
        handshakes=lambda: {("full", "TLSv1.3", "g"): 1},
        handshakes_failed=lambda: {"r": 1},
        waiting=lambda: {"s": 1},
        degraded=lambda: {("p", "a"): True},
        refused=lambda: {("s", "r"): 1},
        tunnels=lambda: {"s": 1},
        tunnelled=lambda: {"s": 1},
        limits=lambda: [("r", 1, 1, 1)],
        spans=lambda: SpanFigures(1, 1, 1, 1),
        store=lambda: StoreFigures(True, 1, 1, (0.1,), (1, 1), 0.1),
        limits_in_flight=lambda: {"r": 1},
        certificates=lambda: {"c": 0.0},
    )
    found: dict[str, set[str]] = {}
    acme = AcmeCollector(lambda: AcmeFigures({"issued": 1}, {"held": 1}, 1.0, {("http-01", "answered"): 1}))
    addresses = AddressCollector(lambda: [AddressUse("s", "a", 1, 1)], lambda: {"s": {"r": 1}})
    for family in (*GatewayCollector(counters, sources, "0").collect(), *addresses.collect(), *acme.collect()):
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[family.name + suffix] = labels
    for supervisors in read_snapshot(Totals(1).pages[0].read()).families:
        found[supervisors.samples[0].name] = set(supervisors.samples[0].labels)
    assert {names(row[0])[0]: set(names(row[1])) for row in table(OPERATIONS, "name")} == found


ALERTS = yaml.safe_load((ROOT / "docs/examples/alerts.yml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
# What a family that is a histogram has in place of its name.
PARTS = re.compile(r"_(?:bucket|sum|count)$")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_metrics_and_labels_that_there_are(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    told = {names(row[0])[0]: {*names(row[1]), "instance", "le"} for row in table(OPERATIONS, "name")}
    told["up"] = {"job", "instance"}
    asked = re.findall(r"(?:\bup\b|koder_gateway_\w+)(?:\{[^}]*\})?", rule["expr"])
    assert asked
    labels = {"instance"}
    for selector in asked:
        name, _, matchers = selector.partition("{")
        known = told[name if name in told else PARTS.sub("", name)]
        labels |= known
        assert set(re.findall(r"(\w+)\s*(?:=|!)", matchers)) <= known, selector
    grouped = {label for found in re.findall(r"by \(([^)]*)\)", rule["expr"]) for label in found.split(", ")}
    shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert grouped | shown <= labels
    # What a query has grouped away is empty in the text.
    assert not grouped or shown <= grouped


def test_each_alert_has_its_own_name() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    assert list(ALERTS) == ["groups"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_metrics_are_called_by_their_names(page: Path) -> None:
    told = {names(row[0])[0] for row in table(OPERATIONS, "name")}
    asked = set(re.findall(r"koder_gateway_\w+", page.read_text()))
    assert {name if name in told else PARTS.sub("", name) for name in asked} <= told
