"""`credential:NAME`: files that systemd passes to its service."""

from __future__ import annotations

from pathlib import Path

import pytest

from koder_gateway.config import ConfigurationError, load
from koder_gateway.config.credentials import credentials_folder


def write(folder: Path, text: str) -> Path:
    path = folder / "koder-gateway.toml"
    path.write_text(text)
    return path


def passed(folder: Path, **files: str) -> dict[str, str]:
    """The environment of a service with these credentials."""
    kept = folder / "passed"
    kept.mkdir()
    for name, text in files.items():
        (kept / name).write_text(text)
    return {"CREDENTIALS_DIRECTORY": str(kept)}


STORE = '[limits_store]\nurl = "redis://127.0.0.1:6379/0"\npassword_file = "{}"\n'


def test_a_password_is_read_from_it(tmp_path: Path) -> None:
    environ = passed(tmp_path, redis="secret\n")
    settings = load(write(tmp_path, STORE.format("credential:redis")), environ=environ)
    assert settings.limits_store.password_file is not None
    assert settings.limits_store.password_file.value == "secret"


def test_the_folder_of_certificates_may_be_all_of_them(tmp_path: Path) -> None:
    environ = passed(tmp_path)
    settings = load(write(tmp_path, '[tls]\ncertificates = "credential:"\n'), environ=environ)
    assert settings.tls.certificates == tmp_path / "passed"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../koder-gateway.toml", "/etc/passwd", "a/b", "a\\u0000", ".hidden", "ä", "x y"]
)
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    environ = passed(tmp_path, redis="secret\n")
    with pytest.raises(ConfigurationError) as refused:
        load(write(tmp_path, STORE.format(f"credential:{name}")), environ=environ)
    (fault,) = refused.value.faults
    assert "limits_store.password_file: " in fault
    assert " names no credential; write letters, digits, " in fault


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[tls]\ncertificates = "credential:a"\n', 'is a file; write "credential:" for the folder'),
        (STORE.format("credential:other"), "no such file or folder; write the path of a file"),
    ],
)
def test_what_is_not_there_is_a_fault(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(write(tmp_path, text), environ=passed(tmp_path, a="x"))
    assert told in str(refused.value)


@pytest.mark.parametrize("environ", [{}, {"CREDENTIALS_DIRECTORY": "relative"}])
def test_without_systemd_the_unit_is_told_to_pass_it(tmp_path: Path, environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(write(tmp_path, STORE.format("credential:redis")), environ=environ)
    assert "systemd passes no credentials; write LoadCredential=redis:FILE in the unit" in str(refused.value)


def test_a_tool_finds_those_of_the_running_unit(tmp_path: Path) -> None:
    assert credentials_folder({}, str(tmp_path)) == tmp_path
    assert credentials_folder({}, str(tmp_path / "none")) is None
    assert credentials_folder({"CREDENTIALS_DIRECTORY": "/run/mine"}, str(tmp_path)) == Path("/run/mine")
