"""TLS towards services: who they must prove to be, what clients and the log are told, and every byte both ways."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from authorities import Authority
from processes import BASE_DOMAIN, PATIENCE, Answer, Client
from secure_services import SecureService
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from koder_gateway import Gateway, load
from koder_gateway.upstream import tls
from koder_gateway.upstream.records import FastTransport
from koder_gateway.upstream.secure import SecureTransport

NAME = "identity.test"
MIB = 1 << 20
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
both_versions = pytest.mark.parametrize("version", [V12, V13], ids=["1.2", "1.3"])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Every warning and error that is logged."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event["log_level"].name in ("warn", "error"):
            lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


@pytest.fixture(params=[FastTransport, SecureTransport], ids=["fast", "public"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[SecureTransport]:
    """Both ways to do TLS."""
    monkeypatch.setattr(tls, "transport_class", lambda connection: request.param)
    chosen: type[SecureTransport] = request.param
    return chosen


def configured(*lines: str, timeouts: str = "", more: str = "") -> str:
    """A configuration with one service; the lines are those of its table, `more` stands before any table."""
    return "\n".join(
        [
            f'limits = []\n{more}\n[tenants]\nbase_domain = "{BASE_DOMAIN}"',
            f'[log]\naccess = false\n[state]\ndir = "state"\n[timeouts]\n{timeouts}',
            '[[routes]]\npath = "/"\nservice = "identity"\n[services.identity]',
            *lines,
            "",
        ]
    )


class Running:
    """A started gateway in this process, before one service called identity."""

    def __init__(self, folder: Path, *tables: str, timeouts: str = "") -> None:
        self.path = folder / "koder-gateway.toml"
        self._timeouts = timeouts
        self.configure(*tables)
        self.gateway = Gateway(load(self.path), ports=["tcp:0:interface=127.0.0.1"], reactor=reactor)
        self.gateway.startService()
        self.port = self.gateway.addresses[0].port

    def configure(self, *lines: str) -> None:
        """Write the configuration anew; the lines are those of the service's table."""
        self.path.write_text(configured(*lines, timeouts=self._timeouts))

    def connect(self) -> Client:
        """A client."""
        connection = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        return Client(connection)

    async def ask(self, path: str = "/", method: str = "GET", body: bytes = b"") -> Answer:
        """One request on a connection of its own."""

        def talk() -> Answer:
            with self.connect() as client:
                return client.ask(method, path, body=body)

        return await deferToThread(talk)

    @property
    def service(self) -> Any:
        """The pool."""
        return self.gateway.composition.services["identity"]

    def close_idle(self) -> None:
        """Have the next request make a connection."""
        for address in self.service.addresses:
            for connection in list(address.idle):
                connection.close()

    async def stop(self) -> None:
        """End."""
        self.gateway.site.draining = True
        await self.gateway.stopService()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts gateways, which are ended after the test."""
    started: list[Running] = []

    def start(*tables: str, **options: Any) -> Running:
        started.append(Running(tmp_path, *tables, **options))
        return started[-1]

    yield start
    for each in started:
        pytest_twisted.blockon(Deferred.fromCoroutine(each.stop()))


async def eventually(condition: Callable[[], object], what: str) -> None:
    """Turn the reactor until the condition is true."""
    ends = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < ends, f"never happened: {what}"
        await deferLater(reactor, 0.005, lambda: None)  # type: ignore[arg-type]


def table(
    service: SecureService, ca: Path | None, *lines: str, host: str = "127.0.0.1", name: str = NAME
) -> list[str]:
    """The table of a service at this host, by the name it must have."""
    server_name = [f'server_name = "{name}"'] if name else []
    trusted = [f'ca = "{ca}"'] if ca else []
    return [f'url = "https://{host}:{service.port}"', *server_name, *trusted, *lines]


# -- who the service is


@both_versions
@pytest_twisted.ensureDeferred
async def test_a_service_that_proves_its_name_is_served(
    run: Any, authority: Authority, transport: object, version: ssl.TLSVersion
) -> None:
    with SecureService(authority.issue(NAME), version=version, alpn=("h2", "http/1.1")) as service:
        running = run(*table(service, authority.path))
        answer = await running.ask()
        assert (answer.status, answer.body) == (200, b"hi")
        assert service.names == [NAME]
        assert service.spoken == ["http/1.1"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest_twisted.ensureDeferred
async def test_an_address_is_proven_like_a_name_and_not_asked_for(run: Any, authority: Authority, host: str) -> None:
    url_host = f"[{host}]" if ":" in host else host
    with SecureService(authority.issue(host, label="address"), host=host) as service:
        running = run(*table(service, authority.path, host=url_host, name=""))
        assert (await running.ask()).status == 200
        assert service.names == [None]


@pytest_twisted.ensureDeferred
async def test_the_url_s_host_is_the_name_where_no_other_is_given(run: Any, authority: Authority) -> None:
    with SecureService(authority.issue("localhost")) as service:
        running = run(*table(service, authority.path, host="localhost", name=""))
        assert (await running.ask()).status == 200
        assert service.names == ["localhost"]


def _expired(authority: Authority) -> Any:
    return authority.issue(NAME, since=-10, days=5, label="expired")


def _early(authority: Authority) -> Any:
    return authority.issue(NAME, since=5, label="early")


UNTRUSTED: dict[str, tuple[Callable[[Authority], Any], str]] = {
    "name": (
        lambda a: a.issue("other.test", "*.more.test", "192.0.2.7"),
        'for "other.test", "*.more.test", "192.0.2.7"',
    ),
    "address": (lambda a: a.issue("127.0.0.1"), 'is for "127.0.0.1"'),
    "no name": (lambda a: a.issue(), 'is for "nameless" (no subjectAltName)'),
    "many": (lambda a: a.issue(*(f"n{i}.test" for i in range(200)), label="many"), '"n4.test" and 195 more'),
    "hostile": (lambda a: a.issue('a"\n[fake] line' + "x" * 200, label="hostile"), 'is for "a??[fake] linexxx'),
    "expired": (_expired, "expired on "),
    "early": (_early, "is not valid before "),
}


@both_versions
@pytest.mark.parametrize("kind", list(UNTRUSTED))
@pytest_twisted.ensureDeferred
async def test_a_service_that_proves_to_be_another_is_untrusted(
    run: Any, authority: Authority, log: list[str], kind: str, version: ssl.TLSVersion
) -> None:
    make, told = UNTRUSTED[kind]
    with SecureService(make(authority), version=version) as service:
        running = run(*table(service, authority.path))
        answer = await running.ask(method="POST", body=b"secret")
        assert (answer.status, answer.code) == (502, "upstream_untrusted")
        (line,) = log
        start = f'service identity: untrusted: https://127.0.0.1:{service.port}: expected "{NAME}"'
        assert line.startswith(start), line
        assert told in line
        assert line.isprintable()
        assert len(line) < 700
        await eventually(lambda: service.refused, "the service is told")
        assert "alert" in service.refused[0].lower() or "ALERT" in service.refused[0]
        assert running.service.failures == {"untrusted": 1}


@pytest_twisted.ensureDeferred
async def test_a_stranger_s_authority_is_not_trusted(
    run: Any, authority: Authority, log: list[str], tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other", "Somebody Else")
    with SecureService(other.issue(NAME)) as service:
        running = run(*table(service, authority.path))
        assert (await running.ask()).code == "upstream_untrusted"
        (line,) = log
        assert (
            f'expected "{NAME}"; its certificate (for "{NAME}", issued by "Somebody Else") is not trusted: ' in line
        )
        assert "have `ca` name the authority" in line


@pytest_twisted.ensureDeferred
async def test_without_a_file_the_system_s_authorities_are_asked(
    run: Any, authority: Authority, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with SecureService(authority.issue(NAME)) as service:
        running = run(*table(service, None))
        assert (await running.ask()).code == "upstream_untrusted"
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
        assert running.gateway.reload()
        assert (await running.ask()).status == 200
    assert len(log) == 1


# -- what is no question of identity


def _say(data: bytes) -> Callable[[socket.socket], None]:
    def play(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(data)
        while connection.recv(65536):
            pass

    return play


def _hang_up(connection: socket.socket) -> None:
    connection.recv(65536)


PLAIN_HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
BARE: dict[str, tuple[Callable[[socket.socket], None], str]] = {
    "plain": (
        _say(PLAIN_HTTP),
        "it answers with plain HTTP, not TLS; write http://, or the port where it speaks TLS",
    ),
    "garbage": (_say(b"SSH-2.0-OpenSSH_9.2p1\r\n"), "it answers with something else, not TLS"),
    "records": (_say(b"\x16\x03\x03\x40\x00" + b"\xff" * 16384), "no TLS handshake: "),
    "alert": (_say(b"\x15\x03\x03\x00\x02\x02\x46"), "no TLS handshake: it speaks no TLS 1.2 or newer ("),
    "closed": (_hang_up, "it closed the connection within the TLS handshake"),
}


@pytest.mark.parametrize("kind", list(BARE))
@pytest_twisted.ensureDeferred
async def test_what_is_no_tls_is_unreachable_and_told_so(
    run: Any, authority: Authority, log: list[str], kind: str
) -> None:
    play, told = BARE[kind]
    with SecureService(None, bare=play) as service:
        running = run(*table(service, authority.path))
        answer = await running.ask(method="POST", body=b"secret")
        assert (answer.status, answer.code) == (502, "upstream_unreachable")
        (line,) = log
        assert line.startswith(f"service identity: unreachable: https://127.0.0.1:{service.port}: {told}"), line
        assert line.isprintable()


def _old(context: ssl.SSLContext) -> None:
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1_1
    context.maximum_version = ssl.TLSVersion.TLSv1_1


def _unlike(context: ssl.SSLContext) -> None:
    context.maximum_version = V12
    context.set_ciphers("AES128-SHA")


@pytest.mark.parametrize(
    ("change", "told"),
    [(_old, "it speaks no TLS 1.2 or newer"), (_unlike, "it has no cipher in common with the gateway")],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
@pytest_twisted.ensureDeferred
async def test_a_service_of_another_age_is_unreachable_and_told_so(
    run: Any, authority: Authority, log: list[str], change: Any, told: str
) -> None:
    with SecureService(authority.issue(NAME), change=change) as service:
        running = run(*table(service, authority.path))
        assert (await running.ask()).code == "upstream_unreachable"
        assert told in log[0]


@pytest_twisted.ensureDeferred
async def test_a_handshake_that_stalls_is_late(run: Any, authority: Authority, log: list[str]) -> None:
    def stall(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass

    with SecureService(None, bare=stall) as service:
        running = run(*table(service, authority.path, 'connect = "100ms"'))
        answer = await running.ask()
        assert (answer.status, answer.code) == (504, "upstream_timeout")
        assert log[0].endswith(f"https://127.0.0.1:{service.port}: no TLS handshake within 0.1 seconds")


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_ends_a_handshake_that_stalls(run: Any, authority: Authority) -> None:
    ended: list[bytes] = []

    def stall(connection: socket.socket) -> None:
        while data := connection.recv(65536):
            ended.append(data)
        ended.append(b"")

    with SecureService(None, bare=stall) as service:
        running = run(*table(service, authority.path, 'connect = "60s"'))
        client = running.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: acme.%b\r\n\r\n" % BASE_DOMAIN.encode())
        await eventually(lambda: ended, "the handshake has begun")
        client.abort()
        await eventually(lambda: ended[-1] == b"", "the service's connection ends")
        assert running.service.active == 0


# -- another address


@pytest_twisted.ensureDeferred
async def test_another_address_serves_what_an_untrusted_one_was_not_sent(
    run: Any, authority: Authority, log: list[str]
) -> None:
    with SecureService(authority.issue("other.test")) as bad, SecureService(authority.issue(NAME)) as good:
        urls = f'urls = ["https://127.0.0.1:{bad.port}", "https://127.0.0.1:{good.port}"]'
        running = run(urls, f'ca = "{authority.path}"', f'server_name = "{NAME}"')
        for _ in range(2):
            answer = await running.ask(method="POST", body=b"secret")
            assert answer.status == 200
        assert bad.handshakes == []
        # Everybody was served, and still the log tells of the impostor.
        (line,) = log
        assert f"untrusted: https://127.0.0.1:{bad.port}: " in line


# -- the gateway's own certificate


@both_versions
@pytest_twisted.ensureDeferred
async def test_the_gateway_shows_its_certificate(
    run: Any, authority: Authority, transport: object, version: ssl.TLSVersion
) -> None:
    own = authority.issue("gateway.test")
    with SecureService(authority.issue(NAME), clients=authority.path, version=version) as service:
        shown = f'client_cert = "{own.certificate}"\nclient_key = "{own.key}"'
        running = run(*table(service, authority.path, shown))
        assert (await running.ask()).status == 200
        assert service.shown[0]["subjectAltName"] == (("DNS", "gateway.test"),)


@both_versions
@pytest_twisted.ensureDeferred
async def test_a_service_that_asks_for_a_certificate_says_so(
    run: Any, authority: Authority, log: list[str], transport: object, version: ssl.TLSVersion
) -> None:
    with SecureService(authority.issue(NAME), clients=authority.path, version=version) as service:
        running = run(*table(service, authority.path))
        answer = await running.ask(method="POST", body=b"secret")
        # In TLS 1.3 a service answers to what it was shown when for the client the handshake is over.
        assert answer.code == ("upstream_unreachable" if version == V12 else "upstream_closed")
        told = "it has no cipher in common" if version == V12 else "it asks for a certificate of the gateway's; set"
        assert told in log[0]
        assert running.service.retried == 0


@both_versions
@pytest_twisted.ensureDeferred
async def test_a_service_that_does_not_trust_the_gateway_says_so(
    run: Any, authority: Authority, log: list[str], tmp_path: Path, transport: object, version: ssl.TLSVersion
) -> None:
    own = Authority(tmp_path / "other", "Somebody Else").issue("gateway.test")
    with SecureService(authority.issue(NAME), clients=authority.path, version=version) as service:
        shown = f'client_cert = "{own.both}"\nclient_key = "{own.both}"'
        running = run(*table(service, authority.path, shown))
        assert (await running.ask()).status == 502
        assert "it does not trust who issued client_cert (" in log[0]


# -- sessions


@both_versions
@pytest_twisted.ensureDeferred
async def test_a_second_connection_resumes_the_first_one_s_session(
    run: Any, authority: Authority, transport: object, version: ssl.TLSVersion
) -> None:
    with SecureService(authority.issue(NAME), version=version) as service:
        running = run(*table(service, authority.path))
        for _ in range(4):
            assert (await running.ask()).status == 200
            running.close_idle()
        assert service.handshakes == [False, True, True, True]


@pytest_twisted.ensureDeferred
async def test_a_service_without_tickets_is_served(run: Any, authority: Authority) -> None:
    def none(context: ssl.SSLContext) -> None:
        context.num_tickets = 0

    with SecureService(authority.issue(NAME), version=V13, change=none) as service:
        running = run(*table(service, authority.path))
        for _ in range(2):
            assert (await running.ask()).status == 200
            running.close_idle()
        assert service.handshakes == [False, False]


@pytest_twisted.ensureDeferred
async def test_a_session_is_not_resumed_for_ever(
    run: Any, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("koder_gateway.upstream.sessions._LIFE", 0.0)
    with SecureService(authority.issue(NAME)) as service:
        running = run(*table(service, authority.path))
        for _ in range(2):
            assert (await running.ask()).status == 200
            running.close_idle()
        assert service.handshakes == [False, False]


@both_versions
@pytest_twisted.ensureDeferred
async def test_a_failed_handshake_forgets_the_sessions(
    run: Any, authority: Authority, version: ssl.TLSVersion
) -> None:
    with SecureService(authority.issue(NAME), version=version) as service:
        running = run(*table(service, authority.path))
        assert (await running.ask()).status == 200
        running.close_idle()
        (address,) = running.service.addresses
        endpoint = address.endpoint
        session = endpoint.sessions._kept[0]
        endpoint.sessions._kept.append(session)
        service._bare = _hang_up
        assert (await running.ask()).code == "upstream_unreachable"
        assert len(endpoint.sessions) == 0
        service._bare = None
        assert (await running.ask()).status == 200
        assert service.handshakes == [False, False]
