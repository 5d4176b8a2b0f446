"""The edge as it is run: the plain port beside the main one, and balancers before it, in processes of their own."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import ssl
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as the_reactor
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory

from koder_gateway.config import Settings
from koder_gateway.listening.endpoints import Endpoints
from tests.kit.balancer import haproxy
from tests.kit.clients import HOST, Client, request
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.http1 import Message
from tests.kit.proxy_headers import summed
from tests.kit.services import Origin, Peer, answer
from tests.kit.waiting import PATIENCE, until
from tests.listening.test_endpoints import Greeter, Listener
from tests.service.test_lifecycle import LIMIT, attempt, refused, reload

LOOPBACK = GatewayProcess.PLAIN
OPEN = "koder_gateway_connections_open"
CLIENT = "203.0.113.7"
LINE = b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 443\r\n"
BLOCK = summed(bytes((203, 0, 113, 7, 192, 0, 2, 1)) + struct.pack("!HH", 50000, 443))
reactors = pytest.mark.parametrize("reactor", ["uvloop", "epoll"])


class Recorder:
    """A service that keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[Message] = []

    def play(self, peer: Peer, number: int) -> None:
        while (received := peer.head()) is not None:
            peer.body(received)
            self.requests.append(received)
            peer.send(answer(b"ok"))


# -- the plain port


def test_certbot_renews_while_the_gateway_runs(tmp_path: Path) -> None:
    """What `certbot renew --webroot` does: a file for each name, asked for by the authority, then removed."""
    webroot = tmp_path / "webroot"
    webroot.mkdir()
    with Origin() as origin:
        config = configuration({"a": origin.url}, {"tls": {"acme_webroot": "webroot"}})
        with (
            GatewayProcess(tmp_path, config, ports=(GatewayProcess.TLS,), redirects=(LOOPBACK,)) as gateway,
            gateway.connect(1) as authority,
            gateway.connect(0, tls=True) as client,
        ):
            folder = webroot / ".well-known" / "acme-challenge"
            folder.mkdir(parents=True)
            for name, proof in (("one", b"one.key"), ("two", b"two.key")):
                path = f"/.well-known/acme-challenge/{name}"
                assert authority.ask("GET", path).code == "no_route"
                (folder / name).write_bytes(proof)
                seen = authority.ask("GET", path)
                assert (seen.status, seen.body, seen.get("content-type")) == (200, proof, "text/plain")
                (folder / name).unlink()
            shutil.rmtree(webroot / ".well-known")
            assert authority.ask("GET", "/.well-known/acme-challenge/one").code == "no_route"
            seen = authority.ask("POST", "/a?b=%2F", body=b"x" * 10)
            assert (seen.status, seen.get("location")) == (308, f"https://{HOST}/a?b=%2F")
            assert client.ask("GET", "/a").status == 200
            metrics = gateway.metrics()
            assert metrics[OPEN] == 2
            assert metrics['koder_gateway_requests_total{service="",status="3xx"}'] == 1
        lines = [(line["path"], line["status"], line["tenant"], line["client"]) for line in gateway.access()]
        assert ("/a", 308, "acme", "127.0.0.1") in lines


def test_a_reload_takes_another_webroot_and_other_tenants(tmp_path: Path) -> None:
    for name in ("old", "new"):
        folder = tmp_path / name / ".well-known" / "acme-challenge"
        folder.mkdir(parents=True)
        (folder / "x").write_text(name)
    tenants = tmp_path / "tenants.toml"
    tenants.write_text('[[tenant]]\nslug = "acme"\n')

    def config(webroot: str) -> str:
        return configuration(
            {"a": "http://127.0.0.1:9"},
            {"tls": {"acme_webroot": webroot}, "tenants": {"registry": "tenants.toml"}, "listen": {}},
        )

    with GatewayProcess(tmp_path, config("old"), redirects=(LOOPBACK,)) as gateway, gateway.connect(1) as client:
        assert client.ask("GET", "/.well-known/acme-challenge/x").body == b"old"
        assert client.ask("GET", "/a").status == 308
        tenants.write_text('[[tenant]]\nslug = "globex"\n')
        reload(gateway, config("new"))
        assert client.ask("GET", "/.well-known/acme-challenge/x").body == b"new"
        assert client.ask("GET", "/a").code == "unknown_tenant"


def test_the_end_waits_for_the_plain_port_too(tmp_path: Path) -> None:
    with (
        GatewayProcess(tmp_path, configuration({"a": "http://127.0.0.1:9"}), redirects=(LOOPBACK,)) as gateway,
        gateway.connect(1) as client,
        gateway.connect(1) as idle,
    ):
        assert idle.ask("GET", "/").status == 308
        client.send(request("GET", "/a")[:-2])
        until(lambda: gateway.metrics()[OPEN] == 2, "both are connected")
        gateway.signal(signal.SIGTERM)
        idle.assert_closed()
        refused(gateway)
        client.send(b"\r\n")
        seen = client.read()
        assert (seen.status, seen.get("connection")) == (308, "close")
        assert gateway.process.wait(PATIENCE) == 0


def test_the_settings_name_plain_ports_too(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        (tmp_path / "koder-gateway.toml").write_text(
            configuration(
                {"a": "http://127.0.0.1:9"},
                {"listen": {"redirect_port": f"tcp:{number}:interface=127.0.0.1"}, "tls": {"certificates": ""}},
            )
        )
        words = ("--config", tmp_path / "koder-gateway.toml", "--port", LOOPBACK)
        done = attempt(*words)
        assert done.returncode == 1
        assert f'endpoint "tcp:{number}:interface=127.0.0.1": cannot listen' in done.stderr
        # The command line wins.
        done = attempt(*words, "--redirect-port", "ssl:0")
        assert done.returncode == 1
        assert 'endpoint "ssl:0": speaks TLS, and a redirect port must not; write it as in "tcp:80"' in done.stderr


# -- behind balancers


def proxied(gateway: GatewayProcess, header: bytes, *, tls: bool) -> Client:
    """A client behind a balancer that sends this header, in one segment with what the client sends first."""
    connection = socket.create_connection(("127.0.0.1", gateway.ports[0]), PATIENCE)
    if not tls:
        connection.sendall(header)
        return Client(connection)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    handshake = gateway.trust().wrap_bio(incoming, outgoing, server_hostname=HOST)
    with contextlib.suppress(ssl.SSLWantReadError):
        handshake.do_handshake()
    connection.sendall(header + outgoing.read())
    return Client(_OverBio(connection, handshake, incoming, outgoing))  # type: ignore[arg-type]


class _OverBio:
    """As much of a socket as `Client` needs, over TLS whose first bytes have been sent already."""

    def __init__(
        self, connection: socket.socket, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
    ) -> None:
        self._connection, self._tls, self._incoming, self._outgoing = connection, tls, incoming, outgoing
        self._do(tls.do_handshake)

    def _do(self, call: Any, *arguments: Any) -> Any:
        while True:
            try:
                result = call(*arguments)
            except ssl.SSLWantReadError:
                self._connection.sendall(self._outgoing.read())
                data = self._connection.recv(65536)
                if not data:
                    return b""
                self._incoming.write(data)
            else:
                self._connection.sendall(self._outgoing.read())
                return result

    def sendall(self, data: bytes) -> None:
        self._do(self._tls.write, data)

    def recv(self, size: int) -> bytes:
        try:
            data: bytes = self._do(self._tls.read, size)
        except ssl.SSLZeroReturnError:
            return b""
        return data

    def close(self) -> None:
        self._connection.close()


@reactors
@pytest.mark.parametrize("header", [LINE, BLOCK], ids=["version 1", "version 2"])
@pytest.mark.parametrize("kind", ["tcp", "ssl", "tls"])
def test_everything_above_sees_whom_the_balancer_names(
    tmp_path: Path, kind: str, header: bytes, reactor: str
) -> None:
    limits = LIMIT.replace('key = ["tenant"]', 'key = ["ip"]')
    service = Recorder()
    with Origin(service.play) as origin:
        config = configuration({"a": origin.url}, None, limits)
        with GatewayProcess(
            tmp_path, config, ports=(f"haproxy:{kind}:0:interface=127.0.0.1",), reactor=reactor
        ) as gateway:
            with proxied(gateway, header, tls=kind != "tcp") as client:
                assert [client.ask("GET", "/a/limited").status for _ in range(4)] == [200, 200, 200, 429]
                seen = service.requests[0]
                assert seen.get("x-forwarded-for") == CLIENT
                assert seen.get("forwarded").startswith(f"for={CLIENT};")
            other = header.replace(b"203.0.113.7", b"203.0.113.8")
            if other != header:
                with proxied(gateway, other, tls=kind != "tcp") as client:
                    assert client.ask("GET", "/a/limited").status == 200
            large = b"z" * (4 << 20)
            with proxied(gateway, header, tls=kind != "tcp") as client:
                assert client.ask("POST", "/a", body=large).status == 200
            until(lambda: gateway.metrics()[OPEN] == 0, "every connection is gone")
        assert {line["client"] for line in gateway.access()} <= {CLIENT, "203.0.113.8"}


@pytest_twisted.ensureDeferred
async def test_a_balancer_on_a_unix_socket(tmp_path: Path) -> None:
    endpoints = Endpoints(the_reactor, Settings().tls, tmp_path, "id.localhost")
    endpoint, secure = endpoints.server(f"haproxy:unix:{tmp_path}/door")
    assert not secure
    port = await endpoint.listen(Factory.forProtocol(Greeter))
    try:
        client = UNIXClientEndpoint(the_reactor, f"{tmp_path}/door")
        listener = await connectProtocol(client, Listener())
        listener.transport.write(LINE)
        assert await listener.done == CLIENT.encode()
    finally:
        await port.stopListening()


@reactors
def test_what_comes_without_a_header_is_closed_and_said(tmp_path: Path, reactor: str) -> None:
    ports = ("haproxy:tcp:0:interface=127.0.0.1", "haproxy:ssl:0:interface=127.0.0.1")
    config = configuration({"a": "http://127.0.0.1:9"})
    with GatewayProcess(tmp_path, config, ports=ports, reactor=reactor) as gateway:
        with gateway.connect(0) as silent, gateway.connect(0) as plain, gateway.connect(1) as hello:
            until(lambda: gateway.metrics()[OPEN] == 3, "they count")
            plain.send(request("GET", "/a"))
            plain.assert_closed()
            hello.send(b"\x16\x03\x01\x00\x05hello")
            hello.assert_closed()
            silent.assert_closed()
        with gateway.connect(0) as broken:
            broken.send(b"PROXY TCP4 1")
            until(lambda: gateway.metrics()[OPEN] == 1, "it counts")
        said = "connection from 127.0.0.1 on a haproxy: endpoint closed: {}"
        until(lambda: said.format("it closed before its header was complete") in gateway.log(), "it is told")
        log = gateway.log()
        for says in ("something else arrived", "TLS began without a PROXY header", "nothing came within 3 seconds"):
            assert said.format(says) in log
        assert gateway.metrics()[OPEN] == 0
    assert gateway.access() == []


def test_only_trusted_balancers_come_in_and_a_reload_says_who(tmp_path: Path) -> None:
    service = Recorder()
    with Origin(service.play) as origin:

        def config(*proxies: str) -> str:
            return configuration({"a": origin.url}, {"listen": {"trusted_proxies": list(proxies)}})

        door = ("haproxy:tcp:0:interface=127.0.0.1",)
        with GatewayProcess(tmp_path, config("192.0.2.0/24"), ports=door) as gateway:
            with gateway.connect() as stranger:
                stranger.assert_closed()
            assert "connection from 127.0.0.1 on a haproxy: endpoint closed: it is not in listen." in gateway.log()
            reload(gateway, config("127.0.0.0/8"))
            with proxied(gateway, LINE, tls=False) as client:
                # The client that the header names is no proxy: what it says of itself is dropped.
                assert client.ask("GET", "/a", "X-Forwarded-For: 1.2.3.4").status == 200
                assert service.requests[0].get("x-forwarded-for") == CLIENT


# -- behind proxies

IPV4, IPV6 = "198.51.100.7", "2001:db8::7"
WAYS = {
    "directly": ((), "127.0.0.1", "127.0.0.1"),
    "a proxy": ((f"X-Forwarded-For: {IPV4}",), IPV4, f"{IPV4}, 127.0.0.1"),
    "IPv6 with a port": ((f"X-Forwarded-For: [{IPV6}]:4711",), IPV6, f"{IPV6}, 127.0.0.1"),
    "IPv4 within IPv6": ((f"X-Forwarded-For: ::ffff:{IPV4}",), IPV4, f"{IPV4}, 127.0.0.1"),
    "a claim of the client's": (
        (f"X-Forwarded-For: 6.6.6.6, {IPV4}, 127.0.0.2",),
        IPV4,
        f"{IPV4}, 127.0.0.2, 127.0.0.1",
    ),
    "Forwarded": ((f'Forwarded: for=6.6.6.6, for="[{IPV6}]:1";proto=https',), IPV6, f"{IPV6}, 127.0.0.1"),
    "hidden": (("Forwarded: for=6.6.6.6, for=_hidden",), "127.0.0.1", "127.0.0.1"),
    "unknown": (("X-Forwarded-For: 6.6.6.6, unknown",), "127.0.0.1", "127.0.0.1"),
    "two that differ": ((f"X-Forwarded-For: {IPV4}", "Forwarded: for=6.6.6.6"), "127.0.0.1", "127.0.0.1"),
}
ONE_EACH = '[[limits]]\nname = "one"\nkey = ["ip"]\nrate = "1/h"\nburst = 1\npaths = ["/a"]\n'


@pytest.mark.parametrize("door", [LOOPBACK, "tcp6:0:interface=\\:\\:"], ids=["IPv4", "both families at once"])
def test_log_limits_and_services_see_the_same_client(tmp_path: Path, door: str) -> None:
    service = Recorder()
    with Origin(service.play) as origin:
        config = configuration({"a": origin.url}, {"listen": {"trusted_proxies": ["127.0.0.0/8"]}}, ONE_EACH)
        with GatewayProcess(tmp_path, config, ports=(door,)) as gateway:
            seen: set[str] = set()
            for fields, client, way in WAYS.values():
                with gateway.connect() as connection:
                    status = connection.ask("GET", "/a", *fields).status
                # One request for each address: the second is over the limit, whatever named it.
                assert status == (429 if client in seen else 200)
                if status == 200:
                    told = service.requests[-1]
                    assert told.get("x-forwarded-for") == way
                    assert (told.get("forwarded") or "").count("for=") == way.count(",") + 1
                    assert (told.get("forwarded") or "").startswith(("for=" + client, f'for="[{client}]'))
                seen.add(client)
        assert [line["client"] for line in gateway.access()] == [client for _, client, _ in WAYS.values()]


HAPROXY = """
global
    log stdout format raw local0
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
{listeners}
"""
LISTENER = """
listen to_{name}
    bind {door}
    server gateway 127.0.0.1:{to} {options}
"""
OPTIONS = {
    "one": "send-proxy",
    "two": "send-proxy-v2",
    "checksum": "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority",
    "checked": "send-proxy-v2 check check-send-proxy inter 100ms",
}


def before(to: int, doors: Sequence[str]) -> str:
    """HAProxy's configuration before that port, with a listener for each of OPTIONS."""
    named = zip(OPTIONS.items(), doors, strict=True)
    listeners = [LISTENER.format(name=name, door=door, to=to, options=options) for (name, options), door in named]
    return HAPROXY.format(listeners="".join(listeners))


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="HAProxy is not installed")
@pytest.mark.parametrize("kind", ["tcp", "ssl"])
def test_a_real_haproxy(tmp_path: Path, kind: str) -> None:
    service = Recorder()
    with Origin(service.play) as origin:
        config = configuration({"a": origin.url}, {"listen": {"trusted_proxies": ["127.0.0.1/32"]}})
        door = (f"haproxy:{kind}:0:interface=127.0.0.1",)
        with (
            GatewayProcess(tmp_path, config, ports=door) as gateway,
            haproxy(tmp_path, lambda doors: before(gateway.ports[0], doors), len(OPTIONS)) as ports,
        ):
            for port in ports:
                # An address of its own tells the client from the balancer, which comes from 127.0.0.1.
                connection = socket.create_connection(("127.0.0.1", port), PATIENCE, ("127.0.0.77", 0))
                if kind == "ssl":
                    connection = gateway.trust().wrap_socket(connection, server_hostname=HOST)
                with Client(connection) as client:
                    assert client.ask("POST", "/a", body=b"z" * 100_000).status == 200
                    assert client.ask("GET", "/a").status == 200
            assert {seen.get("x-forwarded-for") for seen in service.requests} == {"127.0.0.77"}
            assert len(service.requests) == 2 * len(OPTIONS)
        assert "haproxy: endpoint closed" not in gateway.log()
        assert {line["client"] for line in gateway.access()} == {"127.0.0.77"}


@pytest.mark.parametrize("reactor", ["uvloop", "epoll"])
def test_a_tunnel_behind_a_balancer(tmp_path: Path, reactor: str) -> None:
    """The service gets every byte of it, and each side ends by itself."""
    got: list[bytes] = []

    def play(peer: Peer, number: int) -> None:
        assert peer.head() is not None
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
        while data := peer.more():
            got.append(data)
        peer.send(b"heard " + b"".join(got))

    with Origin(play) as origin:
        door = ("haproxy:tcp:0:interface=127.0.0.1",)
        with (
            GatewayProcess(tmp_path, configuration({"a": origin.url}), ports=door, reactor=reactor) as gateway,
            gateway.connect() as client,
        ):
            client.send(b"PROXY TCP4 198.51.100.7 192.0.2.1 50000 443\r\n")
            client.send(request("GET", "/a", "Connection: Upgrade", "Upgrade: raw"))
            assert client.head().status == 101
            for number in range(5):
                client.send(b"%d" % number * 1000)
            client.socket.shutdown(socket.SHUT_WR)
            assert client.rest() == b"heard " + b"".join(b"%d" % number * 1000 for number in range(5))
            (line,) = until(gateway.access, "the tunnel is logged")
            assert (line["client"], line["bytes_in"]) == ("198.51.100.7", 5000)


def test_the_plain_port_asks_no_browser_to_stay_on_tls(tmp_path: Path) -> None:
    """Not even one of which a trusted proxy says that it came over TLS."""
    sections = {"listen": {"trusted_proxies": ["127.0.0.1/32"]}}
    with (
        Origin() as origin,
        GatewayProcess(tmp_path, configuration({"a": origin.url}, sections), redirects=(LOOPBACK,)) as gateway,
    ):
        for port, status, field in ((0, 200, "max-age=31536000"), (1, 308, None)):
            with gateway.connect(port) as client:
                seen = client.ask("GET", "/a", "X-Forwarded-Proto: https")
                assert (seen.status, seen.get("strict-transport-security")) == (status, field)
