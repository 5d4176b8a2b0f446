"""Request heads: from the client's bytes to one unambiguous reading (RFC 9112 sections 2, 3, 5 and 6).

llhttp checks the syntax; this module decides what the fields mean for framing, routing and identity, in one
pass, and gathers the end-to-end field lines as the service will get them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

import httptools

from ..errors import (
    BAD_FRAMING,
    BAD_REQUEST,
    EXPECTATION_FAILED,
    HEAD_TOO_LARGE,
    METHOD_NOT_ALLOWED,
    METHODS,
    NOT_IMPLEMENTED,
    UNKNOWN_CODING,
    URI_TOO_LONG,
    Refusal,
)
from .body import ChunkedDecoder
from .fields import (
    CODING,
    CONNECTION,
    DROP,
    EXPECT,
    FORWARDED,
    HOPS,
    HOST,
    LENGTH,
    ORIGIN,
    PASS,
    REQUEST_ID,
    TENANT,
    TOKEN,
    TRACE,
    TRAILER,
    UNREMOVABLE,
    FieldKinds,
    connection_options,
    without,
)
from .target import CLEAN_PATH, PLAIN_PATH, essential, host_fault, origin_form, path_fault, query_fault
from .unread_head import host_and_origin, host_and_origin_of
from .upgrade import KEY, requested

# llhttp also takes RTSP, ICE, HTTP/0.9, two spaces and more: the start line is held to its own grammar.
_START: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([^\x00-\x20\x7f]+) HTTP/1\.([01])\r\n")
# The beginning of such a line, as far as it may have come.
_BEGINNING: Final = re.compile(
    rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
    rb"(?: (?:[^\x00-\x20\x7f]+(?: (?:H(?:T(?:T(?:P(?:/(?:1(?:\.(?:[01]\r?)?)?)?)?)?)?)?)?)?)?)?"
)
# So much of a head is looked at whenever some of it comes.
_FIRST: Final = 64
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_TRACE_IDS: Final = rb"-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
# Only versions to come may have more after the flags (W3C Trace Context section 3.2).
_TRACEPARENT: Final = re.compile(rb"00%b|(?!00|ff)[0-9a-f]{2}%b(?:-.*)?" % (_TRACE_IDS, _TRACE_IDS))
# The most that Max-Forwards goes on as, and its digits.
_MOST_HOPS: Final = 999_999_999
_HOPS_DIGITS: Final = 9
_LENGTH_LINE: Final = re.compile(rb"\r\ncontent-length[ \t]*:")
# A length that no body has.
_BEYOND: Final = 2**63
_METHODS: Final = frozenset(METHODS)
_OVERLONG_METHOD: Final = re.compile(rb"[!#$%%&'*+\-.^_`|~0-9A-Za-z]{%d}" % (max(map(len, METHODS)) + 1))
_TRACE_FIELDS: Final = frozenset((b"traceparent", b"tracestate"))
_TRAILER_FIELD: Final = frozenset((b"trailer",))
# Options that name no field which could be among the lines.
_PLAIN_OPTIONS: Final = frozenset((b"close", b"keep-alive", b"upgrade"))
_NOTHING: Final[tuple[bytes, ...]] = ()
_TOO_MANY_FIELDS: Final = HEAD_TOO_LARGE.because("The request has too many header fields.")
_TOO_MANY_OPTIONS: Final = HEAD_TOO_LARGE.because("The request's Connection header has too many options.")
_CORS_METHOD, _CORS_HEADERS = b"access-control-request-method", b"access-control-request-headers"


# Bytes of a request line besides its target: the longest method, the version and what stands around them.
LINE_BESIDE: Final = 64
# A head is read by its likeness to the one before up to this size, in bytes: larger ones are not kept for that.
KEPT_HEAD: Final = 2048


class RequestHead:
    """One request's head. A `refusal` means that it goes no further; the rest is then as far as it was read.

    `lines` are the end-to-end field lines in order, each `Name: value CRLF`. `length` is the body's in bytes,
    None when it is `chunked`. `upgrade` is the Upgrade that a service may be asked for, which is not among the
    lines. `target` is the raw path with its query; `path` is the part before the `?`, without escapes that mean
    nothing. `plain` says that no service reads another path in it, `https` that the target is an absolute URL of that
    scheme, `last_hop` that an OPTIONS is for the gateway itself, as if for `*` (RFC 9110 section 7.6.2).
    """

    __slots__ = (
        "chunked",
        "expects",
        "fields",
        "forwarded",
        "host",
        "https",
        "keep_alive",
        "last_hop",
        "length",
        "lines",
        "method",
        "minor",
        "origin",
        "path",
        "plain",
        "raw",
        "reader",
        "refusal",
        "request_id",
        "rest",
        "target",
        "tenants",
        "traced",
        "traceparents",
        "traces",
        "trailing",
        "upgrade",
    )

    def __init__(self, method: bytes, target: bytes, minor: int, fields: list[tuple[bytes, bytes]]) -> None:
        self.method = method
        self.target = target
        self.path = target
        self.plain = True
        self.https = False
        self.last_hop = False
        self.minor = minor
        self.fields = fields
        self.lines: list[bytes] = []
        self.host = b""
        self.origin: bytes | None = None
        self.length: int | None = 0
        self.chunked = False
        self.keep_alive = minor == 1
        self.expects = False
        self.request_id: bytes | None = None
        self.tenants = _NOTHING
        self.forwarded: list[tuple[bytes, bytes]] | None = None
        self.traced = False
        self.traces = False
        self.traceparents = 0
        self.trailing = False
        self.upgrade: bytes | None = None
        self.refusal: Refusal | None = None
        # The head and its field lines as they came, and who read them: kept where a next head with the same ones
        # may reuse what they mean.
        self.raw = b""
        self.rest = b""
        self.reader: RequestReader | None = None

    def with_line(self, method: bytes, target: bytes) -> RequestHead:
        """A head with the same fields and another request line."""
        head = _new_head(RequestHead)
        head.method = method
        head.target = target
        head.path = target
        head.plain = True
        head.https = False
        head.last_hop = False
        head.minor = self.minor
        head.fields = self.fields
        head.lines = self.lines
        head.host = self.host
        head.origin = self.origin
        head.length = self.length
        head.chunked = self.chunked
        head.keep_alive = self.keep_alive
        head.expects = self.expects
        head.request_id = self.request_id
        head.tenants = self.tenants
        head.forwarded = self.forwarded
        head.traced = self.traced
        head.traces = self.traces
        head.traceparents = self.traceparents
        head.trailing = self.trailing
        head.upgrade = None
        head.refusal = None
        head.raw = b""
        head.rest = self.rest
        head.reader = self.reader
        return head

    def value(self, name: bytes) -> bytes | None:
        """The value of the first field of this (lower-case) name."""
        return next((value for each, value in self.fields if each.lower() == name), None)

    def drop_fields(self) -> None:
        """The fields have gone on and are nobody else's: what the answer to an Upgrade is compared with stays."""
        self.lines = []
        self.fields = [pair for pair in self.fields if pair[0].lower() == KEY] if self.upgrade is not None else []

    @property
    def preflight_method(self) -> bytes | None:
        """The method that a CORS preflight asks for; None when this is no preflight (Fetch section 3.3)."""
        if self.method == b"OPTIONS" and self.origin is not None:
            return self.value(_CORS_METHOD)
        return None

    @property
    def preflight_headers(self) -> bytes | None:
        """The header names that a CORS preflight asks for; several lines are one list (RFC 9110 section 5.3)."""
        said = [value for name, value in self.fields if name.lower() == _CORS_HEADERS]
        return b", ".join(said) if said else None


_new_head = RequestHead.__new__


class _Fields:
    """What llhttp calls: keeps the fields as they come."""

    __slots__ = ("fields",)

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))


class HeadProbe:
    """Looks at a head that comes in pieces, so that a malformed one is refused at once and not at its deadline.

    What has been looked at is not looked at again: a head that drips costs no more than its bytes.
    """

    __slots__ = ("_fed", "_parser", "_started", "_unknown", "_waiting")

    def __init__(self) -> None:
        self._parser: Any = httptools.HttpRequestParser(_Fields())
        # How much has been looked at, and what has come since.
        self._fed = 0
        self._waiting = b""
        # Whether the start line is whole and good, and what llhttp has against its beginning.
        self._started = False
        self._unknown: Exception | None = None

    def fault(self, piece: bytes, so_far: bytes | bytearray) -> Refusal | None:
        """Why the head `so_far`, which ends with `piece`, can never become a good one."""
        line_end = b"\n" in piece
        waiting = self._waiting + piece if self._waiting else piece
        # An unfinished value is copied, and an unknown beginning is looked at, with each piece of it: the longer it
        # is, the larger the pieces have to be.
        enough = self._fed if self._unknown is not None else self._fed >> 6
        if not line_end and self._fed > _FIRST and len(waiting) <= enough:
            self._waiting = waiting
            return None
        self._fed += len(waiting)
        self._waiting = b""
        if self._unknown is None:
            try:
                self._parser.feed_data(waiting)
            except httptools.HttpParserUpgrade:
                return None
            except httptools.HttpParserError as error:
                if self._started:
                    return _syntax_refusal(so_far, error)
                self._unknown = error
        if self._unknown is not None:
            if not line_end and _BEGINNING.fullmatch(so_far):
                return None  # a method that llhttp does not know; once the line is whole, it is answered with 501
            return _syntax_refusal(so_far, self._unknown)
        if line_end and not self._started:
            self._started = True
            if _START.match(so_far) is None:
                return BAD_FRAMING.because("The request line is malformed, or its HTTP version is not supported.")
        return None


def _syntax_refusal(raw: bytes | bytearray, error: Exception) -> Refusal:
    start = _START.match(raw)
    if start is not None and start[1] not in _METHODS and start[1] not in (b"TRACE", b"CONNECT"):
        # llhttp does not know the method, or knows it from another protocol.
        return NOT_IMPLEMENTED.closing()
    return BAD_FRAMING.because(f"The request's head is malformed: {error}.")


class RequestReader:
    """Reads heads under one configuration: the tenant header's name, the limits of requests, and whether a request
    may ask for `upgrades` at all. `claims` are those of `wire.claims` that pass, `trailers` the trailers
    that do, both in lower case. `nameless` takes an empty Host, which names no authority (RFC 9112 section 3.2)."""

    def __init__(
        self,
        tenant_header: bytes,
        *,
        max_target: int,
        max_fields: int,
        upgrades: bool = True,
        claims: frozenset[bytes] = frozenset(),
        trailers: frozenset[bytes] = frozenset(),
        nameless: bool = False,
    ) -> None:
        self._nameless = nameless
        self.tenant_header = tenant_header
        self.trailers = trailers
        self.kinds = FieldKinds.of_requests(tenant_header, claims)
        self._table = self.kinds.table
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
        start = None
        if before is not None and before.reader is self:
            if raw == before.raw:
                return before
            start = _START.match(raw)
            if start is not None:
                method, target, minor = start.groups()
                if raw[start.end() :] == before.rest and before.minor == (minor == b"1"):
                    head = before.with_line(method, target)
                    head.raw = raw
                    head.refusal = self._fault(head)
                    return head
        return self._read_anew(raw, start or _START.match(raw))

    def _read_anew(self, raw: bytes, start: re.Match[bytes] | None) -> RequestHead:
        # Each field has a line, and so have the start and the end: looked at before anything is done for each.
        if raw.count(b"\n") > self._max_fields + 2:
            return self._unread(raw, start, [], _TOO_MANY_FIELDS)
        sink = _Fields()
        fields = sink.fields
        refusal = None
        try:
            httptools.HttpRequestParser(sink).feed_data(raw)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            refusal = _coding_refusal(raw, fields) or _syntax_refusal(raw, error)
        if start is None and refusal is None:
            refusal = BAD_FRAMING.because("The request line is malformed, or its HTTP version is not supported.")
        if refusal is not None or start is None:
            return self._unread(raw, start, fields, refusal)
        head = RequestHead(start[1], start[2], 1 if start[3] == b"1" else 0, fields)
        reusable = self._take_fields(head)
        if head.refusal is None:
            if head.host and reusable and len(raw) <= KEPT_HEAD:
                head.raw = raw
                head.rest = raw[start.end() :]
                head.reader = self
            head.refusal = self._fault(head)
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
        method, target, minor = (b"", b"", b"1") if start is None else start.groups()
        head = RequestHead(method, target, 1 if minor == b"1" else 0, fields)
        head.refusal = refusal
        head.keep_alive = False
        head.host, head.origin = host_and_origin(raw)
        return head

    def read_fields(
        self, method: bytes, target: bytes, fields: list[tuple[bytes, bytes]], *, framed: bool
    ) -> RequestHead:
        """The head of a request that came otherwise than as HTTP/1.1: its parts are well-formed, its target begins
        with a slash or is `*`. What is not `framed` has a body of unknown length, which goes on in chunks."""
        head = RequestHead(method, target, 1, fields)
        if len(fields) > self._max_fields:
            head.refusal = _TOO_MANY_FIELDS
            head.host, head.origin = host_and_origin_of((name.lower(), value) for name, value in fields)
            return head
        if not framed:
            head.length = None
            head.chunked = True
            head.lines.append(b"Transfer-Encoding: chunked\r\n")
        self._take_fields(head)
        head.refusal = head.refusal or self._fault(head)
        if head.last_hop:
            head.path = b"*"
        return head

    def _take_fields(self, head: RequestHead) -> bool:
        """Sort the fields by what they mean and gather the lines for the service.

        Returns whether they mean the same under another request line: what may be upgraded depends on the method.
        """
        table, lines = self._table, head.lines
        connection: list[bytes] = []
        tenants: list[bytes] = []
        hosts = 0
        reusable = True
        for name, value in head.fields:
            kind = table.get(name)
            if kind is None:
                kind = self.kinds.classify(name)
            if kind == PASS:
                lines.append(b"%b: %b\r\n" % (name, value.rstrip(b" \t")))
            elif kind == HOST:
                head.host = value.rstrip(b" \t")
                hosts += 1
                lines.append(b"%b: %b\r\n" % (name, head.host))
            elif kind == ORIGIN:
                said = value.rstrip(b" \t")
                # Of several lines: no single origin, so none that is allowed, and still all that they name.
                head.origin = said if head.origin is None else b"%b, %b" % (head.origin, said)
                lines.append(b"%b: %b\r\n" % (name, said))
            elif kind == CONNECTION:
                connection.append(value)
            elif kind == TENANT:
                tenants.append(value.rstrip(b" \t"))
            elif kind == HOPS:
                reusable = False
                self._take_hops(head, name, value.rstrip(b" \t"))
            elif kind != DROP:
                self._take_special(head, kind, name, value.rstrip(b" \t"))
        if tenants:
            head.tenants = tuple(tenants)
        if connection:
            options = connection_options(connection)
            if options is None:
                head.refusal = _TOO_MANY_OPTIONS
                return False
            self._take_connection(head, options)
            if b"upgrade" in options:
                reusable = False
                self._take_upgrade(head)
        if head.traces and not head.traced:
            # What belongs to no trace, or to several, begins none of its own (W3C Trace Context section 3.3).
            head.lines = without(head.lines, _TRACE_FIELDS)
        if head.trailing and not head.chunked:
            head.lines = without(head.lines, _TRAILER_FIELD)
        self._check_fields(head, hosts)
        return reusable

    def _check_fields(self, head: RequestHead, hosts: int) -> None:
        if hosts != 1 and (hosts or head.minor):
            head.refusal = BAD_FRAMING.because("There must be exactly one Host header.")
        elif hosts and head.refusal is None and (head.host or not self._nameless):
            fault = host_fault(head.host)
            if fault is not None:
                head.refusal = _bad_request(fault).closing()
        if head.length is not None and head.length >= _BEYOND:
            head.refusal = BAD_FRAMING.because("The Content-Length is out of range.")

    def _take_special(self, head: RequestHead, kind: int, name: bytes, value: bytes) -> None:
        if kind == LENGTH:
            # llhttp has checked: digits, once, below 2^64; only zeros in front can make it long.
            head.length = int(value) if len(value) <= 19 else _BEYOND
            head.lines.append(b"Content-Length: %d\r\n" % head.length)
        elif kind == CODING:
            self._take_coding(head, value)
        elif kind == EXPECT:
            self._take_expectation(head, value)
        elif kind == REQUEST_ID:
            if _REQUEST_ID.fullmatch(value):
                head.request_id = value
        elif kind == FORWARDED:
            if head.forwarded is None:
                head.forwarded = [(name, value)]
            else:
                head.forwarded.append((name, value))
        elif kind == TRACE:
            # Its line is taken out again below if it turns out to be no good, or one of several.
            if name.lower() == b"traceparent":
                head.traced = not head.traceparents and _TRACEPARENT.fullmatch(value) is not None
                head.traceparents += 1
            head.traces = True
            head.lines.append(b"%b: %b\r\n" % (name, value))
        elif kind == TRAILER:
            head.trailing = True
            head.lines.append(b"%b: %b\r\n" % (name, value))

    @staticmethod
    def _take_hops(head: RequestHead, name: bytes, value: bytes) -> None:
        """Max-Forwards (RFC 9110 section 7.6.2), which counts for OPTIONS and TRACE alone. What is no number, the
        gateway ignores."""
        if head.method == b"OPTIONS" and value.isdigit():
            digits = value.lstrip(b"0")
            hops = int(digits or b"0") if len(digits) <= _HOPS_DIGITS else _MOST_HOPS + 1
            head.last_hop = head.last_hop or not hops
            value = b"%d" % max(0, hops - 1)
        head.lines.append(b"%b: %b\r\n" % (name, value))

    @staticmethod
    def _take_coding(head: RequestHead, value: bytes) -> None:
        """Transfer-Encoding (RFC 9112 section 6.1): chunked, once and alone, is all that is understood."""
        head.length = None
        if head.minor == 0 or head.chunked:
            head.refusal = BAD_FRAMING.because("Transfer-Encoding is repeated, or used in HTTP/1.0.")
        elif value.lower() != b"chunked":
            head.refusal = UNKNOWN_CODING
        head.chunked = True
        head.lines.append(b"Transfer-Encoding: chunked\r\n")

    @staticmethod
    def _take_expectation(head: RequestHead, value: bytes) -> None:
        """Expect (RFC 9110 section 10.1.1), which HTTP/1.0 does not know."""
        if head.minor == 0:
            return
        if value.lower() != b"100-continue":
            head.refusal = head.refusal or EXPECTATION_FAILED
        else:
            # Met by the gateway itself: a service is not asked before the body has begun to come.
            head.expects = True

    def _take_connection(self, head: RequestHead, options: frozenset[bytes]) -> None:
        if b"close" in options:
            head.keep_alive = False
        elif head.minor == 0 and b"keep-alive" in options:
            head.keep_alive = True
        named = options - _PLAIN_OPTIONS
        if named:
            # What frames, routes or names the client is not the client's to take away.
            head.lines = without(head.lines, named - UNREMOVABLE)
            head.traced = head.traced and b"traceparent" not in named

    def _take_upgrade(self, head: RequestHead) -> None:
        """Upgrade (RFC 9110 section 7.8), which HTTP/1.0 does not know. With a body it is as if it was not there:
        what follows the head is that body, whoever switches, so nobody may."""
        if self.upgrades and head.minor == 1 and head.length == 0:
            values = [value for name, value in head.fields if name.lower() == b"upgrade"]
            head.upgrade = requested(values, head.method)

    def _fault(self, head: RequestHead) -> Refusal | None:
        """What is wrong with a request line of good syntax."""
        if head.method not in _METHODS:
            return METHOD_NOT_ALLOWED if head.method in (b"TRACE", b"CONNECT") else NOT_IMPLEMENTED
        target = head.target
        if len(target) > self._max_target:
            return URI_TOO_LONG
        if PLAIN_PATH.fullmatch(target):
            return None
        head.plain = False
        if CLEAN_PATH.fullmatch(target):
            return None
        return self._target_fault(head)

    @staticmethod
    def _target_fault(head: RequestHead) -> Refusal | None:
        target = head.target
        if not target.startswith(b"/"):
            if target == b"*" and head.method == b"OPTIONS":
                return None
            said = origin_form(head.method, target, head.host)
            if isinstance(said, Refusal):
                return said
            target = head.target = head.path = said.target
            head.https = said.scheme == b"https"
            if not head.host:
                head.host = said.authority
                head.lines = [b"Host: %b\r\n" % said.authority, *head.lines]
            if target == b"*":
                return None
        path, mark, query = target.partition(b"?")
        head.path = path
        head.plain = PLAIN_PATH.fullmatch(path) is not None
        if head.plain:
            fault = None
        else:
            fault = path_fault(path)
            if fault is None:
                head.path = essential(path)
        if fault is None and mark:
            fault = query_fault(query)
        return None if fault is None else _bad_request(fault)


@lru_cache(maxsize=64)
def _bad_request(fault: str) -> Refusal:
    """400 with one of the few sentences about targets and hosts."""
    return BAD_REQUEST.because(fault)


def oversized(raw: bytes, max_line: int) -> Refusal:
    """431, or where the request line alone is too long 414 (RFC 6585 section 5, RFC 9110 section 15.5.15), or 501."""
    if b"\n" in raw[:max_line]:
        return HEAD_TOO_LARGE
    # A method that is longer than any is none (RFC 9112 section 3), whatever may follow it.
    return NOT_IMPLEMENTED.closing() if _OVERLONG_METHOD.match(raw) else URI_TOO_LONG


def _coding_refusal(raw: bytes, fields: list[tuple[bytes, bytes]]) -> Refusal | None:
    """501 for an unknown transfer coding that stands alone; any other trouble with framing is 400."""
    codings = [value for name, value in fields if name.lower() == b"transfer-encoding"]
    if len(codings) != 1 or _LENGTH_LINE.search(raw.lower()):
        return None
    coding = codings[0].strip(b" \t")
    if TOKEN.fullmatch(coding) is None or coding.lower() == b"chunked":
        return None
    return UNKNOWN_CODING
