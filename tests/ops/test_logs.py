"""What a whole gateway logs: each stream by itself, every way in, rotation, and formats that a reload changes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.gateways import GatewayProcess, configuration, tool
from tests.kit.http2_client import Http2Client
from tests.kit.http2_frames import block, headers
from tests.kit.services import Origin
from tests.kit.waiting import PATIENCE, until

HOST = "koder.id.test"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
FIELDS = {"user-agent": "probe/1", "traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}
MEMBERS = ("protocol", "tls", "user_agent", "trace_id", "limit")
LIMIT = '[[limits]]\nname = "few"\nkey = ["ip"]\nrate = "1/h"\npaths = ["/a/few"]\n'


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as made:
        yield made


def line_of(gateway: GatewayProcess, path: str) -> dict[str, Any]:
    """The only line of a request for this path."""
    until(lambda: [line for line in gateway.access() if line["path"] == path], f"a line of {path}")
    (line,) = [line for line in gateway.access() if line["path"] == path]
    return line


def test_a_line_says_which_way_its_request_came(tmp_path: Path, origin: Origin) -> None:
    ports = (GatewayProcess.PLAIN, GatewayProcess.TLS)
    with GatewayProcess(tmp_path, configuration({"a": origin.url}, extra=LIMIT), ports=ports) as gateway:
        lines = [f"{name}: {value}" for name, value in FIELDS.items()]
        with gateway.connect() as client:
            assert client.ask("GET", "/a/plain", *lines).status == 200
            assert client.ask("GET", "/a/few").status == 200
            assert client.ask("GET", "/a/few/more", *lines).status == 429
        with gateway.connect(tls=True) as client:
            assert client.ask("GET", "/a/tls", "Connection: close").status == 200
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"])
        connection = socket.create_connection(("127.0.0.1", gateway.ports[1]))
        asked = {":method": "GET", ":scheme": "https", ":path": "/a/h2", ":authority": HOST, **FIELDS}
        with Http2Client(context.wrap_socket(connection, server_hostname=HOST)) as http2:
            http2.start()
            http2.send(headers(1, block([(name.encode(), value.encode()) for name, value in asked.items()])))
            assert http2.answer(1).status == 200
        said = {
            path: {
                name: line_of(gateway, path)[name] for name in ("protocol", "tls", "user_agent", "trace_id", "limit")
            }
            for path in ("/a/plain", "/a/few/more", "/a/tls", "/a/h2")
        }
        begun = said["/a/tls"].pop("trace_id")
        assert re.fullmatch("[0-9a-f]{32}", begun)
        whole = {"user_agent": "probe/1", "trace_id": TRACE_ID, "limit": ""}
        assert said == {
            "/a/plain": {"protocol": "HTTP/1.1", "tls": "", **whole},
            "/a/few/more": {"protocol": "HTTP/1.1", "tls": "", **whole, "limit": "few"},
            "/a/tls": {"protocol": "HTTP/1.1", "tls": "TLSv1.3", "user_agent": "", "limit": ""},
            "/a/h2": {"protocol": "HTTP/2", "tls": "TLSv1.2", **whole},
        }
        served, refused = line_of(gateway, "/a/plain"), line_of(gateway, "/a/few/more")
        assert 0 < served["ttfb"] <= served["duration"]
        assert 0 < served["upstream_time"] <= served["duration"]
        assert (refused["ttfb"], refused["upstream_time"], refused["worker"]) == (None, None, 0)


def test_sigusr1_opens_the_access_log_again_and_reads_nothing_else(tmp_path: Path, origin: Origin) -> None:
    with GatewayProcess(tmp_path, configuration({"a": origin.url})) as gateway, gateway.connect() as client:
        assert client.ask("GET", "/a/before").status == 200
        line_of(gateway, "/a/before")
        log, moved = tmp_path / "access.log", tmp_path / "access.log.1"
        log.rename(moved)
        # A fault that a reload would tell.
        gateway.config.write_text("[nonsense]\n")
        gateway.signal(signal.SIGUSR1)
        until(log.exists, "the file is open again")
        assert client.ask("GET", "/a/after").status == 200
        line_of(gateway, "/a/after")
        assert "/a/before" in moved.read_text()
        assert "/a/after" not in moved.read_text()
        assert "nonsense" not in gateway.log()


def test_a_reload_changes_the_formats(tmp_path: Path, origin: Origin) -> None:
    with GatewayProcess(tmp_path, configuration({"a": origin.url})) as gateway, gateway.connect() as client:
        assert client.ask("GET", "/a/one").status == 200
        line_of(gateway, "/a/one")
        settings = {"log": {"access_format": "combined", "format": "json", "level": "warn"}}
        gateway.config.write_text(configuration({"a": origin.url}, settings))
        before = gateway.log()
        gateway.signal(signal.SIGHUP)
        log = tmp_path / "access.log"

        def combined() -> bool:
            assert client.ask("GET", "/a/two").status == 200
            return '"GET /a/two HTTP/1.1" 200' in log.read_text()

        until(combined, "the access log has the other format")
        gateway.config.write_text("[nonsense]\n")
        gateway.signal(signal.SIGHUP)
        until(lambda: "nonsense" in gateway.log(), "the refusal is logged")
        events = [json.loads(line) for line in gateway.log().removeprefix(before).splitlines() if line[0] == "{"]
        assert {event["level"] for event in events} <= {"warn", "error"}
        (refused,) = [event for event in events if "nonsense" in event["message"]]
        assert (refused["level"], refused["logger"]) == ("error", "koder_gateway.service.gateway.Gateway")


@pytest.mark.parametrize(
    "command", [["koder-gateway", "run"], ["twistd", "-n", "--pidfile=", "koder-gateway"]], ids=str
)
def test_events_and_access_lines_are_two_streams(tmp_path: Path, origin: Origin, command: list[str]) -> None:
    config = tmp_path / "koder-gateway.toml"
    config.write_text(configuration({"a": origin.url}, {"log": {"file": "-"}, "tls": {"certificates": ""}}))
    out, events = tmp_path / "out", tmp_path / "events"
    words = [tool(command[0]), *command[1:], "--config", str(config), "--port", "tcp:0:interface=127.0.0.1"]
    with out.open("wb") as stdout, events.open("wb") as stderr:
        process = subprocess.Popen(words, stdout=stdout, stderr=stderr, env={**os.environ, "JOURNAL_STREAM": ""})
    try:
        until(lambda: "client connections at once" in events.read_text(), "the gateway serves")
        (port,) = map(int, re.findall(" starting on ([0-9]+)", events.read_text()))
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.settimeout(PATIENCE)
            client.sendall(f"GET /a HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
    assert [json.loads(line)["path"] for line in out.read_text().splitlines()] == ["/a"]
    assert '"path"' not in events.read_text()
