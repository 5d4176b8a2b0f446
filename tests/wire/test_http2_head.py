"""The heads of requests over HTTP/2."""

from __future__ import annotations

from koder_gateway.wire.hpack import Decoder
from koder_gateway.wire.http2_head import HeadReader
from koder_gateway.wire.request_head import RequestHead
from koder_gateway.wire.request_reader import RequestReader
from koder_gateway.wire.upgrade import KEY
from tests.kit.http2_frames import block

OPENING = block(
    [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        (b":scheme", b"https"),
        (b":path", b"/ws/a%7Eb?c"),
        (b":authority", b"acme.id.example"),
        (b"sec-websocket-version", b"13"),
        (b"origin", b"https://app.example.com"),
    ]
)


def everything_but_the_key(head: RequestHead) -> dict[str, object]:
    said: dict[str, object] = {name: getattr(head, name) for name in RequestHead.__slots__ if name[0] != "_"}
    said["fields"] = [pair for pair in head.fields if pair[0].lower() != KEY]
    said["lines"] = [line for line in head.lines if not line.lower().startswith(KEY)]
    return said


def test_the_opening_of_a_tunnel_is_read_once_and_has_a_key_of_its_own_each_time() -> None:
    decoded: list[bytes] = []

    class Counting(Decoder):
        def decode(self, block: bytes) -> object:  # type: ignore[override]
            decoded.append(block)
            return super().decode(block)

    reader, heads = RequestReader(b"X-Tenant-ID", max_target=8192, max_fields=100), HeadReader(32768, 100)
    heads._decoder = Counting(32768, 100)
    # The first one fills the table, the second one is known from then on.
    read = [heads.read(OPENING, 0, reader) for _ in range(5)]
    assert len(decoded) <= 2
    keys = {head.value(KEY) for head in read}
    assert len(keys) == len(read)
    first, lines = everything_but_the_key(read[0]), len(read[0].lines)
    for head in read:
        assert head.upgrade == b"websocket"
        assert b"Sec-WebSocket-Key: %b\r\n" % (head.value(KEY) or b"") in head.lines
        assert len(head.lines) == lines
        assert everything_but_the_key(head) == first
        # What one exchange lets go is not gone for the next one.
        head.drop_fields()
