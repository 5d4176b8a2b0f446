"""docs/score.md: each case that the gateway must survive has tests that prove it, and each of them is there."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

from reference.score import CASES, ROOT, Proof, chapters, main, page, parse

FOUND = chapters()
TESTS = sorted({test for cases in FOUND.values() for case in cases for test in case.tests}, key=str)


@functools.cache
def functions(file: str) -> set[str]:
    """The tests of a file, as the list names them."""
    path = ROOT / "tests" / file
    tree = ast.parse(path.read_text()) if path.exists() else ast.Module([], [])
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {node.name for node in tree.body if isinstance(node, kinds) and node.name.startswith("test_")}


@pytest.mark.parametrize("test", TESTS, ids=str)
def test_what_proves_a_case_is_there(test: Proof) -> None:
    assert test.name in functions(test.file), f"tests/cases.toml: {test} is not there; name the test that proves it"


def whole_files(config: pytest.Config) -> bool:
    """Whether this run has collected files as a whole."""
    return not config.option.keyword and not any("::" in each for each in config.args)


def test_parameters_that_a_case_means_are_there(request: pytest.FixtureRequest) -> None:
    """Of the files that this run has collected: all of them in `make test`."""
    if not whole_files(request.config):
        pytest.skip("only a part of the files was collected")
    names: dict[str, list[str]] = {}
    for item in request.session.items:
        function, _, words = item.nodeid.partition("[")
        names.setdefault(function, []).append(words)
    collected = {node.partition("::")[0] for node in names}
    wanted = [test for test in TESTS if test.node.partition("::")[0] in collected]
    missing = [test for test in wanted if not any(test.words in words for words in names.get(test.node, []))]
    assert [str(test) for test in missing] == []


def test_every_case_has_a_test_and_says_what_happens() -> None:
    cases = [case for within in FOUND.values() for case in within]
    assert all(case.tests and case.does for case in cases)
    assert len({case.case for case in cases}) == len(cases) >= 100
    assert all("|" not in f"{case.case}{case.does}" for case in cases)
    for case in cases:
        assert len(set(case.tests)) == len(case.tests), case.case


def test_every_chapter_is_on_the_page() -> None:
    text = page()
    assert all(f"\n## {name}\n" in text for name in FOUND)
    assert "\n## Figures of this release\n" in text
    assert text.count("`tests/cases.toml`") == 1


@pytest.mark.parametrize("text", ["", "a.py", "a.py::", "a.py::test_a[b", "a.py::test_ab]c["])
def test_what_is_no_test_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="write FILE::NAME or"):
        parse(text)


def test_a_test_is_read_as_it_is_written() -> None:
    for text in ("a/test_b.py::test_c", "a/test_b.py::test_c[two words/of it]"):
        assert str(parse(text)) == text
    assert parse("a/test_b.py::test_c[two words]").node == "tests/a/test_b.py::test_c"


@pytest.mark.parametrize("code", [0, 1])
def test_the_page_is_written_once_every_test_has_passed(
    code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("reference.score.ROOT", tmp_path)
    monkeypatch.setattr("reference.score.run", lambda nodes: asked.extend(nodes) or code)
    written = tmp_path / "docs" / "score.md"
    written.parent.mkdir()
    assert main() == code
    assert asked == sorted({test.node for test in TESTS if not test.file.startswith("platform/")})
    assert written.exists() == (code == 0)


def test_the_list_says_what_it_is() -> None:
    assert CASES.read_text().startswith("# What the gateway must survive, what it does, and the tests that prove it.")
