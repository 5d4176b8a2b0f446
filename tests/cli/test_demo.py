"""The demo: what its services answer, its configuration, and lines that a shell takes as they are printed."""

from __future__ import annotations

import json
import shlex
import shutil
import tomllib

import pytest
import pytest_twisted
import treq
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.failure import Failure

from koder_gateway.demo import (
    SERVICES,
    DemoServices,
    curl_lines,
    demo_settings,
    demo_tenants,
    write_demo,
)
from koder_gateway.listening.endpoints import server_endpoint

FORWARDED = (
    b"Host: acme.id.localhost:8443\r\nX-Tenant-ID: acme\r\nX-Request-ID: r-1\r\n"
    b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n"
)
DEMO_TENANTS = [
    {"slug": "acme", "status": "active"},
    {"slug": "globex", "status": "active"},
    {"slug": "closed", "status": "suspended"},
]


class Service:
    """One of the demo's services over an in-memory connection."""

    def __init__(self, name, demo=None, clock=None):
        self.demo = demo or DemoServices(clock or Clock())
        self.channel = self.demo.site(name).buildProtocol(IPv4Address("TCP", "127.0.0.1", 4711))
        self.transport = StringTransport()
        self.channel.makeConnection(self.transport)

    def ask(self, target, method="GET", body=b"", extra=b""):
        """The status, the headers as text, and the body of one answer."""
        self.channel.dataReceived(
            b"%b %b HTTP/1.1\r\n%bContent-Length: %d\r\n%b\r\n%b"
            % (method.encode(), target.encode(), FORWARDED, len(body), extra, body)
        )
        head, _, rest = self.transport.value().partition(b"\r\n\r\n")
        self.transport.clear()
        self.channel.connectionLost(Failure(ConnectionDone()))
        return int(head.split()[1]), head.decode().lower(), rest


@pytest.mark.parametrize(
    ("service", "path"),
    [
        ("identity", "/v1/users"),
        ("auth", "/v1/auth/login"),
        ("oauth2", "/oidc/v1/keys"),
        ("session", "/v1/sessions"),
        ("admin", "/v1/admin/tenants"),
    ],
)
def test_every_service_shows_what_it_received(service, path):
    status, head, body = Service(service).ask(path)
    assert status == 200
    assert "content-type: application/json" in head
    answer = json.loads(body)
    assert answer["service"] == service
    assert answer["method"] == "GET"
    assert answer["path"] == path
    assert answer["host"] == "acme.id.localhost:8443"
    assert answer["tenant"] == "acme"
    assert answer["request_id"] == "r-1"
    assert answer["forwarded"] == {"x-forwarded-for": "192.0.2.1", "x-forwarded-proto": "https"}


def test_the_issuer_is_the_host_that_the_client_named():
    status, _, body = Service("oauth2").ask("/.well-known/openid-configuration")
    document = json.loads(body)
    assert status == 200
    assert document["issuer"] == "https://acme.id.localhost:8443"
    assert all(
        value.startswith(document["issuer"])
        for name, value in document.items()
        if name.endswith(("_endpoint", "_uri"))
    )
    assert "service" not in document


@pytest.mark.parametrize(
    ("service", "method", "target", "body", "status", "member"),
    [
        ("identity", "GET", "/v1/users/2", b"", 200, ("user", {"id": 2, "name": "Grace"})),
        ("identity", "GET", "/v1/users/9", b"", 404, ("error", "no such user; there are 1 and 2")),
        ("identity", "POST", "/v1/users", b'{"name":"Joan"}', 201, ("created", {"id": 3, "name": "Joan"})),
        ("identity", "POST", "/v1/users", b"[not json", 201, ("created", {"id": 3, "name": "Edith"})),
        ("auth", "POST", "/v1/auth/login", b'{"name":"ada","password":"demo"}', 200, ("flow", "complete")),
        ("auth", "POST", "/v1/auth/login", b'{"name":"ada"}', 401, ("service", "auth")),
        ("oauth2", "GET", "/oidc/v1/userinfo", b"", 401, ("service", "oauth2")),
        ("admin", "GET", "/v1/admin/tenants", b"", 200, ("tenants", DEMO_TENANTS)),
        ("session", "DELETE", "/v1/sessions", b"", 200, ("sessions", [])),
    ],
)
def test_the_answers(service, method, target, body, status, member):
    got, head, rest = Service(service).ask(target, method, body)
    assert got == status
    name, value = member
    assert json.loads(rest)[name] == value
    assert ("www-authenticate: bearer" in head) == (status == 401)


def test_head_has_no_body():
    status, head, body = Service("identity").ask("/v1/users", "HEAD")
    assert (status, body) == (200, b"")
    assert "content-length: " in head


class Events(Service):
    """A client that listens to the identity service's events."""

    def __init__(self, demo, clock):
        super().__init__("identity", demo)
        self.clock = clock
        self.channel.dataReceived(b"GET /v1/users/events HTTP/1.1\r\n%b\r\n" % FORWARDED)

    def heard(self):
        value = self.transport.value()
        self.transport.clear()
        return value

    def leave(self):
        self.channel.connectionLost(Failure(ConnectionDone()))


def test_events_tick_until_the_client_leaves():
    clock = Clock()
    events = Events(DemoServices(clock), clock)
    first = events.heard()
    assert b"text/event-stream" in first.lower()
    assert b'event: tick\nid: 1\ndata: {"tick": 1, "tenant": "acme"}\n\n' in first
    clock.advance(1)
    assert b'{"tick": 2, ' in events.heard()
    events.leave()
    clock.advance(1)
    assert events.heard() == b""
    assert clock.getDelayedCalls() == []


def test_stopping_ends_the_events():
    clock = MemoryReactorClock()
    demo = DemoServices(clock)
    events = Events(demo, clock)
    demo.stop()
    assert events.heard().endswith(b"0\r\n\r\n")
    events.leave()
    assert clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_the_services_listen_on_loopback_and_stop():
    demo = DemoServices(reactor)
    urls = await demo.start()
    assert list(urls) == list(SERVICES)
    assert len(set(urls.values())) == len(SERVICES)
    for name, url in urls.items():
        assert url.startswith("http://127.0.0.1:")
        response = await treq.get(f"{url}/v1/{name}", persistent=False)
        assert (await response.json())["service"] == name
    await demo.stop()
    with pytest.raises(ConnectionRefusedError):
        await treq.get(urls["identity"], persistent=False)
    await demo.stop()


def test_the_configuration_is_toml_with_these_services(tmp_path):
    urls = {name: f"http://127.0.0.1:{port}" for port, name in enumerate(SERVICES, 5001)}
    settings = tomllib.loads(demo_settings(urls))
    assert settings["services"] == urls
    assert settings["tenants"]["base_domain"] == "id.localhost"
    assert settings["cors"]["origins"] == ["https://app.example.com"]
    tenants = tomllib.loads(demo_tenants())["tenant"]
    assert {tenant["slug"]: tenant["status"] for tenant in tenants} == {
        "acme": "active",
        "globex": "active",
        "closed": "suspended",
    }
    path = write_demo(tmp_path, urls)
    assert tomllib.loads(path.read_text()) == settings
    registry = path.parent / settings["tenants"]["registry"]
    assert tomllib.loads(registry.read_text())["tenant"] == tenants


def test_there_are_three_lines_for_a_port():
    for line in curl_lines(8443):
        words = shlex.split(line)
        assert words[:2] == ["curl", "-sk"]
        assert words[-1].startswith("https://")
        assert ".id.localhost:8443/" in words[-1]
    assert [shlex.split(line)[:2] for line in curl_lines(8080, secure=False)] == [["curl", "-s"]] * 3
    assert "http://acme.id.localhost:8080/v1/users" in curl_lines(8080, secure=False)[0]


@pytest_twisted.ensureDeferred
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_a_shell_s_curl_takes_the_lines_as_they_are(tmp_path):
    """Before a stand-in service instead of the gateway: names, TLS and quoting are what is tried here."""

    class NoTls:
        certificates = None
        default = ""
        client_ca = None
        client_auth = ()
        strict_sni = False

    endpoint, _ = server_endpoint(reactor, "ssl:0:interface=127.0.0.1", NoTls, tmp_path, "id.localhost")
    site = DemoServices(reactor).site("oauth2")
    port = await endpoint.listen(site)
    try:
        for line in curl_lines(port.getHost().port):
            out, err, code = await getProcessOutputAndValue("/bin/sh", ["-c", line], env={"PATH": "/usr/bin:/bin"})
            assert (code, err) == (0, b"")
            assert b'"issuer": "https://' in out
    finally:
        await port.stopListening()
