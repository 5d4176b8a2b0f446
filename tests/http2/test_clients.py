"""HTTP/2 clients of other make: curl, nghttp, h2load and httpx, over TLS with ALPN, as people will use them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.kit.http2_client import Http2Client
from tests.kit.http2_frames import block, headers
from tests.kit.recording import ALLOWED, HOST, SETTINGS, TENANTS, running
from tests.kit.services import ANSWER
from tests.kit.waiting import PATIENCE

CURL, NGHTTP, H2LOAD = shutil.which("curl"), shutil.which("nghttp"), shutil.which("h2load")
MIB = 1 << 20
BIG = hashlib.shake_256(b"big").digest(10 * MIB)
LIMITED = """
[[limits]]
name = "login"
key = ["tenant", "ip"]
rate = "3/h"
paths = ["/v1/auth"]
"""
GENEROUS = SETTINGS.replace("limits = []\n", "").replace('max_body = "16KiB"', 'max_body = "16MiB"') + LIMITED


def _curl_speaks_http2() -> bool:
    if CURL is None:
        return False
    return "HTTP2" in subprocess.run([CURL, "--version"], capture_output=True, text=True, check=True).stdout


needs_curl = pytest.mark.skipif(not _curl_speaks_http2(), reason="needs a curl with HTTP/2")
needs_nghttp = pytest.mark.skipif(NGHTTP is None, reason="needs nghttp")
needs_h2load = pytest.mark.skipif(H2LOAD is None, reason="needs h2load")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with running(tmp_path_factory.mktemp("gateway"), GENEROUS, TENANTS, secure=True) as gateway:
        answers = gateway.origin.answers
        answers[b"/v1/users/big"] = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BIG), BIG)
        answers[b"/v1/users/none"] = b"HTTP/1.1 204 No Content\r\n\r\n"
        answers[b"/v1/users/same"] = b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n'
        answers[b"/v1/users/early"] = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n" + ANSWER
        trailing = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        answers[b"/v1/users/trailing"] = trailing + b"6\r\norigin\r\n0\r\nX-Sum: abc\r\n\r\n"
        answers[b"/v1/users/cors"] = ANSWER.replace(b"\r\n\r\n", b"\r\nAccess-Control-Allow-Origin: *\r\n\r\n", 1)
        yield gateway


@pytest.fixture
def gateway(shared):
    """The shared gateway with an empty record, which has logged nothing alarming afterwards."""
    shared.origin.forget()
    yield shared
    shared.assert_quiet()


def run(*words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """A command that has ended; its output as bytes."""
    return subprocess.run(words, input=given, capture_output=True, timeout=PATIENCE, check=False)


# -- curl


def curl(gateway, path: str, *options: str, given: bytes = b"") -> tuple[int, dict[str, list[str]], bytes]:
    """Status, fields and body of what curl gets by HTTP/2, and by nothing else."""
    host = HOST.decode()
    done = run(
        str(CURL),
        "--silent",
        "--show-error",
        "--insecure",
        "--http2",
        "--path-as-is",
        "--resolve",
        f"{host}:{gateway.port}:127.0.0.1",
        "--write-out",
        "%{stderr}%{http_version} %{http_code} %{header_json}",
        *options,
        f"https://{host}:{gateway.port}{path}",
        given=given,
    )
    assert done.returncode == 0, done.stderr
    version, status, fields = done.stderr.decode().split(" ", 2)
    assert version == "2"
    return int(status), json.loads(fields), done.stdout


@needs_curl
def test_curl_gets(gateway):
    status, fields, body = curl(gateway, "/v1/users?a=b")
    assert (status, body) == (200, b"origin")
    assert fields["content-length"] == ["6"]
    (message,) = gateway.received()
    assert message.target == b"/v1/users?a=b"
    assert message.value(b"host") == b"%b:%d" % (HOST, gateway.port)


@needs_curl
def test_curl_downloads(gateway):
    assert curl(gateway, "/v1/users/big")[2] == BIG


@needs_curl
@pytest.mark.parametrize("how", [["--header", "Expect:"], ["--header", "Expect: 100-continue"]])
def test_curl_uploads(gateway, how):
    status, _, _ = curl(gateway, "/v1/users", "--data-binary", "@-", *how, given=BIG)
    assert status == 200
    (message,) = gateway.received()
    assert message.body == BIG


@needs_curl
def test_curl_uploads_without_a_length(gateway):
    status, _, _ = curl(gateway, "/v1/users", "--upload-file", "-", given=BIG[:100_000])
    assert status == 200
    (message,) = gateway.received()
    assert (message.method, message.body) == (b"PUT", BIG[:100_000])


@needs_curl
@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        ("/v1/users", ["--head"], 200),
        ("/v1/users/none", [], 204),
        ("/v1/users/same", [], 304),
        ("/v1/users/early", [], 200),
        ("/nowhere", [], 404),
        ("/v1/users/../admin", [], 400),
        ("/v1/users/%2e%2e/admin", [], 400),
        ("/v1/users", ["--request", "TRACE"], 405),
        ("/v1/users", ["--request", "BREW"], 501),
        ("/v1/users", ["--header", "X-Tenant-ID: acme"], 400),
        ("/v1/users", ["--header", "Expect: miracles"], 417),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_curl_statuses(gateway, path, options, status):
    got, fields, body = curl(gateway, path, *options)
    assert got == status
    if status >= 400:
        problem = json.loads(body)
        assert problem["status"] == status
        assert fields["content-type"] == ["application/problem+json"]
        assert fields["x-request-id"] == [problem["request_id"]]
        assert gateway.received() == []


@needs_curl
def test_curl_with_too_large_a_body(gateway):
    status, _, body = curl(gateway, "/v1/users", "--data-binary", "@-", "--header", "Expect:", given=BIG + BIG)
    assert status == 413
    assert json.loads(body)["code"] == "body_too_large"


@needs_curl
def test_preflight(gateway):
    """The gateway answers it, and the service's own CORS fields are replaced."""
    origin = f"Origin: {ALLOWED.decode()}"
    asks = ["--request", "OPTIONS", "--header", origin, "--header", "Access-Control-Request-Method: PUT"]
    status, fields, body = curl(gateway, "/v1/users", *asks, "--header", "Access-Control-Request-Headers: x-a")
    assert (status, body) == (204, b"")
    assert fields["access-control-allow-origin"] == [ALLOWED.decode()]
    assert gateway.received() == []
    status, fields, _ = curl(gateway, "/v1/users/cors", "--header", origin)
    assert (status, fields["access-control-allow-origin"]) == (200, [ALLOWED.decode()])
    _, fields, _ = curl(gateway, "/v1/users/cors", "--header", "Origin: https://evil.example")
    assert "access-control-allow-origin" not in fields


@needs_curl
def test_both_versions_on_one_port(gateway):
    """A client that offers only HTTP/1.1, or nothing at all, gets that."""
    for option in ("--http1.1", "--no-alpn"):
        url = f"https://{HOST.decode()}:{gateway.port}/v1/users"
        resolve = f"{HOST.decode()}:{gateway.port}:127.0.0.1"
        done = run(str(CURL), "-sk", option, "--resolve", resolve, "--write-out", "%{http_version}", url)
        assert done.stdout == b"origin1.1"


# -- nghttp and h2load


def nghttp(gateway, *words: str, host: bytes = HOST) -> str:
    """What nghttp tells of its requests, frame by frame."""
    done = run(str(NGHTTP), "--verbose", "--no-verify-peer", "--header", f":authority: {host.decode()}", *words)
    assert done.returncode == 0, done.stderr
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout.decode(errors="replace"))


@needs_nghttp
def test_nghttp_gets_many(gateway):
    urls = [f"https://127.0.0.1:{gateway.port}/v1/users/{number}" for number in range(30)]
    told = nghttp(gateway, *urls)
    assert told.count(":status: 200") == 30
    assert "GOAWAY" not in re.sub(r"send GOAWAY.*", "", told)
    assert len(gateway.received()) == 30


@needs_nghttp
def test_nghttp_posts_with_trailers(gateway, tmp_path: Path):
    body = tmp_path / "body"
    body.write_bytes(b"test" * 1000)
    url = f"https://127.0.0.1:{gateway.port}/v1/users"
    told = nghttp(gateway, "--data", str(body), "--no-content-length", "--trailer", "x-sum: abc", url)
    assert ":status: 200" in told
    (message,) = gateway.received()
    assert message.body == b"test" * 1000
    assert (b"x-sum", b"abc") in message.trailers


@needs_nghttp
def test_nghttp_sees_trailers(gateway):
    told = nghttp(gateway, f"https://127.0.0.1:{gateway.port}/v1/users/trailing")
    assert ":status: 200" in told
    assert "x-sum: abc" in told


@needs_nghttp
@pytest.mark.parametrize("bits", ["1", "10", "30"])
def test_nghttp_with_other_windows(gateway, bits):
    """Windows of 2^N-1 bytes, of streams and of the connection."""
    path = "big" if bits != "1" else "early"
    url = f"https://127.0.0.1:{gateway.port}/v1/users/{path}"
    words = ["--null-out", "--window-bits", bits, "--connection-window-bits", bits if bits != "1" else "16"]
    assert "status: 200" in nghttp(gateway, *words, url)


@needs_h2load
def test_h2load(gateway):
    """A hundred streams at a time on each of four connections: everything is answered."""
    done = run(
        str(H2LOAD),
        "--requests=4000",
        "--clients=4",
        "--max-concurrent-streams=100",
        "--header",
        f":authority: {HOST.decode()}",
        f"https://127.0.0.1:{gateway.port}/v1/users",
    )
    told = done.stdout.decode()
    assert "4000 succeeded, 0 failed, 0 errored, 0 timeout" in told, told
    assert "4000 2xx, 0 3xx, 0 4xx, 0 5xx" in told, told
    assert "Application protocol: h2" in told


# -- httpx


def trusting() -> ssl.SSLContext:
    """TLS that takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.fixture
def client(gateway):
    fields = {"host": HOST.decode()}
    base = f"https://127.0.0.1:{gateway.port}"
    with httpx.Client(
        http1=False, http2=True, verify=trusting(), base_url=base, headers=fields, timeout=PATIENCE
    ) as client:
        yield client


def test_httpx_gets(client, gateway):
    answer = client.get("/v1/users", params={"a": "ä"}, headers={"cookie": "a=b; c=d", "accept": "text/plain"})
    assert (answer.http_version, answer.status_code, answer.content) == ("HTTP/2", 200, b"origin")
    (message,) = gateway.received()
    assert message.target == b"/v1/users?a=%C3%A4"
    assert message.value(b"cookie") == b"a=b; c=d"
    assert message.value(b"accept") == b"text/plain"


def test_httpx_moves_much(client, gateway):
    assert client.get("/v1/users/big").content == BIG
    assert client.post("/v1/users", content=BIG).status_code == 200
    assert [message.body for message in gateway.received()] == [b"", BIG]


def test_httpx_sends_what_it_makes(client, gateway):
    """A body without a length, piece by piece."""
    assert client.post("/v1/users", content=(b"%03d" % number for number in range(1000))).status_code == 200
    (message,) = gateway.received()
    assert message.body == b"".join(b"%03d" % number for number in range(1000))


def test_httpx_is_limited(client, gateway):
    """Every stream counts: 3 an hour for a tenant's address, whatever connection they come on."""
    for _ in range(3):
        answer = client.post("/v1/auth", json={})
        assert (answer.status_code, answer.headers["ratelimit-policy"][:7]) == (200, '"login"')
    for _ in range(2):
        answer = client.post("/v1/auth", json={})
        assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
        assert int(answer.headers["retry-after"]) >= 1
    assert len(gateway.received()) == 3


def test_httpx_asks_much_at_once(gateway):
    """A hundred streams at once on one connection."""

    async def ask() -> list[tuple[int, bytes]]:
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(
            http1=False,
            http2=True,
            verify=trusting(),
            limits=limits,
            timeout=PATIENCE,
            headers={"host": HOST.decode()},
        ) as client:
            asked = [client.get(f"https://127.0.0.1:{gateway.port}/v1/users/{number}") for number in range(100)]
            return [(answer.status_code, answer.content) for answer in await asyncio.gather(*asked)]

    assert asyncio.run(ask()) == [(200, b"origin")] * 100
    assert {message.target for message in gateway.received()} == {b"/v1/users/%d" % number for number in range(100)}


# -- what no client library sends


@pytest.mark.parametrize(
    "fields",
    [
        [(b":method", b"CONNECT"), (b":authority", HOST + b":443")],
        [(b":method", b"CONNECT"), (b":authority", b"127.0.0.1:22")],
    ],
    ids=["own", "foreign"],
)
def test_connect(gateway, fields):
    """8.5: the gateway is no proxy of that kind."""
    with Http2Client.connect(gateway.port, HOST) as client:
        client.start().send(headers(1, block(fields), end=False))
        answer = client.answer()
        assert answer.status in (0, 400, 405, 421)
        assert answer.status == 405 or answer.reset is not None or answer.complete
        client.lives()
    assert gateway.received() == []
