"""The deadlines and bounds towards clients: each setting arrives where it counts."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from dataclasses import fields, replace

import pytest

from koder_gateway.config import (
    ListenSettings,
    RequestSettings,
    ServiceSettings,
    Settings,
    ShareSettings,
    TimeoutSettings,
)
from koder_gateway.policy.routing import Route
from koder_gateway.policy.shares import Shares
from koder_gateway.tree.bounds import client_limits, client_timeouts

SPARE = 128


def routed(*services: ServiceSettings, paths: int = 1, unused: tuple[ServiceSettings, ...] = ()) -> Settings:
    """Settings with so many routes to each of these services, and others that no route names."""
    routes = [Route(b"/%s/%d" % (each.name.encode(), n), each.name) for each in services for n in range(paths)]
    named = {each.name: each for each in (*services, *unused)}
    return replace(Settings(), services=named, routes=tuple(routes), requests=RequestSettings(max_tunnels=0))


@pytest.fixture
def open_files() -> Iterator[Callable[[int], None]]:
    """Sets how many descriptors this process may have, until the end of the test."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda soft: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_every_deadline_is_the_setting_of_its_name() -> None:
    values = {field.name: float(number) for number, field in enumerate(fields(TimeoutSettings), 1)}
    found = client_timeouts(replace(Settings(), timeouts=TimeoutSettings(**values)))
    assert [field.name for field in fields(found)] == ["head", "body", "keepalive", "linger", "idle", "exchange"]
    for field in fields(found):
        assert getattr(found, field.name) == values[field.name]


def test_every_bound_is_the_setting_of_its_name() -> None:
    requests = RequestSettings(max_body=1, max_head=2, max_fields=3, max_target=4, min_rate=5)
    settings = replace(Settings(), requests=requests, listen=ListenSettings(max_connections=6))
    found = client_limits(settings)
    assert (found.max_head, found.max_fields, found.max_target, found.min_rate) == (2, 3, 4, 5)
    assert found.max_connections == 6
    assert found.shares == Shares(1, 3)


def test_shares_are_percentages_of_the_connections_that_there_may_be() -> None:
    shares = ShareSettings(address=10, tenant=100)
    settings = replace(Settings(), shares=shares, listen=ListenSettings(max_connections=200))
    assert client_limits(settings).shares == Shares(20, 200)


def test_connections_are_what_services_leave_of_the_descriptors(open_files: Callable[[int], None]) -> None:
    one, other = (
        ServiceSettings(name, ("http://a",), max_connections=bound) for name, bound in (("a", 100), ("b", 30))
    )
    idle = ServiceSettings("c", ("http://a",), max_connections=500)
    open_files(1000)
    assert client_limits(routed(one, other)).max_connections == 1000 - 130 - SPARE
    assert client_limits(routed(one, other, paths=3, unused=(idle,))).max_connections == 1000 - 130 - SPARE
    open_files(900)
    assert client_limits(routed(one, other)).max_connections == 900 - 130 - SPARE


def test_each_tunnel_has_a_descriptor_of_its_own_besides_its_clients(open_files: Callable[[int], None]) -> None:
    service = ServiceSettings("a", ("http://a",), max_connections=100)
    open_files(1000)
    settings = replace(routed(service), requests=RequestSettings(max_tunnels=200))
    assert client_limits(settings).max_connections == 1000 - 100 - 200 - SPARE
    settings = replace(routed(service), requests=RequestSettings(max_tunnels=10000))
    assert client_limits(settings).max_connections == 500


def test_however_many_services_want_clients_get_half(open_files: Callable[[int], None]) -> None:
    many = ServiceSettings("a", ("http://a",), max_connections=65536)
    open_files(1001)
    assert client_limits(routed(many)).max_connections == 500
    exactly = ServiceSettings("a", ("http://a",), max_connections=1001 - 500 - SPARE)
    assert client_limits(routed(exactly)).max_connections == 500


def test_a_system_without_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """No system that tests run on lets a process have that, so this is what it would say."""
    endless = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: endless if kind == resource.RLIMIT_NOFILE else (0, 0))
    service = ServiceSettings("a", ("http://a",), max_connections=1000)
    assert client_limits(routed(service)).max_connections == (1 << 20) - 1000 - SPARE


def test_a_number_that_is_given_wins(open_files: Callable[[int], None]) -> None:
    open_files(1000)
    settings = replace(Settings(), listen=ListenSettings(max_connections=5000))
    assert client_limits(settings).max_connections == 5000
