"""A request's head, as far as it was parsed: the common result of HTTP/1.1 and HTTP/2."""

from __future__ import annotations

from typing import Any, Final

from ..errors import Refusal
from .accept import negotiating_fields
from .refusal_writer import RefusalShape
from .upgrade import KEY

_NOTHING: Final[tuple[bytes, ...]] = ()
_CORS_METHOD, _CORS_HEADERS = b"access-control-request-method", b"access-control-request-headers"
# Up to this size in bytes, a head is compared with the previous one: larger ones are not kept for that.
KEPT_HEAD: Final = 2048
# The key of a handshake that the gateway writes itself.
KEY_NAME: Final = b"Sec-WebSocket-Key"
_KEY_LINE: Final = KEY_NAME + b": "


class RequestHead:
    """One request's head. A `refusal` means that it goes no further; the rest is then as far as it was read.

    `fields` are all fields as they came, `lines` the end-to-end field lines in order, each `Name: value CRLF`.
    `length` is the body's in bytes, None when it is `chunked`. `upgrade` is the Upgrade that a service may be asked
    for, which is not among the lines. `target` is the raw path with its query; `path` is the part before the `?`,
    without escapes that mean nothing. `plain` says that no service reads another path in it, `https` that the target
    is an absolute URL of that scheme, `last_hop` that an OPTIONS is for the gateway itself, as if for `*` (RFC 9110
    section 7.6.2). `trace_id` is that of the client's own trace, where the head is `traced`, and `trace_parent` the
    client's span and flags as its traceparent has them (`SPAN-FLAGS`); `http2` says that it came over HTTP/2.
    `page` says whether the client would rather get a page than JSON, and `shape` is that of its refusals: both are
    None until somebody asks (`exchange.refusing`).

    A head may be met again. `route`, `plan` and `preflight` are what was found for it the last time, each behind what
    it was found in, which is compared by identity: None for nothing yet.
    """

    __slots__ = (
        "_block",
        "_fields",
        "_lines",
        "chunked",
        "expects",
        "forwarded",
        "host",
        "http2",
        "https",
        "keep_alive",
        "last_hop",
        "length",
        "line_size",
        "method",
        "minor",
        "origin",
        "page",
        "path",
        "plain",
        "plan",
        "preflight",
        "raw",
        "reader",
        "refusal",
        "request_id",
        "route",
        "shape",
        "shown",
        "target",
        "tenants",
        "trace_id",
        "trace_parent",
        "traced",
        "traceparents",
        "traces",
        "trailing",
        "upgrade",
        "user_agent",
    )

    def __init__(self, method: bytes, target: bytes, minor: int, fields: list[tuple[bytes, bytes]]) -> None:
        self.method = method
        self.target = target
        self.path = target
        self.plain = True
        self.https = False
        self.http2 = False
        self.last_hop = False
        self.page: bool | None = None
        self.shape: RefusalShape | None = None
        self.route: tuple[object, Any] | None = None
        self.plan: tuple[object, Any] | None = None
        self.preflight: tuple[object, object, bytes | None] | None = None
        self.minor = minor
        # Of a head that is kept both are None, and made of `raw` when they are asked for.
        self._fields: list[tuple[bytes, bytes]] | None = fields
        self._lines: list[bytes] | None = []
        self._block: bytes | None = None
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
        self.trace_id = b""
        self.trace_parent = b""
        self.traces = False
        self.traceparents = 0
        self.trailing = False
        self.upgrade: bytes | None = None
        self.user_agent = b""
        self.refusal: Refusal | None = None
        # The head as it came, the size of its request line, and the reader that read it (compared by identity): kept
        # where a next head with the same field lines may reuse what they mean.
        self.raw = b""
        self.line_size = 0
        self.reader: object | None = None
        # What a log shows of it: kept with it, and by the log.
        self.shown = b""

    def with_line(self, method: bytes, target: bytes, raw: bytes, line_size: int) -> RequestHead:
        """A head with the same fields and another request line; it came as `raw`."""
        head = _new_head(RequestHead)
        head.method = method
        head.target = target
        head.path = target
        head.plain = True
        head.https = False
        head.http2 = self.http2
        head.last_hop = False
        head.page = self.page
        head.shape = None
        head.route = head.plan = head.preflight = None
        head.minor = self.minor
        head._fields = self._fields
        head._lines = self._lines
        head._block = self._block
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
        head.trace_id = self.trace_id
        head.trace_parent = self.trace_parent
        head.traces = self.traces
        head.traceparents = self.traceparents
        head.trailing = self.trailing
        head.upgrade = None
        head.user_agent = self.user_agent
        head.refusal = None
        head.raw = raw
        head.line_size = line_size
        head.reader = self.reader
        head.shown = b""
        return head

    def with_key(self, key: bytes) -> RequestHead:
        """The head of another WebSocket handshake, with this Sec-WebSocket-Key and otherwise the same."""
        head = self.with_line(self.method, self.target, b"", 0)
        head.path = self.path
        head.plain = self.plain
        head.upgrade = self.upgrade
        head.refusal = self.refusal
        head._fields = [(KEY_NAME, key) if name == KEY_NAME else (name, value) for name, value in self.fields]
        head._lines = [b"%b%b\r\n" % (_KEY_LINE, key) if line.startswith(_KEY_LINE) else line for line in self.lines]
        return head

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        """All fields in order, with the names and values as they came."""
        fields = self._fields
        if fields is None:
            fields = self._fields = _split(self.raw[self.line_size :])
        return fields

    @property
    def lines(self) -> list[bytes]:
        """The end-to-end field lines. Whoever reads the head adds to them, until it is kept."""
        lines = self._lines
        return self.field_block().splitlines(keepends=True) if lines is None else lines

    @lines.setter
    def lines(self, lines: list[bytes]) -> None:
        self._lines = lines

    def field_block(self) -> bytes:
        """The end-to-end field lines in one piece."""
        if self._lines is not None:
            return b"".join(self._lines)
        return self.raw[self.line_size : -2] if self._block is None else self._block

    def keep(self, raw: bytes, line_size: int, reader: object) -> None:
        """Keep a head for the next ones of its connection. An idle connection has it until then, so its fields are
        only kept as the bytes that they came in."""
        block = self.field_block()
        self.raw = raw
        self.line_size = line_size
        self.reader = reader
        self._fields = self._lines = None
        # Mostly they are passed on as they came.
        self._block = None if block == raw[line_size:-2] else block

    def has_fields_of(self, raw: bytes, line_size: int) -> bool:
        """Whether the head in `raw` has the field lines of this one, which is kept."""
        mine = self.raw
        same_size = len(raw) - line_size == len(mine) - self.line_size
        return same_size and raw[line_size:] == mine[self.line_size :]

    def value(self, name: bytes) -> bytes | None:
        """The value of the first field of this (lower-case) name."""
        return next((value for each, value in self.fields if each.lower() == name), None)

    def drop_fields(self) -> None:
        """The headers have been passed on and are not needed any more, except what decides on the shape of a refusal,
        and what the response to an Upgrade is compared with."""
        self._lines = []
        kept = negotiating_fields(self.fields)
        if self.upgrade is not None:
            kept += [pair for pair in self.fields if pair[0].lower() == KEY]
        self._fields = kept

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


def _split(lines: bytes) -> list[tuple[bytes, bytes]]:
    """The fields in lines that have been found well-formed: as llhttp has read them."""
    pairs = [line.split(b":", 1) for line in lines.split(b"\r\n") if line]
    return [(name, value.lstrip(b" \t")) for name, value in pairs]


_new_head = RequestHead.__new__
