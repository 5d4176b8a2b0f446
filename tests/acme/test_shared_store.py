"""Two gateways and a Redis: each has a copy of all, and nobody else can read it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from koder_gateway.acme.layout import Layout, NameRecord
from koder_gateway.acme.messages import StoreTerms
from koder_gateway.acme.order_plan import Pace
from koder_gateway.acme.sealing import Seal, SealError
from koder_gateway.acme.shared_store import SharedStore, connect
from koder_gateway.acme.state_folder import StateFolder
from koder_gateway.acme.storage import Account, Challenge, StorageError
from tests.kit.redis import Redis

KEY = bytes(range(32))
DIRECTORY = "https://acme.example/directory"
TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
PEM = b"-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    with Redis(tmp_path / "redis") as server:
        yield server


class Gateway:
    """A gateway's storage, and its folder."""

    def __init__(self, folder: Path, redis: Redis, owner: str, key: bytes = KEY) -> None:
        self.layout = Layout(folder / owner)
        terms = StoreTerms("redis", "127.0.0.1", redis.port, 0, "", "", "", "", "test:", key)
        self.now = 0.0
        self.client = connect(terms)
        self.store = SharedStore(self.client, terms, StateFolder(self.layout, owner), owner, lambda: self.now)

    def follow(self) -> bool:
        self.now += 1.0
        return self.store.follow()


@pytest.fixture
def pair(tmp_path: Path, redis: Redis) -> Iterator[tuple[Gateway, Gateway]]:
    gateways = Gateway(tmp_path, redis, "first"), Gateway(tmp_path, redis, "second")
    yield gateways
    for each in gateways:
        each.client.close()


def test_one_of_them_leads_until_it_resigns(pair: tuple[Gateway, Gateway]) -> None:
    first, second = pair
    assert first.store.lead(0.0)
    assert not second.store.lead(0.0)
    assert first.store.lead(1.0)
    second.store.resign()
    assert not second.store.lead(1.0)
    first.store.resign()
    assert second.store.lead(2.0)


def test_what_one_keeps_the_other_has(pair: tuple[Gateway, Gateway]) -> None:
    first, second = pair
    record = NameRecord(name="a.example", first_seen=1.0, state="held", last_fault="elsewhere")
    challenge, alpn = Challenge(TOKEN, "a.example", b"authorization"), Challenge("", "a.example", PEM)
    first.store.keep_certificate("a.example", PEM)
    first.store.keep_record(record)
    first.store.answer(challenge)
    first.store.answer(alpn)
    assert second.follow()
    assert second.layout.certificate("a.example").read_bytes() == PEM
    assert (second.layout.http_challenges / TOKEN).read_bytes() == b"authorization"
    assert (second.layout.alpn_challenges / "a.example.pem").read_bytes() == PEM
    assert list(second.store.records()) == [record]
    version = second.layout.version.read_bytes()
    assert not second.follow()
    assert second.layout.version.read_bytes() == version
    first.store.forget_certificate("a.example")
    first.store.forget_challenge(challenge)
    first.store.forget_challenge(alpn)
    first.store.forget_record("a.example")
    assert second.follow()
    assert not second.layout.certificate("a.example").exists()
    assert not list(second.layout.http_challenges.iterdir())
    assert not list(second.layout.alpn_challenges.iterdir())
    assert list(second.store.records()) == []


def test_who_takes_over_goes_on_with_the_order(pair: tuple[Gateway, Gateway]) -> None:
    first, second = pair
    first.store.keep_account(DIRECTORY, Account(key={"kty": "EC"}, url="https://acme.example/1"))
    first.store.keep_pace(Pace(times=[1.0, 2.0], paused_until=9.0))
    first.store.keep_order_key("a.example", PEM)
    assert second.store.account(DIRECTORY) == Account(key={"kty": "EC"}, url="https://acme.example/1")
    assert second.store.pace().times == [1.0, 2.0]
    assert second.store.order_key("a.example") == PEM
    second.store.forget_order_key("a.example")
    assert first.store.order_key("a.example") is None


def test_many_changes_come_in_their_order(pair: tuple[Gateway, Gateway]) -> None:
    first, second = pair
    for number in range(450):
        first.store.keep_certificate(f"n{number}.example", b"1")
    first.store.keep_certificate("n3.example", b"2")
    second.follow()
    assert len(list(second.layout.certificates.glob("*.pem"))) == 450
    assert second.layout.certificate("n3.example").read_bytes() == b"2"


def test_nobody_else_can_read_it(pair: tuple[Gateway, Gateway], redis: Redis) -> None:
    first, _ = pair
    first.store.keep_certificate("a.example", PEM)
    first.store.keep_order_key("a.example", PEM)
    first.store.keep_account(DIRECTORY, Account(key={"d": "secret"}))
    stored = redis.keys()
    values = [first.client.get(key) for key in stored if not key.endswith(("changes", "lease"))]
    assert len(values) == 3
    assert not any(b"secret" in (value or b"") for value in values)


def test_another_key_is_told(tmp_path: Path, redis: Redis) -> None:
    first = Gateway(tmp_path, redis, "first")
    other = Gateway(tmp_path, redis, "other", bytes(32))
    first.store.keep_certificate("a.example", PEM)
    with pytest.raises(
        StorageError, match="the store's certificate cannot be read: it was sealed by another key"
    ) as told:
        other.follow()
    assert told.value.advice == "give all gateways the same acme.storage_key_file"
    first.client.close()
    other.client.close()


def test_a_store_that_forgets_takes_no_certificate_away(pair: tuple[Gateway, Gateway], redis: Redis) -> None:
    first, second = pair
    first.store.keep_certificate("a.example", PEM)
    first.store.keep_record(NameRecord(name="a.example", first_seen=1.0))
    second.follow()
    redis.ask("FLUSHALL")
    assert not second.follow()
    assert second.layout.certificate("a.example").exists()
    first.store.tidy(0.0)
    third = Gateway(first.layout.root.parent, redis, "third")
    assert third.follow()
    assert third.layout.certificate("a.example").read_bytes() == PEM
    third.client.close()


def test_a_store_that_is_away_is_told(pair: tuple[Gateway, Gateway], redis: Redis) -> None:
    first, _ = pair
    redis.kill()
    with pytest.raises(StorageError, match="the store fails: ") as told:
        first.store.lead(0.0)
    assert "limits_store.url" in told.value.advice
    redis.start()
    assert first.store.lead(0.0)


def test_what_was_removed_is_forgotten_after_an_hour(pair: tuple[Gateway, Gateway]) -> None:
    first, _ = pair
    first.store.keep_certificate("a.example", PEM)
    first.store.forget_certificate("a.example")
    changes = "test:acme:changes"
    first.store.tidy(0.0)
    assert first.client.zcard(changes) == 1
    assert 0 < first.client.ttl("test:acme:certificate:a.example") <= 3600
    first.client.delete("test:acme:certificate:a.example")
    first.client.zadd(changes, {"certificate:a.example": 1.0})
    first.store.tidy(0.0)
    assert first.client.zcard(changes) == 0


def test_who_has_the_store_alone_removes_nothing(pair: tuple[Gateway, Gateway]) -> None:
    first, second = pair
    first.store.keep_certificate("a.example", PEM)
    first.store.keep_record(NameRecord(name="a.example", first_seen=1.0))
    second.follow()
    other = second.layout.root.parent / "other.pem"
    other.write_bytes(PEM)
    for item in (
        "certificate:a.example",
        "record:a.example",
        "certificate:../../other",
        f"certificate:{other.with_suffix('')}",
        f"record:{other.with_suffix('')}",
        "strange",
        b"\xff:\xff",
    ):
        place = b"test:acme:" + (item if isinstance(item, bytes) else item.encode())
        second.client.set(place, b"")
        second.client.zadd("test:acme:changes", {item: 9e15})
        with pytest.raises(StorageError) as told:
            second.follow()
        assert "\n" not in str(told.value)
        second.store._seen = "(8e15"
    assert other.exists()
    assert second.layout.certificate("a.example").read_bytes() == PEM
    assert second.layout.record("a.example").exists()
    second.store.tidy(0.0)


def test_a_strange_item_keeps_no_other_from_coming(pair: tuple[Gateway, Gateway]) -> None:
    first, second = pair
    first.client.set("test:acme:certificate:a.example", b"\x01not sealed by anybody")
    first.client.zadd("test:acme:changes", {"certificate:a.example": 1.0})
    first.store.keep_certificate("b.example", PEM)
    with pytest.raises(StorageError, match="the store's certificate cannot be read"):
        second.follow()
    assert second.layout.certificate("b.example").read_bytes() == PEM
    assert second.follow()
    assert not second.follow()


def test_a_value_is_good_at_its_place_alone() -> None:
    seal = Seal(KEY)
    sealed = seal.close("certificate:a.example", PEM)
    assert seal.open("certificate:a.example", sealed) == PEM
    for place, value in (("certificate:b.example", sealed), ("certificate:a.example", sealed[:-1]), ("x", b"")):
        with pytest.raises(SealError):
            seal.open(place, value)
