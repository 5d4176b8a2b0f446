"""Every shell command of the pages: those of the quick start are run, the others are parsed by what they call."""

from __future__ import annotations

import ast
import functools
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import koder_gateway
from koder_gateway.tap import Options
from koder_gateway.tools import command_line
from tests.house.test_examples import OPERATIONS, ROOT, blocks, environment, table
from tests.kit.ports import free_ports
from tests.kit.waiting import PATIENCE

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "tests" / "README.md"]
QUICK_START = (ROOT / "docs" / "quick-start.md").read_text()
# What tests do not run, and why. (What `make` is told to do, and the pages' programs, are run by other tests.)
NOT_RUN = {
    ".venv/bin/python": "runs tests",
    "apt": "installs a package as root: debian/test-installed does",
    "certbot": "needs an authority on the Internet",
    "chmod": "of a file in /etc",
    "chown": "of a file in /etc",
    "curl": "the admin port of an installed gateway; other tests ask it",
    "go": "test_context_docs runs it",
    "install": "writes to /etc, or as root",
    "make": "its targets are compared with the Makefile",
    "npm": "make test-e2e runs it",
    "nft": "changes the firewall",
    "node": "test_context_docs runs it",
    "systemctl": "needs systemd",
    "twistd": "test_examples runs it",
}
# What tests run or parse here, and what a shell has itself.
RUN = {"koder-gateway", "openssl", "tail", "cat", "set"}


def commands(block: str) -> Iterator[list[str]]:
    """The words of each simple command of a script without here-documents."""
    for line in block.replace("\\\n", " ").replace("|\n", "| ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars="|&;")
        words.whitespace_split = True
        command: list[str] = []
        for word in words:
            if set(word) <= set("|&;"):
                yield command
                command = []
            else:
                command.append(word)
        if command:
            yield command


COMMANDS = [
    (page.name, command)
    for page in PAGES
    if page.name != "quick-start.md"
    for block in blocks(page.read_text(), "sh")
    for command in commands(block)
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_are_shell(page: Path) -> None:
    for block in blocks(page.read_text(), "sh"):
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, timeout=PATIENCE)
        assert (done.returncode, done.stderr) == (0, ""), block


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_in_blocks_of_shell(page: Path) -> None:
    known = "|".join(map(re.escape, [*NOT_RUN, *RUN]))
    outside = re.sub(r"(?ms)^```\w*\n.*?^```$", "", page.read_text())
    assert re.findall(rf"(?m)^    (?:{known}) .*$", outside) == []


def test_every_command_is_run_or_has_a_reason() -> None:
    called = {command[0] for _, command in COMMANDS}
    assert called - {"jq", "sort", "uniq", "head"} == {*NOT_RUN, *RUN}


@pytest.mark.parametrize(
    "command", [command for _, command in COMMANDS if command[0] == "koder-gateway"], ids=" ".join
)
def test_the_gateways_commands_have_their_options(command: list[str]) -> None:
    """Whatever the command line does not have ends this with its usage."""
    if command[1] == "run":
        Options().parseOptions(command[2:])
    else:
        command_line().parse_args(command[1:])


def test_the_clients_of_an_access_log(tmp_path: Path) -> None:
    (line,) = [line for block in blocks(OPERATIONS, "sh") for line in block.splitlines() if line.startswith("tail ")]
    clients = ["192.0.2.1", "192.0.2.7", "192.0.2.7"]
    (tmp_path / "access.log").write_text("".join(f'{{"client":"{client}"}}\n' for client in clients))
    if shutil.which("jq") is None:
        pytest.skip("needs jq")
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert [row.split() for row in done.stdout.splitlines()] == [["2", "192.0.2.7"], ["1", "192.0.2.1"]]


def test_a_key_that_signs_contexts(tmp_path: Path) -> None:
    (line,) = [" ".join(command) for _, command in COMMANDS if command[0] == "openssl"]
    script = line.replace("/etc/koder-gateway", str(tmp_path))
    done = subprocess.run(["sh", "-c", script], capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0
    assert b"PRIVATE KEY" in (tmp_path / "context.pem").read_bytes()


def follow(script: str, folder: Path) -> tuple[int, str]:
    """Run the script in a new folder; its exit code and output. Whatever fails, nothing is left running."""
    folder.mkdir()
    log = folder / "log"
    with log.open("wb") as output:
        done = subprocess.run(
            ["bash", "-c", f"set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || :' EXIT\n{script}"],
            cwd=folder,
            env=environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=4 * PATIENCE,
        )
    return done.returncode, log.read_text()


@pytest.mark.skipif(not all(map(shutil.which, ("curl", "openssl"))), reason="needs curl and openssl")
def test_the_quick_start_as_it_stands(tmp_path: Path) -> None:
    text = "".join(blocks(QUICK_START, "sh"))
    assert {"8443", "9100", "4001"} <= set(re.findall("[0-9]{4,}", text))
    # Another process may take a port in the meantime.
    for attempt in range(3):
        script = text
        for port, free in zip(("8443", "9100", "4001"), free_ports(3), strict=True):
            script = script.replace(port, str(free))
        code, written = follow(script, tmp_path / str(attempt))
        if "in use" not in written:
            break
    assert (code, "Traceback" in written) == (0, False), written
    lines = written.splitlines()
    assert lines.count('["alice"]') == 2, written
    assert "ready" in lines
    assert "for ip 192.0.2.1" in written
    assert "for ip 203.0.113.9" in written


@functools.cache
def strings() -> tuple[str, ...]:
    """Every string of the sources, and of formatted ones the fixed parts."""
    package = Path(koder_gateway.__file__).parent
    return tuple(
        node.value
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


CHECKLIST = table(OPERATIONS, "what users see")


@pytest.mark.parametrize("row", CHECKLIST, ids=lambda row: row[0])
def test_an_incident_has_evidence_and_something_to_do(row: list[str]) -> None:
    _, metric, line, todo = row
    assert metric
    assert todo.endswith(".")
    for part in re.findall(r"`([^`]+)`", line):
        assert any(part in each for each in strings()), f"nothing logs {part!r}"
