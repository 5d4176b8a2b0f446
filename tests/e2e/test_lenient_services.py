"""No rewriting of a limited path that a service would still route to the same handler gets past the limit.

nginx is a real one, and so is Go's mux where there is a Go. Express, Spring and Flask are models after their
documentation: path-to-regexp (neither case-sensitive nor strict), Spring's UrlPathHelper with suffix patterns and
trailing slashes (semicolon content is removed, the rest decoded and sanitised), and werkzeug's merge_slashes.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.policy.limit_rules import LimitRule
from koder_gateway.policy.limits import Limiter
from koder_gateway.wire.request_reader import RequestReader
from koder_gateway.wire.target import path_fault
from tests.kit.waiting import until

READER = RequestReader(b"X-Tenant-ID", max_target=8192, max_fields=100)
LIMITED = b"/v1/auth/login"
LIMITER = Limiter([LimitRule("login", ("ip",), 5, 60, paths=(LIMITED,), methods=frozenset([b"POST"]))], 100)


def is_limited(path: bytes) -> bool:
    """Whether the rule applies to a request with this path."""
    head = READER.read(b"POST %b HTTP/1.1\r\nHost: koder.id.koder.dev\r\nContent-Length: 0\r\n\r\n" % path)
    assert head.refusal is None
    return LIMITER.plan(head.method, head.path, head.plain) is not None


# Services: whether each calls the handler of the limited path for another one.


def nginx(path: bytes) -> bool:
    """A prefix location: escapes are decoded, slashes merged."""
    read = re.sub(rb"/+", b"/", unquote_to_bytes(path))
    return read == LIMITED or read.startswith(LIMITED + b"/")


def express(path: bytes) -> bool:
    """`app.post("/v1/auth/login")`, and `app.use`, which takes what is below as well; escapes stay as they are."""
    return re.fullmatch(re.escape(LIMITED) + rb"(?:/.*)?", path, re.IGNORECASE | re.DOTALL) is not None


def spring(path: bytes) -> bool:
    """Ant patterns with trailing slashes and suffixes (`login`, `login/`, `login.*`)."""
    bare = re.sub(rb";[^/]*", b"", path)
    read = re.sub(rb"/+", b"/", unquote_to_bytes(bare))
    return re.fullmatch(re.escape(LIMITED) + rb"(?:\.[^/]*)?/?", read, re.DOTALL) is not None


def flask(path: bytes) -> bool:
    """A rule with merge_slashes, and without strict_slashes; a redirect to the merged path counts."""
    return re.sub(rb"/+", b"/", unquote_to_bytes(path)) in (LIMITED, LIMITED + b"/")


def go(path: bytes) -> bool:
    """`mux.Handle("/v1/auth/login")` and `"/v1/auth/login/"`: the path is decoded and cleaned, by a redirect."""
    return nginx(path)


MODELS = (nginx, express, spring, flask, go)


# Rewritings: a few changes of the limited path, each of which some service does not notice.


def escaped(path: bytes, at: int, upper: bool) -> bytes:
    place = at % len(path)
    if path[place : place + 1] in b"/.%":
        return path
    code = b"%%%02X" if upper else b"%%%02x"
    return path[:place] + code % path[place] + path[place + 1 :]


def cased(path: bytes, at: int, upper: bool) -> bytes:
    place = at % len(path)
    return path[:place] + path[place : place + 1].swapcase() + path[place + 1 :]


def inserted(piece: bytes, before: bytes = b"/") -> Callable[[bytes, int, bool], bytes]:
    """Puts a piece before the n-th slash, or at the end."""

    def change(path: bytes, at: int, upper: bool) -> bytes:
        parts = path.split(before)
        place = 1 + at % len(parts)
        return before.join([*parts[: place - 1], parts[place - 1] + piece, *parts[place:]])

    return change


CHANGES = (
    escaped,
    cased,
    *(
        inserted(piece)
        for piece in (b"/", b"//", b";", b";a=b", b";a=b;c", b"%3Ba", b".", b".json", b".tar.gz", b"%20", b"%09")
    ),
    lambda path, at, upper: path + b"/",
    lambda path, at, upper: path + b"/x",
    lambda path, at, upper: path.replace(b"%", b"%25", 1),
    lambda path, at, upper: b"/" + path,
)


def rewritten(steps: list[tuple[int, int, bool]]) -> bytes:
    path = LIMITED
    for change, at, upper in steps:
        path = CHANGES[change % len(CHANGES)](path, at, upper)
    return path


STEPS = st.lists(st.tuples(st.integers(0, len(CHANGES) - 1), st.integers(0, 40), st.booleans()), max_size=8)


@given(STEPS)
def test_no_rewriting_that_a_service_understands_escapes_the_limit(steps: list[tuple[int, int, bool]]) -> None:
    path = rewritten(steps)
    if path_fault(path) is None:
        for service in MODELS:
            if service(path):
                assert is_limited(path), f"{service.__name__} takes {path!r} for {LIMITED!r}"


@pytest.mark.parametrize("service", MODELS, ids=lambda service: service.__name__)
def test_a_model_understands_rewritings(service: Callable[[bytes], bool]) -> None:
    """So that the property above says something of each."""
    understood = {path for path in rewritings(4000) if service(path) and path != LIMITED}
    assert len(understood) > 50


def test_the_limit_is_not_simply_everywhere() -> None:
    for other in (b"/v1/auth", b"/v1/auth/logout", b"/v1/auth/loginx", b"/v2/auth/login", b"/v1/auth/x/login"):
        assert not is_limited(other)


def rewritings(count: int) -> Iterator[bytes]:
    """So many rewritings that the gateway accepts, the same ones each time."""
    random = Random(7)
    while count:
        steps = [
            (random.randrange(len(CHANGES)), random.randrange(40), random.random() < 0.5)
            for _ in range(random.randrange(6))
        ]
        path = rewritten(steps)
        if path_fault(path) is None:
            count -= 1
            yield path


# Real ones


class Client(http.client.HTTPConnection):
    """A client of a server on a UNIX socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def reaches_the_handler(client: Client, path: bytes) -> bool:
    """Whether the server calls the handler of the limited path, or redirects to it."""
    # A target that begins with two slashes is sent as it is.
    client.putrequest("POST", path.decode("ascii"), skip_accept_encoding=True)
    client.putheader("Content-Length", "0")
    client.endheaders()
    response = client.getresponse()
    body = response.read()
    if response.status in (301, 307, 308):
        return nginx((response.getheader("Location") or "").encode().partition(b"?")[0])
    return response.status == 200 and body.strip() == b"limited"


def check_real(server: subprocess.Popen[bytes], path: Path) -> None:
    def listens() -> bool:
        assert server.poll() is None, "the server has ended"
        with closing(socket.socket(socket.AF_UNIX)) as probe:
            return probe.connect_ex(str(path)) == 0

    try:
        until(listens, "the server listens")
        with closing(Client(path)) as client:
            understood = {each for each in rewritings(1500) if reaches_the_handler(client, each)}
    finally:
        server.kill()
        server.wait()
    assert len(understood) > 50, "the server understands rewritings at all"
    assert {each for each in understood if not is_limited(each)} == set()


NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
GO = shutil.which("go")
NGINX_CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 100000;
    server {{
        listen unix:{folder}/server.sock;
        location /v1/auth/login/ {{ return 200 limited; }}
        location = /v1/auth/login {{ return 200 limited; }}
        location ~* ^/v1/auth/login(/|$) {{ return 200 limited; }}
        location / {{ return 200 other; }}
    }}
}}
"""
GO_PROGRAM = """
package main

import (
    "fmt"
    "net"
    "net/http"
    "os"
)

func main() {
    mux := http.NewServeMux()
    limited := func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "limited") }
    mux.HandleFunc("/v1/auth/login", limited)
    mux.HandleFunc("/v1/auth/login/", limited)
    mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "other") })
    listener, err := net.Listen("unix", os.Args[1])
    if err != nil {
        panic(err)
    }
    panic(http.Serve(listener, mux))
}
"""


@pytest.mark.skipif(NGINX is None, reason="needs nginx")
def test_a_real_nginx(tmp_path: Path) -> None:
    assert NGINX is not None
    file = tmp_path / "nginx.conf"
    file.write_text(NGINX_CONFIGURATION.format(folder=tmp_path))
    command = [NGINX, "-p", str(tmp_path), "-e", str(tmp_path / "error.log"), "-c", str(file)]
    check_real(subprocess.Popen(command), tmp_path / "server.sock")


@pytest.mark.skipif(GO is None, reason="needs Go")
def test_a_real_mux_of_go(tmp_path: Path) -> None:
    assert GO is not None
    (tmp_path / "main.go").write_text(GO_PROGRAM)
    environ = {**os.environ, "GO111MODULE": "off", "GOFLAGS": "", "GOCACHE": str(tmp_path / "cache")}
    subprocess.run([GO, "build", "-o", "server", "main.go"], cwd=tmp_path, env=environ, check=True)
    check_real(subprocess.Popen([tmp_path / "server", str(tmp_path / "server.sock")]), tmp_path / "server.sock")
