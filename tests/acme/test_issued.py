"""Keys and certificates as the authority gets and sends them."""

from __future__ import annotations

import base64
import datetime
import hashlib
import time

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from koder_gateway.acme.issued import (
    IssuedError,
    certificate_request,
    challenge_certificate,
    described,
    is_of_kind,
    leaf,
    new_key,
    read_issued,
    thumbprint_authorization,
    with_chain,
)

NAME = "login.example.com"
KEY = new_key("ecdsa")


def certificate(key: bytes, name: str = NAME, days: int = 90, serial: int = 0x8F, age: int = 100) -> bytes:
    """One that is its own issuer, for a key of ours."""
    private = load_pem_private_key(key, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(private.public_key())
        .serial_number(serial)
        .not_valid_before(now - datetime.timedelta(days=age))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(b"\x69\x88\x5b\x6b", None, None), critical=False)
        .sign(private, SHA256())
    )
    return made.public_bytes(Encoding.PEM)


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_a_request_is_for_the_name_and_the_key(kind: str) -> None:
    key = new_key(kind)
    assert is_of_kind(key, kind)
    assert not is_of_kind(key, "rsa" if kind == "ecdsa" else "ecdsa")
    request = certificate_request(NAME, key)
    assert request.is_signature_valid
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [NAME]


def test_a_key_is_made_anew_each_time() -> None:
    assert new_key("ecdsa") != new_key("ecdsa")
    assert not is_of_kind(b"nothing", "ecdsa")


def test_one_file_has_the_key_and_the_chain() -> None:
    key = new_key("ecdsa")
    issuer = trustme.CA().cert_pem.bytes()
    pem, issued = with_chain(NAME, key, certificate(key) + issuer, time.time())
    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert pem.count(b"BEGIN CERTIFICATE") == 2
    assert issued.issuer == "Test CA"
    assert read_issued(pem) == issued


def test_what_is_not_what_was_asked_for_is_not_used() -> None:
    key = new_key("ecdsa")
    for chain, says in (
        (certificate(new_key("ecdsa")), "another key"),
        (certificate(key, "other.example"), "another name"),
        (certificate(key, days=-1), "has expired"),
        (certificate(key, age=-1), "is not valid yet"),
        (certificate(key) * 11, "a chain of more than 10"),
        (b"<html>", "no certificate in it"),
    ):
        with pytest.raises(IssuedError, match=says):
            with_chain(NAME, key, chain, time.time())
    assert read_issued(certificate(key)) is None
    assert read_issued(new_key("ecdsa") + certificate(key)) is None


def test_how_the_authority_calls_it() -> None:
    """RFC 9773 section 4.1: a serial whose first bit is set has a byte before it, as in DER."""
    key = new_key("ecdsa")
    assert described(leaf(certificate(key, serial=0x8F))).ari == "aYhbaw.AI8"
    assert described(leaf(certificate(key, serial=0x7F))).ari == "aYhbaw.fw"


@settings(max_examples=10)
@given(st.integers(1, 2**159 - 1))
def test_a_serial_is_that_of_its_der(serial: int) -> None:
    encoded = described(leaf(certificate(KEY, serial=serial))).ari.partition(".")[2]
    data = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    assert int.from_bytes(data, "big", signed=True) == serial


def test_what_answers_the_challenge_is_what_rfc_8737_says() -> None:
    pem, der = challenge_certificate(NAME, "token.thumbprint")
    made = leaf(pem)
    assert made.public_bytes(Encoding.DER) == der
    extension = made.extensions.get_extension_for_oid(x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31"))
    assert extension.critical
    assert isinstance(extension.value, x509.UnrecognizedExtension)
    assert extension.value.value == b"\x04\x20" + hashlib.sha256(b"token.thumbprint").digest()
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [NAME]


def test_the_example_of_rfc_8555() -> None:
    assert thumbprint_authorization("token", b"\xff\xfe\x00") == "token.__4A"
