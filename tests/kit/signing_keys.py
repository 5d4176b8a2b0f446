"""Keys that sign X-Koder-Context, in PEM; and tokens made by hand, as a forger would."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from koder_gateway.policy.signed_context import TYPE, imported, public_jwk
from koder_gateway.policy.signing_keys import SigningKey

ED25519 = ed25519.Ed25519PrivateKey.generate()
P256 = ec.generate_private_key(ec.SECP256R1())


def private_pem(key: Any) -> bytes:
    """PKCS#8 in PEM."""
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem


def public_pem(key: Any) -> bytes:
    """The public key in PEM."""
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def rsa_pem() -> bytes:
    """A key of a kind that signs no context."""
    return private_pem(rsa.generate_private_key(65537, 2048))


EDDSA = SigningKey("EdDSA", private_pem(ED25519))
ES256 = SigningKey("ES256", private_pem(P256))


def part(value: object) -> str:
    """One part of a token."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def token(claims: object, key: SigningKey = EDDSA, **header: object) -> str:
    """A genuinely signed token with any header and claims."""
    from koder_gateway.policy.signed_context import ALGORITHMS

    said = {"alg": key.algorithm, "kid": public_jwk(key)["kid"], "typ": TYPE, **header}
    signed = f"{part({name: value for name, value in said.items() if value is not None})}.{part(claims)}"
    return f"{signed}.{part(ALGORITHMS.get_alg(key.algorithm).sign(signed.encode(), imported(key)))}"
