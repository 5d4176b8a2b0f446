"""Certificates on disk as they change: what is whole is taken, what is not leaves what was, and is said once."""

from __future__ import annotations

import datetime
import os
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from koder_gateway.tls.certificate_store import CertificateStore, OwnCertificateStore
from koder_gateway.tls.certificates import DAY, CertificateError, self_signed
from koder_gateway.tls.folder import files_location, folder_location
from tests.kit.certificates import NOW, certificate_pem, key_pem

STAYS = "; the previous one stays"


def issue(*names: str, key=None, start=NOW - DAY, days=90) -> bytes:
    """Key and certificate in PEM."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    return key_pem(key) + certificate_pem(key, *names, start=start, days=days)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "certs"
    folder.mkdir()
    (folder / "a.pem").write_bytes(issue("a.example"))
    (folder / "b.pem").write_bytes(issue("b.example"))
    return folder


def shelf_of(folder: Path, default: str = "") -> CertificateStore:
    """A store that has been opened, without warnings."""
    store = CertificateStore(folder_location(folder), default)
    _, warnings = store.open(NOW)
    assert warnings == []
    return store


def served(look) -> list[str]:
    return [certificate.name for certificate in look.names.certificates]


def quiet(look) -> bool:
    """Whether a look has found nothing to serve or say."""
    return (look.names, look.errors, look.warnings) == (None, [], [])


def test_what_does_not_change_is_not_read_again(folder):
    store = shelf_of(folder)
    names = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    for _ in range(3):
        look = store.look(NOW)
        assert quiet(look)
        assert not look.unsettled
    assert names == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.mark.parametrize("settled", [False, True])
def test_a_new_and_a_changed_certificate_are_taken_and_the_others_stay_the_same(folder, settled):
    store = shelf_of(folder)
    before = store.look(NOW, settled=True).names or store._served
    (folder / "c.pem").write_bytes(issue("c.example"))
    (folder / "b.pem").write_bytes(issue("b.example", "new.example"))
    look = store.look(NOW, settled)
    assert served(look) == ["a", "b", "c"]
    assert look.names.find(b"new.example").name == "b"
    assert look.names.certificates[0] is before.certificates[0]
    assert look.errors == []
    assert quiet(store.look(NOW))


def test_a_copy_that_keeps_the_time_and_the_size_is_seen(folder):
    store = shelf_of(folder)
    path = folder / "a.pem"
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"-----BEGIN C", b"-----BEGIN c"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert store.look(NOW).unsettled


def test_a_file_that_was_only_touched_changes_nothing(folder):
    store = shelf_of(folder)
    os.utime(folder / "a.pem")
    assert quiet(store.look(NOW))
    assert quiet(store.look(NOW, settled=True))


def test_what_is_gone_is_forgotten_at_the_second_look(folder):
    store = shelf_of(folder)
    content = (folder / "b.pem").read_bytes()
    (folder / "b.pem").unlink()
    look = store.look(NOW)
    assert quiet(look)
    assert look.unsettled
    (folder / "b.pem").write_bytes(content)
    assert quiet(store.look(NOW)), "it was only being replaced"
    (folder / "b.pem").unlink()
    assert quiet(store.look(NOW))
    assert served(store.look(NOW)) == ["a"]
    assert quiet(store.look(NOW))


def test_what_is_gone_is_forgotten_at_once_when_somebody_says_so(folder):
    store = shelf_of(folder)
    (folder / "b.pem").unlink()
    assert served(store.look(NOW, settled=True)) == ["a"]


@pytest.mark.parametrize("order", ["key first", "certificate first"])
def test_two_files_that_are_written_one_after_the_other_are_taken_when_they_fit(tmp_path, order):
    folder = tmp_path / "certs"
    folder.mkdir()
    old, new = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    (folder / "a.key").write_bytes(key_pem(old))
    (folder / "a.crt").write_bytes(certificate_pem(old, "a.example"))
    store = shelf_of(folder)
    writes = [
        lambda: (folder / "a.key").write_bytes(key_pem(new)),
        lambda: (folder / "a.crt").write_bytes(certificate_pem(new, "a.example", "new.example")),
    ]
    first, second = writes if order == "key first" else reversed(writes)
    first()
    look = store.look(NOW)
    assert quiet(look), "nothing is said of what may be finished in a moment"
    assert (look.unsettled, look.faulty) == (True, 1)
    second()
    look = store.look(NOW)
    assert look.names.find(b"new.example")
    assert (look.errors, look.faulty, look.unsettled) == ([], 0, False)


def test_a_half_written_file_keeps_the_old_one_and_a_fault_is_said_once(folder):
    store = shelf_of(folder)
    path = folder / "a.pem"
    whole = issue("a.example", "new.example")
    path.write_bytes(whole[: len(whole) // 2])
    assert quiet(store.look(NOW))
    look = store.look(NOW)
    assert look.names is None
    (line,) = look.errors
    assert line.startswith(f"{path}: ")
    assert line.endswith(STAYS)
    assert "\n" not in line
    for _ in range(5):
        look = store.look(NOW)
        assert quiet(look)
        assert (look.faulty, look.unsettled) == (1, False)
    (line_again,) = store.look(NOW, settled=True).errors
    assert line_again == line, "who asks is told"
    path.write_bytes(whole)
    look = store.look(NOW)
    assert (look.errors, look.faulty) == ([], 0)
    assert look.names.find(b"new.example")


def test_a_file_that_is_different_and_broken_at_every_look_is_told_in_the_end(folder):
    store = shelf_of(folder)
    told = []
    for number in range(5):
        (folder / "a.pem").write_text("x" * number)
        told += store.look(NOW).errors
    assert len(told) == 1


def test_another_fault_of_the_same_file_is_another_line(folder):
    store = shelf_of(folder)
    for content in (b"nothing", key_pem(ec.generate_private_key(ec.SECP256R1()))):
        (folder / "a.pem").write_bytes(content)
        assert quiet(store.look(NOW))
        assert len(store.look(NOW).errors) == 1
        assert quiet(store.look(NOW))


@pytest.mark.parametrize("how", ["gone", "empty", "no folder"])
def test_a_folder_that_vanishes_leaves_everything_and_is_said_once(folder, how):
    store = shelf_of(folder)
    folder.rename(folder.with_name("away"))
    if how == "empty":
        folder.mkdir()
    elif how == "no folder":
        folder.write_text("in the way")
    look = store.look(NOW)
    assert quiet(look)
    assert look.unsettled
    look = store.look(NOW)
    (line,) = look.errors
    assert line.startswith(f"{folder}: ")
    assert line.endswith("; the previous certificates stay")
    assert (look.names, look.faulty) == (None, 1)
    assert quiet(store.look(NOW))
    if folder.is_file():
        folder.unlink()
    elif folder.is_dir():
        folder.rmdir()
    folder.with_name("away").rename(folder)
    look = store.look(NOW)
    assert quiet(look)
    assert (look.faulty, look.unsettled) == (0, False)


def test_a_link_to_another_folder_is_followed(folder, tmp_path):
    """As certbot and Kubernetes do it: the name stays, and a link changes what is behind it."""
    link = tmp_path / "link"
    link.symlink_to(folder)
    store = shelf_of(link)
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.pem").write_bytes(issue("a.example", "new.example"))
    shutil.copy(folder / "b.pem", other)
    (tmp_path / "next").symlink_to(other)
    (tmp_path / "next").rename(link)
    look = store.look(NOW)
    assert served(look) == ["a", "b"]
    assert look.names.find(b"new.example")


def test_certbot_s_links_into_its_archive_are_followed(tmp_path):
    archive, live = tmp_path / "archive" / "a", tmp_path / "live" / "a"
    archive.mkdir(parents=True)
    live.mkdir(parents=True)

    def renew(number: int, *names: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        for kind, content in (("privkey", key_pem(key)), ("fullchain", certificate_pem(key, *names))):
            (archive / f"{kind}{number}.pem").write_bytes(content)
            (live / "new").symlink_to(f"../../archive/a/{kind}{number}.pem")
            (live / "new").rename(live / f"{kind}.pem")

    renew(1, "a.example")
    store = shelf_of(tmp_path)
    renew(2, "a.example", "new.example")
    assert store.look(NOW).names.find(b"new.example").name == "a"
    shutil.rmtree(live)
    (tmp_path / "other.pem").write_bytes(issue("other.example"))
    assert served(store.look(NOW)) == ["a", "other"]
    assert served(store.look(NOW)) == ["other"]


# -- what cannot be reached is not gone


@pytest.fixture
def certbots(tmp_path: Path) -> Path:
    """certbot's own folder, with two certificates."""
    for name in ("one", "two"):
        archive, live = tmp_path / "archive" / name, tmp_path / "live" / name
        archive.mkdir(parents=True)
        live.mkdir(parents=True)
        for kind in ("fullchain", "privkey"):
            (live / f"{kind}.pem").symlink_to(f"../../archive/{name}/{kind}1.pem")
            (archive / f"{kind}1.pem").write_bytes(issue(f"{name}.example"))
        (archive / "privkey1.pem").write_bytes((archive / "fullchain1.pem").read_bytes())
    (tmp_path / "live" / "README").write_text("certbot's own")
    return tmp_path


def stays(store: CertificateStore, *lines: str) -> None:
    """Nothing is dropped, and the second look tells why, once."""
    store.look(NOW)
    look = store.look(NOW)
    assert look.errors == list(lines)
    assert look.faulty == len(lines)
    for _ in range(3):
        assert quiet(store.look(NOW))
    assert {"one", "two"} <= {each.name for each in store._served.certificates}


def test_a_certificate_whose_archive_is_away_stays(certbots):
    store = shelf_of(certbots)
    (certbots / "archive" / "one").rename(certbots / "away")
    stays(store, f"{certbots}/live/one/fullchain.pem: no such file or directory{STAYS}")
    (certbots / "away").rename(certbots / "archive" / "one")
    assert store.look(NOW).faulty == 0


def test_a_certificate_whose_folder_is_closed_stays(certbots, monkeypatch):
    place = certbots / "live"
    store = shelf_of(place)
    close(monkeypatch, place / "one")
    stays(store, f"{place}/one/fullchain.pem: permission denied{STAYS}")


def test_certificates_stay_whose_live_is_closed_and_others_are_renewed(certbots, monkeypatch):
    store = shelf_of(certbots)
    (certbots / "flat.pem").write_bytes(issue("flat.example"))
    assert served(store.look(NOW)) == ["flat", "one", "two"]
    close(monkeypatch, certbots / "live")
    store.look(NOW)
    (certbots / "flat.pem").write_bytes(issue("renewed.example"))
    look = store.look(NOW)
    assert look.names.find(b"renewed.example").name == "flat"
    assert served(look) == ["flat", "one", "two"]
    assert look.errors == [f"{certbots}/live: permission denied"]
    monkeypatch.undo()
    shutil.rmtree(certbots / "live" / "one")
    store.look(NOW)
    assert served(store.look(NOW)) == ["flat", "two"]


def test_what_certbot_keeps_for_itself_is_no_certificate(certbots, monkeypatch):
    for name in ("accounts", "archive", "csr", "keys", "renewal"):
        (certbots / name).mkdir(exist_ok=True)
        close(monkeypatch, certbots / name)
    assert quiet(shelf_of(certbots).look(NOW))


def test_a_folder_of_something_else_is_no_certificate(folder):
    (folder / "notes").mkdir()
    assert quiet(shelf_of(folder).look(NOW))


def test_an_empty_folder_in_live_is_a_certificate_that_is_missing(certbots):
    store = shelf_of(certbots)
    (certbots / "live" / "three").mkdir()
    stays(store, f"{certbots}/live/three/fullchain.pem: no such file or directory")


@pytest.mark.parametrize(
    ("name", "named"), [("loop", "loop/fullchain.pem"), ("loop.pem", "loop.pem"), ("loop.crt", "loop.crt")]
)
def test_one_link_in_a_circle_stops_no_renewal(folder, name, named):
    store = shelf_of(folder)
    (folder / name).symlink_to(name)
    store.look(NOW)
    (folder / "a.pem").write_bytes(issue("renewed.example"))
    look = store.look(NOW)
    assert look.names.find(b"renewed.example").name == "a"
    assert look.errors == [f"{folder}/{named}: too many levels of symbolic links"]
    with pytest.raises(CertificateError, match=r"loop.*: too many levels of symbolic links$"):
        CertificateStore(folder_location(folder)).open(NOW)


def test_a_link_to_a_folder_that_is_away_is_told(certbots):
    place = certbots / "mine"
    place.mkdir()
    for name in ("one", "two"):
        (place / name).symlink_to(certbots / "live" / name)
    store = shelf_of(place)
    (certbots / "live" / "one").rename(certbots / "away")
    stays(store, f"{place}/one/fullchain.pem: no such file or directory{STAYS}")


def close(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Take the permission to list a folder and to enter it, which root would have all the same."""

    def guarded(call):
        def asked(path, *args, **options):
            path = os.fspath(path)
            if path.startswith(f"{folder}/") or (path == str(folder) and call in readers):
                raise PermissionError(13, "Permission denied", path)
            return call(path, *args, **options)

        return asked

    readers = (os.open, os.scandir)
    for name in ("open", "stat", "lstat", "scandir"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name)))


# -- names


@pytest.mark.parametrize("name", [b"\xff\xfe.pem", b"two\nlines.pem"], ids=["no UTF-8", "two lines"])
def test_a_file_is_called_by_what_can_be_printed(folder, name):
    store = shelf_of(folder)
    (folder / os.fsdecode(name)).write_bytes(issue("c.example"))
    store.look(NOW)
    (line,) = store.look(NOW).errors
    assert line == f"{str(folder / os.fsdecode(name))!a}: give it a name of printable characters"


def test_one_that_is_not_valid_yet_replaces_no_other_until_it_is(folder):
    (folder / "b.pem").unlink()
    (folder / "later.pem").write_bytes(issue("a.example", "new.example", start=NOW + 3 * DAY, days=90))
    store = CertificateStore(folder_location(folder))
    names, warnings = store.open(NOW)
    assert names.find(b"a.example").name == "a"
    assert names.find(b"new.example").name == "later"
    assert "not valid before" in warnings[0]
    assert store.look(NOW + 3 * DAY - 1).names is None
    assert store.look(NOW + 3 * DAY).names.find(b"a.example").name == "later"
    assert store.look(NOW + 3 * DAY + 1).names is None


def test_the_default_that_nobody_named_is_the_first_that_is_valid(folder):
    (folder / "a.pem").write_bytes(issue("a.example", start=NOW - 90 * DAY, days=80))
    (folder / "aa.pem").write_bytes(issue("aa.example", start=NOW + DAY, days=80))
    (folder / "b.pem").write_bytes(issue("b.example", days=60))
    store = CertificateStore(folder_location(folder))
    assert store.open(NOW)[0].default.name == "b"
    assert store.look(NOW + DAY).names.default.name == "aa"
    assert store.look(NOW + 2 * DAY).names is None
    assert CertificateStore(folder_location(folder), "a").open(NOW)[0].default.name == "a", "the operator's choice"


def test_a_default_that_expires_is_replaced_and_the_last_one_stays(folder):
    (folder / "a.pem").write_bytes(issue("a.example", start=NOW - DAY, days=40))
    (folder / "b.pem").write_bytes(issue("b.example", start=NOW - DAY, days=60))
    store = CertificateStore(folder_location(folder))
    assert store.open(NOW)[0].default.name == "a"
    assert store.look(NOW + 38 * DAY).names is None
    assert store.look(NOW + 39 * DAY).names.default.name == "b"
    assert store.look(NOW + 59 * DAY).names.default.name == "a", "none is valid any more"
    assert store.look(NOW + 60 * DAY).names is None


def test_hidden_files_are_left_alone(folder):
    (folder / ".a.pem").write_text("half a file")
    (folder / "..data").mkdir()
    (folder / "..data" / "fullchain.pem").write_text("nothing")
    assert quiet(shelf_of(folder).look(NOW))


def test_what_is_no_file_is_not_waited_for(folder):
    os.mkfifo(folder / "pipe.pem")
    with pytest.raises(CertificateError, match=r"pipe\.pem: is not a file; "):
        CertificateStore(folder_location(folder)).open(NOW)


def test_an_endless_file_is_not_read(folder):
    with (folder / "huge.pem").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CertificateError, match=r"huge\.pem: has more than 1 MiB"):
        CertificateStore(folder_location(folder)).open(NOW)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_read_when_it_can_be(folder):
    store = shelf_of(folder)
    (folder / "c.pem").write_bytes(issue("c.example"))
    (folder / "c.pem").chmod(0)
    store.look(NOW)
    assert "permission denied" in store.look(NOW).errors[0]
    (folder / "c.pem").chmod(0o600)
    assert served(store.look(NOW)) == ["a", "b", "c"]


def test_the_default_stays_when_its_file_is_gone_and_comes_back_with_it(folder):
    store = shelf_of(folder, "b")
    content = (folder / "b.pem").read_bytes()
    (folder / "b.pem").unlink()
    store.look(NOW)
    look = store.look(NOW)
    assert served(look) == ["a"]
    assert look.names.default.name == "b"
    (line,) = look.errors
    assert line == 'tls.default: no certificate is called "b"; name one of a; the previous default stays'
    (folder / "c.pem").write_bytes(issue("c.example"))
    look = store.look(NOW)
    assert (served(look), look.errors, look.names.default.name) == (["a", "c"], [], "b")
    (folder / "b.pem").write_bytes(content)
    look = store.look(NOW)
    assert look.names.default is look.names.certificates[1]


def test_at_the_start_every_fault_is_one(folder):
    for number in range(15):
        (folder / f"x{number:02}.pem").write_text("nothing")
    with pytest.raises(CertificateError) as caught:
        CertificateStore(folder_location(folder)).open(NOW)
    assert len(caught.value.faults) == 15


def test_a_default_that_nobody_is_called_is_a_fault_at_the_start(folder):
    with pytest.raises(CertificateError, match=r'no certificate is called "nobody"; name one of a, b$'):
        CertificateStore(folder_location(folder), "nobody").open(NOW)


def test_later_many_faults_are_a_few_lines(folder):
    store = shelf_of(folder)
    for number in range(15):
        (folder / f"x{number:02}.pem").write_text("nothing")
    store.look(NOW)
    look = store.look(NOW)
    assert (len(look.errors), look.faulty) == (11, 15)
    assert look.errors[-1].startswith("and 5 more")
    assert quiet(store.look(NOW))


def test_another_place_takes_over_by_name(folder, tmp_path):
    before, _ = CertificateStore(folder_location(folder)).open(NOW)
    other = tmp_path / "other"
    other.mkdir()
    store = CertificateStore(folder_location(other), "", before)
    (line,) = store.look(NOW, settled=True).errors
    assert line.endswith("; the previous certificates stay")
    (other / "a.pem").write_text("nothing")
    (other / "c.pem").write_bytes(issue("c.example"))
    look = store.look(NOW, settled=True)
    assert served(look) == ["a", "c"]
    assert look.names.certificates[0] is before.certificates[0]
    (other / "a.pem").write_bytes(issue("a.example", "new.example"))
    assert store.look(NOW).names.find(b"new.example").name == "a"


def test_the_files_that_an_endpoint_names_are_watched(tmp_path):
    key, issuer = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    paths = [tmp_path / name for name in ("x.key", "x.crt", "chain.crt")]
    paths[0].write_bytes(key_pem(key))
    paths[1].write_bytes(certificate_pem(key, "a.example"))
    paths[2].write_bytes(certificate_pem(issuer, "issuer.example"))
    store = CertificateStore(files_location(*paths))
    names, _ = store.open(NOW)
    assert [each.name for each in names.certificates] == ["x"]
    paths[2].write_bytes(certificate_pem(issuer, "other.example"))
    look = store.look(NOW)
    assert look.names.default.chain_der[0] == names.default.chain_der[0]
    assert look.names.default.chain_der[1] != names.default.chain_der[1]
    for path in paths:
        path.unlink()
    assert quiet(store.look(NOW))
    (line,) = store.look(NOW).errors
    assert line == f"{paths[1]}: no such file or directory{STAYS}"


def test_a_look_can_be_ended_from_elsewhere(folder, monkeypatch):
    store = shelf_of(folder)
    read = store._reader.read

    def read_and_stop(*words):
        store.stop()
        return read(*words)

    monkeypatch.setattr(store._reader, "read", read_and_stop)
    for name in "ab":
        (folder / f"{name}.pem").write_bytes(issue(f"{name}.example", "new.example"))
    assert store.look(NOW, settled=True).names is None
    assert [bool(kept.certificate.names[1:]) for kept in store._kept.values()] == [True, False]


# -- warnings, as time goes by


def date(moment: float) -> str:
    return f"{datetime.datetime.fromtimestamp(moment, datetime.UTC):%Y-%m-%d}"


def test_what_expires_is_said_a_month_before_and_once_it_has(folder):
    store = shelf_of(folder)
    expires = NOW + 89 * DAY
    assert quiet(store.look(expires - 31 * DAY))
    lines = store.look(expires - 29 * DAY).warnings
    assert lines == [
        f"{folder}/{name}.pem: expires on {date(expires)}, in less than 30 days; renew it" for name in "ab"
    ]
    assert quiet(store.look(expires - 28 * DAY))
    (folder / "a.pem").write_bytes(issue("a.example", start=expires - 28 * DAY))
    assert store.look(expires - 27 * DAY).warnings == []
    assert store.look(expires + 1).warnings == [f"{folder}/b.pem: expired on {date(expires)}; renew it"]
    assert quiet(store.look(expires + DAY))


def test_a_certificate_that_clients_refuse_is_taken_with_a_warning(folder):
    store = shelf_of(folder)
    (folder / "a.pem").write_bytes(issue("a.example", start=NOW - 10 * DAY, days=9))
    look = store.look(NOW)
    assert served(look) == ["a", "b"]
    assert look.warnings == [f"{folder}/a.pem: expired on {date(NOW - DAY)}; renew it"]


def test_many_that_expire_are_a_few_lines(folder):
    for number in range(15):
        (folder / f"x{number:02}.pem").write_bytes(issue("x.example", days=10))
    store = CertificateStore(folder_location(folder))
    _, warnings = store.open(NOW)
    assert len(warnings) == 15
    look = store.look(NOW + 20 * DAY)
    assert len(look.warnings) == 11
    assert look.warnings[-1].startswith("and 5 more")


# -- the gateway's own


def test_the_gateway_s_own_certificate_is_made_anew_in_time(tmp_path):
    store = OwnCertificateStore(tmp_path, "id.localhost")
    names, (warning,) = store.open(NOW)
    assert names.default.fingerprint in warning
    expires = names.default.expires
    assert quiet(store.look(expires - 31 * DAY))
    look = store.look(expires - 29 * DAY)
    assert look.names.default.expires > expires
    assert look.names.default.fingerprint in look.warnings[0]
    assert quiet(store.look(expires - 29 * DAY))


def test_a_state_folder_that_cannot_be_used_is_said_once(tmp_path):
    state = tmp_path / "state"
    store = OwnCertificateStore(state, "id.localhost")
    names, _ = store.open(NOW)
    shutil.rmtree(state)
    state.write_text("in the way")
    late = names.default.expires - DAY
    (line,) = store.look(late).errors
    assert line.endswith("; the previous certificate stays")
    look = store.look(late)
    assert (quiet(look), look.faulty) == (True, 1)
    state.unlink()
    assert store.look(late).names is not None


def test_the_gateway_s_own_certificate_is_the_same_when_it_is_asked_for_again(tmp_path):
    store = OwnCertificateStore(tmp_path, "id.localhost")
    names, warnings = store.open(NOW)
    look = store.look(NOW, settled=True)
    assert (look.names, look.warnings) == (None, warnings)
    assert self_signed(tmp_path, "id.localhost", now=NOW).same(names.default)


# -- what lies beside certificates, and what two of one name mean


def good(folder: Path) -> list[str]:
    names, warnings = CertificateStore(folder_location(folder)).open(NOW)
    assert warnings == []
    return sorted(each.name for each in names.certificates)


def pair(folder: Path, chain: str, key: str, *names: str) -> None:
    made = ec.generate_private_key(ec.SECP256R1())
    folder.mkdir(exist_ok=True, parents=True)
    (folder / chain).write_bytes(certificate_pem(made, *names))
    (folder / key).write_bytes(key_pem(made))


def test_issuers_beside_a_pair_are_no_broken_pairs(tmp_path):
    pair(tmp_path, "a.crt", "a.key", "a.example")
    for name in ("ca.crt", "a.issuer.crt", "ca-bundle.crt", "a.ca.crt"):
        (tmp_path / name).write_bytes(certificate_pem(ec.generate_private_key(ec.SECP256R1())))
    assert good(tmp_path) == ["a"]
    (tmp_path / "b.crt").write_bytes(certificate_pem(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(CertificateError, match=r"b\.key: no such file"):
        CertificateStore(folder_location(tmp_path)).open(NOW)


def test_an_issuer_s_own_pair_is_one(tmp_path):
    pair(tmp_path, "ca.crt", "ca.key", "ca.example")
    assert good(tmp_path) == ["ca"]


def test_a_secret_of_kubernetes_is_a_pair_and_so_is_a_folder_of_secrets(tmp_path):
    for mount in (tmp_path / "one", tmp_path / "all" / "acme"):
        version = mount / "..2026_11_29"
        pair(version, "tls.crt", "tls.key", "a.example")
        (version / "ca.crt").write_bytes(certificate_pem(ec.generate_private_key(ec.SECP256R1())))
        (mount / "..data").symlink_to("..2026_11_29")
        for name in ("tls.crt", "tls.key", "ca.crt"):
            (mount / name).symlink_to(f"..data/{name}")
    assert good(tmp_path / "one") == ["tls"]
    assert good(tmp_path / "all") == ["acme"]


def test_a_folder_may_itself_be_one_of_certbot_s(tmp_path):
    live = tmp_path / "a.example"
    pair(live, "fullchain.pem", "privkey.pem", "a.example")
    for name in ("cert.pem", "chain.pem"):
        (live / name).write_bytes((live / "fullchain.pem").read_bytes())
    assert good(live) == ["a.example"]


def test_of_an_rsa_and_an_ecdsa_certificate_for_one_name_the_idle_one_is_a_warning(tmp_path):
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (tmp_path / "a-rsa.pem").write_bytes(key_pem(rsa_key) + certificate_pem(rsa_key, "a.example"))
    (tmp_path / "a-ec.pem").write_bytes(issue("a.example", days=91))
    _, warnings = CertificateStore(folder_location(tmp_path)).open(NOW)
    (line,) = warnings
    assert line.startswith(f"{tmp_path}/a-rsa.pem: is never used for its names: {tmp_path}/a-ec.pem ")
    (tmp_path / "a-rsa.pem").write_bytes(issue("a.example"))
    assert CertificateStore(folder_location(tmp_path)).open(NOW)[1] == [], (
        "a renewed one beside the old one is nothing to mend"
    )
    (tmp_path / "a-rsa.pem").write_bytes(key_pem(rsa_key) + certificate_pem(rsa_key, "a.example", "b.example"))
    assert CertificateStore(folder_location(tmp_path)).open(NOW)[1] == [], "it serves another name"


@pytest.mark.parametrize("ends", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_text_around_pem_and_other_line_ends_do_no_harm(tmp_path, ends):
    key = ec.generate_private_key(ec.SECP256R1())
    text = b"\xef\xbb\xbfBag Attributes\n    friendlyName: \xc3\xa9\n"
    content = text + certificate_pem(key, "a.example") + b"\nsubject=CN = a\n" + key_pem(key) + b"\n the end\n"
    (tmp_path / "a.pem").write_bytes(content.replace(b"\n", ends))
    assert good(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda key: key_pem(key) * 2 + certificate_pem(key, "a"), "has 2 private keys; leave only that of"),
        (lambda key: (key_pem(key) + certificate_pem(key, "a")).decode().encode("utf-16"), "is UTF-16 text"),
        (lambda key: (key_pem(key) + certificate_pem(key, "a")).decode().encode("utf-32-be"), "is UTF-32 text"),
    ],
    ids=["two keys", "UTF-16", "UTF-32"],
)
def test_what_cannot_be_told_from_a_bundle_is_one_clear_line(tmp_path, content, says):
    (tmp_path / "a.pem").write_bytes(content(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(CertificateError, match=says) as raised:
        CertificateStore(folder_location(tmp_path)).open(NOW)
    assert len(raised.value.faults) == 1


def test_a_certificate_that_is_good_again_gets_its_line(folder):
    store = shelf_of(folder)
    kept = (folder / "a.pem").read_bytes()
    (folder / "a.pem").write_text("broken")
    store.look(NOW)
    store.look(NOW)
    assert store.look(NOW).errors or store.look(NOW, settled=True).errors
    (folder / "a.pem").write_bytes(kept)
    assert store.look(NOW).restored == [f"{folder}/a.pem: can be used again"]
    assert store.look(NOW).restored == []


def test_a_place_that_is_there_again_has_its_line(folder):
    store = shelf_of(folder)
    away = folder.with_name("away")
    folder.rename(away)
    store.look(NOW)
    assert store.look(NOW).errors
    away.rename(folder)
    assert store.look(NOW).restored == [f"{folder}: can be read again"]
    assert store.look(NOW).restored == []
