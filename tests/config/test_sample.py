"""The sample files and the reference, held to the code: every key, its default, nothing else."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from koder_gateway.config import Row, Settings, health_schema, load, load_tenants, schema, tenants_schema
from koder_gateway.policy.limit_rules import RateOverride
from koder_gateway.policy.tenants import Tenant
from tests.kit.tenants import in_order

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "etc" / "koder-gateway.toml"
TENANTS = ROOT / "etc" / "tenants.toml"
REFERENCE = ROOT / "docs" / "configuration.md"


def uncommented(text: str) -> str:
    """The file with every commented key and table taken in; prose has a space after its #."""
    return re.sub(r"(?m)^#(?=[a-z0-9_]+ = |\[)", "", text)


def tables_of(path: str, value: object) -> list[tuple[str, dict[str, object]]]:
    """The tables that a value holds, with the path of their keys as the schema writes it."""
    if path == "services" and isinstance(value, dict):
        return [("services.NAME.", service) for service in value.values() if isinstance(service, dict)]
    if path == "tenant[].limits" and isinstance(value, dict):
        return [(f"{path}.NAME.", override) for override in value.values() if isinstance(override, dict)]
    if isinstance(value, dict):
        return [(f"{path}.", value)]
    if isinstance(value, list):
        return [(f"{path}[].", entry) for entry in value if isinstance(entry, dict)]
    return []


def keys_in(document: dict[str, object], prefix: str = "") -> dict[str, object]:
    """Every key that stands in a document, as the schema writes it, with its first value."""
    found: dict[str, object] = {}
    for name, value in document.items():
        path = prefix + name
        # A section is no key of its own; an array of tables, and that of services, can be replaced as a whole.
        if not isinstance(value, dict) or path in ("services", "tenant[].limits"):
            found.setdefault(path, value)
        for step, table in tables_of(path, value):
            found = {**keys_in(table, step), **found}
    return found


def with_default(rows: tuple[Row, ...]) -> dict[str, object]:
    return {row.key: tomllib.loads(f"value = {row.default}")["value"] for row in rows if row.default is not None}


def test_the_sample_has_every_key_of_the_schema_and_no_other() -> None:
    assert set(keys_in(tomllib.loads(uncommented(SAMPLE.read_text())))) == {row.key for row in schema()}


def test_the_tenants_sample_has_every_key_of_the_schema_and_no_other() -> None:
    assert set(keys_in(tomllib.loads(uncommented(TENANTS.read_text())))) == {row.key for row in tenants_schema()}


def test_every_key_of_the_sample_shows_its_default() -> None:
    found = keys_in(tomllib.loads(uncommented(SAMPLE.read_text())))
    # The address of a service has no default of its own: the sample shows the one that the five have. The first of
    # the default limits is not by tenant, unlike one that does not say.
    shown = {"services.NAME.url": "http://127.0.0.1:4001", "limits[].key": ["ip"]}
    expected = {**with_default(schema()), **shown}
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("taken", [str, uncommented], ids=["as it stands", "with every key taken in"])
def test_the_sample_loads_to_the_defaults(tmp_path: Path, taken: type[str]) -> None:
    file = tmp_path / "koder-gateway.toml"
    file.write_text(taken(SAMPLE.read_text()))
    settings = load(file, environ={"STATE_DIRECTORY": "/var/lib/koder-gateway"})
    assert settings.source == file
    defaults = dataclasses.replace(Settings(), source=file, state=settings.state)
    assert settings == defaults
    assert settings.state.dir == Path("/var/lib/koder-gateway")


def test_the_tenants_sample_loads() -> None:
    found = load_tenants(TENANTS, Settings().tenants.base_domain)
    assert (in_order(found.registry), found.faults) == ((Tenant("koder"),), ())


def test_the_tenants_sample_loads_with_every_entry_taken_in(tmp_path: Path) -> None:
    file = tmp_path / "tenants.toml"
    file.write_text(uncommented(TENANTS.read_text()))
    found = load_tenants(file, Settings().tenants.base_domain)
    acme, koder = in_order(found.registry)
    assert (acme.slug, koder.slug, found.faults) == ("acme", "koder", ())
    assert acme.limits == {"login": RateOverride(600, 60, 300), "traffic": RateOverride(in_flight=200)}


def test_the_sample_works_with_the_registry_beside_it(tmp_path: Path) -> None:
    text = SAMPLE.read_text().replace('#registry = ""', 'registry = "tenants.toml"')
    (tmp_path / "koder-gateway.toml").write_text(text)
    (tmp_path / "tenants.toml").write_text(TENANTS.read_text())
    assert tuple(load(tmp_path / "koder-gateway.toml").registered or ()) == (Tenant("koder"),)


@pytest.mark.parametrize("file", [SAMPLE, TENANTS], ids=lambda file: file.name)
def test_every_key_where_it_first_stands_has_its_reason(file: Path) -> None:
    explained: set[str] = set()
    section, reason = "", ""
    for text in file.read_text().splitlines():
        bare = uncommented(text)
        if bare.startswith("["):
            # Tables of one name share their reasons, and what stands above a header is not its first key's.
            section, reason = bare, ""
        elif match := re.match(r"([a-z0-9_]+) = ", bare):
            assert reason or section + match[1] in explained, text
            explained.add(section + match[1])
            reason = ""
        else:
            reason = text.removeprefix("#").strip()
    assert explained


def test_the_reference_has_every_key_with_its_default_and_type() -> None:
    table = re.findall(r"(?m)^\| `([^`]+)` \| (.+?) \| (.+?) \| (.+) \|$", REFERENCE.read_text())
    expected = {
        row.key: ("" if row.default is None else f"`{row.default}`", row.type)
        for row in (*schema(), *health_schema(), *tenants_schema())
    }
    shown = {key: ("" if default.startswith("(") else default, kind) for key, default, kind, _ in table}
    assert shown == expected
    assert len(table) == len(expected)
