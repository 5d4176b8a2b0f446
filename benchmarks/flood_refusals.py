"""What the gateway refuses, in bulk: each refusal that a client can bring about, and guesses of tenants' names."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

from flood_http1 import KIB, over_and_over, request
from flood_http2 import block, headers, on_streams
from flood_swarm import Attack, Script, Step

_GUESSES = 500
_POST = b"POST"
# What is refused without an end of the connection.
KEPT = {
    "400-path": request(b"/v1/users/../admin"),
    "400-tenant": request(host=b"Host: id.localhost\r\n"),
    "404-route": request(b"/nowhere"),
    "405-trace": request(method=b"TRACE"),
    "501-method": request(method=b"BREW"),
    "preflight": request(
        fields=b"Origin: https://app.example.com\r\nAccess-Control-Request-Method: POST\r\n", method=b"OPTIONS"
    ),
}
# What ends the connection.
CLOSED = {
    "400-line": b"GET /v1/users\r\n\r\n",
    "400-fold": request(fields=b"A: b\r\n c\r\n"),
    "400-lengths": request(fields=b"Content-Length: 1\r\nContent-Length: 2\r\n", method=_POST) + b"x",
    "400-framing": request(fields=b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", method=_POST) + b"x",
    "413-body": request(fields=b"Content-Length: 99999999\r\n", method=_POST),
    "414-target": request(b"/v1/users/" + b"x" * 9 * KIB),
    "417-expect": request(fields=b"Expect: magic\r\nContent-Length: 1\r\n", method=_POST),
    "431-fields": request(fields=b"A: b\r\n" * 150),
    "431-bytes": request(fields=b"A: %b\r\n" % (b"b" * 33 * KIB)),
    "501-coding": request(fields=b"Transfer-Encoding: gzip\r\n", method=_POST),
}


def _host(number: int) -> bytes:
    return b"guess-%07d.id.localhost" % number


def guesses() -> Script:
    """A request for each tenant that might be."""

    def script() -> Iterable[Step]:
        for start in count(0, _GUESSES):
            hosts = map(_host, range(start, start + _GUESSES))
            yield b"".join(request(host=b"Host: %b\r\n" % host) for host in hosts)

    return script


def clients_of_a_proxy() -> Script:
    """What a trusted proxy brings from a new client each time."""

    def script() -> Iterable[Step]:
        for start in count(0, _GUESSES):
            numbers = range(start, start + _GUESSES)
            lines = (b"X-Forwarded-For: 10.%d.%d.%d\r\n" % (n >> 16 & 255, n >> 8 & 255, n & 255) for n in numbers)
            yield b"".join(request(b"/nowhere", line) for line in lines)

    return script


def refusals() -> list[Attack]:
    """Item 8, and each refusal."""
    guess = len(request(host=b"Host: %b\r\n" % _host(0)))
    attacks = [Attack("guesses", "8", t, guesses(), guess, counted=True) for t in ("plain", "tls")]
    kept = [
        Attack(f"refusal-{name}", "refused", t, over_and_over(data), len(data), counted=True)
        for name, data in KEPT.items()
        for t in ("plain", "tls")
    ]
    closed = [
        Attack(f"refusal-{name}", "refused", "plain", over_and_over(data), len(data), counted=True, reconnect=0.02)
        for name, data in CLOSED.items()
    ]
    keys = Attack(
        "random-clients",
        "floods",
        "plain",
        clients_of_a_proxy(),
        len(request(b"/nowhere", b"X-Forwarded-For: 10.100.100.100\r\n")),
        counted=True,
        trusted=True,
        # limits_store.max_entries buckets of a few hundred bytes
        allowance=128 << 20,
    )
    return [*attacks, *_http2(), *kept, *closed, keys]


def _http2() -> list[Attack]:
    blocks = {
        "guesses": ("8", lambda stream: block(host=_host(stream))),
        "refusal-400-path": ("refused", lambda stream: block(b"/v1/users/../admin")),
        "refusal-404-route": ("refused", lambda stream: block(b"/nowhere")),
        "refusal-431-fields": ("refused", lambda stream: block(rest=b"\x00\x01a\x01b" * 150)),
    }
    return [
        Attack(name, item, "h2", on_streams(lambda s, made=made: headers(s, made(s))), 50, counted=True)  # type: ignore[misc]
        for name, (item, made) in blocks.items()
    ]
