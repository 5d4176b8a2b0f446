"""`koder-gateway check` about [acme]: what would keep certificates from being ordered or served."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from koder_gateway import acme_checks
from koder_gateway.acme.layout import Layout
from koder_gateway.cli import main
from tests.kit.authority import write_certificate

ACME = 'directory = "https://ca.example/directory"\naccept_terms = true\n'


def checked(folder: Path, acme: str = ACME, listen: str = "port = 'ssl:8443'", *words: str) -> dict[str, Any]:
    """What `check` says of a configuration with this section."""
    if not (folder / "certs").exists():
        write_certificate(folder / "certs", "id.koder.dev")
    config = folder / "koder-gateway.toml"
    paths = '[tls]\ncertificates = "certs"\n[state]\ndir = "state"\n'
    config.write_text(f"{paths}[acme]\n{acme}[listen]\n{listen}\n")
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        main(["check", "--json", str(config), *words])
    document: dict[str, Any] = json.loads(out.getvalue())
    return document


def about_acme(lines: list[str]) -> list[str]:
    return [line.partition(": ")[2] for line in lines if ": acme." in line or "/acme" in line]


def test_a_good_section_has_no_fault(tmp_path: Path) -> None:
    document = checked(tmp_path)
    assert (about_acme(document["faults"]), about_acme(document["warnings"])) == ([], [])


def test_http_01_needs_a_redirect_port(tmp_path: Path) -> None:
    (fault,) = about_acme(checked(tmp_path, ACME + 'challenge = "http-01"\n')["faults"])
    assert fault.startswith("acme.challenge: ")
    assert "listen.redirect_port" in fault
    both = "port = 'ssl:8443'\nredirect_port = 'tcp:8080'"
    assert about_acme(checked(tmp_path, ACME + 'challenge = "http-01"\n', both)["faults"]) == []


def test_every_fault_of_the_section_is_told_at_once(tmp_path: Path) -> None:
    section = 'directory = "http://ca.example"\ncontact = ["nobody"]\nkeys = "dsa"\nnames = ["*.id.koder.dev"]\n'
    section += 'challenge = "http-01"\nca = "koder-gateway.toml"\nstorage = "store"\n'
    faults = about_acme(checked(tmp_path, section)["faults"])
    assert {fault.partition(": ")[0].partition("[")[0] for fault in faults} == {
        "acme.directory",
        "acme.contact",
        "acme.keys",
        "acme.names",
        "acme.challenge",
        "acme.ca",
        "acme.accept_terms",
        "acme.storage",
        "acme.storage_key_file",
    }


def test_a_file_without_an_authority_is_a_fault(tmp_path: Path) -> None:
    (fault,) = about_acme(checked(tmp_path, ACME + 'ca = "koder-gateway.toml"\n')["faults"])
    assert fault.startswith(f"acme.ca: {tmp_path}/koder-gateway.toml: no certificate in it; ")


def test_a_folder_that_cannot_be_written_is_a_fault(tmp_path: Path) -> None:
    root = Layout.below(tmp_path / "state").root
    root.parent.mkdir()
    root.write_text("")
    (fault,) = about_acme(checked(tmp_path)["faults"])
    assert fault == f"state.dir: {root} cannot be written; let the gateway's user write there"


def test_absent_packages_are_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acme_checks, "acme_packages_fault", lambda: "needs packages; install them")
    document = checked(tmp_path)
    assert about_acme(document["faults"]) == []
    assert about_acme(document["warnings"]) == [
        "acme.directory: needs packages; install them; until then none is ordered"
    ]


@pytest.mark.parametrize("port", ["tcp:8443", "ssl:8443:privateKey=certs/default.pem:certKey=certs/default.pem"])
def test_a_port_must_show_the_certificates(tmp_path: Path, port: str) -> None:
    (warning,) = about_acme(checked(tmp_path, listen=f"port = '{port}'")["warnings"])
    assert warning.startswith("acme.directory: no port of listen.port shows certificates that are ordered")


def test_nothing_is_said_without_a_directory(tmp_path: Path) -> None:
    document = checked(tmp_path, "", "port = 'tcp:8443'")
    assert about_acme(document["faults"] + document["warnings"]) == []
