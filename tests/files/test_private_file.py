"""What is written in private is there whole, for its owner, and on the disk."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from koder_gateway.files.private_file import write_private


def test_the_disk_knows_of_the_content_before_the_name_and_of_the_name_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "content")
        sync(descriptor)

    def replaced(old: str, new: Path) -> None:
        steps.append("name")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    write_private(tmp_path / "key", lambda file: file.write(b"secret"))
    assert steps == ["content", "name", "folder"]
    assert (tmp_path / "key").read_bytes() == b"secret"
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")

    def fail(file: object) -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        write_private(path, fail)
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]
