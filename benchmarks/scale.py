"""Measures whether the gateway stays as fast as what it serves grows, and draws it.

    python benchmarks/scale.py [--quick] [--curves tenants,routes,...] [--out docs/plots]

Gateways of all sizes run side by side on one core, the load (wrk, h2load) and the service behind them (nginx) on the
others. Rounds take turns between the sizes, and a figure is the median of the ratios to the smallest size taken round
by round: what else the machine does at the time weighs on both. Needs nginx, wrk and nghttp2-client (Debian's names)
and ends with 1 when a curve leaves its bound.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

from curves import CURVES, Bed, Curve
from load import Sample
from plot import Series, chart
from servers import MeasurementError, allow_descriptors

_DESCRIPTORS: Final = 20_000
_TOOLS: Final = {"nginx": "nginx", "wrk": "wrk", "h2load": "nghttp2-client", "taskset": "util-linux"}
_NAMES: Final = {"rps": "req/s", "p99": "p99", "p50": "p50"}
_SHOWN: Final = {"rps": "{:,.0f}/s", "cpu_us": "{:.1f} us CPU", "busy": "{:.2f} busy", "p50": "p50 {:.2f} ms"}
_SHOWN_P99: Final = "p99 {:.2f} ms"


# Many short rounds: those that are compared lie close together in time.
FULL: Final = 15
QUICK: Final = 2


class Result:
    """What was measured of one curve: for each size one sample a round."""

    def __init__(self, curve: Curve, sizes: tuple[int, ...]) -> None:
        self.curve = curve
        self.sizes = sizes
        self.samples: dict[int, list[Sample]] = {size: [] for size in sizes}

    def ratios(self, metric: str, size: int) -> tuple[float, ...]:
        """Round by round, a size's figure as a multiple of the first size's."""
        pairs = zip(self.samples[size], self.samples[self.sizes[0]], strict=True)
        return tuple(own[metric] / first[metric] for own, first in pairs)

    def ratio(self, size: int) -> float:
        """The ratio that counts."""
        return median(self.ratios(self.curve.metric, size))

    def kept(self) -> bool:
        """Whether the whole curve is within its bound."""
        return all(self.curve.keeps(self.ratio(size)) for size in self.sizes)

    def medians(self, size: int) -> Sample:
        """Each figure's median over the rounds."""
        return {name: median(sample[name] for sample in self.samples[size]) for name in self.samples[size][0]}

    def table(self) -> str:
        """A line for each size."""
        lines = [f"{self.curve.title} (bound {self.curve.bound:g}: {'kept' if self.kept() else 'NOT KEPT'})"]
        for size in self.sizes:
            shown = (_shown(name, value) for name, value in self.medians(size).items())
            lines.append(f"{size:>12,}{self.ratio(size):>8.3f}  " + "".join(f"{text:>16}" for text in shown))
        return "\n".join(lines)

    def figures(self) -> dict[str, Any]:
        """Everything, for JSON."""
        metrics = self.medians(self.sizes[0])
        return {
            "metric": self.curve.metric,
            "bound": self.curve.bound,
            "sizes": [
                {
                    self.curve.axis: size,
                    "median": _rounded(self.medians(size)),
                    "ratio": _rounded({name: median(self.ratios(name, size)) for name in metrics}),
                    "rounds": [_rounded(sample) for sample in self.samples[size]],
                }
                for size in self.sizes
            ],
        }

    def plot(self) -> str:
        """The curve as SVG."""
        names = (self.curve.metric, *self.curve.also)
        series = tuple(Series(_NAMES[name], tuple(self.ratios(name, size) for size in self.sizes)) for name in names)
        return chart(self.curve.title, self.curve.axis, self.sizes, series, self.curve.bound)


def _shown(name: str, value: float) -> str:
    return _SHOWN.get(name, _SHOWN_P99).format(value)


def _rounded(sample: Sample) -> Sample:
    return {name: float(f"{value:.4g}") for name, value in sample.items()}


def measure(curve: Curve, sizes: tuple[int, ...], rounds: int) -> Result:
    """Start a gateway for each size, then measure them in turn; the first round only warms them up."""
    result = Result(curve, sizes)
    with ExitStack() as stack:
        bed = Bed(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="koder-gateway-scale-"))), stack)
        measures = {}
        for size in sizes:
            print(f"  {curve.name} {size:,}: starting", file=sys.stderr)
            measures[size] = curve.prepare(bed, size)
        for each in measures.values():
            each(1)
        for number in range(rounds):
            # To and fro, so that what drifts within a round drifts both ways.
            for size in sizes if number % 2 == 0 else reversed(sizes):
                result.samples[size].append(measures[size](curve.seconds))
    return result


def save(results: list[Result], folder: Path) -> None:
    """The plots, and their figures in scale.json; a curve that was not measured keeps those it has there."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "scale.json"
    figures: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    for result in results:
        (folder / f"{result.curve.name}.svg").write_text(result.plot())
        figures[result.curve.name] = {"measured": circumstances(), **result.figures()}
    kept.write_text(json.dumps(figures, indent=1) + "\n")


def circumstances() -> dict[str, str]:
    """The day, the processor and the versions of what the gateway is built on."""
    packages = ("Twisted", "uvloop", "httptools", "pyOpenSSL", "cryptography")
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "on": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": model[0].partition(": ")[2] if model else platform.machine(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds: does it work at all?")
    parser.add_argument("--curves", default=",".join(curve.name for curve in CURVES), help="default: %(default)s")
    parser.add_argument("--out", type=Path, help="where plots and scale.json go; nowhere when not given")
    options = parser.parse_args()
    options.curves = options.curves.split(",")
    unknown = set(options.curves) - {curve.name for curve in CURVES}
    if unknown:
        parser.error(f"no such curve: {', '.join(sorted(unknown))}")
    return options


def main() -> int:
    """Measure, print, draw."""
    options = _options()
    # The servers are ended by the contexts that this leaves.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    missing = [package for tool, package in _TOOLS.items() if shutil.which(tool) is None]
    if missing:
        print(f"missing; on Debian: apt-get install {' '.join(missing)}", file=sys.stderr)
        return 2
    results = []
    try:
        allow_descriptors(_DESCRIPTORS, least=1024 if options.quick else _DESCRIPTORS)
        for curve in CURVES:
            if curve.name in options.curves:
                sizes = curve.quick if options.quick else curve.sizes
                results.append(measure(curve, sizes, QUICK if options.quick else FULL))
                print(results[-1].table(), flush=True)
                if options.out is not None:
                    save(results[-1:], options.out)
    except MeasurementError as error:
        print(error, file=sys.stderr)
        return 2
    return 0 if options.quick or all(result.kept() for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
