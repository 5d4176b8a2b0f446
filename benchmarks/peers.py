"""Measures the gateway beside what a user would take instead, and prints the table of docs/performance.md.

    python benchmarks/peers.py [--peers go,nginx,...] [--cases tls,plain,...] [--rounds N] [--seconds N] [--json FILE]
                               [--check]

All servers are started once, each on the one core of the server under test with one thread; load and service have the
others. Rounds take turns between the servers, a figure is the median of its rounds, and a ratio the median of the
ratios taken round by round: above 1 the gateway is ahead. A second table has the server's processor time for each
request, which other work on the machine distorts less. What is not installed is left out, with a line that says what
would bring it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Final

from load import Sample
from peer_cases import CASES, Case, check
from peer_load import settle_tls
from peer_servers import KINDS, OURS, Bench, Kind, Peer
from scale import circumstances
from servers import Cores, MeasurementError, allow_descriptors, find

_DESCRIPTORS: Final = 20_000
# What a machine's other work distorts least: processor time for each request.
COST: Final = "cpu_us"


class Results:
    """For each case and server one sample a round, in the order of the rounds."""

    def __init__(self) -> None:
        self._samples: dict[str, dict[str, list[Sample]]] = {}

    def add(self, case: Case, kind: Kind, sample: Sample) -> None:
        """One more round."""
        self._samples.setdefault(case.name, {}).setdefault(kind.name, []).append(sample)

    def figures(self, case: Case, name: str, what: str = "") -> list[float]:
        """Round by round what the case shows, or something else that was measured; empty when there is none."""
        samples = self._samples.get(case.name, {}).get(name, [])
        return [sample[what or case.figure] for sample in samples if (what or case.figure) in sample]

    def ratio(self, case: Case, name: str, what: str = "") -> float | None:
        """The median of the ratios round by round."""
        pairs = list(zip(self.figures(case, OURS, what), self.figures(case, name, what), strict=False))
        ratio = (lambda ours, theirs: theirs / ours) if what == COST else case.ratio
        return median(ratio(*pair) for pair in pairs) if pairs else None

    def table(self, names: list[str], what: str = "") -> str:
        """The table as Markdown, of what the cases show or of something else that was measured."""
        peers = [name for name in names if name != OURS]
        rows = [["case", "unit", *names, *(f"x {name}" for name in peers)]]
        for case in CASES:
            shown = [self.figures(case, name, what) for name in names]
            if any(shown):
                ratios = [self.ratio(case, name, what) for name in peers]
                cells = [_shown(median(figures)) if figures else "-" for figures in shown]
                unit = "us" if what == COST else case.unit
                rows.append([case.name, unit, *cells, *("-" if each is None else f"{each:.2f}" for each in ratios)])
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        lines.insert(1, "|" + "|".join(["---"] * 2 + ["---:"] * (len(rows[0]) - 2)) + "|")
        return "\n".join(lines)

    def json(self, names: list[str], options: argparse.Namespace) -> str:
        """Everything, for other programs."""
        cases = [
            {
                "case": case.name,
                "unit": case.unit,
                "median": {name: median(self.figures(case, name)) for name in self._samples[case.name]},
                "ratio": {name: self.ratio(case, name) for name in self._samples[case.name] if name != OURS},
                "rounds": self._samples[case.name],
            }
            for case in CASES
            if case.name in self._samples
        ]
        settings = {"rounds": options.rounds, "seconds": options.seconds, "load": _load()}
        return json.dumps(
            {"measured": circumstances(), **settings, "peers": _versions(names), "cases": cases}, indent=1
        )


def _shown(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 1000 else f"{figure:.3g}"


def _load() -> str:
    return ", ".join(tool if shutil.which(tool) else f"own instead of {tool}" for tool in ("wrk", "h2load"))


def _versions(names: list[str]) -> dict[str, str]:
    """What each peer says of its version, in one line."""
    return {name: _version(KINDS[name]) for name in names}


def _version(kind: Kind) -> str:
    if kind.name == OURS:
        return version(OURS)
    word = "-v" if kind.name in ("nginx", "haproxy") else "version"
    done = subprocess.run([str(find(kind.program)), word], capture_output=True, text=True, timeout=60)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].strip() if lines else ""


def measure(bench: Bench, peers: list[Peer], cases: list[Case], options: argparse.Namespace) -> Results:
    """Every case of every round; a first, short round only warms the servers up."""
    results = Results()
    rounds = [_rows(case, cases) for case in cases if not case.after and case is _rows(case, cases)[0]]
    for number in range(options.rounds + 1):
        # To and fro, so that what drifts within a round drifts both ways.
        order = peers if number % 2 else peers[::-1]
        for rows in rounds:
            named = ", ".join(row.name for row in rows)
            print(
                f"  round {number} of {options.rounds}: {named}" if number else f"  to warm up: {named}",
                file=sys.stderr,
            )
            for peer in order:
                _measure(bench, peer, rows, options.seconds if number else 1, results if number else None)
    for case in (case for case in cases if case.after):
        for peer in peers:
            _measure(bench, peer, [case], options.seconds, results)
    return results


def _rows(case: Case, cases: list[Case]) -> list[Case]:
    """All that is read off one measurement."""
    return [other for other in cases if other.measure is case.measure]


def _measure(bench: Bench, peer: Peer, rows: list[Case], seconds: int, results: Results | None) -> None:
    if not rows[0].of(peer.kind):
        return
    try:
        sample = rows[0].measure(bench, peer, seconds)
    except MeasurementError as error:
        raise MeasurementError(f"{rows[0].name} of {peer.kind.name}: {error}") from None
    for row in rows if results is not None else ():
        results.add(row, peer.kind, sample)


def run(kinds: list[Kind], cases: list[Case], options: argparse.Namespace) -> None:
    """Start all, see that they do the same, measure, print."""
    names = [kind.name for kind in kinds]
    if not options.check:
        allow_descriptors(_DESCRIPTORS, least=1024)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="koder-gateway-peers-")))
        bench = Bench(folder, stack, Cores(measuring=not options.check))
        peers = [bench.start(kind) for kind in kinds]
        for peer in peers:
            check(peer)
        if options.check:
            print(f"each does what is measured: {', '.join(names)}")
            return
        os.sched_setaffinity(0, {int(core) for core in bench.cores.load.split(",")})
        settle_tls(folder)
        results = measure(bench, peers, cases, options)
    print(results.table(names))
    if any(results.figures(case, name, COST) for case in cases for name in names):
        print(f"\nThe server's processor time for each request:\n\n{results.table(names, COST)}")
    if options.json:
        options.json.write_text(results.json(names, options) + "\n")


def _chosen(parser: argparse.ArgumentParser, what: str, words: str, known: list[str]) -> list[str]:
    chosen = [word for word in words.split(",") if word]
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        parser.error(f"no such {what}: {', '.join(unknown)}; there are {', '.join(known)}")
    return [name for name in known if name in chosen]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    peers, cases = [name for name in KINDS if name != OURS], [case.name for case in CASES]
    parser.add_argument("--peers", default=",".join(peers), help="default: %(default)s")
    parser.add_argument("--cases", default=",".join(cases), help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of a case of one server in one round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every figure there")
    parser.add_argument(
        "--check", action="store_true", help="start them and ask once for everything, measure nothing"
    )
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds < 1:
        parser.error("there is at least one round, of one second")
    options.peers = [OURS, *_chosen(parser, "peer", options.peers, peers)]
    options.cases = _chosen(parser, "case", options.cases, cases)
    return options


def main() -> int:
    """Parse the command line, say what is left out, measure."""
    options = _options()
    # Ended from outside, it ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    kinds = [KINDS[name] for name in options.peers]
    cases = [case for case in CASES if case.name in options.cases]
    for left in (*kinds, *([] if options.check else cases)):
        if why := left.missing():
            print(why, file=sys.stderr)
    try:
        run([kind for kind in kinds if not kind.missing()], [case for case in cases if not case.missing()], options)
    except MeasurementError as error:
        print(f"peers: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
