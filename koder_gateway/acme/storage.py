"""What must outlive the ACME process, wherever it is kept: in the folder of the state, or in a store besides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import msgspec

from .layout import NameRecord
from .order_plan import Pace


class Account(msgspec.Struct, kw_only=True):
    """An account at an authority: its private key as a JWK, and its URL, "" before the authority has told that.
    `bound` is the id of the external account that it was made with, `contact` are the addresses that the authority
    was told, None for not known."""

    key: dict[str, str]
    url: str = ""
    bound: str = ""
    contact: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Challenge:
    """How one challenge is answered: by the text for a `token`, or by PEM with a key and a certificate for a
    `name`."""

    token: str
    name: str
    content: bytes


class StorageError(Exception):
    """It cannot be read or written; the text says why, and `advice` what to do."""

    def __init__(self, text: str, advice: str = "make room, or let the gateway's user write there") -> None:
        super().__init__(text)
        self.advice = advice


class Storage(Protocol):
    """Keeps accounts, records, keys, certificates and challenges. Each method raises StorageError. It may be used by
    several threads."""

    def lead(self, now: float) -> bool:
        """Take or keep the lease for this gateway; whether it is the one that orders."""

    def resign(self) -> None:
        """Give up the lease."""

    def account(self, directory: str) -> Account | None:
        """The account at an authority."""

    def keep_account(self, directory: str, account: Account) -> None:
        """Keep it."""

    def pace(self) -> Pace:
        """What all orders wait for."""

    def keep_pace(self, pace: Pace) -> None:
        """Keep it."""

    def records(self) -> Iterator[NameRecord]:
        """All records."""

    def keep_record(self, record: NameRecord) -> None:
        """Keep one."""

    def forget_record(self, name: str) -> None:
        """Forget one."""

    def order_key(self, name: str) -> bytes | None:
        """The key of the order that is under way, in PEM."""

    def keep_order_key(self, name: str, pem: bytes) -> None:
        """Keep it."""

    def forget_order_key(self, name: str) -> None:
        """Forget it."""

    def certificate(self, name: str) -> bytes | None:
        """The key and the chain of a name, in PEM."""

    def certificates(self) -> Iterator[str]:
        """The names of all certificates."""

    def keep_certificate(self, name: str, pem: bytes) -> None:
        """Put a certificate into use."""

    def forget_certificate(self, name: str) -> None:
        """Remove one."""

    def answer(self, challenge: Challenge) -> None:
        """Have every gateway answer a challenge."""

    def forget_challenge(self, challenge: Challenge) -> None:
        """Have none answer it any more."""

    def tidy(self, now: float) -> None:
        """Remove challenges and keys that a process has left whose end came first."""

    def follow(self) -> bool:
        """Bring this machine up to what other gateways have kept; whether certificates have changed."""
