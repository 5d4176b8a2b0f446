"""`make soak`: thousands of clients of all kinds, for minutes, while everything around a gateway fails.

    python -m tests.soak [--seconds N] [--connections N] [--workers N,N] [--think S] [--seed N] [--keep FOLDER]

The seconds are shared by the gateways, one after the other, with so many workers each (1: a single process). The end
is a report of one page, and 0 if every check holds.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from pathlib import Path

from tests.soak.report import written
from tests.soak.run import Plan, Result, soak
from tests.soak.stage import Stage


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600.0, help="of all gateways together")
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--workers", default="1,2", help="of each gateway")
    parser.add_argument("--think", type=float, default=4.0, help="mean seconds between two requests of a client")
    parser.add_argument("--seed", type=int, default=1, help="chooses what clients do")
    parser.add_argument("--keep", type=Path, help="a folder for logs and the report, which must not exist")
    return parser.parse_args()


def _run(folder: Path, plan: Plan) -> Result:
    result = None
    try:
        with Stage(folder, plan.workers) as stage:
            result = soak(stage, plan, _say)
    except AssertionError:
        if result is None:
            raise
        # The report comes all the same.
        result.broken.append(f"the gateway has not ended well: {folder / 'gateway.log'}")
    return result


def main() -> int:
    """Run what the command line asks for."""
    options = _options()
    counts = [int(each) for each in options.workers.split(",")]
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    results = []
    with tempfile.TemporaryDirectory() as made:
        folder = options.keep or Path(made) / "soak"
        for workers in counts:
            _say(f"a gateway with {workers} workers" if workers > 1 else "a gateway of a single process")
            plan = Plan(workers, options.connections, options.seconds / len(counts), options.think, seed=options.seed)
            results.append(_run(folder / f"workers-{workers}", plan))
            for each in results[-1].broken:
                _say(f"BROKEN: {each}")
        text = written(results)
        if options.keep:
            (folder / "report.md").write_text(text)
    print(text)
    return int(any(result.broken for result in results))


if __name__ == "__main__":
    sys.exit(main())
