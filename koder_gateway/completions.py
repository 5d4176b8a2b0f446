"""Completion of the command line in bash, zsh and fish, from the command line itself.

`python -m koder_gateway.completions SHELL` prints the script; packages run it when they are built. It needs shtab,
which the extra `completions` brings.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from .tools import command_line

SHELLS: Final = ("bash", "zsh", "fish")
# The options and arguments whose values are files.
_FILES: Final = ("config", "file", "ca")


def script(shell: str) -> str:
    """The script for one of `SHELLS`."""
    # The command itself does without it.
    import shtab

    parser = _whole_command_line()
    for action in _all_actions(parser):
        if action.dest in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    text: str = shtab.complete(parser, shell=shell)
    return text.rstrip("\n") + "\n"


def main(words: Sequence[str]) -> int:
    """Print the script for a shell; returns the exit code."""
    if len(words) != 1 or words[0] not in SHELLS:
        print(f"usage: python -m koder_gateway.completions {'|'.join(SHELLS)}", file=sys.stderr)
        return 2
    try:
        sys.stdout.write(script(words[0]))
    except ModuleNotFoundError:
        print("shtab is missing; install it: pip install 'koder-gateway[completions]'", file=sys.stderr)
        return 1
    return 0


def _whole_command_line() -> argparse.ArgumentParser:
    """The tools, and `run` with the plugin's options."""
    from .tap import Options

    parser = command_line()
    run = _tools(parser)["run"]
    options = Options()
    short = {name: letter for letter, name in options.synonyms.items() if len(letter) == 1}
    docs = {name: _first_line(text) for name, text in _docs(options)}
    for name in sorted(docs):
        words = [f"--{name}", *([f"-{short[name]}"] if short.get(name) else [])]
        if f"{name}=" in options.longOpt:
            run.add_argument(*words, metavar=name.upper().replace("-", "_"), help=docs[name])
        else:
            run.add_argument(*words, action="store_true", help=docs[name])
    return parser


def _docs(options: Any) -> Iterator[tuple[str, str]]:
    """Each long option of the plugin with its description."""
    described = {flag[0]: flag[-1] for flag in options.optFlags}
    for option in options.longOpt:
        name = option.rstrip("=")
        method: Callable[..., object] | None = getattr(options, f"opt_{name.replace('-', '_')}", None)
        yield name, described.get(name) or (method.__doc__ if method is not None else "") or name


def _first_line(text: str) -> str:
    return " ".join(text.strip().splitlines()[:1])


def _tools(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parser of each tool."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise LookupError("the command line has no tools")


def _all_actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for tool in _tools(parser).values():
        yield from tool._actions


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
