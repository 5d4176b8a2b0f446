"""The report of a soak, one page of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tests.soak.run import Result


def written(results: Sequence[Result]) -> str:
    """The page for these soaks."""
    return "\n".join(line for result in results for line in _part(result))


def _part(result: Result) -> Iterable[str]:
    plan, ledger = result.plan, result.stage.ledger
    shape = f"{plan.workers} workers" if plan.workers > 1 else "a single process"
    yield f"## {plan.connections} connections, {result.seconds:.0f} s, {shape}"
    yield ""
    yield "| what | count |"
    yield "|---|---|"
    yield from _rows("right answers: ", ledger.right)
    yield from _rows("unlike a well-behaved client: ", ledger.rude)
    yield from _rows("excused, ", ledger.excused)
    yield f"| failures | {ledger.failed} |"
    yield from _rows("", result.faults)
    for when, size in result.memory.items():
        yield f"| MiB of the oldest process {when} | {size:.1f} |"
    yield ""
    if not result.broken:
        yield "Every check holds."
    for each in result.broken:
        yield f"- BROKEN: {each}"
    yield ""


def _rows(before: str, counts: Mapping[str, int]) -> Iterable[str]:
    for name in sorted(counts):
        yield f"| {before}{name} | {counts[name]} |"
