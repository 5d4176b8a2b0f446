"""PEM files (RFC 7468): their certificates and private keys.

A fault is a sentence without the file's name, which the caller puts before it.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from ..wire.encodings import wide_encoding

# More than any chain has: a file that is there by mistake is not read into memory.
_LARGEST: Final = 1 << 20
_BEGIN_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
# The first line of a private key, of whatever kind.
_BEGIN_KEY: Final = re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----")


class PemError(ValueError):
    """A file that cannot be used; the text says what is wrong with it, and what would be right."""


def read_pem(path: Path, largest: int = _LARGEST) -> bytes:
    """The contents of a regular file of `largest` bytes at most: reading a pipe might block for ever. Raises OSError,
    and PemError if they cannot be PEM."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise PemError("is not a file; put the certificate itself there")
        data = _read_all(descriptor, largest)
    finally:
        os.close(descriptor)
    if len(data) > largest:
        raise PemError(f"has more than {largest >> 20} MiB, which no certificate needs; put the certificate there")
    wide = wide_encoding(data)
    if wide:
        raise PemError(f"is {wide} text; save it again as ASCII or UTF-8")
    return data


def _read_all(descriptor: int, largest: int) -> bytes:
    pieces: list[bytes] = []
    missing = largest + 1
    while missing > 0 and (piece := os.read(descriptor, min(missing, 1 << 16))):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def certificates_in(
    data: bytes, wanted: str = "it must be PEM, with BEGIN CERTIFICATE lines"
) -> tuple[x509.Certificate, ...]:
    """The certificates in PEM, in its order; at least one. Raises PemError, with `wanted` as its advice where
    there is none."""
    if _BEGIN_CERTIFICATE not in data:
        raise PemError(f"no certificate in it; {wanted}")
    try:
        return tuple(x509.load_pem_x509_certificates(data))
    except ValueError:
        raise PemError("a certificate in it is not PEM that can be read; copy it again") from None


def count_private_keys(data: bytes) -> int:
    """How many private keys there are in PEM."""
    return len(_BEGIN_KEY.findall(data))


def private_key_in(data: bytes, wanted: str, *, check_primes: bool = True) -> PrivateKeyTypes:
    """The first private key in PEM, which may have certificates as well. Raises PemError; `wanted` is its advice
    where there is none. To find out whether an RSA key's numbers are prime takes 40 ms (`check_primes`)."""
    begin = _BEGIN_KEY.search(data)
    if begin is None:
        raise PemError(f"no private key in it; {wanted}")
    try:
        return serialization.load_pem_private_key(
            data[begin.start() :], password=None, unsafe_skip_rsa_key_validation=not check_primes
        )
    except TypeError:
        raise PemError("the private key is encrypted; store it without a passphrase, for the gateway only") from None
    except (ValueError, UnsupportedAlgorithm):
        raise PemError("the private key is not PEM that can be read; copy it again") from None


def public_key_der(owner: PrivateKeyTypes | x509.Certificate) -> bytes:
    """The public key of a private one or of a certificate; b"" where its algorithm is not known."""
    try:
        key = owner.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return b""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
