"""What attackers cost the gateway, and what honest clients get beside them, next to Go on the same core.

    python benchmarks/floods.py [--cases WORDS] [--rounds N] [--seconds N] [--attackers 1,10,100] [--no-go]
                                [--json FILE] [--list]

Each case is one attack over one transport. The server under test, started anew for it with the limits that it ships
with, has one processor; attackers, honest clients and the services have the others. Measured are, in this order and
for each server in turns: the processor time of an ordinary served request; p99 of 20 honest clients that nobody
disturbs; and beside 1, 10 and 100 attacking connections that p99 again, the processor time of an attacker's request
and byte (less what the honest clients and the connections themselves cost), and how much memory the process grew by.

The marks are those of `flood_marks.py`; one that is over makes the exit code 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from flood_cases import chosen, described
from flood_errands import Errand
from flood_marks import HEADER, Case, Outcome, judge, lines, over, table
from flood_measuring import Round, measure
from flood_servers import FloodedGateway, Reference, Target, build
from flood_service import serving
from flood_swarm import Attack
from servers import Cores, MeasurementError, allow_descriptors, find


class Bench:
    """Starts servers one after the other and measures each."""

    def __init__(self, folder: Path, cores: Cores, services: tuple[int, int], options: argparse.Namespace) -> None:
        self._folder = folder
        self._cores = cores
        self._services = services
        self._sizes = options.attackers
        self._seconds = options.seconds
        self._rounds = options.rounds
        go = None if options.no_go else options.go
        self._binary = build(folder / "go", go) if go else None
        self._started = 0

    def _servers(self, go: bool) -> Iterator[tuple[str, Target]]:
        self._started += 1
        folder = self._folder / str(self._started)
        yield "gateway", FloodedGateway(folder / "gateway", self._cores, self._services)
        if self._binary is not None and go:
            yield "reference", Reference(folder / "reference", self._cores, self._services, self._binary)

    def run(self, what: Attack | Errand) -> Case | Outcome:
        """Every round of one case."""
        case = Outcome(what) if isinstance(what, Errand) else Case(what)
        for _ in range(self._rounds):
            for name, target in self._servers(what.go):
                with target:
                    target.wait_until_ready()
                    getattr(case, name).append(self._result(target, what))
        return case

    def _result(self, target: Target, what: Attack | Errand) -> Round | int:
        if isinstance(what, Errand):
            return what.run(target.tls_port)
        return measure(target, what, self._sizes, self._cores, self._seconds)


def as_json(cases: list[Case | Outcome]) -> str:
    """Everything that was measured, for other programs."""
    rows = []
    for case in cases:
        row: dict[str, object] = {"case": case.label, "marks": [verdict._asdict() for verdict in judge(case)]}
        if isinstance(case, Outcome):
            row |= {"item": "7", "gateway": case.gateway, "go": case.reference}
        else:
            row |= {"item": case.attack.item, "unit": case.attack.what}
            row |= {"gateway": [dataclasses.asdict(each) for each in case.gateway]}
            row |= {"go": [dataclasses.asdict(each) for each in case.reference]}
        rows.append(row)
    return json.dumps(rows, indent=1)


def run(attacks: list[Attack | Errand], options: argparse.Namespace) -> int:
    """Measure them all; the exit code."""
    cores = Cores()
    # A connection of an attack with streams or tunnels takes many at the service.
    allow_descriptors(16_384, least=1024 if max(options.attackers) < 10 else 16_384)
    done: list[Case | Outcome] = []
    with tempfile.TemporaryDirectory() as temporary, serving(cores, 0) as port, serving(cores, 2) as bulk:
        bench = Bench(Path(temporary), cores, (port, bulk), options)
        os.sched_setaffinity(0, {int(core) for core in cores.load.split(",")})
        print(HEADER, flush=True)
        for attack in attacks:
            try:
                case = bench.run(attack)
            except MeasurementError as error:
                raise MeasurementError(f"{described(attack)[1]}: {error}") from None
            done.append(case)
            print("\n".join(lines(case)), flush=True)
            if options.json:
                options.json.write_text(as_json(done))
    print("\n" + "\n".join(table(done)))
    count = over(done)
    print(f"{count} marks are over" if count else "every mark holds")
    return 1 if count else 0


def main() -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words = lambda text: [word for word in text.split(",") if word]  # noqa: E731
    parser.add_argument("--cases", type=words, default=[], help="names, transports or items, by commas; default: all")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each flood")
    parser.add_argument("--attackers", type=lambda text: list(map(int, words(text))), default=[1, 10, 100])
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every figure there")
    parser.add_argument("--go", default=find("go"), metavar="PATH", help="Go's compiler")
    parser.add_argument("--no-go", action="store_true", help="measure the gateway alone")
    parser.add_argument("--list", action="store_true", help="say what cases there are")
    options = parser.parse_args()
    # Ended from outside, it ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        attacks = chosen(options.cases)
        if options.list:
            print("\n".join("{:<8}{}".format(*described(attack)) for attack in attacks))
            return 0
        return run(attacks, options)
    except (MeasurementError, ValueError) as error:
        print(f"floods: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
