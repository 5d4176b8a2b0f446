"""`[context]`: which keys are taken, and what is said of other files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from koder_gateway.config import ConfigurationError, Settings, load, read_keys_again, warning_lines
from koder_gateway.policy.signed_context import public_jwk
from tests.kit.signing_keys import ED25519, EDDSA, ES256, P256, private_pem, public_pem, rsa_pem


def read(folder: Path, text: str) -> Settings:
    path = folder / "koder-gateway.toml"
    path.write_text(text)
    return load(path, environ={"STATE_DIRECTORY": str(folder / "state")})


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(folder, text)
    assert all("\n" not in line for line in caught.value.faults)
    return [line.removeprefix(f"{folder / 'koder-gateway.toml'}: ") for line in caught.value.faults]


TRADITIONAL = P256.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


@pytest.mark.parametrize(
    ("pem", "key"), [(private_pem(ED25519), EDDSA), (private_pem(P256), ES256), (TRADITIONAL, ES256)]
)
def test_keys_that_sign(tmp_path: Path, pem: bytes, key: object) -> None:
    (tmp_path / "key.pem").write_bytes(pem)
    (tmp_path / "key.pem").chmod(0o640)
    settings = read(tmp_path, '[context]\nkey_file = "key.pem"\n')
    assert settings.context.key_file is not None
    assert settings.context.key_file.key == key
    assert list(settings.context.warnings()) == []


def test_keys_that_are_only_published(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(private_pem(ED25519))
    for name, pem in (
        ("old.pem", public_pem(P256)),
        ("next.pem", private_pem(P256)),
        ("also.pem", public_pem(ED25519)),
    ):
        (tmp_path / name).write_bytes(pem)
    text = '[context]\nkey_file = "key.pem"\npublished_key_files = ["old.pem", "next.pem", "also.pem"]\n'
    context = read(tmp_path, text).context
    published = [public_jwk(file.key) for file in context.published_key_files]
    assert published == [public_jwk(ES256), public_jwk(ES256), public_jwk(EDDSA)]
    assert [file.private for file in context.published_key_files] == [False, True, False]


ENCRYPTED = ED25519.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
RIGHT = "write an Ed25519 or P-256 key, as from: openssl genpkey -algorithm ed25519"
WRONG = {
    "RSA": (rsa_pem(), f"the private key is of the kind RSA; {RIGHT}"),
    "P-384": (
        private_pem(ec.generate_private_key(ec.SECP384R1())),
        f"the private key is of the curve secp384r1; {RIGHT}",
    ),
    "Ed448": (private_pem(ed448.Ed448PrivateKey.generate()), f"the private key is of the kind Ed448; {RIGHT}"),
    "public": (public_pem(ED25519), f"no private key in it; {RIGHT}"),
    "no key": (b"hello\n", f"no private key in it; {RIGHT}"),
    "empty": (b"", f"no private key in it; {RIGHT}"),
    "encrypted": (ENCRYPTED, "the private key is encrypted; store it without a passphrase, for the gateway only"),
    "half": (private_pem(ED25519)[:60], "the private key is not PEM that can be read; copy it again"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_files_that_are_no_such_key(kind: str, tmp_path: Path) -> None:
    pem, why = WRONG[kind]
    (tmp_path / "key.pem").write_bytes(pem)
    said = faults(tmp_path, '[context]\nkey_file = "key.pem"\n')
    assert said == [f'context.key_file: "key.pem": {why}']


def test_every_fault_at_once(tmp_path: Path) -> None:
    (tmp_path / "rsa.pem").write_bytes(rsa_pem())
    (tmp_path / "half.pem").write_bytes(public_pem(ED25519)[:60])
    text = '[context]\nkey_file = "none.pem"\npublished_key_files = ["rsa.pem", "half.pem"]\n'
    first, second, third = faults(tmp_path, text)
    assert first.startswith('context.key_file: "none.pem": no such file or folder; ')
    assert second == f'context.published_key_files[0]: "rsa.pem": the private key is of the kind RSA; {RIGHT}'
    assert third.startswith('context.published_key_files[1]: "half.pem": the public key is not PEM that can be read')
    (tmp_path / "next.pem").write_bytes(public_pem(ED25519))
    assert faults(tmp_path, '[context]\npublished_key_files = ["next.pem"]\n') == [
        "context.key_file: is missing, and published_key_files needs it; write the file of the key that signs"
    ]


def test_a_private_key_that_everybody_can_read(tmp_path: Path) -> None:
    for name, pem in (
        ("key.pem", private_pem(ED25519)),
        ("next.pem", private_pem(P256)),
        ("old.pem", public_pem(P256)),
    ):
        (tmp_path / name).write_bytes(pem)
        (tmp_path / name).chmod(0o644)
    text = '[context]\nkey_file = "key.pem"\npublished_key_files = ["next.pem", "old.pem"]\n'
    settings = read(tmp_path, text)
    warned = "can be read by every user, who can then sign as the gateway; run chmod o-r"
    assert [line for line in warning_lines(settings) if "context" in line] == [
        f'{tmp_path}/koder-gateway.toml: context.key_file: "{tmp_path}/key.pem" {warned}',
        f'{tmp_path}/koder-gateway.toml: context.published_key_files[0]: "{tmp_path}/next.pem" {warned}',
    ]


def test_the_files_are_read_again(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_bytes(private_pem(ED25519))
    context = read(tmp_path, '[context]\nkey_file = "key.pem"\n').context
    key.write_bytes(private_pem(P256))
    again = read_keys_again(context)
    assert again.key_file is not None
    assert again.key_file.key == ES256
    os.unlink(key)
    with pytest.raises(ConfigurationError, match=r"key\.pem: no such file"):
        read_keys_again(context)


def test_no_key_is_shown(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(private_pem(ED25519))
    assert "BEGIN" not in repr(read(tmp_path, '[context]\nkey_file = "key.pem"\n'))
