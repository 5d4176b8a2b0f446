"""The figures of docs/score.md, from what the benchmarks have kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
# What `--json` of benchmarks/peers.py and benchmarks/floods.py wrote, and what benchmarks/scale.py draws.
PEERS: Final = ROOT / "benchmarks" / "kept" / "peers.json"
FLOODS: Final = ROOT / "benchmarks" / "kept" / "floods.json"
SCALE: Final = ROOT / "docs" / "plots" / "scale.json"

_OURS: Final = "koder-gateway"
_INTRODUCTION: Final = """
## Figures of this release

From what the benchmarks kept last: `make bench-peers PEERS="--json benchmarks/kept/peers.json"`, the same for
`make bench-floods FLOODS=...`, and `make bench-scale`. [performance.md](performance.md) says how they measure, and
has figures of quiet machines. Compare ratios, not absolute figures.
"""


def figures() -> str:
    """The chapter with the figures."""
    return _INTRODUCTION + "".join([*_peers(), *_floods(), *_scale()])


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _where(measured: dict[str, str]) -> str:
    parts = [f"{name} {measured[name]}" for name in ("Twisted", "uvloop", "pyOpenSSL", "cryptography")]
    return f"Measured on {measured['on']}, {measured['processor']}, Python {measured['python']}, {', '.join(parts)}."


def _peers() -> Iterator[str]:
    """Processor time for a request or a connection, which other work on the machine distorts least."""
    if not PEERS.exists():
        yield "\n### Beside other gateways\n\nNo run of `make bench-peers` is kept.\n"
        return
    kept = _read(PEERS)
    names = [name for name in kept["peers"] if name != _OURS]
    yield f"\n### Beside other gateways\n\n{_where(kept['measured'])}\n"
    yield "The server's processor time in microseconds, for each request or connection; a ratio above 1: the\n"
    yield f"gateway needs less. {kept.get('note', '')}".rstrip() + "\n\n"
    yield f"| case | {_OURS} | {' | '.join(names)} | {' | '.join(f'x {name}' for name in names)} |\n"
    yield f"|---|{'---:|' * (1 + 2 * len(names))}\n"
    for case in kept["cases"]:
        rounds = {name: _costs(case["rounds"].get(name, [])) for name in kept["peers"]}
        ours = rounds[_OURS]
        if ours:
            shown = [_number(median(rounds[name])) if rounds[name] else "-" for name in names]
            ratios = [_ratio(rounds[name], ours) for name in names]
            yield f"| {case['case']} | {_number(median(ours))} | {' | '.join(shown)} | {' | '.join(ratios)} |\n"


def _costs(rounds: list[dict[str, float]]) -> list[float]:
    return [each["cpu_us"] for each in rounds if "cpu_us" in each]


def _ratio(theirs: list[float], ours: list[float]) -> str:
    pairs = [other / own for other, own in zip(theirs, ours, strict=False)]
    return f"{median(pairs):.2f}" if pairs else "-"


def _floods() -> Iterator[str]:
    """Which marks each attack was held to, and which of them it is over."""
    if not FLOODS.exists():
        yield "\n### Under attack\n\nNo run of `make bench-floods` is kept.\n"
        return
    rows = _read(FLOODS)
    marks = [(row["case"], mark) for row in rows for mark in row["marks"]]
    over = [(case, mark) for case, mark in marks if not mark["holds"]]
    yield f"\n### Under attack\n\n{len(rows)} attacks; of {len(marks)} marks {len(marks) - len(over)} hold.\n"
    if over:
        yield "\n| attack | seen | allowed |\n|---|---|---|\n"
        yield from (f"| {case} | {mark['mark']}: {mark['seen']} | {mark['allowed']} |\n" for case, mark in over)


def _scale() -> Iterator[str]:
    """How the largest size compares with the smallest."""
    kept = _read(SCALE)
    yield f"\n### As it grows\n\n{_where(next(iter(kept.values()))['measured'])}\n\n"
    yield "| what grows | from | to | metric | ratio | bound |\n|---|---:|---:|---|---:|---:|\n"
    for curve in kept.values():
        first, last = curve["sizes"][0], curve["sizes"][-1]
        label = next(key for key in first if key not in ("median", "ratio", "rounds"))
        metric = curve["metric"]
        ends = f"{first[label]:,} | {last[label]:,}"
        yield f"| {label} | {ends} | {metric} | {last['ratio'][metric]:.2f} | {curve['bound']} |\n"
