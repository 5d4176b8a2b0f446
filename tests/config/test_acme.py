"""`[acme]`: what may be written there, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from koder_gateway.config import ConfigurationError, acme_port_fault, load, warning_lines
from koder_gateway.config.settings import Settings

TERMS = "accept_terms = true\n"
STORE = 'storage = "store"\n'
GOOD = 'directory = "https://acme.example/directory"\n' + TERMS


def read(folder: Path, text: str) -> Settings:
    file = folder / "koder-gateway.toml"
    file.write_text(f"[acme]\n{text}\n")
    return load(file)


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(folder, text)
    return [line.partition(": ")[2] for line in caught.value.faults]


def test_it_is_off_by_default(tmp_path: Path) -> None:
    acme = read(tmp_path, "").acme
    assert (acme.directory, acme.rate, acme.challenge, acme.keys) == (None, 50, "tls-alpn-01", "ecdsa")


def test_the_whole_section(tmp_path: Path) -> None:
    (tmp_path / "mac").write_text("zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W\n")
    (tmp_path / "key").write_text("00" * 31 + "ff\n")
    text = GOOD + (
        'contact = ["operations@example.com"]\nchallenge = "http-01"\nnames = ["ID.example.com"]\nkeys = "rsa"\n'
        'eab = { key_id = "kid-1", key_file = "mac" }\nrate = 7\nresolver = "[2001:db8::1]:5353"\ncheck_port = 8443\n'
        'profile = "shortlived"\nstorage = "store"\nstorage_key_file = "key"\n[limits_store]\nurl = "redis://h"'
    )
    acme = read(tmp_path, text).acme
    assert acme.eab is not None
    assert acme.eab.key.value.startswith(b"\xcd\x63\x43")
    assert acme.names == ("id.example.com",)
    assert acme.resolver == ("2001:db8::1", 5353)
    assert acme.storage_key_file is not None
    assert acme.storage_key_file.value[-1] == 255


def test_no_secret_is_shown(tmp_path: Path) -> None:
    (tmp_path / "mac").write_text("aHVudGVyMi1odW50ZXIyLWh1bnRlcjI\n")
    acme = read(tmp_path, GOOD + 'eab = { key_id = "k", key_file = "mac" }').acme
    assert "hunter2" not in repr(acme)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            TERMS + 'directory = "acme.example"',
            'acme.directory: "acme.example" is not https, which ACME needs; write one as in',
        ),
        (TERMS + 'directory = "http://acme.example/d"', "is not https, which ACME needs"),
        (
            TERMS + 'directory = "https://u:p@h/d"',
            "has a user or a password in it; accounts with an authority are bound by eab",
        ),
        (TERMS + 'directory = "https://h/d?x=1"', "has a query or a fragment"),
        (TERMS + 'directory = "https://"', "has no usable host"),
        ('directory = "https://h/d"', "acme.accept_terms: must be true: read the authority's terms of service"),
        (GOOD + 'contact = ["mailto:a@example.com"]', 'has a scheme; write the address alone, "a@example.com"'),
        (GOOD + 'contact = ["nobody"]', "is not an e-mail address; write one as in"),
        (
            GOOD + 'names = ["*.example.com"]',
            "is a wildcard, which needs an entry in DNS; put its certificate into tls.",
        ),
        (GOOD + 'names = ["localhost"]', "has one label only, and no public authority issues for that; leave it out"),
        (GOOD + 'names = ["a_b.example"]', "has a _ in it, and no public authority issues for that"),
        (
            GOOD + 'names = ["münchen.example"]',
            'is not ASCII, as a Host header must be; write "xn--mnchen-3ya.example"',
        ),
        (GOOD + 'challenge = "dns-01"', 'acme.challenge: "dns-01" is not an accepted value'),
        (GOOD + 'keys = "ed25519"', 'acme.keys: "ed25519" is not an accepted value'),
        (GOOD + 'eab = { key_id = "k" }', "acme.eab.key_file: is missing, and key_id needs it"),
        (GOOD + 'eab = { key_file = "koder-gateway.toml" }', "acme.eab.key_file: "),
        (GOOD + "rate = 0", "acme.rate: 0 is out of range; write 1 to 100000"),
        (GOOD + 'resolver = "ns.example"', 'acme.resolver: "ns.example" is not a name server; write its address'),
        (GOOD + 'resolver = "192.0.2.1:0"', "is not a name server"),
        (GOOD + "check_port = 70000", "acme.check_port: 70000 is out of range"),
        (
            GOOD + STORE + 'storage_key_file = "koder-gateway.toml"\n[limits_store]\nurl = "redis://h"',
            "has not one line with a key; make one with: openssl",
        ),
        ('names = ["a.example"]', "acme.names: has no effect without a directory; write that too, or leave it out"),
        (GOOD + 'profile = "a b"', 'is not the name of a profile; write one as in "shortlived"'),
    ],
)
def test_a_fault_says_what_would_be_right(tmp_path: Path, text: str, says: str) -> None:
    (line,) = faults(tmp_path, text)
    assert says in line


def test_every_fault_at_once(tmp_path: Path) -> None:
    lines = faults(tmp_path, 'directory = "h"\nrate = 0\nnames = ["*.example.com", "localhost"]\nstorage = "store"')
    assert [line.partition(":")[0] for line in lines] == [
        "acme.directory",
        "acme.names[0]",
        "acme.names[1]",
        "acme.rate",
        "acme.accept_terms",
        "acme.storage_key_file",
        "acme.storage",
    ]


def test_a_shared_storage_needs_a_shared_store(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("00" * 32)
    lines = faults(tmp_path, GOOD + 'storage = "store"\nstorage_key_file = "key"')
    assert lines == ['acme.storage: "store" needs a Redis that gateways share; write limits_store.url, or "folder"']


def test_a_challenge_over_http_needs_a_port(tmp_path: Path) -> None:
    acme = read(tmp_path, GOOD + 'challenge = "http-01"').acme
    assert "there is none; write listen.redirect_port" in (acme_port_fault(acme, False) or "")
    assert acme_port_fault(acme, True) is None
    assert acme_port_fault(read(tmp_path, GOOD).acme, False) is None


def test_a_key_that_everybody_can_read_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("00" * 32)
    file.chmod(0o644)
    text = GOOD + 'storage = "store"\nstorage_key_file = "key"\n[limits_store]\nurl = "redis://h"'
    (line,) = [each for each in warning_lines(read(tmp_path, text)) if "acme" in each]
    assert "can be read by every user; run chmod o-r" in line
    file.chmod(0o640)
    assert not [each for each in warning_lines(read(tmp_path, text)) if "acme" in each]
