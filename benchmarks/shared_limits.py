"""What limits on a shared store cost: the gateway with its limit on a Redis, beside the same gateway without.

    python benchmarks/shared_limits.py [--seconds N] [--rounds N]

Both gateways have one processor, in turns; load, service and Redis have the others. Throughput is of 64 TLS
connections, latency at 2,000 requests a second. A ratio is the median of those taken round by round. Beside them
there is the gateway's own processor time for a request, which a busy machine distorts least. Needs redis-server,
nginx, wrk and h2load.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from load import pace, saturate, write_requests
from servers import BASE_DOMAIN, Cores, Gateway, MeasurementError, Server, find, free_port, start_upstream

# The marks: throughput at least so much of that without a store, the 99th percentile at most so much.
LEAST_THROUGHPUT = 0.6
MOST_LATENCY = 1.5
_WITHOUT, _SHARED = "without", "shared"
Row = dict[str, float]


def start_redis(folder: Path, cores: Cores) -> tuple[Server, str]:
    """A Redis that keeps nothing on disk, and its URL."""
    folder.mkdir()
    port = free_port()
    program = find("redis-server")
    if program is None:
        raise MeasurementError("redis-server is not installed; apt-get install redis-server")
    words = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    return Server(folder, words, cores.load), f"redis://127.0.0.1:{port}/0"


def rounds(options: argparse.Namespace, cores: Cores) -> Iterator[tuple[str, Row]]:
    """Measure both gateways in turns."""
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        redis, url = start_redis(folder / "redis", cores)
        stack.enter_context(redis)
        upstream, port = start_upstream(folder / "upstream", cores)
        stack.enter_context(upstream)
        requests = write_requests(folder, [(f"acme.{BASE_DOMAIN}", "/v1/users")])
        gateways = {}
        for name, store in ((_WITHOUT, "memory:"), (_SHARED, url)):
            gateway = Gateway(folder / name, cores, port, routes=("/v1/users",), store=store)
            gateways[name] = stack.enter_context(gateway)
            gateway.wait_until_ready()
            saturate(gateway, cores, requests, 1)
        for _ in range(options.rounds):
            for name, gateway in gateways.items():
                full = saturate(gateway, cores, requests, options.seconds)
                yield name, {**full, "full_us": full["cpu_us"], **pace(gateway, cores, folder, options.seconds)}
        shared = gateways[_SHARED]
        if shared.gauge("limits_store_up") != 1:
            raise MeasurementError("the store was lost")
        missed = shared.gauge("limits_store_missed_total")
        print(f"{missed} requests were decided without the store")


def compare(options: argparse.Namespace, cores: Cores) -> bool:
    """Measure, print, and say whether the marks hold."""
    rows: dict[str, list[Row]] = {_WITHOUT: [], _SHARED: []}
    for name, row in rounds(options, cores):
        rows[name].append(row)
        full = f"{row['rps']:8,.0f} req/s, {row['full_us']:5.1f} us each, {row['busy']:4.0%} busy"
        print(f"{name:8} {full}; paced: p50 {row['p50']:.2f} p99 {row['p99']:.2f} ms, {row['cpu_us']:5.1f} us each")
    pairs = list(zip(rows[_SHARED], rows[_WITHOUT], strict=True))
    throughput = statistics.median(shared["rps"] / without["rps"] for shared, without in pairs)
    latency = statistics.median(shared["p99"] / without["p99"] for shared, without in pairs)
    cost = statistics.median(without["full_us"] / shared["full_us"] for shared, without in pairs)
    print(f"with a shared store: {cost:.2f} of the requests for the same processor time,")
    print(f"{throughput:.2f} of the throughput (mark: {LEAST_THROUGHPUT} at least),")
    print(f"{latency:.2f} times the 99th percentile at 2,000 requests a second (mark: {MOST_LATENCY} at most)")
    return throughput >= LEAST_THROUGHPUT and latency <= MOST_LATENCY


def main() -> int:
    """Parse the command line, measure, print; 1 if a mark does not hold or there is no figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    try:
        return 0 if compare(options, Cores()) else 1
    except MeasurementError as error:
        print(f"shared_limits: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
