"""Trailers of an answer: what is dropped from its head, or set there by the gateway, does not come back behind it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from koder_gateway.wire.body import trailer_passes
from koder_gateway.wire.fields import HOP_BY_HOP, FieldKinds
from koder_gateway.wire.request_reader import RequestReader
from koder_gateway.wire.response import ResponseReader
from tests.kit.doors import Doors, open_doors
from tests.kit.http2_client import Http2Client
from tests.kit.http2_frames import block, in_frames
from tests.kit.recording import HOST, SETTINGS, connect
from tests.kit.recording import request as bytes_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"
GOOD = ((b"etag", b'"a"'), (b"server-timing", b"db;dur=1"), (b"grpc-status", b"0"), (b"x-kept", b"kept"))
BAD = [
    b"Alt-Svc", b"alt.svc", b"Clear-Site-Data", b"Set-Cookie", b"Set-Cookie2", b"Strict-Transport-Security",
    b"Access-Control-Allow-Origin", b"X-Request-ID", b"X.Request.ID", b"X-Tenant-ID", b"RateLimit",
    b"RateLimit-Policy", b"Content-Length", b"Content.Length", b"Content-Security-Policy", b"Cache-Control",
    b"Location", b"HTTP2-Settings", b"X-Named", b"x_underscored",
]  # fmt: skip
ANSWER = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: x-named\r\nTrailer: Alt-Svc, ETag\r\n\r\n"
    b"1\r\nx\r\n0\r\n%b\r\n" % b"".join(b"%b: %b\r\n" % pair for pair in (*GOOD, *((name, b"evil") for name in BAD)))
)


@pytest.fixture(scope="module", params=[False, True], ids=["no alt_svc", "alt_svc"])
def doors(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    settings = SETTINGS + ("[listen]\nalt_svc = true\n" if request.param else "")
    with open_doors(tmp_path_factory.mktemp("gateway"), settings) as doors:
        doors.origin.answers[b"/v1/users/trailers"] = ANSWER
        yield doors


def test_over_http1(doors: Doors) -> None:
    with connect(doors.ports[0], secure=True) as client:
        client.send(bytes_of(b"/v1/users/trailers"))
        answer = client.answer()
    assert (answer.body, tuple(answer.trailers)) == (b"x", GOOD)


def test_over_http2(doors: Doors) -> None:
    head = [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/v1/users/trailers"), (b":authority", HOST)]
    with Http2Client.connect(doors.ports[0], HOST) as client:
        client.start()
        client.send(in_frames(1, block(head), end=True))
        answer = client.answer(1)
    assert (answer.body, tuple(answer.trailers)) == (b"x", GOOD)


def test_a_stock_site_relays_none(doors: Doors) -> None:
    answer = doors.ask("stock", b"/v1/users/trailers")
    assert (answer.status, [value for _, value in answer.fields if value in (b"evil", b"kept")]) == (200, [])


@pytest.mark.parametrize("name", sorted({*HOP_BY_HOP, *FieldKinds.of_responses(b"X-Tenant-ID").table}))
def test_what_no_head_has_no_trailer_is(name: bytes) -> None:
    """Whatever the table of answers does not simply pass, under every spelling that it knows beforehand."""
    reader = ResponseReader(b"X-Tenant-ID")
    head = reader.read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", False, False)
    decoder = reader.body_decoder(head, 4096)
    decoder.feed(b"0\r\n%b: 1\r\n\r\n" % name)
    assert not decoder.trailers or reader.kinds.table[name] == 0


def test_what_connection_names_is_no_trailer_of_a_request() -> None:
    reader = RequestReader(b"X-Tenant-ID", max_target=100, max_fields=10, trailers=frozenset((b"x-sum", b"x-b")))
    lines = b"Host: a\r\nTransfer-Encoding: chunked\r\nConnection: close, X-Sum\r\n\r\n"
    decoder = reader.body_decoder(reader.read(b"POST / HTTP/1.1\r\n" + lines))
    decoder.feed(b"0\r\nX-Sum: 1\r\nX-B: 2\r\n\r\n")
    assert decoder.trailers == [b"X-B: 2\r\n"]


def test_the_documents_say_so() -> None:
    section = DOCUMENT.read_text().partition("## Headers dropped towards clients")[2].partition("\n## ")[0]
    dropped = re.findall(
        r"`([A-Za-z0-9-]+)\*?`", section.partition("6.5.1): ")[2].partition(" and similar ones. ")[0]
    )
    passing = re.findall(r"`([A-Za-z-]+)`", section.partition(" and similar ones. ")[2].partition(" pass.")[0])
    assert len(dropped) > 8
    assert [name for name in dropped if trailer_passes(name.encode(), b"")] == []
    assert passing == ["ETag", "Server-Timing", "grpc-status"]
    assert all(trailer_passes(name.encode(), b"") for name in passing)
