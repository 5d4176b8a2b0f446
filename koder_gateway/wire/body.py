"""Message bodies: the chunked coding, both ways, and trailers (RFC 9112 section 7).

A body delimited by length needs no decoder, only a count; its owner keeps that. The decoder passes data on as
it comes and buffers nothing but an unfinished line.
"""

from __future__ import annotations

import re
from typing import Final

from .fields import CLAIMS, FIELD_LINE, PROTECTED, folded

LAST_CHUNK: Final = b"0\r\n\r\n"

# At most 16 digits: 2^64 and leading zeros without end are nobody's chunk. No space, sign, 0x or underscore.
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t\x20-\x7e\x80-\xff]*)?")
_MAX_SIZE: Final = 2**63 - 1
_MAX_LINE: Final = 4096
_MAX_TRAILERS: Final = 8192
_PROTECTED: Final = frozenset(map(folded, PROTECTED | CLAIMS))


class BodyError(ValueError):
    """The body's framing is broken; the message says how, for the peer's developer."""


def chunk(data: bytes) -> bytes:
    """`data` (not empty) as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: list[bytes]) -> bytes:
    """The last chunk with these finished trailer lines."""
    return b"0\r\n%b\r\n" % b"".join(trailers) if trailers else LAST_CHUNK


class ChunkedDecoder:
    """Decodes one chunked body.

    `done` is set at its end; `rest` is then what came after it, and `trailers` the lines that may be passed on.
    `tenant_header` names the field that no trailer may set, `allowed` (lower case) those that may pass, None for all
    others. `slack` bounds what framing may cost: line bytes
    beyond `slack` plus the payload so far are refused, so that endless one-byte chunks and extensions in bulk end.
    """

    __slots__ = (
        "_allowed",
        "_line",
        "_overhead",
        "_remaining",
        "_slack",
        "_state",
        "_tenant_header",
        "_trailer_bytes",
        "done",
        "received",
        "rest",
        "trailers",
    )

    _SIZE_LINE, _DATA, _DATA_END, _TRAILERS = range(4)

    def __init__(
        self, slack: int = 8192, tenant_header: bytes = b"", allowed: frozenset[bytes] | None = None
    ) -> None:
        self.done = False
        self.rest = b""
        self.trailers: list[bytes] = []
        self.received = 0
        self._slack = slack
        self._tenant_header = tenant_header
        self._allowed = allowed
        self._overhead = 0
        self._state = self._SIZE_LINE
        self._remaining = 0
        self._line = b""
        self._trailer_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """The payload in `data`. Raises BodyError where the framing is broken."""
        if self._line:
            data = self._line + data
            self._line = b""
        pieces: list[bytes] = []
        position, end = 0, len(data)
        while position < end:
            if self._state == self._DATA:
                piece = data[position : position + self._remaining]
                pieces.append(piece)
                position += len(piece)
                self.received += len(piece)
                self._remaining -= len(piece)
                if self._remaining:
                    break
                self._state = self._DATA_END
                continue
            stop = data.find(b"\n", position)
            if stop < 0:
                self._keep(data[position:])
                break
            line = data[position : stop + 1]
            position = stop + 1
            self._take_line(line)
            if self.done:
                self.rest = data[position:]
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _keep(self, line: bytes) -> None:
        if len(line) > _MAX_LINE:
            raise BodyError("A chunk or trailer line is too long.")
        if self._state == self._DATA_END and line != b"\r":
            raise BodyError("A chunk's data is longer than its size.")
        if self._state == self._SIZE_LINE and _SIZE.fullmatch(line.removesuffix(b"\r")) is None and line != b"\r":
            raise BodyError("A chunk's size is malformed.")
        self._line = line

    def _take_line(self, line: bytes) -> None:
        if line[-2:] != b"\r\n":
            raise BodyError("A chunk or trailer line ends without CR LF.")
        if self._state == self._TRAILERS:
            self._take_trailer(line)
            return
        self._overhead += len(line)
        if self._state == self._DATA_END:
            if line != b"\r\n":
                raise BodyError("A chunk's data is longer than its size.")
            self._state = self._SIZE_LINE
            return
        if self._overhead > self._slack + self.received:
            raise BodyError("The chunk lines outweigh their data.")
        match = _SIZE.fullmatch(line, 0, len(line) - 2)
        if match is None or len(line) > _MAX_LINE:
            raise BodyError("A chunk's size is malformed.")
        self._remaining = int(match[1], 16)
        if self._remaining > _MAX_SIZE:
            raise BodyError("A chunk's size is out of range.")
        self._state = self._DATA if self._remaining else self._TRAILERS

    def _take_trailer(self, line: bytes) -> None:
        if line == b"\r\n":
            self.done = True
            return
        self._trailer_bytes += len(line)
        match = FIELD_LINE.fullmatch(line, 0, len(line) - 2)
        if match is None or self._trailer_bytes > _MAX_TRAILERS:
            raise BodyError("The trailers are malformed or too long.")
        if trailer_passes(match[1], self._tenant_header, self._allowed):
            self.trailers.append(b"%b: %b\r\n" % (match[1], match[2].rstrip(b" \t")))


def trailer_passes(name: bytes, tenant_header: bytes, allowed: frozenset[bytes] | None = None) -> bool:
    """Whether a trailer may go on: nothing that frames, routes, authenticates or names a tenant (RFC 9110 section
    6.5.1), and only what is `allowed` (lower case) where that is given."""
    if allowed is not None and name.lower() not in allowed:
        return False
    form = folded(name)
    return not (
        form in _PROTECTED
        or b"_" in name
        or b"tenant" in form
        or form == folded(tenant_header)
        or form.startswith((b"xforwarded", b"accesscontrol", b"ratelimit"))
    )
