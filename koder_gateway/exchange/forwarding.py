"""Every field that a service gets from the gateway, besides the client's own lines.

A connection keeps those that say whose request it is and which way it came (`context_fields`): the tenant, the way
(RFC 7239, RFC 9110 section 7.6.3) and the client's certificate (RFC 9440). `service_fields` adds what belongs to one
request: its id, its trace, its Upgrade. `bodiless` corrects what was said of a body that there turns out not to be.

A trusted proxy is believed about its client's address and scheme. The host is the one by which the tenant was
resolved, whatever a proxy says: one that sets X-Forwarded-For alone lets its client's own X-Forwarded-Host through.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ..policy.clients import ForwardedChain, ProxiedAddress, node_of
from ..wire.fields import without_fields

HTTP: Final = b"http"
HTTPS: Final = b"https"
# A WebSocket is opened by HTTP (RFC 6455 section 3).
_SCHEMES: Final = {HTTP: HTTP, HTTPS: HTTPS, b"ws": HTTP, b"wss": HTTPS}

# What frames a chunked body, and methods whose requests mostly have one.
_CHUNKED: Final = frozenset((b"transfer-encoding", b"trailer"))
_WITH_BODY: Final = frozenset((b"POST", b"PUT", b"PATCH"))
_HEAD_END: Final = b"\r\n\r\n"

Fields = Sequence[tuple[bytes, bytes]]


def values(fields: Fields, name: bytes) -> list[bytes]:
    """The values of the fields of this (lower-case) name."""
    return [value for each, value in fields if each.lower() == name]


def _said(words: Iterable[bytes]) -> bytes:
    """What a list of schemes says (they have no case: RFC 3986 section 3.1): b"" nothing, one scheme where all are
    the same, the one that promises nothing where they differ, or what is none."""
    said = {word.strip(b" \t").lower() for word in words} - {b""}
    known = {_SCHEMES.get(word, word) for word in said}
    if len(known) == 1:
        return known.pop()
    return HTTP if known else b""


def scheme(forwarded: Fields, chain: ForwardedChain, *, secure: bool) -> bytes:
    """What the client speaks: with the gateway (`secure`), or with the trusted proxy that says so, in
    X-Forwarded-Proto or the client's element of Forwarded. Where they differ it is the one that promises nothing."""
    plain = _said(b",".join(values(forwarded, b"x-forwarded-proto")).split(b","))
    element = _said((chain.proto,))
    if plain and element and plain != element:
        return HTTP
    said = plain or element
    if said in (HTTP, HTTPS):
        return said
    return HTTPS if secure else HTTP


def balancers_scheme(peer: str) -> bytes | None:
    """What a balancer's PROXY header says of its client's TLS; None where it says nothing."""
    if not isinstance(peer, ProxiedAddress) or peer.secure is None:
        return None
    return HTTPS if peer.secure else HTTP


def context_fields(tenant: tuple[bytes, bytes], way: bytes, certificate: bytes) -> bytes:
    """The field lines that all requests of one context have: the `tenant` (the field's name and the slug), the
    `forwarding_fields`, and the client's verified certificate (DER, b"" for none)."""
    name, slug = tenant
    # A byte sequence of RFC 8941 section 3.3.5.
    verified = b"Client-Cert: :%b:\r\n" % b2a_base64(certificate, newline=False) if certificate else b""
    return b"%b: %b\r\n%b%b" % (name, slug, way, verified)


def forwarding_fields(
    host: bytes, chain: ForwardedChain, proto: bytes, forwarded: Fields, believed: frozenset[bytes]
) -> bytes:
    """The field lines that say which way a request has come.

    X-Forwarded-For and Forwarded name the same hops, each element with the same host and scheme, so that whichever a
    service asks, it learns the same. X-Real-IP, where a trusted proxy sends it, names the client that these name. Of
    what else such a proxy has sent in `forwarded`, the `believed` (lower-case names) go on as they came.
    """
    rest = b';host="%b";proto=%b' % (host, proto)
    real = b"X-Real-IP: %b\r\n" % chain.client.encode("ascii") if values(forwarded, b"x-real-ip") else b""
    return b"".join(
        (
            b"X-Forwarded-For: %b\r\n" % ", ".join(chain.hops).encode("ascii"),
            b"X-Forwarded-Proto: %b\r\n" % proto,
            b"X-Forwarded-Host: %b\r\n" % host,
            b"Forwarded: %b\r\n" % b", ".join([b"for=%b%b" % (node_of(hop), rest) for hop in chain.hops]),
            b"Via: 1.1 koder-gateway\r\n",
            real,
            *(b"%b: %b\r\n" % pair for pair in forwarded if pair[0].lower() in believed),
        )
    )


def service_fields(request_id: bytes, trace: bytes, context: bytes, upgrade: bytes | None = None) -> bytes:
    """The field lines that the gateway adds to one request: its id, the `trace` that begins with it (b"" for none),
    the `context_fields`, and the `upgrade` that a service is asked for."""
    if upgrade is None:
        return b"X-Request-ID: %b\r\n%b%b" % (request_id, trace, context)
    lines = b"X-Request-ID: %b\r\n%b%bConnection: Upgrade\r\nUpgrade: %b\r\n"
    return lines % (request_id, trace, context, upgrade)


def bodiless(head: bytes, method: bytes) -> bytes:
    """The head of a request whose chunked body has turned out to be empty: nothing frames one, and a service that may
    want a length gets it."""
    lines = without_fields(head[: -len(_HEAD_END)].splitlines(keepends=True), _CHUNKED)
    if method in _WITH_BODY:
        lines.append(b"\r\nContent-Length: 0")
    return b"".join(lines) + _HEAD_END


def header_fields(lines: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """The names and values of field lines."""
    for line in b"".join(lines).split(b"\r\n"):
        name, colon, value = line.partition(b": ")
        if colon:
            yield name, value
