"""Plots as SVG, by hand: ratios to the first of a few sizes, each round's as a dot, their medians as a line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Final
from xml.sax.saxutils import escape

_WIDTH: Final = 640
_HEIGHT: Final = 360
# The plot itself: where it begins and ends.
_LEFT, _END, _TOP, _BASE = 56, 584, 66, 302
_INK, _FAINT, _GRID, _LIMIT = "#24292f", "#6e7781", "#e4e8ec", "#cf222e"
_FONT: Final = 'font-family="system-ui, sans-serif"'
_COLOURS: Final = ("#0969da", "#bf8700")


@dataclass(frozen=True, slots=True)
class Series:
    """One line: its name, and for each size the ratios of all rounds."""

    name: str
    rounds: tuple[tuple[float, ...], ...]


class _Frame:
    """Where sizes and ratios lie on the page."""

    def __init__(self, sizes: tuple[int, ...], highest: float) -> None:
        self.sizes = sizes
        self.step = 0.2 if highest < 1.8 else 0.5
        self.ticks = int(highest * 1.04 / self.step) + 1

    def across(self, index: int) -> float:
        return _LEFT + 40 + index * (_END - _LEFT - 80) / max(1, len(self.sizes) - 1)

    def up(self, ratio: float) -> float:
        return _BASE - ratio / (self.ticks * self.step) * (_BASE - _TOP)

    def axes(self, axis: str) -> Iterator[str]:
        """Grid, ticks and what they are called."""
        for tick in range(self.ticks + 1):
            y = self.up(tick * self.step)
            yield f'<path d="M{_LEFT} {y:.1f}H{_END}" stroke="{_GRID if tick else _FAINT}"/>'
            yield _text(_LEFT - 8, y + 4, f"{tick * self.step:.1f}", _FAINT, "end")
        for index, size in enumerate(self.sizes):
            yield _text(self.across(index), _BASE + 20, f"{size:,}", anchor="middle")
        yield _text((_LEFT + _END) / 2, _HEIGHT - 14, axis, _FAINT, "middle")

    def limit(self, bound: float) -> Iterator[str]:
        """The bound, named on the side where no ratio may be."""
        y = self.up(bound)
        name, below = (f"at least {bound:g}", 16) if bound < 1 else (f"at most {bound:g}", -6)
        yield f'<path d="M{_LEFT} {y:.1f}H{_END}" stroke="{_LIMIT}" stroke-dasharray="5 4"/>'
        yield _text(_END, y + below, name, _LIMIT, "end")

    def line(self, series: Series, colour: str, offset: int) -> Iterator[str]:
        """The dots of all rounds, and the medians with their figures, `offset` below them."""
        points = [(self.across(index), self.up(median(rounds))) for index, rounds in enumerate(series.rounds)]
        for (x, _), rounds in zip(points, series.rounds, strict=True):
            dots = (f'<circle cx="{x:.1f}" cy="{self.up(ratio):.1f}" r="2.5"/>' for ratio in rounds)
            yield f'<g fill="{colour}" fill-opacity=".3">{"".join(dots)}</g>'
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        yield f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        for (x, y), rounds in zip(points, series.rounds, strict=True):
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
            yield _text(x, y + offset, f"{median(rounds):.2f}", colour, "middle", weight=600)
        yield _text(_END + 6, points[-1][1] + 4, series.name, colour, weight=600)


def chart(title: str, axis: str, sizes: tuple[int, ...], series: tuple[Series, ...], bound: float) -> str:
    """An SVG document of one or two lines. `axis` names what the sizes count; `bound` is the ratios' limit."""
    frame = _Frame(sizes, max(bound, *(ratio for line in series for each in line.rounds for ratio in each)))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" {_FONT} role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" rx="6" fill="#fff"/>',
        _text(_LEFT, 28, title, size=16, weight=600),
        _text(_LEFT, 46, f"as a multiple of that with {sizes[0]:,} {axis}; dots are single rounds", _FAINT),
        *frame.axes(axis),
        *frame.limit(bound),
    ]
    # Of two lines the second has its figures below it.
    for line, colour, offset in zip(series, _COLOURS, (-12, 20), strict=False):
        parts += frame.line(line, colour, offset)
    return "\n".join([*parts, "</svg>\n"])


def _text(
    x: float, y: float, content: str, colour: str = _INK, anchor: str = "start", *, size: int = 13, weight: int = 400
) -> str:
    style = f'fill="{colour}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(content)}</text>'
