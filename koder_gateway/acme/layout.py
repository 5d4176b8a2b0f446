"""The folder of the state that has names, certificates and challenges: where everything is, and in which form.

The ACME process alone writes there. Gateways read: every file appears by one rename, so a reader sees all of it or
none. Readers of challenges open the one that is asked for; readers of certificates look at `version`.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from errno import EINVAL
from pathlib import Path
from typing import Final, Literal

import msgspec

# The folder below `state.dir`.
FOLDER: Final = "acme"
# A file's name has 255 bytes at most (NAME_MAX), with an ending, and a few more while it is written.
_LONGEST_STEM: Final = 200
_KEPT_OF_IT: Final = 150
# A token is base64url (RFC 8555 section 8.1); all that are known have 43 characters.
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{16,128}")
_NAME: Final = re.compile(r"(?=.{4,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}")
# A record has few members, of which the authority's words are the longest; see `records`.
LONGEST_RECORD: Final = 1 << 14
# The year 10000, in seconds since the epoch: dates end there.
_LATEST: Final = 253402300800.0

State = Literal["waiting", "checking", "ordering", "issued", "failed", "held"]


class NameRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One name. Times are seconds since the epoch, 0 for never.

    `waiting`: it has no certificate yet, nothing is wrong; `checking`: whether it leads here; `held`: it does not;
    `ordering`: an order is under way; `issued`: it has a certificate; `failed`: the last order has failed, and the
    next one is at `next_try`. A name with a certificate that is renewed keeps that meanwhile; `not_after` tells.
    `attempts` are those that have failed in a row. `last_fault` has the authority's own words, or ours, `advice` what
    to do; `of_all`: that was no fault of this name's. `window` is the authority's for the renewal, which is asked for
    again at `ask_again` (RFC 9773), `explanation` its page about that (before
    `earliest` it is not followed).
    """

    name: str
    first_seen: float
    state: State = "waiting"
    attempts: int = 0
    next_try: float = 0.0
    last_try: float = 0.0
    last_fault: str = ""
    advice: str = ""
    of_all: bool = False
    issuer: str = ""
    not_before: float = 0.0
    not_after: float = 0.0
    next_renewal: float = 0.0
    window: tuple[float, float] | None = None
    ask_again: float = 0.0
    earliest: float = 0.0
    explanation: str = ""
    order_url: str = ""
    warned: bool = False


class Lease(msgspec.Struct, kw_only=True):
    """Who orders, until when (seconds since the epoch). `process` says which process of which system it is, so that
    the next one need not wait for one that has ended."""

    owner: str
    until: float
    process: str = ""


def is_token(text: str) -> bool:
    """Whether a text may be a challenge's token, and a file's name."""
    return _TOKEN.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Whether a text in lower case is a name that an authority could issue for, and a file's name."""
    return _NAME.fullmatch(text) is not None and not text.rpartition(".")[2].isdigit()


def stem(name: str) -> str:
    """A name as that of a file, without an ending. The few that are too long for one are cut and hashed."""
    if len(name) <= _LONGEST_STEM:
        return name
    return f"{name[:_KEPT_OF_IT]}~{hashlib.sha256(name.encode()).hexdigest()[:32]}"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are below `root`, the folder `FOLDER` of `state.dir`."""

    root: Path

    @classmethod
    def below(cls, state: Path) -> Layout:
        """The layout in a state folder."""
        return cls(state / FOLDER)

    @property
    def certificates(self) -> Path:
        """The folder with a file for each certificate: its key, and the chain."""
        return self.root / "certificates"

    @property
    def version(self) -> Path:
        """A file that is written anew after each change among the certificates."""
        return self.certificates / ".version"

    @property
    def http_challenges(self) -> Path:
        """The folder with a file for each token of http-01."""
        return self.root / "challenges" / "http"

    @property
    def alpn_challenges(self) -> Path:
        """The folder with a file for each name that tls-alpn-01 is asked for."""
        return self.root / "challenges" / "alpn"

    @property
    def names(self) -> Path:
        """The folder with a record for each name."""
        return self.root / "names"

    @property
    def orders(self) -> Path:
        """The folder with the key of each order that is under way."""
        return self.root / "orders"

    @property
    def rate(self) -> Path:
        """The times of the orders of the last hour, and until when the authority is left alone."""
        return self.root / "rate.json"

    @property
    def lease(self) -> Path:
        """Who orders."""
        return self.root / "lease"

    @property
    def folders(self) -> tuple[Path, ...]:
        """All of them, parents first."""
        challenges = self.root / "challenges"
        return (
            self.root,
            self.certificates,
            challenges,
            self.http_challenges,
            self.alpn_challenges,
            self.names,
            self.orders,
        )

    def account(self, directory: str) -> Path:
        """The account at the authority with this directory."""
        return self.root / f"account-{hashlib.sha256(directory.encode()).hexdigest()[:16]}.json"

    def certificate(self, name: str) -> Path:
        """The key and the chain of a name."""
        return self.certificates / f"{stem(name)}.pem"

    def record(self, name: str) -> Path:
        """The record of a name."""
        return self.names / f"{stem(name)}.json"

    def order_key(self, name: str) -> Path:
        """The key for the certificate that is ordered for a name."""
        return self.orders / f"{stem(name)}.pem"

    def http_challenge(self, token: str) -> Path | None:
        """The key authorization for a token; None for a text that is none."""
        return self.http_challenges / token if is_token(token) else None

    def alpn_challenge(self, name: str) -> Path | None:
        """The key and the certificate that answer tls-alpn-01 for a name; None for a text that is none."""
        return self.alpn_challenges / f"{stem(name)}.pem" if is_name(name) else None


_decoder: Final = msgspec.json.Decoder(NameRecord)


def read_record(path: Path) -> NameRecord | None:
    """A record; None where there is none, or one that was cut off by the system's own end, or that nobody here has
    written."""
    with suppress(OSError, msgspec.MsgspecError):
        record = _decoder.decode(read_regular(path, LONGEST_RECORD))
        if stem(record.name) == path.stem and _is_sensible(record):
            return record
    return None


def _is_sensible(record: NameRecord) -> bool:
    times = [record.first_seen, record.next_try, record.last_try, record.not_before, record.not_after]
    times += [record.next_renewal, record.ask_again, record.earliest, *(record.window or ())]
    return all(abs(time) < _LATEST for time in times)


def read_regular(path: Path, longest: int) -> bytes:
    """The first bytes of a file. Raises OSError; also where it is a pipe, which nobody may ever write to."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(EINVAL, "is not a regular file; remove it")
        return file.read(longest)


def read_records(layout: Layout) -> Iterator[NameRecord]:
    """All records, in no order."""
    try:
        paths = sorted(layout.names.glob("*.json"))
    except OSError:
        return
    for path in paths:
        record = read_record(path)
        if record is not None:
            yield record
