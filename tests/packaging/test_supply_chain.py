"""The packages that the Debian package brings: pinned with hashes, complete, named in a bill of materials, and
without known faults."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
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


# -- known faults

AUDIT = PROJECT / ".ci" / "audit"
FAULTS = tomllib.loads((PROJECT / "debian" / "known-faults.toml").read_text())


def audit(*options: str | Path) -> tuple[int, str, list[str]]:
    """Its exit code, its summary, and a line for each fault."""
    done = subprocess.run([sys.executable, AUDIT, *options], capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout.strip(), done.stderr.splitlines()


def program(folder: Path, script: str) -> Path:
    """A stand-in for pip-audit."""
    path = folder / "pip-audit"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_no_package_has_a_known_fault() -> None:
    code, said, lines = audit()
    assert (code, lines) == (0, [])
    count = len(FAULTS["fault"])
    assert said == f"audit: {len(locked())} packages, compared with {count} faults that are known here: none found"


@pytest.mark.parametrize("fault", FAULTS["fault"], ids=lambda fault: fault["id"])
def test_a_known_fault_says_how_the_gateway_is_safe_from_it(fault: dict[str, Any]) -> None:
    assert re.fullmatch(r"CVE-\d{4}-\d{4,}|GHSA(-[0-9a-z]{4}){3}", fault["id"])
    assert fault["what"]
    assert fault["guard"]
    assert canonical(fault["package"]) in {*locked(), *(part["package"] for part in FAULTS["bundled"])}


def test_an_older_version_in_the_lock_is_found(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(LOCK.read_text().replace("hpack==4.2.0", "hpack==4.1.9"))
    code, said, lines = audit("--lock", lock)
    assert (code, said.rpartition(": ")[2]) == (1, "1 found")
    (line,) = lines
    assert line.startswith("audit: requirements.lock: hpack 4.1.9: CVE-2026-59980: ")
    assert line.endswith("; ask for 4.2.0 or newer")


def test_a_lower_bound_that_allows_a_fault_is_found(tmp_path: Path) -> None:
    setup = tmp_path / "setup.cfg"
    setup.write_text(
        re.sub(r"(?m)^    pyOpenSSL >= [\d.]+", "    pyOpenSSL >= 25.3", (PROJECT / "setup.cfg").read_text())
    )
    code, _, lines = audit("--setup", setup)
    assert code == 1
    assert [line.split(": ")[3] for line in lines] == ["CVE-2026-27448", "CVE-2026-27459"]


def test_another_wheel_of_cryptography_may_have_another_openssl(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(LOCK.read_text().replace(f"cryptography=={locked()['cryptography'][0]}", "cryptography==50.9.9"))
    code, _, lines = audit("--lock", lock)
    assert code == 1
    (line,) = lines
    assert line.startswith("audit: which openssl is in cryptography 50.9.9 is not known: ")


def test_the_openssl_that_is_known_is_the_one_that_runs() -> None:
    from cryptography.hazmat.backends.openssl import backend

    (part,) = FAULTS["bundled"]
    if version("cryptography") != part["of"]:
        pytest.skip("another cryptography than the lock's is installed")
    assert backend.openssl_version_text().split()[1] == part["version"]


ANSWERS = {
    "all are known": (
        """echo '{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}'""",
        "the service of known faults was asked about all 1 packages: none found",
    ),
    "one is not known": (
        """echo '{"dependencies": [{"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": ""}]}'""",
        "the service of known faults knows nothing of 1 of 2 packages (b): none found",
    ),
    "it does not answer": (
        "echo Traceback >&2; echo 'ConnectionError: no route' >&2; exit 1",
        "the service of known faults did not answer (ConnectionError: no route): it was not asked: none found",
    ),
    "it ends without a word": (
        "exit 7",
        "the service of known faults did not answer (exit code 7): it was not asked: none found",
    ),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_the_service_has_said_is_in_one_line(tmp_path: Path, answer: str) -> None:
    script, end = ANSWERS[answer]
    code, said, lines = audit("--pip-audit", program(tmp_path, script))
    assert (code, lines) == (0, [])
    assert said.endswith(f"known here; {end}")
    assert "\n" not in said


def test_without_pip_audit_one_line_says_so(tmp_path: Path) -> None:
    code, said, lines = audit("--pip-audit", tmp_path / "nowhere")
    assert (code, lines) == (0, [])
    assert "pip-audit cannot be run (No such file or directory): no service of known faults was asked" in said


def test_what_the_service_finds_is_a_fault(tmp_path: Path) -> None:
    found = (
        '{"dependencies": [{"name": "a", "version": "1", "vulns": ['
        '{"id": "PYSEC-1", "fix_versions": ["2", "3"]}, {"id": "PYSEC-2", "fix_versions": []}]}]}'
    )
    code, said, lines = audit("--pip-audit", program(tmp_path, f"echo '{found}'\nexit 1"))
    assert (code, said.rpartition(": ")[2]) == (1, "2 found")
    assert lines == [
        "audit: requirements.lock: a 1: PYSEC-1; ask for 2 or 3",
        "audit: requirements.lock: a 1: PYSEC-2; ask for another package: there is no version without it",
    ]
