"""The curves of the scale benchmark: what grows, and a gateway at each size of it with the load that measures it."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from load import Sample, fill, idle_connections, pace, saturate, write_requests
from servers import BASE_DOMAIN, Cores, Gateway, MeasurementError, start_upstream

# Distinct requests of one load. Each has a path of its own at every size, since the gateway is faster on a request
# that repeats the one before it on the same connection.
REQUESTS: Final = 5000
USERS: Final = "/v1/users"

# Takes seconds, measures for about as long.
Measure = Callable[[int], Sample]


class Bed:
    """What all gateways of a run stand on; whatever is started in it ends with `stack`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.cores = Cores()
        server, self.upstream = start_upstream(folder / "upstream", self.cores)
        stack.enter_context(server)

    def gateway(
        self, name: str, *, routes: tuple[str, ...] = (USERS,), registry: str = "", rate: str = ""
    ) -> Gateway:
        """A gateway that serves."""
        gateway = Gateway(
            self.folder / name,
            self.cores,
            self.upstream,
            routes=routes,
            registry=registry,
            rate=rate or "1000000/s",
        )
        self.stack.enter_context(gateway)
        gateway.wait_until_ready()
        return gateway

    def saturating(self, gateway: Gateway, requests: list[tuple[str, str]]) -> Measure:
        """The throughput of a gateway under these hosts and paths."""
        return partial(saturate, gateway, self.cores, write_requests(gateway.folder, requests))


def _spread(count: int) -> list[int]:
    """`REQUESTS` numbers below `count`, each as often as any other, chosen at random and the same in every run."""
    chosen = random.Random(1).sample(range(count), min(count, REQUESTS))
    return [chosen[index % len(chosen)] for index in range(REQUESTS)]


def _slug_host(number: int) -> str:
    return f"t{number}.{BASE_DOMAIN}"


def tenants(bed: Bed, count: int) -> Measure:
    """A registry file with this many tenants, each with a domain and an origin of its own; half of the requests
    come by the domain."""
    registry = bed.folder / f"tenants-{count}.toml"
    with registry.open("w") as file:
        for number in range(count):
            file.write(f'[[tenant]]\nslug = "t{number}"\ndomains = ["login.t{number}.example"]\n')
            file.write(f'cors_origins = ["https://app.t{number}.example"]\n')
    gateway = bed.gateway(f"tenants-{count}", registry=str(registry))
    coin = random.Random(2)
    hosts = [_slug_host(n) if coin.random() < 0.5 else f"login.t{n}.example" for n in _spread(count)]
    return bed.saturating(gateway, [(host, f"{USERS}/{index}") for index, host in enumerate(hosts)])


def routes(bed: Bed, count: int) -> Measure:
    """This many routes, of one to three segments."""
    paths = tuple(("/service{0}", "/v1/service{0}", "/v1/group/service{0}")[n % 3].format(n) for n in range(count))
    gateway = bed.gateway(f"routes-{count}", routes=paths)
    host = _slug_host(1)
    return bed.saturating(
        gateway, [(host, f"{paths[number]}/{index}") for index, number in enumerate(_spread(count))]
    )


def limit_entries(bed: Bed, count: int) -> Measure:
    """This many buckets that have been charged before the load begins, and are not full again for hours. The load
    charges `REQUESTS` of them; where there are none it makes its own."""
    gateway = bed.gateway(f"limit-entries-{count}", rate="1/h")
    fill(gateway, map(_slug_host, range(count)))
    if (kept := gateway.gauge("limit_entries")) != count:
        raise MeasurementError(f"{kept} limit entries are kept, not {count}")
    hosts = [_slug_host(number) for number in _spread(max(count, REQUESTS))]
    return bed.saturating(gateway, [(host, f"{USERS}/{index}") for index, host in enumerate(hosts)])


def idle(bed: Bed, count: int) -> Measure:
    """This many idle TLS connections beside those that are measured."""
    gateway = bed.gateway(f"idle-{count}")
    for client in idle_connections(gateway, count):
        bed.stack.callback(client.close)
    measure = partial(pace, gateway, bed.cores, gateway.folder)

    def measured(seconds: int) -> Sample:
        if gateway.gauge("connections_open") < count:
            raise MeasurementError("idle connections have been closed")
        return measure(seconds)

    return measured


@dataclass(frozen=True, slots=True)
class Curve:
    """One thing that grows. `metric` of each size is held against the first size's: its ratio may not fall below
    `bound` if that is under 1, nor rise above it otherwise. `also` names what is drawn beside it. Each measurement
    takes so many `seconds`."""

    name: str
    title: str
    axis: str
    sizes: tuple[int, ...]
    quick: tuple[int, ...]
    prepare: Callable[[Bed, int], Measure]
    metric: str = "rps"
    also: tuple[str, ...] = ()
    bound: float = 0.9
    seconds: int = 1

    def keeps(self, ratio: float) -> bool:
        """Whether a ratio is within the bound."""
        return ratio >= self.bound if self.bound < 1 else ratio <= self.bound


CURVES: Final = (
    Curve(
        "tenants",
        "TLS requests a second by tenants",
        "tenants",
        (10, 1_000, 100_000, 1_000_000),
        (10, 10_000),
        tenants,
    ),
    Curve("routes", "TLS requests a second by routes", "routes", (5, 50, 1_000), (5, 1_000), routes),
    Curve(
        "limit_entries",
        "TLS requests a second by live limit entries",
        "live limit entries",
        (0, 10_000, 100_000, 1_000_000),
        (0, 20_000),
        limit_entries,
    ),
    Curve(
        "idle",
        "Latency at 2,000 requests a second by idle TLS connections",
        "idle TLS connections",
        (0, 1_000, 10_000),
        (0, 500),
        idle,
        metric="p99",
        also=("p50",),
        bound=1.5,
        seconds=2,
    ),
)
