"""The tenants file: tenants, or every fault in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from koder_gateway.config import ConfigurationError, load_tenants
from koder_gateway.policy.tenants import Tenant
from tests.kit.tenants import in_order

BASE = "id.koder.dev"


def faults(folder: Path, text: str) -> list[str]:
    file = folder / "tenants.toml"
    file.write_text(text)
    try:
        told = list(load_tenants(file, BASE).faults)
    except ConfigurationError as error:
        told = error.faults
    return [line.removeprefix(f"{file}: ") for line in told]


def test_tenants(tmp_path: Path) -> None:
    file = tmp_path / "tenants.toml"
    file.write_text("""
        [[tenant]]
        slug = "koder"
        domains = ["Login.Koder.example"]
        status = "suspended"
        cors_origins = ["https://koder.example"]
        [[tenant]]
        slug = "a"
    """)
    assert in_order(load_tenants(file, BASE).registry) == (
        Tenant("a"),
        Tenant("koder", ("login.koder.example",), "suspended", ("https://koder.example",)),
    )


def test_a_registry_may_be_empty_but_only_on_purpose(tmp_path: Path) -> None:
    (tmp_path / "tenants.toml").write_text("tenant = []")
    found = load_tenants(tmp_path / "tenants.toml", BASE)
    assert (in_order(found.registry), found.faults) == ((), ())
    (line,) = faults(tmp_path, "")
    assert line.startswith("tenant: is missing; write [[tenant]] for each")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('slug = "-a"', 'tenant[0].slug: "-a" is not a slug; '),
        ('slug = ""', 'tenant[0].slug: "" is not a slug; '),
        (f'slug = "{"a" * 64}"', "tenant[0].slug: "),
        ("slug = 5", "tenant[0].slug: 5 is not a string; "),
        ('domains = ["a.example"]', "tenant[0].slug: is missing, and it has no default; "),
        ('slug = "a"\ndomain = []', 'tenant[0].domain: is an unknown key; did you mean "domains"?'),
        ('slug = "a"\ndomains = "a.example"', 'tenant[0].domains: "a.example" is not a list; '),
        ('slug = "a"\ndomains = ["b.example", "::1"]', 'tenant[0].domains[1]: "::1" is an address, '),
        ('slug = "a"\ndomains = ["https://a.example"]', 'tenant[0].domains[0]: "https://a.example" is not a domain'),
        ('slug = "a"\ndomains = ["A.example", "a.example"]', "tenant[0].domains[1]: is the same as [0]; "),
        ('slug = "a"\nstatus = "deleted"', 'tenant[0].status: "deleted" is not an accepted value'),
        ('slug = "a"\ncors_origins = ["null"]', 'tenant[0].cors_origins[0]: "null" is every sandboxed page'),
        ('slug = "a"\n[[tenant]]\nslug = "a"', 'tenant[1]: the slug "a" is given to two tenants; '),
        ('slug = "a"\ndomains = ["x.id.koder.dev"]', 'tenant[0]: the domain "x.id.koder.dev" of tenant "a" lies '),
        ('slug = "a"\ndomains = ["x.y"]\n[[tenant]]\nslug = "b"\ndomains = ["x.y"]', 'tenant: the domain "x.y" '),
    ],
)  # fmt: skip
def test_a_fault_and_what_would_be_right(tmp_path: Path, text: str, line: str) -> None:
    told = faults(tmp_path, f"[[tenant]]\n{text}")
    assert len(told) == 1
    assert told[0].startswith(line)


def test_contradictions_are_told_along_with_other_faults(tmp_path: Path) -> None:
    text = """
        wat = 1
        [[tenant]]
        slug = "a"
        status = "off"
        domains = ["x.example", 5]
        [[tenant]]
        slug = "b"
        domains = ["x.example"]
        [[tenant]]
        slug = "a"
    """
    assert [line.partition(": ")[0] for line in faults(tmp_path, text)] == [
        "wat",
        "tenant[0].domains[1]",
        "tenant[0].status",
        "tenant[2]",
        "tenant",
        "tenant",
    ]


@pytest.mark.parametrize("text", ["tenant = 5", "tenant = {}", "[tenant]\nslug = 'a'"])
def test_tenants_are_an_array_of_tables(tmp_path: Path, text: str) -> None:
    (line,) = faults(tmp_path, text)
    assert "is not an array of tables; write the name in [[ ]]" in line


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file"):
        load_tenants(tmp_path / "none.toml", BASE)
