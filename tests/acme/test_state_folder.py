"""The folder of the state: who may read it, what a sudden end leaves, and what a full disk says."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from koder_gateway.acme.layout import Layout, NameRecord
from koder_gateway.acme.order_plan import Pace
from koder_gateway.acme.state_folder import StateFolder
from koder_gateway.acme.storage import Account, Challenge, StorageError

DIRECTORY = "https://acme.example/directory"
TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    return StateFolder(Layout(tmp_path / "acme"), "me")


def test_only_its_owner_reads_it(folder: StateFolder) -> None:
    folder.keep_account(DIRECTORY, Account(key={"d": "x"}))
    folder.keep_certificate("a.example", b"key")
    folder.keep_order_key("a.example", b"key")
    folder.keep_record(NameRecord(name="a.example", first_seen=1.0))
    folder.answer(Challenge(TOKEN, "a.example", b"authorization"))
    folder.answer(Challenge("", "a.example", b"key"))
    assert folder.lead(1.0)
    for path in [folder.layout.root, *folder.layout.root.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_what_is_kept_is_there(folder: StateFolder) -> None:
    account = Account(key={"kty": "EC"}, url="https://acme.example/1", bound="kid")
    folder.keep_account(DIRECTORY, account)
    folder.keep_pace(Pace(times=[1.0], paused_until=2.0, failures=3, reason="away"))
    again = StateFolder(folder.layout, "me")
    assert again.account(DIRECTORY) == account
    assert again.account("https://other.example/directory") is None
    assert again.pace().failures == 3


def test_a_change_of_certificates_is_noticed(folder: StateFolder) -> None:
    versions = set()
    folder.keep_certificate("a.example", b"1")
    versions.add(folder.layout.version.read_bytes())
    folder.keep_certificate("a.example", b"2")
    versions.add(folder.layout.version.read_bytes())
    folder.forget_certificate("a.example")
    versions.add(folder.layout.version.read_bytes())
    assert len(versions) == 3


@pytest.mark.parametrize("what", ["account", "pace"])
def test_what_was_cut_off_is_lost(folder: StateFolder, what: str) -> None:
    path = folder.layout.account(DIRECTORY) if what == "account" else folder.layout.rate
    path.write_bytes(b'{"key":{"kty"')
    assert folder.account(DIRECTORY) is None
    assert folder.pace() == Pace()


def test_a_token_that_is_a_path_is_refused(folder: StateFolder) -> None:
    with pytest.raises(StorageError, match="token"):
        folder.answer(Challenge("../../../../etc/passwd", "a.example", b""))


def test_what_a_sudden_end_has_left_is_removed(folder: StateFolder) -> None:
    layout = folder.layout
    folder.answer(Challenge(TOKEN, "a.example", b"old"))
    folder.keep_certificate("a.example", b"stays")
    (layout.certificates / "a.example.pemabcdefgh").write_bytes(b"half")
    folder.tidy(layout.version.stat().st_mtime + 60)
    assert (layout.http_challenges / TOKEN).exists()
    folder.tidy(layout.version.stat().st_mtime + 4000)
    assert not (layout.http_challenges / TOKEN).exists()
    assert sorted(path.name for path in layout.certificates.iterdir()) == [".version", "a.example.pem"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "acme").write_text("a file")
    with pytest.raises(StorageError, match="acme: ") as told:
        StateFolder(Layout(tmp_path / "acme"), "me")
    assert told.value.advice.startswith("make room")


def test_a_failed_write_leaves_what_was(folder: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.keep_certificate("a.example", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        folder.keep_certificate("a.example", b"new")
    assert folder.certificate("a.example") == b"old"
    assert [path.name for path in folder.layout.certificates.glob("*.pem*")] == ["a.example.pem"]


def test_a_folder_that_is_open_to_others_is_closed(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "acme")
    StateFolder(layout, "me")
    layout.root.chmod(0o777)
    layout.certificates.chmod(0o755)
    StateFolder(layout, "me")
    assert [stat.S_IMODE(each.stat().st_mode) for each in layout.folders] == [0o700] * len(layout.folders)


def test_a_pipe_stops_nothing(folder: StateFolder) -> None:
    os.mkfifo(folder.layout.certificate("a.example"))
    os.mkfifo(folder.layout.record("a.example"))
    assert list(folder.records()) == []
    with pytest.raises(StorageError, match=r"a\.example\.pem: is not a regular file; remove it"):
        folder.certificate("a.example")
