"""What requests notice of a thousand new domains that all need certificates at once.

    python benchmarks/acme_domains.py [--domains N] [--rate N] [--seconds N] [--rounds N]

A gateway serves 2,000 requests a second: at first in quiet, then while its registry has gained the domains and
Pebble, a real ACME authority, issues their certificates. The process that orders them shares the gateway's
processor, which is the worst case; authority, load and service have the others. Orders must stay within the rate,
and the 99th percentile within its mark. Needs nginx, h2load, pebble and koder-gateway[acme].
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from load import Sample, pace
from servers import Cores, Gateway, MeasurementError, find, free_port, start_upstream

if TYPE_CHECKING:
    from tests.kit.pebble import Pebble

# The mark: the 99th percentile beside the orders at most so many times that in quiet.
MOST_LATENCY = 1.25
# Seconds in which the first order must be there.
_PATIENCE = 60
_ACME = """\
[acme]
directory = "{directory}"
ca = "{ca}"
accept_terms = true
resolver = "{resolver}"
check_port = {port}
rate = {rate}

"""
_ORDERED = "POST /order-plz -> calling handler()"


def start_authority(folder: Path, port: int, stack: ExitStack) -> tuple[Pebble, str]:
    """Pebble, which looks at this port, and the name server that leads every name here."""
    # They are those of the tests.
    sys.path.append(str(Path(__file__).parents[1]))
    from tests.kit.name_server import NameServer
    from tests.kit.pebble import Pebble

    names = stack.enter_context(NameServer("127.0.0.1"))
    return stack.enter_context(Pebble(folder, names, tls_port=port)), names.address


def write_tenants(path: Path, domains: int) -> None:
    """A registry with the tenant of the load, and one for each domain."""
    lines = ['[[tenant]]\nslug = "acme"\n']
    lines += [f'[[tenant]]\nslug = "t{number}"\ndomains = ["login.t{number}.example"]\n' for number in range(domains)]
    new = path.with_suffix(".new")
    new.write_text("\n".join(lines))
    new.replace(path)


def ordered(authority: Pebble) -> int:
    """How many orders the authority has had."""
    return authority.log().count(_ORDERED)


def measure(options: argparse.Namespace, cores: Cores) -> bool:
    """Measure, print, and say whether both marks hold."""
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        upstream, port = start_upstream(folder / "upstream", cores)
        stack.enter_context(upstream)
        tls_port = free_port()
        authority, resolver = start_authority(folder / "authority", tls_port, stack)
        authority.run_on(set(map(int, cores.load.split(","))))
        write_tenants(folder / "tenants.toml", 0)
        extra = _ACME.format(
            directory=authority.directory, ca=authority.ca, resolver=resolver, port=tls_port, rate=options.rate
        )
        registry = str(folder / "tenants.toml")
        gateway = Gateway(
            folder / "gateway", cores, port, routes=("/v1/users",), registry=registry, extra=extra, tls_port=tls_port
        )
        stack.enter_context(gateway)
        gateway.wait_until_ready()
        pace(gateway, cores, folder, 1)
        quiet = [pace(gateway, cores, folder, options.seconds) for _ in range(options.rounds)]
        write_tenants(folder / "tenants.toml", options.domains)
        gateway.reload()
        _wait_for_orders(authority)
        busy = []
        most = min(options.rate, options.domains)
        began = time.monotonic()
        while len(busy) < options.rounds and (before := ordered(authority)) < most:
            busy.append(pace(gateway, cores, folder, options.seconds))
            print(f"{ordered(authority) - before} orders beside it; {_said(busy[-1])}")
        took = time.monotonic() - began
        total = ordered(authority)
        return _judge(quiet, busy, total, took, options)


def _wait_for_orders(authority: Pebble) -> None:
    ends = time.monotonic() + _PATIENCE
    while not ordered(authority):
        if time.monotonic() > ends:
            raise MeasurementError("no certificate was ordered")
        time.sleep(0.1)


def _said(sample: Sample) -> str:
    return f"p50 {sample['p50']:.2f} p99 {sample['p99']:.2f} ms, {sample['cpu_us']:.1f} us each"


def _judge(quiet: list[Sample], busy: list[Sample], total: int, took: float, options: argparse.Namespace) -> bool:
    for sample in quiet:
        print(f"quiet: {_said(sample)}")
    if not busy:
        raise MeasurementError("all orders were over before anything was measured; raise --rate")
    latency = statistics.median(each["p99"] for each in busy) / statistics.median(each["p99"] for each in quiet)
    print(f"{options.domains} new domains: {total} orders in {took:.0f} s (mark: {options.rate} an hour at most),")
    print(f"{latency:.2f} times the 99th percentile at 2,000 requests a second (mark: {MOST_LATENCY} at most)")
    return total <= options.rate and latency <= MOST_LATENCY


def main() -> int:
    """Parse the command line, measure, print; 1 if a mark does not hold, 2 if there is no figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--domains", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=200, help="orders an hour, acme.rate")
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    try:
        if find("pebble") is None:
            raise MeasurementError("pebble is not installed; apt-get install pebble")
        return 0 if measure(options, Cores()) else 1
    except MeasurementError as error:
        print(f"acme_domains: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
