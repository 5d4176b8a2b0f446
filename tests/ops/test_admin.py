"""The admin endpoint: each page by a real site over an in-memory connection."""

from __future__ import annotations

import json

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from koder_gateway.ops.admin import admin_pages
from koder_gateway.ops.admin_channel import IDLE, MAX_CONNECTIONS, MAX_HEAD, PATIENCE, AdminFactory
from koder_gateway.ops.counters import Counters
from koder_gateway.ops.metrics import make_registry, render
from koder_gateway.reactor.turns import ARRIVALS, Turns, turns_of


class Admin:
    """An admin site whose readiness is a list that the test changes."""

    def __init__(self):
        self.reasons = []
        self.counters = Counters()
        registry = make_registry(self.counters, version="1.2.3")
        self.clock = Clock()
        pages = admin_pages(lambda: self.reasons, lambda: render(registry))
        self.site = AdminFactory(pages, self.clock, lambda: ["ops.example"])
        self.site.turns.time = self.clock.seconds

    def ask(self, path, method=b"GET", more=b""):
        """Send one request; the answer's status, headers by lower-case name, and body."""
        channel = self.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 4711))
        transport = StringTransport()
        channel.makeConnection(transport)
        line = b"%b %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" % (method, path)
        channel.dataReceived(b"%b%b\r\n" % (line, more))
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
    assert problem["type"] == "https://docs.koder.dev/gateway/errors/draining"
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


@pytest.mark.parametrize("reasons", [[], ["draining", "not started"]])
@pytest.mark.parametrize(
    ("path", "more"),
    [
        (b"/readyz?format=json", b""),
        (b"/readyz?a=b&format=json", b"Accept: */*\r\n"),
        (b"/readyz", b"Accept: application/json\r\n"),
        (b"/", b"Accept: application/json\r\n"),
    ],
)
def test_readiness_as_json_has_the_same_members_in_both_cases(admin, path, more, reasons):
    admin.reasons = reasons
    status, headers, body = admin.ask(path, more=more)
    assert status == (503 if reasons else 200)
    assert headers[b"content-type"] == b"application/json"
    assert json.loads(body) == {"ready": not reasons, "reasons": reasons}
    assert admin.ask(path, b"HEAD", more)[2] == b""
    assert admin.ask(b"/readyz", more=b"Accept: */*\r\n")[1][b"content-type"] != b"application/json"


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


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"TRACE", b"BREW"])
@pytest.mark.parametrize("path", [b"/healthz", b"/metrics", b"/nowhere"])
def test_nothing_is_changed_here(admin, method, path):
    status, headers, body = admin.ask(path, method)
    assert status == 405
    assert headers[b"allow"] == b"GET, HEAD, OPTIONS"
    problem = json.loads(body)
    assert problem["code"] == "method_not_allowed"
    assert "forward" not in problem["detail"], "POST is forwarded, on other ports"


@pytest.mark.parametrize("path", [b"/", b"/healthz", b"/readyz", b"/metrics", b"/nowhere"])
@pytest.mark.parametrize("reasons", [[], ["draining"], ["not started"]])
def test_options_is_good_where_get_is(admin, path, reasons):
    """By the status balancers go; without Host, as the old ones send it, too."""
    admin.reasons = reasons
    status, headers, body = admin.ask(path, b"OPTIONS")
    assert status == admin.ask(path)[0]
    assert int(headers[b"content-length"]) == len(body)
    if status == 200:
        assert (headers[b"allow"], body) == (b"GET, HEAD, OPTIONS", b"")
    for line in (b"", b"Host: 10.0.0.7:9090\r\n"):
        connection = Connection(admin)
        assert connection.send(b"OPTIONS %b HTTP/1.0\r\n%b\r\n" % (path, line)) == [status]
        assert not connection.open
    misdirected = b"OPTIONS %b HTTP/1.0\r\nHost: evil.example\r\n\r\n" % path
    assert Connection(admin).send(misdirected) == [421]


@pytest.mark.parametrize("reasons", [[], ["draining"]])
def test_a_probe_that_names_no_path_asks_for_readiness(admin, reasons):
    admin.reasons = reasons
    ready = admin.ask(b"/readyz")
    assert ready[0] == (503 if reasons else 200)
    assert (admin.ask(b"/")[0], admin.ask(b"/")[2]) == (ready[0], ready[2])
    assert Connection(admin).send(b"OPTIONS / HTTP/1.0\r\n\r\n") == [ready[0]]


@pytest.mark.parametrize("path", [b"//", b"/nowhere", b"/healthz/", b"/healthz/x", b"/v1/users"])
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


# -- who may ask


def request(host, *, version=b"1.1", path=b"/healthz", more=b""):
    line = b"" if host is None else b"Host: %b\r\n" % host
    return b"GET %b HTTP/%b\r\n%b%b\r\n" % (path, version, line, more)


def statuses(data):
    """The statuses in a stream of answers."""
    return [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]]


class Connection:
    """An in-memory connection to the admin port; its transport says what was done with it."""

    def __init__(self, admin, address=None):
        self.channel = admin.site.buildProtocol(address or IPv4Address("TCP", "127.0.0.1", 4711))
        self.transport = StringTransport()
        self.channel.makeConnection(self.transport)

    def send(self, data):
        self.channel.dataReceived(data)
        return statuses(self.transport.value())

    @property
    def open(self):
        return not (self.transport.disconnecting or self.transport.disconnected)


@pytest.mark.parametrize(
    "host",
    [b"localhost", b"LOCALHOST:9090", b"127.0.0.1", b"10.0.0.7:9090", b"[::1]", b"[fe80::1]:1", b"ops.example:9090"],
)
def test_hosts_that_are_its_own(admin, host):
    assert Connection(admin).send(request(host)) == [200]


@pytest.mark.parametrize("host", [b"evil.example", b"localhost.evil.example", b"ops.example.evil.example:9090"])
def test_a_name_that_is_not_listed_is_misdirected(admin, host):
    """A page of such a name would be made to look like one of this port's (DNS rebinding)."""
    connection = Connection(admin)
    assert connection.send(request(host, path=b"/metrics")) == [421]
    assert b"koder_gateway_connections_total" not in connection.transport.value()
    assert b'"code": "misdirected_request"' in connection.transport.value()


def test_old_probes_need_no_host(admin):
    connection = Connection(admin)
    assert connection.send(request(None, version=b"1.0")) == [200]
    assert not connection.open
    assert Connection(admin).send(request(b"evil.example", version=b"1.0")) == [421]
    assert Connection(admin).send(request(None)) == [400]


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_an_empty_host_is_nobody_s_name(admin, version):
    """What probes send that know no name (RFC 9112 section 3.2); no browser does, so nobody is led here with it."""
    for host in (b"", b"  "):
        assert Connection(admin).send(request(host, version=version)) == [200]
        assert Connection(admin).send(request(host, version=version, path=b"/nowhere")) == [404]
    twice = request(b"", version=version, more=b"Host: localhost\r\n")
    assert Connection(admin).send(twice) == [400]
    for target in (b"http://evil.example/metrics", b"http://evil.example"):
        connection = Connection(admin)
        assert connection.send(request(b"", version=version, path=target))[0] in (400, 421)
        assert b"koder_gateway_connections_total" not in connection.transport.value()
    assert Connection(admin).send(request(b":9100", version=version)) == [400]


@pytest.mark.parametrize("reasons", [[], ["draining"]])
@pytest.mark.parametrize(
    "sent",
    [
        b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n",
        b"OPTIONS * HTTP/1.0\r\n\r\n",
        b"OPTIONS http://localhost HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"OPTIONS /metrics HTTP/1.1\r\nHost: localhost\r\nMax-Forwards: 0\r\n\r\n",
    ],
)
def test_options_of_the_port_itself_asks_for_readiness(admin, sent, reasons):
    admin.reasons = reasons
    connection = Connection(admin)
    assert connection.send(sent) == [admin.ask(b"/", b"OPTIONS")[0]]
    assert b"\r\nAllow: GET, HEAD, OPTIONS\r\n" in connection.transport.value()
    foreign = b"OPTIONS * HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    assert Connection(admin).send(foreign) == [421]


def test_behind_a_unix_socket_any_host_is_fine(admin):
    assert Connection(admin, UNIXAddress(b"/run/admin")).send(request(b"evil.example")) == [200]


# -- what it takes of a client


def post(fields, body=b""):
    return b"POST /healthz HTTP/1.1\r\nHost: localhost\r\n%b\r\n%b" % (fields, body)


def test_a_small_body_is_read_and_forgotten(admin):
    connection = Connection(admin)
    assert connection.send(post(b"Content-Length: 1024\r\n", b"x" * 1024) + request(b"localhost")) == [405, 200]
    chunked = post(b"Transfer-Encoding: chunked\r\n", b"400\r\n" + b"x" * 1024 + b"\r\n0\r\n\r\n")
    assert connection.send(chunked + request(b"localhost")) == [405, 200, 405, 200]
    assert connection.open


@pytest.mark.parametrize(
    "sent",
    [
        post(b"Content-Length: 1025\r\n"),
        post(b"Content-Length: 314572800\r\nExpect: 100-continue\r\n"),
        post(b"Transfer-Encoding: chunked\r\n", b"401\r\n" + b"x" * 1025),
        post(b"Transfer-Encoding: chunked\r\n", b"200\r\n" + b"x" * 512 + b"\r\n201\r\n" + b"x" * 513),
        request(b"localhost", more=b"Content-Length: 1025\r\n"),
    ],
)
def test_a_larger_one_is_refused_as_soon_as_that_is_known(admin, sent):
    connection = Connection(admin)
    assert connection.send(sent) == [413]
    assert not connection.open
    assert connection.send(b"x" * 100_000) == [413], "what follows is forgotten"


def test_nobody_is_told_to_send_a_body(admin):
    connection = Connection(admin)
    assert connection.send(post(b"Content-Length: 5\r\nExpect: 100-continue\r\n")) == [405]
    assert not connection.open


@pytest.mark.parametrize("body", [b"x\r\n", b"5;" + b"a" * 5000 + b"\r\n", b"1\r\nx\r\n" * 1000])
def test_broken_or_dear_chunks_end_it(admin, body):
    connection = Connection(admin)
    (status,) = connection.send(post(b"Transfer-Encoding: chunked\r\n", body))
    assert status in (400, 413)
    assert not connection.open


def test_a_head_is_bounded(admin):
    connection = Connection(admin)
    assert connection.send(b"GET / HTTP/1.1\r\n" + b"a" * MAX_HEAD) == [431]
    assert not connection.open
    assert Connection(admin).send(request(b"localhost", more=b"a: b\r\n" * 101)) == [431]


def test_a_head_that_drips_in_has_a_deadline(admin):
    connection = Connection(admin)
    for byte in request(b"localhost")[:8]:
        connection.send(bytes((byte,)))
        admin.clock.advance(PATIENCE / 9)
    assert connection.open
    admin.clock.advance(PATIENCE / 8)
    assert statuses(connection.transport.value()) == [408]
    assert not connection.open


def test_a_connection_that_does_nothing_ends(admin):
    connection = Connection(admin)
    admin.clock.advance(PATIENCE)
    assert connection.transport.disconnected
    connection = Connection(admin)
    connection.send(request(b"localhost"))
    admin.clock.advance(IDLE - 1)
    assert connection.send(request(b"localhost")) == [200, 200]
    admin.clock.advance(IDLE)
    assert connection.transport.disconnected
    connection.channel.connectionLost()
    assert not admin.clock.getDelayedCalls()


def test_who_does_not_read_is_not_read_from_and_ends(admin):
    connection = Connection(admin)
    connection.channel.pauseProducing()
    assert connection.send(request(b"localhost") * 3) == []
    assert connection.transport.producerState == "paused"
    connection.channel.resumeProducing()
    admin.clock.advance(0)
    assert statuses(connection.transport.value()) == [200] * 3
    assert connection.transport.producerState == "producing"
    connection.channel.pauseProducing()
    admin.clock.advance(PATIENCE)
    assert connection.transport.disconnected


def test_requests_that_are_sent_ahead_have_turns_with_others(admin):
    """Whatever is done takes longer than a slice here."""
    asked = []
    admin.site.turns = Turns(asked.append, iter(range(10**6)).__next__, bounded=False)
    connection, other = Connection(admin), Connection(admin)
    answered = [len(connection.send(request(b"localhost") * 3))]
    assert connection.transport.producerState == "paused"
    assert len(asked) == 1, "others come first"
    while asked:
        asked.pop()()
        answered.append(len(statuses(connection.transport.value())))
    assert sorted(set(answered)) == [0, 1, 2, 3], "never two at once"
    assert connection.transport.producerState == "producing"
    assert other.send(request(b"localhost")) == [200]


def test_of_too_many_connections_the_quietest_ends(admin):
    connections = [Connection(admin) for _ in range(MAX_CONNECTIONS)]
    connections[0].send(request(b"localhost"))
    late = Connection(admin)
    assert late.send(request(b"localhost")) == [200]
    assert connections[1].transport.disconnected
    assert [connection.transport.disconnected for connection in connections].count(True) == 1
    assert len(admin.site) == MAX_CONNECTIONS


def test_what_comes_late_in_a_turn_is_answered_in_a_later_one(admin):
    calls, now = [], [0.0]
    turns = admin.site.turns = Turns(calls.append, lambda: now[0])
    assert not turns.over()
    now[0] += 2 * ARRIVALS
    connection = Connection(admin)
    assert connection.send(request(b"localhost")) == []
    assert connection.transport.producerState == "paused"
    while calls:
        calls.pop(0)()
    assert statuses(connection.transport.value()) == [200]
    assert connection.transport.producerState == "producing"


def test_a_probe_does_not_wait_for_clients(admin):
    clients = turns_of(admin.clock)
    for _ in range(1000):
        clients.later(lambda: None)
    assert not len(admin.site.turns)
    assert Connection(admin).send(request(b"localhost")) == [200]
