"""Routing by whole segments, the longest prefix first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.policy.routing import PathSet, PrefixTable, Route, RouteTable

DEFAULT = RouteTable(
    [
        Route(b"/v1/users", "identity"),
        Route(b"/v1/auth", "auth"),
        Route(b"/oauth/v2", "oauth2"),
        Route(b"/.well-known", "oauth2"),
        Route(b"/v1/admin/", "admin"),
    ]
)


def service(table: RouteTable, path: bytes) -> str | None:
    route = table.match(path)
    return None if route is None else route.service


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/v1/users", "identity"),
        (b"/v1/users/", "identity"),
        (b"/v1/users/7", "identity"),
        (b"/v1/users//7", "identity"),
        (b"/v1/users/7/a/b/c/d", "identity"),
        (b"/v1/admin", "admin"),
        (b"/v1/admin/tenants", "admin"),
        (b"/.well-known/openid-configuration", "oauth2"),
        (b"/v1/users2", None),
        (b"/v1/user", None),
        (b"/V1/users", None),
        (b"//v1/users", None),
        (b"/v1//users", None),
        (b"/x/v1/users", None),
        (b"/v1", None),
        (b"/", None),
        (b"*", None),
        (b"", None),
        (b"v1/users", None),
        (b"/v1/%75sers", None),
    ],
)
def test_whole_segments(path: bytes, expected: str | None) -> None:
    assert service(DEFAULT, path) == expected


def test_the_longest_prefix_wins_in_any_order() -> None:
    routes = [Route(b"/a", "short"), Route(b"/a/b/c", "long"), Route(b"/a/b", "middle")]
    for order in (routes, routes[::-1]):
        table = RouteTable(order)
        assert service(table, b"/a/x") == "short"
        assert service(table, b"/a/b/x") == "middle"
        assert service(table, b"/a/b/c/x") == "long"
        assert service(table, b"/a/b/cx") == "middle"


@pytest.mark.parametrize("path", [b"/", b"/x", b"//", b"*", b"/a/b/c"])
def test_the_root_takes_everything(path: bytes) -> None:
    assert service(RouteTable([Route(b"/", "all")]), path) == "all"
    assert service(RouteTable([Route(b"/", "all"), Route(b"/deep/er", "other")]), path) == "all"


def test_no_routes_match_nothing() -> None:
    assert service(RouteTable([]), b"/v1/users") is None


def test_many_slashes_still_match_by_their_first_segments() -> None:
    assert service(DEFAULT, b"/" * 10_000) is None
    assert service(DEFAULT, b"/v1/users" + b"/" * 10_000) == "identity"


def test_a_table_keeps_its_routes() -> None:
    assert [route.service for route in DEFAULT.routes] == ["identity", "auth", "oauth2", "oauth2", "admin"]


def test_a_false_value_is_still_a_value() -> None:
    assert PrefixTable({b"/a": 0, b"/": 1}).match(b"/a/b") == 0


segments = st.lists(st.sampled_from([b"a", b"b", b"ab", b"", b"v1", b"."]), max_size=5)
paths = segments.map(lambda parts: b"/" + b"/".join(parts))


def under(path: bytes, prefix: bytes) -> bool:
    """The specification: the prefix's segments are the first ones of the path."""
    wanted = prefix.removesuffix(b"/").split(b"/")
    return path.split(b"/")[: len(wanted)] == wanted


@given(st.lists(paths, max_size=6), paths)
def test_covered_if_and_only_if_a_segment_prefix(prefixes: list[bytes], path: bytes) -> None:
    assert PathSet(prefixes).covers(path) == any(under(path, prefix) for prefix in prefixes)


@given(st.lists(paths, max_size=6), paths)
def test_the_match_is_the_longest_covering_prefix(prefixes: list[bytes], path: bytes) -> None:
    found = RouteTable(Route(prefix, "s") for prefix in prefixes).match(path)
    covering = [prefix.removesuffix(b"/") for prefix in prefixes if under(path, prefix)]
    assert (found.path.removesuffix(b"/") if found else None) == max(covering, key=len, default=None)
