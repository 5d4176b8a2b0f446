"""What is told of heads that were not read: the one Host and the one Origin, where there is one and it is good."""

from __future__ import annotations

import pytest

from koder_gateway.wire.unread_head import known_of, known_of_fields

HOST, ORIGIN = b"koder.id.koder.dev", b"https://koder.example"


def raw(*lines: bytes) -> bytes:
    return b"FOO / HTTP/1.1\r\n" + b"".join(line + b"\r\n" for line in lines)


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (raw(b"Host: " + HOST, b"ORIGIN:\t" + ORIGIN + b" "), (HOST, ORIGIN, False)),
        (raw(b"hOST:" + HOST), (HOST, None, False)),
        (raw(b"Host: " + HOST, b"Host: " + HOST), (b"", None, False)),
        (raw(b"Host: a b", b"Origin: " + ORIGIN, b"Origin: " + ORIGIN), (b"", None, False)),
        (raw(b"Host: user@" + HOST, b"X-Origin: " + ORIGIN), (b"", None, False)),
        (raw(b"Host: " + b"a" * 600, b"Origin: " + b"o" * 600), (b"", None, False)),
        (raw()[:-2] + b"\r\nHost: " + HOST, (b"", None, False)),
        (raw(b"Host: a\nb", b"Origin: a\rb"), (b"", None, False)),
        (b"", (b"", None, False)),
    ],
)
def test_of_bytes(head: bytes, told: tuple[bytes, bytes | None, bool]) -> None:
    assert known_of(head) == told


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ([(b":authority", HOST), (b"origin", ORIGIN)], (HOST, ORIGIN, False)),
        ([(b":authority", HOST), (b"host", HOST)], (HOST, None, False)),
        ([(b":authority", HOST), (b"host", b"evil.example")], (b"", None, False)),
        ([(b"host", b"a/b"), (b"origin", ORIGIN), (b"origin", ORIGIN)], (b"", None, False)),
        ([], (b"", None, False)),
    ],
)
def test_of_fields(fields: list[tuple[bytes, bytes]], told: tuple[bytes, bytes | None, bool]) -> None:
    assert known_of_fields(fields) == told
