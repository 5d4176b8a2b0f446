"""`[tracing]`: what may be written there, and what is said of the rest."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from koder_gateway.config import ConfigurationError, load
from koder_gateway.config.settings import Settings


def read(folder: Path, text: str) -> Settings:
    file = folder / "koder-gateway.toml"
    file.write_text(f"[tracing]\n{text}\n")
    return load(file)


def fault(folder: Path, text: str) -> str:
    """The only fault."""
    with pytest.raises(ConfigurationError) as caught:
        read(folder, text)
    (line,) = caught.value.faults
    return line.partition(": ")[2]


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", None),
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
        ("HTTPS://Otel.Example/ingest/Traces", "https://otel.example/ingest/Traces"),
        ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
    ],
)
def test_where_spans_go(tmp_path: Path, text: str, url: str | None) -> None:
    assert read(tmp_path, f'endpoint = "{text}"').tracing.endpoint == url


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('endpoint = "127.0.0.1:4318"', "tracing.endpoint: \"127.0.0.1:4318\" is neither http nor https"),
        ('endpoint = "grpc://h:4317"', "tracing.endpoint: \"grpc://h:4317\" is neither http nor https"),
        ('endpoint = "http://u:p@h"', "has a user or a password in it; write an Authorization header into"),
        ('endpoint = "http://h?key=1"', "has a query or a fragment; write what the collector needs into"),
        ('endpoint = "http://"', "has no usable host; write one as in"),
        ('endpoint = "http://h:0"', "has no usable host; write one as in"),
        ('endpoint = "http://h h"', "is not the URL of a collector; write one as in"),
        ("endpoint = 4318", "tracing.endpoint: 4318 is not a string; write one as in \"http://127.0.0.1:4318\""),
        ("sample = 2", "tracing.sample: 2 is out of range; write a part from 0 to 1, as in 0.01 for one in 100"),
        ("sample = nan", "is out of range"),
        ("sample = true", "tracing.sample: true is not a number"),
        ('sample = "1%"', "is not a number; write one from 0 to 1, as in 0.01"),
        ("client_traces = -1", "tracing.client_traces: -1 is out of range"),
        ('timeout = "2m"', "is too long to wait for a collector; write at most \"60s\""),
        ('service_name = ""', "is not the name of a service"),
        ('resource = ["a"]', "tracing.resource[0]: \"a\" is not an attribute; write its name, = and its value"),
        ('resource = ["service.name=x"]', "is not needed; write service_name"),
        ('resource = ["service.version=x"]', "is the gateway's own; leave it out"),
        ('ca = "koder-gateway.toml"', "tracing.ca: has no effect without TLS; write an endpoint with \"https://\""),
        ('headers_file = "koder-gateway.toml"', "\"koder-gateway.toml\": line 1 is not a header"),
    ],
)  # fmt: skip
def test_a_fault_is_one_line_that_says_what_to_write(tmp_path: Path, text: str, says: str) -> None:
    assert says in fault(tmp_path, text)


def test_headers_are_read_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "headers").write_text("# a comment\n\nAuthorization: Bearer hush\r\nX-Scope: a b\n")
    settings = read(tmp_path, 'endpoint = "http://h"\nheaders_file = "headers"').tracing
    assert settings.headers_file is not None
    assert settings.headers_file.pairs == (("Authorization", "Bearer hush"), ("X-Scope", "a b"))
    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"Authorization Bearer hush\n", "line 1 is not a header; write NAME: VALUE"),
        (b"A: 1\nB b: hush\n", "line 2 is not a header; write NAME: VALUE"),
        (b"A: hush\x01\n", "line 1 is not a header; write NAME: VALUE"),
        (b"A:\n", "line 1 is not a header; write NAME: VALUE"),
        (b"content-type: hush\n", "line 1: content-type is set by the gateway; leave it out"),
        (b"A: \xff\n", "is not text in ASCII; write a line NAME: VALUE for each header"),
        (b"A: b\n" * 5000, "has more than 16384 bytes; write the headers alone"),
    ],
)
def test_a_file_of_headers_may_be_wrong(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "headers").write_bytes(content)
    told = fault(tmp_path, 'endpoint = "http://h"\nheaders_file = "headers"')
    assert says in told
    assert "hush" not in told


def test_headers_without_an_endpoint_have_no_effect(tmp_path: Path) -> None:
    (tmp_path / "headers").write_text("A: b\n")
    assert "tracing.headers_file: has no effect without an endpoint" in fault(tmp_path, 'headers_file = "headers"')


@pytest.mark.parametrize("error", [None, ModuleNotFoundError("opentelemetry")])
def test_without_the_packages_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    def find(name: str) -> None:
        assert name == "opentelemetry.proto"
        if error is not None:
            raise error

    monkeypatch.setattr(importlib.util, "find_spec", find)
    assert fault(tmp_path, 'endpoint = "http://h"') == (
        "tracing.endpoint: needs packages of OpenTelemetry that are not installed; install koder-gateway[tracing],"
        ' or write ""'
    )
    # Nothing else needs them.
    assert read(tmp_path, "sample = 1").tracing.endpoint is None
