"""The functions that every request passes, and whole exchanges in memory."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from statistics import median
from timeit import repeat
from typing import Any

import pytest
from conftest import RATIO
from rig import (
    ANSWER,
    ANSWER_HEAD,
    BAD_PATH,
    LIMITED,
    MISDIRECTED,
    NO_ROUTE,
    PREFLIGHT,
    REQUEST,
    Rig,
    policy,
)

from koder_gateway.wire.body import ChunkedDecoder
from koder_gateway.wire.request_reader import RequestReader
from koder_gateway.wire.response import ResponseReader

READER = RequestReader(b"X-Tenant-ID", max_target=8192, max_fields=100)


def _loop() -> int:
    """Calls, look-ups, bytes and a little arithmetic: what this code is made of."""
    table = {b"%d" % number: number for number in range(16)}
    total = 0
    for number in range(200):
        total += len(b"%b: %d\r\n" % (b"name", number)) + table.get(b"%d" % (number & 31), 0)
    return total


def _best(function: Callable[[], object], number: int) -> float:
    """The best of a few short rounds."""
    return min(repeat(function, repeat=5, number=number)) / number


def _ratio(function: Callable[[], object]) -> float:
    """How many times as long as the loop a call takes. Both are timed in turns of about a millisecond, each pair is
    compared, and the middle one counts: what else the machine does, or how fast it is just then, is the same for both
    of nearly every pair."""
    number = max(1, int(200e-6 / _best(function, 10)))
    return median(_best(function, number) / _best(_loop, 4) for _ in range(60))


def measure(benchmark: Any, function: Any, *arguments: Any) -> Any:
    """Many short rounds, whose best is what the code costs without its neighbours; and its multiple of the loop."""
    if not benchmark.enabled:
        return benchmark(function, *arguments)
    benchmark.extra_info[RATIO] = round(_ratio(lambda: function(*arguments)), 4)
    return benchmark.pedantic(function, arguments, rounds=300, iterations=50, warmup_rounds=20)


def test_read_request_head(benchmark: Any) -> None:
    assert measure(benchmark, READER.read, REQUEST).refusal is None


def test_read_repeated_request_head(benchmark: Any) -> None:
    before = READER.read(REQUEST)
    assert measure(benchmark, READER.read, REQUEST, before).refusal is None


def test_read_response_head(benchmark: Any) -> None:
    reader = ResponseReader(b"X-Tenant-ID")
    # Of two that take turns none is the one before, which would be known.
    heads = cycle((ANSWER_HEAD, ANSWER_HEAD.replace(b"nginx", b"other")))
    assert measure(benchmark, lambda: reader.read(next(heads), False, True)).status == 200


def test_decode_chunks(benchmark: Any) -> None:
    data = b"400\r\n" + b"x" * 1024 + b"\r\n"
    body = data * 16 + b"0\r\n\r\n"
    assert len(measure(benchmark, lambda: ChunkedDecoder().feed(body))) == 16384


def test_resolve_tenant(benchmark: Any) -> None:
    assert measure(benchmark, policy().tenants.resolve, b"acme.id.localhost", ()).slug == "acme"


def test_match_route(benchmark: Any) -> None:
    assert measure(benchmark, policy().routes.match, b"/v1/users/7").service == "identity"


def test_admit(benchmark: Any) -> None:
    """A path that every service reads alike, as nearly all are (`RequestHead.plain`)."""
    limiter = policy().limiter
    assert measure(benchmark, limiter.admit, b"acme", b"abcd", b"GET", b"/v1/users", 1.0, True).refused is None


def test_admit_another_spelling(benchmark: Any) -> None:
    """A path of which services may read another."""
    limiter = policy().limiter
    assert measure(benchmark, limiter.admit, b"acme", b"abcd", b"GET", b"/V1//users", 1.0, False).refused is None


def test_exchange(benchmark: Any) -> None:
    rig = Rig()
    assert measure(benchmark, rig.exchange).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    ("request_", "status"),
    [(LIMITED, b"429"), (NO_ROUTE, b"404"), (MISDIRECTED, b"421"), (BAD_PATH, b"400"), (PREFLIGHT, b"204")],
    ids=["429", "404", "421", "400", "preflight"],
)
def test_refused(benchmark: Any, request_: bytes, status: bytes) -> None:
    """A flood of what the gateway answers itself costs no more than what it serves."""
    rig = Rig()
    rig.exchange(LIMITED, ANSWER)
    assert measure(benchmark, rig.refused, request_)[9:12] == status
