"""The project's own scripts: shellcheck finds nothing, they end at the first fault, and none fetches what it then
runs, trusts whoever answers, or writes where others can."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.waiting import PATIENCE

ROOT = Path(__file__).parents[2]
# What is no source.
_OTHER = {
    ".git",
    ".venv",
    "build",
    "dist",
    "__pycache__",
    "node_modules",
    ".hypothesis",
    ".mypy_cache",
    ".ruff_cache",
}
MAKEFILES = ("Makefile", "debian/rules")
# The variables of make, as a word that a shell takes.
_REFERENCE = re.compile(r"(?<!\$)\$(?:\((?:[^()]|\([^()]*\))*\)|[@*<^])")


def shebang(path: Path) -> str:
    with path.open("rb") as file:
        line = file.readline(100)
    return line.decode().strip() if line.startswith(b"#!") else ""


def scripts() -> dict[str, str]:
    """The programs of the repository by their path, with their first line."""
    found: dict[str, str] = {}
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in _OTHER and not name.endswith(".egg-info")]
        for path in (Path(folder, name) for name in files):
            if path.is_file() and (first := shebang(path)):
                found[str(path.relative_to(ROOT))] = first
    return found


SCRIPTS = scripts()
SHELL = [path for path, first in SCRIPTS.items() if re.fullmatch(r"#!/bin/(?:ba)?sh", first)]
# Everything that a build, a test run or an installation executes.
EXECUTED = sorted({*SCRIPTS, *MAKEFILES, "Containerfile"})
needs_shellcheck = pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")


def recipes(text: str) -> Iterator[str]:
    """The shell commands of a Makefile: what its recipes and its multi-line variables have, as bash gets them."""
    defined = re.compile(r"^define \w+\n(.*?)^endef$", re.MULTILINE | re.DOTALL)
    # A command may go on over several lines; comments of make's are none.
    within = re.findall(r"^\t((?:.*\\\n)*.*)$", defined.sub("", text), re.MULTILINE)
    for command in (*defined.findall(text), *within):
        if not command.startswith(("$(call need,", "#")):
            plain = _REFERENCE.sub("make_variable", command.strip().lstrip("@-+"))
            yield plain.replace("$$", "$")


def lint(shell: str, *options: str) -> str:
    """What shellcheck says of a script."""
    done = subprocess.run(
        ["shellcheck", "--norc", "--format", "gcc", *options, "-"],
        input=shell,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return done.stdout


@needs_shellcheck
@pytest.mark.parametrize("path", SHELL)
def test_shellcheck_finds_nothing(path: str) -> None:
    assert lint((ROOT / path).read_text()) == ""


@needs_shellcheck
@pytest.mark.parametrize("path", MAKEFILES)
def test_shellcheck_finds_nothing_in_recipes(path: str) -> None:
    found = list(recipes((ROOT / path).read_text()))
    assert len(found) > 20
    script = "#!/bin/bash\nset -eu -o pipefail\nexport make_variable=1\n" + "".join(
        f"(\n{command}\n)\n" for command in found
    )
    assert lint(script) == ""


@needs_shellcheck
def test_a_fault_of_a_recipe_is_noticed() -> None:
    (command,) = recipes("all: x\n\tread -r each; \\\n\t    rm $$each/$@ $(X)\n")
    assert command == "read -r each; \\\n\t    rm $each/make_variable make_variable"
    assert "SC2086" in lint(f"#!/bin/bash\n{command}\n")


@pytest.mark.parametrize("path", SHELL)
def test_a_script_ends_at_the_first_fault(path: str) -> None:
    lines = [line for line in (ROOT / path).read_text().splitlines() if line and not line.startswith("#")]
    assert re.fullmatch(r"set -eu?(?: -o pipefail)?", lines[0]), f"{path}: begin with: set -eu"


def test_recipes_end_at_the_first_fault() -> None:
    assert "\n.SHELLFLAGS := -eu -o pipefail -c\n" in (ROOT / "Makefile").read_text()


def test_no_check_is_switched_off() -> None:
    assert [path for path in SHELL if "shellcheck disable" in (ROOT / path).read_text()] == []


def test_programs_can_be_executed() -> None:
    """dpkg makes its maintainer scripts executable itself."""
    unmarked = [path for path in SCRIPTS if not os.access(ROOT / path, os.X_OK)]
    assert [path for path in unmarked if not re.fullmatch(r"debian/koder-gateway\.p\w+", path)] == []


# What a script must not do, with an example of each.
FORBIDDEN = {
    "runs what it fetches": (
        r"\b(?:curl|wget)\b[^\n]*\|\s*(?:sudo\s+)?(?:ba|da|z)?sh\b|\b(?:ba|da|z)?sh\s+<\(\s*(?:curl|wget)\b",
        "curl https://example.org/install | sh",
    ),
    "trusts whoever answers": (
        r"--insecure\b|\bcurl\b[^\n]* -\w*k\b|--no-check-cert|--trusted-host|verify=False|CERT_NONE|trusted=yes",
        "pip install --trusted-host example.org x",
    ),
    "asks another index": (r"--(?:extra-)?index-url|--find-links|-i https?:", "pip install --extra-index-url x y"),
    "takes a source that is not pinned": (r"\bgit clone\b|git\+(?:https|ssh)|\bnpm install\b", "git clone https://x"),
    "becomes root": (r"\bsudo\b|\bsu -", "sudo make"),
    "evaluates text": (r"(?:^|[\s;&|])eval\s|\bexec\(|\bos\.system\(|shell=True", 'eval "$x"'),
    "lets others write": (r"\bchmod\b[^\n]*(?:\b0?[0-7]{2}[2367]\b|[ao]\+\w*w)|umask 0+\b", "chmod 777 x"),
    "writes to a name that others know": (r"(?<![\w.}])/(?:var/)?tmp/\w", "echo x >/tmp/x"),
    "has a secret": (r"PRIVATE KEY-----|(?i:pass(?:word|wd)|token|secret)\s*[:=]\s*[\"'\w]", "TOKEN=abc"),
    "names a mirror in the clear": (
        r"(?<!schema\": \")http://(?!127\.0\.0\.1|\[|(?:[\w-]+\.)*localhost\b|\{)[\w.-]+\.\w{2,}",
        "http://example.org/x",
    ),
}
# Where one of these is right, and why.
EXCUSED = {
    ("debian/tests/service", "trusts whoever answers"): "the certificate is what the package has just made",
    (".ci/test-container", "trusts whoever answers"): "the certificate is what the image has just made",
}


def broken(text: str) -> set[str]:
    """Which of the rules a script breaks."""
    return {name for name, (pattern, _) in FORBIDDEN.items() if re.search(pattern, text, re.MULTILINE)}


@pytest.mark.parametrize("path", EXECUTED)
def test_a_script_keeps_the_rules(path: str) -> None:
    excused = {rule for file, rule in EXCUSED if file == path}
    assert broken((ROOT / path).read_text()) == excused


@pytest.mark.parametrize("rule", FORBIDDEN)
def test_an_example_breaks_its_rule(rule: str) -> None:
    assert rule in broken(FORBIDDEN[rule][1])


def test_pip_installs_the_project_and_what_has_a_bound() -> None:
    """What the Makefile installs beside the project itself, and what debian/rules takes from an index."""
    installed = re.findall(r"-m pip [^\n]*?\binstall (.+)", (ROOT / "Makefile").read_text())
    installed += re.findall(r"\$\(PIP\) install (.+)", (ROOT / "Makefile").read_text())
    assert len(installed) >= 4
    for words in installed:
        assert re.fullmatch(r"--editable (?:\.|'\.\[\$\*\]')|'[\w-]+ >= [\d.]+'", words), words
    assert "--require" in (ROOT / "debian/rules").read_text()


def targets(text: str) -> tuple[set[str], set[str]]:
    """The targets of the Makefile that are no files, and those that it declares so."""
    named = set(re.findall(r"^([a-z][\w-]*):", text, re.MULTILINE))
    phony = {name for line in re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE) for name in line.split()}
    return named, phony


def test_targets_are_no_files_and_help_names_them() -> None:
    text = (ROOT / "Makefile").read_text()
    named, phony = targets(text)
    assert named == phony
    helped = set(re.findall(r"^\t@echo 'make ([\w-]+) ", text, re.MULTILINE))
    assert {name for name in named if not name.startswith("system-")} == {*helped, "help"}


def test_a_script_asks_make_for_targets_that_are_there() -> None:
    named, _ = targets((ROOT / "Makefile").read_text())
    asked = re.findall(r"^\s*make ([\w-]+)", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert {"check", "test"} <= set(asked) <= named
