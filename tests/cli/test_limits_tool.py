"""`koder-gateway limits`: what a running gateway says of its limits, and what is wrong where none answers."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from koder_gateway.cli import main
from tests.kit.clients import Client
from tests.kit.gateways import GatewayProcess

CONFIG = """
[tenants]
base_domain = "id.koder.dev"
[[limits]]
name = "login"
key = ["tenant", "ip"]
rate = "5/h"
paths = ["/v1/auth"]
[[limits]]
name = "strict"
key = ["tenant"]
rate = "1/h"
mode = "shadow"
methods = ["GET"]
[[limits]]
name = "busy"
key = ["ip"]
in_flight = 7
[state]
dir = "state"
[log]
access = false
[listen]
admin_port = "tcp:PORT:interface=127.0.0.1"
"""


def ask(gateway: GatewayProcess, target: bytes, times: int) -> None:
    with Client.connect(gateway.ports[0], secure=False) as client:
        for _ in range(times):
            client.send(b"GET %b HTTP/1.1\r\nHost: koder.id.koder.dev\r\n\r\n" % target)
            client.answer(b"GET")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path_factory.mktemp("limits"), CONFIG.replace("PORT", "1")) as running:
        ask(running, b"/v1/auth", 6)
        yield running


def limits(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str], list[str]]:
    """The exit code, and the lines of standard output and error."""
    code = main(["limits", *words])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err.splitlines()


def test_it_is_shown_for_a_person(gateway: GatewayProcess, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = limits(capsys, "--admin", f"http://127.0.0.1:{gateway.admin}")
    assert (code, err) == (0, [])
    assert out[0].startswith("limits of this gateway process, 2")
    since = out[3].partition("since ")[2].partition(":")[0]
    text = "\n".join(out[1:]).replace(out[3].partition("since ")[2].partition(": ")[0], "THEN")
    assert since
    lines = [line for line in text.splitlines() if not line.startswith("  over  tenant koder, ip")]
    assert lines == [
        "",
        "login: 5/h, burst 5, by tenant and ip; enforce",
        "  since THEN: 5 admitted, 1 refused",
        "",
        "strict: 1/h, burst 1, by tenant; shadow",
        "  since THEN: 1 admitted, 0 refused, 5 would have been refused",
        next(line for line in lines if line.startswith("  over  tenant koder: 0 of 1 left, one more in ")),
        '  to enforce it: mode = "enforce" in the [[limits]] with name = "strict"',
        "",
        "busy: 7 in flight, by ip; enforce",
        "  since THEN: 5 admitted, 0 refused",
    ]


def test_it_is_one_object(gateway: GatewayProcess, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = limits(capsys, "--json", "--admin", f"127.0.0.1:{gateway.admin}")
    document = json.loads("\n".join(out))
    assert code == 0
    assert list(document) == ["time", "store", "rules"]
    assert document["store"] == "memory:"
    login, strict, busy = document["rules"]
    over = login.pop("over")
    assert [(entry["key"], entry["left"]) for entry in over] == [({"tenant": "koder", "ip": "127.0.0.1"}, 0)]
    assert 0 < over[0]["wait"] <= 3600
    assert login.pop("since").endswith("Z")
    assert login == {
        "name": "login",
        "key": ["tenant", "ip"],
        "rate": "5/h",
        "burst": 5,
        "in_flight": None,
        "paths": ["/v1/auth"],
        "methods": None,
        "mode": "enforce",
        "charge": "requests",
        "admitted": 5,
        "refused": 1,
        "would_have_refused": 0,
        "entries": 1,
        "examined": 1,
        "near": [],
    }
    assert (strict["mode"], strict["methods"], strict["would_have_refused"]) == ("shadow", ["GET"], 5)
    assert (busy["in_flight"], busy["rate"], busy["burst"], busy["entries"]) == (7, None, None, 0)


def test_the_admin_port_is_that_of_the_configuration(
    gateway: GatewayProcess, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "other.toml"
    path.write_text(f'[listen]\nadmin_port = "tcp:{gateway.admin}"\n')
    code, out, err = limits(capsys, "--config", str(path))
    assert (code, out[0][:6], err) == (0, "limits", [])


@pytest.mark.parametrize(
    ("port", "fault"),
    [
        ("", "listen.admin_port: is not set; name the gateway's admin port, as in --admin http://127.0.0.1:9100"),
        ("systemd:domain=INET:index=0", 'listen.admin_port: "systemd:domain=INET:index=0" does not say by which URL'),
        ("tcp:0", 'listen.admin_port: "tcp:0" does not say by which URL'),
    ],
)
def test_a_configuration_that_names_no_port(
    port: str, fault: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "other.toml"
    path.write_text(f'[listen]\nadmin_port = "{port}"\n')
    code, out, (line,) = limits(capsys, "--config", str(path))
    assert (code, out) == (1, [])
    assert line.startswith(f"koder-gateway limits: {path}: {fault}")


def test_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        code, out, (line,) = limits(capsys, "--admin", url)
    assert (code, out) == (1, [])
    assert line.startswith(
        f"koder-gateway limits: {url}: no gateway answers there (Connection refused); start it with"
    )


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "http://", "http://user@127.0.0.1:1", "http://a:b", "http://a/b"])
def test_what_is_no_url(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, (line,) = limits(capsys, "--admin", url)
    assert (code, out) == (1, [])
    assert " is not the URL of an admin port; write it as in --admin http://127.0.0.1:9100" in line


def test_a_port_for_clients_is_none(gateway: GatewayProcess, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, (line,) = limits(capsys, "--admin", f"http://127.0.0.1:{gateway.ports[0]}")
    assert code == 1
    assert "/limits is refused with status 421: " in line


def test_a_unix_socket_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, (line,) = limits(capsys, "--admin", f"unix:{tmp_path}/none.sock")
    assert code == 1
    assert line.startswith(f"koder-gateway limits: unix:{tmp_path}/none.sock: no gateway answers there (No such file")
