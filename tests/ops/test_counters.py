"""What is counted of exchanges: each once in every family, in bounded memory, whatever its peers choose."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koder_gateway.ops import counters as module
from koder_gateway.ops.counters import BUCKETS, Counters
from tests.kit.exchanges import count

SHORT, MIDDLE = BUCKETS[2], BUCKETS[6]


def at(counts: list[int]) -> list[int]:
    """The places that are not 0."""
    return [place for place, number in enumerate(counts) if number]


# -- by route, method and protocol


def test_exchanges_are_counted_by_route_and_method() -> None:
    counters = Counters()
    count(counters, "auth", 200, route=b"/v1/auth", method=b"POST")
    count(counters, "auth", 204, route=b"/v1/auth", method=b"POST")
    count(counters, "auth", 503, route=b"/v1/auth", method=b"GET")
    count(counters, "", 404, method=b"GET")
    count(counters, "auth", 201, route=b"/v1/auth", method=b"POST")
    assert counters.routes == {
        ("/v1/auth", "POST"): [0, 0, 3, 0, 0, 0],
        ("/v1/auth", "GET"): [0, 0, 0, 0, 0, 1],
        ("", "GET"): [0, 0, 0, 0, 1, 0],
    }
    count(counters, "auth", 200, route=b"/v1/auth", method=b"POST")
    assert counters.routes["/v1/auth", "POST"][2] == 4, "reading a total does not end the count"


def test_a_method_that_a_client_made_up_is_no_label() -> None:
    counters = Counters()
    for method in (b"BREW", b"get", b"", b"TRACE", b'G"\n'):
        count(counters, "", 501, method=method)
    assert counters.routes == {("", "other"): [0, 0, 0, 0, 0, 5]}


def test_exchanges_are_counted_by_protocol() -> None:
    counters = Counters()
    assert counters.protocols == {"http/1.0": 0, "http/1.1": 0, "h2": 0}, "from the start"
    count(counters, minor=0)
    for _ in range(2):
        count(counters)
    for _ in range(3):
        count(counters, http2=True)
    assert counters.protocols == {"http/1.0": 1, "http/1.1": 2, "h2": 3}


def test_routes_that_a_reload_removes_are_forgotten() -> None:
    """The counts of those that stay go on, also of exchanges that were not added up yet."""
    counters = Counters()
    for route in (b"/a", b"/b", b""):
        count(counters, route=route)
    counters.keep_routes([b"/a", b"/c"])
    assert counters.routes.keys() == {("/a", "GET"), ("", "GET")}
    count(counters, route=b"/a")
    assert counters.routes["/a", "GET"] == [0, 0, 2, 0, 0, 0]


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "a", "b"]),
            st.integers(0, 700),
            st.sampled_from([b"GET", b"POST", b"BREW"]),
            st.sampled_from([b"", b"/a", b"/b"]),
            st.booleans(),
        )
    ),
    st.integers(1, 5),
)
def test_every_family_counts_each_exchange_once(
    exchanges: list[tuple[str, int, bytes, bytes, bool]], room: int
) -> None:
    """However few cells there are."""
    counters = Counters()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CELLS", room)
        for service, status, method, route, http2 in exchanges:
            count(counters, service, status, method=method, route=route, http2=http2)
            assert len(counters._cells) <= room
    number = len(exchanges)
    assert sum(sum(series.classes) for series in counters.series.values()) == number
    assert sum(map(sum, counters.routes.values())) == number
    assert sum(counters.protocols.values()) == number
    assert sum(sum(counts) for _, counts in counters.tenant_counts) == number


# -- durations and first bytes


def test_a_response_that_came_at_once_is_in_both_histograms() -> None:
    counters = Counters()
    count(counters, "a", seconds=MIDDLE, answered_at=math.inf)
    series = counters.series["a"]
    assert at(series.durations) == at(series.first_bytes) == [6]
    assert series.seconds == series.first_seconds == MIDDLE


@pytest.mark.parametrize(
    ("answered", "sent", "first"),
    [
        (SHORT, 0.0, SHORT),
        (math.inf, MIDDLE - SHORT, SHORT),
        (SHORT + 0.01, 0.01, SHORT),
    ],
)
def test_the_first_byte_is_counted_from_when_the_request_was_sent(answered: float, sent: float, first: float) -> None:
    counters = Counters()
    count(counters, "a", seconds=MIDDLE, answered_at=answered, sent_at=sent)
    series = counters.series["a"]
    assert (at(series.durations), series.seconds) == ([6], MIDDLE)
    assert at(series.first_bytes) in ([2], [3]), "rounding may pass the bound"
    assert math.isclose(series.first_seconds, first)


def test_without_a_response_there_is_no_first_byte() -> None:
    counters = Counters()
    count(counters, "a", 504, seconds=MIDDLE)
    series = counters.series["a"]
    assert (at(series.durations), at(series.first_bytes), series.first_seconds) == ([6], [], 0.0)


def test_a_tunnel_has_a_first_byte_and_no_duration() -> None:
    counters = Counters()
    count(counters, "a", 101, seconds=9.0, answered_at=SHORT)
    series = counters.series["a"]
    assert (at(series.durations), series.seconds) == ([], 0.0)
    assert (at(series.first_bytes), series.first_seconds) == ([2], SHORT)
    assert series.classes == [0, 1, 0, 0, 0, 0]


def test_bounds_ascend() -> None:
    assert all(one < next for one, next in pairwise(BUCKETS))
