"""`make score`: run every test that proves a case, and write docs/score.md."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .figures import figures

ROOT: Final = Path(__file__).parents[1]
CASES: Final = ROOT / "tests" / "cases.toml"
PAGE: Final = "docs/score.md"
# Tests that `make test-e2e` runs, with what it installs; `make score` would skip them.
_APART: Final = "platform/"

_INTRODUCTION: Final = """\
# Score

What the gateway has to survive, what it does then, and the tests that prove it. `make score` runs these tests and
writes this page; the list is `tests/cases.toml`, and `make test` fails if a case lacks a test, or names one that does
not exist. A test is named by its file below `tests/` and its function; in brackets are words of those parameters that
the case means. Those of `platform` need more and are run by `make test-e2e`. [security.md](security.md) says what is
promised and what is not.

"""


@dataclass(frozen=True, slots=True)
class Proof:
    """A test: its file below tests/, its function, and words in the names of the parameters meant ("": all)."""

    file: str
    name: str
    words: str

    @property
    def node(self) -> str:
        """As pytest calls the function, with all of its parameters."""
        return f"tests/{self.file}::{self.name}"

    def __str__(self) -> str:
        return f"{self.file}::{self.name}" + (f"[{self.words}]" if self.words else "")


@dataclass(frozen=True, slots=True)
class Case:
    """Something that happens, what the gateway does then, and what proves it."""

    case: str
    does: str
    tests: tuple[Proof, ...]


def parse(text: str) -> Proof:
    """A test as it is written in the list; raises ValueError if it is none."""
    file, _, rest = text.partition("::")
    name, bracket, words = rest.partition("[")
    if not name or bool(bracket) != words.endswith("]"):
        raise ValueError(f"{text}: write FILE::NAME or FILE::NAME[WORDS]")
    return Proof(file, name, words.removesuffix("]"))


def chapters() -> dict[str, list[Case]]:
    """The cases of the list, by chapter, in its order."""
    document = tomllib.loads(CASES.read_text())
    return {
        chapter["name"]: [
            Case(each["case"], each["does"], tuple(map(parse, each["tests"]))) for each in chapter["cases"]
        ]
        for chapter in document["chapter"]
    }


def _cell(tests: Iterable[Proof]) -> str:
    return "<br>".join(f"`{test}`" for test in tests)


def _lines() -> Iterator[str]:
    found = chapters()
    cases = [case for each in found.values() for case in each]
    tests = {test.node for case in cases for test in case.tests}
    yield f"{len(cases)} cases, {len(tests)} tests.\n"
    for name, within in found.items():
        yield f"\n## {name}\n\n| case | what the gateway does | tests |\n|---|---|---|\n"
        for case in within:
            yield f"| {case.case} | {case.does} | {_cell(case.tests)} |\n"


def page() -> str:
    """The whole of docs/score.md."""
    return _INTRODUCTION + "".join(_lines()) + figures()


def run(nodes: list[str]) -> int:
    """Run these tests; pytest's exit code."""
    words = [sys.executable, "-m", "pytest", "-q", "--numprocesses", "2", "--dist", "loadfile", *nodes]
    return subprocess.run(words, cwd=ROOT, check=False).returncode


def main() -> int:
    """Write the page if every test passes; the exit code."""
    tests = {test for each in chapters().values() for case in each for test in case.tests}
    nodes = sorted({test.node for test in tests if not test.file.startswith(_APART)})
    if code := run(nodes):
        print(f"score: {PAGE} is left as it was: not every test has passed", file=sys.stderr)
        return code
    (ROOT / PAGE).write_text(page())
    print(f"score: wrote {PAGE}: all of {len(nodes)} tests have passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
