"""The syntax of a request's head beyond llhttp's checks, and the refusal of a head that violates it (RFC 9112)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from ..errors import (
    BAD_FRAMING,
    BAD_REQUEST,
    HEAD_TOO_LARGE,
    METHODS,
    NOT_IMPLEMENTED,
    UNKNOWN_CODING,
    URI_TOO_LONG,
    Refusal,
)
from .fields import TOKEN

# llhttp also accepts RTSP, ICE, HTTP/0.9, two spaces and more: the start line has its own grammar here.
# (Its target is told by what it has, since what it has not is looked for four times as long.)
START_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([!-~\x80-\xff]+) HTTP/1\.([01])\r\n")
KNOWN_METHODS: Final = frozenset(METHODS)
_OVERLONG_METHOD: Final = re.compile(rb"[!#$%%&'*+\-.^_`|~0-9A-Za-z]{%d}" % (max(map(len, METHODS)) + 1))
_LENGTH_LINE: Final = re.compile(rb"\r\ncontent-length[ \t]*:")
BAD_START_LINE: Final = BAD_FRAMING.because("The request line is malformed, or its HTTP version is not supported.")


class FieldSink:
    """Collects the headers that llhttp parses."""

    __slots__ = ("fields",)

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))


def syntax_refusal(raw: bytes | bytearray, error: Exception) -> Refusal:
    """The refusal of a head that llhttp does not accept."""
    start = START_LINE.match(raw)
    if start is not None and start[1] not in KNOWN_METHODS and start[1] not in (b"TRACE", b"CONNECT"):
        # llhttp does not know the method, or knows it from another protocol.
        return NOT_IMPLEMENTED.closing()
    return BAD_FRAMING.because(f"The request's head is malformed: {error}.")


def coding_refusal(raw: bytes, fields: list[tuple[bytes, bytes]]) -> Refusal | None:
    """501 for an unknown transfer coding that stands alone; any other trouble with framing is 400."""
    codings = [value for name, value in fields if name.lower() == b"transfer-encoding"]
    if len(codings) != 1 or _LENGTH_LINE.search(raw.lower()):
        return None
    coding = codings[0].strip(b" \t")
    if TOKEN.fullmatch(coding) is None or coding.lower() == b"chunked":
        return None
    return UNKNOWN_CODING


@lru_cache(maxsize=64)
def bad_request(fault: str) -> Refusal:
    """400 with one of the few sentences about targets and hosts."""
    return BAD_REQUEST.because(fault)


def oversized(raw: bytes, max_line: int) -> Refusal:
    """431, or where the request line alone is too long 414 (RFC 6585 section 5, RFC 9110 section 15.5.15), or 501."""
    if b"\n" in raw[:max_line]:
        return HEAD_TOO_LARGE
    # A method that is longer than any known one is invalid (RFC 9112 section 3), whatever may follow it.
    return NOT_IMPLEMENTED.closing() if _OVERLONG_METHOD.match(raw) else URI_TOO_LONG
