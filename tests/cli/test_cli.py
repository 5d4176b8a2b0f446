"""The tools: what `check` and `explain` print and exit with, and that `explain` tells what a gateway then does."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.cli import main
from koder_gateway.config import load
from koder_gateway.tls.certificates import DAY
from koder_gateway.tree.bounds import client_limits
from koder_gateway.version import VERSION
from tests.kit.authority import Authority, write_certificate
from tests.kit.certificates import certificate_pem, key_pem
from tests.kit.gateways import tool
from tests.kit.http1 import Message, read_message
from tests.kit.memory import MemoryGateway, serve
from tests.kit.waiting import PATIENCE

TENANTS = """
[[tenant]]
slug = "koder"
domains = ["login.koder.example"]
cors_origins = ["https://koder.example"]
[[tenant]]
slug = "acme"
[[tenant]]
slug = "closed"
status = "suspended"
cors_origins = ["https://closed.example"]
"""
CONFIG = """
[tenants]
registry = "tenants.toml"
[cors]
origins = ["https://app.example.com"]
[requests]
max_body = "1KiB"
[listen]
trusted_proxies = ["10.0.0.0/8"]
[[limits]]
name = "traffic"
key = ["ip"]
rate = "10/s"
burst = 20
[[limits]]
name = "login-failures"
key = ["tenant", "ip"]
rate = "5/m"
paths = ["/v1/auth"]
methods = ["POST"]
charge = "failures"
[[limits]]
name = "tried"
key = ["tenant"]
rate = "1/h"
paths = ["/v1/admin"]
mode = "shadow"
"""
USERS = "https://koder.id.koder.dev/v1/users"


@dataclass
class Done:
    """A tool that has ended."""

    code: int
    out: str
    err: str

    @property
    def faults(self) -> list[str]:
        """What it printed, where it must have refused."""
        assert (self.code, self.out) == (1, ""), self
        return self.err.splitlines()


def run(*words: object) -> Done:
    """Run a tool in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(word) for word in words])
    return Done(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration that requests are explained under."""
    folder = tmp_path_factory.mktemp("config")
    (folder / "tenants.toml").write_text(TENANTS)
    path = folder / "koder-gateway.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def check(tmp_path: Path) -> Callable[[str], Done]:
    """Checks a configuration that is written to `koder-gateway.toml` in the test's folder."""

    def check(text: str) -> Done:
        path = tmp_path / "koder-gateway.toml"
        path.write_text(text)
        return run("check", "--config", path)

    return check


# -- check


def test_what_is_good_is_summed_up(check: Callable[[str], Done], tmp_path: Path) -> None:
    path = tmp_path / "koder-gateway.toml"
    assert check("") == Done(0, f"{path}: good: 9 routes, 5 services, 9 limits, every slug is a tenant\n", "")
    (tmp_path / "tenants.toml").write_text(TENANTS)
    text = CONFIG + '[services]\nother = "http://127.0.0.1:5000"\n[[routes]]\npath = "/a"\nservice = "other"\n'
    done = check(text)
    assert (done.code, done.out) == (0, f"{path}: good: 1 routes, 1 services, 3 limits, 3 tenants\n")
    assert run("check", path) == done, "the file is an argument as well"


def test_a_registry_behind_a_url_is_not_asked(check: Callable[[str], Done]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as admin:
        admin.setblocking(False)
        url = f"http://127.0.0.1:{admin.getsockname()[1]}/v1/admin/tenants"
        done = check(f'[tenants]\nregistry = "{url}"\n')
        assert (done.code, done.err) == (0, "")
        assert done.out.endswith(f", the tenants are read from {url}, which is not queried here\n")
        with pytest.raises(BlockingIOError):
            admin.accept()


def test_every_fault_is_printed(check: Callable[[str], Done], tmp_path: Path) -> None:
    (tmp_path / "tenants.toml").write_text('[[tenant]]\nslug = "UP"\n[[tenant]]\nslug = "a"\nstatsu = "active"\n')
    done = check(
        '[tenants]\nregistry = "tenants.toml"\nbase_domian = "x"\nrefresh = 30\n'
        '[services]\nidentity = "ftp://x"\n[[routes]]\npath = "/a"\nservice = "nobody"\n'
        '[timeouts]\nhead = "soon"\n[tls]\ncertificates = "missing"\n[nonsense]\na = 1\n'
    )
    own, registry = tmp_path / "koder-gateway.toml", tmp_path / "tenants.toml"
    expected = {
        (str(own), "tenants.base_domian"),
        (str(own), "tenants.refresh"),
        (str(own), "services.identity"),
        (str(own), "routes[0].service"),
        (str(own), "timeouts.head"),
        (str(own), "tls.certificates"),
        (str(own), "nonsense"),
        (str(registry), "tenant[0].slug"),
        (str(registry), "tenant[1].statsu"),
    }
    told = [line.split(": ", 2) for line in done.faults]
    assert {(file, key) for file, key, _ in told} == expected
    assert len(told) == len(expected)
    assert all("; " in message for _, _, message in told), "each says what would be right"


@pytest.mark.parametrize(
    ("text", "says"),
    [(None, "{}: "), ("[tenants", "{}: "), ("\udcff", "{}: ")],
    ids=["no file", "no TOML", "no text"],
)
def test_a_file_that_cannot_be_read(text: str | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / "some.toml"
    if text is not None:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    (fault,) = run("check", "--config", path).faults
    assert fault.startswith(says.format(path))


def test_endpoints_are_read_and_nothing_listens(check: Callable[[str], Done], tmp_path: Path) -> None:
    ports = ["nonsense:80", "tcp:abc", "tcp:0:interface=127.0.0.1", "systemd:domain=INET:index=9", "ssl:443"]
    text = "[state]\ndir = 'state'\n[listen]\nport = "
    lines = check(f"{text}{ports!r}\n").faults
    assert [re.sub(r".*: (listen\.port: endpoint \"[^\"]*\"): .+", r"\1", line) for line in lines] == [
        'listen.port: endpoint "nonsense:80"',
        'listen.port: endpoint "tcp:abc"',
    ]
    assert check(f"{text}{ports[2:]!r}\n").code == 0
    assert not (tmp_path / "state").exists(), "a check leaves no self-signed certificate behind"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert check(f"{text}'tcp:{taken.getsockname()[1]}:interface=127.0.0.1'\n").code == 0


def test_certificates_are_read(check: Callable[[str], Done], tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    folder.mkdir()
    text = "[tls]\ncertificates = 'certs'\n[listen]\nport = ['ssl:443', 'haproxy:tls:8443']\n"
    for line in check(text).faults:
        assert ": listen.port: " in line
        assert str(folder) in line
    write_certificate(folder, "id.koder.dev")
    assert check(text).code == 0
    assert check(text).err == ""


def certificate(key: ec.EllipticCurvePrivateKey, *names: str, start: float = -1, days: float = 90) -> bytes:
    """A certificate in PEM that is valid for so many days, which begin so many days from now."""
    return certificate_pem(key, *names, start=time.time() + start * DAY, days=days)


@pytest.mark.parametrize("port", ["ssl:443", "tls+systemd:domain=INET:index=0", "haproxy:tls+unix:/tmp/x"])
def test_what_is_doubtful_of_certificates_is_a_warning_that_does_not_fail(
    check: Callable[[str], Done], tmp_path: Path, port: str
) -> None:
    folder = tmp_path / "certs"
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    for name, content in {
        "a-good": certificate(key, "a.example"),
        "b-expired": certificate(key, "b.example", start=-10, days=9),
        "c-soon": certificate(key, "c.example", days=30),
        "d-later": certificate(key, "d.example", start=2),
        "e-nameless": certificate(key),
        "f-not-yet-soon": certificate(key, "f.example", days=32),
    }.items():
        (folder / f"{name}.pem").write_bytes(key_pem(key) + content)
    text = f"[tls]\ncertificates = 'certs'\ndefault = 'a-good'\n[listen]\nport = ['{port}', 'tls:8443']\n"
    done = check(text)
    assert done.code == 0, done
    assert ": good: " in done.out
    expected = {
        "b-expired": "expired on ",
        "c-soon": "expires on .*, in less than 30 days; renew it",
        "d-later": "not valid before ",
        "e-nameless": "has no DNS name",
    }
    warnings = done.err.splitlines()
    assert len(warnings) == len(expected)
    for line, (name, says) in zip(warnings, expected.items(), strict=True):
        assert re.match(re.escape(f"warning: {folder}/{name}.pem: ") + says, line), line

    (folder / "g-mismatch.pem").write_bytes(
        key_pem(key) + certificate(ec.generate_private_key(key.curve), "g.example")
    )
    done = check(text)
    assert (done.code, done.out) == (1, "")
    faults = [line for line in done.err.splitlines() if not line.startswith("warning: ")]
    assert len(faults) == 2, "for each endpoint"
    for line in faults:
        assert "g-mismatch.pem: the private key in " in line
        assert " does not match its first certificate; " in line
    assert [line for line in done.err.splitlines() if line.startswith("warning: ")] == warnings


def test_an_authority_whose_clients_are_refused_is_a_warning_that_does_not_fail(
    check: Callable[[str], Done], tmp_path: Path
) -> None:
    Authority(tmp_path, "Old CA", start=-9, days=3)
    done = check("[tls]\nclient_ca = 'old-ca.pem'\nclient_auth = 'required'\n")
    assert done.code == 0, done
    (warning,) = done.err.splitlines()
    assert warning.startswith(f'warning: {tmp_path}/old-ca.pem: the authority "CN=Old CA" expired on ')


def test_certificates_of_a_socket_that_only_the_daemon_has_are_checked(
    check: Callable[[str], Done], tmp_path: Path
) -> None:
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "a.pem").write_text("nothing")
    (fault,) = check("[tls]\ncertificates = 'certs'\n[listen]\nport = 'tls+systemd:domain=INET:index=0'\n").faults
    assert "a.pem: no certificate in it" in fault


@pytest.mark.parametrize(
    "endpoint",
    ["tls:{}:443", "ssl:443:certKey={}", "ssl:443:certificates={}", "ssl:443:privateKey={}:certKey={}"],
)
def test_an_endpoint_s_own_certificate_is_checked(
    endpoint: str, check: Callable[[str], Done], tmp_path: Path
) -> None:
    (fault,) = check(f"[listen]\nport = '{endpoint.format(*[tmp_path / 'nowhere'] * 2)}'\n").faults
    assert ": listen.port: endpoint " in fault
    assert "nowhere" in fault


@pytest.mark.parametrize("endpoint", ["nonsense:80", "tcp:abc", "ssl:443:privateKey=/nowhere"])
def test_an_admin_port_that_cannot_be_is_a_fault(endpoint: str, check: Callable[[str], Done]) -> None:
    (fault,) = check(f'[listen]\nadmin_port = "{endpoint}"\n').faults
    assert f': listen.admin_port: endpoint "{endpoint}": ' in fault


def test_every_service_that_cannot_be_connected_to_is_told(check: Callable[[str], Done], tmp_path: Path) -> None:
    for name in ("one.pem", "two.pem"):
        (tmp_path / name).write_text("nothing\n")
    lines = check(
        "[services]\n"
        'identity = { url = "https://a.example", ca = "one.pem" }\n'
        'auth = { url = "https://b.example", ca = "two.pem" }\n'
    ).faults
    for name in ("one.pem", "two.pem"):
        assert [line for line in lines if ": services" in line and name in line], (name, lines)


def test_what_the_parser_prints(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ((), ("nonsense",), ("explain",))
    for words, code in (
        *((each, 2) for each in wrong),
        (("--version",), 0),
        (("--help",), 0),
        (("run", "--help"), 0),
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == code
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert bool(out) is (code == 0)
        if words == ("--version",):
            assert out == f"koder-gateway {VERSION}\n"
    assert run("version") == Done(0, f"koder-gateway {VERSION}\n", "")
    for words in (("run", "--nonsense"), ("run", "--demo", "--config", "a"), ("run", "more")):
        done = run(*words)
        assert (done.code, done.out) == (2, ""), words
        assert done.err.startswith("koder-gateway run: "), done


# -- explain


def explain(config: Path, *words: object) -> Done:
    return run("explain", "--config", config, *words)


def test_an_explanation_in_full(config: Path) -> None:
    done = explain(
        config, "-X", "POST", "-H", "Origin: https://koder.example", "--from", "203.0.113.7",
        "https://koder.id.koder.dev/v1/auth/login?next=/",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "request  POST https://koder.id.koder.dev/v1/auth/login?next=/ from 203.0.113.7",
        "tenant   koder (active): koder.id.koder.dev is its name under id.koder.dev",
        "tls      a self-signed one, which the gateway makes at its start",
        "cors     https://koder.example is one of the tenant's cors_origins: its pages may read the response",
        "limits   traffic: 10/s, burst 20, for ip 203.0.113.7",
        (
            "         login-failures: 5/m, burst 5, for tenant koder and ip 203.0.113.7; only failures (400, 401,"
            " 403) are charged"
        ),
        "route    /v1/auth -> auth",
        "service  auth at http://127.0.0.1:4002",
        "answer   forwarded; the service answers",
        "         Access-Control-Allow-Origin: https://koder.example",
        "         Access-Control-Allow-Credentials: true",
        (
            "         Access-Control-Expose-Headers: X-Request-ID, DPoP-Nonce, ETag, Link, RateLimit, "
            "RateLimit-Policy, Retry-After, WWW-Authenticate, Location"
        ),
        "         Vary: Origin",
        "         Strict-Transport-Security: max-age=31536000",
        '         RateLimit-Policy: "traffic";q=20;w=2, "login-failures";q=5;w=60',
        '         RateLimit: "traffic";r=19;t=1, "login-failures";r=5;t=12',
    ]


def test_a_refusal_is_explained_too(config: Path) -> None:
    """The exit code says that it is one."""
    done = explain(config, "https://nobody.id.koder.dev/nowhere")
    assert (done.code, done.err) == (1, "")
    lines = done.out.splitlines()
    assert lines[1].startswith("tenant   none: 404 unknown_tenant: ")
    assert lines[2:7] == [
        "tls      a self-signed one, which the gateway makes at its start",
        "cors     no Origin header: no CORS headers, but Vary: Origin",
        "limits   traffic: 10/s, burst 20, for ip 192.0.2.1",
        "route    none: no route matches this path",
        "service  none: the gateway answers",
    ]
    assert lines[7].startswith("answer   404 unknown_tenant: ")


def test_what_no_limit_applies_to(tmp_path: Path) -> None:
    path = tmp_path / "bare.toml"
    path.write_text("limits = []\n[tls]\nhsts = false\n")
    lines = explain(path, USERS).out.splitlines()
    assert "limits   none applies" in lines
    assert lines[-1] == "answer   forwarded; the service answers", "no field is added either"


@pytest.mark.parametrize(
    ("host", "scheme", "client", "answer"),
    [
        ("koder", "https", "this host asks for no client certificate", "forwarded"),
        ("acme", "https", "this host asks for a client certificate, and accepts requests without", "forwarded"),
        ("admin", "https", "this host requires a client certificate; explained as if there were one", "forwarded"),
        (
            "admin",
            "http",
            "this host requires a client certificate",
            "421 misdirected_request: This host asks for a client",
        ),
    ],
)
def test_what_a_host_wants_of_its_clients(tmp_path: Path, host: str, scheme: str, client: str, answer: str) -> None:
    Authority(tmp_path, "CA")
    path = tmp_path / "koder-gateway.toml"
    auth = '{ "acme.id.koder.dev" = "optional", "admin.id.koder.dev" = "required" }'
    path.write_text(f'[tls]\nclient_ca = "ca.pem"\nclient_auth = {auth}\n')
    lines = explain(path, f"{scheme}://{host}.id.koder.dev/v1/users").out.splitlines()
    assert f"cert     {client}" in lines
    assert any(line.startswith(f"answer   {answer}") for line in lines)


def test_tenants_of_a_url_are_not_known(tmp_path: Path) -> None:
    path = tmp_path / "remote.toml"
    path.write_text('[tenants]\nregistry = "http://127.0.0.1:1/v1/admin/tenants"\n')
    lines = explain(path, USERS).out.splitlines()
    assert lines[1].startswith("tenant   koder (active): ")
    assert lines[2] == (
        "         the tenants are read from http://127.0.0.1:1/v1/admin/tenants, which is not"
        " queried here: whether this tenant exists is not known"
    )


@pytest.mark.parametrize(
    "url",
    [
        "koder.id.koder.dev/v1",
        "ftp://koder.id.koder.dev/",
        "https:///v1",
        "https://[::1/x",
        "https://ex℀mple.com/",
        "",
    ],
)
def test_what_is_no_url(url: str, config: Path) -> None:
    (fault,) = explain(config, url).faults
    assert fault.startswith(f'koder-gateway explain: "{url}" is not a URL; ')


def test_a_user_is_no_part_of_it(config: Path) -> None:
    """Clients make a field of it, so what the gateway gets is another request."""
    (fault,) = explain(config, "https://user:secret@koder.id.koder.dev/v1/users").faults
    assert fault.startswith("koder-gateway explain: ")
    assert fault.endswith("; leave it out")


@pytest.mark.parametrize("peer", ["localhost", "192.0.2", "192.0.2.1:80", ""])
def test_what_is_no_address(peer: str, config: Path) -> None:
    (fault,) = explain(config, "--from", peer, USERS).faults
    assert fault.startswith(f'koder-gateway explain: --from "{peer}" is not an address; ')


def test_a_faulty_configuration_explains_nothing(tmp_path: Path) -> None:
    path = tmp_path / "faulty.toml"
    path.write_text('[timeouts]\nhead = "soon"\nidle = "late"\n')
    assert [line.split(": ")[1] for line in explain(path, USERS).faults] == ["timeouts.head", "timeouts.idle"]


# -- explain and a gateway


@dataclass
class Told:
    """What `explain` says of a request, in the parts that can be held against a gateway's doings."""

    tenant: str = ""
    service: str = ""
    status: int = 0
    code: str = ""
    detail: str = ""
    fields: list[str] = field(default_factory=list)


def told(out: str) -> Told:
    lines = out.splitlines()
    said = {line[:9].strip(): line[9:] for line in lines if line[0] != " "}
    at = next(index for index, line in enumerate(lines) if line.startswith("answer "))
    fields = [line.strip() for line in lines[at + 1 :] if line.startswith(" " * 9)]
    result = Told(fields=[line for line in fields if OWN.fullmatch(line.partition(":")[0].encode())])
    if not said["tenant"].startswith("none: "):
        result.tenant = said["tenant"].partition(" ")[0]
    answer = said["answer"]
    if answer == "forwarded; the service answers":
        result.service = said["service"].partition(" ")[0]
        assert said["route"].endswith(f" -> {result.service}")
        return result
    assert said["service"] == "none: the gateway answers"
    if answer.startswith("204, by the gateway"):
        result.status = 204
        return result
    status, code, result.detail = re.fullmatch(r"([0-9]+) ([a-z_]+): (.+)", answer).groups()  # type: ignore[union-attr]
    result.status, result.code = int(status), code
    return result


OWN = re.compile(rb"(?i)access-control-.*|vary|ratelimit(-policy)?|retry-after|strict-transport-security")


def fields_of(message: Message) -> list[str]:
    """The field lines that the policies give an answer."""
    return [f"{name.decode()}: {value.decode('latin-1')}" for name, value in message.fields if OWN.fullmatch(name)]


def happens(config: Path, method: str, url: str, headers: tuple[str, ...], peer: str) -> Told:
    """What a gateway in memory really does with the same request, in the same words."""
    settings = load(config)
    gateway = MemoryGateway(settings, tenants=settings.registered, limits=client_limits(settings))
    parts = urlsplit(url)
    target = url.partition("://")[2][len(parts.netloc) :]
    named = any(header.lower().startswith("host:") for header in headers)
    lines = [f"{method} {target if target.startswith('/') else '/' + target} HTTP/1.1"]
    lines += [] if named else [f"Host: {parts.netloc}"]
    raw = "\r\n".join([*lines, *headers, "", ""]).encode()
    client = gateway.connect(peer, secure=parts.scheme == "https")
    client.send(raw)
    result = Told()
    for name in gateway.services:
        requests = serve(gateway, lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", name)
        if requests:
            (received,) = requests
            assert not result.service
            result.service, result.tenant = name, received.one(b"X-Tenant-ID").decode()
    answer, rest = read_message(client.take(), to_head=method == "HEAD")
    assert not rest
    if not result.service:
        result.status = answer.status
        if answer.status != 204 and method != "HEAD":
            result.code = answer.code
            result.detail = re.search(rb'"detail":"((?:[^"\\]|\\.)*)"', answer.body)[1].decode()  # type: ignore[index]
            result.detail = result.detail.replace('\\"', '"').replace("\\\\", "\\")
    result.fields = fields_of(answer)
    gateway.hang_up()
    return result


def assert_agreed(
    config: Path, method: str, url: str, headers: tuple[str, ...] = (), peer: str = "192.0.2.1"
) -> Told:
    words: list[Any] = ["-X", method, "--from", peer]
    for header in headers:
        words += ["-H", header]
    done = explain(config, *words, url)
    said, did = told(done.out), happens(config, method, url, headers, peer)
    assert (done.code, done.err) == (1 if said.code else 0, "")
    if not did.service:
        did.tenant = said.tenant  # nobody was told of one
    if method == "HEAD":
        did.code, did.detail = said.code, said.detail
    assert said == did
    return said


APP = "Origin: https://app.example.com"
KODER = "Origin: https://koder.example"
ASKS = ("Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: x-tenant-id, content-type")
BASE = "https://id.koder.dev/v1/users"
CLOSED = "https://koder.id.koder.dev/v1/admin"
# name: (what comes of it, the request)
TABLE: dict[str, tuple[object, tuple[Any, ...]]] = {
    "a tenant's name": ("identity", ("GET", USERS)),
    "over plain HTTP": ("identity", ("GET", USERS.replace("https", "http"))),
    "with a port": ("session", ("DELETE", "https://koder.id.koder.dev:8443/v1/sessions/1")),
    "in capitals, with a dot": ("identity", ("GET", "https://KODER.id.KODER.dev./v1/users?x=1")),
    "without a path": ("no_route", ("GET", "https://koder.id.koder.dev")),
    "a query without a path": ("no_route", ("GET", "https://koder.id.koder.dev?x=1")),
    "a custom domain": ("oauth2", ("GET", "https://login.koder.example/.well-known/openid-configuration")),
    "a header on the base domain": ("identity", ("GET", BASE, ("X-Tenant-ID: acme",))),
    "a header that agrees": ("identity", ("GET", USERS, ("x-tenant-id: koder",))),
    "a header spelled otherwise": ("tenant_required", ("GET", BASE, ("X_Tenant_ID: acme",))),
    "no tenant": ("tenant_required", ("GET", BASE)),
    "an empty header": ("tenant_required", ("GET", BASE, ("X-Tenant-ID:",))),
    "a header that contradicts": ("tenant_conflict", ("GET", USERS, ("X-Tenant-ID: acme",))),
    "two headers": ("tenant_conflict", ("GET", BASE, ("X-Tenant-ID: acme", "X-Tenant-ID: koder"))),
    "a suspended tenant": ("tenant_suspended", ("GET", "https://closed.id.koder.dev/v1/users")),
    "an unknown slug": ("unknown_tenant", ("GET", "https://nobody.id.koder.dev/v1/users")),
    "an unknown header": ("unknown_tenant", ("GET", BASE, ("X-Tenant-ID: nobody",))),
    "two labels": ("misdirected_request", ("GET", "https://a.koder.id.koder.dev/v1/users")),
    "a foreign host": ("misdirected_request", ("GET", "https://evil.example/v1/users")),
    "an address": ("misdirected_request", ("GET", "https://127.0.0.1/v1/users")),
    "an address of IPv6": ("misdirected_request", ("GET", "https://[2001:db8::1]:8443/v1/users")),
    "another Host": ("identity", ("GET", "https://127.0.0.1/v1/users", ("Host: acme.id.koder.dev",))),
    "two Hosts": ("bad_request", ("GET", USERS, ("Host: acme.id.koder.dev", "Host: koder.id.koder.dev"))),
    "no such path": ("no_route", ("GET", "https://koder.id.koder.dev/v1/users2")),
    "a path of two readings": ("bad_request", ("GET", USERS + "/%2e%2e/admin")),
    "a dot segment": ("bad_request", ("GET", USERS + "/../admin")),
    "a fragment": ("bad_request", ("GET", USERS + "#top")),
    "a double slash": ("no_route", ("GET", "https://koder.id.koder.dev//v1/users")),
    "TRACE": ("method_not_allowed", ("TRACE", USERS)),
    "CONNECT": ("method_not_allowed", ("CONNECT", USERS)),
    "an unknown method": ("not_implemented", ("BREW", USERS)),
    "a method in lower case": ("not_implemented", ("get", USERS)),
    "HEAD": ("identity", ("HEAD", USERS)),
    "HEAD refused": ("no_route", ("HEAD", "https://koder.id.koder.dev/")),
    "too long a target": ("uri_too_long", ("GET", USERS + "/" + "a" * 9000)),
    "too many fields": ("head_too_large", ("GET", USERS, tuple(f"X-{n}: 1" for n in range(101)))),
    "a head over the limit": ("head_too_large", ("GET", USERS, ("X-Big: " + "a" * 40000,))),
    "a head over the limit of an origin": ("head_too_large", ("GET", USERS, (APP, "X-Big: " + "a" * 40000))),
    "a head over the limit of a tenant's origin": (
        "head_too_large",
        ("GET", USERS, (KODER, "X-Big: " + "a" * 40000)),
    ),
    "a target over both limits": ("uri_too_long", ("GET", USERS + "/" + "a" * 40000)),
    "too large a body": ("body_too_large", ("POST", USERS, ("Content-Length: 1025",))),
    "an expectation": ("expectation_failed", ("POST", USERS, ("Expect: 200-ok",))),
    "an unknown coding": ("not_implemented", ("POST", USERS, ("Transfer-Encoding: gzip",))),
    "two lengths": ("bad_request", ("POST", USERS, ("Content-Length: 1", "Content-Length: 2"))),
    "a space before the colon": ("bad_request", ("GET", USERS, ("X-A : 1",))),
    "an allowed origin": ("identity", ("GET", USERS, (APP,))),
    "the tenant's origin": ("identity", ("GET", USERS, (KODER,))),
    "another tenant's origin": ("identity", ("GET", USERS.replace("koder.id", "acme.id"), (KODER,))),
    "a foreign origin": ("identity", ("GET", USERS, ("Origin: https://evil.example",))),
    "two origins": ("identity", ("GET", USERS, (APP, KODER))),
    "a refusal to an origin": ("no_route", ("GET", "https://koder.id.koder.dev/", (APP,))),
    "a bad head of an origin": ("bad_request", ("GET", USERS, (APP, "X-A : 1"))),
    "a preflight": (204, ("OPTIONS", USERS, (APP, *ASKS))),
    "a preflight of a tenant's origin": (204, ("OPTIONS", USERS, (KODER, *ASKS))),
    "a preflight before the header": (204, ("OPTIONS", BASE, (APP, *ASKS))),
    "a tenant's preflight before the header": ("tenant_required", ("OPTIONS", BASE, (KODER, *ASKS))),
    "a page of another tenant's": ("not_allowed", ("DELETE", BASE, (KODER, "X-Tenant-ID: acme"))),
    "another spelling": ("identity", ("GET", "https://koder.id.koder.dev/v1/%75sers")),
    "another spelling of several limits": ("auth", ("POST", "https://koder.id.koder.dev/v1/%61uth")),
    "a public document": (
        "oauth2",
        ("GET", "https://koder.id.koder.dev/.well-known/x", ("Origin: https://a.example",)),
    ),
    "a preflight to no tenant": (204, ("OPTIONS", "https://nobody.id.koder.dev/", (APP, *ASKS))),
    "a foreign preflight": ("identity", ("OPTIONS", USERS, ("Origin: https://evil.example", *ASKS))),
    "OPTIONS without an origin": ("identity", ("OPTIONS", USERS, ASKS)),
    "several limits": ("auth", ("POST", "https://koder.id.koder.dev/v1/auth")),
    "a shadow limit": ("admin", ("GET", "https://koder.id.koder.dev/v1/admin/tenants", (), "172.16.1.2")),
    "a closed route": ("not_allowed", ("GET", "https://koder.id.koder.dev/v1/admin/tenants")),
    "a closed route by a proxy that names nobody": ("not_allowed", ("GET", CLOSED, (), "10.1.2.3")),
    "a closed route by its proxy": ("not_allowed", ("GET", CLOSED, ("X-Forwarded-For: 198.51.100.7",), "10.1.2.3")),
    "a closed route by an unreadable chain": ("not_allowed", ("GET", CLOSED, ("X-Forwarded-For: x",), "10.1.2.3")),
    "a trusted proxy": ("identity", ("GET", USERS, ("X-Forwarded-For: 198.51.100.7",), "10.1.2.3")),
    "a proxy that is not trusted": ("identity", ("GET", USERS, ("X-Forwarded-For: 198.51.100.7",), "11.1.2.3")),
    "a client of IPv6": ("identity", ("GET", USERS, (), "2001:db8::1")),
}


@pytest.mark.parametrize(("outcome", "request_words"), TABLE.values(), ids=TABLE)
def test_explain_agrees_with_a_running_gateway(outcome: object, request_words: tuple[Any, ...], config: Path) -> None:
    said = assert_agreed(config, *request_words)
    assert outcome in (said.service, said.code, said.status)


def test_the_client_is_the_one_that_a_trusted_proxy_names(config: Path) -> None:
    words = ("--from", "10.1.2.3", "-H", "X-Forwarded-For: 6.6.6.6, 198.51.100.7", USERS)
    out = explain(config, *words).out
    assert "client   198.51.100.7\ntenant" in out
    assert "limits   traffic: 10/s, burst 20, for ip 198.51.100.7\n" in out
    assert "client " not in explain(config, "--from", "10.1.2.3", USERS).out


def test_an_ipv4_address_within_ipv6_is_the_ipv4_one(config: Path) -> None:
    words = ("--from", "::ffff:10.1.2.3", "-H", "X-Forwarded-For: ::FFFF:198.51.100.7", USERS)
    assert "client   198.51.100.7\ntenant" in explain(config, *words).out


@pytest.mark.parametrize(
    "endpoint",
    ["ssl:80", "tls:80", "haproxy:ssl:80", "SSL:80", "tls+systemd:domain=INET:index=0", "haproxy:tls+tcp:80"],
)
def test_a_redirect_port_that_speaks_tls_is_a_fault(
    endpoint: str, check: Callable[[str], Done], tmp_path: Path
) -> None:
    (fault,) = check(f'[listen]\nredirect_port = ["tcp:80", "{endpoint}"]\n').faults
    assert f': listen.redirect_port: endpoint "{endpoint}": speaks TLS, and a redirect port must not; write' in fault
    assert not list(tmp_path.rglob("self-signed*"))


def test_every_redirect_port_is_looked_at(check: Callable[[str], Done]) -> None:
    ports = ["nonsense:80", "tcp:abc", "haproxy:tcp:80", "systemd:domain=INET:index=9", "unix:/tmp/x"]
    faults = check(f"[listen]\nredirect_port = {ports}\n").faults
    assert [port in fault for port, fault in zip(ports, faults, strict=False)] == [True, True]
    assert check('[listen]\nredirect_port = "tcp:80"\n').code == 0


def test_a_webroot_that_is_not_there_is_a_fault(check: Callable[[str], Done]) -> None:
    (fault,) = check('[tls]\nacme_webroot = "nowhere"\n').faults
    assert ': tls.acme_webroot: "nowhere": no such file or folder; write the path of a folder' in fault


HOSTS = st.sampled_from(
    ["koder.id.koder.dev", "ACME.id.koder.dev:443", "closed.id.koder.dev.", "id.koder.dev", "login.koder.example"]
) | st.text("abkz09-._:", min_size=1, max_size=20).map(lambda text: text + ".id.koder.dev")
SEGMENTS = st.sampled_from(["v1", "users", "auth", "oauth", "v2", "..", ".", "%2e", "%2F", "%zz", "%41", "", "\\"])
PATHS = st.lists(SEGMENTS | st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=6)).map("/".join)
ORIGINS = (
    st.none()
    | st.sampled_from(
        [
            "https://app.example.com",
            "https://koder.example",
            "https://closed.example",
            "null",
            "https://APP.example.com",
        ]
    )
    | st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30)
)
METHODS = st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "TRACE", "PROPFIND"])


@given(HOSTS, PATHS, ORIGINS, METHODS, st.booleans(), st.sampled_from(["", "koder", "acme", "closed", "nobody"]))
def test_explain_agrees_whatever_is_asked(
    config: Path, host: str, path: str, origin: str | None, method: str, asks: bool, tenant: str
) -> None:
    headers = [f"Origin: {origin}"] if origin is not None else []
    headers += ASKS if asks else []
    headers += [f"X-Tenant-ID: {tenant}"] if tenant else []
    assert_agreed(config, method, f"https://{host}/{path}", tuple(headers))


# -- as a command


def test_the_command_is_installed(config: Path, tmp_path: Path) -> None:
    def command(*words: object) -> subprocess.CompletedProcess[str]:
        line = [tool("koder-gateway"), *map(str, words)]
        return subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE, check=False)

    faulty = tmp_path / "faulty.toml"
    faulty.write_text('[timeouts]\nhead = "soon"\n')
    for words in (
        ("check", "--config", config),
        ("check", "--config", faulty),
        ("explain", "-c", config, "-H", KODER, USERS),
    ):
        done = command(*words)
        assert Done(done.returncode, done.stdout, done.stderr) == run(*words)


@pytest.mark.parametrize("words", [("version",), ("check", "--json", "FILE")])
def test_who_reads_no_more_is_told_nothing(words: tuple[str, ...], tmp_path: Path) -> None:
    """As in `koder-gateway limits | head -3`."""
    path = tmp_path / "koder-gateway.toml"
    path.write_text("[log]\naccess = false\n")
    reading, writing = os.pipe()
    os.close(reading)
    command = [tool("koder-gateway"), *(str(path) if word == "FILE" else word for word in words)]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")
