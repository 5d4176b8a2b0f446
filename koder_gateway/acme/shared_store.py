"""A Redis as a `Storage`, for gateways that share no folder: each has a copy of all in its own folder.

An item is a key of the store, sealed; one that is removed is a sealed word for an hour, so that whoever has the store
alone can remove nothing from these gateways. What was put there by somebody else is left out, and told. A sorted set
has the items by the time of their last change, as the store counts it, so each gateway asks for what is new since it
asked last, once or twice a second. What the store has lost by itself, as by eviction, is removed nowhere: the gateway
that orders puts its own copy there again.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import msgspec
import redis

from .layout import NameRecord
from .lease_file import LIFE
from .messages import StoreTerms
from .order_plan import Pace
from .sealing import Seal, SealError
from .state_folder import StateFolder
from .storage import Account, Challenge, StorageError

# Seconds for one answer of the store.
_TIMEOUT: Final = 2.0
# Items that are fetched at once.
_BATCH: Final = 200
# Seconds between two questions for what is new.
_POLL: Final = 0.5
# Seconds that an item is known to be removed for, and that a challenge lives.
_GONE: Final = 3600
# What is sealed instead of an item that is removed: no item begins like this.
_REMOVED: Final = b"\0removed"
_ADVICE: Final = "see that the store of limits_store.url can be reached, and has room"
_KEY_ADVICE: Final = "give all gateways the same acme.storage_key_file"
_STRANGE_ADVICE: Final = "see who else can write to it"
# The kinds of items that all gateways copy.
_KINDS: Final = ("http", "alpn", "record", "certificate")

# Changes are counted by the store's clock in microseconds, but never twice the same.
# KEYS: item, changes. ARGV: value, seconds to live (0: for ever), member.
_PUT: Final = """
local t = redis.call('TIME')
local last = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')
local score = t[1] * 1000000 + t[2]
if last[2] and tonumber(last[2]) >= score then score = tonumber(last[2]) + 1 end
redis.call('SET', KEYS[1], ARGV[1])
if tonumber(ARGV[2]) > 0 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
redis.call('ZADD', KEYS[2], string.format('%.0f', score), ARGV[3])
return 1
"""
# KEYS: lease. ARGV: owner, milliseconds.
_LEAD: Final = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RESIGN: Final = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


def connect(terms: StoreTerms) -> redis.Redis:
    """A client for the store, which connects when it is needed."""
    options: dict[str, Any] = {
        "db": terms.database,
        "username": terms.user or None,
        "password": terms.password or None,
        "socket_timeout": _TIMEOUT,
        "socket_connect_timeout": _TIMEOUT,
    }
    if terms.scheme == "unix":
        return redis.Redis(unix_socket_path=terms.path, **options)
    if terms.scheme == "rediss":
        options |= {"ssl": True, "ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
        options |= {"ssl_ca_certs": terms.ca} if terms.ca else {}
    return redis.Redis(host=terms.host, port=terms.port, **options)


class _StrangeItemError(StorageError):
    """An item that was not sealed by a gateway with this key, for its place."""


class SharedStore:
    """The store of `terms`, with a copy of it in `local`. `owner` is the gateway's own text for the lease."""

    def __init__(
        self,
        client: redis.Redis,
        terms: StoreTerms,
        local: StateFolder,
        owner: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client: Any = client
        self._local = local
        self._owner = owner
        self._seal = Seal(terms.key)
        self._prefix = f"{terms.prefix}acme:"
        self._monotonic = monotonic
        self._seen = "-inf"
        self._poll_at = 0.0
        self._changed = False

    def lead(self, now: float) -> bool:
        """See `Storage`. The store's clock decides."""
        with self._telling():
            key = f"{self._prefix}lease"
            return bool(self._client.eval(_LEAD, 1, key, self._owner, round(LIFE * 1000)))

    def resign(self) -> None:
        """See `Storage`."""
        with self._telling():
            self._client.eval(_RESIGN, 1, f"{self._prefix}lease", self._owner)

    def account(self, directory: str) -> Account | None:
        """See `Storage`."""
        data = self._get(f"account:{self._local.layout.account(directory).stem}")
        if data is None:
            return self._local.account(directory)
        with suppress(msgspec.MsgspecError):
            return msgspec.json.decode(data, type=Account)
        return None

    def keep_account(self, directory: str, account: Account) -> None:
        """See `Storage`."""
        self._set(f"account:{self._local.layout.account(directory).stem}", msgspec.json.encode(account))
        self._local.keep_account(directory, account)

    def pace(self) -> Pace:
        """See `Storage`."""
        data = self._get("pace")
        if data is not None:
            with suppress(msgspec.MsgspecError):
                return msgspec.json.decode(data, type=Pace)
        return self._local.pace()

    def keep_pace(self, pace: Pace) -> None:
        """See `Storage`."""
        self._set("pace", msgspec.json.encode(pace))
        self._local.keep_pace(pace)

    def records(self) -> Iterator[NameRecord]:
        """See `Storage`."""
        self._catch_up()
        return self._local.records()

    def keep_record(self, record: NameRecord) -> None:
        """See `Storage`."""
        self._put(f"record:{record.name}", msgspec.json.encode(record))
        self._local.keep_record(record)

    def forget_record(self, name: str) -> None:
        """See `Storage`."""
        self._put(f"record:{name}", None)
        self._local.forget_record(name)

    def order_key(self, name: str) -> bytes | None:
        """See `Storage`."""
        return self._get(f"key:{name}")

    def keep_order_key(self, name: str, pem: bytes) -> None:
        """See `Storage`."""
        self._set(f"key:{name}", pem, 7 * 86400)
        # A disk without room is noticed before the order is sent.
        self._local.keep_order_key(name, pem)

    def forget_order_key(self, name: str) -> None:
        """See `Storage`."""
        with self._telling():
            self._client.delete(f"{self._prefix}key:{name}")
        self._local.forget_order_key(name)

    def certificate(self, name: str) -> bytes | None:
        """See `Storage`."""
        return self._local.certificate(name)

    def certificates(self) -> Iterator[str]:
        """See `Storage`."""
        return self._local.certificates()

    def keep_certificate(self, name: str, pem: bytes) -> None:
        """See `Storage`."""
        self._put(f"certificate:{name}", pem)
        self._local.keep_certificate(name, pem)

    def forget_certificate(self, name: str) -> None:
        """See `Storage`."""
        self._put(f"certificate:{name}", None)
        self._local.forget_certificate(name)

    def answer(self, challenge: Challenge) -> None:
        """See `Storage`."""
        self._local.answer(challenge)
        self._put(_challenge_item(challenge), challenge.content, _GONE)

    def forget_challenge(self, challenge: Challenge) -> None:
        """See `Storage`."""
        self._local.forget_challenge(challenge)
        self._put(_challenge_item(challenge), None)

    def tidy(self, now: float) -> None:
        """See `Storage`. What the store has lost is put there again, and what was removed an hour ago forgotten."""
        self._local.tidy(now)
        with self._telling():
            seconds, microseconds = self._client.time()
            before = seconds * 1_000_000 + microseconds - _GONE * 1_000_000
            old = self._client.zrangebyscore(f"{self._prefix}changes", "-inf", before)
            for first in range(0, len(old), _BATCH):
                batch = old[first : first + _BATCH]
                values = self._client.mget([self._prefix.encode() + each for each in batch])
                lost = [each for each, value in zip(batch, values, strict=True) if not value]
                if lost:
                    self._client.zrem(f"{self._prefix}changes", *lost)
            all_items = self._client.zrange(f"{self._prefix}changes", 0, -1)
            present = {each.decode("utf-8", "replace") for each in all_items}
        for record in self._local.records():
            pem = self._local.certificate(record.name)
            if pem is not None and f"certificate:{record.name}" not in present:
                self._put(f"certificate:{record.name}", pem)
            if f"record:{record.name}" not in present:
                self._put(f"record:{record.name}", msgspec.json.encode(record))

    def follow(self) -> bool:
        """See `Storage`."""
        now = self._monotonic()
        if now < self._poll_at:
            return False
        self._poll_at = now + _POLL
        return self._catch_up()

    def _catch_up(self) -> bool:
        """Take over what is new; whether certificates have changed. Raises StorageError after that if an item was not
        sealed by these gateways: it must not keep the others from coming, and what has changed is told next time."""
        strange = None
        while True:
            with self._telling():
                found = self._client.zrangebyscore(
                    f"{self._prefix}changes", self._seen, "+inf", start=0, num=_BATCH, withscores=True
                )
                items = [item.decode("utf-8", "replace") for item, _ in found]
                values = self._client.mget([f"{self._prefix}{item}" for item in items]) if items else []
            for item, value in zip(items, values, strict=True):
                try:
                    self._changed = self._copy(item, value) or self._changed
                except _StrangeItemError as error:
                    strange = error
            if found:
                self._seen = f"({found[-1][1]:.0f}"
            if len(found) < _BATCH:
                break
        if strange is not None:
            raise strange
        changed, self._changed = self._changed, False
        return changed

    def _copy(self, item: str, sealed: bytes | None) -> bool:
        """Take over one item; whether a certificate has changed by that."""
        kind, _, name = item.partition(":")
        # What follows becomes the name of a file.
        if kind not in _KINDS or "/" in name:
            raise _StrangeItemError("the store has an item that no gateway has put there", _STRANGE_ADVICE)
        if sealed is None and kind not in ("http", "alpn"):
            return False
        value = None if sealed is None else self._opened(item, sealed)
        value = None if value == _REMOVED else value
        local = self._local
        if kind in ("http", "alpn"):
            challenge = Challenge(name if kind == "http" else "", name, value or b"")
            if value is None:
                local.forget_challenge(challenge)
            else:
                local.answer(challenge)
        elif kind == "record":
            if value is None:
                local.forget_record(name)
            else:
                with suppress(msgspec.MsgspecError):
                    local.keep_record(msgspec.json.decode(value, type=NameRecord))
        elif local.certificate(name) != value:
            if value is None:
                local.forget_certificate(name)
            else:
                local.keep_certificate(name, value)
            return True
        return False

    def _put(self, item: str, value: bytes | None, life: int = 0) -> None:
        """Change an item that all gateways copy; None: remove it."""
        sealed = self._seal.close(item, _REMOVED if value is None else value)
        with self._telling():
            keys = (f"{self._prefix}{item}", f"{self._prefix}changes")
            self._client.eval(_PUT, 2, *keys, sealed, _GONE if value is None else life, item)

    def _set(self, item: str, value: bytes, life: int | None = None) -> None:
        with self._telling():
            self._client.set(f"{self._prefix}{item}", self._seal.close(item, value), ex=life)

    def _get(self, item: str) -> bytes | None:
        with self._telling():
            sealed = self._client.get(f"{self._prefix}{item}")
        return self._opened(item, sealed) if sealed else None

    def _opened(self, item: str, sealed: bytes) -> bytes:
        try:
            return self._seal.open(item, sealed)
        except SealError as error:
            text = f"the store's {item.partition(':')[0]} cannot be read: {error}"
            raise _StrangeItemError(text, _KEY_ADVICE) from None

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except redis.RedisError as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise StorageError(f"the store fails: {reason[:200]}", _ADVICE) from error


def _challenge_item(challenge: Challenge) -> str:
    return f"http:{challenge.token}" if challenge.token else f"alpn:{challenge.name}"
