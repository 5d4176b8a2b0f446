"""Services that a reload has replaced: they are swept until they are empty, and their retries still count."""

from __future__ import annotations

import gc
from typing import Any

from koder_gateway.service.retired_services import RetiredServices
from koder_gateway.upstream.pool import Service
from koder_gateway.wire.clock import CoarseClock
from koder_gateway.wire.response import ResponseReader
from tests.kit.bounds import open_tunnels, service_timeouts


def service(name: str) -> Service:
    clock = CoarseClock()
    return Service(
        name,
        [],
        ResponseReader(b"X-Tenant-ID"),
        clock,
        later=lambda call: None,
        timeouts=service_timeouts(),
        max_connections=8,
        tunnels=open_tunnels(clock),
    )


def holding(name: str, retries: int) -> tuple[Service, Any]:
    """A service with an exchange that has its place still."""
    made, exchange = service(name), object()
    assert made.places.acquire(exchange)  # type: ignore[arg-type]
    made.retried = retries
    return made, exchange


def test_one_that_the_new_generation_has_too_is_not_retired() -> None:
    kept, replaced, gone = service("kept"), service("replaced"), service("gone")
    retired = RetiredServices()
    before = {"kept": kept, "replaced": replaced, "gone": gone}
    retired.retire(before, {"kept": kept, "replaced": service("replaced")})
    assert (kept.closing, replaced.closing, gone.closing) == (False, True, True)


def test_retries_count_when_their_service_is_gone_as_well() -> None:
    first, exchange = holding("first", 3)
    second, _ = holding("second", 4)
    retired = RetiredServices()
    retired.retire({"first": first, "second": second}, {})
    retired.sweep(1.0)
    assert retired.retries == 7
    first.places.release(exchange)
    retired.sweep(2.0)
    assert retired.retries == 7
    first.retried += 1
    assert retired.retries == 8, "who holds it still may send it an exchange"
    retired.sweep(3.0)
    second.retried += 1
    assert retired.retries == 9
    del first
    gc.collect()
    assert retired.retries == 9
