"""Attacks by HTTP/1.1: answers that nobody takes, pipelines, dear heads, tiny chunks, drips and refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain, repeat

from flood_swarm import FOREVER, HOST, Attack, Script, Step

_HOST = b"Host: %b\r\n" % HOST.encode()
# What is sent over and over is about so many bytes at a time.
BULK = 1 << 18
# Over these each attack of HTTP/1.1 goes.
TRANSPORTS = ("plain", "tls")
KIB = 1024
# Of the service that honest clients don't ask.
BULK_PATH = b"/v1/auth"


def over_and_over(data: bytes, first: bytes = b"") -> Script:
    """`first`, and then these bytes without an end."""
    bulk = data * max(1, BULK // len(data))
    return lambda: chain([first] if first else [], repeat(bulk))


def once(data: bytes) -> Script:
    """These bytes, and then whatever the server makes of them until it closes."""
    return lambda: iter((data, FOREVER))


def dripping(head: bytes, then: bytes, pause: float = 0.002) -> Script:
    """`head` in one go, `then` byte by byte, until the server closes."""

    def script() -> Iterable[Step]:
        yield head
        for place in range(len(then)):
            yield then[place : place + 1]
            yield pause
        yield FOREVER

    return script


def request(
    target: bytes = b"/v1/users", fields: bytes = b"", *, host: bytes = _HOST, method: bytes = b"GET"
) -> bytes:
    """A request without a body; `fields` are whole lines."""
    return b"%b %b HTTP/1.1\r\n%b%b\r\n" % (method, target, host, fields)


# A head as large as the shipped limits allow, of one line over and over.
def head_of(line: bytes, size: int = 32 * KIB - 200) -> bytes:
    """A request whose head repeats a line up to so many bytes."""
    return request(fields=line * (size // len(line)))


ELSEWHERE = request(b"/", host=b"Host: x\r\n")
LARGE = request(BULK_PATH + b"/60k")
_VERY_LARGE = request(BULK_PATH + b"/5m")
# By GET, whose failures no shipped limit counts.
_UPLOAD = b"GET /v1/users HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n" % _HOST
CHUNK = b"5\r\nhello\r\n"
_EXTENDED = b"1;a=b;c=d;e=f;g=h\r\nx\r\n"
# Line by line what is repeated in heads that are dear to look at, and how the case is called.
HEADS = {
    "head-tenant": b"X-Tenant-ID:\r\n",
    "head-forwarded": b"Forwarded:\r\n",
    "head-connection": b"Connection:\r\n",
    "head-many": b"a:\r\n",
    "head-cookies": b"Cookie: a=b\r\n",
    "head-xff": b"X-Forwarded-For: 1.2.3.4\r\n",
}


def _each(make: Callable[[str], Attack]) -> list[Attack]:
    return [make(transport) for transport in TRANSPORTS]


def unread() -> list[Attack]:
    """Item 1: nothing of the answers is ever read."""
    return [
        *_each(
            lambda t: Attack(
                "unread-refused", "1", t, over_and_over(ELSEWHERE), len(ELSEWHERE), reads=False, allowance=32 * KIB
            )
        ),
        *_each(
            lambda t: Attack(
                "unread-proxied",
                "1",
                t,
                over_and_over(LARGE),
                len(LARGE),
                reads=False,
                allowance=32 * KIB,
                answer="60k",
            )
        ),
        *_each(lambda t: Attack("unread-download", "1", t, once(_VERY_LARGE), len(_VERY_LARGE), reads=False)),
    ]


def bulk() -> list[Attack]:
    """Item 2: more work in one go than others should have to wait for."""
    ordinary = request(BULK_PATH)
    return [
        *_each(
            lambda t: Attack(
                "bulk-refused", "2", t, over_and_over(ELSEWHERE), len(ELSEWHERE), counted=True, allowance=32 * KIB
            )
        ),
        *_each(
            lambda t: Attack(
                "bulk-limited", "2", t, over_and_over(ordinary), len(ordinary), counted=True, allowance=32 * KIB
            )
        ),
        *_each(lambda t: Attack("bulk-chunks", "2", t, over_and_over(CHUNK, _UPLOAD), 4 * KIB, "4 KiB")),
    ]


def dear() -> list[Attack]:
    """Item 6: heads and bodies that cost more than they should."""
    cases = []
    for name, line in HEADS.items():
        head = head_of(line)
        size = len(head)
        cases += [
            Attack(name, "6", t, over_and_over(head), size, counted=True, allowance=32 * KIB) for t in TRANSPORTS
        ]
    listed = request(fields=b"Forwarded: " + b"a=b," * 7500 + b"a=b\r\n")
    cases += [
        Attack(
            "head-trusted", "6", t, over_and_over(listed), len(listed), counted=True, allowance=32 * KIB, trusted=True
        )
        for t in TRANSPORTS
    ]
    for name, size in (("drip-100", 100), ("drip-30k", 30_000)):
        begun = request(fields=b"X-Filler: " + b"f" * size)[:-2]
        script = dripping(begun, b"g" * 1000)
        cases += [Attack(name, "6", t, script, 1, "byte", len(begun), allowance=32 * KIB) for t in TRANSPORTS]
    extensions = over_and_over(_EXTENDED, _UPLOAD)
    cases += [Attack("chunk-extensions", "6", t, extensions, 4 * KIB, "4 KiB") for t in TRANSPORTS]
    for name, segment in (("path-empty", b"/;"), ("path-escaped", b"/%252e%252e"), ("path-signs", b"/%E2%80%A5")):
        odd = request(b"/v1/auth" + segment * (8000 // len(segment)))
        cases += [Attack(name, "6", t, over_and_over(odd), len(odd), counted=True) for t in TRANSPORTS]
    ones = over_and_over(b"1\r\nx\r\n", _UPLOAD)
    return cases + [Attack("chunks-of-one", "6", t, ones, 4 * KIB, "4 KiB") for t in TRANSPORTS]
