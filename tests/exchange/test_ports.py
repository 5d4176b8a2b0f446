"""The ports of an exchange: whoever declares one has all of it."""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType
from typing import Any

import pytest

import koder_gateway.service.gateway  # noqa: F401  (it imports every implementer)
from koder_gateway.exchange.ending import ExchangeCounts, ExchangeLines
from koder_gateway.exchange.opening import HeadSource, SingleHead
from koder_gateway.exchange.ports import BodySink, Client
from koder_gateway.http1.channel import HalfClosingChannel
from koder_gateway.http1.request import Http1Request
from koder_gateway.http2.request import Http2Request
from koder_gateway.http2.streams import Streams
from koder_gateway.ops.access_log import AccessLog
from koder_gateway.ops.counters import Counters
from koder_gateway.twisted_site.adapter import StockClient
from koder_gateway.upstream.relay import Relay
from koder_gateway.upstream.tunnel import Tunnel
from tests.upstream.test_relay import Caller


def implementers(port: type[Any]) -> Iterator[type[Any]]:
    """The classes that declare a port and are made: not bases of others, be those ports themselves."""
    for each in port.__subclasses__():
        if each.__subclasses__():
            yield from implementers(each)
        else:
            yield each


def members(port: type[Any]) -> set[str]:
    """What a port asks for by a method or a property."""
    return {
        name
        for name, value in vars(port).items()
        if isinstance(value, FunctionType | property) and not name.startswith("_")
    }


PORTS = (BodySink, Client, ExchangeCounts, ExchangeLines, HeadSource)
PAIRS = [(port, each) for port in PORTS for each in implementers(port)]


def test_everybody_declares_the_port() -> None:
    declared = {each for _, each in PAIRS}
    assert {Streams, HalfClosingChannel, SingleHead, AccessLog, Counters} <= declared
    assert {Http1Request, Http2Request, StockClient, Caller, Relay, Tunnel} <= declared
    assert "_BodyCollector" in {each.__name__ for each in declared}


@pytest.mark.parametrize(("port", "each"), PAIRS, ids=lambda each: each.__name__)
def test_an_implementer_has_all_that_the_port_asks_for(port: type[Any], each: type[Any]) -> None:
    assert members(port)
    missing = {name for name in members(port) if getattr(each, name) is vars(port)[name]}
    assert not missing
    # A base without slots would give each relay, tunnel and set of counters a dictionary.
    assert vars(port).get("__slots__", None) == () or port in (Client, HeadSource)
