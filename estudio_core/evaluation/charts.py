"""Geometry of the report's charts: pure functions from figures to SVG coordinates, drawn by the template."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from estudio_core.evaluation.report_data import Curve, QueryChange

_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 12.0, 10.0, 24.0  # room for labels, in SVG units


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """A series: an SVG path, its last point, and which colour it takes."""

    name: str
    path: str
    end: tuple[float, float]
    last: str


@dataclass(frozen=True)
class LineChart:
    """A chart of one or more lines."""

    title: str
    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class Bar:
    """A bar from the zero line: x, y, width, height, and whether it is a loss."""

    x: float
    y: float
    width: float
    height: float
    loss: bool
    label: str


@dataclass(frozen=True)
class BarChart:
    """Bars around a zero line at `zero`; `gain` and `loss` label the ends of the scale."""

    width: float
    height: float
    zero: float
    bars: tuple[Bar, ...]
    gain: str
    loss: str


@dataclass(frozen=True)
class Scale:
    """A linear map from values to coordinates.

    >>> Scale(0.0, 2.0, 10.0, 110.0)(0.5)
    35.0
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the coordinate of a value."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about `count` round numbers that enclose [low, high].

    >>> nice_ticks(0.03, 0.41)
    [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    >>> nice_ticks(2.0, 2.0)
    [1.5, 2.0, 2.5]
    """
    if not high > low:
        low, high = low - 0.5, high + 0.5
        count = 2
    rough = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = min((m * magnitude for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - rough))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def line_chart(curve: Curve, width: float = 440.0, height: float = 210.0) -> LineChart | None:
    """Lay out a training curve; None where it has no point."""
    series = [(series.name, series.points) for series in curve.series if series.points]
    if not series:
        return None
    xs = [x for _, points in series for x, _ in points]
    y_ticks = nice_ticks(min(y for _, p in series for _, y in p), max(y for _, p in series for _, y in p), 4)
    whole = all(float(x).is_integer() for x in xs)  # steps, releases: there is nothing between them
    x_ticks = [
        tick
        for tick in nice_ticks(min(xs), max(xs), 5)
        if min(xs) <= tick <= max(xs) and (float(tick).is_integer() or not whole)
    ]
    high = max(xs) if max(xs) > min(xs) else min(xs) + 1.0
    x_of = Scale(min(xs), high, _LEFT, width - _RIGHT)
    y_of = Scale(y_ticks[0], y_ticks[-1], height - _BOTTOM, _TOP)
    lines = tuple(
        Line(
            name,
            "M" + " L".join(f"{x_of(x)},{y_of(y)}" for x, y in points),
            (x_of(points[-1][0]), y_of(points[-1][1])),
            number(points[-1][1]),
        )
        for name, points in series
    )
    return LineChart(
        title=curve.title,
        width=width,
        height=height,
        left=_LEFT,
        right=width - _RIGHT,
        top=_TOP,
        bottom=height - _BOTTOM,
        lines=lines,
        x_ticks=tuple(Tick(x_of(tick), number(tick)) for tick in x_ticks),
        y_ticks=tuple(Tick(y_of(tick), number(tick)) for tick in y_ticks),
    )


def change_bars(
    queries: Sequence[QueryChange], most_gain: float, most_loss: float, width: float = 440.0, height: float = 130.0
) -> BarChart | None:
    """Lay out one bar per query, the greatest gain first; None for no queries.

    Args:
        queries: The queries of one group.
        most_gain: Upper end of the scale, the same for all groups, at least 0.
        most_loss: Lower end, at least 0, as a positive number.
        width: Of the chart, in SVG units.
        height: Of the chart.
    """
    if not queries:
        return None
    ordered = sorted(queries, key=lambda query: (-query.change, query.query))
    span = (most_gain + most_loss) or 1.0
    slot, per_unit = width / len(ordered), (height - 8.0) / span
    zero = round(4.0 + (most_gain if most_gain + most_loss else 0.5) * per_unit, 2)
    bars = []
    for place, query in enumerate(ordered):
        size = abs(query.change) * per_unit
        loss = query.change < 0
        bars.append(
            Bar(
                x=round(place * slot + slot * 0.1, 2),
                y=round(zero if loss else zero - size, 2),
                width=round(slot * 0.8, 2),
                height=round(max(size, 0.5), 2),
                loss=loss,
                label=f"{query.query}: {query.before:.3f} to {query.after:.3f}",
            )
        )
    return BarChart(width, height, zero, tuple(bars), f"{most_gain:+.2f}", f"{-most_loss:+.2f}")


def number(value: float) -> str:
    """Return a short label of a number.

    >>> number(0.25), number(1200.0), number(0.00004), number(3.0)
    ('0.25', '1,200', '4e-05', '3')
    """
    if value == 0 or 1e-3 <= abs(value) < 1e3:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1e3 else f"{value:.0e}"
