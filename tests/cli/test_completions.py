"""Completion of the command line: what a shell offers is what the command accepts."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from koder_gateway.completions import SHELLS, main, script
from koder_gateway.tap import Options

TOOLS = {"run", "check", "explain", "limits", "certificates", "reload", "ready", "version"}
# What a shell is asked, and some of what it has to offer.
ASKED = [
    (["koder-gateway", ""], TOOLS),
    (["koder-gateway", "ce"], {"certificates"}),
    (["koder-gateway", "check", "--"], {"--config", "--json", "--live", "--quiet", "--tenant"}),
    (["koder-gateway", "run", "--"], {f"--{name.rstrip('=')}" for name in Options().longOpt}),
    (["koder-gateway", "certificates", "--d"], {"--days"}),
]


def named(words: list[str] | set[str]) -> str:
    """A test's name, the same in every process."""
    return " ".join(words if isinstance(words, list) else sorted(words))


BASH = r"""
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
$(complete -p koder-gateway | sed -E 's/.* -F (\S+) .*/\1/') koder-gateway "${!#}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The file of each shell's script."""
    folder = tmp_path_factory.mktemp("completions")
    made = {shell: folder / shell for shell in SHELLS}
    for shell, path in made.items():
        path.write_text(script(shell))
    return made


def said(*words: object) -> list[str]:
    """The lines that a command writes."""
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.splitlines()


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
@pytest.mark.parametrize(("words", "offered"), ASKED, ids=named)
def test_bash_offers_it(scripts: dict[str, Path], words: list[str], offered: set[str]) -> None:
    assert offered <= set(said("bash", "--norc", "-c", BASH, "bash", scripts["bash"], *words))


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
@pytest.mark.parametrize(("words", "offered"), ASKED, ids=named)
def test_fish_offers_it(
    scripts: dict[str, Path], words: list[str], offered: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    lines = said("fish", "--no-config", "-c", f"source {scripts['fish']}; complete -C '{' '.join(words)}'")
    assert offered <= {line.partition("\t")[0] for line in lines}


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
def test_zsh_reads_it(scripts: dict[str, Path], tmp_path: Path) -> None:
    """Its completion needs a terminal: here the script is loaded, and found for the command."""
    (tmp_path / "_koder-gateway").write_text(scripts["zsh"].read_text())
    load = f"fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -u -d {tmp_path}/dump"
    lines = said(
        "zsh", "-f", "-c", f"{load}; print $_comps[koder-gateway]; autoload +X -Uz _koder-gateway && print ok"
    )
    assert lines == ["_koder-gateway", "ok"]
    said("zsh", "-f", "-n", scripts["zsh"])


@pytest.mark.parametrize("shell", SHELLS)
def test_each_script_has_every_tool_and_option(scripts: dict[str, Path], shell: str) -> None:
    text = scripts[shell].read_text()
    assert {tool for tool in TOOLS if not re.search(rf"\b{tool}\b", text)} == set()
    dashes = "-l " if shell == "fish" else "--"
    for option in ("quiet", "days", "admin-port", "redirect-port", "workers", "within", "pid"):
        assert f"{dashes}{option}" in text, option


@pytest.mark.parametrize("words", [[], ["tcsh"], ["bash", "zsh"]])
def test_another_shell_is_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err == "usage: python -m koder_gateway.completions bash|zsh|fish\n"


def test_the_command_prints_the_script(scripts: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fish"]) == 0
    assert capsys.readouterr().out == scripts["fish"].read_text()
