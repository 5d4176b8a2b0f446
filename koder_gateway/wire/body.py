"""Message bodies: the chunked coding, in both directions, and trailers (RFC 9112 section 7).

A body delimited by length needs no decoder, only a count, which its owner keeps. The decoder passes data on as it
arrives and buffers only an unfinished line. For many small chunks `wire.chunk_runs` decodes ahead.
"""

from __future__ import annotations

import re
from typing import Final

from .chunk_runs import SMALLEST, read_run
from .fields import FIELD_LINE, PASS, PROTECTED, FieldKinds, folded
from .spoofable_fields import SPOOFABLE_FIELDS, SPOOFABLE_PREFIXES

LAST_CHUNK: Final = b"0\r\n\r\n"

_T: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED: Final = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"'
# At most 16 digits: no real chunk has 2^64 bytes or endless leading zeros. No space, sign, 0x or underscore.
_PLAIN: Final = re.compile(rb"[1-9A-Fa-f][0-9A-Fa-f]{0,15}\r\n|0\r\n")
# With extensions (section 7.1.1), but that no space parts them from the size, or zeros before it.
_ORNATE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,16})(?:;[ \t]*+%b(?:[ \t]*=[ \t]*+(?:%b|%b))?(?:[ \t]++(?=;))?)*+\r\n" % (_T, _T, _QUOTED)
)
# The beginning of such a line, as far as it has come; its extensions are looked at when they are whole.
_BEGINNING: Final = re.compile(rb"[0-9A-Fa-f]{1,16}(?:\Z|;|\r\Z)|\r\Z")
_MOST_DIGITS: Final = 16
_MAX_SIZE: Final = 2**63 - 1
_MAX_LINE: Final = 4096
_MAX_TRAILERS: Final = 8192
_PROTECTED: Final = frozenset(map(folded, PROTECTED | SPOOFABLE_FIELDS))
_PROTECTED_FAMILIES: Final = (b"xforwarded", b"accesscontrol", b"ratelimit", *map(folded, SPOOFABLE_PREFIXES))
_MAX_TRAILER_FIELDS: Final = 32
# How many bytes of framing a client may send before it must send as much data.
_SLACK: Final = 4096
# Chunks below this size are small, and after so many of them in a row a run may be read ahead.
_SMALL: Final = 128
_ENOUGH: Final = 8
# How many bytes of a run cost as much as parsing one line.
_RUN_COST: Final = 128
# The extra charge for each chunk, from the first one on that has extensions or leading zeros: honest clients do not
# use these for small chunks, and they can only be parsed line by line.
_ORNATE_COST: Final = 64


class BodyError(ValueError):
    """The body's framing is broken; the message says how, for the peer's developer."""


def chunk(data: bytes) -> bytes:
    """`data` (not empty) as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def trailers_fit(size: int, count: int, line: int) -> bool:
    """Whether trailers of `size` bytes in `count` lines, the longest of `line` bytes, are within their bounds; line
    ends count, and an HTTP/2 field counts as the line that it becomes."""
    return size <= _MAX_TRAILERS and count <= _MAX_TRAILER_FIELDS and line <= _MAX_LINE


def last_chunk(trailers: list[bytes]) -> bytes:
    """The last chunk with these finished trailer lines."""
    return b"0\r\n%b\r\n" % b"".join(trailers) if trailers else LAST_CHUNK


class ChunkedDecoder:
    """Decodes one chunked body, in pieces of any size: how the bytes are cut makes no difference.

    `done` is set at its end; `rest` is then what came after it, and `trailers` the lines that may be passed on.
    `tenant_header` names the field that no trailer may set, `allowed` (lower case) those that may pass, None for all
    others; with `kinds` those pass alone that would in a head. `named` (lower case) are the names that the message's
    Connection gives: they go no further. `slack` bounds what framing may cost: line bytes
    beyond `slack` plus the payload so far are refused, so that endless one-byte chunks and extensions in bulk end.

    Who shares its turn with others has so many chunks decoded at a time: `taken` then says how much of the data that
    was fed last has been read.
    """

    __slots__ = (
        "_allowed",
        "_kinds",
        "_line",
        "_named",
        "_overhead",
        "_plain",
        "_remaining",
        "_slack",
        "_small",
        "_state",
        "_tenant_header",
        "_trailer_bytes",
        "_trailer_fields",
        "done",
        "received",
        "rest",
        "taken",
        "trailers",
    )

    _SIZE_LINE, _DATA, _DATA_END, _TRAILERS = range(4)

    def __init__(
        self,
        slack: int = _SLACK,
        tenant_header: bytes = b"",
        allowed: frozenset[bytes] | None = None,
        *,
        kinds: FieldKinds | None = None,
        named: frozenset[bytes] = frozenset(),
    ) -> None:
        self.done = False
        self.rest = b""
        self.trailers: list[bytes] = []
        self.received = 0
        self.taken = 0
        self._slack = slack
        self._tenant_header = tenant_header
        self._allowed = allowed
        self._kinds = kinds
        self._named = named
        self._overhead = 0
        self._state = self._SIZE_LINE
        self._remaining = 0
        self._line: bytes | bytearray = b""
        self._trailer_bytes = 0
        self._trailer_fields = 0
        self._small = 0
        self._plain = True

    def feed(self, data: bytes, position: int = 0, most: int = 0) -> bytes:
        """The payload in `data` from `position` on, of about `most` chunks; 0: of all. Raises BodyError if the
        framing is broken."""
        pieces: list[bytes] = []
        end = len(data)
        left = most * 2
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
            if self._small >= _ENOUGH and end - position >= SMALLEST and self._state == self._SIZE_LINE:
                run = self._take_run(data, position, pieces)
                position += run
                left -= run // _RUN_COST
            stop = data.find(b"\n", position)
            if stop < 0:
                self._keep(data[position:])
                position = end
                break
            line = data[position : stop + 1]
            position = stop + 1
            if self._line:
                line, self._line = bytes(self._line + line), b""
            self._take_line(line)
            if self.done:
                self.rest = data[position:]
                break
            left -= 1
            if left <= 0 and most:
                break
        self.taken = position
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _take_run(self, data: bytes, position: int, pieces: list[bytes]) -> int:
        """Decode many small chunks at once; returns how many bytes that took. The rest is parsed by lines, which
        finds everything unusual."""
        if self._line or not self._plain:
            return 0
        run = read_run(data, position, self._slack + self.received - self._overhead)
        if run is None:
            # The obstacle is near, and another try would not remove it.
            self._small = -_ENOUGH * _ENOUGH
            return 0
        pieces.append(run.payload)
        self.received += len(run.payload)
        self._overhead += run.size - len(run.payload)
        return run.size

    def _keep(self, piece: bytes) -> None:
        """Keep the beginning of a line, or more of one, without parsing any byte twice."""
        line = self._line
        if not line:
            line = self._line = bytearray()
        assert isinstance(line, bytearray)
        line += piece
        if len(line) > _MAX_LINE:
            raise BodyError("A chunk or trailer line is too long.")
        if self._state == self._DATA_END and line != b"\r":
            raise BodyError("A chunk's data is longer than its size.")
        if (
            self._state == self._SIZE_LINE
            and len(line) - len(piece) <= _MOST_DIGITS
            and _BEGINNING.match(line) is None
        ):
            raise BodyError("A chunk's size is malformed.")

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
            raise BodyError("The chunk lines are longer than their data.")
        if _PLAIN.fullmatch(line) is None:
            size = self._ornate_size(line)
        else:
            size = int(line, 16)
        if size > _MAX_SIZE:
            raise BodyError("A chunk's size is out of range.")
        if not self._plain:
            self._overhead += _ORNATE_COST
        self._small = 0 if size >= _SMALL else self._small + 1
        self._remaining = size
        self._state = self._DATA if size else self._TRAILERS

    def _ornate_size(self, line: bytes) -> int:
        match = _ORNATE.fullmatch(line) if len(line) <= _MAX_LINE else None
        if match is None:
            raise BodyError("A chunk's size is malformed.")
        self._plain = False
        return int(match[1], 16)

    def _take_trailer(self, line: bytes) -> None:
        if line == b"\r\n":
            self.done = True
            return
        self._trailer_bytes += len(line)
        self._trailer_fields += 1
        bounded = trailers_fit(self._trailer_bytes, self._trailer_fields, len(line))
        match = FIELD_LINE.fullmatch(line, 0, len(line) - 2) if bounded else None
        if match is None:
            raise BodyError("The trailers are malformed or too long.")
        if self._passes(match[1]):
            self.trailers.append(b"%b: %b\r\n" % (match[1], match[2].rstrip(b" \t")))

    def _passes(self, name: bytes) -> bool:
        if self._kinds is not None and self._kinds.classify(name) != PASS:
            return False
        return name.lower() not in self._named and trailer_passes(name, self._tenant_header, self._allowed)


def trailer_passes(name: bytes, tenant_header: bytes, allowed: frozenset[bytes] | None = None) -> bool:
    """Whether a trailer may be passed on: nothing that frames, routes, authenticates or names a tenant (RFC 9110
    section 6.5.1), and only what is `allowed` (lower case) if that is given."""
    if allowed is not None and name.lower() not in allowed:
        return False
    form = folded(name)
    return not (
        form in _PROTECTED
        or b"_" in name
        or b"tenant" in form
        or form == folded(tenant_header)
        or form.startswith(_PROTECTED_FAMILIES)
    )
