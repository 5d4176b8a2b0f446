"""A plain HTTP request on a TLS port: it gets a plain response that says so."""

from __future__ import annotations

import re
from typing import Final

from ..errors import BAD_REQUEST
from ..wire.identifiers import IdentifierSource
from ..wire.refusal_writer import OWN_FIELDS, RefusalWriter
from ..wire.unread_head import known_of

_identifiers = IdentifierSource()
_REFUSAL: Final = BAD_REQUEST.because("This port speaks TLS; use https.").closing()
_ADVICE: Final = "Write https:// in front of the address, then try again."
# The part of a head that is read, for its request id; then the response is sent without waiting for its end.
_LARGEST: Final = 16 << 10
# A method may be any token (RFC 9110 section 5.6.2). No TLS record begins with one of its characters, and the longest
# registered method has 17.
_METHOD: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}"
# A method, or the beginning of one: OpenSSL fails after five bytes.
_BEGINNING: Final = re.compile(_METHOD + rb"(?: |\Z)|\Z")
# A method must be followed by a target or a version; otherwise it might be the greeting of SSH or SMTP.
_REQUEST_LINE: Final = re.compile(_METHOD + rb" +(?! )(?:[/*]|[a-z][a-z0-9+.-]*://|.* HTTP/[0-9])", re.IGNORECASE)
_BINARY: Final = re.compile(rb"[\x00-\x1f\x7f]")
_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
_REQUEST_ID: Final = re.compile(rb"\nX-Request-ID:[ \t]*([A-Za-z0-9._-]{1,128})[ \t]*\r?(?=\n)", re.IGNORECASE)
_ANSWER: Final = (
    b"HTTP/1.1 400 Bad Request\r\n%b%bContent-Length: %d\r\nX-Request-ID: %b\r\nConnection: close\r\n\r\n%b"
)


def begins_plain(data: bytes) -> bool:
    """Whether these first bytes of a connection may be those of a plain request."""
    return _BEGINNING.match(data.lstrip(b"\r\n")) is not None


class PlainRequest:
    """Collects the head of one plain request, in pieces of any size. `refusals` writes the response."""

    __slots__ = ("_head", "_lined", "_refusals")

    def __init__(self, refusals: RefusalWriter) -> None:
        self._refusals = refusals
        self._head = b""
        self._lined = False

    def feed(self, data: bytes) -> bytes | None:
        """The bytes to send before the connection closes, none if it is not a request; None to wait for more."""
        before = len(self._head)
        head = self._head + data
        if not before:
            # Empty lines before a request are ignored (RFC 9112 section 2.2).
            head = head.lstrip(b"\r\n")
        head = self._head = head[:_LARGEST]
        full = len(head) == _LARGEST
        if not self._lined:
            if b"\n" not in head[before:] and not full:
                return None if begins_plain(head) else b""
            line = self._line()
            if not _is_request(line):
                return b""
            self._lined = True
            if len(line.split()) == 2:
                # Without a version (HTTP/0.9) the line is the whole request.
                return self._answer()
        # The end may have begun in the previous piece.
        if not full and not _HEAD_END.search(head, max(0, before - 3)):
            return None
        return self._answer()

    def late(self) -> bytes:
        """The bytes to send when no more of it arrives in time; none if it is not clearly a request."""
        return self._answer() if self._lined or _is_request(self._line()) else b""

    def _line(self) -> bytes:
        return self._head.partition(b"\n")[0].removesuffix(b"\r")

    def _answer(self) -> bytes:
        head = _HEAD_END.split(self._head, 1)[0] + b"\n"
        given = _REQUEST_ID.findall(head)
        request_id = given[0] if len(given) == 1 else _identifiers.random_hex(32)
        if known_of(head)[2]:
            fields, body = self._refusals.page.write(_REFUSAL, request_id, b"", _ADVICE)
        else:
            fields, body = self._refusals.problem.write(_REFUSAL, request_id)
        return _ANSWER % (fields, OWN_FIELDS, len(body), request_id, body)


def _is_request(line: bytes) -> bool:
    return _REQUEST_LINE.match(line) is not None and not _BINARY.search(line)
