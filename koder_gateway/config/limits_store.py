"""`[limits_store]`: where the store is, and how the gateway introduces itself there."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import SplitResult, urlsplit

from .faults import Located, ReadError, reason, shown
from .kinds import Kind, Where, matching, parsed, refined
from .shapes import pattern
from .values import DEADLINE, FILE, is_host, parse_unix

_EXAMPLE: Final = '"redis://127.0.0.1:6379/0"'
_SCHEMES: Final = ("redis", "rediss")
_DATABASE: Final = re.compile(r"/?|/([0-9]{1,5})")
_PREFIX: Final = re.compile(r"[A-Za-z0-9._:{}-]{1,64}")
# A password in a file is one line.
_LONGEST: Final = 4096
# In seconds; settings.py has the same as a configuration writes it.
DEFAULT_TIMEOUT: Final = 0.05
DEFAULT_PREFIX: Final = "koder-gateway:"
# A request that waits for longer than this had better be decided by somebody else.
_LONGEST_WAIT: Final = 5.0


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """Where the store is: `memory` (in this process), `unix` with a `path`, or `redis` or `rediss` (TLS) with `host`,
    `port` and the number of the `database`. `text` is the whole URL."""

    text: str
    scheme: str
    host: str = ""
    port: int = 0
    database: int = 0
    path: str = ""

    @property
    def stays_here(self) -> bool:
        """Whether nothing that is sent there leaves this machine."""
        if self.scheme in ("memory", "unix") or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class Password:
    """A password, and the file that has it."""

    path: Path = field(compare=False)
    value: str = field(repr=False)


def _parse_url(text: str) -> StoreUrl:
    if text == "memory:":
        return StoreUrl(text, "memory")
    if text.startswith("unix:"):
        unix = parse_unix(text)
        return StoreUrl(unix, "unix", path=unix.removeprefix("unix:"))
    otherwise = f'is not a limits store; write "memory:", a socket as in "unix:/run/redis.sock", or {_EXAMPLE}'
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise ValueError(otherwise)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(otherwise) from None
    if parts.scheme not in _SCHEMES or not text.startswith(f"{parts.scheme}://"):
        raise ValueError(otherwise)
    if "@" in parts.netloc:
        raise ValueError("has a user or a password in it; write these as user and password_file")
    if not parts.hostname or port == 0 or not is_host(parts.hostname, bracketed="[" in parts.netloc):
        raise ValueError(f"has no usable host; write one as in {_EXAMPLE}")
    return _located(parts, parts.hostname, port or 6379)


def _located(parts: SplitResult, host: str, port: int) -> StoreUrl:
    match = _DATABASE.fullmatch(parts.path)
    if match is None or parts.query or parts.fragment:
        raise ValueError(f"has something after the host that is no number of a database; write one as in {_EXAMPLE}")
    database = int(match[1] or 0)
    shown_host = f"[{host}]" if ":" in host else host
    return StoreUrl(f"{parts.scheme}://{shown_host}:{port}/{database}", parts.scheme, host, port, database)


def _read_password(value: object, where: Where) -> Password:
    path = FILE.read(value, where)
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fault = reason(error) if isinstance(error, OSError) else "is not text in UTF-8"
        raise ReadError.because(f"{shown(value)}: {fault}; write the password there, in one line") from None
    line = text.removesuffix("\n").removesuffix("\r")
    if not line:
        raise ReadError.because(f"{shown(value)}: has no password; write it there, in one line")
    if len(content) > _LONGEST:
        raise ReadError.because(
            f"{shown(value)}: has more than {_LONGEST} bytes; write the password alone, in one line"
        )
    if any(c in line for c in "\r\n\0"):
        raise ReadError.because(f"{shown(value)}: has more than one line; write the password alone, in one line")
    return Password(path, line)


def _prefix_fault(text: str) -> str | None:
    if _PREFIX.fullmatch(text):
        return None
    return 'is not a prefix of keys; write 1 to 64 letters, digits and ._:{}-, as in "koder-gateway:"'


def _user_fault(text: str) -> str | None:
    if text.isascii() and text.isprintable() and " " not in text and 0 < len(text) <= 256:
        return None
    return "is not a user; write its name in printable ASCII, without spaces"


class StoreKeys(Protocol):
    """The keys of the section that depend on each other."""

    @property
    def url(self) -> StoreUrl:
        """Where it is."""

    @property
    def ca(self) -> Path | None:
        """The authorities of its certificate."""

    @property
    def timeout(self) -> float:
        """How long a request waits for it, in seconds."""

    @property
    def prefix(self) -> str:
        """How its keys begin."""

    @property
    def user(self) -> str:
        """Who the gateway is there."""

    @property
    def password_file(self) -> Password | None:
        """How it proves that."""


S = TypeVar("S", bound=StoreKeys)


def checked(section: S) -> S:
    """The section, if its keys belong together. Raises ReadError."""
    faults: list[Located] = []
    scheme = section.url.scheme
    if section.ca is not None and scheme != "rediss":
        faults.append((".ca", 'has no effect without TLS; write a url that begins with "rediss://", or leave it out'))
    if scheme == "memory":
        idle = {
            ".timeout": section.timeout != DEFAULT_TIMEOUT,
            ".password_file": section.password_file is not None,
            ".prefix": section.prefix != DEFAULT_PREFIX,
        }
        faults += [(key, 'has no effect with url = "memory:"; leave it out') for key, given in idle.items() if given]
    if section.user and section.password_file is None:
        faults.append((".user", "has no effect without a password; write password_file too, or leave it out"))
    if faults:
        raise ReadError(faults)
    return section


def _bare_url(value: Any) -> str | None:
    return f"{shown(value)} is not a string; write it in quotes, as in {_EXAMPLE}"


STORE_URL: Final[Kind[StoreUrl]] = parsed(
    "URL", _parse_url, _bare_url, shape=pattern("memory:|unix:/.+|rediss?://.+")
)
STORE_TIMEOUT: Final = refined(
    DEADLINE, lambda seconds: seconds <= _LONGEST_WAIT, 'is too long for a request to wait; write at most "5s"'
)
PASSWORD: Final[Kind[Password]] = Kind("file", _read_password, shape=FILE.shape, located=True)
PREFIX: Final = matching("prefix", _prefix_fault, shape=pattern(_PREFIX.pattern))
USER: Final = matching("name", _user_fault)
