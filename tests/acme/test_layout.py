"""Where things are: what may be the name of a file there, and records as they are read."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.acme.layout import Layout, NameRecord, is_name, is_token, read_record, read_records, stem

LAYOUT = Layout.below(Path("/var/lib/koder-gateway"))
TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"


def test_everything_is_below_one_folder() -> None:
    root = Path("/var/lib/koder-gateway/acme")
    assert all(path == root or root in path.parents for path in LAYOUT.folders)
    assert LAYOUT.certificate("login.example") == root / "certificates" / "login.example.pem"
    assert LAYOUT.http_challenge(TOKEN) == root / "challenges" / "http" / TOKEN


@given(st.text())
def test_no_text_leaves_its_folder(text: str) -> None:
    for path, folder in (
        (LAYOUT.http_challenge(text), LAYOUT.http_challenges),
        (LAYOUT.alpn_challenge(text), LAYOUT.alpn_challenges),
    ):
        assert path is None or path.parent == folder


@pytest.mark.parametrize(
    "text",
    ["", "..", "../account", "a", "localhost", "a..example", "*.a.example", "192.0.2.1", "A.example", "a_b.example"],
)
def test_what_is_no_name(text: str) -> None:
    assert not is_name(text)


@pytest.mark.parametrize("text", ["a.example", "xn--mnchen-3ya.example", "a.b-c.xn--p1ai", "0.example"])
def test_what_is_a_name(text: str) -> None:
    assert is_name(text)


def test_what_is_a_token() -> None:
    assert is_token(TOKEN)
    assert not is_token(TOKEN[:8])
    assert not is_token(f"{TOKEN}/..")


def test_a_name_that_is_too_long_for_a_file_has_one_nevertheless(tmp_path: Path) -> None:
    long = ".".join(["a" * 60] * 4)
    other = ".".join(["a" * 60, "a" * 60, "a" * 60, "a" * 59 + "b"])
    assert is_name(long)
    assert stem(long) != stem(other)
    (tmp_path / f"{stem(long)}.pem.12345678").touch()


def test_a_record_that_was_cut_off_is_none(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.names.mkdir()
    good = NameRecord(name="a.example", first_seen=1.0, state="held", last_fault="leads elsewhere")
    layout.record("a.example").write_bytes(msgspec.json.encode(good))
    layout.record("b.example").write_bytes(msgspec.json.encode(good)[:-3])
    layout.record("c.example").touch()
    assert read_record(layout.record("b.example")) is None
    assert list(read_records(layout)) == [good]


def test_a_record_that_nobody_here_has_written_is_none(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.names.mkdir()
    for record in (
        NameRecord(name="../../x.example", first_seen=1.0),
        NameRecord(name="b.example", first_seen=1.0),
        NameRecord(name="a.example", first_seen=1.0, not_after=1e300),
        NameRecord(name="a.example", first_seen=1.0, window=(1.0, 1e300)),
    ):
        layout.record("a.example").write_bytes(msgspec.json.encode(record))
        assert read_record(layout.record("a.example")) is None
        assert list(read_records(layout)) == []
