"""Other spellings of a path: what they are routed by, what limits make of them, and what a service gets.

An escaped unreserved character is the same path (RFC 3986 section 2.3). Limits read a path as the most lenient
service would. What is forwarded stays as it came.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.config import Settings
from koder_gateway.policy.limit_rules import LimitRule
from koder_gateway.policy.limits import Limiter
from koder_gateway.policy.path_readings import Reach, lenient_path, lenient_paths
from koder_gateway.policy.routing import Route, RouteTable
from koder_gateway.wire.request_reader import RequestReader
from koder_gateway.wire.target import LONGEST_PREFIX, path_fault, without_needless_escapes
from tests.kit.doors import WAYS, Doors, open_doors
from tests.kit.limits import rules_of
from tests.kit.recording import SETTINGS

READER = RequestReader(b"X-Tenant-ID", max_target=8192, max_fields=100)
SHIPPED = Settings()
LIMITS = """
[[limits]]
name = "narrow"
rate = "2/h"
paths = ["/oauth/v2/token"]
methods = ["POST"]
"""
RESPELLED = [
    b"/oauth/v2/%74oken", b"/%6Fauth/v2/toke%6e", b"/oauth/v2/token/", b"/oauth/v2//token", b"/oauth/v2/token;a=b",
    b"/oauth/v2/Token", b"/oauth/v2/token%20", b"/oauth/v2;x/token", b"/oauth/v2/token.", b"/oauth/v2/;/token/x",
    b"/oauth/v2/TOK%45N?a=b", b"/oauth/v2/token%3ba=b", b"/oauth/v2/to%EF%BD%8Ben",
    # Decoded more than once.
    b"/oauth/v2/%2574oken", b"/oauth/v2/%25%37%34oken", b"/oauth/v2/%252574oken", b"/oauth/v2/%25252574oken",
    b"/oauth/v2/%25%35%34OKEN", b"/oauth/v2/token%252F", b"/oauth/v2/x/%252e%252E/token", b"/oauth/v2/%255ctoken",
    b"/oauth/v2/x/%252e%252e%255Ctoken", b"/oauth/v2/to%25ef%25bd%258ben", b"/oauth/v2/%2574oken%253Ba=b",
    # Up to a query or a fragment that a proxy makes of it.
    b"/oauth/v2/token%3Fa=b", b"/oauth/v2/token%2523a",
    # With an empty segment that is one.
    b"/oauth/v2//%252e%252e/token", b"/oauth/v2/%255c..%255ctoken",
    # As it stands, whatever is in its parameters when they are decoded or normalised.
    b"/oauth/v2;%252Fx/token", b"/oauth/v2;%EF%BC%8Fx/token", b"/oauth/v2/token/%252e%252e/x",
    # With a format.
    b"/oauth/v2/token.json", b"/oauth/v2/token.XML/", b"/oauth/v2/%74oken.any;a=b", b"/oauth/v2/token%252ejson",
]  # fmt: skip


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    settings = SETTINGS.replace("limits = []", "") + LIMITS
    with open_doors(tmp_path_factory.mktemp("gateway"), settings) as doors:
        yield doors


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("target", RESPELLED)
def test_no_spelling_has_a_limit_of_its_own(way: str, target: bytes, doors: Doors) -> None:
    """The bucket of this client is spent by the first ones, so all the others are refused."""
    doors.origin.forget()
    for _ in range(2):
        doors.ask(way, b"/oauth/v2/token", method=b"POST", body=b"x")
    doors.origin.settle()
    before = len(doors.origin.messages)
    assert doors.ask(way, target, method=b"POST", body=b"x").status == 429
    assert len(doors.received()) == before


@pytest.mark.parametrize("way", WAYS)
def test_a_needless_escape_is_routed_as_what_it_means_and_forwarded_as_it_came(way: str, doors: Doors) -> None:
    doors.origin.forget()
    assert doors.ask(way, b"/%76%31/users/%7E?%61").status == 200
    assert doors.only().target == b"/%76%31/users/%7E?%61"


def spelled(character: str) -> st.SearchStrategy[bytes]:
    """A character of a path as itself, or escaped in either case."""
    byte = ord(character)
    if character in "/.":
        return st.just(character.encode())
    return st.sampled_from([character.encode(), b"%%%02x" % byte, b"%%%02X" % byte])


NAMES = st.sampled_from(
    ["oauth", "v2", "token", "revoke", "v1", "users", "auth", "admin", "x", "a-b_c~d", ".well-known"]
)
PATHS = st.lists(NAMES, max_size=5).map(lambda names: "/" + "/".join(names))
SPELLINGS = PATHS.flatmap(
    lambda path: st.tuples(st.just(path.encode()), st.tuples(*map(spelled, path)).map(b"".join))
)
METHODS = st.sampled_from([b"GET", b"POST", b"DELETE"])


def head_of(target: bytes, method: bytes = b"GET"):
    head = READER.read(b"%b %b HTTP/1.1\r\nHost: koder.id.koder.dev\r\n\r\n" % (method, target))
    assert head.refusal is None, head.refusal
    return head


def plan(limiter: Limiter, target: bytes, method: bytes) -> tuple[str, ...]:
    """The rules that the data path charges: those whose counters go up."""
    before = [(meter.admitted, meter.refused) for meter in limiter.meters]
    head = head_of(target, method)
    limiter.admit(b"koder", b"\x0a\0\0\1", head.method, head.path, 0.0, head.plain)
    after = [(meter.admitted, meter.refused) for meter in limiter.meters]
    return tuple(meter.rule.name for meter, was, now in zip(limiter.meters, before, after, strict=True) if was != now)


@given(SPELLINGS, METHODS)
def test_route_and_limit_have_one_reading(spelling: tuple[bytes, bytes], method: bytes) -> None:
    """Whichever way a path is spelled, it has the route and the limits of the plain one; `explain` says the same."""
    path, other = spelling
    routes, limiter = RouteTable(SHIPPED.routes), Limiter(SHIPPED.limits, 1000)
    assert routes.match(head_of(other).path) == routes.match(path)
    wanted = plan(limiter, path, method)
    assert plan(limiter, other, method) == wanted
    assert tuple(rule.name for rule in rules_of(limiter, method, head_of(other).path)) == wanted
    assert head_of(other).target == other


def leniently(path: bytes) -> bytes:
    """What a service makes of a path that decodes, folds case, and drops parameters, blanks and empty segments."""
    decoded = unquote_to_bytes(path).lower()
    kept = [re.sub(rb";.*", b"", segment, flags=re.DOTALL).strip() for segment in decoded.split(b"/")]
    return b"/" + b"/".join(segment for segment in kept if segment)


ODDITIES = st.lists(
    st.sampled_from(
        [b"/", b"//", b"oauth", b"v2", b"OAuth", b"tok%45n", b"token", b";a=b", b";", b"%20", b"%3B", b"V2"]
    ),
    max_size=12,
).map(lambda pieces: b"/" + b"".join(pieces))


@given(ODDITIES)
def test_a_limit_holds_for_whatever_a_lenient_service_makes_of_a_path(path: bytes) -> None:
    if path_fault(path) is not None:
        return
    limiter = Limiter([LimitRule("narrow", ("ip",), 5, 60, paths=(b"/oauth/v2/token",))], 100)
    read = leniently(path)
    covered = read == b"/oauth/v2/token" or read.startswith(b"/oauth/v2/token/")
    assert bool(plan(limiter, path, b"POST")) == covered


def test_configured_paths_mean_what_they_spell() -> None:
    routes = RouteTable([Route(b"/v1/%75sers", "identity")])
    assert routes.match(b"/v1/users/7") is routes.routes[0]
    limiter = Limiter([LimitRule("one", ("ip",), 5, 60, paths=(b"/V1/%75sers/",))], 100)
    assert rules_of(limiter, b"GET", b"/v1/users/7")
    assert not rules_of(limiter, b"GET", b"/v1/user")


def test_reserved_characters_keep_their_escapes() -> None:
    assert without_needless_escapes(b"/a%3Ab%2Bc%25%32%35%2541") == b"/a%3Ab%2Bc%2525%2541"
    assert without_needless_escapes(b"/" + b"%61" * 4000)[: LONGEST_PREFIX + 1] == b"/" + b"a" * LONGEST_PREFIX


@pytest.mark.parametrize("unit", [b"/", b"/;", b"/.", b"%61", b"%20", b";", b"/%3B", b"%25", b"/a"])
def test_an_endless_path_is_read_to_its_depth_alone(unit: bytes) -> None:
    """Whatever 8 KiB of this are, no more segments are looked at than limits have."""
    path = b"/" + unit * (8192 // len(unit))
    assert lenient_path(path, 3).count(b"/") <= 3
    assert lenient_path(path + b"/a/b/c", 3).count(b"/") <= 3
    assert all(reading.count(b"/") <= 3 for reading in lenient_paths(path + b"/a/b.c", Reach(3)) or ())


HONEST = {
    b"/v1/token2": {b"/v1/token2"},
    b"/v1/users/a%2525b": {b"/v1/users/a%25b", b"/v1/users/a%b"},
    b"/v1/a%25zz%0d%25%0Ab": {b"/v1/a%zz\r%\nb"},
    b"/v1.1/users": {b"/v1.1/users"},
    b"/v1/.hidden": {b"/v1/.hidden"},
    b"/v1/a.b/c.d.e.f.g": {b"/v1/a.b/c.d.e.f.g", b"/v1/a.b/c.d.e", b"/v1/a.b/c.d", b"/v1/a.b/c"},
    b"/v1/a.b/c/d.e": {b"/v1/a.b/c"},
    b"/v1/caf%C3%89": {b"/v1/caf\xc3\x89", b"/v1/caf\xc3\xa9"},
    b"/v1/a%253d%3D%2541": {b"/v1/a%3d=%41", b"/v1/a==a"},
}


@pytest.mark.parametrize("path", HONEST, ids=bytes.decode)
def test_what_may_be_read_in_a_path(path: bytes) -> None:
    assert lenient_paths(path, Reach(3, 2)) == HONEST[path]
    assert lenient_path(path, 3) in HONEST[path]


@given(st.binary(max_size=40), st.integers(0, 4))
def test_every_path_has_its_first_reading_and_few_others(raw: bytes, depth: int) -> None:
    path = b"/" + b"".join(
        b"%%%02x" % byte if byte < 0x21 or byte > 0x7E or byte == 0x25 else b"%c" % byte for byte in raw
    )
    readings = lenient_paths(path, Reach(depth, 1))
    assert readings is not None
    assert lenient_path(path, depth) in readings
    assert len(readings) <= 144
    assert all(reading.count(b"/") <= depth for reading in readings)


def test_rules_of_all_readings_hold_in_their_order() -> None:
    """One service takes it for `/a/b`, another for `/c`."""
    rules = [
        LimitRule(name, ("ip",), 5, 60, paths=(path,)) for name, path in (("c", b"/c"), ("no", b"/d"), ("b", b"/a/b"))
    ]
    limiter = Limiter(rules, 100)
    path = b"/a/b/%252e%252e/%252e%252e/c"
    assert plan(limiter, path, b"GET") == ("c", "b")
    assert [rule.name for rule in rules_of(limiter, b"GET", path)] == ["c", "b"]


def test_a_plain_path_needs_no_second_look() -> None:
    assert head_of(b"/v1/users/.a-b_c~d?A=%41").plain
    for other in (b"/v1/Users", b"/v1//users", b"/v1/users;a", b"/v1/users%20", b"/v1/users.", b"/v1/users.json"):
        assert not head_of(other).plain
    before = head_of(b"/V1")
    assert READER.read(b"GET /v1 HTTP/1.1\r\nHost: koder.id.koder.dev\r\n\r\n", before).plain
