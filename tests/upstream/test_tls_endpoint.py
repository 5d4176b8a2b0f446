"""TLS towards services: who they must prove to be, what clients and the log are told, and every byte both ways."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from koder_gateway import Gateway, load
from koder_gateway.cli import main
from koder_gateway.config import ConfigurationError
from koder_gateway.upstream import tls_endpoint
from koder_gateway.upstream.openssl_transport import OpenSSLTransport
from koder_gateway.upstream.tls_transport import SecureTransport
from tests.kit.authority import Authority, Pair, write_certificate
from tests.kit.clients import BASE_DOMAIN, Client
from tests.kit.http1 import Message
from tests.kit.secure_services import OK, SecureService, Talk, answering
from tests.kit.waiting import PATIENCE, eventually, until

NAME = "identity.test"
MIB = 1 << 20
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
both_versions = pytest.mark.parametrize("version", [V12, V13], ids=["1.2", "1.3"])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Every warning and error that is logged, but for that of a configuration without limits."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event["log_level"].name in ("warn", "error"):
            line = formatEvent(event)
            if ": limits: replace all default limits" not in line:
                lines.append(line)

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


@pytest.fixture(params=[OpenSSLTransport, SecureTransport], ids=["fast", "public"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[SecureTransport]:
    """Both ways to do TLS."""
    monkeypatch.setattr(tls_endpoint, "transport_class", lambda connection: request.param)
    chosen: type[SecureTransport] = request.param
    return chosen


def configured(*lines: str, timeouts: str = "", tenants: str = "") -> str:
    """A configuration with one service; the lines are those of its table, the rest those of these tables."""
    return "\n".join(
        [
            f'limits = []\n[tenants]\nbase_domain = "{BASE_DOMAIN}"\n{tenants}',
            f'[log]\naccess = false\n[state]\ndir = "state"\n[timeouts]\n{timeouts}',
            '[[routes]]\npath = "/"\nservice = "identity"\n[services.identity]',
            *lines,
            "",
        ]
    )


class Running:
    """A started gateway in this process, before one service called identity."""

    def __init__(self, folder: Path, *tables: str, **more: str) -> None:
        self.path = folder / "koder-gateway.toml"
        self._more = more
        self.configure(*tables)
        self.gateway = Gateway(load(self.path), ports=["tcp:0:interface=127.0.0.1"], reactor=reactor)
        self.gateway.startService()
        self.port = self.gateway.addresses[0].port

    def configure(self, *lines: str) -> None:
        """Write the configuration anew; the lines are those of the service's table."""
        self.path.write_text(configured(*lines, **self._more))

    def connect(self) -> Client:
        """A client."""
        connection = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        return Client(connection)

    async def ask(self, path: str = "/", method: str = "GET", body: bytes = b"") -> Message:
        """One request on a connection of its own."""

        def talk() -> Message:
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
    return authority.issue(NAME, start=-10, days=5, label="expired")


def _early(authority: Authority) -> Any:
    return authority.issue(NAME, start=5, label="early")


UNTRUSTED: dict[str, tuple[Callable[[Authority], Any], str]] = {
    "name": (
        lambda a: a.issue("other.test", "*.more.test", "192.0.2.7"),
        'for "other.test", "*.more.test", "192.0.2.7"',
    ),
    "address": (lambda a: a.issue("127.0.0.1"), 'is for "127.0.0.1"'),
    "no name": (lambda a: a.issue_odd(), 'is for "nameless" (no subjectAltName)'),
    "many": (lambda a: a.issue(*(f"n{i}.test" for i in range(200)), label="many"), '"n4.test" and 195 more'),
    "hostile": (
        lambda a: a.issue_odd('a"\n[fake] line' + "x" * 200, label="hostile"),
        'is for "a??[fake] line' + "x" * 66 + '...";',
    ),
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
async def test_a_certificate_that_vouches_for_itself_is_not_trusted(
    run: Any, authority: Authority, log: list[str], tmp_path: Path
) -> None:
    path = write_certificate(tmp_path / "own", NAME)
    with SecureService(Pair(path, path, path)) as service:
        running = run(*table(service, authority.path))
        assert (await running.ask()).code == "upstream_untrusted"
        assert "is not trusted: self-signed certificate; set `ca` to" in log[0]
        # Unless an operator says so, by that very certificate.
        running.configure(*table(service, path))
        assert running.gateway.reload()
        assert (await running.ask()).status == 200


@pytest_twisted.ensureDeferred
async def test_an_authority_in_the_middle_is_enough(run: Any, authority: Authority, tmp_path: Path) -> None:
    middle = authority.subordinate("Middle Authority")
    with SecureService(middle.issue(NAME)) as service:
        running = run(*table(service, middle.path))
        assert (await running.ask()).status == 200


@pytest_twisted.ensureDeferred
async def test_a_service_that_was_never_verified_gets_nothing(
    run: Any, authority: Authority, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever makes OpenSSL skip its question, the answer is no."""
    asked = SSL.Context.set_verify
    monkeypatch.setattr(SSL.Context, "set_verify", lambda self, mode, ask: asked(self, SSL.VERIFY_NONE))
    with SecureService(authority.issue("other.test")) as service:
        running = run(*table(service, authority.path))
        assert (await running.ask()).code == "upstream_untrusted"
        assert log[0].endswith(": it sent no certificate")


@pytest_twisted.ensureDeferred
async def test_a_stranger_s_authority_is_not_trusted(
    run: Any, authority: Authority, log: list[str], tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other", "Somebody Else", start=-1)
    with SecureService(other.issue(NAME)) as service:
        running = run(*table(service, authority.path))
        assert (await running.ask()).code == "upstream_untrusted"
        (line,) = log
        assert (
            f'expected "{NAME}"; its certificate (for "{NAME}", issued by "Somebody Else") is not trusted: ' in line
        )
        assert "set `ca` to the authority" in line


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
        "it responds with plain HTTP, not TLS; write http://, or the port where it speaks TLS",
    ),
    "garbage": (_say(b"SSH-2.0-OpenSSH_9.2p1\r\n"), "it responds with something else, not TLS"),
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
        try:
            while data := connection.recv(65536):
                ended.append(data)
        finally:
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
        # Everybody was served, and still the log tells of the impostor, and that it gets no requests.
        untrusted, unused = sorted(log, key=lambda line: "untrusted" not in line)
        assert f"untrusted: https://127.0.0.1:{bad.port}: " in untrusted
        assert f"https://127.0.0.1:{bad.port} cannot be reached" in unused


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
        verified = set()
        for _ in range(4):
            assert (await running.ask()).status == 200
            running.close_idle()
            (address,) = running.service.addresses
            verified.add(address.endpoint.sessions._kept[-1].verified)
        assert service.handshakes == [False, True, True, True]
        # However often it is resumed, it was verified once.
        assert len(verified) == 1


CLOSING = {
    "length": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
    "1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
}


@both_versions
@pytest.mark.parametrize("answer", CLOSING.values(), ids=CLOSING)
@pytest_twisted.ensureDeferred
async def test_a_service_that_keeps_nothing_alive_resumes_its_sessions(
    run: Any, authority: Authority, transport: object, version: ssl.TLSVersion, answer: bytes
) -> None:
    def play(talk: Talk) -> None:
        assert talk.head()
        talk.send(answer)
        try:
            ends.append(talk.head())
        except OSError as error:
            ends.append(error)

    ends: list[object] = []
    with SecureService(authority.issue(NAME), play, version=version) as service:
        running = run(*table(service, authority.path))
        for count in range(1, 4):
            assert (await running.ask()).status == 200
            await eventually(lambda: len(ends) == count, "the service sees the end")  # noqa: B023  (awaited)
        assert service.handshakes == [False, True, True]
        # The gateway says goodbye, and does not reset.
        assert ends == [b"", b"", b""]


@both_versions
@pytest.mark.parametrize("how", ["goodbye", "cut", "reset"])
@pytest_twisted.ensureDeferred
async def test_a_service_that_ends_an_idle_connection_resumes_its_session(
    run: Any, authority: Authority, transport: object, version: ssl.TLSVersion, how: str
) -> None:
    def play(talk: Talk) -> None:
        assert talk.head()
        talk.send(OK)
        until(lambda: asked, "the client has its answer")
        asked.clear()
        getattr(talk, how)()

    asked: list[bool] = []
    with SecureService(authority.issue(NAME), play, version=version) as service:
        running = run(*table(service, authority.path))
        for _ in range(3):
            assert (await running.ask()).status == 200
            assert running.service.idle == 1
            asked.append(True)
            await eventually(lambda: not running.service.idle, "the connection has left the pool")
        assert service.handshakes == [False, True, True]


@both_versions
@pytest.mark.parametrize("how", ["cut", "reset"])
@pytest_twisted.ensureDeferred
async def test_a_truncated_answer_forgets_its_session(
    run: Any, authority: Authority, transport: object, version: ssl.TLSVersion, how: str
) -> None:
    def play(talk: Talk) -> None:
        assert talk.head()
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf of it")
        until(lambda: len(address.endpoint.sessions), "the session is kept")
        getattr(talk, how)()

    with SecureService(authority.issue(NAME), play, version=version) as service:
        running = run(*table(service, authority.path))
        (address,) = running.service.addresses
        for count in range(1, 3):
            assert (await running.ask()).ended != "complete"
            await eventually(lambda: running.service.failures == {"closed": count}, "it is counted")  # noqa: B023
            assert len(address.endpoint.sessions) == 0
        assert service.handshakes == [False, False]


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
    monkeypatch.setattr("koder_gateway.upstream.tls_sessions._LIFE", 0.0)
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


# -- files that change, and files that cannot be used


@pytest_twisted.ensureDeferred
async def test_a_reload_takes_other_contents_of_the_same_files(
    run: Any, authority: Authority, tmp_path: Path, log: list[str]
) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.path.read_bytes())
    with SecureService(authority.issue(NAME)) as service:
        running = run(*table(service, ca))
        assert (await running.ask()).status == 200
        before = running.service
        # Nothing has changed: pool and connection stay.
        assert running.gateway.reload()
        assert running.service is before
        assert before.idle == 1
        ca.write_bytes(Authority(tmp_path / "other", "Somebody Else").path.read_bytes())
        assert running.gateway.reload()
        assert running.service is not before
        await eventually(lambda: before.idle == 0, "connections of the old trust close")
        assert (await running.ask()).code == "upstream_untrusted"
        ca.write_bytes(authority.path.read_bytes())
        assert running.gateway.reload()
        assert (await running.ask()).status == 200
        # No session has come over from before.
        assert service.handshakes == [False, False]


@pytest_twisted.ensureDeferred
async def test_a_reload_shows_a_renewed_certificate(run: Any, authority: Authority) -> None:
    own = authority.issue("gateway-one.test", label="own")
    with SecureService(authority.issue(NAME), clients=authority.path) as service:
        running = run(*table(service, authority.path, f'client_cert = "{own.both}"\nclient_key = "{own.both}"'))
        assert (await running.ask()).status == 200
        authority.issue("gateway-two.test", label="own")
        assert running.gateway.reload()
        assert (await running.ask()).status == 200
        assert [shown["subjectAltName"][0][1] for shown in service.shown] == ["gateway-one.test", "gateway-two.test"]


@pytest_twisted.ensureDeferred
async def test_an_exchange_ends_under_the_trust_that_it_began_with(
    run: Any, authority: Authority, tmp_path: Path
) -> None:
    asked: list[bool] = []
    reloaded: list[bool] = []

    def play(talk: Talk) -> None:
        assert talk.head()
        asked.append(True)
        until(lambda: reloaded, "the reload")
        talk.send(OK)
        # It must not be used again.
        assert talk.head() == b""

    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.path.read_bytes())
    with SecureService(authority.issue(NAME), play) as service:
        running = run(*table(service, ca))
        asking = Deferred.fromCoroutine(running.ask())
        await eventually(lambda: asked, "the service is asked")
        ca.write_bytes(Authority(tmp_path / "other", "Somebody Else").path.read_bytes())
        assert running.gateway.reload()
        reloaded.append(True)
        assert (await asking).status == 200


@pytest_twisted.ensureDeferred
async def test_a_reload_with_a_broken_file_changes_nothing(
    run: Any, authority: Authority, tmp_path: Path, log: list[str]
) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.path.read_bytes())
    with SecureService(authority.issue(NAME)) as service:
        running = run(*table(service, ca))
        before = running.service
        ca.write_bytes(b"")
        assert not running.gateway.reload()
        (line,) = log
        told = "no certificate in it; write PEM certificates of the authorities to trust"
        assert line == f"reload refused, nothing has changed: services.identity: {ca}: {told}"
        assert running.service is before
        assert (await running.ask()).status == 200


def _lines(folder: Path, *lines: str) -> Path:
    path = folder / "koder-gateway.toml"
    path.write_text(configured('url = "https://service.test"', *lines))
    return path


def _files(folder: Path, authority: Authority) -> dict[str, Path]:
    good, other = authority.issue("gateway.test", label="good"), authority.issue("gateway.test", label="other")
    made = {
        "good.crt": good.certificate,
        "good.key": good.key,
        "other.key": other.key,
        "expired.pem": authority.issue("gateway.test", start=-10, days=5, label="expired-own").both,
        "early.pem": authority.issue("gateway.test", start=5, label="early-own").both,
        "empty.pem": folder / "empty.pem",
        "garbage.pem": folder / "garbage.pem",
        "wide.pem": folder / "wide.pem",
        "locked.key": folder / "locked.key",
    }
    made["empty.pem"].touch()
    made["wide.pem"].write_text("-----BEGIN CERTIFICATE-----\n", encoding="utf-16")
    made["garbage.pem"].write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    key = ec.generate_private_key(ec.SECP256R1())
    made["locked.key"].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    return made


CHECKED = [
    ({"ca": "empty.pem"}, "{ca}: no certificate in it; write PEM certificates of the authorities to trust"),
    ({"ca": "wide.pem"}, "{ca}: is UTF-16 text; save it again as ASCII or UTF-8"),
    ({"ca": "garbage.pem"}, "{ca}: a certificate in it is not PEM that can be read; copy it again"),
    (
        {"client_cert": "good.crt", "client_key": "other.key"},
        "{client_cert}: the private key in {client_key} does not match its first certificate",
    ),
    (
        {"client_cert": "good.crt", "client_key": "good.crt"},
        "{client_key}: no private key in it; write the PEM key of {client_cert}",
    ),
    (
        {"client_cert": "good.crt", "client_key": "locked.key"},
        "{client_key}: the private key is encrypted; store it without a passphrase, for the gateway only",
    ),
    (
        {"client_cert": "good.key", "client_key": "good.key"},
        "{client_cert}: no certificate in it; write the PEM certificate that the gateway shows",
    ),
    ({"client_cert": "expired.pem", "client_key": "expired.pem"}, "{client_cert}: expired on DATE; renew it"),
    (
        {"client_cert": "early.pem", "client_key": "early.pem"},
        "{client_cert}: not valid before DATE; check the clock",
    ),
]


@pytest.mark.parametrize(("keys", "told"), CHECKED, ids=["+".join(keys.values()) for keys, _ in CHECKED])
def test_check_tells_of_files_that_cannot_be_used(
    tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str], keys: dict[str, str], told: str
) -> None:
    files = _files(tmp_path, authority)
    named = {key: str(files[name]) for key, name in keys.items()}
    path = _lines(tmp_path, *(f'{key} = "{file}"' for key, file in named.items()))
    assert main(["check", "--config", str(path)]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "services.identity" in line]
    line = re.sub(r"\d{4}-\d\d-\d\d", "DATE", line)
    assert line == f"{path}: services.identity: {told.format(**named)}"


def test_check_takes_files_that_can_be_used(
    tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    own = authority.issue("gateway.test")
    keys = {"ca": authority.path, "client_cert": own.certificate, "client_key": own.key}
    path = _lines(tmp_path, *(f'{key} = "{file}"' for key, file in keys.items()))
    main(["check", "--config", str(path)])
    assert "services" not in capsys.readouterr().err


@pytest_twisted.ensureDeferred
async def test_a_certificate_that_ends_is_spoken_of_and_shown(run: Any, authority: Authority, log: list[str]) -> None:
    own = authority.issue("gateway.test", days=20, label="ending")
    with SecureService(authority.issue(NAME), clients=authority.path) as service:
        running = run(*table(service, authority.path, f'client_cert = "{own.both}"\nclient_key = "{own.both}"'))
        assert len(log) == 1
        assert re.fullmatch(rf"services\.identity: {own.both}: expires on [0-9-]{{10}}; renew it", log[0])
        assert (await running.ask()).status == 200


@pytest.mark.parametrize("key", ["ca", "client_cert", "client_key", "server_name"])
def test_keys_of_tls_need_tls(tmp_path: Path, authority: Authority, key: str) -> None:
    path = tmp_path / "koder-gateway.toml"
    value = NAME if key == "server_name" else str(authority.path)
    path.write_text(configured('url = "http://service.test"', f'{key} = "{value}"'))
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    told = f"{path}: services.identity.{key}: has no effect without TLS; leave it out, or write an https:// address"
    assert told in caught.value.faults


# -- the registry


@pytest_twisted.ensureDeferred
async def test_the_registry_is_trusted_like_the_service_that_has_it(
    run: Any, authority: Authority, tmp_path: Path, log: list[str]
) -> None:
    tenants = b'[{"slug": "acme"}]'
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(tenants), tenants)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.path.read_bytes())
    with SecureService(authority.issue(NAME), answering(answer)) as service:
        registry = f'registry = "https://127.0.0.1:{service.port}/v1/admin/tenants"\nrefresh = "250ms"'
        running = run(*table(service, ca), tenants=registry)
        await eventually(lambda: running.gateway.unready() == [], "the registry has been read")
        assert service.names[0] == NAME
        assert running.gateway.counters.tenants == 1
        before = running.gateway._registry.registry
        assert running.gateway.reload()
        assert running.gateway._registry.registry is before
        ca.write_bytes(Authority(tmp_path / "other", "Somebody Else").path.read_bytes())
        assert running.gateway.reload()
        await eventually(lambda: running.gateway.counters.registry_failures, "the registry is not trusted any more")
        assert any(f'expected "{NAME}"; its certificate' in line for line in log), log
