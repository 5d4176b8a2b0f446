"""A second try for the few tests of a run that fail, when nothing runs beside them; a pytest plugin.

`-p tests.kit.second_try` for `make test`, `make test-acme` and `make test-e2e`. A test may fail once because the
machine was busy with others. That is a fault, of the test or of what it tests, but not always one of the change at
hand. So at the end of a run the files of at most `MOST` failed tests run once more, alone. The run then passes if all
of their tests do, and its last lines name those that had failed. The whole file runs: what fails only after other
tests of it, or in what they share, fails there as well.

Everything else fails the run at once: more such tests, what cannot be collected, a worker that dies, a run that was
cut short.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator

import pytest

MOST = 3
_PARTS = ("setup", "call", "teardown")


class SecondTry:
    """The failures of one run, and what becomes of them."""

    def __init__(self, config: pytest.Config) -> None:
        self._folder = config.invocation_params.dir
        self._failed: dict[str, None] = {}
        self._final = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A part of a test has ended; xdist reports the death of a worker as a test without parts."""
        if report.failed:
            self._failed[report.nodeid] = None
            self._final = self._final or report.when not in _PARTS

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file has been collected."""
        self._final = self._final or report.failed

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, None, None]:
        """After the summary, when the workers of xdist have ended."""
        yield
        cut_short = session.shouldfail or session.shouldstop
        if session.exitstatus != pytest.ExitCode.TESTS_FAILED or self._final or cut_short:
            return
        if 0 < len(self._failed) <= MOST and self._pass_alone():
            session.exitstatus = pytest.ExitCode.OK

    def _pass_alone(self) -> bool:
        files = list(dict.fromkeys(name.partition("::")[0] for name in self._failed))
        print(f"\nonce more, alone: {' '.join(files)}", flush=True)
        words = [sys.executable, "-m", "pytest", "--color=no", "-rfEp", *files]
        done = subprocess.run(words, cwd=self._folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        # One that is skipped this time has not passed.
        passed = {line.removeprefix("PASSED ") for line in done.stdout.splitlines()}
        if done.returncode or not self._failed.keys() <= passed:
            print(f"{done.stdout}\nfailed again, or something else in the same file has", flush=True)
            return False
        print(f"FLAKY: failed once, passed alone: {', '.join(self._failed)}", flush=True)
        print("Each is a fault to mend, see tests/README.md. How it failed stands above.", flush=True)
        return True


def pytest_configure(config: pytest.Config) -> None:
    """Watch the run, unless this is a worker of xdist, whose reports the main process gets."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(SecondTry(config), "second-try")
