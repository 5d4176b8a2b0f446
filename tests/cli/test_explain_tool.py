"""`koder-gateway explain`: one object for programs, exit codes, and the running gateway's own word."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from koder_gateway import explain_tool
from koder_gateway.acme.layout import Layout, NameRecord
from koder_gateway.cli import main
from koder_gateway.config import load
from koder_gateway.exchange.explained_request import explained_request
from koder_gateway.tree.compose import compose
from koder_gateway.tree.explaining import explained_live
from koder_gateway.wire.clock import CoarseClock
from tests.kit.authority import write_certificate
from tests.kit.certificates import certificate_pem, key_pem
from tests.kit.clients import Client
from tests.kit.gateways import GatewayProcess
from tests.kit.memory import MemoryReactor

CONFIG = """
[tenants]
base_domain = "id.koder.dev"
registry = "tenants.toml"
[tls]
hsts = false
[[limits]]
name = "login"
key = ["tenant", "ip"]
rate = "5/h"
paths = ["/v1/auth"]
[[limits]]
name = "token"
key = ["tenant"]
rate = "1/h"
paths = ["/oauth/v2/token"]
[[limits]]
name = "client"
key = ["client_id"]
rate = "3/h"
paths = ["/oauth/v2/introspect"]
[state]
dir = "state"
[log]
access = false
"""
TENANTS = '[[tenant]]\nslug = "koder"\n'
AUTH = "https://koder.id.koder.dev/v1/auth"
TOKEN = "https://koder.id.koder.dev/oauth/v2/token"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    (folder / "tenants.toml").write_text(TENANTS)
    (folder / "koder-gateway.toml").write_text(CONFIG)
    return folder / "koder-gateway.toml"


@pytest.fixture(scope="module")
def gateway(config: Path) -> Iterator[GatewayProcess]:
    with GatewayProcess(config.parent, CONFIG) as running:
        yield running


def ask(gateway: GatewayProcess, target: bytes) -> int:
    with Client.connect(gateway.ports[0], secure=False) as client:
        client.send(b"GET %b HTTP/1.1\r\nHost: koder.id.koder.dev\r\n\r\n" % target)
        return client.answer(b"GET").status


def explain(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, list[str]]:
    """The exit code, standard output, and the lines of standard error."""
    code = main(["explain", *words])
    out, err = capsys.readouterr()
    return code, out, err.splitlines()


def explained(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code, out, err = explain(capsys, "--json", *words)
    assert err == []
    return code, json.loads(out)


def test_an_object_of_a_request_that_is_served(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = explained(capsys, "--config", str(config), "-X", "POST", "--from", "203.0.113.7", AUTH)
    assert code == 0
    assert document == {
        "request": {"method": "POST", "url": AUTH, "from": "203.0.113.7"},
        "live": False,
        "served": True,
        "outcome": "forwarded",
        "client": "203.0.113.7",
        "tenant": {
            "slug": "koder",
            "reason": "koder (active): koder.id.koder.dev is its name under id.koder.dev",
        },
        "server_certificate": "a self-signed one, which the gateway makes at its start",
        "certificate": None,
        "cors": "no Origin header: no CORS headers",
        "limits": [
            {"name": "login", "rule": "login: 5/h, burst 5, for tenant koder and ip 203.0.113.7", "left": None},
        ],
        "route": "/v1/auth -> auth",
        "access": None,
        "context": None,
        "store": None,
        "service": {"name": "auth", "address": "http://127.0.0.1:4002"},
        "answer": {
            "status": None,
            "code": None,
            "detail": None,
            "fields": [
                ["RateLimit-Policy", '"login";q=5;w=3600'],
                ["RateLimit", '"login";r=4;t=720'],
            ],
            "body": None,
        },
    }


@pytest.mark.parametrize(
    ("words", "kind", "part"),
    [
        (("https://nobody.id.koder.dev/v1/users",), "application/problem+json", '"code":"unknown_tenant"'),
        (("https://nobody.id.koder.dev/oauth/v2/token",), "application/json", '{"error":"invalid_request"'),
        (
            ("-H", "Accept: text/html", "https://nobody.id.koder.dev/oauth/v2/token"),
            "text/html; charset=utf-8",
            "<h1>This organization does not exist</h1>",
        ),
    ],
)
def test_a_refusal_has_the_body_that_its_client_gets(
    words: tuple[str, ...], kind: str, part: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = explained(capsys, "--config", str(config), "-H", "X-Request-ID: r1", *words)
    answer = document["answer"]
    assert (code, document["served"], document["outcome"]) == (1, False, "refused")
    assert (answer["status"], answer["code"]) == (404, "unknown_tenant")
    assert ["Content-Type", kind] in answer["fields"]
    assert part in answer["body"]
    assert "r1" in answer["body"]
    code, out, _ = explain(capsys, "--config", str(config), "-H", "X-Request-ID: r1", *words)
    assert code == 1
    assert answer["body"].splitlines()[0] in out.partition("\nbody     ")[2]


def test_head_has_no_body(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = explained(capsys, "--config", str(config), "-X", "HEAD", "https://koder.id.koder.dev/nowhere")
    assert (code, document["answer"]["body"]) == (1, "")


def test_a_preflight_is_served(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cors.toml"
    path.write_text('[cors]\norigins = ["https://app.example"]\n')
    asks = ("-H", "Origin: https://app.example", "-H", "Access-Control-Request-Method: PUT")
    code, document = explained(capsys, "--config", str(path), "-X", "OPTIONS", *asks, AUTH)
    assert (code, document["outcome"], document["answer"]["status"]) == (0, "preflight", 204)


def test_a_wrong_command_line_is_2(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["explain", "--config", str(config), "--admin", "http://127.0.0.1:1", AUTH])
    assert exit_.value.code == 2
    assert "--admin and --config exclude each other" in capsys.readouterr().err


def test_the_running_gateway_says_what_is_left(gateway: GatewayProcess, capsys: pytest.CaptureFixture[str]) -> None:
    """As often as it is asked: nobody is charged."""
    admin = ("--admin", f"http://127.0.0.1:{gateway.admin}")
    for _ in range(3):
        code, document = explained(capsys, *admin, "--from", "127.0.0.1", TOKEN)
        assert (code, document["live"], document["served"]) == (0, True, True)
        assert [(limit["name"], limit["left"]) for limit in document["limits"]] == [("token", 1)]
    # It is forwarded, to a service that is not there.
    assert ask(gateway, b"/oauth/v2/token") == 502
    code, document = explained(capsys, *admin, "--from", "127.0.0.1", TOKEN)
    assert (code, document["served"], document["answer"]["code"]) == (1, False, "rate_limited")
    assert [limit["left"] for limit in document["limits"] if limit["name"] == "token"] == [0]
    assert '"error":"temporarily_unavailable"' in document["answer"]["body"]
    assert ask(gateway, b"/oauth/v2/token") == 429
    code, out, _ = explain(capsys, *admin, AUTH)
    assert code == 0
    assert "limits   login: 5/h, burst 5, for tenant koder and ip 192.0.2.1; 5 left\n" in out


def test_the_running_gateway_explains_as_the_configuration_does(
    gateway: GatewayProcess, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("-X", "POST", "-H", "X-Tenant-ID: koder", "-H", "Accept: text/html", "--from", "2001:db8::1")
    for url in (AUTH, "https://id.koder.dev/v1/users?a=%C3%A4&b=+", "https://koder.id.koder.dev/a/%2e%2e/b"):
        _, live = explained(capsys, "--admin", f"127.0.0.1:{gateway.admin}", *words, url)
        _, told = explained(capsys, "--config", str(config), *words, url)
        assert live.pop("live")
        assert not told.pop("live")
        assert (live.pop("store"), told.pop("store")) == ("memory:", None)
        # Its ports speak no TLS.
        assert live.pop("server_certificate") is None
        assert told.pop("server_certificate").startswith("a self-signed one")
        for document in (live, told):
            for limit in document["limits"]:
                del limit["left"]
        assert live == told


def test_what_a_shared_store_has_left_is_not_claimed(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The admin port answers for its own process, and says so."""
    text = config.read_text() + '\n[limits_store]\nurl = "redis://127.0.0.1:1/0"\n'
    path = config.with_name("shared.toml")
    path.write_text(text)
    settings = load(path, environ={})
    request = explained_request("GET", AUTH, (), "192.0.2.1")
    composition = compose(settings, settings.registered, reactor=MemoryReactor(), clock=CoarseClock())
    document = explained_live(request, composition, 0.0)
    assert document["store"] == "redis://127.0.0.1:1/0"
    monkeypatch.setattr(explain_tool, "ask", lambda admin, target: document)
    code, out, _ = explain(capsys, "--admin", "http://127.0.0.1:1", AUTH)
    assert code == 0
    assert (
        "; 5 left\n         what is left is what this gateway process last knew: redis://127.0.0.1:1/0 was not" in out
    )


INTROSPECT = "https://koder.id.koder.dev/oauth/v2/introspect"


def test_a_form_says_which_client_a_limit_counts(
    config: Path, gateway: GatewayProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    for where in (("--config", str(config)), ("--admin", f"http://127.0.0.1:{gateway.admin}")):
        for words, counted in (
            (("-d", "token=x&client_id=Web%2d1"), "client: 3/h, burst 3, for client_id web1"),
            (("-d", "token=x"), "client: 3/h, burst 3, for all requests that name no one client_id"),
            (("-d", ""), "client: 3/h, burst 3, for all requests that name no one client_id"),
            ((), "client: 3/h, burst 3, for all requests that name no one client_id"),
            # Not by its method: a service may read no form of it.
            (("-X", "PUT", "-d", "client_id=web"), "for all requests that name no one client_id"),
            (
                ("-H", "Content-Type: text/plain", "-d", "client_id=web"),
                "for all requests that name no one client_id",
            ),
        ):
            code, out, _ = explain(capsys, *where, *words, INTROSPECT)
            assert code == 0
            assert counted in out, (where, words)


@pytest.mark.parametrize(
    ("query", "status", "detail"),
    [
        (b"", 400, "Write /explain?url=https://acme.id.koder.dev/v1/users; "),
        (b"?url=a&url=b", 400, "Write /explain?url="),
        (b"?url=https://koder.id.koder.dev/&data=a&data=b", 400, "Write /explain?url="),
        (b"?url=nonsense", 400, '"nonsense" is not a URL; '),
        (b"?url=https://koder.id.koder.dev/&from=x", 400, '--from "x" is not an address; '),
        (b"?" + b"&".join([b"header=a:b"] * 200), 400, "The query has more than 128 parameters. "),
        (b"?url=https://koder.id.koder.dev/%ff", 200, ""),
        (b"?url=https://koder.id.koder.dev/" + b"a" * 13_000, 414, "The request's target is over"),
    ],
)
def test_what_the_admin_port_is_asked(gateway: GatewayProcess, query: bytes, status: int, detail: str) -> None:
    with Client.connect(gateway.admin, secure=False) as client:
        client.send(b"GET /explain%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % query)
        message = client.answer(b"GET")
    document = json.loads(message.body)
    assert message.status == status
    assert document.get("detail", "").startswith(detail)


class Certified:
    """A configuration with an operator's certificate, an ACME authority, and tenants with domains."""

    def __init__(self, folder: Path) -> None:
        self.layout = Layout.below(folder / "state")
        for each in self.layout.folders:
            each.mkdir(parents=True)
        self.certs = folder / "certs"
        write_certificate(self.certs, "id.koder.dev", "*.id.koder.dev")
        self.config = folder / "koder-gateway.toml"
        self.write()
        tenants = (("koder", "login.koder.example", "active"), ("closed", "closed.example", "suspended"))
        entries = [
            f'[[tenant]]\nslug = "{slug}"\ndomains = ["{domain}"]\nstatus = "{status}"\n'
            for slug, domain, status in tenants
        ]
        (folder / "tenants.toml").write_text("".join(entries))

    def write(self, *, strict: bool = False, acme: bool = True, certificates: bool = True) -> None:
        lines = ['[tenants]\nbase_domain = "id.koder.dev"\nregistry = "tenants.toml"', '[state]\ndir = "state"']
        lines += [f"[tls]\nstrict_sni = {str(strict).lower()}"]
        lines += ['certificates = "certs"'] if certificates else []
        if acme:
            lines += ['[acme]\ndirectory = "https://ca.example/directory"\naccept_terms = true']
        self.config.write_text("\n".join([*lines, ""]))

    def issue(self, name: str) -> Path:
        key = ec.generate_private_key(ec.SECP256R1())
        path = self.layout.certificate(name)
        path.write_bytes(key_pem(key) + certificate_pem(key, name))
        return path

    def record(self, name: str, **members: Any) -> None:
        made = NameRecord(name=name, first_seen=1.0, **members)
        self.layout.record(name).write_bytes(msgspec.json.encode(made))

    def reason(self, capsys: pytest.CaptureFixture[str], host: str) -> str:
        _, document = explained(capsys, "--config", str(self.config), f"https://{host}/v1/users")
        reason: str = document["server_certificate"]
        return reason


@pytest.fixture
def certified(tmp_path: Path) -> Certified:
    return Certified(tmp_path)


def test_the_certificate_of_a_host_is_explained(certified: Certified, capsys: pytest.CaptureFixture[str]) -> None:
    path = certified.issue("login.koder.example")
    operators = certified.certs / "default.pem"
    assert certified.reason(capsys, "a.id.koder.dev:443") == f"{operators}, of tls.certificates, for *.id.koder.dev"
    assert certified.reason(capsys, "id.koder.dev") == f"{operators}, of tls.certificates, for id.koder.dev"
    told = f"{path}, from the ACME authority, for login.koder.example"
    assert certified.reason(capsys, "LOGIN.koder.example") == told
    certified.record("login.koder.example", state="issued", next_renewal=1_900_000_000.0)
    assert certified.reason(capsys, "login.koder.example") == f"{told}, to be renewed on 2030-03-17"
    certified.write(acme=False)
    told = f"the default, {operators}: no certificate is for this name"
    assert certified.reason(capsys, "login.koder.example") == told


def test_why_a_host_has_no_certificate_is_explained(certified: Certified, capsys: pytest.CaptureFixture[str]) -> None:
    default = f"the default, {certified.certs / 'default.pem'}: no certificate is for this name; "
    told = f"{default}its own is to be ordered, and the gateway has not looked at it yet"
    assert certified.reason(capsys, "login.koder.example") == told
    certified.record("login.koder.example", state="ordering")
    assert certified.reason(capsys, "login.koder.example") == f"{default}its own is on the way (ordering)"
    held = {"state": "held", "last_fault": "it leads to 192.0.2.1", "advice": "correct its DNS"}
    certified.record("login.koder.example", **held)
    told = f"{default}its own is not there yet (held): it leads to 192.0.2.1; correct its DNS"
    assert certified.reason(capsys, "login.koder.example") == told
    told = f"{default}none is ordered, since the tenant closed is suspended"
    assert certified.reason(capsys, "closed.example") == told
    assert "neither a tenant's custom domain nor in acme.names" in certified.reason(capsys, "other.example")


def test_a_host_that_is_refused_is_explained(certified: Certified, capsys: pytest.CaptureFixture[str]) -> None:
    certified.write(strict=True)
    reason = certified.reason(capsys, "login.koder.example")
    assert reason.startswith("none: no certificate is for this name, and tls.strict_sni refuses such clients")
    assert reason.endswith("has not looked at it yet")


def test_a_url_without_tls_has_no_certificate(certified: Certified, capsys: pytest.CaptureFixture[str]) -> None:
    _, document = explained(capsys, "--config", str(certified.config), "http://id.koder.dev/v1/users")
    assert document["server_certificate"] is None


def test_the_running_gateway_explains_its_certificates(
    certified: Certified, capsys: pytest.CaptureFixture[str]
) -> None:
    path = certified.issue("login.koder.example")
    url = "https://login.koder.example/v1/users"
    config = certified.config.read_text()
    with GatewayProcess(certified.config.parent, config, ports=(GatewayProcess.TLS,)) as gateway:
        _, document = explained(capsys, "--admin", f"127.0.0.1:{gateway.admin}", url)
        assert document["server_certificate"].startswith(f"{path}, from the ACME authority")
        _, page = gateway.ask_admin("/status")
    acme = json.loads(page)["acme"]
    assert set(acme["names"]) == {"waiting", "held", "ordering", "issued", "failed"}
    listed = {each["name"]: each["by_acme"] for each in json.loads(page)["certificates"]["first"]}
    assert listed == {"default": False, "login.koder.example": True}
