"""Response heads: what a service sent, and what of it is passed on (RFC 9112 sections 4 and 6.3).

The service is not trusted: an ambiguous response is refused.
"""

from __future__ import annotations

import re
from typing import Final

import httptools

from .body import ChunkedDecoder
from .fields import (
    CODING,
    CONNECTION,
    DATE,
    EXPOSE,
    HSTS,
    KEPT,
    LENGTH,
    PASS,
    RATE,
    TRAILER,
    UNREMOVABLE,
    FieldKinds,
    connection_options,
    without_fields,
)

# Codes outside of 100 to 599 have no meaning (RFC 9110 section 15); llhttp would accept them.
_STATUS: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n")
_TRAILER_FIELD: Final = frozenset((b"trailer",))
_NAMES: Final = re.compile(rb"[!#$%&'+\-.^_`|~0-9A-Za-z]++(?:[ \t]*+,[ \t]*+[!#$%&'+\-.^_`|~0-9A-Za-z]++)*+")
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_TIMEOUT: Final = re.compile(rb'(?:\A|,)[ \t]*timeout[ \t]*=[ \t]*"?([0-9]{1,9})(?![0-9])', re.IGNORECASE)
# How many seconds before its announced time a service may close: the request is in transit meanwhile.
_MARGIN: Final = 1
_NOTHING: Final[frozenset[bytes]] = frozenset()


class ResponseError(ValueError):
    """The service's head is malformed; the message says how, for the operator."""


class ResponseHead:
    """One response's head.

    `lines` are the end-to-end field lines without the length. `length` is the body's in bytes, None when it is
    chunked or ends with the connection; `stated` is the Content-Length as sent, which HEAD and 304 answers carry
    without a body. `keep_alive` says whether the service's connection outlives this answer, and `kept_for` how many
    seconds it may then be idle, None where the service has not said. `named` are the fields (lower case) that its
    Connection gives: none of them goes on, not as a trailer either. `upgrade` is the Upgrade of a 101 whose
    Connection names it. A head is shared and never changed by those who get it, but that `text` (status line
    and `lines`) and `block` keep the bytes by which HTTP/1.1 and HTTP/2 send it, once they are made.
    """

    __slots__ = (
        "block",
        "chunked",
        "dated",
        "keep_alive",
        "kept_for",
        "length",
        "lines",
        "minor",
        "named",
        "reason",
        "stated",
        "status",
        "text",
        "upgrade",
    )

    def __init__(self, status: int, reason: bytes, minor: int) -> None:
        self.status = status
        self.reason = reason
        self.minor = minor
        self.lines: list[bytes] = []
        self.length: int | None = None
        self.stated: int | None = None
        self.chunked = False
        self.dated = False
        self.keep_alive = minor == 1
        self.kept_for: int | None = None
        self.named: frozenset[bytes] = _NOTHING
        self.text: bytes | None = None
        self.block: bytes | None = None
        self.upgrade: bytes | None = None


# Tells a client that waits for it to send its body (RFC 9110 section 10.1.1).
CONTINUE: Final = ResponseHead(100, b"Continue", 1)


class _Fields:
    __slots__ = ("fields",)

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))


class _SwitchFields(_Fields):
    __slots__ = ("complete",)

    def __init__(self) -> None:
        super().__init__()
        self.complete = False

    def on_headers_complete(self) -> None:
        self.complete = True


class ResponseReader:
    """Parses the heads of services' responses under one configuration."""

    def __init__(self, tenant_header: bytes, *, max_fields: int = 256, alt_svc: bool = False) -> None:
        self.tenant_header = tenant_header
        self.kinds = FieldKinds.of_responses(tenant_header, alt_svc=alt_svc)
        self._table = self.kinds.table
        self._max_fields = max_fields
        # The last head and its result: under load a service repeats itself byte by byte.
        self._last: tuple[bytes, bool, bool, bool, bool] | None = None
        self._last_head: ResponseHead | None = None

    def read(
        self, raw: bytes, to_head: bool, drop_rate: bool, drop_hsts: bool = False, readable: bool = False
    ) -> ResponseHead:
        """The head in `raw`, which ends with the empty line. Raises ResponseError.

        `to_head`: it answers a HEAD. `drop_rate`: the gateway sets the RateLimit fields, so the service's go;
        `drop_hsts`: so does its Strict-Transport-Security, for that reason or since the client speaks no TLS.
        `readable`: a page of another origin may read the answer, so the names that the service exposes to it stay.
        """
        key = (raw, to_head, drop_rate, drop_hsts, readable)
        if key == self._last and self._last_head is not None:
            return self._last_head
        head = self._last_head = self._read_anew(raw, to_head, drop_rate, drop_hsts, readable)
        self._last = key
        return head

    def body_decoder(self, head: ResponseHead, slack: int) -> ChunkedDecoder:
        """A decoder for the chunked body behind this head. What is dropped from heads is no trailer either: what only
        the gateway says to a client, and what says where else its names are served."""
        return ChunkedDecoder(slack, self.tenant_header, kinds=self.kinds, named=head.named)

    def _read_anew(self, raw: bytes, to_head: bool, drop_rate: bool, drop_hsts: bool, readable: bool) -> ResponseHead:
        start = _STATUS.match(raw)
        if start is None:
            raise ResponseError("its status line is malformed")
        # Each field has a line, and so have the status and the end: looked at before anything is done for each.
        if raw.count(b"\n") > self._max_fields + 2:
            raise ResponseError("it has too many header fields")
        sink = _SwitchFields() if start[2] == b"101" else _Fields()
        try:
            httptools.HttpResponseParser(sink).feed_data(raw)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            # llhttp stops behind every 101, which httptools takes for a fault where the head names no protocol. What
            # is wrong with that is said by who knows what was asked for.
            if not (isinstance(sink, _SwitchFields) and sink.complete):
                raise ResponseError(str(error)) from None
        head = ResponseHead(int(start[2]), start[3] or b"", 1 if start[1] == b"1" else 0)
        if drop_hsts:
            sink.fields = [field for field in sink.fields if self._kind(field[0]) != HSTS]
        self._take_fields(head, sink.fields, drop_rate)
        if readable:
            self._take_exposed(head, sink.fields)
        if head.status == 101:
            self._take_switch(head, sink.fields)
        self._frame(head, to_head)
        return head

    def _kind(self, name: bytes) -> int:
        kind = self._table.get(name)
        return self.kinds.classify(name) if kind is None else kind

    def _take_fields(self, head: ResponseHead, fields: list[tuple[bytes, bytes]], drop_rate: bool) -> None:
        table, lines = self._table, head.lines
        connection: list[bytes] = []
        trailing = False
        for name, value in fields:
            kind = table.get(name)
            if kind is None:
                kind = self.kinds.classify(name)
            if kind in (PASS, HSTS):
                lines.append(b"%b: %b\r\n" % (name, value.rstrip(b" \t")))
            elif kind == LENGTH:
                digits = value.rstrip(b" \t")
                if head.stated is not None or _DIGITS.fullmatch(digits) is None:
                    raise ResponseError("its Content-Length is malformed or repeated")
                head.stated = int(digits)
            elif kind == DATE:
                head.dated = True
                lines.append(b"%b: %b\r\n" % (name, value.rstrip(b" \t")))
            elif kind == CONNECTION:
                connection.append(value)
            elif kind == CODING:
                if head.chunked or head.minor == 0 or value.strip(b" \t").lower() != b"chunked":
                    raise ResponseError("its Transfer-Encoding is not just chunked")
                head.chunked = True
            elif (kind == RATE and not drop_rate) or kind == TRAILER:
                trailing = trailing or kind == TRAILER
                lines.append(b"%b: %b\r\n" % (name, value.rstrip(b" \t")))
            elif kind == KEPT:
                self._take_kept(head, value)
        if trailing and not head.chunked:
            head.lines = without_fields(lines, _TRAILER_FIELD)
        if head.chunked and head.stated is not None:
            raise ResponseError("it has both Content-Length and Transfer-Encoding")
        if connection:
            self._take_connection(head, _options(connection))
        if head.kept_for is not None and head.kept_for <= 0:
            head.keep_alive = False

    def _take_exposed(self, head: ResponseHead, fields: list[tuple[bytes, bytes]]) -> None:
        """The names that the service exposes to pages: everything else about CORS is decided by the gateway."""
        for name, value in fields:
            if self._kind(name) == EXPOSE and _NAMES.fullmatch(value.strip(b" \t")):
                head.lines.append(b"Access-Control-Expose-Headers: %b\r\n" % value.strip(b" \t"))

    @staticmethod
    def _take_kept(head: ResponseHead, value: bytes) -> None:
        """How long the service keeps an idle connection; of several values the first to pass."""
        for digits in _TIMEOUT.findall(value):
            seconds = int(digits) - _MARGIN
            head.kept_for = seconds if head.kept_for is None else min(seconds, head.kept_for)

    @staticmethod
    def _take_connection(head: ResponseHead, options: frozenset[bytes]) -> None:
        if b"close" in options:
            head.keep_alive = False
        elif head.minor == 0 and b"keep-alive" in options:
            head.keep_alive = True
        named = options - {b"close", b"keep-alive"}
        if named:
            head.named = named
            head.lines = without_fields(head.lines, named - UNREMOVABLE)
            head.dated = head.dated and b"date" not in named

    @staticmethod
    def _take_switch(head: ResponseHead, fields: list[tuple[bytes, bytes]]) -> None:
        """What a 101 switches to (RFC 9110 sections 7.8 and 15.2.2). It has no body, so nothing may frame one."""
        if head.minor == 0 or head.chunked or head.stated is not None:
            raise ResponseError("its 101 uses HTTP/1.0 or announces a body")
        values: dict[bytes, list[bytes]] = {b"connection": [b""], b"upgrade": [b""]}
        for name, value in fields:
            values.get(name.lower(), []).append(value)
        if b"upgrade" in _options(values[b"connection"]):
            head.upgrade = b",".join(values[b"upgrade"]).strip(b", \t") or None

    @staticmethod
    def _frame(head: ResponseHead, to_head: bool) -> None:
        """How long the body is (RFC 9112 section 6.3)."""
        if to_head or head.status in (204, 304) or head.status < 200:
            head.length = 0
            head.chunked = False
            if head.status == 204 or head.status < 200:
                head.stated = None
        elif not head.chunked:
            head.length = head.stated
            if head.length is None:
                head.keep_alive = False


def _options(values: list[bytes]) -> frozenset[bytes]:
    options = connection_options(values)
    if options is None:
        raise ResponseError("its Connection has too many options")
    return options
