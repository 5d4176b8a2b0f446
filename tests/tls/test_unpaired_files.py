"""What lies beside certificates and is none: left alone where that is clear, one line where it is not."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from koder_gateway.tls.certificate_store import CertificateStore
from koder_gateway.tls.certificates import CertificateError
from koder_gateway.tls.folder import folder_location
from tests.kit.certificates import DAY, NOW, certificate_pem, key_pem

Key = ec.EllipticCurvePrivateKey
PARAMETERS = b"-----BEGIN DH PARAMETERS-----\nMAYCAQcCAQI=\n-----END DH PARAMETERS-----\n"


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def authority_pem() -> bytes:
    key, start = new_key(), datetime.datetime.fromtimestamp(NOW - DAY, datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject("An authority")).issuer_name(subject("An authority"))
    builder = builder.public_key(key.public_key()).serial_number(7).not_valid_before(start)
    builder = builder.not_valid_after(start + datetime.timedelta(days=3650))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def request_pem() -> bytes:
    request = x509.CertificateSigningRequestBuilder().subject_name(subject("a.example"))
    return request.sign(new_key(), hashes.SHA256()).public_bytes(Encoding.PEM)


def revocations_pem() -> bytes:
    day = datetime.datetime.fromtimestamp(NOW, datetime.UTC)
    revoked = x509.CertificateRevocationListBuilder().issuer_name(subject("An authority")).last_update(day)
    revoked = revoked.next_update(day + datetime.timedelta(days=7))
    return revoked.sign(new_key(), hashes.SHA256()).public_bytes(Encoding.PEM)


def public_pem() -> bytes:
    return new_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def names_of(folder: Path) -> list[str]:
    """What is served, where nothing is wrong."""
    names, warnings = CertificateStore(folder_location(folder)).open(NOW)
    assert warnings == []
    return [each.name for each in names.certificates]


def faults_of(folder: Path) -> list[str]:
    with pytest.raises(CertificateError) as raised:
        CertificateStore(folder_location(folder)).open(NOW)
    return [fault.removeprefix(f"{folder}/") for fault in raised.value.faults]


@pytest.fixture
def key() -> Key:
    return new_key()


@pytest.fixture
def folder(tmp_path: Path, key: Key) -> Path:
    """One good pair, `a`."""
    (tmp_path / "a.pem").write_bytes(key_pem(key) + certificate_pem(key, "a.example"))
    return tmp_path


@pytest.mark.parametrize("name", ["chain.pem", "ec-ca.crt", "dhparam.pem", "a.request.pem", "crl.pem", "odd.key"])
@pytest.mark.parametrize(
    "content",
    [authority_pem(), authority_pem() * 2, PARAMETERS, request_pem(), revocations_pem(), public_pem()],
    ids=["authority", "authorities", "parameters", "request", "revocations", "public key"],
)
def test_what_nothing_is_served_with_is_left_alone(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    assert names_of(folder) == ["a"]


def test_all_of_certbot_s_files_may_lie_beside_a_pair(folder: Path) -> None:
    own = new_key()
    leaf, issuer = certificate_pem(own, "b.example"), authority_pem()
    files = {"cert": leaf, "chain": issuer, "fullchain": leaf + issuer, "privkey": key_pem(own)}
    for name, content in files.items():
        (folder / f"{name}.pem").write_bytes(content)
    assert names_of(folder) == ["a", folder.name]


def test_a_second_copy_of_what_is_served_is_left_alone(folder: Path, key: Key) -> None:
    (folder / "cert.pem").write_bytes(certificate_pem(key, "a.example"))
    (folder / "copy.crt").write_bytes(certificate_pem(key, "a.example") + authority_pem())
    (folder / "old.crt").write_bytes(certificate_pem(new_key(), "A.example", days=30))
    (folder / "copy-of-a.key").write_bytes(key_pem(key))
    (folder / "privkey1.pem").write_bytes(key_pem(key))
    assert names_of(folder) == ["a"]


def test_a_certificate_without_its_key_stays_a_fault(folder: Path, key: Key) -> None:
    """Who serves its names, or for as long, nobody knows."""
    (folder / "b.pem").write_bytes(certificate_pem(new_key(), "b.example"))
    (folder / "c.crt").write_bytes(certificate_pem(new_key(), "c.example"))
    (folder / "longer.crt").write_bytes(certificate_pem(key, "a.example", days=300))
    (folder / "lone.pem").write_bytes(key_pem(new_key()))
    assert [fault.partition(": ")[0] for fault in faults_of(folder)] == ["b.pem", "c.key", "lone.pem", "longer.key"]


def test_a_key_that_is_another_s_stays_a_fault(folder: Path, key: Key) -> None:
    """Of a certificate that would be left alone without any."""
    (folder / "b.crt").write_bytes(certificate_pem(key, "a.example"))
    (folder / "b.key").write_bytes(key_pem(new_key()))
    (folder / "ca.crt").write_bytes(authority_pem())
    (folder / "ca.key").write_bytes(key_pem(key))
    (folder / "c.pem").write_bytes(key_pem(new_key()) + certificate_pem(key, "a.example"))
    (b, c, ca) = faults_of(folder)
    assert all("does not match its first certificate" in fault for fault in (b, c, ca)), (b, c, ca)


@pytest.mark.parametrize("served", [True, False])
def test_a_pair_whose_names_do_not_belong_together_is_one_line(folder: Path, served: bool) -> None:
    own = new_key()
    leaf = certificate_pem(own, "b.example")
    (folder / "cert1.pem").write_bytes(leaf)
    (folder / "chain1.pem").write_bytes(authority_pem())
    (folder / "fullchain1.pem").write_bytes(leaf + authority_pem())
    (folder / "privkey1.pem").write_bytes(key_pem(own))
    if not served:
        (folder / "a.pem").unlink()
    (line,) = faults_of(folder)
    assert line.startswith(
        f"fullchain1.pem: its private key is in {folder}/privkey1.pem, but their names do not match; "
    )


def test_a_folder_without_any_pair_says_so(tmp_path: Path) -> None:
    (tmp_path / "dhparam.pem").write_bytes(PARAMETERS)
    with pytest.raises(CertificateError, match="has no certificate with its key in it; put NAME"):
        CertificateStore(folder_location(tmp_path)).open(NOW)


def test_what_served_stays_when_its_key_is_taken_out(folder: Path, key: Key) -> None:
    """It is no second copy, but the only one."""
    store = CertificateStore(folder_location(folder))
    store.open(NOW)
    (folder / "a.pem").write_bytes(authority_pem())
    assert store.look(NOW).names is None
    look = store.look(NOW)
    (line,) = look.errors
    assert line.endswith("; the previous one stays")
    assert look.faulty == 1


def test_what_comes_and_goes_while_it_serves_is_told_as_at_a_start(folder: Path) -> None:
    store = CertificateStore(folder_location(folder))
    store.open(NOW)
    (folder / "ca.pem").write_bytes(authority_pem())
    look = store.look(NOW)
    assert (look.errors, look.faulty, look.unsettled) == ([], 0, False)
    own = new_key()
    (folder / "b.crt").write_bytes(certificate_pem(own, "b.example"))
    assert store.look(NOW).unsettled
    look = store.look(NOW)
    (line,) = look.errors
    assert "b.key: no such file" in line
    assert look.faulty == 1
    (folder / "b.key").write_bytes(key_pem(own))
    look = store.look(NOW)
    assert look.restored == [f"{folder}/b.crt: can be used again"]
    assert look.names is not None
    assert [each.name for each in look.names.certificates] == ["a", "b"]
