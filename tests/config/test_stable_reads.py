"""Looks at a file that may be half written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from koder_gateway.config import ConfigurationError, ListContext, StableReading, file_version, read_tenants
from koder_gateway.config.stable_reads import LOOKS, SETTLE
from koder_gateway.policy.tenants import Tenant
from tests.kit.tenants import in_order

BASE = "id.koder.dev"
WHOLE = '[[tenant]]\nslug = "a"\nstatus = "suspended"\n'
CUT = WHOLE[: WHOLE.index("status")]
SUSPENDED = (Tenant("a", (), "suspended"),)


class Writer:
    """Waits for a reader, and does the next thing to the file each time."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self._steps = list(steps)
        self.waited: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.waited.append(seconds)
        if self._steps:
            self._steps.pop(0)()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tenants.toml"


def read(path: Path, caution: StableReading | None) -> tuple[Tenant, ...]:
    return in_order(read_tenants(path, str(path), ListContext(BASE), caution)[0].registry)


def test_without_caution_one_look_is_enough(path: Path) -> None:
    path.write_text(CUT)
    assert read(path, None) == (Tenant("a"),)


def test_what_is_known_is_read_without_waiting(path: Path) -> None:
    path.write_text(WHOLE)
    writer = Writer()
    assert read(path, StableReading(file_version(path), writer)) == SUSPENDED
    assert writer.waited == []


def test_a_half_written_file_is_waited_for(path: Path) -> None:
    path.write_text(CUT)
    writer = Writer(lambda: path.write_text(WHOLE[:-3]), lambda: path.write_text(WHOLE))
    assert read(path, StableReading(None, writer)) == SUSPENDED
    assert writer.waited == [SETTLE] * 3


def test_a_file_that_is_removed_and_made_anew_is_waited_for(path: Path) -> None:
    path.write_text(CUT)
    writer = Writer(path.unlink, lambda: path.write_text(CUT), lambda: path.write_text(WHOLE))
    assert read(path, StableReading(None, writer)) == SUSPENDED


@pytest.mark.parametrize("what", ["contents", "date", "file"])
def test_looks_agree_on_everything(what: str, path: Path) -> None:
    path.write_text(CUT + "#" * (len(WHOLE) - len(CUT)))
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)

    def change() -> None:
        if what == "contents":
            path.write_text(WHOLE)
            os.utime(path, ns=times)
        elif what == "date":
            os.utime(path, ns=(times[0], times[1] + 1))
        else:
            fresh = path.with_suffix(".new")
            fresh.write_bytes(path.read_bytes())
            os.utime(fresh, ns=times)
            fresh.replace(path)

    writer = Writer(change)
    read(path, StableReading(None, writer))
    assert len(writer.waited) == 2


def test_a_file_that_never_settles_is_refused(path: Path) -> None:
    path.write_text(WHOLE)

    def longer() -> None:
        with path.open("a") as file:
            file.write("# more\n")

    writer = Writer(*[longer] * LOOKS)
    with pytest.raises(ConfigurationError, match="is still being written"):
        read(path, StableReading(None, writer))
    assert len(writer.waited) == LOOKS - 1
