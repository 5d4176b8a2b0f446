"""Keys that sign contexts, or are published, before joserfc reads them: where there is none, it is not imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key in PEM (PKCS#8, or the SubjectPublicKeyInfo of one that is only published), and its JWS algorithm."""

    algorithm: Literal["EdDSA", "ES256"]
    pem: bytes = field(repr=False)
