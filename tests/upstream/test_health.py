"""Health probes: what makes an address unhealthy and healthy again, by hand-made time; then over real connections."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import (
    SSL4ServerEndpoint,
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.error import ConnectBindError
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.web.resource import Resource
from twisted.web.server import Site

from koder_gateway import Gateway, Settings, load
from koder_gateway.config.health_entries import HealthSettings
from koder_gateway.tree.compose import compose, probed_addresses
from koder_gateway.upstream.address import Address
from koder_gateway.upstream.health import ProbePlan, Probes
from koder_gateway.upstream.pool import Service
from koder_gateway.wire.clock import CoarseClock
from koder_gateway.wire.response import ResponseReader
from tests.kit.authority import write_certificate
from tests.kit.bounds import open_tunnels, service_timeouts
from tests.kit.gateways import parse_metrics
from tests.kit.memory import MemoryReactor, Origin, service_settings, settings_with
from tests.kit.waiting import eventually

INTERVAL = ProbePlan("/").interval
TIMEOUT = ProbePlan("/").timeout
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BAD = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Every line that is logged, with its level."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        lines.append(f"{event['log_level'].name}: {formatEvent(event)}")

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


class Probed:
    """Probes of one service with two addresses, over a network in memory."""

    PORTS = (4001, 5001)
    host = ""

    def __init__(self, path: str = "/healthz") -> None:
        self.reactor = MemoryReactor()
        self.clock = CoarseClock(0.0)
        self.probes = Probes(self.reactor)
        self.service = self.make_service()
        self.first, self.second = self.service.addresses
        self.origins = [Origin() for _ in self.PORTS]
        self.reactor.origins.update(zip(self.PORTS, self.origins, strict=True))
        self.watch(*((address, path) for address in self.service.addresses))

    def make_service(self) -> Service:
        endpoints = [TCP4ClientEndpoint(self.reactor, "127.0.0.1", port, 1) for port in self.PORTS]
        addresses = [(f"http://127.0.0.1:{port}", to) for port, to in zip(self.PORTS, endpoints, strict=True)]
        return Service(
            "identity",
            addresses,
            ResponseReader(b"X-Tenant-ID"),
            self.clock,
            later=lambda call: self.reactor.callLater(0, call),
            timeouts=service_timeouts(),
            max_connections=1024,
            tunnels=open_tunnels(self.clock),
        )

    def watch(self, *targets: tuple[Address, str]) -> None:
        self.probes.watch([(address, ProbePlan(path, self.host)) for address, path in targets])

    def advance(self, seconds: float) -> None:
        """Let time pass with a sweep every so often, as the gateway does."""
        end = self.reactor.seconds() + seconds
        while True:
            self.probes.sweep(self.reactor.seconds())
            for _ in range(3):
                self.reactor.advance(0)
            if self.reactor.seconds() >= end:
                return
            self.reactor.advance(0.25)

    def round(self, *answers: bytes | None) -> None:
        """One probe of each address: its answer, None to give none, b"" to refuse the connection."""
        for origin, answer in zip(self.origins, answers, strict=True):
            origin.answers = "refuse" if answer == b"" else "accept"
        before = [len(origin.connections) for origin in self.origins]
        self.advance(0)
        for origin, answer, count in zip(self.origins, answers, before, strict=True):
            assert len(origin.connections) == count + (answer != b"")
            if answer:
                origin.last.send(answer)
        self.advance(INTERVAL - 0.25)
        self.reactor.advance(0.25)

    @property
    def states(self) -> list[bool]:
        return [address.healthy for address in self.service.addresses]


@pytest.fixture
def probed() -> Iterator[Probed]:
    """Whatever a test did, stopping leaves nothing on the reactor."""
    probed = Probed()
    yield probed
    probed.probes.stop()
    for _ in range(3):
        probed.reactor.advance(0)
    assert probed.reactor.getDelayedCalls() == []


def test_a_probe_asks_for_the_path_on_a_connection_of_its_own(probed: Probed) -> None:
    probed.advance(0)
    service = probed.origins[0].only
    head, *fields = service.take().split(b"\r\n")
    assert head == b"GET /healthz HTTP/1.1"
    assert b"Host: 127.0.0.1:4001" in fields
    assert b"Connection: close" in fields
    service.send(GOOD)
    assert service.closed == "clean"
    assert (probed.service.idle, probed.service.active) == (0, 0)


def test_a_probe_may_name_another_host_which_begins_it_anew(probed: Probed) -> None:
    probed.host = "id.example"
    probed.watch((probed.first, "/healthz"))
    probed.advance(0)
    assert b"\r\nHost: id.example\r\n" in probed.origins[0].last.take()


@pytest.mark.parametrize(
    ("lines", "host"),
    [
        ('health = "/healthz"', "id.koder.dev"),
        ('health = { path = "/healthz" }', "id.koder.dev"),
        ('health = { path = "/healthz", host = "probe.example:81" }', "probe.example:81"),
        ('health = "/healthz"\nserver_name = "identity.internal"', "identity.internal"),
    ],
)
def test_a_probe_names_the_host_that_requests_have_or_its_own(tmp_path: Path, lines: str, host: str) -> None:
    file = tmp_path / "koder-gateway.toml"
    file.write_text(f'[services.identity]\nurl = "https://127.0.0.1:1"\n{lines}\n')
    composition = compose(load(file), None, reactor=MemoryReactor(), clock=CoarseClock(0.0))
    assert [(plan.path, plan.host) for _, plan in probed_addresses(composition)] == [("/healthz", host)]


def test_probes_begin_at_once_and_then_every_few_seconds(probed: Probed) -> None:
    for count in (1, 2, 3):
        probed.advance(0)
        assert [origin.attempts for origin in probed.origins] == [count, count]
        for origin in probed.origins:
            origin.last.send(GOOD)
        probed.advance(INTERVAL - 0.25)
        assert [origin.attempts for origin in probed.origins] == [count, count]
        probed.reactor.advance(0.25)


@pytest.mark.parametrize(
    "failure",
    [
        b"",
        None,
        BAD,
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
        b"+PONG\r\n\r\n",
    ],
    ids=["refused", "silent", "503", "404", "half a head", "half a body", "not http"],
)
def test_two_failures_in_a_row_are_unhealthy_and_one_success_is_healthy(
    probed: Probed, log: list[str], failure: bytes | None
) -> None:
    probed.round(failure, GOOD)
    assert probed.states == [True, True]
    probed.round(failure, GOOD)
    assert probed.states == [False, True]
    probed.round(failure, GOOD)
    assert probed.states == [False, True]
    (line,) = log
    assert line.startswith("warn: service identity: http://127.0.0.1:4001 is unhealthy (/healthz): ")
    probed.round(GOOD, GOOD)
    assert probed.states == [True, True]
    assert log[1:] == ["info: service identity: http://127.0.0.1:4001 is healthy again (/healthz)"]


def test_a_failure_between_successes_is_nothing(probed: Probed, log: list[str]) -> None:
    for answer in (BAD, GOOD, BAD, GOOD, None, GOOD, b"", GOOD):
        probed.round(answer, GOOD)
        assert probed.states == [True, True]
    assert log == []


@pytest.mark.parametrize("status", [b"200 OK", b"204 No Content", b"301 Moved Permanently", b"302 Found"])
def test_what_counts_as_healthy(probed: Probed, status: bytes) -> None:
    answer = b"HTTP/1.1 %b\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n" % status
    for _ in range(3):
        probed.round(answer, GOOD)
    assert probed.states == [True, True]


def test_of_a_long_answer_the_status_decides(probed: Probed) -> None:
    probed.advance(0)
    service = probed.origins[0].last
    service.send(b"HTTP/1.1 200 OK\r\n\r\n").send_in([b"x" * 8192] * 20)
    assert service.closed == "reset"
    for _ in range(2):
        probed.advance(INTERVAL)
        probed.origins[0].last.send(b"HTTP/1.1 500 Oops\r\n\r\n").send_in([b"x" * 8192] * 20)
    assert not probed.first.healthy


def test_an_answer_that_is_late_is_cut_off(probed: Probed, log: list[str]) -> None:
    for count in (1, 2):
        probed.advance(TIMEOUT - 0.25)
        service, other = (origin.last for origin in probed.origins)
        other.send(GOOD)
        assert service.closed == ""
        probed.advance(0.25)
        assert service.closed == "reset"
        assert len(log) == count - 1
        probed.advance(INTERVAL - TIMEOUT)
    assert log == [
        "warn: service identity: http://127.0.0.1:4001 is unhealthy (/healthz): no complete response within 2 seconds"
    ]


def test_the_connect_timeout_of_the_service_counts(probed: Probed) -> None:
    probed.origins[0].answers = "ignore"
    probed.advance(1.25)
    assert probed.probes._probes[probed.first]._asking is None


class NoDescriptor:
    """An endpoint of a process that has no file descriptor left."""

    def connect(self, factory: object) -> Deferred[Any]:
        return fail(ConnectBindError(errno.EMFILE, "Too many open files"))


def test_a_probe_without_a_file_descriptor_judges_nothing(probed: Probed, log: list[str]) -> None:
    probed.first.endpoint = NoDescriptor()
    probed.watch((probed.first, "/livez"))
    for _ in range(4):
        probed.advance(INTERVAL)
    assert probed.probes._probes[probed.first]._asking is None
    assert probed.first.healthy
    assert log == []


def test_an_unhealthy_address_gets_no_exchange_while_another_is_healthy(probed: Probed) -> None:
    probed.round(BAD, GOOD)
    assert {probed.service.next_address(b"client") for _ in range(4)} == {probed.first, probed.second}
    probed.round(BAD, GOOD)
    assert {probed.service.next_address(b"client") for _ in range(4)} == {probed.second}


def test_with_every_address_unhealthy_there_is_none_until_a_probe_succeeds(probed: Probed, log: list[str]) -> None:
    for _ in range(2):
        probed.round(BAD, b"")
    assert probed.states == [False, False]
    assert probed.service.next_address(b"client") is None
    assert log[-1] == "error: service identity: no address is healthy, so requests are refused (503)"
    probed.round(BAD, GOOD)
    assert probed.service.next_address(b"client") is probed.second


def test_what_is_watched_already_goes_on(probed: Probed) -> None:
    probed.round(BAD, GOOD)
    probed.watch((probed.first, "/healthz"), (probed.second, "/healthz"))
    probed.round(BAD, GOOD)
    assert probed.states == [False, True]


def test_what_is_watched_no_longer_is_left_alone(probed: Probed) -> None:
    probed.advance(0)
    probed.watch((probed.second, "/healthz"))
    assert probed.origins[0].only.closed == "reset"
    assert probed.origins[1].only.closed == ""
    assert list(probed.probes.healthy) == [("identity", "http://127.0.0.1:5001")]
    probed.advance(3 * INTERVAL)
    assert probed.origins[0].attempts == 1
    assert probed.first.healthy


def test_another_path_begins_anew(probed: Probed) -> None:
    probed.round(BAD, GOOD)
    probed.watch((probed.first, "/livez"), (probed.second, "/healthz"))
    probed.round(BAD, GOOD)
    assert probed.states == [True, True]
    assert probed.origins[0].last.take().startswith(b"GET /livez ")


@pytest.mark.parametrize("answers", ["accept", "ignore"])
def test_stopping_ends_what_is_under_way_and_judges_nothing(probed: Probed, log: list[str], answers: str) -> None:
    probed.round(BAD, BAD)
    for origin in probed.origins:
        origin.answers = answers
    probed.advance(0)
    probed.probes.stop()
    for _ in range(3):
        probed.reactor.advance(0)
    assert probed.reactor.getDelayedCalls() == []
    assert probed.states == [True, True]
    assert log == []


# Real services behind a real gateway, whose clock the test moves.


class Health(Resource):
    """A health page, and a page beside it; a test says which status it has."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.status = 200
        self.asked = 0

    def render_GET(self, request: Any) -> bytes:
        self.asked += request.path == b"/healthz"
        request.setResponseCode(self.status)
        return b"ok"


class Running:
    """A started gateway before one service."""

    def __init__(self, url: str, settings: Settings | None = None, **options: Any) -> None:
        self.now = 0.0
        services = service_settings("identity", url, health=HealthSettings(path="/healthz"), **options)
        settings = settings or settings_with(services=services)
        self.gateway = Gateway(settings, ports=[], reactor=reactor, clock=lambda: self.now)
        self.gateway.startService()

    async def probe(self, page: Health) -> None:
        """Let the next probe be due, and come."""
        asked = page.asked
        self.now += INTERVAL
        await eventually(lambda: page.asked > asked, "the next probe")

    @property
    def gauge(self) -> float | None:
        """What the metrics page says of the service's health."""
        metrics = parse_metrics(self.gateway.metrics().decode())
        states = [value for name, value in metrics.items() if name.startswith("koder_gateway_upstream_healthy{")]
        return states[0] if states else None

    @property
    def _probe(self) -> Any:
        (probe,) = self.gateway._probes._probes.values()
        return probe

    @property
    def failures(self) -> int:
        """The failures in a row so far."""
        return int(self._probe._failures)

    @property
    def probes_under_way(self) -> int:
        return int(self._probe._asking is not None)


async def serve(page: Health, certificate: Path | None = None) -> Any:
    """Serve a page on a free port; with a certificate, over TLS."""
    endpoint: Any = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    if certificate is not None:
        context = DefaultOpenSSLContextFactory(str(certificate), str(certificate))
        endpoint = SSL4ServerEndpoint(reactor, 0, context, interface="127.0.0.1")
    return await endpoint.listen(Site(page, timeout=None))


@pytest.mark.parametrize("kind", ["http", "https", "unix"])
@pytest_twisted.ensureDeferred
async def test_a_gateway_probes_its_services(tmp_path: Path, kind: str) -> None:
    page, certificate = Health(), None
    if kind == "unix":
        url, endpoint = f"unix:{tmp_path}/identity.sock", UNIXServerEndpoint(reactor, f"{tmp_path}/identity.sock")
        port = await endpoint.listen(Site(page, timeout=None))
    else:
        certificate = write_certificate(tmp_path, "localhost") if kind == "https" else None
        port = await serve(page, certificate)
        url = f"{kind}://localhost:{port.getHost().port}"
    running = Running(url, ca=certificate)
    await eventually(lambda: page.asked == 1, "the first probe")
    assert running.gauge == 1
    page.status = 500
    await running.probe(page)
    await running.probe(page)
    await eventually(lambda: running.gauge == 0, "two failures are unhealthy")
    page.status = 302
    await running.probe(page)
    await eventually(lambda: running.gauge == 1, "a success is healthy")
    await running.gateway.stopService()
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_service_that_proves_to_be_another_is_unhealthy(tmp_path: Path) -> None:
    page = Health()
    certificate = write_certificate(tmp_path, "other.example")
    port = await serve(page, certificate)
    running = Running(f"https://localhost:{port.getHost().port}", ca=certificate)
    await eventually(lambda: running.failures == 1, "the first probe has failed")
    running.now += INTERVAL
    await eventually(lambda: running.gauge == 0, "the second probe has failed")
    assert page.asked == 0
    await running.gateway.stopService()
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_reload_keeps_the_health_of_services_that_stay(tmp_path: Path) -> None:
    file = tmp_path / "koder-gateway.toml"
    page = Health()
    page.status = 503
    port = await serve(page)
    text = f"""
        [services.identity]
        url = "http://127.0.0.1:{port.getHost().port}"
        health = "/healthz"
        [log]
        access = false
        [state]
        dir = "state"
    """
    file.write_text(text)
    running = Running("", settings=load(file))
    await eventually(lambda: running.failures == 1, "the first probe has failed")
    running.now += INTERVAL
    await eventually(lambda: running.gauge == 0, "two failures are unhealthy")
    assert running.gateway.reload()
    assert running.gauge == 0
    file.write_text(text.replace("/healthz", "/livez"))
    assert running.gateway.reload()
    assert running.gauge == 1
    file.write_text(text.replace('health = "/healthz"', ""))
    assert running.gateway.reload()
    assert running.gauge is None
    await running.gateway.stopService()
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_gateway_that_stops_probes_no_more() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        running = Running(f"http://127.0.0.1:{silent.getsockname()[1]}")
        await eventually(lambda: running.probes_under_way == 1, "the first probe is under way")
        await running.gateway.stopService()
        assert running.probes_under_way == 0
        running.now += INTERVAL
