"""Limits: their tables in the file, and the rules made from them."""

# Fields are declared by a call for each, whose values are immutable.

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, cast

from ..policy.limit_keys import HOST_PREFIX
from ..policy.limit_rules import CLIENT_ID, FAILURES, HEADER, MAX_IN_FLIGHT, MAX_QUOTA, LimitRule, parse_rate
from .faults import Located, ReadError, nearest, shown
from .field_names import counted_header_fault
from .kinds import choice, listing, parsed, refined, whole
from .shapes import either, integer, pattern, words
from .tables import Derived, array, made, setting
from .values import METHOD, NAME, PATH_PREFIX, self_explaining

RATE = self_explaining("rate", parse_rate, shape=pattern("0*[1-9][0-9]{0,8}/[smhd]"))
_PARTS: Final = ("tenant", "ip", "route", CLIENT_ID)


def _parse_key_part(text: str) -> str:
    """A part of a key; the name of a header in lower case, so that no header counts twice."""
    if text in _PARTS:
        return text
    if not text.startswith(HEADER):
        raise ValueError(f"is not an accepted value; {nearest(text, (*_PARTS, HEADER + 'NAME'))}")
    name = text.removeprefix(HEADER).lower()
    if wrong := counted_header_fault(name):
        raise ValueError(wrong)
    return HEADER + name


KEY_PART: Final = parsed(
    '"tenant", "ip", "route", "client_id" or "header:NAME"',
    _parse_key_part,
    shape=either(words(*_PARTS), pattern("header:.+")),
)


# A 429 is the service's own limit.
STATUS: Final = refined(
    whole(400, 499),
    lambda status: status != 429,
    "is the service's own limit, and no failure; leave it out",
    shape={**integer(400, 499), "not": {"const": 429}},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitEntry:
    """One table of limits."""

    name: str = setting(
        NAME,
        about="Its name in `RateLimit` headers, metrics and the log. Each once.",
    )
    key: tuple[str, ...] = setting(
        listing(KEY_PART, at_least=1),
        ["tenant", "ip"],
        about="What is counted separately: see [keys of limits](#keys-of-limits).",
    )
    ipv6_prefix: int = setting(
        whole(32, 128),
        HOST_PREFIX,
        about='How many bits of an IPv6 address count, from 32 to 128, with `"ip"` in the key. 64: a host '
        "owns its whole /64. 56 or 48: what many providers give to one customer. An IPv4 address inside an "
        "IPv6 one counts as that IPv4 address.",
    )
    rate: tuple[int, int] | None = setting(
        RATE,
        Derived("this or `in_flight`"),
        about='How fast the bucket refills: a number and `s`, `m`, `h` or `d`, as in `"10/m"`.',
    )
    in_flight: int = setting(
        whole(0, MAX_IN_FLIGHT),
        0,
        about="In place of `rate`: how many requests may be in flight at once; one more is 503 `overloaded`. "
        "A WebSocket counts until it closes. 0: it is a rate. See [limits on requests in "
        "flight](#limits-on-requests-in-flight).",
    )
    burst: int | None = setting(
        whole(1, MAX_QUOTA),
        Derived("the rate's number"),
        about="The size of the bucket: the most requests at once.",
    )
    paths: tuple[str, ...] = setting(
        listing(PATH_PREFIX),
        [],
        about="Path prefixes by whole segments, in every spelling that a service may accept; `[]`: every path.",
    )
    methods: tuple[str, ...] = setting(
        listing(METHOD),
        [],
        about='The methods that it applies to. `"GET"` is also HEAD, which services answer like a GET. `[]`: '
        "every method.",
    )
    mode: str = setting(
        choice("enforce", "shadow"),
        "enforce",
        about='`"shadow"` only counts what it would refuse.',
    )
    charge: str = setting(
        choice("requests", "failures", "refusals"),
        "requests",
        about='`"failures"` charges only for responses of the service with one of `statuses`, and for '
        'requests whose client disconnects before the response; `"refusals"` only for what the gateway itself '
        "refuses. Past such a limit these requests get no response, and their connections close; its key is "
        '`["ip"]`.',
    )
    statuses: tuple[int, ...] = setting(
        listing(STATUS, at_least=1),
        list(FAILURES),
        about='With `charge = "failures"`: which responses are failures, from 400 to 499 without 429. See '
        "[responses that are not failures](#responses-that-are-not-failures).",
    )
    on_failure: str = setting(
        choice("local", "open", "closed"),
        "local",
        about="What happens where a [shared store](#limits-of-several-gateways) cannot decide: the buckets in "
        "this process do; the limit lets every request pass; it refuses every request with 503 `overloaded`.",
    )


def _limit(entry: LimitEntry) -> LimitRule:
    faults = list(_contradictions(entry))
    if faults:
        raise ReadError(faults)
    quota, window = entry.rate or (0, 1)
    return LimitRule(
        entry.name,
        entry.key,
        quota,
        window,
        burst=entry.burst or quota,
        paths=tuple(path.encode() for path in entry.paths) or None,
        methods=frozenset(method.encode() for method in entry.methods) or None,
        mode=cast(Literal["enforce", "shadow"], entry.mode),
        charge=cast(Literal["requests", "failures", "refusals"], entry.charge),
        on_failure=cast(Literal["local", "open", "closed"], entry.on_failure),
        ipv6_prefix=entry.ipv6_prefix,
        in_flight=entry.in_flight,
        statuses=frozenset(entry.statuses),
    )


def _contradictions(entry: LimitEntry) -> Iterator[Located]:
    if entry.in_flight:
        yield from _in_flight_contradictions(entry)
    elif entry.rate is None:
        yield ".rate", 'is missing; write the rate, as in rate = "10/m", or in_flight = N'
    if entry.charge != "failures" and entry.statuses != FAILURES:
        yield ".statuses", 'has no effect without charge = "failures"; leave it out, or charge failures'
    if entry.charge == "refusals":
        yield from _refusals_contradictions(entry)
    elif entry.ipv6_prefix != HOST_PREFIX and "ip" not in entry.key:
        yield ".ipv6_prefix", 'has no effect, since key has no "ip"; leave it out, or count by "ip"'


def _in_flight_contradictions(entry: LimitEntry) -> Iterator[Located]:
    """What is in flight is counted, and not charged."""
    if entry.rate is not None:
        yield ".in_flight", "is given as well as rate; write one of the two, and two limits if you want both"
    if entry.burst is not None:
        yield ".burst", "has no effect with in_flight; leave it out"
    if entry.charge != "requests":
        yield ".charge", f"{shown(entry.charge)} has no effect with in_flight; leave it out"
    if entry.on_failure != "local":
        yield ".on_failure", "has no effect with in_flight, which every gateway counts by itself; leave it out"


def _refusals_contradictions(entry: LimitEntry) -> Iterator[Located]:
    """A refused request may have no tenant, path or method, and addresses are counted before any rule is known."""
    if entry.key != ("ip",):
        yield ".key", 'must be ["ip"] with charge = "refusals", since a refused request may have no tenant'
    for name in ("paths", "methods"):
        if getattr(entry, name):
            yield f".{name}", 'have no effect with charge = "refusals": leave them out'
    if entry.ipv6_prefix != HOST_PREFIX:
        yield ".ipv6_prefix", f'has no effect with charge = "refusals", which counts a /{HOST_PREFIX}; leave it out'
    if entry.on_failure != "local":
        yield (
            ".on_failure",
            'has no effect with charge = "refusals", which every gateway counts by itself; leave it out',
        )


LIMITS = array(made(LimitEntry, _limit))
