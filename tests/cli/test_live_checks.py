"""`koder-gateway check --live`: against a real gateway, whose services and certificates are wrong in every way."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from koder_gateway.config import Settings, load
from koder_gateway.live_checks import LiveCheckError, check_live, hosts_to_ask, place_of
from tests.kit.authority import Authority
from tests.kit.clients import BASE_DOMAIN
from tests.kit.gateways import GatewayProcess, configuration, tool
from tests.kit.memory import settings_with
from tests.kit.services import Origin, Peer, answer

DISCOVERY = b"/.well-known/openid-configuration"
TENANTS = """
[[tenant]]
slug = "good"
[[tenant]]
slug = "fixed"
domains = ["login.fixed.example"]
[[tenant]]
slug = "lost"
[[tenant]]
slug = "page"
[[tenant]]
slug = "bare"
[[tenant]]
slug = "gone"
status = "suspended"
[[tenant]]
slug = "old"
domains = ["old.example", "soon.example"]
[[tenant]]
slug = "cut"
[[tenant]]
slug = "huge"
[[tenant]]
slug = "hung"
status = "suspended"
"""


RELEASED = threading.Event()


def issuer(host: str) -> bytes:
    return answer(json.dumps({"issuer": f"https://{host}"}).encode(), "Content-Type: application/json")


def play(peer: Peer, number: int) -> None:
    """A service that goes by the Host, but not for every tenant."""
    while (received := peer.head()) is not None:
        assert received.target == DISCOVERY
        host = received.one(b"host").decode()
        slug = host.partition(".")[0]
        if host == "login.fixed.example":
            # It knows the tenant by its slug alone.
            peer.send(issuer(f"fixed.{BASE_DOMAIN}"))
        elif slug == "lost":
            peer.send(answer(b"not here", status="404 Not Found"))
        elif slug == "page":
            peer.send(answer(b"<html>"))
        elif slug == "bare":
            peer.send(answer(b'{"issuer": 7}'))
        elif slug == "huge":
            peer.send(answer(b'"' + b"x" * 3_000_000 + b'"'))
        elif slug == "hung":
            RELEASED.wait()
            return
        elif slug == "cut":
            peer.reset()
            return
        else:
            peer.send(issuer(host))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    authority = Authority(folder)
    certificates = folder / "certs"
    certificates.mkdir()
    authority.issue(BASE_DOMAIN, f"*.{BASE_DOMAIN}", path=certificates / "default.pem")
    authority.issue("old.example", start=-90, days=80, path=certificates / "old.pem")
    authority.issue("soon.example", days=5.5, path=certificates / "soon.pem")
    (folder / "tenants.toml").write_text(TENANTS)
    with Origin(play) as origin:
        text = configuration(
            {"oauth2": origin.url},
            {
                "tenants": {"base_domain": BASE_DOMAIN, "registry": "tenants.toml"},
                "tls": {"certificates": "certs", "default": "default"},
            },
        )
        text += '[[routes]]\npath = "/.well-known"\nservice = "oauth2"\n'
        with GatewayProcess(folder, text, ports=(GatewayProcess.TLS, GatewayProcess.PLAIN)) as running:
            yield running


def check(gateway: GatewayProcess, *words: str, port: int = 0) -> subprocess.CompletedProcess[str]:
    where = f"127.0.0.1:{gateway.ports[port]}" if not port else f"http://127.0.0.1:{gateway.ports[port]}"
    asked = () if "--gateway" in words else ("--gateway", where)
    command = [tool("koder-gateway"), "check", str(gateway.config), "--live", *asked, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def trusted(gateway: GatewayProcess) -> str:
    (path,) = gateway.folder.glob("test-ca.pem")
    return str(path)


LOST = "service: status 404"
CUT = "service: status 502 upstream_closed: The service closed the connection before its response."


def named(slug: str, host: str = "") -> str:
    return f"live: {slug}: https://{host or f'{slug}.{BASE_DOMAIN}'}: "


def test_each_fault_is_one_line(gateway: GatewayProcess) -> None:
    done = check(gateway, "--ca", trusted(gateway))
    lines = done.stderr.splitlines()
    faults = {line for line in lines if line.startswith("live: ")}
    assert faults == {
        named("fixed", "login.fixed.example")
        + "certificate: Hostname mismatch, certificate is not valid for 'login.fixed.example'.; clients refuse it",
        named("fixed", "login.fixed.example")
        + f'issuer: is "https://fixed.{BASE_DOMAIN}", not the origin that was asked; the service must go by the'
        " request's Host",
        named("lost") + LOST,
        named("page") + "service: the discovery document is not JSON",
        named("bare") + "issuer: the discovery document has no issuer",
        named("old", "old.example") + "certificate: certificate has expired; clients refuse it",
        named("cut") + CUT,
        named("huge") + "service: the discovery document is longer than 1 MiB",
    }
    assert [line.partition(" (")[0] for line in lines if "warning: live: " in line] == [
        "warning: live: soon.example: the certificate expires in 4 days"
    ]
    assert (done.returncode, done.stdout) == (1, "")


def test_one_tenant_that_is_good(gateway: GatewayProcess) -> None:
    done = check(gateway, "--ca", trusted(gateway), "--tenant", "good")
    assert (done.returncode, done.stdout.splitlines()[1:]) == (0, ["live: good: 1 hosts were asked"])


def test_as_json(gateway: GatewayProcess) -> None:
    done = check(gateway, "--json", "--ca", trusted(gateway), "--tenant", "lost", "--tenant", "good")
    found: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode, done.stderr, found["ok"]) == (1, "", False)
    assert found["faults"] == [f"live: lost: https://lost.{BASE_DOMAIN}: service: status 404"]
    assert found["live"] == {
        "asked": 2,
        "faults": [
            {
                "tenant": "lost",
                "origin": f"https://lost.{BASE_DOMAIN}",
                "kind": "service",
                "message": "status 404",
            }
        ],
        "left_out": 0,
    }
    assert found["summary"] == {
        "source": str(gateway.config),
        "routes": 2,
        "services": 1,
        "limits": 0,
        "tenants": 10,
    }


def test_certificates_that_the_system_does_not_trust(gateway: GatewayProcess) -> None:
    done = check(gateway, "--tenant", "good")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("live: ")]
    assert line.startswith(named("good") + "certificate: unable to get local issuer certificate; clients refuse it")
    assert done.returncode == 1


def test_a_plain_port_has_no_certificate(gateway: GatewayProcess) -> None:
    done = check(gateway, "--tenant", "good", port=1)
    assert (done.returncode, "live" in done.stderr, done.stdout.splitlines()[1:]) == (
        0,
        False,
        ["live: good: 1 hosts were asked"],
    )


def test_a_plain_port_that_is_asked_with_tls(gateway: GatewayProcess) -> None:
    where = f"127.0.0.1:{gateway.ports[1]}"
    done = check(gateway, "--tenant", "good", "--gateway", where)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("live: ")]
    assert line.endswith(f"; is this a port without TLS? Then write --gateway http://{where}")
    assert done.returncode == 1


def test_a_public_port_is_part_of_the_origin(gateway: GatewayProcess) -> None:
    done = check(gateway, "--tenant", "good", "--public-port", "8443", port=1)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tenant", "nobody"), '--tenant "nobody" is not in the registry, so nothing was asked; write the'),
        (
            ("--tenant", "good", "--tenant", "gone"),
            '--tenant "gone" is not active, so nothing was asked; write the slug of an active tenant',
        ),
        (("--gateway", "ftp://x"), '--gateway "ftp://x" is not an address; write one as in "127.0.0.1:443"'),
        (("--gateway", "127.0.0.1:1"), "nothing answers at 127.0.0.1:1: Connection refused; start the gateway, or"),
        (("--ca", "/nowhere.pem"), '--ca "/nowhere.pem": '),
    ],
)
def test_what_cannot_be_asked_is_one_line(gateway: GatewayProcess, words: tuple[str, ...], said: str) -> None:
    done = check(gateway, *words)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("live: ")]
    assert line.startswith(f"live: {said}")
    assert done.returncode == 1


def test_a_file_that_cannot_be_read_as_json(tmp_path: Path) -> None:
    path = tmp_path / "koder-gateway.toml"
    path.write_text("tenants.nothing = 1\n")
    words = [tool("koder-gateway"), "check", str(path), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr, found["ok"], found["summary"], found["live"]) == (1, "", False, None, None)
    assert found["faults"][0].startswith(f"{path}: tenants.nothing: ")


# -- where and whom to ask


@pytest.mark.parametrize(
    ("ports", "place"),
    [
        (("ssl:443",), ("127.0.0.1", 443, True)),
        ((":8443",), ("127.0.0.1", 8443, True)),
        (("[::]:443",), ("::1", 443, True)),
        (("ssl:8443:interface=192.0.2.1",), ("192.0.2.1", 8443, True)),
        (("unix:/run/x", "haproxy:tcp:8080", "systemd:domain=INET:index=0", "tcp:8080"), ("127.0.0.1", 8080, False)),
        (("tls+tcp:8443",), ("127.0.0.1", 8443, True)),
    ],
)
def test_the_place_follows_from_the_ports(ports: tuple[str, ...], place: tuple[str, int, bool]) -> None:
    found = place_of(settings_with(listen={"port": ports}), "", 443)
    assert (found.host, found.connect, found.secure) == place


@pytest.mark.parametrize("ports", [("unix:/run/x",), ("haproxy:tcp:443",), ("ssl:0",)])
def test_or_must_be_named(ports: tuple[str, ...]) -> None:
    with pytest.raises(LiveCheckError, match="write its address, as in --gateway"):
        place_of(settings_with(listen={"port": ports}), "", 443)


def test_without_a_registry_tenants_must_be_named() -> None:
    with pytest.raises(LiveCheckError, match="name some with --tenant SLUG"):
        hosts_to_ask(Settings(), ())
    assert list(hosts_to_ask(Settings(), ("koder",))) == [("koder", "koder.id.koder.dev")]


def test_the_tenants_behind_a_url_are_those_that_the_gateway_has_kept(tmp_path: Path) -> None:
    path = tmp_path / "koder-gateway.toml"
    path.write_text('[tenants]\nregistry = "http://127.0.0.1:4005/v1/admin/tenants"\n')
    settings = load(path, environ={"STATE_DIRECTORY": str(tmp_path / "state")})
    with pytest.raises(LiveCheckError, match="has not kept a list of tenants yet"):
        hosts_to_ask(settings, ())


def test_a_service_that_says_nothing(gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("koder_gateway.live_checks._PATIENCE", 0.5)
    settings = load(gateway.config)
    place = place_of(settings, f"http://127.0.0.1:{gateway.ports[1]}", 443)
    try:
        report = check_live(settings, place, iter([("hung", f"hung.{BASE_DOMAIN}")]), None, 60.0)
    finally:
        RELEASED.set()
    assert list(map(str, report.faults)) == [named("hung") + "service: there was no whole response within 0.5s"]


def test_many_hosts_are_asked_a_few_at_a_time_and_not_for_ever(gateway: GatewayProcess) -> None:
    settings = load(gateway.config)
    place = place_of(settings, f"http://127.0.0.1:{gateway.ports[1]}", 443)
    hosts = iter([("good", f"good.{BASE_DOMAIN}")] * 200)
    report = check_live(settings, place, hosts, None, 60.0)
    assert (report.asked, report.faults) == (200, [])
    endless = iter([("good", f"good.{BASE_DOMAIN}")] * 50)
    report = check_live(settings, place, endless, None, 0.0)
    assert [str(fault) for fault in report.faults] == [
        "live: gateway: 50 hosts were not asked within 0s; give it --within more"
    ]
