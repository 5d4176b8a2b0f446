"""Attacks on the TLS port before anything is asked: handshakes, whole, half, resumed and broken."""

from __future__ import annotations

import ssl

from flood_http1 import once, request
from flood_swarm import FOREVER, HOST, Attack, Script, client_context

# A ClientHello of TLS 1.0 with one cipher and no extension.
_OLD_BODY = b"\x03\x01" + bytes(32) + b"\x00" + b"\x00\x02\x00\x2f" + b"\x01\x00"
_OLD_MESSAGE = b"\x01" + len(_OLD_BODY).to_bytes(3, "big") + _OLD_BODY
OLD_HELLO = b"\x16\x03\x01" + len(_OLD_MESSAGE).to_bytes(2, "big") + _OLD_MESSAGE


def client_hello() -> bytes:
    """What a client of TLS 1.3 begins with."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context("http/1.1").wrap_bio(incoming, outgoing, server_hostname=HOST)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake without a server")


def _nothing() -> Script:
    return lambda: iter(())


def handshakes() -> list[Attack]:
    """Handshakes in all states."""
    hello = client_hello()
    options = {"unit": 0, "what": "conn", "handshakes": True}
    whole = [
        Attack("handshakes", "6", "tls", _nothing(), reconnect=0.0, **options),
        Attack("handshakes-tls12", "6", "tls", _nothing(), reconnect=0.0, newest=ssl.TLSVersion.TLSv1_2, **options),
        Attack(
            "resumptions-tls12",
            "6",
            "tls",
            _nothing(),
            reconnect=0.0,
            newest=ssl.TLSVersion.TLSv1_2,
            session=True,
            **options,
        ),
    ]
    broken = {
        "hello-garbage": b"\x00" * 100,
        "hello-plain": request(),
        "hello-old": OLD_HELLO,
        "hello-cut": hello[:100] + b"\xff" * 100,
    }
    failing = [Attack(name, "8", "raw", once(data), reconnect=0.02, **options) for name, data in broken.items()]
    return [
        *whole,
        *failing,
        Attack("hello-left", "floods", "raw", lambda: iter((hello, 0.02)), reconnect=0.0, **options),
        Attack("hello-half", "floods", "raw", once(hello[:100]), **options),
        Attack("hello-stalled", "floods", "raw", once(hello), **options),
        Attack("silent", "floods", "raw", lambda: iter((FOREVER,)), **options),
        Attack("silent", "floods", "plain", lambda: iter((FOREVER,)), **options),
        Attack("silent", "floods", "tls", lambda: iter((FOREVER,)), **options),
    ]
