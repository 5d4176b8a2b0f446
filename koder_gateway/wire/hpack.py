"""HPACK: field blocks to headers and back (RFC 7541).

Requests are decoded with the dynamic table that the protocol requires. Responses are encoded without one: each header
line has the same bytes every time, so they are made once and cached.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from .http2_frames import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, Http2Error
from .huffman import HuffmanError
from .huffman import decode as decode_huffman

_STATIC_FIELDS: Final = (
    ":authority|:method GET|:method POST|:path /|:path /index.html|:scheme http|:scheme https|:status 200|"
    ":status 204|:status 206|:status 304|:status 400|:status 404|:status 500|accept-charset|"
    "accept-encoding gzip, deflate|accept-language|accept-ranges|accept|access-control-allow-origin|age|allow|"
    "authorization|cache-control|content-disposition|content-encoding|content-language|content-length|"
    "content-location|content-range|content-type|cookie|date|etag|expect|expires|from|host|if-match|"
    "if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|link|location|max-forwards|"
    "proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|server|set-cookie|"
    "strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate"
)
# The size of the dynamic table that every peer may use; no other is ever announced (section 4.2).
TABLE_SIZE: Final = 4096
_OVERHEAD: Final = 32
_MAX_INTEGER: Final = 2**28
# How many times the limits a block may have before decoding stops; up to there only its request is refused.
_EXCESS: Final = 4
# What is kept of a list over the limits: enough for its refusal.
_KEPT_NAMES: Final = frozenset(
    (b":method", b":path", b":authority", b"host", b"origin", b"accept", b"sec-fetch-mode")
)
# Pseudo fields, and a Host beside them: the limit of fields is that of HTTP/1.1, which has them in its first line.
_BESIDE: Final = 6
# What a field counts here is less than in its table's entry: as a line of HTTP/1.1 it has `: ` and CR LF around it.
_SAVED: Final = _OVERHEAD - 4
# And of a cookie's crumbs all but the first have `; ` alone. Short ones count ten bytes all the same: so few fit.
_SAVED_BY_CRUMB: Final = len("cookie") + 2
# How many parts of a cookie count as one header, which is more than browsers keep cookies for one site; each further
# one counts.
_CRUMBS: Final = 256
# The pseudo fields of a request have more around them than its first line, Host and the empty line.
_PSEUDO_SURPLUS: Final = 28
# An encoder may change the table's size twice before a block: to the least there was since the last one, and to the
# one in force.
_MAX_RESIZES: Final = 2
# Huffman-coded strings up to this length are cached: names, methods, paths, and values that clients always send.
_REMEMBERED_LENGTH: Final = 128

# RFC 9113 section 8.2.1: no upper case, no control bytes, no white space around; a colon only begins pseudo fields.
_NAME: Final = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE: Final = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")


class Field(NamedTuple):
    """A decoded header. `size` is what the table and the list count for it (section 4.1); `good` says whether name
    and value are valid in HTTP/2, checked once for as long as it is in a table."""

    name: bytes
    value: bytes
    size: int
    good: bool


def make_field(name: bytes, value: bytes) -> Field:
    """A header, checked."""
    good = _NAME.fullmatch(name) is not None and _VALUE.fullmatch(value) is not None
    return Field(name, value, len(name) + len(value) + _OVERHEAD, good)


STATIC: Final = tuple(
    make_field(name.encode(), value.encode())
    for name, _, value in (entry.partition(" ") for entry in _STATIC_FIELDS.split("|"))
)
_STATIC_SIZE: Final = len(STATIC)


class HpackError(Http2Error):
    """A field block that cannot be decoded: the tables of both sides differ from here on (RFC 9113 section 4.3)."""

    def __init__(self, reason: str) -> None:
        super().__init__(COMPRESSION_ERROR, reason)


class OversizedBlock(Http2Error):
    """A field block that is many times over the limits and was not decoded to its end, so that no later one can be
    decoded."""

    def __init__(self) -> None:
        super().__init__(ENHANCE_YOUR_CALM, "a field block is many times over the limit")


def _integer(block: bytes, position: int, prefix: int) -> tuple[int, int]:
    """The integer at `position` behind a prefix of ones, and where it ends (section 5.1)."""
    value = block[position] & prefix
    position += 1
    if value < prefix:
        return value, position
    shift = 0
    while position < len(block):
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        shift += 7
        if value > _MAX_INTEGER or shift > 35:
            raise HpackError("an integer in a field block is out of range")
        if byte < 0x80:
            return value, position
    raise HpackError("a field block ends within an integer")


def _string(block: bytes, position: int) -> tuple[bytes, int]:
    """The string at `position`, and where it ends (section 5.2)."""
    if position >= len(block):
        raise HpackError("a field block ends before a string")
    first = block[position]
    length = first & 0x7F
    if length == 0x7F:
        length, position = _integer(block, position, 0x7F)
    else:
        position += 1
    end = position + length
    if end > len(block):
        raise HpackError("a field block ends within a string")
    data = block[position:end]
    if first & 0x80:
        data = _remembered(data) if length <= _REMEMBERED_LENGTH else _decoded(data)
    return data, end


def _decoded(data: bytes) -> bytes:
    try:
        return decode_huffman(data)
    except HuffmanError:
        raise HpackError("a Huffman-coded string is malformed") from None


_remembered = lru_cache(maxsize=4096)(_decoded)


def announced_size(limit: int, max_fields: int) -> int:
    """SETTINGS_MAX_HEADER_LIST_SIZE (RFC 9113 section 6.5.2) for a decoder's limits: no head that HTTP/1.1 could have
    should be kept back by a client, but for a cookie in many crumbs."""
    return limit + _PSEUDO_SURPLUS + _SAVED * (max_fields + _BESIDE)


class Decoder:
    """Decodes the field blocks of one connection, in their order.

    `version` changes with the dynamic table: while it does not, the same block means the same fields, unless it
    changes the table itself. A list of more than `limit` bytes as a head of HTTP/1.1, or of more than `max_fields`
    fields, of both of which a cookie's first 256 crumbs are one field, is followed for the table's sake and not kept;
    one of several times as much is given up, and nothing behind it may be decoded. `excess` is how many fields the
    last block had, if it was over a limit, else 0, and `kept` are then those that its refusal depends on.
    """

    __slots__ = ("_limit", "_most", "_size", "_table", "_table_limit", "excess", "kept", "version")

    def __init__(self, limit: int, max_fields: int) -> None:
        self.version = 0
        self.excess = 0
        self.kept: list[Field] = []
        self._limit = limit + _PSEUDO_SURPLUS
        self._most = max_fields + _BESIDE
        self._table: list[Field] = []
        self._size = 0
        self._table_limit = TABLE_SIZE

    def decode(self, block: bytes) -> list[Field] | None:
        """The fields of a whole block; None where they are more than a limit. Raises Http2Error, OversizedBlock."""
        fields: list[Field] = []
        append = fields.append
        total = position = resizes = beyond = seen = crumbs = 0
        end, limit, room = len(block), self._limit, self._most
        allowed = limit
        kept: list[Field] = []
        while position < end:
            byte = block[position]
            if byte & 0x80:
                if byte == 0xFF:
                    index, position = _integer(block, position, 0x7F)
                else:
                    index = byte & 0x7F
                    position += 1
                field = self._at(index)
            elif byte & 0x60 == 0x20:
                if fields or total:
                    raise HpackError("a table size update follows a field")
                size, position = _integer(block, position, 0x1F)
                resizes += 1
                if resizes > _MAX_RESIZES:
                    raise HpackError("a field block changes the table's size more than twice")
                self._resize(size)
                continue
            else:
                field, position = self._literal(block, position, byte)
            total += field.size
            append(field)
            if total <= allowed and len(fields) <= room:
                continue
            if not beyond:
                # By the table's count; now by that of HTTP/1.1, each field once.
                for each in fields[seen:]:
                    allowed += _SAVED
                    if each.name == b"cookie":
                        allowed += min(_SAVED_BY_CRUMB, len(each.value)) if crumbs else 0
                        crumbs += 1
                seen = len(fields)
                room = self._most + min(crumbs, _CRUMBS)
                if total <= allowed and seen <= room:
                    continue
            if field.name in _KEPT_NAMES:
                kept.append(field)
            fields.pop()
            beyond += 1
            if total > limit * _EXCESS or beyond > self._most * _EXCESS:
                raise OversizedBlock
        self.excess = beyond and beyond + len(fields)
        if not beyond:
            return fields
        self.kept = [field for field in fields if field.name in _KEPT_NAMES] + kept
        return None

    def _literal(self, block: bytes, position: int, byte: int) -> tuple[Field, int]:
        """A literal field (section 6.2), which goes into the table if it says so."""
        indexing = byte & 0x40
        mask = 0x3F if indexing else 0x0F
        index = byte & mask
        if index == mask:
            index, position = _integer(block, position, mask)
        else:
            position += 1
        if index:
            name = self._at(index).name
        else:
            name, position = _string(block, position)
        value, position = _string(block, position)
        field = make_field(name, value)
        if indexing:
            self._add(field)
        return field, position

    def _at(self, index: int) -> Field:
        if 0 < index <= _STATIC_SIZE:
            return STATIC[index - 1]
        place = index - _STATIC_SIZE - 1
        if place < 0 or place >= len(self._table):
            raise HpackError("a field block uses an index that does not exist")
        return self._table[place]

    def _add(self, field: Field) -> None:
        self.version += 1
        self._size += field.size
        self._table.insert(0, field)
        self._evict()

    def _resize(self, size: int) -> None:
        if size > TABLE_SIZE:
            raise HpackError("the dynamic table is made larger than allowed")
        if size != self._table_limit:
            self.version += 1
            self._table_limit = size
            self._evict()

    def _evict(self) -> None:
        while self._size > self._table_limit:
            self._size -= self._table.pop().size


# -- encoding

_NAMES: Final = {field.name: index for index, field in reversed(list(enumerate(STATIC, 1)))}
_STATUSES: Final = {int(field.value): index for index, field in enumerate(STATIC, 1) if field.name == b":status"}
# Credentials stay out of the tables of whatever re-encodes them on the way (section 7.1.3).
_NEVER_INDEXED: Final = frozenset((b"set-cookie", b"authorization", b"proxy-authenticate", b"www-authenticate"))


def _encoded_integer(value: int, prefix: int, first: int) -> bytes:
    if value < prefix:
        return bytes((first | value,))
    encoded = bytearray((first | prefix,))
    value -= prefix
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_LENGTHS: Final = tuple(_encoded_integer(length, 0x7F, 0) for length in range(512))


def _encoded_string(data: bytes) -> bytes:
    length = len(data)
    return (_LENGTHS[length] if length < 512 else _encoded_integer(length, 0x7F, 0)) + data


@lru_cache(maxsize=1024)
def _encoded_name(name: bytes) -> bytes:
    """The beginning of a literal field without indexing (section 6.2.2) up to its value."""
    name = name.lower()
    first = 0x10 if name in _NEVER_INDEXED else 0
    index = _NAMES.get(name)
    if index is None:
        return bytes((first,)) + _encoded_string(name)
    return _encoded_integer(index, 0x0F, first)


def encode_field(name: bytes, value: bytes) -> bytes:
    """One field; the name in any case."""
    return _encoded_name(name) + _encoded_string(value)


def encode_lines(lines: bytes) -> bytes:
    """Finished field lines (`Name: value CRLF`) as a part of a field block."""
    parts: list[bytes] = []
    for line in lines.split(b"\r\n"):
        name, colon, value = line.partition(b": ")
        if colon:
            # `_encoded_string`, spelled out: this is done for each field of each answer.
            size = len(value)
            parts += _encoded_name(name), _LENGTHS[size] if size < 512 else _encoded_integer(size, 0x7F, 0), value
    return b"".join(parts)


@lru_cache(maxsize=512)
def encode_status(status: int) -> bytes:
    """The `:status` pseudo field."""
    index = _STATUSES.get(status)
    return bytes((0x80 | index,)) if index is not None else encode_field(b":status", b"%d" % status)
