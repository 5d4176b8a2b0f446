"""The pages of a gateway's admin port: who gets the status page, who a probe's answer, and what is in them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from koder_gateway import Gateway, load
from koder_gateway.service.admin_port import AdminPort

BROWSER = b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
CONFIGURATION = """
[tenants]
registry = "tenants.toml"
[services]
a = "http://127.0.0.1:1"
[[routes]]
path = "/a"
service = "a"
[[limits]]
name = "one"
key = ["ip"]
rate = "10/m"
[limits_store]
url = "memory:"
"""


class Port:
    """The admin port of a gateway that has not been started, so that it is not ready; `start` makes it so."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "koder-gateway.toml"
        self.file.write_text(CONFIGURATION)
        (folder / "tenants.toml").write_text('[[tenant]]\nslug = "acme"\n')
        self.clock = Clock()
        self.gateway = Gateway(load(self.file), ports=[], reactor=self.clock, clock=self.clock.seconds)
        admin = AdminPort(self.gateway, {"port": ["ssl:443"]}, self.clock.seconds)
        self.factory = admin.factory(self.clock)

    def start(self) -> None:
        """Be ready."""
        self.gateway.running = True

    def ask(self, path: bytes, more: bytes = b"", method: bytes = b"GET") -> tuple[int, dict[str, str], bytes]:
        """Send one request; the answer's status, headers by lower-case name, and body."""
        channel = self.factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 4711))
        transport = StringTransport()
        channel.makeConnection(transport)
        channel.dataReceived(
            b"%b %b HTTP/1.1\r\nHost: localhost\r\n%bConnection: close\r\n\r\n" % (method, path, more)
        )
        head, _, body = transport.value().partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        channel.connectionLost()
        return int(status.split()[1]), headers, body

    def status(self) -> Any:
        """The object at /status."""
        status, headers, body = self.ask(b"/status")
        assert (status, headers["content-type"]) == (200, "application/json")
        return json.loads(body)


@pytest.fixture
def port(tmp_path: Path) -> Port:
    return Port(tmp_path)


@pytest.mark.parametrize("ready", [True, False])
def test_browsers_get_the_page_and_probes_whether_it_is_ready(port: Port, ready: bool) -> None:
    """By the status of both: a balancer that probes as a browser would must not send clients here either."""
    if ready:
        port.start()
    wanted = 200 if ready else 503
    status, headers, body = port.ask(b"/", BROWSER)
    assert (status, headers["content-type"]) == (wanted, "text/html; charset=utf-8")
    assert body.startswith(b"<!doctype html>")
    assert port.ask(b"/", BROWSER, b"HEAD") == (wanted, headers, b"")
    for more in (b"", b"Accept: */*\r\n", b"Accept: text/html;q=0.5, */*;q=0.5\r\n"):
        status, headers, body = port.ask(b"/", more)
        assert (status, headers["content-type"]) != (wanted, "text/html; charset=utf-8")
        assert status == wanted
        assert body == (b"ready\n" if ready else body)
    status, headers, body = port.ask(b"/", BROWSER, b"OPTIONS")
    assert (status, headers["allow"]) == (wanted, "GET, HEAD, OPTIONS")
    assert b"<html" not in body
    reasons = [] if ready else ["not started"]
    answer = port.ask(b"/", b"Accept: application/json\r\n")
    assert (answer[0], json.loads(answer[2])) == (wanted, {"ready": ready, "reasons": reasons})


def test_a_browser_lets_the_page_do_nothing_but_what_is_its_own(port: Port) -> None:
    _, headers, body = port.ask(b"/", BROWSER)
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    kinds = {"script": rb"<script>(.*)</script>", "style": rb"<style>(.*)</style>"}
    for kind, pattern in kinds.items():
        (text,) = re.findall(pattern, body, re.DOTALL)
        assert len(text) > 1000
        digest = base64.b64encode(hashlib.sha256(text).digest()).decode()
        assert policy.pop(f"{kind}-src") == f"'sha256-{digest}'"
    assert policy == {
        "default-src": "'none'",
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/status", "/limits", "/process", "/nothing"])
def test_no_page_of_another_site_may_embed_one(port: Port, path: str) -> None:
    for more in (b"", BROWSER):
        assert port.ask(path.encode(), more)[1]["cross-origin-resource-policy"] == "same-origin"


def test_the_page_writes_text_and_fetches_nothing_from_elsewhere(port: Port) -> None:
    _, _, body = port.ask(b"/", BROWSER)
    text = body.decode().replace("http://www.w3.org/2000/svg", "")
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "http:",
        "https:",
        "//cdn",
    ):
        assert word not in text, word


def test_status_says_what_is_in_force(port: Port) -> None:
    found = port.status()
    assert (found["schema"], found["ready"], found["reasons"]) == (1, False, ["not started"])
    configuration = found["configuration"]
    assert configuration["file"] == str(port.file)
    assert configuration["sha256"] == hashlib.sha256(port.file.read_bytes()).hexdigest()
    assert configuration["listen"] == {"port": ["ssl:443"]}
    assert configuration["registry"] == str(port.file.with_name("tenants.toml"))
    assert configuration["routes"] == 1
    (service,) = found["services"]
    assert service["addresses"][0]["address"] == "http://127.0.0.1:1"
    assert [rule["name"] for rule in found["limits"]["rules"]] == ["one"]
    assert (found["tenants"]["count"], found["tenants"]["registry"]) == (1, True)
    assert [worker["reasons"] for worker in found["workers"]] == [["not started"]]
    assert found["reloads"]["last"] is None


def test_status_has_the_verdict_of_the_last_reload(port: Port) -> None:
    port.start()
    before = port.status()
    port.file.write_text("nothing = 1\n")
    assert not port.gateway.reload()
    refused = port.status()
    assert refused["reloads"]["refused"] == 1
    assert not refused["reloads"]["last"]["accepted"]
    assert "nothing: " in refused["reloads"]["last"]["faults"][0]
    assert refused["configuration"] == before["configuration"]
    port.file.write_text(CONFIGURATION + "# changed\n")
    assert port.gateway.reload()
    accepted = port.status()
    assert (accepted["reloads"]["accepted"], accepted["reloads"]["refused"]) == (1, 1)
    assert accepted["reloads"]["last"] == {"time": accepted["configuration"]["read"], "accepted": True, "faults": []}
    assert accepted["configuration"]["sha256"] == hashlib.sha256(port.file.read_bytes()).hexdigest()


def test_status_reveals_no_secret(tmp_path: Path) -> None:
    port = Port(tmp_path)
    url = "http://127.0.0.1:1/v1/admin/tenants"
    port.file.write_text(CONFIGURATION.replace("tenants.toml", f"{url}?token=hunter2"))
    gateway = Gateway(load(port.file), ports=[], reactor=port.clock, clock=port.clock.seconds)
    port.factory = AdminPort(gateway, {}, port.clock.seconds).factory(port.clock)
    assert b"hunter2" not in port.ask(b"/status")[2]
    assert port.status()["configuration"]["registry"] == url
