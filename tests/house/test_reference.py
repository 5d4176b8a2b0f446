"""What is written from the code is what the code says, and an editor's schema accepts what the gateway accepts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from koder_gateway.config import Row, health_schema, schema, section_texts, tenants_schema
from reference.files import FILES, ROOT
from reference.roff import sections
from tests.kit.schemas import SCHEMAS, schema_faults
from tests.kit.waiting import PATIENCE

DOCS = sorted((ROOT / "docs").rglob("*.md"))
HELP = "write `about=` beside the key and run `make reference`"


@pytest.mark.parametrize("path", FILES)
def test_what_is_written_from_the_code_is_up_to_date(path: str) -> None:
    assert (ROOT / path).read_text() == FILES[path](), f"{path} is not what the code says: {HELP}"


@pytest.mark.parametrize("row", [*schema(), *health_schema(), *tenants_schema()], ids=lambda row: row.key)
def test_every_key_says_what_it_means(row: Row) -> None:
    assert re.fullmatch(r"[^|\n]+[.]", row.about), f"{row.key}: {HELP}"


@pytest.mark.parametrize("section", section_texts())
def test_every_section_says_what_it_is_for(section: str) -> None:
    assert section_texts()[section].endswith("."), f"{section}: {HELP}"


def test_a_changed_meaning_is_noticed() -> None:
    changed = sections([Row("cors.max_age", "600", "seconds", "Something else.")], {}, "SH")
    assert changed not in (ROOT / "docs/man/koder-gateway.toml.5").read_text()


def test_text_cannot_be_a_request_of_roff() -> None:
    about = 'A `\\fX` "quote". .SH is none, nor `.x`.'
    lines = sections([Row("a.b", '".c\\""', "file", about)], {"a": "'x'."}, "SH").splitlines()
    assert [line for line in lines if line.startswith((".", "'"))] == [
        ".SH [a]",
        ".TP",
        r'.B "b \fR(file; default \(dq.c\e\(dq\(dq)"',
    ]
    assert r"A \fB\efX\fR \(dqquote\(dq. .SH is none, nor \fB.x\fR." in lines


# -- the JSON Schemas


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schema_is_one(name: str) -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMAS[name])


def uncommented(text: str) -> str:
    """A sample with every commented key and table taken in."""
    return re.sub(r"(?m)^#(?=[a-z0-9_]+ = |\[)", "", text)


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("taken", [str, uncommented], ids=["as it stands", "with every key taken in"])
def test_the_samples_are_valid(name: str, taken: Any) -> None:
    assert schema_faults(tomllib.loads(taken((ROOT / "etc" / f"{name}.toml").read_text())), name) == []


def examples() -> list[tuple[str, str]]:
    """The TOML of the documentation: fenced blocks, and indented ones that have a section or a key."""
    found: list[tuple[str, str]] = []
    for page in (ROOT / "README.md", *DOCS):
        text = page.read_text()
        blocks = re.findall(r"(?ms)^```toml\n(.*?)^```$", text)
        blocks += [
            re.sub(r"(?m)^    ", "", block)
            for block in re.findall(r"(?m)(?:^    \S.*\n)(?:(?:    .*)?\n)*", text)
            if re.match(r"    (?:\[\[?[a-z_.]+\]\]?|[a-z_.]+ = )", block)
        ]
        found += [(f"{page.name}-{number}", block) for number, block in enumerate(blocks)]
    return found


@pytest.mark.parametrize(("name", "text"), examples(), ids=lambda value: value if "\n" not in value else "")
def test_the_examples_of_the_documentation_are_valid(name: str, text: str) -> None:
    document = tomllib.loads(text)
    assert schema_faults(document, "tenants" if "tenant" in document else "koder-gateway") == []


WRONG = [
    ("tenants.base_domain = 5", "$.tenants.base_domain"),
    ('tenants.base_domian = "a.example"', "$.tenants"),
    ('tenants.default = "A B"', "$.tenants.default"),
    ("nonsense = 1", "$"),
    ("timeouts.head = 10", "$.timeouts.head"),
    ('timeouts.head = "10"', "$.timeouts.head"),
    ('timeouts.head = "0s"', "$.timeouts.head"),
    ('timeouts.head = "10 s"', "$.timeouts.head"),
    ('requests.max_body = "10MB"', "$.requests.max_body"),
    ("requests.max_body = 0", "$.requests.max_body"),
    ("requests.max_fields = 0", "$.requests.max_fields"),
    ('requests.max_fields = "100"', "$.requests.max_fields"),
    ('shares.address = "0%"', "$.shares.address"),
    ('shares.tenant = "101%"', "$.shares.tenant"),
    ("listen.port = []", "$.listen.port"),
    ("listen.port = 443", "$.listen.port"),
    ('listen.http2 = "yes"', "$.listen.http2"),
    ("listen.workers = 0", "$.listen.workers"),
    ('listen.trusted_proxies = ["proxy.example"]', "$.listen.trusted_proxies[0]"),
    ('log.level = "loud"', "$.log.level"),
    ('cors.methods = ["GET", "GET"]', "$.cors.methods"),
    ('cors.methods = ["BREW"]', "$.cors.methods[0]"),
    ('tls.client_auth = { "a.example" = "maybe" }', "$.tls.client_auth"),
    ("services.identity = 5", "$.services.identity"),
    ('services.identity = "identity:80"', "$.services.identity"),
    ('services.identity.ulr = "http://h"', "$.services.identity"),
    ('[[routes]]\npath = "/a"', "$.routes[0]"),
    ('[[routes]]\npath = "a"\nservice = "auth"', "$.routes[0].path"),
    ("routes = {}", "$.routes"),
    ('[[limits]]\nname = "a"\nrate = "10/x"', "$.limits[0].rate"),
    ('[[limits]]\nname = "a"\nrate = "0/s"', "$.limits[0].rate"),
    ('[[limits]]\nname = "a"\nkey = ["nothing"]', "$.limits[0].key[0]"),
    ('[[limits]]\nname = "a"\nstatuses = [429]', "$.limits[0].statuses[0]"),
    ('limits_store.url = "http://h"', "$.limits_store.url"),
    ('problems.docs_url = "https://h/errors"', "$.problems.docs_url"),
]


@pytest.mark.parametrize(("text", "place"), WRONG, ids=[text for text, _ in WRONG])
def test_a_wrong_configuration_is_not_valid(text: str, place: str) -> None:
    assert [fault.partition(": ")[0] for fault in schema_faults(tomllib.loads(text))] == [place]


# -- taplo, by which editors show the schemas

TAPLO = shutil.which("taplo", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
needs_taplo = pytest.mark.skipif(TAPLO is None, reason="needs taplo")


def taplo(path: Path, name: str = "koder-gateway") -> subprocess.CompletedProcess[str]:
    """What taplo says about a file."""
    assert TAPLO
    schema = (ROOT / "docs" / f"{name}.schema.json").as_uri()
    command = [TAPLO, "lint", "--no-auto-config", "--schema", schema, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)


@needs_taplo
@pytest.mark.parametrize("name", SCHEMAS)
def test_taplo_accepts_the_samples(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.toml"
    path.write_text(uncommented((ROOT / "etc" / path.name).read_text()))
    done = taplo(path, name)
    assert done.returncode == 0, done.stderr


@needs_taplo
def test_taplo_shows_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "koder-gateway.toml"
    path.write_text('[timeouts]\nhead = "10 s"\n')
    assert taplo(path).returncode != 0
