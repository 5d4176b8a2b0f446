"""The order of the floors: arrows between modules point one way, and the pure ones know nothing of Twisted."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import koder_gateway

ROOT = Path(koder_gateway.__file__).parent
# From the top down: a floor imports only from those before it. Modules of one floor are one group.
FLOORS = (
    ("errors", "version"),
    ("wire",),
    ("policy",),
    ("exchange",),
    ("files",),
    ("config",),
    ("context",),
    ("reactor",),
    ("acme",),
    ("tls_bio",),
    ("downstream",),
    ("http1", "http2", "twisted_site"),
    ("limits_store",),
    ("upstream",),
    ("tree",),
    ("tls", "transports", "tenants", "tracing", "ops"),
    ("listening",),
    ("service",),
    ("workers",),
    (
        "demo",
        "daemon",
        "tap",
        "service_unit",
        "machine",
        "acme_checks",
        "checks",
        "live_checks",
        "admin_client",
        "check_tool",
        "reload_tool",
        "limits_tool",
        "explain_tool",
        "certificates_tool",
        "ready_tool",
        "version_tool",
        "tools",
        "completions",
        "cli",
    ),
)
HEIGHT = {name: height for height, floor in enumerate(FLOORS) for name in floor}
# The clients' side and the services' side do not know each other: an exchange's two sides meet in the tree.
CLIENTS_SIDE = ("downstream", "http1", "http2", "twisted_site")
STRANGERS = {"upstream": {*CLIENTS_SIDE, "config"}}
# Helpers beside the data path get values and protocols as arguments.
MODEST = {"ops", "tls", "transports", "tenants", "tracing", "listening"}
# But an endpoint makes TLS contexts, and the plain port serves by the main site's means.
NEEDED = {("listening", "tls"), ("listening", "downstream")}
PURE = ("errors", "version", "wire", "policy", "exchange", "files", "config")
MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))


def named(path: Path) -> str:
    """A module's dotted name below the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[str]:
    """The absolute names of the modules that a module imports, also within functions and for its types alone."""
    package = ("koder_gateway", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join((*base, node.module) if node.module else base)
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names)


def floors(path: Path) -> set[str]:
    """The parts of the package that a module imports."""
    names = (name.split(".") for name in imported(path))
    return {name[1] for name in names if name[0] == "koder_gateway" and len(name) > 1} & set(HEIGHT)


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_module_imports_only_from_its_own_floor_and_those_above(path: Path) -> None:
    here = named(path).split(".")[0]
    assert here in HEIGHT, f"{named(path)} stands on no floor"
    for other in floors(path) - {here}:
        beside = HEIGHT[other] == HEIGHT[here] and here in FLOORS[-1]
        assert HEIGHT[other] < HEIGHT[here] or beside, f"{named(path)} imports {other}, which stands below it"
        assert other not in STRANGERS.get(here, set()), f"{named(path)} imports {other}"
        if here in MODEST:
            assert HEIGHT[other] <= HEIGHT["tls_bio"] or (here, other) in NEEDED, f"{named(path)} imports {other}"


@pytest.mark.parametrize("path", [path for path in MODULES if named(path).split(".")[0] in PURE], ids=named)
def test_a_pure_module_imports_no_twisted_and_no_clock(path: Path) -> None:
    names = {name.split(".")[0] for name in imported(path)}
    assert not names & {"twisted", "OpenSSL", "uvloop", "asyncio", "zope", "treq", "time", "socket", "ssl", "select"}


def test_importing_the_pure_floors_loads_no_twisted() -> None:
    pure = [named(path) for path in MODULES if named(path).split(".")[0] in PURE]
    modules = ", ".join(f"koder_gateway.{name}" for name in pure)
    impure = "{'twisted', 'zope', 'uvloop', 'OpenSSL'}"
    code = f"import sys, {modules}\nprint(sorted({{name.split('.')[0] for name in sys.modules}} & {impure}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_importing_the_package_installs_no_reactor() -> None:
    code = (
        "import sys, koder_gateway, koder_gateway.service.gateway\nprint('twisted.internet.reactor' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent, timeout=60
    )
    assert done.stdout.strip() == "False"


def test_nothing_imports_in_a_circle() -> None:
    """At run time: what is imported for types alone does not count."""
    arrows = {named(path): set(_at_run_time(path)) for path in MODULES}
    finished: set[str] = set()

    def visit(module: str, on_the_way: tuple[str, ...]) -> None:
        assert module not in on_the_way, " imports ".join((*on_the_way, module))
        if module not in finished:
            for other in arrows.get(module, ()):
                visit(other, (*on_the_way, module))
            finished.add(module)

    for module in arrows:
        visit(module, ())


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_has_a_circle_of_files_not_even_for_types(package: str) -> None:
    inside = {
        named(path): path for path in MODULES if named(path).split(".")[0] == package and path.stem != "__init__"
    }
    arrows = {
        name: {other.removeprefix("koder_gateway.") for other in imported(path)} & set(inside)
        for name, path in inside.items()
    }
    while arrows:
        leaves = [name for name, others in arrows.items() if not others & set(arrows)]
        assert leaves, f"a circle among {', '.join(sorted(arrows))}"
        for name in leaves:
            del arrows[name]


def _at_run_time(path: Path) -> Iterator[str]:
    known = {named(each) for each in MODULES}
    tree = ast.parse(path.read_text())
    body = [
        node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    ]
    package = ("koder_gateway", *path.relative_to(ROOT).parent.parts)
    for node in body:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = (*package[: len(package) - node.level + 1], *(node.module.split(".") if node.module else ()))[1:]
            for candidate in {".".join(base), *(".".join((*base, alias.name)) for alias in node.names)}:
                around = named(path) == candidate or named(path).startswith(f"{candidate}.")
                if candidate in known and not around:  # a package is loaded with any module of it
                    yield candidate


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_modules_first_line_says_what_it_is_for(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text()))
    assert text, f"{named(path)} does not say what it is for"
    assert len(text.splitlines()[0]) > 10


@pytest.mark.parametrize("path", [path for path in MODULES if named(path) != "exchange.states"], ids=named)
def test_only_the_states_move_an_exchange(path: Path) -> None:
    """`Exchange.move` and `Exchange.end` do: a phase that somebody else writes is in no table."""
    for node in ast.walk(ast.parse(path.read_text())):
        targets = node.targets if isinstance(node, ast.Assign) else ()
        for target in targets:
            if isinstance(target, ast.Attribute) and target.attr == "phase":
                assert not ast.unparse(target.value).endswith("exchange"), f"line {node.lineno}"
