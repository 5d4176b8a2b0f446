"""Certificates: what an operator's files may look like, what is said of broken ones, and our own."""

from __future__ import annotations

import datetime
import stat
from contextlib import suppress
from functools import partial
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from OpenSSL import SSL

from koder_gateway.tls import certificates
from koder_gateway.tls.certificate_store import CertificateStore
from koder_gateway.tls.certificates import (
    DAY,
    CertificateError,
    load_pair,
    self_signed,
)
from koder_gateway.tls.contexts import ServerContexts
from koder_gateway.tls.folder import folder_location
from tests.kit.certificates import NOW, certificate_pem, key_pem

P256 = ec.SECP256R1()


def load_folder(folder, now):
    """What a folder has: certificates, faults and warnings, all of them lists."""
    look = CertificateStore(folder_location(folder)).look(now, settled=True)
    certificates = [] if look.names is None else list(look.names.certificates)
    return SimpleNamespace(certificates=certificates, faults=look.errors, warnings=look.warnings)


@pytest.fixture(scope="module")
def key():
    return ec.generate_private_key(P256)


@pytest.mark.parametrize("key_first", [True, False])
def test_key_and_chain_in_one_file_in_either_order(tmp_path, key, key_first):
    issuer = ec.generate_private_key(P256)
    parts = [certificate_pem(key, "a.example", "*.A.example"), certificate_pem(issuer, "ca.example")]
    parts.insert(0 if key_first else 2, key_pem(key, form=serialization.PrivateFormat.TraditionalOpenSSL))
    (tmp_path / "a.pem").write_bytes(b"".join(parts))

    found = load_folder(tmp_path, NOW)

    assert (found.faults, found.warnings) == ([], [])
    (certificate,) = found.certificates
    assert certificate.name == "a"
    assert certificate.names == ("a.example", "*.a.example")
    assert len(certificate.chain) == 2
    assert certificate.expires == NOW + 89 * DAY
    assert certificate.fingerprint.replace(":", "").lower() == certificate.leaf.fingerprint(hashes.SHA256()).hex()


def test_all_three_forms_are_taken_in_the_order_of_their_names(tmp_path, key):
    both = key_pem(key) + certificate_pem(key, "b.example")
    (tmp_path / "b.pem").write_bytes(both)
    (tmp_path / "a.key").write_bytes(key_pem(key))
    (tmp_path / "a.crt").write_bytes(certificate_pem(key, "a.example"))
    for folder in (tmp_path / "live" / "d", tmp_path / "c"):
        folder.mkdir(parents=True)
        (folder / "privkey.pem").write_bytes(key_pem(key))
        (folder / "fullchain.pem").write_bytes(certificate_pem(key, f"{folder.name}.example"))
        (folder / "cert.pem").write_bytes(b"not looked at")
    (tmp_path / "live" / "README").write_text("certbot's own")
    (tmp_path / "notes.txt").write_text("nobody's")

    found = load_folder(tmp_path, NOW)

    assert found.faults == []
    assert [each.name for each in found.certificates] == ["a", "b", "c", "d"]
    assert [each.names for each in found.certificates] == [(f"{name}.example",) for name in "abcd"]


def test_every_broken_file_has_its_line_and_the_whole_ones_are_still_found(tmp_path, key):
    other, lone, lonely = (ec.generate_private_key(P256) for _ in range(3))
    chain = certificate_pem(key, "x.example")
    contents = {
        "a-nokey.pem": certificate_pem(other, "a.example"),
        "b-mismatch.pem": key_pem(other) + chain,
        "c-nothing.pem": b"hello",
        "d-cut.pem": key_pem(key) + chain[:200] + b"\n-----END CERTIFICATE-----\n",
        "e-encrypted.pem": key_pem(key, serialization.BestAvailableEncryption(b"secret")) + chain,
        "f-lone.crt": certificate_pem(lone, "f.example"),
        "g-lone.key": key_pem(lonely),
        "h-badkey.pem": chain + b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        "i-whole.pem": key_pem(key) + chain,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)

    found = load_folder(tmp_path, NOW)

    assert [each.name for each in found.certificates] == ["i-whole"]
    wanted = [
        ("a-nokey.pem", "no private key in it"),
        ("b-mismatch.pem", "does not match its first certificate"),
        ("c-nothing.pem", "no certificate in it"),
        ("d-cut.pem", "not PEM that can be read"),
        ("e-encrypted.pem", "encrypted"),
        ("f-lone.key", "no such file"),
        ("g-lone.crt", "no such file"),
        ("h-badkey.pem", "private key is not PEM"),
    ]
    assert len(found.faults) == len(wanted)
    for fault, (name, words) in zip(found.faults, wanted, strict=True):
        assert fault.startswith(f"{tmp_path / name}: ")
        assert words in fault
        assert "\n" not in fault


@pytest.mark.parametrize(
    ("start", "days", "names", "words"),
    [
        (NOW - 10 * DAY, 9, ["x.example"], "expired on 2030-03-16"),
        (NOW + DAY, 90, ["x.example"], "not valid before 2030-03-18"),
        (NOW - DAY, 90, [], "no DNS name"),
    ],
)
def test_a_certificate_that_clients_refuse_is_served_with_a_warning(tmp_path, key, start, days, names, words):
    (tmp_path / "x.pem").write_bytes(key_pem(key) + certificate_pem(key, *names, start=start, days=days))
    found = load_folder(tmp_path, NOW)
    assert len(found.certificates) == 1
    assert found.faults == []
    (warning,) = found.warnings
    assert warning.startswith(f"{tmp_path / 'x.pem'}: ")
    assert words in warning


def test_a_missing_and_an_empty_folder_are_faults(tmp_path):
    assert "no such file" in load_folder(tmp_path / "nowhere", NOW).faults[0]
    assert "no certificate in it" in load_folder(tmp_path, NOW).faults[0]


def test_an_rsa_key_matches_its_certificate(tmp_path):
    key = rsa.generate_private_key(65537, 2048)
    (tmp_path / "r.crt").write_bytes(certificate_pem(key, "r.example"))
    (tmp_path / "r.key").write_bytes(key_pem(key))
    assert load_pair("r", tmp_path / "r.crt", tmp_path / "r.key").names == ("r.example",)


@pytest.mark.parametrize("curve", [ec.SECP256K1, ec.BrainpoolP256R1, ec.BrainpoolP384R1, ec.SECP224R1, ec.SECP192R1])
def test_a_key_on_a_curve_that_no_handshake_has_is_refused_with_those_that_do(tmp_path, curve):
    key = ec.generate_private_key(curve())
    path = tmp_path / "odd.pem"
    path.write_bytes(key_pem(key) + certificate_pem(key, "odd.example"))
    with pytest.raises(CertificateError) as caught:
        load_pair("odd", path, path)
    assert str(caught.value) == (
        f"{path}: its key is on the curve {key.curve.name}, which no client supports; have it issued for"
        " an ECDSA key on P-256, P-384 or P-521, for Ed25519, or for an RSA key of 2048 bits or more"
    )


def test_a_key_for_dsa_is_refused(tmp_path):
    key = dsa.generate_private_key(2048)
    path = tmp_path / "odd.pem"
    path.write_bytes(key_pem(key) + certificate_pem(key, "odd.example"))
    with pytest.raises(CertificateError, match="its key is for DSA, which no client supports"):
        load_pair("odd", path, path)


@pytest.mark.parametrize(
    "make",
    [
        *(partial(ec.generate_private_key, curve()) for curve in (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)),
        ed25519.Ed25519PrivateKey.generate,
    ],
    ids=["P-256", "P-384", "P-521", "Ed25519"],
)
def test_a_key_that_is_taken_is_one_that_shakes_hands(tmp_path, make):
    key = make()
    path = tmp_path / "a.pem"
    path.write_bytes(key_pem(key) + certificate_pem(key, "a.example"))
    contexts = ServerContexts([load_pair("a", path, path)])
    for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
        client_context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        client_context.set_min_proto_version(version)
        client_context.set_max_proto_version(version)
        client, server = SSL.Connection(client_context, None), contexts.serverConnectionForTLS(None)
        client.set_connect_state()
        server.set_accept_state()
        for _ in range(2):
            for end, other in ((client, server), (server, client)):
                with suppress(SSL.WantReadError):
                    end.do_handshake()
                with suppress(SSL.WantReadError):
                    other.bio_write(end.bio_read(1 << 16))
        client.do_handshake()
        assert client.get_peer_certificate() is not None


def test_self_signed_is_made_for_the_domain_and_its_subdomains(tmp_path):
    made = self_signed(tmp_path / "state" / "deep", "id.example.org", now=NOW)

    assert made.names == ("id.example.org", "*.id.example.org")
    assert isinstance(made.key, ec.EllipticCurvePrivateKey)
    assert made.key.curve.name == "secp256r1"
    leaf = made.leaf
    assert leaf.not_valid_before_utc.timestamp() < NOW
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == datetime.timedelta(days=397)
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(made.path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in made.path.parent.iterdir()] == [made.path.name]
    leaf.verify_directly_issued_by(leaf)


def test_self_signed_covers_the_loopback_addresses_of_a_localhost_domain(tmp_path):
    leaf = self_signed(tmp_path, "id.localhost", now=NOW).leaf
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["id.localhost", "*.id.localhost", "localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    other = self_signed(tmp_path, "id.notlocalhost", now=NOW)
    assert other.names == ("id.notlocalhost", "*.id.notlocalhost")


def test_self_signed_is_kept_until_a_month_before_its_end(tmp_path):
    first = self_signed(tmp_path, "id.localhost", now=NOW)
    assert self_signed(tmp_path, "id.localhost", now=first.expires - 31 * DAY).fingerprint == first.fingerprint
    renewed = self_signed(tmp_path, "id.localhost", now=first.expires - 29 * DAY)
    assert renewed.fingerprint != first.fingerprint
    assert renewed.expires > first.expires


def test_self_signed_is_made_anew_for_other_names_or_a_broken_file(tmp_path):
    first = self_signed(tmp_path, "a.example", now=NOW)
    second = self_signed(tmp_path, "b.example", now=NOW)
    second.path.write_bytes(first.path.read_bytes())
    assert self_signed(tmp_path, "b.example", now=NOW).names == ("b.example", "*.b.example")
    first.path.write_bytes(b"scribble")
    assert self_signed(tmp_path, "a.example", now=NOW).names == ("a.example", "*.a.example")


def test_a_long_domain_still_gets_a_certificate(tmp_path):
    domain = ".".join(["a" * 40] * 3)
    assert self_signed(tmp_path, domain, now=NOW).names[0] == domain


@pytest.mark.parametrize("state", ["file/state", "file"])
def test_an_unusable_state_folder_is_one_clear_line(tmp_path, state):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CertificateError) as caught:
        self_signed(tmp_path / state, "id.localhost", now=NOW)
    assert len(caught.value.faults) == 1
    assert str(tmp_path / state) in str(caught.value)
    assert "state.dir" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    (tmp_path / "x.pem").symlink_to(tmp_path / "gone")
    (fault,) = load_folder(tmp_path, NOW).faults
    assert fault == f"{tmp_path / 'x.pem'}: no such file or directory"


def test_whatever_else_the_library_dislikes_is_one_line(tmp_path, key, monkeypatch):
    def dislike(*words):
        raise ValueError("something\nodd")

    path = tmp_path / "x.pem"
    path.write_bytes(key_pem(key) + certificate_pem(key, "x.example"))
    monkeypatch.setattr(certificates, "_private_bytes", dislike)
    with pytest.raises(CertificateError) as caught:
        load_pair("x", path, path)
    assert str(caught.value) == f"{path}: cannot be used: something odd; have it reissued"


def test_the_key_is_never_shown(tmp_path, key):
    path = tmp_path / "x.pem"
    path.write_bytes(key_pem(key) + certificate_pem(key, "x.example"))
    loaded = load_pair("x", path, path)
    assert "x.example" in repr(loaded)
    assert repr(loaded.key_der)[2:20] not in repr(loaded)
