"""The log of events: text or JSON, from a level on; and under systemd levels that the journal reads."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from koder_gateway.ops.console import WARNING, is_journal, say
from koder_gateway.ops.event_log import EventFormat, EventLog
from tests.kit.gateways import GatewayProcess, configuration, tool
from tests.kit.waiting import PATIENCE


def written(level: LogLevel, text: str, **more: object) -> str:
    return logged("text", "debug", lambda log: log.emit(level, text, **more), journal=True)


def logged(format: str, least: str, emit: Callable[[Logger], object], *, journal: bool = False) -> str:
    """What is written for the events that `emit` makes."""
    lines: list[bytes] = []
    how = EventFormat()
    how.follow(format=format, level=least)
    emit(Logger("koder_gateway.test", observer=EventLog(lines.append, journal, how)))
    return b"".join(lines).decode()


def each_level(log: Logger) -> None:
    for level in ("debug", "info", "warn", "error", "critical"):
        log.emit(LogLevel.lookupByName(level), "a {what} event", what=level)


@pytest.mark.parametrize(
    ("least", "written"),
    [
        ("debug", ["debug", "info", "warn", "error", "critical"]),
        ("info", ["info", "warn", "error", "critical"]),
        ("warn", ["warn", "error", "critical"]),
        ("error", ["error", "critical"]),
    ],
)
@pytest.mark.parametrize("format", ["text", "json"])
def test_events_below_the_level_are_left_out(format: str, least: str, written: list[str]) -> None:
    text = logged(format, least, each_level)
    assert re.findall("a ([a-z]+) event", text) == written


def test_an_event_in_text_says_when_and_what() -> None:
    text = logged("text", "info", lambda log: log.warn("no {thing}", thing="disk"))
    stamp = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[+-][0-9]{4}"
    assert re.fullmatch(stamp + r" \[koder_gateway\.test#warn\] no disk\n", text)


def test_an_event_in_json_is_one_object_on_a_line() -> None:
    def emit(log: Logger) -> None:
        log.warn('no "{thing}"\nand more \udcff', thing="disk")
        try:
            raise ValueError("no\nmore")
        except ValueError:
            log.failure("it failed")

    for journal in (False, True):
        lines = logged("json", "info", emit, journal=journal).splitlines()
        marks = ["<4>", "<2>"] if journal else ["", ""]
        first, second = (json.loads(line.removeprefix(mark)) for line, mark in zip(lines, marks, strict=True))
        assert re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{3}Z", first.pop("time"))
        assert first == {"level": "warn", "logger": "koder_gateway.test", "message": 'no "disk"\nand more \\udcff'}
        assert second["level"] == "critical"
        assert second["message"].startswith("it failed\nTraceback")
        assert "ValueError: no\nmore" in second["message"]


@pytest.mark.parametrize(("level", "number"), [("critical", 2), ("error", 3), ("warn", 4), ("info", 6), ("debug", 7)])
def test_each_level_is_one_of_the_journal_s(level: str, number: int) -> None:
    assert written(LogLevel.lookupByName(level), "what {was}", was="said") == f"<{number}>what said\n"


def test_every_line_of_an_event_has_its_level() -> None:
    try:
        raise ValueError("no\nmore")
    except ValueError:
        text = written(LogLevel.critical, "it failed", log_failure=Failure())
    assert "ValueError: no" in text
    assert all(line.startswith("<2>") for line in text.splitlines())


def test_what_cannot_be_written_is_nobody_s_failure() -> None:
    def full(data: bytes) -> None:
        raise OSError("no space left")

    EventLog(full)({"log_level": LogLevel.info, "log_format": "lost", "log_time": 0.0})


def test_only_the_journal_s_own_stream_is_one() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        status = os.fstat(ours.fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert is_journal(environ, ours.fileno())
        assert not is_journal(environ, theirs.fileno())
        assert not is_journal({}, ours.fileno())
    assert not is_journal(environ, 1 << 20)


def test_a_gateway_under_systemd_writes_levels(tmp_path: Path) -> None:
    config = tmp_path / "koder-gateway.toml"
    config.write_text("[state]\ndir = 'state'\n")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        status = os.fstat(theirs.fileno())
        process = subprocess.Popen(
            [tool("koder-gateway"), "run", "--config", str(config), "--port", "ssl:0:interface=127.0.0.1"],
            stdout=theirs,
            stderr=subprocess.STDOUT,
            env={**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"},
        )
        theirs.close()
        ours.settimeout(PATIENCE)
        text = b""
        while b" client connections at once\n" not in text:
            piece = ours.recv(65536)
            assert piece, text
            text += piece
        process.kill()
        process.wait(PATIENCE)
    lines = text.decode().splitlines()
    assert any(re.match("<4>no certificate is configured", line) for line in lines), lines
    assert any(re.match("<6>koder-gateway .* serves on ", line) for line in lines), lines
    assert any(re.match("<6>at most [0-9]+ client connections", line) for line in lines), lines
    assert all(re.match("<[2-7]>(?![0-9]{4}-)", line) for line in lines), lines


@pytest.mark.parametrize(
    ("words", "marks"),
    [
        (["koder-gateway", "run"], ["<3>koder-gateway: "]),
        (["twistd", "-n", "--pidfile=", "koder-gateway"], ["<3>koder-gateway: "]),
        (["koder-gateway", "run", "--nonsense"], ["<3>koder-gateway run: ", "<3>Try: "]),
        (["koder-gateway", "check"], ["<3>"]),
    ],
    ids=" ".join,
)
def test_what_ends_a_start_has_a_level_too(tmp_path: Path, words: list[str], marks: list[str]) -> None:
    """systemd runs `check` before the gateway, and reads what it prints as well."""
    config = tmp_path / "koder-gateway.toml"
    config.write_text("[timeouts]\nhead = 'soon'\n")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        status = os.fstat(theirs.fileno())
        done = subprocess.run(
            [tool(words[0]), *words[1:], "--config", str(config)],
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"},
            timeout=PATIENCE,
            check=False,
        )
        lines = ours.recv(65536).decode().splitlines()
    assert done.returncode in (1, 2)
    assert [line.startswith(mark) for line, mark in zip(lines, marks, strict=True)] == [True] * len(marks), lines


def test_a_warning_of_a_check_has_that_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("koder_gateway.ops.console.is_journal", lambda environ, descriptor: descriptor == 2)
    said = io.StringIO()
    say("one\ntwo", WARNING, said)
    say("three", stream=said)
    assert said.getvalue() == "<4>one\n<4>two\n<3>three\n"


def test_lines_name_host_and_tenant_and_counters_begin_at_0(tmp_path: Path) -> None:
    """Also of a preflight, and of a tenant that is suspended."""
    registry = '[[tenant]]\nslug = "acme"\ncors_origins = ["https://acme.example"]\n'
    registry += '[[tenant]]\nslug = "closed"\nstatus = "suspended"\ndomains = ["closed.example"]\n'
    (tmp_path / "tenants.toml").write_text(registry)
    config = configuration({"a": "http://127.0.0.1:1"}, {"tenants": {"registry": "tenants.toml"}})
    asked = (
        ("acme", "acme.id.test", "Origin: https://acme.example\r\nAccess-Control-Request-Method: GET\r\n", 204),
        ("closed", "closed.id.test", "", 403),
        ("closed", "closed.example", "", 403),
        ("closed", "id.test", "X-Tenant-ID: closed\r\n", 403),
        ("", "id.test", "X-Tenant-ID: nobody\r\n", 404),
    )
    with GatewayProcess(tmp_path, config) as gateway:
        metrics = gateway.metrics()
        for status in ("1xx", "2xx", "5xx", "other"):
            assert metrics[f'koder_gateway_requests_total{{service="a",status="{status}"}}'] == 0
        for code in ("rate_limited", "client_gone", "timeout", "slow"):
            assert metrics[f'koder_gateway_refusals_total{{code="{code}"}}'] == 0
        assert metrics['koder_gateway_tunnels_total{service="a"}'] == 0
        with gateway.connect() as client:
            for _, host, fields, status in asked:
                client.send(f"OPTIONS /a HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode())
                assert client.read("OPTIONS").status == status
    lines = [(line["tenant"], line["host"], line["status"]) for line in gateway.access()]
    assert lines == [(tenant, host, status) for tenant, host, _, status in asked]
