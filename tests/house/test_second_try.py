"""What a run of tests comes to when some of them fail: runs of their own, with and without xdist."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLAKY = """
import pathlib

def fails_once(name):
    tried = pathlib.Path(name)
    if not tried.exists():
        tried.touch()
        raise AssertionError(f"{name} was busy")
"""
ALONE = ()
BESIDE = ("-p", "xdist", "--numprocesses", "2", "--dist", "loadfile")


def run(folder: Path, tests: str, *options: str) -> tuple[int, str]:
    """The exit code and the output of a run of these tests, and of one more file, which passes."""
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\n")
    (folder / "test_given.py").write_text(FLAKY + tests)
    (folder / "test_good.py").write_text("def test_good(): pass\n")
    words = [sys.executable, "-m", "pytest", "-p", "tests.kit.second_try", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("options", [ALONE, BESIDE], ids=["alone", "beside"])
def test_what_fails_once_passes_and_is_named(tmp_path: Path, options: tuple[str, ...]) -> None:
    tests = """
import pytest

@pytest.mark.parametrize("text", ["a - b", "::"])
def test_flaky(text): fails_once(f"tried {len(text)}")

@pytest.fixture
def busy(): fails_once("fixture")

def test_with_fixture(busy): pass
"""
    code, said = run(tmp_path, tests, *options)
    assert code == 0, said
    names = ["test_given.py::test_flaky[a - b]", "test_given.py::test_flaky[::]", "test_given.py::test_with_fixture"]
    line = said.splitlines()[-2]
    assert line.startswith("FLAKY: failed once, passed alone: ")
    assert sorted(line.partition("alone: ")[2].split(", ")) == sorted(names)
    # What was wrong stands above.
    assert "tried 5 was busy" in said.partition("FLAKY")[0]


FAILING = {
    "twice": "def test_it(): assert 1 == 2",
    "after-another": """
state = []

def test_first(): state.append(1)

def test_second(): assert not state
""",
    "in-what-a-file-shares": """
import pytest

@pytest.fixture(scope="module", autouse=True)
def shared():
    yield
    raise AssertionError("left behind")

def test_first(): pass

def test_second(): pass
""",
    "then-skipped": """
import pytest

def test_it():
    if pathlib.Path("skip").exists():
        pytest.skip("not this time")
    fails_once("skip")
""",
}


@pytest.mark.parametrize("tests", FAILING.values(), ids=FAILING)
def test_what_fails_again_fails_the_run(tmp_path: Path, tests: str) -> None:
    code, said = run(tmp_path, tests)
    assert code == 1, said
    assert "once more, alone: test_given.py" in said
    assert said.rstrip().endswith("failed again, or something else in the same file has")


FINAL = {
    "four": (1, "import pytest\n@pytest.mark.parametrize('n', range(4))\ndef test_it(n): fails_once(str(n))", ALONE),
    "uncollected": (2, "fails_once('import')", ALONE),
    "cut-short": (1, "def test_it(): fails_once('it')", ("-x",)),
    "worker-dies": (
        1,
        "import os\ndef test_it():\n    try: fails_once('it')\n    except AssertionError: os._exit(1)",
        BESIDE,
    ),
}


@pytest.mark.parametrize(("code", "tests", "options"), FINAL.values(), ids=FINAL)
def test_what_is_more_than_a_few_failures_fails_at_once(
    tmp_path: Path, code: int, tests: str, options: tuple[str, ...]
) -> None:
    done, said = run(tmp_path, tests, *options)
    assert done == code, said
    assert "once more" not in said


def test_what_passes_is_left_alone(tmp_path: Path) -> None:
    code, said = run(tmp_path, "")
    assert code == 0, said
    assert "once more" not in said
