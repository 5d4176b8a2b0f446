"""A limit that charges failures, and clients that leave before the response: a request that was there as a whole may
have been a guess, one whose body was not was none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from koder_gateway.policy.limit_rules import LimitRule
from tests.kit.http2_frames import RST_STREAM, data, frame, headers
from tests.kit.http2_memory import Http2, asking
from tests.kit.memory import MemoryGateway, request, settings_with

TARGET = b"/oauth/v2/token"
SETTINGS = settings_with(limits=(LimitRule("guesses", ("ip",), 1, 3600, charge="failures", paths=(TARGET,)),))
CANCEL = (8).to_bytes(4, "big")


def turns(gateway: MemoryGateway) -> None:
    for _ in range(4):
        gateway.reactor.advance(0)


def by_length(gateway: MemoryGateway, whole: bool) -> None:
    client = gateway.connect()
    client.send(request(b"POST", TARGET, b"Content-Length: 6", body=b"code=7" if whole else b"code="))
    turns(gateway)
    client.reset()


def in_chunks(gateway: MemoryGateway, whole: bool) -> None:
    client = gateway.connect()
    body = b"6\r\ncode=7\r\n" + (b"0\r\n\r\n" if whole else b"")
    client.send(request(b"POST", TARGET, b"Transfer-Encoding: chunked", body=body))
    turns(gateway)
    client.reset()


def by_reset(gateway: MemoryGateway, whole: bool) -> None:
    client = Http2(gateway)
    client.send(headers(1, asking(TARGET, b"POST"), end=False), data(1, b"code=7", end=whole))
    turns(gateway)
    client.send(frame(RST_STREAM, 0, 1, CANCEL))


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "partial"])
@pytest.mark.parametrize("leave", [by_length, in_chunks, by_reset], ids=lambda leave: leave.__name__)
def test_only_a_whole_request_is_charged_when_its_client_leaves(
    leave: Callable[[MemoryGateway, bool], None], whole: bool, make_gateway: Callable[..., MemoryGateway]
) -> None:
    gateway = make_gateway(settings=SETTINGS)
    leave(gateway, whole)
    turns(gateway)
    (meter,) = gateway.composition.policy.limiter.meters
    assert meter.admitted == 1
    assert meter.held == {}
    assert meter.buckets.idle is not whole
