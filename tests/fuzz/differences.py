"""Where the gateway reads a message that llhttp or h11 refuses, or reads it otherwise: a fault, or listed here.

What the gateway refuses is its own affair. What it accepts must be whole for the others where it is whole for the
gateway, with the same start, fields and body; and what it makes of it must be read alike by all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from koder_gateway.wire.request_head import RequestHead
from tests.fuzz.readings import (
    REQUESTS,
    Reading,
    Stream,
    h11_requests,
    h11_responses,
    llhttp,
    our_requests,
    our_responses,
)

_FRAMING_TRAILER = re.compile(rb"\r\n(?:content-length|transfer-encoding):", re.IGNORECASE)
_CONNECTION_TRAILER = re.compile(rb"\r\n(?:proxy-)?connection:", re.IGNORECASE)
_SPACED_EXTENSION = re.compile(rb";[ \t]")


class Difference(NamedTuple):
    """One that is right as it is. `applies` gets the gateway's reading, and what the other reader says against it."""

    reader: str
    reason: str
    applies: Callable[[Reading, str], bool]


KNOWN: tuple[Difference, ...] = (
    Difference(
        "h11",
        "Empty lines before a request are ignored (RFC 9112 section 2.2).",
        lambda said, fault: fault == "refused: no request line received",
    ),
    Difference(
        "h11",
        "HTTP/1.0 may keep its connection (RFC 9112 section 9.3), which h11 does not support.",
        lambda said, fault: fault == "the last one" and said.minor == 0,
    ),
    Difference(
        "llhttp",
        "Proxy-Connection is no field of HTTP (RFC 9112 appendix C.2.2): it is dropped, and says nothing.",
        lambda said, fault: fault == "the last one" and any(name == b"proxy-connection" for name, _ in said.every),
    ),
    Difference(
        "llhttp",
        "An Upgrade of a request with a body is ignored (RFC 9110 section 7.8), so that its body counts.",
        lambda said, fault: (
            fault in ("body: b''", "whole: b''") and {b"upgrade", b"connection"} <= dict(said.every).keys()
        ),
    ),
    Difference(
        "llhttp",
        "A Content-Length or a coding in trailers says nothing, and is dropped (RFC 9110 section 6.5.1).",
        lambda said, fault: said.head.chunked and _FRAMING_TRAILER.search(said.behind) is not None,
    ),
    Difference(
        "llhttp",
        "A Connection in trailers says nothing, and is dropped (RFC 9110 section 6.5.1).",
        lambda said, fault: (
            fault == "the last one" and said.head.chunked and _CONNECTION_TRAILER.search(said.behind) is not None
        ),
    ),
    Difference(
        "h11",
        "The same for a coding in trailers that h11 does not know.",
        lambda said, fault: said.head.chunked and _FRAMING_TRAILER.search(said.behind) is not None,
    ),
    Difference(
        "llhttp",
        "A chunk's extension may have white space before its name (RFC 9112 section 7.1.1); extensions are dropped.",
        lambda said, fault: said.head.chunked and _SPACED_EXTENSION.search(said.behind) is not None,
    ),
    Difference(
        "llhttp",
        "An interim response has no body, whatever its Content-Length says (RFC 9112 section 6.3).",
        lambda said, fault: said.start.startswith(b"1") and fault.startswith("body: "),
    ),
    Difference(
        "llhttp",
        "Behind an interim response the final one comes, whatever its Connection says (RFC 9110 section 15.2).",
        lambda said, fault: fault == "refused: Data after `Connection: close`" and said.after_interim,
    ),
)


def check_requests(data: bytes) -> None:
    """Raise AssertionError if the gateway reads other requests in `data` than llhttp and h11."""
    ours = our_requests(data)
    _compare("llhttp", data, ours, llhttp(data, response=False))
    _compare("h11", data, ours, h11_requests(data))
    for said in ours.messages:
        _check_anew(said)
        _check_forwarded(said)


def check_responses(data: bytes, *, to_head: bool) -> None:
    """The same for responses. llhttp is not asked about those to HEAD, since it is not told what was asked."""
    ours = our_responses(data, to_head=to_head)
    if not to_head:
        _compare("llhttp", data, ours, llhttp(data, response=True))
    _compare("h11", data, ours, h11_responses(data, to_head=to_head))


def _compare(reader: str, data: bytes, ours: Stream, theirs: Stream) -> None:
    for place, mine in enumerate(ours.messages):
        if mine.switching and reader == "h11" and mine.start == b"101":
            return  # h11 takes it for an error where it has not asked for it itself.
        other = theirs.messages[place] if place < len(theirs.messages) else None
        if other is None and theirs.messages and theirs.messages[-1].switching:
            return  # It waits for what becomes of an Upgrade which the gateway ignores.
        fault = _fault(mine, other, ours.refusal, theirs.refusal)
        if fault is None:
            if mine.switching or mine.last:
                return
            continue
        if any(known.reader == reader and known.applies(mine, fault) for known in KNOWN):
            return
        raise AssertionError(f"{reader}: {fault}: message {place} of {data!r}, body {bytes(mine.body)!r}")


def _fault(mine: Reading, other: Reading | None, refused: str, refusal: str) -> str | None:
    """What the other reader says against a message. `refused`: why the gateway refuses what comes behind it, or the
    rest of its body, `refusal`: why the other one does."""
    if other is None:
        return f"refused: {refusal}" if refusal else "not found"
    for name, one, two in (
        ("start", mine.start, other.start),
        ("minor", mine.minor, other.minor),
        ("target", _target(mine), other.target),
    ):
        if one != two:
            return f"{name}: {two!r}"
    if not _within(mine, other):
        return f"fields: {other.fields!r}"
    if mine.whole:
        if mine.body != other.body:
            return f"body: {bytes(other.body)!r}"
        if not other.whole and not mine.switching:
            return f"not whole: {refusal}"
        interim = len(mine.start) == 3 and mine.start < b"200"
        return "the last one" if other.last and not (mine.last or mine.switching or interim) else None
    if refused:
        return None  # It ends here, and what has come of it is marked as cut.
    if other.whole:
        return f"whole: {bytes(other.body)!r}"
    if not (other.body.startswith(mine.body) or mine.body.startswith(other.body)):
        return f"body: {bytes(other.body)!r}"
    return None  # The rest has not come, and is judged then.


def _target(said: Reading) -> bytes:
    """The target as it came: of an absolute URL the gateway only keeps the path. Of a response the reason."""
    if isinstance(said.head, RequestHead):
        return said.raw.split(b" ", 2)[1]
    return said.target


def _within(mine: Reading, other: Reading) -> bool:
    """Whether the other reader has found the fields of the gateway, in their order: all of a request, of a response
    those that go on."""
    theirs = [(name, _plain(name, value)) for name, value in other.fields]
    fields = [(name, _plain(name, value)) for name, value in mine.fields]
    if isinstance(mine.head, RequestHead):
        return fields == theirs
    remaining = iter(theirs)
    return all(any(field == each for each in remaining) for field in fields)


def _plain(name: bytes, value: bytes) -> bytes:
    """A value as h11 writes it."""
    return value.lower() if name in (b"transfer-encoding", b"content-length") else value


def _check_anew(said: Reading) -> None:
    """A head that was read behind another one of its connection means what it means alone."""
    alone = REQUESTS.read(said.raw)
    for name in ("method", "target", "path", "minor", "host", "length", "chunked", "keep_alive", "fields", "refusal"):
        assert getattr(alone, name) == getattr(said.head, name), f"{name} depends on the head before: {said.raw!r}"
    assert alone.field_block() == said.head.field_block(), f"lines depend on the head before: {said.raw!r}"


_CLEAN = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [\t\x20-\x7e\x80-\xff]*\r\n)*")


def _check_forwarded(said: Reading) -> None:
    """What goes on of a head is read by all as the gateway means it."""
    head = said.head
    block = head.field_block()
    assert _CLEAN.fullmatch(block), f"malformed lines go on: {block!r}"
    raw = b"%b %b HTTP/1.1\r\n%b\r\n" % (head.method, head.target, block)
    again = REQUESTS.read(raw)
    if not head.host:
        return
    assert again.refusal is None, f"{again.refusal}: {raw!r}"
    assert (again.length, again.chunked, again.host) == (head.length, head.chunked, head.host), raw
