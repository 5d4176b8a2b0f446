"""`koder-gateway check` and `koder-gateway explain`, as an operator calls them."""

from __future__ import annotations

from pathlib import Path

import pytest

from koder_gateway.cli import main

CONFIG = """\
[tenants]
base_domain = "id.example"
registry = "tenants.toml"
[cors]
origins = ["https://app.example"]
[[limits]]
name = "login"
key = ["tenant", "ip"]
rate = "10/m"
burst = 5
paths = ["/v1/auth"]
methods = ["POST"]
[requests]
max_body = "1KiB"
"""
TENANTS = """\
[[tenant]]
slug = "koder"
domains = ["login.koder.example"]
cors_origins = ["https://koder.example"]
[[tenant]]
slug = "closed"
status = "suspended"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "tenants.toml").write_text(TENANTS)
    path = tmp_path / "gateway.toml"
    path.write_text(CONFIG)
    return path


def test_a_good_configuration_is_called_good(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", str(config)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{config}: good: 7 routes, 5 services, 1 limits, 2 tenants\n"
    assert err == ""


def test_every_fault_is_printed_at_once_each_on_its_line(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(CONFIG.replace("10/m", "10/x").replace('"id.example"', '"id..example"') + "[reqests]\n")
    assert main(["check", "--config", str(config)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"{config}: ") for line in lines)
    assert {line.split(": ")[1] for line in lines} == {"limits[0].rate", "tenants.base_domain", "reqests"}


def test_what_only_the_start_would_find_is_found_too(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text('listen.port = ["ssl:443:privateKey=/nowhere.pem", "tcp:http"]\n' + CONFIG)
    assert main(["check", "--config", str(config)]) == 1
    faults = capsys.readouterr().err.splitlines()
    assert len(faults) == 2
    assert "/nowhere.pem" in faults[0]
    assert '"http" is no number' in faults[1]


def test_a_check_leaves_no_certificate_behind(config: Path, tmp_path: Path) -> None:
    config.write_text(CONFIG + '[state]\ndir = "state"\n')
    assert main(["check", "--config", str(config)]) == 0
    assert not (tmp_path / "state").exists()


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", str(tmp_path / "nope.toml")]) == 1
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["https://koder.id.example/v1/users?a=1"], ["koder (active)", "/v1/users -> identity", "forwarded"]),
        (["https://login.koder.example/v1/users"], ["is its custom domain", "http://127.0.0.1:4001"]),
        (["-H", "X-Tenant-ID: koder", "https://id.example/v1/users"], ["names no tenant and X-Tenant-ID does"]),
        (["https://id.example/v1/users"], ["400 tenant_required"]),
        (["https://nobody.id.example/v1/users"], ["404 unknown_tenant"]),
        (["https://closed.id.example/v1/users"], ["403 tenant_suspended"]),
        (["https://elsewhere.example/v1/users"], ["421 misdirected_request"]),
        (["-H", "X-Tenant-ID: closed", "https://koder.id.example/"], ["400 tenant_conflict"]),
        (["https://koder.id.example/v2"], ["route    none", "404 no_route"]),
        (["https://koder.id.example/v1/../x"], ["400 bad_request", "dot segment"]),
        (["-X", "TRACE", "https://koder.id.example/v1/users"], ["405 method_not_allowed"]),
        (["-X", "BREW", "https://koder.id.example/v1/users"], ["501 not_implemented"]),
        (["-X", "POST", "-H", "Content-Length: 2048", "https://koder.id.example/v1/users"], ["413 body_too_large"]),
        (
            ["-X", "POST", "--from", "2001:db8::1", "https://koder.id.example/v1/auth"],
            ["login: 10/m, burst 5, for tenant koder and ip 2001:db8::1", 'RateLimit: "login";r=4'],
        ),
        (
            ["-H", "Origin: https://koder.example", "https://koder.id.example/v1/users"],
            ["one of the tenant's cors_origins", "Access-Control-Allow-Origin: https://koder.example"],
        ),
        (
            ["-H", "Origin: https://evil.example", "https://koder.id.example/v1/users"],
            ["no configured origin", "Vary: Origin", "forwarded"],
        ),
        (
            [
                *("-X", "OPTIONS", "-H", "Origin: https://app.example", "-H", "Access-Control-Request-Method: PUT"),
                "https://koder.id.example/v1/users",
            ],
            ["204, by the gateway (a CORS preflight)", "Access-Control-Allow-Methods: "],
        ),
    ],
)
def test_explain_says_what_becomes_of_a_request_and_why(
    config: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: list[str]
) -> None:
    assert main(["explain", "--config", str(config), *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert [part for part in expected if part not in out] == []
    assert [line.split()[0] for line in out.splitlines() if not line.startswith(" ")] == [
        *("request", "tenant", "cors", "limits", "route", "service", "answer"),
    ]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["koder.id.example/x"], "is not a URL"),
        (["--from", "here", "https://koder.id.example/"], "is not an address"),
    ],
)
def test_explain_says_what_is_wrong_with_the_words(
    config: Path, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    assert main(["explain", "--config", str(config), *words]) == 1
    assert complaint in capsys.readouterr().err


def test_a_registry_behind_a_url_is_not_asked(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(CONFIG.replace('"tenants.toml"', '"http://127.0.0.1:1/v1/admin/tenants"'))
    assert main(["check", "--config", str(config)]) == 0
    assert "is not asked here" in capsys.readouterr().out
    assert main(["explain", "--config", str(config), "https://koder.id.example/v1/users"]) == 0
    assert "whether it exists is not known" in capsys.readouterr().out
