"""A registry with faults, from the start on: the other tenants are served, and `check` tells all of it."""

from __future__ import annotations

from pathlib import Path

from koder_gateway.cli import main
from tests.kit.recording import SETTINGS, TENANTS, request, running
from tests.kit.waiting import until

FAULTY = TENANTS + '[[tenant]]\nslug = "A.b"\n[[tenant]]\nslug = "thief"\ndomains = ["login.koder.example"]\n'


def code(gateway: object, host: bytes) -> str:
    answer = gateway.ask(request(host=host))  # type: ignore[attr-defined]
    return str(answer.status) if answer.status == 200 else str(answer.code)


def test_a_gateway_serves_the_others(tmp_path: Path) -> None:
    settings = SETTINGS.replace("[tenants]\n", '[tenants]\nrefresh = "100ms"\n')
    with running(tmp_path, settings, FAULTY) as gateway:
        name = str(tmp_path / "tenants.toml")
        assert code(gateway, b"koder.id.koder.dev") == "200"
        assert code(gateway, b"thief.id.koder.dev") == "200"
        # There is no history that says whose it is.
        assert code(gateway, b"login.koder.example") == "misdirected_request"
        log = gateway.log()
        assert f'left out of the registry: {name}: tenant[3].slug: "A.b" is not a slug; ' in log
        claimed = 'the domain "login.koder.example" is claimed by several tenants ("koder", "thief"); nobody gets it'
        assert f"left out of the registry: {name}: tenant: {claimed}" in log
        assert gateway.process.poll() is None
        fresh = tmp_path / "tenants.new"
        fresh.write_text(TENANTS + '[[tenant]]\nslug = "thief"\n')
        fresh.replace(tmp_path / "tenants.toml")
        until(lambda: code(gateway, b"login.koder.example") == "200", "the file has been read again")
        fresh.write_text(FAULTY)
        fresh.replace(tmp_path / "tenants.toml")
        until(lambda: "it stays with" in gateway.log(), "and again")
        assert code(gateway, b"login.koder.example") == "200"
    # A restart, which knows by the cache whose it is.
    with running(tmp_path, settings, FAULTY) as gateway:
        until(lambda: code(gateway, b"login.koder.example") == "200", "the cache has been read")
        assert [head.values(b"x-tenant-id") for head in gateway.received()][-1] == [b"koder"]


def test_check_tells_every_fault(tmp_path: Path, capsys: object) -> None:
    (tmp_path / "tenants.toml").write_text(FAULTY)
    config = tmp_path / "koder-gateway.toml"
    config.write_text('[tenants]\nregistry = "tenants.toml"\n')
    assert main(["check", str(config)]) == 1
    told = capsys.readouterr()  # type: ignore[attr-defined]
    lines = (told.out + told.err).splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        [str(tmp_path / "tenants.toml"), "tenant[3].slug"],
        [str(tmp_path / "tenants.toml"), "tenant"],
    ]
