"""The packages that the Debian package brings: pinned with hashes, complete, and named in a bill of materials."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[2]
LOCK = PROJECT / "debian" / "requirements.lock"
# The extras that debian/rules installs.
EXTRAS = ("acme", "completions", "tracing")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))


def locked() -> dict[str, tuple[str, int]]:
    """The version of each package in the lock, and how many hashes it has."""
    found = re.findall(r"^([\w.-]+)==(\S+)((?: *\\\n +--hash=sha256:[0-9a-f]{64})*)", LOCK.read_text(), re.MULTILINE)
    return {canonical(name): (version, hashes.count("--hash")) for name, version, hashes in found}


def asked() -> list[tuple[str, list[tuple[str, str]]]]:
    """What the project asks for in the package, as names and bounds."""
    setup = configparser.ConfigParser()
    setup.read(PROJECT / "setup.cfg")
    extras = setup["options.extras_require"]
    lines = [setup["options"]["install_requires"], *(extras[each] for each in EXTRAS)]
    found = []
    for line in "\n".join(lines).splitlines():
        if match := re.match(r"([\w.-]+)(?:\[\w+\])?(.*)", line):
            found.append((canonical(match[1]), re.findall(r"(>=|<) *([\d.]+)", match[2])))
    return found


def test_everything_in_the_lock_has_hashes_and_nothing_else_is_there() -> None:
    lines = [line for line in LOCK.read_text().splitlines() if line and not line.lstrip().startswith(("#", "--hash"))]
    assert len(lines) == len(locked()) > 30
    assert [name for name, (_, hashes) in locked().items() if not hashes] == []


def test_the_lock_is_within_the_bounds_of_the_project() -> None:
    found = locked()
    for name, limits in asked():
        version = found[name][0]
        for sign, bound in limits:
            fits = numbers(version) >= numbers(bound) if sign == ">=" else numbers(version) < numbers(bound)
            assert fits, f"{name} {version} is not {sign} {bound}: run make lock"


def test_the_package_is_built_from_the_lock_alone() -> None:
    rules = (PROJECT / "debian" / "rules").read_text()
    (command,) = re.findall(r"^\tdh_virtualenv (.*)", rules.replace("\\\n", ""), re.MULTILINE)
    for option in ("--requirements debian/requirements.lock", "=--no-deps", "=--no-build-isolation"):
        assert option in command
    assert {f"--extras {each}" for each in EXTRAS} <= set(re.findall(r"--extras \w+", command))


@pytest.fixture(scope="module")
def bill() -> dict[str, Any]:
    words = [sys.executable, "-I", PROJECT / "debian" / "bill-of-materials", LOCK]
    written = [subprocess.run(words, capture_output=True, check=True, timeout=60).stdout for _ in range(2)]
    assert written[0] == written[1]
    document: dict[str, Any] = json.loads(written[0])
    return document


def test_the_bill_of_materials_has_every_package(bill: dict[str, Any]) -> None:
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bill["serialNumber"])
    assert bill["metadata"]["component"]["name"] == "koder-gateway"
    names = {each["name"] for each in bill["components"]}
    assert {name for name, _ in asked()} - {"shtab"} <= names
    assert "openssl" in names
    assert all(each["version"] and each["purl"].startswith("pkg:") for each in bill["components"])


def test_the_bill_of_materials_says_what_needs_what(bill: dict[str, Any]) -> None:
    refs = {each["bom-ref"] for each in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    depends = {each["ref"]: each["dependsOn"] for each in bill["dependencies"]}
    assert depends.keys() == refs
    assert {ref for each in depends.values() for ref in each} <= refs
    (openssl,) = [ref for ref in refs if ref.startswith("pkg:generic/openssl@")]
    (cryptography,) = [each for ref, each in depends.items() if ref.startswith("pkg:pypi/cryptography@")]
    assert openssl in cryptography


def test_the_bill_of_materials_names_a_missing_lock_in_one_line() -> None:
    words = [sys.executable, "-I", PROJECT / "debian" / "bill-of-materials", "nowhere"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == "bill-of-materials: nowhere: No such file or directory; name the lock, debian/requirements.lock\n"
    )
