"""`version`, `ready`, and what -q and --json are for the other tools."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from koder_gateway.cli import main
from koder_gateway.version import VERSION
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.services import Origin

NOBODY = "http://127.0.0.1:9"


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"koder-gateway {VERSION}\n"
    assert main(["version", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document.keys() == {"version", "python", "openssl", "tls_connections", "packages"}
    assert document["version"] == VERSION
    assert document["openssl"].startswith("OpenSSL ")
    # The newest pyOpenSSL, which the tests run with, has to be a known one.
    assert document["tls_connections"] == "lean"
    assert {"Twisted", "cryptography"} <= {name for name, version in document["packages"].items() if version}


def test_it_is_ready_until_it_is_asked_in_vain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Origin() as origin, GatewayProcess(tmp_path, configuration({"a": origin.url})) as gateway:
        admin = f"http://127.0.0.1:{gateway.admin}"
        assert main(["ready", "--admin", admin]) == 0
        assert capsys.readouterr() == ("ready\n", "")
        assert main(["ready", "--admin", admin, "-q"]) == 0
        assert capsys.readouterr() == ("", "")
        assert main(["ready", "--admin", admin, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"ready": True, "reasons": []}
        # And by the port of its configuration.
        config = tmp_path / "asked.toml"
        config.write_text(f'[listen]\nadmin_port = "tcp:{gateway.admin}:interface=127.0.0.1"\n')
        assert main(["ready", "--config", str(config)]) == 0
        capsys.readouterr()
        # The port of a service is no admin port.
        assert main(["ready", "--admin", origin.url]) == 1
        assert "what answers there is no admin port of a gateway" in capsys.readouterr().err
        # As a reload is asked for.
        assert main(["reload", "--admin", admin, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"ok": True, "partly": False, "refusals": []}
        assert main(["reload", "--admin", admin, "-q"]) == 0
        assert capsys.readouterr() == ("", "")
        gateway.config.write_text("[tenants]\nrefresh = 1\n")
        assert main(["reload", "--admin", admin, "--json"]) == 1
        document = json.loads(capsys.readouterr().out)
        assert (document["ok"], document["partly"], len(document["refusals"])) == (False, False, 1)
        assert "tenants.refresh" in document["refusals"][0]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("check", "--config", "a", "-c", "b"), "argument --config/-c: is given twice; leave one out"),
        (("check", "a", "--config", "b"), "give the file once: --config FILE, or FILE alone"),
        (("reload", "--pid", "1", "--pid", "1"), "argument --pid: is given twice; leave one out"),
        (("explain", "-X", "GET", "-X", "PUT", "https://a/"), "argument -X/--request: is given twice; "),
        (("limits", "--admin", NOBODY, "--admin", NOBODY), "argument --admin: is given twice; "),
    ],
)
def test_an_option_with_one_value_is_given_once(
    words: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_one_that_is_not_ready_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configuration(
        {"a": NOBODY}, {"tenants": {"base_domain": "id.koder.dev", "registry": f"{NOBODY}/tenants"}}
    )
    with GatewayProcess(tmp_path, config) as gateway:
        assert main(["ready", "--admin", f"http://127.0.0.1:{gateway.admin}"]) == 1
    assert capsys.readouterr() == ("", "koder-gateway ready: the tenant registry has not been read yet\n")


@pytest.mark.parametrize("tool", ["ready", "reload"])
def test_where_no_gateway_is_there_is_one_line(tool: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([tool, "--admin", NOBODY]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"koder-gateway {tool}: {NOBODY}: no gateway answers there (")
    assert main([tool, "--admin", NOBODY, "--json"]) == 1
    said = capsys.readouterr()
    assert said.err == ""
    assert NOBODY in said.out
    json.loads(said.out)


def test_a_quiet_check_says_faults_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "koder-gateway.toml"
    # It is warned of the longer drain.
    config.write_text('[timeouts]\ndrain = "10m"\n[state]\ndir = "state"\n')
    assert main(["check", str(config)]) == 0
    said = capsys.readouterr()
    assert "warning: " in said.err
    assert ": good: " in said.out
    assert main(["check", "-q", str(config)]) == 0
    assert capsys.readouterr() == ("", "")
    config.write_text('[tenants]\nrefresh = 1\n[timeouts]\ndrain = "10m"\n')
    assert main(["check", "-q", str(config)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
