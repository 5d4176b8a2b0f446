"""RESP2, as far as the store of limits speaks it: commands, and the few kinds of replies that may answer them.

Whoever answers is not trusted. A reply is a short line (`+OK`, `-ERR ...`), a string of the length of a script's
digest, or an array of a few numbers. What is longer, nested or of another kind is a `BadReply` as soon as it is
recognized, so that no length that a peer announces ever costs memory.
Source: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import re
from typing import Final

# The longest line of a reply, and the most bytes of one that is not complete.
LONGEST: Final = 1024
_PENDING: Final = 32768
# An array has at most 999 numbers, one for each limit on a request.
_NUMBERS: Final = re.compile(rb"\*([1-9][0-9]{0,2})\r\n((?::-?[0-9]{1,18}\r\n)+)")
_ARRAY: Final = re.compile(rb"\*[1-9][0-9]{0,2}\r\n")
# The beginning of a TLS alert (RFC 8446 section 5.1).
_ALERT: Final = b"\x15\x03"
# SHA-1 in hexadecimal digits: what SCRIPT LOAD answers.
_DIGEST: Final = re.compile(rb"\$40\r\n([0-9a-f]{40})\r\n")


class BadReply(ValueError):
    """This is no answer to what was asked; the text says why, in a few words."""


class ErrorReply(bytes):
    """The text of an error that the server has answered, without its "-"."""

    __slots__ = ()

    def __str__(self) -> str:
        """The text for a log line: printable, and not too long."""
        return "".join(c if " " <= c <= "~" else "?" for c in self[:200].decode("latin-1"))


Reply = list[int] | bytes


def command(*words: bytes) -> bytes:
    """One command, as an array of bulk strings."""
    return b"*%d\r\n" % len(words) + b"".join(map(bulk, words))


def bulk(word: bytes) -> bytes:
    """One word of a command."""
    return b"$%d\r\n%b\r\n" % (len(word), word)


class ReplyReader:
    """Splits what a server sends into replies, in pieces of any size."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that are complete with this piece. Raises BadReply, after which nothing more may be fed."""
        if self._rest:
            data = self._rest + data
        replies: list[Reply] = []
        at, size = 0, len(data)
        while at < size:
            match = _NUMBERS.match(data, at)
            if match is not None:
                numbers = list(map(int, match[2][1:-2].split(b"\r\n:")))
                wanted = int(match[1])
                at = match.end()
                if len(numbers) == wanted:
                    replies.append(numbers)
                    continue
                if len(numbers) > wanted or (at < size and data[at] not in b":"):
                    raise BadReply("an array of another length than announced")
                at = match.start()
                break
            other = _other(data, at)
            if other is None:
                break
            reply, at = other
            replies.append(reply)
        self._rest = data[at:]
        if len(self._rest) > _PENDING:
            raise BadReply("a reply that is too long")
        return replies


def _other(data: bytes, at: int) -> tuple[Reply, int] | None:
    """The reply that is no array of numbers and begins at this place, and where it ends; None if it is incomplete."""
    kind = data[at : at + 1]
    if kind == b"$":
        match = _DIGEST.match(data, at)
        if match is not None:
            return match[1], match.end()
        if data.startswith(b"$40\r\n"[: len(data) - at], at) and len(data) - at < 47:
            return None
        raise BadReply("a string that nobody asked for")
    if kind not in (b"+", b"-", b"*"):
        if data.startswith(_ALERT, at):
            raise BadReply("a TLS alert: it speaks TLS there; write rediss://")
        raise BadReply(f"{data[at : at + 16]!r}, which is no reply of Redis")
    end = data.find(b"\r\n", at, at + LONGEST)
    if end < 0:
        if len(data) - at >= LONGEST:
            raise BadReply("a line that is too long")
        return None
    if kind == b"*":
        if _ARRAY.match(data, at) is None or data[end + 2 : end + 3] not in (b"", b":"):
            raise BadReply("an array that nobody asked for")
        return None
    line = data[at + 1 : end]
    return (ErrorReply(line) if kind == b"-" else line), end + 2
