"""What limits count apart, on every way in: headers and routes."""

from __future__ import annotations

import pytest

from koder_gateway.policy.limit_rules import LimitRule
from tests.exchange.test_ways_in import WAYS, Asked, Way
from tests.kit.memory import MemoryGateway, settings_with


def passes(gateway: MemoryGateway, way: Way, asked: Asked) -> bool:
    before = len(gateway.exchanges)
    way(gateway, asked)
    for client in gateway.clients:
        client.reset()
    gateway.advance(0.5)
    return gateway.exchanges[before].code != "rate_limited"


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_header_has_a_bucket_for_each_value(way: Way) -> None:
    gateway = MemoryGateway(settings_with(limits=(LimitRule("keys", ("header:x-api-key",), 1, 3600),)))

    def asks(*values: bytes, name: bytes = b"X-API-Key") -> bool:
        return passes(gateway, way, Asked("", lines=tuple((name, value) for value in values)))

    assert asks(b"one")
    assert not asks(b"one")
    assert not asks(b"one", name=b"x-Api-KEY")
    assert asks(b"two")
    assert asks(), "without it there is one shared bucket"
    assert not asks(b"three", b"four"), "which several lines share as well"
    assert not asks(b"five", name=b"X_API_Key")
    assert asks(b"five")


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_route_has_a_bucket_of_its_own(way: Way) -> None:
    gateway = MemoryGateway(settings_with(limits=(LimitRule("routes", ("route",), 1, 3600),)))

    def asks(target: bytes) -> bool:
        return passes(gateway, way, Asked("", target=target))

    assert asks(b"/v1/users")
    assert not asks(b"/v1/users/7")
    assert not asks(b"/v1/%75sers/7")
    assert asks(b"/v1/auth")
    assert asks(b"/nowhere")
    assert not asks(b"/V1/users"), "it has no route either"
