"""What the headers of a request mean for framing, routing and identity, and the lines that a service gets."""

from __future__ import annotations

import re
from typing import Final

from ..errors import BAD_FRAMING, EXPECTATION_FAILED, HEAD_TOO_LARGE, UNKNOWN_CODING
from .fields import (
    AGENT,
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
    TRACE,
    TRAILER,
    UNREMOVABLE,
    FieldKinds,
    connection_options,
    without_fields,
)
from .request_head import RequestHead
from .request_syntax import bad_request
from .target import host_fault
from .trace_context import is_traceparent, is_tracestate
from .upgrade import requested_upgrade

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
# The most that Max-Forwards goes on as, and its digits.
_MOST_HOPS: Final = 999_999_999
_HOPS_DIGITS: Final = 9
# A length that no body has.
_BEYOND: Final = 2**63
_TRACE_FIELDS: Final = frozenset((b"traceparent", b"tracestate"))
_TRAILER_FIELD: Final = frozenset((b"trailer",))
# Options that name no field which could be among the lines.
_PLAIN_OPTIONS: Final = frozenset((b"close", b"keep-alive", b"upgrade"))
_TOO_MANY_OPTIONS: Final = HEAD_TOO_LARGE.because("The request's Connection header has too many options.")


def interpret_fields(head: RequestHead, kinds: FieldKinds, upgrades: bool, nameless: bool) -> bool:
    """Sort the headers by their meaning and collect the lines for the service.

    Returns whether they mean the same with another request line: the allowed upgrades depend on the method.
    """
    table, lines = kinds.table, head.lines
    connection: list[bytes] = []
    tenants: list[bytes] = []
    hosts = 0
    reusable = True
    for name, value in head.fields:
        kind = table.get(name)
        if kind is None:
            kind = kinds.classify(name)
        if kind == PASS:
            lines.append(b"%b: %b\r\n" % (name, value.rstrip(b" \t")))
        elif kind == HOST:
            head.host = value.rstrip(b" \t")
            hosts += 1
            lines.append(b"%b: %b\r\n" % (name, head.host))
        elif kind == ORIGIN:
            said = value.rstrip(b" \t")
            # Several lines: not a single origin, so none that is allowed, but all that they name still count.
            head.origin = said if head.origin is None else b"%b, %b" % (head.origin, said)
            lines.append(b"%b: %b\r\n" % (name, said))
        elif kind == CONNECTION:
            connection.append(value)
        elif kind == TENANT:
            tenants.append(value.rstrip(b" \t"))
        elif kind == HOPS:
            reusable = False
            _read_max_forwards(head, name, value.rstrip(b" \t"))
        elif kind != DROP:
            _read_special(head, kind, name, value.rstrip(b" \t"))
    if tenants:
        head.tenants = tuple(tenants)
    if connection:
        options = connection_options(connection)
        if options is None:
            head.refusal = _TOO_MANY_OPTIONS
            return False
        _read_connection(head, options)
        if b"upgrade" in options:
            reusable = False
            if upgrades:
                _read_upgrade(head)
    if head.traces and not head.traced:
        # A header that belongs to no trace, or to several, begins none of its own (W3C Trace Context section 3.3).
        head.lines = without_fields(head.lines, _TRACE_FIELDS)
    if head.trailing and not head.chunked:
        head.lines = without_fields(head.lines, _TRAILER_FIELD)
    _check(head, hosts, nameless)
    return reusable


def _check(head: RequestHead, hosts: int, nameless: bool) -> None:
    if hosts != 1 and (hosts or head.minor):
        head.refusal = BAD_FRAMING.because("There must be exactly one Host header.")
    elif hosts and head.refusal is None and (head.host or not nameless):
        fault = host_fault(head.host)
        if fault is not None:
            head.refusal = bad_request(fault).closing()
    if head.length is not None and head.length >= _BEYOND:
        head.refusal = BAD_FRAMING.because("The Content-Length is out of range.")


def _read_special(head: RequestHead, kind: int, name: bytes, value: bytes) -> None:
    if kind == LENGTH:
        # llhttp has checked: digits, once, below 2^64; only zeros in front can make it long.
        head.length = int(value) if len(value) <= 19 else _BEYOND
        head.lines.append(b"Content-Length: %d\r\n" % head.length)
    elif kind == CODING:
        _read_transfer_encoding(head, value)
    elif kind == EXPECT:
        _read_expect(head, value)
    elif kind == REQUEST_ID:
        if _REQUEST_ID.fullmatch(value):
            head.request_id = value
    elif kind == FORWARDED:
        if head.forwarded is None:
            head.forwarded = [(name, value)]
        else:
            head.forwarded.append((name, value))
    elif kind == TRACE:
        # Its line is removed below if it is malformed or repeated.
        if name.lower() == b"traceparent":
            head.traced = not head.traceparents and is_traceparent(value)
            head.trace_id = value[3:35]
            head.trace_parent = value[36:55]
            head.traceparents += 1
        elif not is_tracestate(value):
            return
        head.traces = True
        head.lines.append(b"%b: %b\r\n" % (name, value))
    elif kind == AGENT:
        head.user_agent = value
        head.lines.append(b"%b: %b\r\n" % (name, value))
    elif kind == TRAILER:
        head.trailing = True
        head.lines.append(b"%b: %b\r\n" % (name, value))


def _read_max_forwards(head: RequestHead, name: bytes, value: bytes) -> None:
    """Max-Forwards (RFC 9110 section 7.6.2), which only applies to OPTIONS and TRACE. The gateway ignores a value
    that is not a number."""
    if head.method == b"OPTIONS" and value.isdigit():
        digits = value.lstrip(b"0")
        hops = int(digits or b"0") if len(digits) <= _HOPS_DIGITS else _MOST_HOPS + 1
        head.last_hop = head.last_hop or not hops
        value = b"%d" % max(0, hops - 1)
    head.lines.append(b"%b: %b\r\n" % (name, value))


def _read_transfer_encoding(head: RequestHead, value: bytes) -> None:
    """Transfer-Encoding (RFC 9112 section 6.1): only chunked, once and alone, is supported."""
    head.length = None
    if head.minor == 0 or head.chunked:
        head.refusal = BAD_FRAMING.because("Transfer-Encoding is repeated, or used in HTTP/1.0.")
    elif value.lower() != b"chunked":
        head.refusal = UNKNOWN_CODING
    head.chunked = True
    head.lines.append(b"Transfer-Encoding: chunked\r\n")


def _read_expect(head: RequestHead, value: bytes) -> None:
    """Expect (RFC 9110 section 10.1.1), which HTTP/1.0 does not know."""
    if head.minor == 0:
        return
    if value.lower() != b"100-continue":
        head.refusal = head.refusal or EXPECTATION_FAILED
    else:
        # The gateway itself handles it: the service gets the request when the body begins to arrive.
        head.expects = True


def _read_connection(head: RequestHead, options: frozenset[bytes]) -> None:
    if b"close" in options:
        head.keep_alive = False
    elif head.minor == 0 and b"keep-alive" in options:
        head.keep_alive = True
    named = options - _PLAIN_OPTIONS
    if named:
        # A client must not remove headers that frame, route or identify.
        head.lines = without_fields(head.lines, named - UNREMOVABLE)
        head.traced = head.traced and b"traceparent" not in named


def _read_upgrade(head: RequestHead) -> None:
    """Upgrade (RFC 9110 section 7.8), which HTTP/1.0 does not know.

    With a body it is ignored: the body follows the head even if protocols are switched, so no switch is possible.
    """
    if head.minor == 1 and head.length == 0:
        values = [value for name, value in head.fields if name.lower() == b"upgrade"]
        head.upgrade = requested_upgrade(values, head.method)
