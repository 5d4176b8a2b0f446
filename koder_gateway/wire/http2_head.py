"""HTTP/2 messages: a list of decoded headers to the same request head that HTTP/1.1 is parsed into (RFC 9113 section
8).

Everything beyond this point works in HTTP/1.1 terms, so values that could not be written there unchanged are
malformed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from ..errors import BAD_REQUEST, NOT_IMPLEMENTED
from .body import trailer_passes, trailers_fit
from .fields import TOKEN
from .hpack import Decoder, Field, OversizedBlock
from .http2_frames import PROTOCOL_ERROR, StreamError
from .request_head import KEY_NAME, RequestHead
from .request_reader import RequestReader
from .request_syntax import oversized
from .target import same_authority
from .unread_head import known_of_fields
from .upgrade import WEBSOCKET, fresh_key

# If the target is a single word, a 400 says what is wrong with it.
_TARGET: Final = re.compile(rb"[^\x00-\x20\x7f]+")
_ORIGIN_FORM: Final = re.compile(rb"/[^\x00-\x20\x7f]*")
_DIGITS: Final = re.compile(rb"[0-9]{1,19}")
_PSEUDO: Final = frozenset((b":method", b":scheme", b":authority", b":path", b":protocol"))
# RFC 9113 section 8.2.2, and what upgraded to HTTP/2 once.
_CONNECTION_FIELDS: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"http2-settings")
)
# Of a WebSocket's opening, what HTTP/2 has no use for (RFC 8441 section 5.1).
_OF_THE_HANDSHAKE: Final = frozenset((b"sec-websocket-key", b"content-length"))
_SCHEMES: Final = frozenset((b"https", b"http"))
# Headers that need special treatment; all others are end-to-end headers and pass as they are.
_SPECIAL: Final = _CONNECTION_FIELDS | {b"te", b"host", b"cookie", b"content-length"}


# Cached field blocks, while the dynamic table does not change: how many with a body and without, and the bytes of all
# of them and of their headers.
_KNOWN_BLOCKS: Final = 64
_KNOWN_BOUND: Final = 65536
# A larger block, with its headers, is not cached: such a head is kept until its response anyway.
_KNOWN_HEAD: Final = 8192


def _malformed(reason: str) -> StreamError:
    return StreamError(PROTOCOL_ERROR, reason)


def unread_request(kept: Iterable[Field], max_line: int) -> RequestHead:
    """The head of a request whose headers are over a limit, of which at most the `told` ones were kept. It is refused
    as over HTTP/1.1: by its request line if that is over `max_line` bytes."""
    fields = [(name, value) for name, value, _, good in kept if good]
    said = dict(fields)
    method = said.get(b":method", b"")
    head = RequestHead(b"HEAD" if method == b"HEAD" else b"", b"", 1, [])
    head.http2 = True
    line = b"%b %b HTTP/1.1\r\n" % (method, said.get(b":path", b""))
    head.refusal = oversized(line, max_line)
    head.host, head.origin, head.page = known_of_fields(fields)
    return head


def read_request(fields: list[Field], ended: bool, reader: RequestReader) -> RequestHead:
    """The head made from these headers. `ended`: no body follows.

    Raises StreamError if the request is malformed (RFC 9113 section 8.1.1).
    """
    pseudo, rest = _divided(fields)
    method = pseudo.get(b":method", b"")
    if TOKEN.fullmatch(method) is None:
        raise _malformed("there must be one :method, a token")
    authority = pseudo.get(b":authority")
    lines, length = _end_to_end(rest, authority, pseudo.get(b":scheme", b"https").lower())
    if b":protocol" in pseudo:
        return _tunnel(pseudo, lines, reader)
    target = _target(method, pseudo)
    if ended and length:
        raise _malformed("the body's length differs from its content-length")
    framed = ended or length is not None
    head = reader.read_fields(method, target, lines, framed=framed)
    if pseudo.get(b":scheme", b"https").lower() not in _SCHEMES:
        head.refusal = BAD_REQUEST.because("The :scheme is neither http nor https.")
    return head


def _divided(fields: list[Field]) -> tuple[dict[bytes, bytes], list[Field]]:
    """The pseudo fields, and those behind them."""
    pseudo: dict[bytes, bytes] = {}
    count = 0
    for name, value, _, good in fields:
        if not good:
            raise _malformed("a field's name or value has a character that HTTP/2 does not allow")
        if name[0] != 0x3A:
            break
        if name not in _PSEUDO or name in pseudo:
            raise _malformed("a pseudo-header field is unknown or repeated")
        pseudo[name] = value
        count += 1
    return pseudo, fields[count:]


def _target(method: bytes, pseudo: dict[bytes, bytes]) -> bytes:
    path, scheme = pseudo.get(b":path"), pseudo.get(b":scheme")
    if method == b"CONNECT":
        # Refused, whether it is well-formed (section 8.5) or has a path, as over HTTP/1.1.
        return path if path is not None and _ORIGIN_FORM.fullmatch(path) else b"*"
    if not scheme or path is None or _TARGET.fullmatch(path) is None:
        raise _malformed("there must be one :scheme and one :path, without white space")
    if path[0] != 0x2F and (path != b"*" or method != b"OPTIONS"):
        raise _malformed("the :path does not begin with a slash")
    return path


def _tunnel(pseudo: dict[bytes, bytes], lines: list[tuple[bytes, bytes]], reader: RequestReader) -> RequestHead:
    """Extended CONNECT (RFC 8441 section 4): for the service it is the GET of a WebSocket handshake over HTTP/1.1."""
    if not reader.upgrades or pseudo[b":method"] != b"CONNECT" or b":authority" not in pseudo:
        raise _malformed(":protocol is only for extended CONNECT, where the server has announced it")
    lines = [(name, value) for name, value in lines if name not in _OF_THE_HANDSHAKE]
    target = _target(b"GET", pseudo)
    head = reader.read_fields(b"GET", target, [*lines, (KEY_NAME, fresh_key())], framed=True)
    if pseudo[b":protocol"].lower() != WEBSOCKET:
        head.refusal = NOT_IMPLEMENTED.because("The only supported :protocol is websocket.")
    head.upgrade = WEBSOCKET
    return head


def _end_to_end(
    fields: list[Field], authority: bytes | None, scheme: bytes
) -> tuple[list[tuple[bytes, bytes]], int | None]:
    """The field lines as HTTP/1.1 has them, Host first, and the content-length."""
    host = authority
    length: int | None = None
    crumbs: list[bytes] = []
    lines: list[tuple[bytes, bytes]] = []
    seen_host = False
    for name, value, _, good in fields:
        if not good or name[0] == 0x3A:
            raise _malformed("a field is malformed, or a pseudo-header field follows a regular one")
        if name not in _SPECIAL:
            lines.append((name, value))
        elif name == b"cookie":
            crumbs.append(value)
        elif name == b"host":
            if seen_host or (authority is not None and not same_authority(authority, value, scheme)):
                raise _malformed("host is repeated, or differs from :authority")
            seen_host = True
            host = value if authority is None else authority
        elif name == b"content-length":
            if length is not None or _DIGITS.fullmatch(value) is None:
                raise _malformed("content-length is not a number, or is repeated")
            length = int(value)
            lines.append((name, value))
        elif name != b"te" or value.lower() != b"trailers":
            raise _malformed("a connection-specific field of HTTP/1.1")
    if crumbs:
        # Split for better compression, joined for everything else (section 8.2.3).
        lines.append((b"cookie", b"; ".join(crumbs)))
    if host is not None:
        lines.insert(0, (b"Host", host))
    return lines, length


def read_trailers(fields: Iterable[Field], reader: RequestReader) -> list[bytes] | None:
    """The trailers' field lines that may be passed on (RFC 9110 section 6.5.1); None where they are over a limit.
    Raises StreamError."""
    lines: list[bytes] = []
    # As lines each has `: ` and CR LF besides.
    sizes = [len(field.name) + len(field.value) + 4 for field in fields]
    if not trailers_fit(sum(sizes), len(sizes), max(sizes, default=0)):
        return None
    for name, value, _, good in fields:
        if not good or name[0] == 0x3A or name in _CONNECTION_FIELDS:
            raise _malformed("a trailer is malformed, a pseudo-header field or connection-specific")
        if trailer_passes(name, reader.tenant_header, reader.trailers):
            lines.append(b"%b: %b\r\n" % (name, value))
    return lines


class HeadReader:
    """Reads the field blocks of one connection, in their order. Lists of fields over `limit` bytes, or of more than
    `max_fields`, are refused.

    A client says the same thing in the same bytes while the dynamic table does not change: then a block is known. A
    block that is None was too large to be kept. With it, or with one that is given up within, the table is `lost`: no
    block behind it means anything any more, and none is decoded.
    """

    __slots__ = ("_decoder", "_known", "_size", "_version", "lost")

    def __init__(self, limit: int, max_fields: int) -> None:
        self.lost = False
        self._decoder = Decoder(limit, max_fields)
        self._known: tuple[dict[bytes, RequestHead], dict[bytes, RequestHead]] = ({}, {})
        self._version = 0
        self._size = 0

    @property
    def excess(self) -> int:
        """How many fields the last block that had to be decoded had, if it was over a limit, else 0."""
        return self._decoder.excess

    def decode(self, block: bytes | None) -> list[Field] | None:
        """The fields of a block that begins no request; None where they are over a limit. Raises Http2Error."""
        fields = None
        if block is None or self.lost:
            self.lost = True
            return None
        try:
            fields = self._decoder.decode(block)
        except OversizedBlock:
            self.lost = True
        self._decoder.kept = []
        return fields

    def read(self, block: bytes | None, ended: int, reader: RequestReader) -> RequestHead:
        """The request that a block begins; `ended`: 1 when no body follows, else 0. One without a `reader` was over a
        limit, and not read. Raises Http2Error."""
        if block is None or self.lost:
            self.lost = True
            return unread_request((), reader.max_line)
        decoder = self._decoder
        known = self._known[ended]
        head = known.get(block)
        if head is not None and self._version == decoder.version and head.reader is reader:
            # The opening of a tunnel has a key of its own each time.
            return head if head.upgrade is None else head.with_key(fresh_key())
        version = decoder.version
        try:
            fields = decoder.decode(block)
        except OversizedBlock:
            self.lost = True
            fields = None
        if fields is None:
            kept, decoder.kept = decoder.kept, []
            return unread_request(kept, reader.max_line)
        head = read_request(fields, bool(ended), reader)
        head.reader = reader
        if decoder.version != self._version:
            self.forget()
            self._version = decoder.version
        if decoder.version == version:
            size = len(block) + sum(field.size for field in fields)
            if size > _KNOWN_HEAD:
                return head
            if len(known) >= _KNOWN_BLOCKS or self._size + size > _KNOWN_BOUND:
                self.forget()
            self._size += size
            if head.upgrade is not None:
                known[block] = head.with_key(b"")
                return head
            # It is not changed from here on.
            head.raw = block
            known[block] = head
        return head

    def forget(self) -> None:
        """Drop all cached blocks."""
        self._size = 0
        for known in self._known:
            known.clear()
