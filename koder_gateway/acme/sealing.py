"""What leaves this machine, encrypted and bound to its place: whoever has the store can neither read nor move it."""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

# The first byte of each value.
_FORM: Final = b"\x01"
_NONCE: Final = 12


class SealError(ValueError):
    """Not a value that was sealed by this key, for this place."""


class Seal:
    """AES-256-GCM by a key of 32 bytes. Nonces are random: a key is good for 2^32 values (NIST SP 800-38D)."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def close(self, place: str, value: bytes) -> bytes:
        """A value for a place."""
        nonce = os.urandom(_NONCE)
        return _FORM + nonce + self._cipher.encrypt(nonce, value, place.encode())

    def open(self, place: str, sealed: bytes) -> bytes:
        """The value of a place. Raises SealError."""
        if sealed[:1] != _FORM or len(sealed) < 1 + _NONCE:
            raise SealError("it is not sealed")
        nonce, rest = sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :]
        try:
            return self._cipher.decrypt(nonce, rest, place.encode())
        except InvalidTag:
            raise SealError("it was sealed by another key") from None
