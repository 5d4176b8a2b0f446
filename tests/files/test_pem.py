"""PEM files: what is read of one, and what is refused in words that say what would be right."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from koder_gateway.files.pem import (
    PemError,
    certificates_in,
    count_private_keys,
    private_key_in,
    public_key_der,
    read_pem,
)
from koder_gateway.tls.certificates import self_signed


@pytest.fixture
def both(tmp_path: Path) -> bytes:
    """A private key and its certificate."""
    return self_signed(tmp_path, "id.localhost").path.read_bytes()


def encoded(key: ec.EllipticCurvePrivateKey, encryption: serialization.KeySerializationEncryption) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def test_a_file_has_a_bound_and_that_of_a_bundle_is_larger(tmp_path: Path, both: bytes) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(b"in words first\n" * 70_000 + both)
    with pytest.raises(PemError, match="more than 1 MiB"):
        read_pem(bundle)
    assert read_pem(bundle, 1 << 21).endswith(both)
    os.truncate(bundle, (1 << 21) + 1)
    with pytest.raises(PemError, match="more than 2 MiB"):
        read_pem(bundle, 1 << 21)


def test_a_key_and_its_certificate_are_found_in_one_file(both: bytes) -> None:
    (certificate,) = certificates_in(both)
    assert isinstance(certificate, x509.Certificate)
    assert count_private_keys(both) == 1
    for check_primes in (True, False):
        key = private_key_in(both, "add it", check_primes=check_primes)
        assert public_key_der(key) == public_key_der(certificate) != b""


def test_the_first_key_is_read_wherever_it_stands(both: bytes) -> None:
    certificate = both[both.index(b"-----BEGIN CERTIFICATE") :]
    other = encoded(ec.generate_private_key(ec.SECP256R1()), serialization.NoEncryption())
    data = certificate + both + other
    assert count_private_keys(data) == 2
    assert public_key_der(private_key_in(data, "add it")) == public_key_der(certificates_in(data)[0])


def test_what_is_missing_is_said_with_the_advice_of_who_asks() -> None:
    with pytest.raises(PemError, match=r"^no certificate in it; it must be PEM, with BEGIN CERTIFICATE lines$"):
        certificates_in(b"")
    with pytest.raises(PemError, match=r"^no certificate in it; write one$"):
        certificates_in(b"-----BEGIN X509 CRL-----", "write one")
    with pytest.raises(PemError, match=r"^no private key in it; write one$"):
        private_key_in(b"-----BEGIN PUBLIC KEY-----", "write one")


def test_what_cannot_be_read_is_said() -> None:
    with pytest.raises(PemError, match=r"^a certificate in it is not PEM that can be read; copy it again$"):
        certificates_in(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(PemError, match=r"^the private key is not PEM that can be read; copy it again$"):
        private_key_in(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "")
    locked = encoded(ec.generate_private_key(ec.SECP256R1()), serialization.BestAvailableEncryption(b"secret"))
    with pytest.raises(PemError, match=r"^the private key is encrypted; store it without a passphrase"):
        private_key_in(locked, "")


def test_only_a_regular_file_of_a_certificates_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pem"
    path.write_bytes(b"x" * (1 << 20))
    assert len(read_pem(path)) == 1 << 20
    path.write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(PemError, match=r"^has more than 1 MiB"):
        read_pem(path)
    path.write_bytes("-----BEGIN CERTIFICATE-----".encode("utf-16"))
    with pytest.raises(PemError, match=r"^is UTF-16 text"):
        read_pem(path)
    for other in (tmp_path, tmp_path / "pipe"):
        if other != tmp_path:
            os.mkfifo(other)  # nothing ever comes from it, and nothing waits
        with pytest.raises(PemError, match=r"^is not a file"):
            read_pem(other)
    with pytest.raises(FileNotFoundError):
        read_pem(tmp_path / "missing.pem")
