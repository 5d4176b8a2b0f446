"""What becomes of a pidfile that is there already."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

import pytest

from koder_gateway.ops.pidfile import prepare_pidfile


@pytest.mark.parametrize("content", ["", "\n", "\0\0\0\0\0", " 4194305\n"])
def test_a_pidfile_that_names_no_process_is_replaced(tmp_path: Path, content: str) -> None:
    """No process has a number so high (proc(5), pid_max)."""
    pidfile = tmp_path / "pid"
    twistd = {"pidfile": str(pidfile), "nodaemon": True}
    pidfile.write_text(content)
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        assert prepare_pidfile(twistd, ["--pidfile", str(pidfile)]) is None
    assert not pidfile.exists()
    line = f"koder-gateway: {pidfile}: named no running process, and is replaced\n"
    assert said.getvalue() == ("" if content.strip("\0\n") else line)


@pytest.mark.parametrize("content", ["[tenants]\n", "12 34", "-1", "1" * 40, "\0" * 40 + "text", " " * 100])
def test_a_pidfile_that_is_something_else_is_left_alone(tmp_path: Path, content: str) -> None:
    pidfile = tmp_path / "pid"
    pidfile.write_text(content)
    fault = prepare_pidfile({"pidfile": str(pidfile), "nodaemon": True}, [f"--pidfile={pidfile}"])
    assert fault == f"{pidfile}: is not a pidfile, and is left as it is; name another with --pidfile, or remove it"
    assert pidfile.read_text() == content


def test_a_pidfile_that_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    os.mkfifo(pidfile)
    fault = prepare_pidfile({"pidfile": str(pidfile), "nodaemon": True}, [f"--pidfile={pidfile}"])
    assert fault is not None
    assert ": is not a pidfile, " in fault
