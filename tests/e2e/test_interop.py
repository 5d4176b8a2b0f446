"""Servers and clients of other make on both sides of the gateway, over loopback TLS: nginx, aiohttp, http.server;
treq, http.client, urllib, curl."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import treq
from treq.client import HTTPClient
from twisted.internet import reactor, ssl
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from koder_gateway import Gateway, load
from tests.kit.authority import write_certificate
from tests.kit.clients import HOST
from tests.kit.gateways import GatewayProcess, configuration, kill_quietly
from tests.kit.services import Origin, answer
from tests.kit.waiting import PATIENCE

NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
CURL = shutil.which("curl")
BIG = hashlib.shake_256(b"big").digest(3 << 20)
TEXT = b"".join(b"line %d of a text that packs well\n" % number for number in range(5000))

needs_curl = pytest.mark.skipif(CURL is None, reason="needs curl")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="needs nginx")

NGINX_CONFIGURATION = """
{user}
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log {folder}/requests.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 64m;
    keepalive_requests 5;
    absolute_redirect off;
    gzip on;
    gzip_types text/plain;
    gzip_proxied any;
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{secure} ssl;
        listen unix:{folder}/nginx.sock;
        ssl_certificate {folder}/certs/default.pem;
        ssl_certificate_key {folder}/certs/default.pem;
        root {folder}/files;
        default_type application/octet-stream;
        types {{ text/plain txt; }}
        location /nginx/put/ {{ dav_methods PUT DELETE; create_full_put_path on; }}
        location /nginx/moved {{ return 302 /nginx/text.txt; }}
        location = /nginx/none {{ return 204; }}
        location /nginx/small {{ client_max_body_size 1k; dav_methods PUT; }}
    }}
}}
"""

AIOHTTP_SERVER = """
import socket, sys
from aiohttp import web

folder = sys.argv[1]

async def echo(request):
    response = web.StreamResponse(headers={"X-Method": request.method})
    await response.prepare(request)
    async for piece in request.content.iter_chunked(65536):
        await response.write(piece)
    await response.write_eof()
    return response

async def count(request):
    total = 0
    async for piece in request.content.iter_any():
        total += len(piece)
    return web.json_response({"bytes": total, "tenant": request.headers.get("X-Tenant-ID")})

async def packed(request):
    response = web.Response(body=open(f"{folder}/aiohttp/text.txt", "rb").read(), content_type="text/plain")
    response.enable_compression()
    return response

async def cookies(request):
    response = web.Response(text="two")
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response

application = web.Application(client_max_size=1 << 30)
application.router.add_route("*", "/aiohttp/echo", echo)
application.router.add_post("/aiohttp/count", count)
application.router.add_get("/aiohttp/packed", packed)
application.router.add_get("/aiohttp/cookies", cookies)
application.router.add_static("/aiohttp", f"{folder}/aiohttp")
listening = socket.create_server(("127.0.0.1", 0))
print("port", listening.getsockname()[1], flush=True)
web.run_app(application, sock=listening, print=None)
"""


def listens(port: int) -> bool:
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), PATIENCE):
        return True
    return False


def files(folder: Path, name: str) -> None:
    """What every server has to offer, below its own path."""
    (folder / name).mkdir(parents=True)
    (folder / name / "big.bin").write_bytes(BIG)
    (folder / name / "text.txt").write_bytes(TEXT)
    (folder / name / "empty.txt").touch()


@contextlib.contextmanager
def running(*words: object) -> Iterator[str]:
    """A server that prints which port it listens on; its URL."""
    process = subprocess.Popen([*map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        found = re.search(rb"port ([0-9]+)", process.stdout.readline())
        assert found is not None, words
        yield f"http://127.0.0.1:{found[1].decode()}"
    finally:
        kill_quietly(process)
        process.stdout.close()


@contextlib.contextmanager
def running_nginx(configuration: Path, listening: Sequence[socket.socket]) -> Iterator[None]:
    """nginx on these sockets, which it takes over as it does from an older nginx; it accepts when it is ready."""
    numbers = [each.fileno() for each in listening]
    handed_over = {**os.environ, "NGINX": "".join(f"{number};" for number in numbers)}
    words = [str(NGINX), "-p", str(configuration.parent), "-c", str(configuration)]
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=handed_over, pass_fds=numbers
    )
    try:
        yield
        assert process.poll() is None, words
    finally:
        if process.poll() is None:
            process.terminate()  # the master ends its worker
            process.wait(PATIENCE)
        kill_quietly(process)


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The servers, each behind the path of its name."""
    folder = tmp_path_factory.mktemp("servers")
    folder.chmod(0o755)
    with contextlib.ExitStack() as stack:
        found = {}
        if NGINX is not None:
            sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
            port, secure = (each.getsockname()[1] for each in sockets)
            files(folder / "files", "nginx")
            certificate = write_certificate(folder / "certs", "localhost")
            table = f'{{ url = "https://localhost:{secure}", ca = "{certificate}" }}'
            OTHER_WAYS.update(tls=table, unix=f'"unix:{folder}/nginx.sock"')
            path = folder / "nginx.conf"
            user = "user root;" if os.getuid() == 0 else ""
            path.write_text(NGINX_CONFIGURATION.format(user=user, folder=folder, port=port, secure=secure))
            stack.enter_context(running_nginx(path, sockets))
            found["nginx"] = f"http://127.0.0.1:{port}"
        files(folder, "aiohttp")
        (folder / "server.py").write_text(AIOHTTP_SERVER)
        found["aiohttp"] = stack.enter_context(running(sys.executable, folder / "server.py", folder))
        files(folder / "plain", "stdlib")
        words = [
            sys.executable,
            "-u",
            "-m",
            "http.server",
            "0",
            "--bind",
            "127.0.0.1",
            "--directory",
            folder / "plain",
        ]
        found["stdlib"] = stack.enter_context(running(*words))
        yield found


@pytest.fixture(scope="module", params=["uvloop", "epoll"])
def gateway(
    request: pytest.FixtureRequest, urls: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """The gateway before the servers, on each reactor."""
    folder = tmp_path_factory.mktemp("gateway")
    config = configuration(urls, {"requests": {"max_body": "64MiB"}})
    with GatewayProcess(folder, config, ports=(GatewayProcess.TLS,), reactor=request.param) as gateway:
        yield gateway


# How else nginx can be reached: over TLS, and over a UNIX socket.
OTHER_WAYS: dict[str, str] = {}

servers = pytest.mark.parametrize("server", [pytest.param("nginx", marks=needs_nginx), "aiohttp", "stdlib"])
capable = pytest.mark.parametrize("server", [pytest.param("nginx", marks=needs_nginx), "aiohttp"])


# http.client and urllib.


class Connection(http.client.HTTPSConnection):
    """To the gateway's address, whatever name the certificate must have."""

    def __init__(self, gateway: GatewayProcess) -> None:
        super().__init__(HOST, gateway.ports[0], timeout=PATIENCE, context=gateway.trust())

    def connect(self) -> None:
        bare = socket.create_connection(("127.0.0.1", self.port), self.timeout)
        self.sock = self._context.wrap_socket(bare, server_hostname=self.host)  # type: ignore[attr-defined]


@pytest.fixture
def connection(gateway: GatewayProcess) -> Iterator[Connection]:
    connection = Connection(gateway)
    yield connection
    connection.close()


def ask(
    connection: Connection, method: str, path: str, body: Any = None, **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    """An answer and its body."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, fields, encode_chunked=fields.get("Transfer-Encoding") == "chunked")
    response = connection.getresponse()
    return response, response.read()


@servers
def test_files_over_one_connection(connection: Connection, server: str) -> None:
    for _ in range(3):
        for name, content in (("big.bin", BIG), ("text.txt", TEXT), ("empty.txt", b"")):
            response, body = ask(connection, "GET", f"/{server}/{name}")
            assert (response.status, body == content) == (200, True)
            assert response.getheader("Content-Length") == str(len(content))
            held = connection.sock
            assert held is not None
            response, body = ask(connection, "HEAD", f"/{server}/{name}")
            assert (response.status, body) == (200, b"")
            assert response.getheader("Content-Length") == str(len(content))
            assert connection.sock is held
    response, _ = ask(connection, "GET", f"/{server}/nothing")
    assert response.status == 404


@servers
def test_an_unchanged_file_is_not_sent_again(connection: Connection, server: str) -> None:
    response, _ = ask(connection, "GET", f"/{server}/text.txt")
    changed = response.getheader("Last-Modified")
    assert changed is not None
    for _ in range(3):
        response, body = ask(connection, "GET", f"/{server}/text.txt", If_Modified_Since=changed)
        assert (response.status, body) == (304, b"")


@capable
def test_ranges(connection: Connection, server: str) -> None:
    response, body = ask(connection, "GET", f"/{server}/big.bin", Range="bytes=1000000-1999999")
    assert (response.status, body) == (206, BIG[1_000_000:2_000_000])
    assert response.getheader("Content-Range") == f"bytes 1000000-1999999/{len(BIG)}"
    response, body = ask(connection, "GET", f"/{server}/big.bin", Range="bytes=-5")
    assert (response.status, body) == (206, BIG[-5:])
    response, _ = ask(connection, "GET", f"/{server}/big.bin", Range=f"bytes={len(BIG)}-")
    assert response.status == 416


@pytest.mark.parametrize("path", [pytest.param("/nginx/text.txt", marks=needs_nginx), "/aiohttp/packed"])
def test_what_a_service_packs_arrives_packed(connection: Connection, path: str) -> None:
    response, body = ask(connection, "GET", path, Accept_Encoding="gzip")
    assert response.getheader("Content-Encoding") == "gzip"
    assert len(body) < len(TEXT) / 4
    assert gzip.decompress(body) == TEXT
    response, body = ask(connection, "GET", path, Accept_Encoding="identity")
    assert (response.getheader("Content-Encoding"), body) == (None, TEXT)


def pieces(data: bytes) -> Iterator[bytes]:
    """A body of unknown length."""
    for start in range(0, len(data), 100_000):
        yield data[start : start + 100_000]


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("size", [0, 10, len(BIG)])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_uploads_come_back(connection: Connection, method: str, size: int, chunked: bool) -> None:
    data = BIG[:size]
    for _ in range(2):
        if chunked:
            response, body = ask(connection, method, "/aiohttp/echo", pieces(data), Transfer_Encoding="chunked")
        else:
            response, body = ask(connection, method, "/aiohttp/echo", data)
        assert (response.status, response.getheader("X-Method")) == (200, method)
        assert body == data


@needs_nginx
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_an_upload_to_nginx_can_be_fetched(connection: Connection, chunked: bool) -> None:
    path = f"/nginx/put/{int(chunked)}.bin"
    with contextlib.suppress(http.client.HTTPException):
        ask(connection, "DELETE", path)
    if chunked:
        response, _ = ask(connection, "PUT", path, pieces(BIG), Transfer_Encoding="chunked")
    else:
        response, _ = ask(connection, "PUT", path, BIG)
    assert response.status in (201, 204)
    assert ask(connection, "GET", path)[1] == BIG
    response, body = ask(connection, "DELETE", path)
    assert (response.status, body) == (204, b"")
    assert ask(connection, "GET", path)[0].status == 404


@needs_nginx
def test_answers_without_bodies(connection: Connection) -> None:
    for method in ("GET", "HEAD", "POST", "DELETE"):
        response, body = ask(connection, method, "/nginx/none")
        assert (response.status, body, response.getheader("Content-Length")) == (204, b"", None)


@needs_nginx
def test_nginx_refuses_an_upload_before_it_has_come(gateway: GatewayProcess) -> None:
    """As curl and browsers do, without waiting for 100: what nginx says early must get through."""
    for _ in range(3):
        connection = Connection(gateway)
        with contextlib.closing(connection):
            connection.putrequest("PUT", "/nginx/small/file")
            connection.putheader("Content-Length", str(len(BIG)))
            connection.endheaders()
            with contextlib.suppress(OSError):
                connection.send(BIG[:200_000])
            response = connection.getresponse()
            assert response.status == 413
            assert b"nginx" in response.read()


def test_repeated_fields_stay_apart(connection: Connection) -> None:
    response, body = ask(connection, "GET", "/aiohttp/cookies")
    cookies = response.headers.get_all("Set-Cookie") or []
    assert [cookie.partition(";")[0] for cookie in cookies] == ["a=1", "b=2"]
    assert body == b"two"


def test_a_method_that_a_service_does_not_have(connection: Connection) -> None:
    response, body = ask(connection, "POST", "/stdlib/text.txt", b"z" * 1000)
    assert response.status == 501
    assert b"Unsupported method" in body


def test_urllib_follows_and_reports(gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    port = gateway.ports[0]
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **more: resolve("127.0.0.1", *rest, **more))
    handler = urllib.request.HTTPSHandler(context=gateway.trust())
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), handler)
    base = f"https://{HOST}:{port}"
    path = "/nginx/text.txt" if NGINX else "/aiohttp/text.txt"
    with opener.open(f"{base}{path}", timeout=PATIENCE) as response:
        assert (response.status, response.read()) == (200, TEXT)
    with opener.open(f"{base}/aiohttp/count", data=BIG, timeout=PATIENCE) as response:
        assert json.load(response) == {"bytes": len(BIG), "tenant": "acme"}
    with pytest.raises(urllib.error.HTTPError) as caught:
        opener.open(f"{base}/nowhere", timeout=PATIENCE)
    with caught.value as error:
        assert (error.code, json.load(error)["code"]) == (404, "no_route")


def test_many_clients_at_once(gateway: GatewayProcess) -> None:
    def client(seed: int) -> None:
        connection = Connection(gateway)
        with contextlib.closing(connection):
            for turn in range(10):
                data = BIG[seed * 1000 : seed * 1000 + turn * 30_000]
                assert ask(connection, "POST", "/aiohttp/echo", data)[1] == data
                assert ask(connection, "GET", "/stdlib/text.txt")[1] == TEXT

    with ThreadPoolExecutor(8) as pool:
        for each in [pool.submit(client, seed) for seed in range(16)]:
            each.result(60)


@needs_nginx
@pytest.mark.parametrize("reactor", ["uvloop", "epoll"])
@pytest.mark.parametrize("way", ["tls", "unix"])
def test_nginx_by_other_ways(urls: dict[str, str], tmp_path: Path, way: str, reactor: str) -> None:
    config = configuration({"nginx": ""}).replace('nginx = ""', f"nginx = {OTHER_WAYS[way]}")
    with (
        GatewayProcess(tmp_path, config, ports=(GatewayProcess.TLS,), reactor=reactor) as gateway,
        contextlib.closing(Connection(gateway)) as connection,
    ):
        for _ in range(4):
            assert ask(connection, "GET", "/nginx/big.bin")[1] == BIG
            assert ask(connection, "PUT", "/nginx/put/x", BIG)[0].status in (201, 204)
        assert ask(connection, "GET", "/nginx/put/x")[1] == BIG


# curl.


def curl(gateway: GatewayProcess, *words: str, body: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run curl; in words, `@/PATH` is that path at the gateway."""
    port = gateway.ports[0]
    base = f"https://{HOST}:{port}"
    resolved = [f"{base}{word[1:]}" if word.startswith("@/") else word for word in words]
    trusting = ["--cacert", str(gateway.certificate), "--resolve", f"{HOST}:{port}:127.0.0.1"]
    done = subprocess.run(
        [str(CURL), "-sS", "--noproxy", "*", *trusting, *resolved],
        input=body,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done


@needs_curl
@servers
def test_curl_fetches(gateway: GatewayProcess, server: str) -> None:
    done = curl(gateway, "--compressed", f"@/{server}/text.txt", f"@/{server}/big.bin", "-w", "%{num_connects} ")
    # Both over one connection.
    assert done.stdout == TEXT + b"1 " + BIG + b"0 "
    head = curl(gateway, "--head", f"@/{server}/big.bin").stdout
    assert head.startswith(b"HTTP/2 200 ")
    assert b"content-length: %d\r\n" % len(BIG) in head.lower()


@needs_curl
@pytest.mark.parametrize("version", ["--http1.0", "--http1.1", "--http2"])
@servers
def test_curl_in_each_version_that_it_knows(gateway: GatewayProcess, version: str, server: str) -> None:
    assert curl(gateway, version, f"@/{server}/text.txt").stdout == TEXT
    if server == "aiohttp":
        echoed = curl(gateway, version, "--data-binary", "@-", "@/aiohttp/echo", body=BIG)
        assert echoed.stdout == BIG


@needs_curl
@pytest.mark.parametrize("expect", ["Expect: 100-continue", "Expect:"])
@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked", "X-Framing: length"])
def test_curl_uploads(gateway: GatewayProcess, framing: str, expect: str) -> None:
    words = ["-X", "POST", "-H", expect, "-H", framing, "--data-binary", "@-", "@/aiohttp/count"]
    assert json.loads(curl(gateway, *words, body=BIG).stdout) == {"bytes": len(BIG), "tenant": "acme"}


@needs_curl
@needs_nginx
def test_curl_follows_and_resumes(gateway: GatewayProcess, tmp_path: Path) -> None:
    assert curl(gateway, "-L", "@/nginx/moved").stdout == TEXT
    part = tmp_path / "part"
    part.write_bytes(BIG[:1_234_567])
    curl(gateway, "-C", "-", "-o", str(part), "@/nginx/big.bin")
    assert part.read_bytes() == BIG
    assert (
        curl(gateway, "--range", "0-99,200-299", "-o", str(part), "-w", "%{http_code}", "@/nginx/big.bin").stdout
        == b"206"
    )
    assert b"multipart" not in part.read_bytes()[:20]
    assert BIG[:100] in part.read_bytes()


# treq, and the gateway as a service inside another one: both on the reactor of the tests.


@implementer(IAgentEndpointFactory)
class ToGateway:
    """Connects to the gateway's address, whatever name the URL has."""

    def __init__(self, port: int, certificate: Path) -> None:
        self._port = port
        self._authority = ssl.Certificate.loadPEM(certificate.read_bytes().partition(b"-----END PRIVATE KEY-----")[2])

    def endpointForURI(self, uri: URI) -> Any:
        """See IAgentEndpointFactory."""
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self._port)
        return wrapClientTLS(ssl.optionsForClientTLS(HOST, self._authority), endpoint)


@contextlib.asynccontextmanager
async def treq_client(port: int, certificate: Path) -> Any:
    """treq on a pool of its own."""
    pool = HTTPConnectionPool(reactor)
    try:
        yield HTTPClient(Agent.usingEndpointFactory(reactor, ToGateway(port, certificate), pool))
    finally:
        await pool.closeCachedConnections()


async def exercise(client: HTTPClient, server: str) -> None:
    """What every server can do, as treq asks for it."""
    base = f"https://{HOST}/{server}"
    for _ in range(3):
        response = await client.get(f"{base}/big.bin")
        assert response.code == 200
        assert await response.content() == BIG
        response = await client.head(f"{base}/text.txt")
        assert (response.code, await response.content()) == (200, b"")
        assert response.headers.getRawHeaders("last-modified") is not None
    response = await client.get(f"{base}/nothing")
    assert response.code == 404
    await response.content()
    if server == "aiohttp":
        response = await client.post(f"{base}/echo", data=BIG)
        assert await response.content() == BIG
        response = await client.get(f"{base}/packed")
        assert await response.content() == TEXT
    if server == "nginx":
        response = await client.get(f"{base}/moved")
        assert await response.content() == TEXT
        response = await client.get(f"{base}/big.bin", headers={"Range": "bytes=10-19"})
        assert (response.code, await response.content()) == (206, BIG[10:20])


@servers
@pytest_twisted.ensureDeferred
async def test_treq_through_a_gateway_process(gateway: GatewayProcess, server: str) -> None:
    async with treq_client(gateway.ports[0], gateway.certificate) as client:
        await exercise(client, server)


@contextlib.asynccontextmanager
async def embedded(folder: Path, config: str) -> Any:
    """A gateway as a service on the reactor of the tests, which is one of Twisted's own."""
    certificate = write_certificate(folder / "certs", "id.test", "*.id.test")
    (folder / "koder-gateway.toml").write_text(config)
    gateway = Gateway(
        load(folder / "koder-gateway.toml"),
        ports=[GatewayProcess.TLS, GatewayProcess.PLAIN],
        admin_port=GatewayProcess.PLAIN,
        reactor=reactor,
    )
    gateway.startService()
    try:
        yield gateway, [address.port for address in gateway.addresses], certificate
    finally:
        await gateway.stopService()


@servers
@pytest_twisted.ensureDeferred
async def test_treq_through_an_embedded_gateway(urls: dict[str, str], tmp_path: Path, server: str) -> None:
    async with (
        embedded(tmp_path, configuration(urls, {"requests": {"max_body": "64MiB"}})) as (
            _,
            ports,
            certificate,
        ),
        treq_client(ports[0], certificate) as client,
    ):
        await exercise(client, server)
    for port in ports:
        assert not listens(port)


@pytest_twisted.ensureDeferred
async def test_an_embedded_gateway_has_its_ports_until_it_has_stopped(tmp_path: Path) -> None:
    with Origin(lambda peer, number: peer.head() and peer.send(answer(b"ok"))) as origin:
        async with embedded(tmp_path, configuration({"a": origin.url})) as (gateway, ports, _):
            for _ in range(3):
                response = await treq.get(f"http://127.0.0.1:{ports[1]}/a", headers={"Host": HOST}, persistent=False)
                assert (response.code, await response.content()) == (200, b"ok")
            response = await treq.get(f"http://127.0.0.1:{ports[2]}/readyz", persistent=False)
            assert (response.code, await response.content()) == (200, b"ready\n")
            assert gateway.unready() == []
        assert gateway.unready() != []
        assert gateway.site.channels == set()
