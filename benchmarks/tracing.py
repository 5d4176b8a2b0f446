"""What tracing costs: the gateway without spans, with one trace in a hundred, and with all of them.

    python benchmarks/tracing.py [--seconds N] [--rounds N]

The gateways have one processor, in turns; load, service, collector and exporter have the others. Throughput is of 64
TLS connections, latency at 2,000 requests a second. A ratio is the median of those taken round by round. Beside them
there is the gateway's own processor time for a request, which a busy machine distorts least. Needs nginx, wrk, h2load
and koder-gateway[tracing].
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
from servers import BASE_DOMAIN, Cores, Gateway, MeasurementError, start_upstream

# The mark: the 99th percentile with spans at most so many times that without.
MOST_LATENCY = 1.1
SAMPLES = {"without": None, "0.01": 0.01, "all": 1.0}
Row = dict[str, float]


def rounds(options: argparse.Namespace, cores: Cores) -> Iterator[tuple[str, Row]]:
    """Measure the gateways in turns. The service takes the spans as well: what it answers is a 2xx."""
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        upstream, port = start_upstream(folder / "upstream", cores)
        stack.enter_context(upstream)
        requests = write_requests(folder, [(f"acme.{BASE_DOMAIN}", "/v1/users")])
        gateways = {}
        for name, sample in SAMPLES.items():
            url = f"http://127.0.0.1:{port}"
            extra = "" if sample is None else f'[tracing]\nendpoint = "{url}"\nsample = {sample}\n'
            gateway = Gateway(folder / name, cores, port, routes=("/v1/users",), extra=extra)
            gateways[name] = stack.enter_context(gateway)
            gateway.wait_until_ready()
            saturate(gateway, cores, requests, 1)
            gateway.move_children(cores.load)
        for _ in range(options.rounds):
            for name, gateway in gateways.items():
                full = saturate(gateway, cores, requests, options.seconds)
                yield name, {**full, "full_us": full["cpu_us"], **pace(gateway, cores, folder, options.seconds)}
        for name in ("0.01", "all"):
            exported = gateways[name].gauge("spans_exported_total")
            if not exported:
                raise MeasurementError("no span was exported")
            print(f"{name}: {exported:,.0f} spans exported")


def compare(options: argparse.Namespace, cores: Cores) -> bool:
    """Measure, print, and say whether the mark holds."""
    rows: dict[str, list[Row]] = {name: [] for name in SAMPLES}
    for name, row in rounds(options, cores):
        rows[name].append(row)
        full = f"{row['rps']:8,.0f} req/s, {row['full_us']:5.1f} us each, {row['busy']:4.0%} busy"
        print(f"{name:8} {full}; paced: p50 {row['p50']:.2f} p99 {row['p99']:.2f} ms, {row['cpu_us']:5.1f} us each")
    holds = True
    for name in ("0.01", "all"):
        pairs = list(zip(rows[name], rows["without"], strict=True))
        cost = statistics.median(traced["full_us"] / plain["full_us"] for traced, plain in pairs)
        latency = statistics.median(traced["p99"] / plain["p99"] for traced, plain in pairs)
        print(f"sample {name}: {cost:.2f} times the processor time for a request,")
        print(f"{latency:.2f} times the 99th percentile at 2,000 requests a second (mark: {MOST_LATENCY} at most)")
        holds = holds and latency <= MOST_LATENCY
    return holds


def main() -> int:
    """Parse the command line, measure, print; 1 if the mark does not hold, 2 if there is no figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    try:
        return 0 if compare(options, Cores()) else 1
    except MeasurementError as error:
        print(f"tracing: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
