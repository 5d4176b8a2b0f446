"""Two gateways on one state folder, and on one Redis: one of them orders, each answers the challenge."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.acme_gateways import AcmeGateway, Stage, thorough
from tests.kit.redis import Redis

pytestmark = thorough

FIRST = "first.example"
ALPHA, BETA, GAMMA = "login.alpha.example", "id.beta.example", "gamma.example"
# Where the second one listens.
OTHER = "127.0.0.2"


@contextlib.contextmanager
def two_gateways(stage: Stage, folder: Path, redis: Redis | None) -> Iterator[tuple[AcmeGateway, AcmeGateway]]:
    """The first one, which orders, and the second one, which every name leads to but that of the first tenant."""
    stage.names.default = (OTHER,)
    stage.names.hosts[FIRST] = ("127.0.0.1",)
    tenants = {"first": [FIRST]}
    acme: dict[str, object] = {}
    sections: dict[str, dict[str, object]] = {"state": {"dir": str(folder / "shared")}}
    if redis is not None:
        key = folder / "storage.key"
        key.write_text("5a" * 32)
        key.chmod(0o600)
        acme = {"storage": "store", "storage_key_file": str(key)}
        sections = {"limits_store": {"url": f"redis://127.0.0.1:{redis.port}"}}
    with stage.gateway(tenants, acme=acme, sections=sections) as first:
        first.wait_until_served(FIRST)
        with stage.gateway(tenants, folder="second", acme=acme, sections=sections, address=OTHER) as second:
            # Now its own process copies what the first one keeps.
            second.wait_until_served(FIRST)
            yield first, second


@pytest.fixture(params=["folder", "redis"])
def redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Redis | None]:
    """What they share."""
    if request.param == "folder":
        yield None
        return
    with Redis(tmp_path / "redis") as made:
        yield made


def test_one_orders_and_the_other_answers(tmp_path: Path, redis: Redis | None) -> None:
    with Stage(tmp_path, bad_nonces=0) as stage, two_gateways(stage, tmp_path, redis) as both:
        for gateway in both:
            gateway.register({"first": [FIRST], "alpha": [ALPHA], "beta": [BETA]})
        shown = [gateway.wait_until_served(FIRST, ALPHA, BETA) for gateway in both]
        assert shown[0] == shown[1]
        assert sorted(stage.authority.ordered()) == [FIRST, BETA, ALPHA]
        assert stage.authority.count("account") == 1
        if redis is not None:
            for key in redis.ask("KEYS", "*"):
                assert "PRIVATE" not in str(_content(redis, key))


def test_the_other_one_takes_over(tmp_path: Path, redis: Redis | None) -> None:
    with Stage(tmp_path, bad_nonces=0) as stage, two_gateways(stage, tmp_path, redis) as (first, second):
        first.kill()
        second.register({"first": [FIRST], "gamma": [GAMMA]})
        # At the latest when the lease of the first one is over.
        second.wait_until_served(FIRST, GAMMA, patience=120)
        assert stage.authority.ordered() == [FIRST, GAMMA]


def test_a_redis_that_is_away_costs_no_certificate(tmp_path: Path) -> None:
    with (
        Redis(tmp_path / "redis") as redis,
        Stage(tmp_path) as stage,
        two_gateways(stage, tmp_path, redis) as both,
    ):
        for gateway in both:
            gateway.wait_until_served(FIRST)
        redis.kill()
        for gateway in both:
            gateway.wait(lambda gateway=gateway: "store" in gateway.log(), "it says so")
            assert gateway.serves(FIRST) is not None
            assert gateway.ask_admin("/readyz")[0] == 200


def _content(redis: Redis, key: str) -> object:
    reads = {
        "string": ("GET", key),
        "hash": ("HGETALL", key),
        "set": ("SMEMBERS", key),
        "list": ("LRANGE", key, "0", "-1"),
    }
    return redis.ask(*reads.get(redis.ask("TYPE", key), ("DUMP", key)))
