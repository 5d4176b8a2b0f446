"""What the pages name is there: modules, classes, files and make's targets. A page cannot go stale without a word."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from twisted.internet import interfaces

import koder_gateway
from koder_gateway.config import schema, tenants_schema

ROOT = Path(__file__).parents[2]
PACKAGE = Path(koder_gateway.__file__).parent
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
KEYS = {row.key for row in (*schema(), *tenants_schema())}
# The questions of a stranger that the page has to answer, each with a row of its own.
RULES = {
    "tenant",
    "limit",
    "CORS",
    "route",
    "header towards the service",
    "header towards the client",
    "field names that are dropped",
    "deadline",
    "certificate",
    "metric",
    "share",
    "turn",
    "PROXY header",
    "retry",
    "reload",
    "registry",
    "access log",
}
_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
# A module, or what is in one: exchange.states.MOVES, upstream.pool.Service(max_idle).
_DOTTED = re.compile(r"([a-z]\w*(?:\.\w+)+)(?:\(\w*\))?")
# A class, or what it has: TenantGuard, Exchange.move. The page has no fields of HTTP in code.
_CLASS = re.compile(r"([A-Z]\w*[a-z]\w*)(?:\.(\w+))?(?:\(\))?")
_FILE = re.compile(r"(?:tests|benchmarks|docs|etc|debian|koder_gateway|\.ci)/[\w./-]+")


def code(text: str) -> list[str]:
    """What a text has in code, outside of its blocks."""
    return re.findall(r"`([^`]+)`", _FENCE.sub("", text))


def is_there(dotted: str) -> bool:
    """Whether a dotted name below the package is a module or something in one."""
    parts = dotted.split(".")
    name = "koder_gateway"
    for number, part in enumerate(parts):
        longer = f"{name}.{part}"
        if importlib.util.find_spec(longer) is None:
            return _has(importlib.import_module(name), parts[number:])
        name = longer
        if not (PACKAGE.joinpath(*parts[: number + 1])).is_dir():
            return _has(importlib.import_module(name), parts[number + 1 :])
    return True


def _has(value: object, names: list[str]) -> bool:
    for name in names:
        if not hasattr(value, name):
            return False
        value = getattr(value, name)
    return True


def classes() -> dict[str, set[str]]:
    """The names of all classes, each with what classes of this name have, as the sources say it."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, set()).update(_members(node))
    return found


def _members(of: ast.ClassDef) -> Iterator[str]:
    for node in ast.walk(of):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    yield target.id
                elif isinstance(target, ast.Attribute):
                    yield target.attr


def rows(first: str) -> list[list[str]]:
    """The rows of the tables whose head begins with this cell."""
    found: list[list[str]] = []
    inside = False
    for line in ARCHITECTURE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        inside = line.startswith("|") and (inside or cells[0] == first)
        if inside and cells[0] != first and not cells[0].startswith("---"):
            found.append(cells)
    return found


DOTTED = sorted({match[1] for each in code(ARCHITECTURE) if (match := _DOTTED.fullmatch(each))} - KEYS)
CLASSES = classes()
RULE_ROWS = rows("rule")


@pytest.mark.parametrize("name", [name for name in DOTTED if not name.startswith("twisted.")])
def test_a_module_that_the_page_names_is_there(name: str) -> None:
    assert is_there(name)


def test_a_module_that_is_not_there_is_noticed() -> None:
    assert is_there("policy.tenants.TenantPolicy.resolve")
    for name in ("policy.nowhere", "nowhere.tenants", "policy.tenants.Nobody", "policy.tenants.TenantPolicy.nowhere"):
        assert not is_there(name)


def test_a_class_that_the_page_names_is_there() -> None:
    matches = (match for each in code(ARCHITECTURE) if (match := _CLASS.fullmatch(each)))
    named = [match for match in matches if not hasattr(interfaces, match[1])]
    assert len(named) > 30
    assert {match[0] for match in named if match[1] not in CLASSES} == set()
    assert {match[0] for match in named if match[2] and match[2] not in CLASSES[match[1]]} == set()


def test_every_question_has_a_row() -> None:
    assert {row[0] for row in RULE_ROWS} >= RULES


@pytest.mark.parametrize("row", RULE_ROWS, ids=lambda row: row[0])
def test_a_rule_has_one_line_and_the_modules_of_all_that_it_names(row: list[str]) -> None:
    _, line, cell = row
    assert line.endswith(".")
    assert re.fullmatch(r"`[\w.]+`(, `[\w.]+`)*", cell)
    modules = [importlib.import_module(f"koder_gateway.{name}") for name in code(cell)]
    for name in (each.split(".")[0] for each in code(line)):
        assert any(_defines(module, name) for module in modules), name


def _defines(module: ModuleType, name: str) -> bool:
    """Whether a module has this name, and not by an import where that can be told."""
    return hasattr(module, name) and getattr(getattr(module, name), "__module__", module.__name__) == module.__name__


def test_every_module_of_the_other_tables_is_there() -> None:
    named = [name for cells in rows("module") for name in code(cells[0])]
    assert len(named) > 10
    assert [name for name in named if not is_there(name)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    named = {each for each in code(page.read_text()) if _FILE.fullmatch(each)}
    assert {name for name in named if not (ROOT / name).exists()} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_targets_of_make_that_a_page_names_are_there(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text()
    named = [*code(text), *re.findall(r"^(?:    |\$ |)(make .*)$", text, re.MULTILINE)]
    assert {words[1] for each in named if (words := each.split())[0] == "make"} <= targets


def anchors(page: Path) -> set[str]:
    """Where links into a page may lead: its headings, as forges make anchors of them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_anchors_are_headings(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text())
    assert [anchor for path, anchor in links if anchor not in anchors(page.parent / path if path else page)] == []
