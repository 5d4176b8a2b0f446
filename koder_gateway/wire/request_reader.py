"""Request heads: from the client's bytes to one interpretation (RFC 9112 sections 2, 3, 5 and 6).

llhttp checks the syntax, `request_fields` interprets the headers, `request_line` the target. An ambiguous head is
refused.
"""

from __future__ import annotations

import re
from typing import Final

import httptools

from ..errors import HEAD_TOO_LARGE, Refusal
from .body import ChunkedDecoder
from .fields import FieldKinds, connection_options
from .request_fields import interpret_fields
from .request_head import KEPT_HEAD, RequestHead
from .request_line import request_line_fault
from .request_syntax import (
    BAD_START_LINE,
    KNOWN_METHODS,
    START_LINE,
    FieldSink,
    coding_refusal,
    oversized,
    syntax_refusal,
)
from .unread_head import known_of, known_of_fields

# Bytes of a request line besides its target: the longest method, the version and the separators.
LINE_BESIDE: Final = 64
_TOO_MANY_FIELDS: Final = HEAD_TOO_LARGE.because("The request has too many header fields.")


class RequestReader:
    """Reads heads under one configuration: the tenant header's name, the limits of requests, and whether a request
    may ask for `upgrades` at all. `allowed_fields` are those of `wire.spoofable_fields` that pass, `trailers` the
    trailers that do, both in lower case. `nameless` takes an empty Host, which names no authority (RFC 9112 section
    3.2)."""

    def __init__(
        self,
        tenant_header: bytes,
        *,
        max_target: int,
        max_fields: int,
        upgrades: bool = True,
        allowed_fields: frozenset[bytes] = frozenset(),
        trailers: frozenset[bytes] = frozenset(),
        nameless: bool = False,
    ) -> None:
        self._nameless = nameless
        self.tenant_header = tenant_header
        self.trailers = trailers
        self.kinds = FieldKinds.of_requests(tenant_header, allowed_fields)
        self._max_target = max_target
        self.max_line = max_target + LINE_BESIDE
        self._max_fields = max_fields
        self.upgrades = upgrades

    def read(self, raw: bytes, before: RequestHead | None = None) -> RequestHead:
        """The head in `raw`, which ends with the empty line and holds nothing after it.

        `before` is the last head of the same connection: the same field lines mean the same, so that a client
        which repeats them (most do) has them read once; the same head to the byte is the same head. Nobody changes
        a head that has been read and has its `raw` bytes, as all have that may be met again.
        """
        if len(raw) > self.max_line and raw.find(b"\n", 0, self.max_line + 1) < 0:
            # As where the rest of it has not come yet: nothing is made of what is too long.
            return self._unread(raw, None, [], oversized(raw, self.max_line))
        start = None
        if before is not None and before.reader is self:
            if raw == before.raw:
                return before
            start = START_LINE.match(raw)
            if start is not None:
                method, target, minor = start.groups()
                if before.has_fields_of(raw, start.end()) and before.minor == (minor == b"1"):
                    head = before.with_line(method, target, raw, start.end())
                    head.refusal = request_line_fault(head, self._max_target)
                    return head
        return self._read_anew(raw, start or START_LINE.match(raw))

    def _read_anew(self, raw: bytes, start: re.Match[bytes] | None) -> RequestHead:
        # Each field has a line, and so have the start and the end: looked at before anything is done for each.
        if raw.count(b"\n") > self._max_fields + 2:
            return self._unread(raw, start, [], _TOO_MANY_FIELDS)
        sink = FieldSink()
        fields = sink.fields
        refusal = None
        try:
            httptools.HttpRequestParser(sink).feed_data(raw)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            refusal = coding_refusal(raw, fields) or syntax_refusal(raw, error)
        if start is None and refusal is None:
            refusal = BAD_START_LINE
        if refusal is not None or start is None:
            return self._unread(raw, start, fields, refusal)
        head = RequestHead(start[1], start[2], 1 if start[3] == b"1" else 0, fields)
        reusable = interpret_fields(head, self.kinds, self.upgrades, self._nameless)
        if head.refusal is None:
            if head.host and reusable and len(raw) <= KEPT_HEAD:
                head.keep(raw, start.end(), self)
            head.refusal = request_line_fault(head, self._max_target)
            if head.last_hop:
                head.path = b"*"
        return head

    def body_decoder(self, head: RequestHead) -> ChunkedDecoder:
        """A decoder for the chunked body behind this head. What its Connection names is no trailer either (RFC 9110
        section 7.6.1); only where any may pass that is worth a look."""
        named = None
        if self.trailers:
            named = connection_options([value for name, value in head.fields if name.lower() == b"connection"])
        return ChunkedDecoder(tenant_header=self.tenant_header, allowed=self.trailers, named=named or frozenset())

    @staticmethod
    def _unread(
        raw: bytes, start: re.Match[bytes] | None, fields: list[tuple[bytes, bytes]], refusal: Refusal | None
    ) -> RequestHead:
        """The head of which only the refusal, the start line, the Host and the Origin are of use."""
        # No body goes with the response to a HEAD, whatever is wrong with the rest of its line.
        said, _, _ = raw[:LINE_BESIDE].partition(b" ")
        method, target, minor = (said if said in KNOWN_METHODS else b"", b"", b"1")
        if start is not None:
            method, target, minor = start.groups()
        head = RequestHead(method, target, 1 if minor == b"1" else 0, fields)
        head.refusal = refusal
        head.keep_alive = False
        head.host, head.origin, head.page = known_of(raw)
        return head

    def read_fields(
        self, method: bytes, target: bytes, fields: list[tuple[bytes, bytes]], *, framed: bool
    ) -> RequestHead:
        """The head of a request that came otherwise than as HTTP/1.1: its parts are well-formed, its target begins
        with a slash or is `*`. What is not `framed` has a body of unknown length, which goes on in chunks."""
        head = RequestHead(method, target, 1, fields)
        head.http2 = True
        if len(fields) > self._max_fields:
            head.refusal = _TOO_MANY_FIELDS
            head.host, head.origin, head.page = known_of_fields([(name.lower(), value) for name, value in fields])
            return head
        if not framed:
            head.length = None
            head.chunked = True
            head.lines.append(b"Transfer-Encoding: chunked\r\n")
        interpret_fields(head, self.kinds, self.upgrades, self._nameless)
        head.refusal = head.refusal or request_line_fault(head, self._max_target)
        if head.last_hop:
            head.path = b"*"
        return head
