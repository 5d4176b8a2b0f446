"""What a mounted resource may say of its answer's head: the same over HTTP/1.1, over HTTP/2 and in a stock site."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hpack import Decoder
from twisted.internet.address import IPv4Address
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from koder_gateway.downstream.stock_fields import is_ours, sent_fields
from koder_gateway.twisted_site.adapter import SiteAdapter
from tests.kit.http1 import read_messages
from tests.kit.http2_frames import DATA, headers
from tests.kit.http2_memory import Http2, asking
from tests.kit.memory import MemoryGateway, join, request

OURS = (
    "Connection",
    "Keep-Alive",
    "Proxy-Connection",
    "Transfer-Encoding",
    "Upgrade",
    "Date",
    "X-Request-ID",
    "Access-Control-Allow-Origin",
    "Access-Control-Anything",
)
KEPT = ("Content-Language", "ETag", "X-Keep-Alive", "Via", "Server")
MINE = b"mine"


class Boastful(Resource):
    """Sets what is the gateway's to set, by each way that there is; with `?length` its answer has a length."""

    isLeaf = True

    def render_GET(self, request: Any) -> Any:
        for name in (*OURS, *KEPT):
            request.setHeader(name, MINE)
        for name in OURS:
            request.responseHeaders.addRawHeader(name.lower().encode(), MINE)
        if b"?" not in request.uri:
            request.write(b"by and ")
            request.write(b"by")
            request.finish()
            return NOT_DONE_YET
        request.setHeader(b"Content-Length", b"4")
        return b"body"


Answer = tuple[list[tuple[bytes, bytes]], bytes]


def over_http1(gateway: MemoryGateway, path: bytes) -> Answer:
    client = gateway.connect()
    client.send(request(b"GET", path))
    (message,) = read_messages(client.take())
    return [(name.lower(), value) for name, value in message.fields], message.body


def over_http2(gateway: MemoryGateway, path: bytes) -> Answer:
    client = Http2(gateway)
    came = [each for each in client.send(headers(1, asking(path))) if each.stream == 1]
    fields = Decoder().decode(came[0].payload, raw=True)
    client.peer.reset()
    return [(name, value) for name, value in fields], b"".join(each.payload for each in came if each.kind == DATA)


def in_a_stock_site(gateway: MemoryGateway, path: bytes) -> Answer:
    composition = gateway.composition
    entrance: Any = SiteAdapter(
        composition.resource, composition.policy, composition.reader, gateway.finished, gateway.reactor.seconds
    )
    site = Site(entrance, reactor=gateway.reactor, parsePOSTFormSubmission=False)
    client = join(gateway.reactor, site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 50000)), peer="192.0.2.1")
    client.send(request(b"GET", path))
    (message,) = read_messages(client.take())
    client.reset()
    return [(name.lower(), value) for name, value in message.fields], message.body


@pytest.mark.parametrize("way", [over_http1, over_http2, in_a_stock_site])
@pytest.mark.parametrize(("path", "body"), [(b"/boast", b"by and by"), (b"/boast?length", b"body")])
def test_a_mounted_resource_does_not_say_what_is_the_gateways(
    way: Callable[[MemoryGateway, bytes], Answer], path: bytes, body: bytes
) -> None:
    fields, sent = way(MemoryGateway(mounts={b"/boast": Boastful()}), path)
    assert sorted(name for name, value in fields if value == MINE) == sorted(name.lower().encode() for name in KEPT)
    assert sent == body
    # Framed once: by a length, by chunks, or by the stream.
    framing = [value for name, value in fields if name in (b"transfer-encoding", b"content-length")]
    assert framing == ([b"4"] if path.endswith(b"length") else [] if way is over_http2 else [b"chunked"])
    assert len([value for name, value in fields if name == b"date"]) == 1


def test_its_hsts_goes_no_further_where_the_gateway_says_it() -> None:
    headers = Headers({"Strict-Transport-Security": ["max-age=1"], "X-One": ["a", "b"]})
    assert dict(sent_fields(headers, True)) == {b"X-One": b"b"}
    assert list(sent_fields(headers, False)) == [
        (b"Strict-Transport-Security", b"max-age=1"),
        (b"X-One", b"a"),
        (b"X-One", b"b"),
    ]


def test_names_are_whole() -> None:
    assert is_ours(b"access-control-", False)
    assert not is_ours(b"access-control", False)
    assert not is_ours(b"x-request-id-2", True)
