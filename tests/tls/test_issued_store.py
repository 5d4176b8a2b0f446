"""Issued certificates beside the operator's: who wins, what a look costs, and what a fault does."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from koder_gateway.acme.layout import Layout
from koder_gateway.tls import issued_store
from koder_gateway.tls.certificate_store import CertificateStore, OwnCertificateStore
from koder_gateway.tls.folder import folder_location
from koder_gateway.tls.issued_store import IssuedStore, LayeredStore
from tests.kit.certificates import NOW, certificate_pem, key_pem


class Authority:
    """The ACME process, as far as its files go."""

    def __init__(self, state):
        self.layout = Layout.below(state)
        for folder in self.layout.folders:
            folder.mkdir(parents=True)

    def issue(self, *names, data=None, **options):
        """Put a certificate in place, as its writer does."""
        key = ec.generate_private_key(ec.SECP256R1())
        path = self.layout.certificate(names[0])
        other = path.with_name(f"{path.name}new")
        other.write_bytes(key_pem(key) + certificate_pem(key, *names, **options) if data is None else data)
        os.replace(other, path)
        self.touch()
        return path

    def touch(self):
        other = self.layout.certificates / ".version-new"
        other.write_text("1")
        os.replace(other, self.layout.version)


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "state")


@pytest.fixture
def operators(tmp_path):
    """The operator's folder, with a certificate for id.test and its subdomains."""
    folder = tmp_path / "certs"
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    (folder / "id.pem").write_bytes(key_pem(key) + certificate_pem(key, "id.test", "*.id.test"))
    return folder


def layered(operators, authority):
    return LayeredStore(CertificateStore(folder_location(operators)), IssuedStore(authority.layout))


def found(names, name):
    certificate = names.find(name)
    return None if certificate is None else str(certificate.path)


def test_names_that_the_operator_has_none_for_get_an_issued_one(operators, authority):
    path = authority.issue("login.example")
    names, warnings = layered(operators, authority).open(NOW)
    assert found(names, b"login.example") == found(names, b"LOGIN.example") == str(path)
    assert names.default.name == "id"
    assert names.find(b"other.example") is None
    assert warnings == []
    assert {each.name for each in names.certificates} == {"id", "login.example"}


@pytest.mark.parametrize("name", ["id.test", "a.id.test"])
def test_the_operator_s_certificate_wins_also_by_its_wildcard(operators, authority, name):
    authority.issue(name, days=300)
    names, _ = layered(operators, authority).open(NOW)
    assert found(names, name.encode()) == str(operators / "id.pem")


def test_without_the_operator_s_the_base_domain_s_is_the_default(authority, tmp_path):
    store = LayeredStore(
        OwnCertificateStore(tmp_path / "own", "id.test"), IssuedStore(authority.layout), own="id.test"
    )
    names, warnings = store.open(NOW)
    assert names.default.name == "id.test"
    assert "self-signed" in warnings[0]
    path = authority.issue("id.test")
    look = store.look(NOW)
    assert look.names.default.path == path
    assert found(look.names, b"id.test") == str(path)
    # A subdomain has the self-signed one, which no client trusts, but which is for that name.
    assert found(look.names, b"a.id.test") != str(path)


def test_nobody_is_told_of_a_self_signed_one_that_no_longer_is_the_default(authority, tmp_path):
    authority.issue("id.test")
    own = OwnCertificateStore(tmp_path / "own", "id.test")
    _, warnings = LayeredStore(own, IssuedStore(authority.layout), own="id.test").open(NOW)
    assert warnings == []


def test_changes_are_seen_at_the_next_look(operators, authority):
    store = layered(operators, authority)
    names, _ = store.open(NOW)
    assert names.find(b"login.example") is None
    first = authority.issue("login.example")
    look = store.look(NOW)
    before = look.names.find(b"login.example")
    assert before.path == first
    assert store.look(NOW).names is None
    authority.issue("login.example", days=200)
    after = store.look(NOW).names.find(b"login.example")
    assert after.expires > before.expires
    first.unlink()
    authority.touch()
    assert store.look(NOW).names.find(b"login.example") is None


def test_what_is_not_new_stays_the_same_object(operators, authority):
    """Its context stays too, then."""
    authority.issue("one.example")
    store = layered(operators, authority)
    before, _ = store.open(NOW)
    authority.issue("two.example")
    after = store.look(NOW).names
    assert after.find(b"one.example") is before.find(b"one.example")


def test_a_look_at_what_is_unchanged_is_one_call_of_the_kernel(authority, monkeypatch):
    for number in range(3):
        authority.issue(f"n{number}.example")
    store = IssuedStore(authority.layout)
    assert store.look(NOW, settled=True).changed

    def refuse(path):
        raise AssertionError("the folder was listed")

    monkeypatch.setattr(issued_store.os, "scandir", refuse)
    assert not store.look(NOW).changed


def test_only_what_has_changed_is_read(authority, monkeypatch):
    for number in range(3):
        authority.issue(f"n{number}.example")
    store = IssuedStore(authority.layout)
    store.look(NOW, settled=True)
    read = []
    reader = store._reader.read
    monkeypatch.setattr(store._reader, "read", lambda name, *files: read.append(name) or reader(name, *files))
    authority.issue("n1.example")
    assert store.look(NOW).changed
    assert read == ["n1.example"]


def test_a_certificate_that_cannot_be_used_is_one_line_and_stops_nothing(operators, authority):
    good = authority.issue("good.example")
    bad = authority.issue("bad.example", data=b"rubbish")
    store = layered(operators, authority)
    names, warnings = store.open(NOW)
    assert names.find(b"good.example").path == good
    assert len(warnings) == 1
    assert str(bad) in warnings[0]
    authority.touch()
    look = store.look(NOW)
    assert (look.errors, look.faulty) == ([], 1)
    assert len(store.look(NOW, settled=True).errors) == 1
    authority.issue("bad.example")
    look = store.look(NOW)
    assert look.restored == [f"{bad}: can be used again"]
    assert look.faulty == 0
    assert look.names.find(b"bad.example").path == bad


def test_a_bad_renewal_leaves_the_previous_one(operators, authority):
    path = authority.issue("login.example")
    store = layered(operators, authority)
    store.open(NOW)
    authority.issue("login.example", data=b"rubbish")
    (line,) = store.look(NOW).errors
    assert line.endswith("; the previous one stays")
    authority.issue("more.example")
    assert store.look(NOW).names.find(b"login.example").path == path


def test_a_folder_that_is_not_there_yet_is_no_fault(operators, tmp_path):
    store = LayeredStore(CertificateStore(folder_location(operators)), IssuedStore(Layout.below(tmp_path / "new")))
    names, warnings = store.open(NOW)
    assert names.default.name == "id"
    assert warnings == []
    Authority(tmp_path / "new").issue("login.example")
    assert store.look(NOW).names.find(b"login.example") is not None


def test_a_folder_that_is_gone_leaves_the_previous_ones(operators, authority):
    authority.issue("login.example")
    store = layered(operators, authority)
    store.open(NOW)
    authority.layout.certificates.rename(authority.layout.root / "elsewhere")
    look = store.look(NOW)
    assert look.names is None
    assert (len(look.errors), look.faulty) == (1, 1)
    assert store.look(NOW).errors == []
    (authority.layout.root / "elsewhere").rename(authority.layout.certificates)
    look = store.look(NOW)
    assert (look.names, look.faulty) == (None, 0)


def test_the_operator_s_changes_are_seen_too(operators, authority):
    authority.issue("login.example")
    store = layered(operators, authority)
    store.open(NOW)
    key = ec.generate_private_key(ec.SECP256R1())
    (operators / "login.pem").write_bytes(key_pem(key) + certificate_pem(key, "login.example"))
    names = store.look(NOW).names
    assert names.find(b"login.example").path == operators / "login.pem"
    assert store.operators.find(b"login.example") is not None


def test_one_that_is_not_valid_yet_takes_over_when_it_is(authority):
    store = IssuedStore(authority.layout)
    authority.issue("login.example", start=NOW + 10)
    store.look(NOW)
    assert not store.look(NOW + 5).changed
    assert store.look(NOW + 11).changed


def test_a_look_that_was_stopped_changes_nothing_it_has_not_read(authority):
    authority.issue("login.example")
    store = IssuedStore(authority.layout)
    store.stop()
    assert not store.look(NOW, settled=True).changed
