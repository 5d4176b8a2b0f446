"""A tenant's own figures for a limit, from the registry to the response, on every way in."""

from __future__ import annotations

import pytest

from koder_gateway.exchange.explanation import explain
from koder_gateway.policy.certificates import TlsInfo
from koder_gateway.policy.limit_rules import LimitRule, RateOverride
from koder_gateway.policy.tenants import Registry, Tenant
from koder_gateway.tree.compose import make_reader, with_registry
from tests.exchange.test_ways_in import WAYS, Asked, Way
from tests.kit.memory import MemoryGateway, request, settings_with

RULES = (LimitRule("traffic", ("ip",), 5, 3600), LimitRule("users", ("tenant",), 1, 3600, paths=(b"/v1/users",)))
SETTINGS = settings_with(limits=RULES)
BIG = Tenant("big", limits={"users": RateOverride(2, 3600, 2), "traffic": RateOverride(600, 60, 9)})
SMALL = Tenant("small")


def passes(gateway: MemoryGateway, way: Way, slug: str) -> bool:
    before = len(gateway.exchanges)
    way(gateway, Asked("", host=f"{slug}.id.koder.dev".encode()))
    for client in gateway.clients:
        client.reset()
    gateway.advance(0.5)
    return gateway.exchanges[before].code != "rate_limited"


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_tenant_may_do_what_its_figures_allow(way: Way) -> None:
    gateway = MemoryGateway(SETTINGS, tenants=(BIG, SMALL))
    assert [passes(gateway, way, "small") for _ in range(2)] == [True, False]
    assert [passes(gateway, way, "big") for _ in range(3)] == [True, True, False]


def test_they_hold_from_the_next_refresh_on() -> None:
    gateway = MemoryGateway(SETTINGS, tenants=(BIG, SMALL))
    assert [passes(gateway, WAYS[0], "small") for _ in range(2)] == [True, False]
    more = Tenant("small", limits={"users": RateOverride(3, 3600, 3)})
    gateway.site.policy = with_registry(gateway.site.policy, SETTINGS, Registry((BIG, more)), local_hosts=False)
    assert [passes(gateway, WAYS[0], "small") for _ in range(4)] == [True, True, True, False]


def test_explain_names_them() -> None:
    policy = MemoryGateway(SETTINGS, tenants=(BIG, SMALL)).composition.policy
    for slug, lines in (
        ("small", ("traffic: 5/h, burst 5, for ip 192.0.2.1", "users: 1/h, burst 1, for tenant small")),
        (
            "big",
            (
                "traffic: 600/m, burst 9, for tenant big and ip 192.0.2.1; the tenant's own figures",
                "users: 2/h, burst 2, for tenant big; the tenant's own figures",
            ),
        ),
    ):
        head = make_reader(SETTINGS).read(request(host=f"{slug}.id.koder.dev".encode()))
        assert explain(policy, head, "192.0.2.1", TlsInfo(), "id.koder.dev", 0.0).limits == lines
