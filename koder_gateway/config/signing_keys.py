"""`[context]`: the files of the keys that sign X-Koder-Context, or are only published."""

# Fields are declared by a call for each, whose values are immutable.
# ruff: noqa: RUF009

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from ..files.pem import count_private_keys, private_key_in, read_pem
from ..policy.signing_keys import SigningKey
from .faults import ConfigurationError, Located, ReadError, reason, shown
from .kinds import Kind, Where, listing, optional
from .tables import setting
from .values import FILE

_RIGHT: Final = "write an Ed25519 or P-256 key, as from: openssl genpkey -algorithm ed25519"
_BEGIN_PUBLIC: Final = b"-----BEGIN PUBLIC KEY-----"


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A key as read from `path`. `private`: it has a private key. `exposed`: every user of this machine can read
    it."""

    path: Path
    key: SigningKey
    private: bool
    exposed: bool


def read_key(path: Path, *, publishing: bool = False) -> KeyFile:
    """The key in a PEM file: a private one, for `publishing` also a public one. Raises ValueError, whose text says
    what would be right."""
    try:
        data = read_pem(path)
        exposed = bool(path.stat().st_mode & stat.S_IROTH)
    except OSError as error:
        raise ValueError(f"{reason(error)}; {_RIGHT}") from None
    if publishing and _BEGIN_PUBLIC in data and not count_private_keys(data):
        return KeyFile(path, _public(data), private=False, exposed=exposed)
    key = private_key_in(data, _RIGHT)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        algorithm: Literal["EdDSA", "ES256"] = "EdDSA"
    elif isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        algorithm = "ES256"
    else:
        raise ValueError(f"the private key is {_kind(key)}; {_RIGHT}")
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return KeyFile(path, SigningKey(algorithm, pem), private=True, exposed=exposed)


def _public(data: bytes) -> SigningKey:
    try:
        key = serialization.load_pem_public_key(data[data.index(_BEGIN_PUBLIC) :])
    except ValueError:
        raise ValueError("the public key is not PEM that can be read; copy it again") from None
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return SigningKey("EdDSA", pem)
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return SigningKey("ES256", pem)
    raise ValueError(f"the public key is {_kind(key)}; {_RIGHT}")


def _kind(key: object) -> str:
    curve = getattr(getattr(key, "curve", None), "name", "")
    return f"of the curve {curve}" if curve else f"of the kind {type(key).__name__.strip('_').partition('P')[0]}"


def _kind_of(publishing: bool) -> Kind[KeyFile]:
    def read(value: object, where: Where) -> KeyFile:
        path = FILE.read(value, where)
        try:
            return read_key(path, publishing=publishing)
        except ValueError as error:
            raise ReadError.because(f"{shown(value)}: {error}") from None

    return Kind("file", read, shape=FILE.shape, located=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextSettings:
    """[context]: the key that signs X-Koder-Context towards the services, None for no such header, and further keys
    that are only published."""

    key_file: KeyFile | None = setting(
        optional(_kind_of(False)),
        "",
        about="PEM file of the private key (Ed25519 or P-256) that signs [`X-Koder-Context`](context.md) "
        'towards services; `""`: no such header.',
    )
    published_key_files: tuple[KeyFile, ...] = setting(
        listing(_kind_of(True)),
        [],
        about="Further keys (private or public) in the JWK Set at the admin port: the next one before a "
        "[change](context.md#change-the-key), the previous one after it.",
    )

    def warnings(self) -> Iterator[Located]:
        """A line for each private key that every user of this machine can read."""
        files = [("context.key_file", self.key_file)] if self.key_file else []
        files += [
            (f"context.published_key_files[{index}]", each) for index, each in enumerate(self.published_key_files)
        ]
        for at, file in files:
            if file is not None and file.private and file.exposed:
                path = shown(os.fspath(file.path))
                yield at, f"{path} can be read by every user, who can then sign as the gateway; run chmod o-r"


def contradictions(document: dict[str, object]) -> Iterator[Located]:
    """Contradictions between the two keys."""
    context = document.get("context")
    if isinstance(context, dict) and context.get("published_key_files") and not context.get("key_file"):
        yield "context.key_file", "is missing, and published_key_files needs it; write the file of the key that signs"


def read_keys_again(settings: ContextSettings) -> ContextSettings:
    """The present contents of the same files, for settings that come from no file. Raises ConfigurationError."""

    def again(file: KeyFile, publishing: bool) -> KeyFile:
        try:
            return read_key(file.path, publishing=publishing)
        except ValueError as error:
            raise ConfigurationError([f"{file.path}: {error}"]) from None

    return replace(
        settings,
        key_file=None if settings.key_file is None else again(settings.key_file, False),
        published_key_files=tuple(again(file, True) for file in settings.published_key_files),
    )
