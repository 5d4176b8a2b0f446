"""The admin endpoint: each page by a real site over an in-memory connection."""

from __future__ import annotations

import json

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from koder_gateway.ops.admin import admin_resource, admin_site
from koder_gateway.ops.metrics import Counters, make_registry, render


class Admin:
    """An admin site whose readiness is a list that the test changes."""

    def __init__(self):
        self.reasons = []
        self.counters = Counters()
        registry = make_registry(self.counters, version="1.2.3")
        self.clock = Clock()
        self.site = admin_site(admin_resource(lambda: self.reasons, lambda: render(registry)), self.clock)

    def ask(self, path, method=b"GET"):
        """Send one request; the answer's status, headers by lower-case name, and body."""
        channel = self.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 4711))
        transport = StringTransport()
        channel.makeConnection(transport)
        channel.dataReceived(b"%b %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % (method, path))
        head, _, body = transport.value().partition(b"\r\n\r\n")
        status, *lines = head.split(b"\r\n")
        headers = {name.lower(): value for name, value in (line.split(b": ", 1) for line in lines)}
        return int(status.split()[1]), headers, body


@pytest.fixture
def admin():
    return Admin()


def test_it_lives(admin):
    admin.reasons = ["draining"]
    status, headers, body = admin.ask(b"/healthz")
    assert (status, body) == (200, b"ok\n")
    assert headers[b"content-type"] == b"text/plain; charset=utf-8"


def test_it_is_ready(admin):
    assert admin.ask(b"/readyz")[0] == 200


def test_it_says_that_it_drains(admin):
    admin.reasons = ["draining"]
    status, headers, body = admin.ask(b"/readyz")
    assert status == 503
    assert headers[b"content-type"] == b"application/problem+json"
    problem = json.loads(body)
    assert problem["code"] == "draining"
    assert problem["type"] == "urn:koder-gateway:draining"
    assert problem["status"] == 503
    assert problem["reasons"] == ["draining"]


def test_it_says_why_it_is_not_ready(admin):
    admin.reasons = ["the tenant registry has not been read", "no port is open"]
    status, _, body = admin.ask(b"/readyz")
    assert status == 503
    problem = json.loads(body)
    assert problem["code"] == "not_ready"
    assert problem["detail"] == "the tenant registry has not been read; no port is open"
    assert problem["reasons"] == admin.reasons


def test_the_metrics_are_those_of_now(admin):
    admin.counters.connections = 3
    status, headers, body = admin.ask(b"/metrics")
    assert status == 200
    assert headers[b"content-type"] == b"text/plain; version=0.0.4; charset=utf-8"
    assert b"\nkoder_gateway_connections_total 3.0\n" in body


@pytest.mark.parametrize("path", [b"/healthz", b"/readyz", b"/metrics"])
def test_head_has_the_length_and_no_body(admin, path):
    status, headers, body = admin.ask(path, b"HEAD")
    assert status == 200
    assert int(headers[b"content-length"]) > 0
    assert body == b""


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"BREW"])
@pytest.mark.parametrize("path", [b"/healthz", b"/metrics", b"/nowhere"])
def test_only_get_and_head(admin, method, path):
    status, headers, body = admin.ask(path, method)
    assert status == 405
    assert headers[b"allow"] == b"GET, HEAD"
    assert json.loads(body)["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    "path", [b"/", b"//", b"/nowhere", b"/healthz/", b"/healthz/x", b"/metrics/../healthz", b"/v1/users"]
)
def test_nothing_else_is_there(admin, path):
    status, headers, body = admin.ask(path)
    assert status == 404
    assert headers[b"content-type"] == b"application/problem+json"
    assert json.loads(body)["status"] == 404


@pytest.mark.parametrize("path", [b"/healthz", b"/nowhere"])
def test_it_does_not_say_what_it_is_made_of(admin, path):
    _, headers, _ = admin.ask(path)
    assert b"server" not in headers
    assert headers[b"cache-control"] == b"no-store"
