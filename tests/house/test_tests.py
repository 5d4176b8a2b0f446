"""The tests' own order: folders mirror the package, and tests/README.md names what is beside them."""

from __future__ import annotations

import re
from pathlib import Path

import koder_gateway

TESTS = Path(__file__).parents[1]
README = (TESTS / "README.md").read_text()
PACKAGES = {path.parent.name for path in Path(koder_gateway.__file__).parent.glob("*/__init__.py")}
FOLDERS = {path.parent.name for path in TESTS.glob("*/__init__.py")}


def first_cells(heading: str) -> set[str]:
    """The names in the first column of the table under a heading."""
    section = README.partition(f"# {heading}\n")[2].partition("\n#")[0]
    cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def test_a_folder_is_a_package_s_or_has_a_line_in_the_readme() -> None:
    assert first_cells("Tests") >= FOLDERS - PACKAGES
    assert first_cells("Tests") <= FOLDERS


def test_every_package_has_tests() -> None:
    assert {"tls_bio", "twisted_site"} >= PACKAGES - FOLDERS, "tested through those that use them"


def test_no_test_lies_beside_the_folders_or_in_the_kit() -> None:
    loose = [*TESTS.glob("test_*.py"), *(TESTS / "kit").glob("test_*.py")]
    assert loose == []


def test_the_readme_names_every_module_of_the_kit() -> None:
    assert first_cells("The kit") == {path.stem for path in (TESTS / "kit").glob("*.py")} - {"__init__"}


def test_nothing_waits_for_a_time() -> None:
    """`waiting` alone sleeps, between two looks at a condition; else a peer that is slow on purpose does."""
    sleeping = {str(path.relative_to(TESTS)) for path in TESTS.rglob("*.py") if "time.sleep(" in path.read_text()}
    slow = {"e2e/test_websocket.py", "e2e/test_lossless_restarts.py", "upstream/test_tls_transport.py"}
    assert sleeping == {"kit/waiting.py", "house/test_tests.py", *slow}
