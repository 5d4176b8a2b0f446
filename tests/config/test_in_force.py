"""The configuration in force, as it is printed."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koder_gateway.config import (
    ConfigurationError,
    Settings,
    entries_in_force,
    json_entries,
    load,
    read_source,
    toml_lines,
)
from koder_gateway.config.loading import Source, read_settings
from koder_gateway.config.toml_text import toml_key, toml_value
from tests.cli.test_cli import run
from tests.config.test_mutations import VALUES, WHERE, mutated
from tests.kit.schemas import schema_faults

STATE = {"STATE_DIRECTORY": "/var/lib/koder-gateway"}
TEXT = """
services.billing = "http://billing:1"
[tenants]
registry = "tenants.toml"
[timeouts]
head = "1s"
[services.identity]
urls = ["http://a:1", "http://b:1"]
connect = "5s"
[services."a.b"]
url = "http://c:1"
[[routes]]
path = "/a"
service = "a.b"
[[routes]]
path = "/b"
service = "billing"
allow = ["10.0.0.0/8"]
[tls]
client_auth = ""
"""


def printed(folder: Path, text: str, **variables: str) -> tuple[Settings, str, dict[str, Any]]:
    """The settings of a file, the same as printed, and the values by their keys."""
    (folder / "tenants.toml").write_text('[[tenant]]\nslug = "acme"\n')
    path = folder / "koder-gateway.toml"
    path.write_text(text)
    environ = {**STATE, **{f"KODER_GATEWAY_{name}": value for name, value in variables.items()}}
    entries = entries_in_force(read_source(path, environ))
    return load(path, environ=environ), "\n".join(toml_lines(entries)), {each.path: each for each in entries}


@pytest.mark.parametrize("text", ["", TEXT, "limits = []\nroutes = []\n"])
def test_what_is_printed_is_the_same_configuration(tmp_path: Path, text: str) -> None:
    """Also from another folder, and without the environment."""
    found, lines, _ = printed(tmp_path, text, LOG__LEVEL="warn", SERVICES__AUTH="http://new:1")
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "copy.toml"
    copy.write_text(lines)
    again = load(copy, environ=STATE)
    # A registry is no value.
    assert (again.registered is None) == (found.registered is None)
    assert dataclasses.replace(again, registered=None) == dataclasses.replace(found, source=copy, registered=None)
    assert schema_faults(tomllib.loads(lines)) == []


@settings(deadline=None, max_examples=60)
@given(mutated())
def test_whatever_can_be_read_can_be_printed_and_read_again(document: dict[str, Any]) -> None:
    try:
        expected = read_settings(document, "FILE", WHERE)
    except ConfigurationError:
        return
    source = Source(Path("/FILE"), "FILE", WHERE, document, document, {}, (), "")
    again = tomllib.loads("\n".join(toml_lines(entries_in_force(source))))
    assert read_settings(again, "FILE", WHERE) == expected


def test_each_value_says_where_it_comes_from(tmp_path: Path) -> None:
    _, lines, entries = printed(
        tmp_path, TEXT, LOG__LEVEL="warn", SERVICES__AUTH="http://new:1", SERVICES__NEW="http://new:2"
    )
    file = str(tmp_path / "koder-gateway.toml")

    def origin(path: str) -> tuple[str, str]:
        line = entries[path].line
        assert (line > 0) == (entries[path].source == "file")
        return entries[path].source, entries[path].name + (f":{line}" if line else "")

    assert origin("timeouts.head") == ("file", f"{file}:6")
    assert origin("timeouts.body") == ("default", "")
    assert origin("log.level") == ("environment", "KODER_GATEWAY_LOG__LEVEL")
    assert origin("services.billing.url") == ("file", f"{file}:2")
    assert origin("services.billing.connect") == ("default", "")
    assert origin("services.identity.connect") == ("file", f"{file}:9")
    assert origin('services."a.b".url') == ("file", f"{file}:11")
    assert origin("services.auth.url") == ("environment", "KODER_GATEWAY_SERVICES__AUTH")
    assert origin("services.new.url") == ("environment", "KODER_GATEWAY_SERVICES__NEW")
    assert origin("services.new.connect") == ("default", "")
    assert origin("services.oauth2.url") == ("default", "")
    assert origin("routes[1].allow") == ("file", f"{file}:18")
    assert origin("routes[1].public") == ("default", "")
    assert origin("limits[0].rate") == ("default", "")
    assert f'head = "1s"  # {file}:6\n' in lines
    assert 'body = "30s"  # default\n' in lines
    assert 'level = "warn"  # KODER_GATEWAY_LOG__LEVEL' in lines


def test_no_secret_is_printed(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2\n")
    text = "tenants.registry = 'http://h/tenants?key=hunter2'\n[limits_store]\nurl = 'redis://127.0.0.1'\n"
    _, lines, _ = printed(tmp_path, text + "password_file = 'password'\n")
    assert "hunter2" not in lines
    assert 'registry = "http://h/tenants?***"' in lines
    assert f'password_file = "{tmp_path}/password"' in lines


def test_paths_are_absolute_unless_they_are_none(tmp_path: Path) -> None:
    _, _, entries = printed(tmp_path, "log.file = 'access.log'\ntenants.registry = 'tenants.toml'\n")
    assert entries["log.file"].value == str(tmp_path / "access.log")
    assert entries["tenants.registry"].value == str(tmp_path / "tenants.toml")
    _, _, entries = printed(tmp_path, "tenants.registry = 'http://h/t'\n")
    assert (entries["log.file"].value, entries["tenants.registry"].value) == ("-", "http://h/t")
    assert entries["tls.certificates"].value == ""


def test_the_command_prints_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KODER_GATEWAY_TIMEOUTS__HEAD", "3s")
    path = tmp_path / "koder-gateway.toml"
    path.write_text("state.dir = 'state'\n")
    done = run("check", path, "--print")
    assert done.code == 0
    assert tomllib.loads(done.out)["timeouts"]["head"] == "3s"
    answered = json.loads(run("check", path, "--print", "--json").out)
    assert answered["ok"] is True
    (head,) = [each for each in answered["configuration"] if each["key"] == "timeouts.head"]
    variable = "KODER_GATEWAY_TIMEOUTS__HEAD"
    assert head == {"key": "timeouts.head", "value": "3s", "source": "environment", "name": variable, "line": None}
    (folder,) = [each for each in answered["configuration"] if each["key"] == "state.dir"]
    assert (folder["name"], folder["line"]) == (str(path), 1)
    # It is printed with faults beyond the file, too.
    path.write_text("state.dir = 'koder-gateway.toml'\n")
    done = run("check", path, "--print")
    assert done.code == 1
    assert ": state.dir: " in done.err
    assert tomllib.loads(done.out)["state"]["dir"] == str(path)


def test_programs_get_the_same(tmp_path: Path) -> None:
    _, _, entries = printed(tmp_path, TEXT)
    rows = json_entries(list(entries.values()))
    assert json.loads(json.dumps(rows)) == rows
    assert {"key": "timeouts.body", "value": "30s", "source": "default", "name": None, "line": None} in rows


# No configuration has a date, and no number that is none.
VALUE = VALUES.filter(lambda value: not any(word in repr(value) for word in ("date", "nan", "inf")))


@settings(deadline=None)
@given(st.text(), VALUE)
def test_values_survive(name: str, value: Any) -> None:
    if isinstance(value, int) and abs(value) > 10**300:
        return
    assert tomllib.loads(f"{toml_key(name)} = {toml_value(value)}") == {name: value}
