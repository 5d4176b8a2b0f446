"""The lines of the access log, in each of its formats: one for each exchange, without credentials.

Clients choose some of the logged values, so each of these is bounded, and so is the line: collectors split or drop
longer ones. A longer value is cut and ends with its length.
"""

from __future__ import annotations

import re
import time
from typing import Final, Protocol

import msgspec

from ..exchange.states import Exchange
from ..wire.redaction import without_credentials, without_users
from ..wire.request_head import RequestHead

# The version of the schema: one more when a member goes or means something else; new members do not change it.
SCHEMA: Final = 1
# The most bytes of a line. Docker and others split at 16 KiB, syslog's receivers at 8 KiB (RFC 5425 section 4.3.1).
LONGEST_LINE: Final = 8192
# How many bytes of a value chosen by the client are written.
_LONGEST: Final = 1024
_LONGEST_AGENT: Final = 256
# How many bytes of such a value are written when it has to be escaped; the longest escape has six.
_ROOM: Final = 1536

# What is the same for every exchange of a head.
_ASKED: Final = b'"host":"%b","method":"%b","path":"%b","protocol":"%b","user_agent":"%b"'
_LINE: Final = (
    b'{"time":"%b%03dZ","request_id":"%b","tenant":"%b","client":"%b","tls":"%b",%b,"route":"%b","service":"%b",'
    b'"status":%d,"code":"%b","bytes_in":%d,"bytes_out":%d,"duration":%.6f,"trace_id":"%b","ttfb":TTFB,'
    b'"upstream_time":UPSTREAM,"retries":%d,"limit":"%b","worker":WORKER,"v":VERSION}\n'
)
# Bytes that need no escape in a JSON string, within the bound. # begins a fragment, ; a parameter, @ and %40 end a
# user, so values with these are examined, as those with the beginning of a token.
_STANDS: Final = rb"[\x20\x21\x24\x26-\x3a\x3c-\x3f\x41-\x5b\x5d-\x7e]"
_TOO_LONG: Final = rb"(?s:.{%d})" % (_LONGEST + 1)
_PLAIN: Final = re.compile(rb"(?!%b)%b*+(?:%%(?!40|3[Bb])%b*+)*+" % (_TOO_LONG, _STANDS, _STANDS)).fullmatch
# The same without a look for users, which an agent does not have.
_PLAIN_AGENT: Final = re.compile(rb"[\x20\x21\x23-\x5b\x5d-\x7e]{0,%d}" % _LONGEST_AGENT).fullmatch
_CONTROLS: Final = re.compile(rb"\x7f|\xc2[\x80-\x9f]")
_encode: Final = msgspec.json.Encoder().encode
_UNSAFE: Final = re.compile(rb"[^\x20\x21\x23-\x5b\x5d-\x7e]")
_HTTP1: Final = (b"HTTP/1.0", b"HTTP/1.1")
_HTTP2: Final = b"HTTP/2"
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class LineFormat(Protocol):
    """A format of lines."""

    def line(self, exchange: Exchange, limit: str, now: float, ended: float) -> bytes:
        """The line of an exchange, with its end; see `ExchangeLines.line`."""


def _escaped(match: re.Match[bytes]) -> bytes:
    return b"\\u00%02x" % match[0][-1]


def _in_json(value: bytes, longest: int = _LONGEST) -> bytes:
    """`value` as the contents of a JSON string. The note about a cut has spaces, which no target and no host has."""
    encoded = _encoded(value[:longest])
    while len(encoded) > _ROOM:
        longest = min(longest, len(value)) * _ROOM // len(encoded)
        encoded = _encoded(value[:longest])
    if len(value) > longest:
        return b"%b (cut, %d bytes)" % (encoded, len(value))
    return encoded


def _encoded(value: bytes) -> bytes:
    # JSON permits DEL and the C1 control characters unescaped, but a terminal obeys them (ECMA-48).
    return _CONTROLS.sub(_escaped, _encode(value.decode("latin-1"))[1:-1])


def _protocol(head: RequestHead) -> bytes:
    return _HTTP2 if head.http2 else _HTTP1[head.minor]


class JsonLines(LineFormat):
    """One JSON object on a line. `worker` is the number of this process among its workers, 0 for a single one."""

    def __init__(self, worker: int = 0) -> None:
        line = _LINE.replace(b"WORKER", b"%d" % worker).replace(b"VERSION", b"%d" % SCHEMA)
        # For exchanges with a service's response, which are the most, and for others.
        self._answered = line.replace(b"TTFB", b"%.6f").replace(b"UPSTREAM", b"%.6f")
        self._unanswered = line.replace(b"TTFB", b"null").replace(b"UPSTREAM", b"null")
        self._second = 0
        self._prefix = b""

    def line(self, exchange: Exchange, limit: str, now: float, ended: float) -> bytes:
        """A query or fragment after the path is removed, and so is what looks like a user before a host, a user with
        a password, a token, or the value of a path's parameter: they may contain a credential."""
        second, millisecond = divmod(int(now * 1000 + 0.5), 1000)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)).encode()
        head, started, answered = exchange.head, exchange.started, exchange.answered_at
        # What the gateway has made or validated needs no escape and no cut.
        values = (
            self._prefix,
            millisecond,
            exchange.request_id,
            exchange.tenant,
            exchange.peer,
            exchange.context.tls,
            head.shown or _asked(head),
            exchange.route,
            exchange.service.encode(),
            exchange.status,
            exchange.code.encode(),
            exchange.bytes_in,
            exchange.bytes_out,
            ended - started,
            exchange.trace_id or (head.trace_id if head.traced else b""),
        )
        rest = (exchange.retries, _in_json(limit.encode()) if limit else b"")
        if answered:
            sent = exchange.sent_at or started
            return self._answered % (*values, min(answered, ended) - started, ended - sent, *rest)
        return self._unanswered % (*values, *rest)


def _asked(head: RequestHead) -> bytes:
    """What a line says of a head; one that may be met again keeps it."""
    host, method, path, agent = head.host, head.method, head.path.partition(b"?")[0], head.user_agent
    plain = b"eyJ" not in path and _PLAIN(b"%b%b%b" % (host, method, path)) and _PLAIN_AGENT(agent)
    if not plain:
        method, host = _in_json(method), _in_json(without_users(host))
        path, agent = _in_json(without_credentials(path)), _in_json(agent, _LONGEST_AGENT)
    said = _ASKED % (host, method, path, _protocol(head), agent)
    if plain and head.raw:
        head.shown = said
    return said


class CombinedLines(LineFormat):
    """Apache's and nginx's "combined" format, for tools that know it: client, time, request line, status, bytes of
    the body, and User-Agent. The Referer is always "-": it may contain a credential."""

    def __init__(self) -> None:
        self._second = 0
        self._stamp = b""

    def line(self, exchange: Exchange, limit: str, now: float, ended: float) -> bytes:
        """See `JsonLines.line`: the same values are removed and cut."""
        second = int(now)
        if second != self._second:
            self._second = second
            # Not strftime's %b, whose names depend on the locale.
            moment = time.gmtime(second)
            self._stamp = time.strftime(f"%d/{_MONTHS[moment.tm_mon - 1]}/%Y:%H:%M:%S +0000", moment).encode()
        head = exchange.head
        path = without_credentials(head.path)
        return b'%b - - [%b] "%b %b %b" %d %d "-" "%b"\n' % (
            exchange.peer,
            self._stamp,
            _quoted(head.method, _LONGEST_AGENT),
            _quoted(path, _LONGEST),
            _protocol(head),
            exchange.status,
            exchange.bytes_out,
            _quoted(head.user_agent, _LONGEST_AGENT) or b"-",
        )


def _quoted(value: bytes, longest: int) -> bytes:
    """As the contents of a quoted string: other bytes as in `\\x22`, as nginx and Apache write them."""
    return _UNSAFE.sub(lambda match: b"\\x%02X" % match[0][0], value[:longest])
