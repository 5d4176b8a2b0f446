"""ACME's HTTP-01 challenges (RFC 8555 section 8.3): of the gateway's own orders, and as certbot's --webroot writes
them to a folder.

A token comes from the client, so it is only used as a name and never as a path, and no symbolic link is followed
except in the folder that the operator named.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final, Protocol

PREFIX: Final = b"/.well-known/acme-challenge/"
_FOLDERS: Final = (".well-known", "acme-challenge")
_TOKEN: Final = re.compile(rb"[A-Za-z0-9_-]{1,128}")
# A key authorization has about a hundred bytes.
_MAX_FILE: Final = 65536
# Non-blocking: the file might be a pipe.
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class ChallengeError(Exception):
    """A file that cannot be served; the text has the reason, and what to change."""


class TokenPlace(Protocol):
    """Where the challenges of the gateway's own orders are."""

    def http_challenge(self, token: str) -> Path | None:
        """The file with a token's key authorization; None for a text that is no token."""


def read_challenge(webroot: Path, path: bytes) -> bytes | None:
    """The contents of a challenge's file; None if the path names none or there is none.

    A few small reads of a file that was just written: they do not block the reactor for long. Raises ChallengeError.
    """
    token = path[len(PREFIX) :]
    if _TOKEN.fullmatch(token) is None:
        return None
    name = token.decode("ascii")
    shown = webroot.joinpath(*_FOLDERS, name)
    try:
        descriptor = os.open(webroot, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ChallengeError(f"{webroot}: {error.strerror}; make the folder that tls.acme_webroot names") from None
    try:
        for folder in _FOLDERS:
            descriptor = _replaced(descriptor, os.open(folder, _FLAGS | os.O_DIRECTORY, dir_fd=descriptor))
        descriptor = _replaced(descriptor, os.open(name, _FLAGS, dir_fd=descriptor))
        return _content(descriptor, shown)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ChallengeError(
            f"{shown}: {error.strerror}; let the gateway's user read it, with no symbolic link on the way"
        ) from None
    finally:
        os.close(descriptor)


def read_own_challenge(place: TokenPlace, path: bytes) -> bytes | None:
    """The same of the gateway's own orders, in a folder that only the gateway writes to. Raises ChallengeError."""
    file = place.http_challenge(path[len(PREFIX) :].decode("latin-1"))
    if file is None:
        return None
    descriptor = -1
    try:
        descriptor = os.open(file, _FLAGS)
        return _content(descriptor, file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ChallengeError(f"{file}: {error.strerror}; let the gateway's user read it") from None
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _replaced(before: int, after: int) -> int:
    os.close(before)
    return after


def _content(descriptor: int, shown: Path) -> bytes:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise ChallengeError(f"{shown}: is not a regular file; have certbot --webroot write it")
    content = b""
    while len(content) <= _MAX_FILE:
        piece = os.read(descriptor, _MAX_FILE + 1 - len(content))
        if not piece:
            return content
        content += piece
    raise ChallengeError(f"{shown}: has more than {_MAX_FILE} bytes, which no challenge has; remove it")
