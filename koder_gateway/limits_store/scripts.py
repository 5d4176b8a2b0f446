"""What the store computes: the scripts that Redis runs, and how a decision is asked for and answered.

A bucket is a string of 16 bytes: how many tokens were missing from it, and when (microseconds of the server's clock),
both as doubles. A full bucket has no key: each key expires at the time at which its bucket is full. The arithmetic is
that of `policy.buckets`, with one clock for all gateways.

A rule that charges failures has a second key: a sorted set of the requests in flight, by the time at which each is
forgotten. A gateway renews those that take longer; one that has died renews none.

A gateway that asks tells how many tokens are missing as far as it knows; of that at most a whole burst counts. Where
the server has forgotten (it was restarted, or dropped the key), the gateway's figure counts and is kept, also if the
request is then refused.

`DECIDE` looks at all rules of a request, and charges all of them or none, as `policy.limit_plan` does: a rule that
refuses, unless it is a shadow, is why nothing is charged. For each rule it answers one number: four times the tokens
left in millionths, negative where tokens are owed, plus OK, SHORT or CROWDED. What came back within a moment gives no
request more a place in flight.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..policy.buckets import SLACK, WHOLE
from ..policy.meter import SIDE_BY_SIDE
from ..policy.shared_store import CROWDED, OK, SHORT, SharedRule
from .resp import bulk, command

# Seconds after which a request in flight is forgotten, unless its gateway says that it still is.
LEASE: Final = 10
MICRO: Final = 1_000_000
# Flags of a rule.
_ENFORCED: Final = 1
_AFTERWARDS: Final = 2
# Tokens by which a gateway's figure must exceed the store's: answers are rounded, and clocks differ a little.
_NEARLY: Final = 0.01
# No bucket lacks anything, as far as the gateway knows.
_NOTHING: Final = bulk(b"")

_COMMON: Final = f"""
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local function keep(bucket, rate, missing)
  redis.call('SET', bucket, struct.pack('<dd', missing, now), 'PX', string.format('%.0f', missing / rate / 1000 + 1))
end
local function missing_from(bucket, rate, burst, most, known)
  local missing, at = 0, 0
  local kept = redis.call('GET', bucket)
  if kept and #kept == 16 then
    missing, at = struct.unpack('<dd', kept)
    if now > at then missing = missing - (now - at) * rate end
    if not (missing > 0) then missing = 0 end
    missing = math.min(missing, most)
  end
  known = math.min(known, burst)
  if known > missing + {_NEARLY!r} then
    missing = known
    keep(bucket, rate, missing)
  end
  return missing
end
"""

_DECIDE: Final = (
    _COMMON
    + f"""
local terms, known, answers, refused, k = ARGV[1], ARGV[2], {{}}, false, 0
local rates, missings, buckets, helds = {{}}, {{}}, {{}}, {{}}
local count = #terms / 32
for i = 1, count do
  local rate, burst, most, flags = struct.unpack('<dddd', terms, i * 32 - 31)
  k = k + 1
  buckets[i], rates[i] = KEYS[k], rate
  if flags >= {_AFTERWARDS} then
    k = k + 1
    helds[i] = KEYS[k]
  end
  local missing = missing_from(
    buckets[i], rate, burst, most, #known > 0 and struct.unpack('<d', known, i * 8 - 7) or 0)
  local left, state = burst - missing, {OK}
  if left < {WHOLE!r} then
    state = {SHORT}
  elseif helds[i] then
    redis.call('ZREMRANGEBYSCORE', helds[i], '-inf', string.format('%.0f', now / 1000))
    if redis.call('ZCARD', helds[i]) >= {SIDE_BY_SIDE} * (left - {SLACK!r}) then state = {CROWDED} end
  end
  if state ~= {OK} then
    if flags % 2 == {_ENFORCED} then refused = true end
    buckets[i] = nil
  end
  missings[i] = missing
  answers[i] = math.floor(left * {MICRO}) * 4 + state
end
if refused then return answers end
for i = 1, count do
  if helds[i] and buckets[i] then
    redis.call('ZADD', helds[i], string.format('%.0f', now / 1000 + {LEASE * 1000}), ARGV[3])
    redis.call('PEXPIRE', helds[i], {LEASE * 1000})
  elseif buckets[i] then
    keep(buckets[i], rates[i], missings[i] + 1)
    answers[i] = answers[i] - {4 * MICRO}
  end
end
return answers
"""
)

# The end of a request that DECIDE has counted as in flight; with ARGV[4] "1" it was a failure, which is charged.
_SETTLE: Final = (
    _COMMON
    + f"""
local rate, burst, most = struct.unpack('<ddd', ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[3])
local missing = missing_from(KEYS[1], rate, burst, most, struct.unpack('<d', ARGV[2]))
if ARGV[4] == '1' then
  missing = math.min(missing + 1, most)
  keep(KEYS[1], rate, missing)
end
return {{math.floor((burst - missing) * {MICRO}) * 4}}
"""
)

# Requests that are still in flight: KEYS are the sorted sets, ARGV the requests.
_RENEW: Final = f"""
local time = redis.call('TIME')
local ends = string.format('%.0f', time[1] * 1000 + time[2] / 1000 + {LEASE * 1000})
for i = 1, #KEYS do
  redis.call('ZADD', KEYS[i], ends, ARGV[1])
  redis.call('PEXPIRE', KEYS[i], {LEASE * 1000})
end
return {{#KEYS}}
"""


@dataclass(frozen=True, slots=True)
class Script:
    """A script: its text, and what the server calls it."""

    text: bytes
    digest: bytes

    def load(self) -> bytes:
        """The command that lets the server know it."""
        return command(b"SCRIPT", b"LOAD", self.text)


def _script(text: str) -> Script:
    encoded = text.encode("ascii")
    return Script(encoded, hashlib.sha1(encoded, usedforsecurity=False).hexdigest().encode("ascii"))


DECIDE: Final = _script(_DECIDE)
SETTLE: Final = _script(_SETTLE)
RENEW: Final = _script(_RENEW)
SCRIPTS: Final = (DECIDE, SETTLE, RENEW)


def _run(script: Script, words: int, keys: int) -> bytes:
    """The beginning of a command that runs a script: the count of its further words, and of the keys among them."""
    return b"*%d\r\n" % (3 + words) + bulk(b"EVALSHA") + bulk(script.digest) + bulk(b"%d" % keys)


def terms_of(rules: Sequence[SharedRule]) -> bytes:
    """What the scripts need to know of these rules."""
    return b"".join(
        struct.pack("<dddd", rule.rate / MICRO, rule.burst, rule.most, rule.enforced + 2 * rule.afterwards)
        for rule in rules
    )


class DecideCommand:
    """Asks about requests under the rules of one plan. What is the same for each of them is encoded once."""

    __slots__ = ("_begin", "_doubles", "_named", "_terms")

    def __init__(self, rules: Sequence[SharedRule]) -> None:
        self._named = any(rule.afterwards for rule in rules)
        keys = len(rules) + sum(rule.afterwards for rule in rules)
        self._begin = _run(DECIDE, keys + 2 + self._named, keys)
        self._doubles = f"<{len(rules)}d"
        self._terms = bulk(terms_of(rules))

    def __call__(self, keys: Sequence[bytes], missing: Sequence[float], request: bytes = b"") -> bytes:
        """The command that decides about one request: for each rule its bucket's key, and behind that for one that
        charges failures the key of the requests in flight. `missing` has for each rule the tokens that its bucket
        lacks as far as the gateway knows. `request` is what this one is called there."""
        known = bulk(struct.pack(self._doubles, *missing)) if any(missing) else _NOTHING
        if len(keys) == 1:
            return b"%b$%d\r\n%b\r\n%b%b" % (self._begin, len(keys[0]), keys[0], self._terms, known)
        text = self._begin + b"".join([b"$%d\r\n%b\r\n" % (len(key), key) for key in keys]) + self._terms + known
        return text + bulk(request) if self._named else text


def settle_command(
    rule: SharedRule, bucket: bytes, in_flight: bytes, missing: float, request: bytes, failed: bool
) -> bytes:
    """The command for the end of a request under a rule that charges failures, with its two keys. `missing`: the
    tokens that its bucket lacked before, as far as the gateway knows."""
    words = (bucket, in_flight, terms_of((rule,)), struct.pack("<d", missing), request, b"1" if failed else b"0")
    return _run(SETTLE, len(words), 2) + b"".join(map(bulk, words))


def renew_command(keys: Sequence[bytes], request: bytes) -> bytes:
    """The command for a request that is still in flight under these keys."""
    return _run(RENEW, len(keys) + 1, len(keys)) + b"".join(map(bulk, keys)) + bulk(request)
