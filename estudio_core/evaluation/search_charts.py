"""Geometry of the plot of a search: the course of every trial, and what each parameter did to the metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from estudio_core.evaluation.charts import LineChart, Scale, Tick, line_chart, nice_ticks, number
from estudio_core.evaluation.report_data import Curve, SearchedTrial, Series

_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 12.0, 10.0, 24.0  # room for labels, in SVG units
_LOGARITHMIC_FROM = 20.0
"""Largest value by the smallest from which a scale counts by factors, as learning rates do."""
_LABELS = 6
"""Most labels below an axis."""


@dataclass(frozen=True)
class Dot:
    """A trial in a chart: where it is, what it says, and whether it is the best or was ended early."""

    x: float
    y: float
    label: str
    best: bool
    early: bool


@dataclass(frozen=True)
class DotChart:
    """A parameter of the search against the metric."""

    title: str
    width: float
    height: float
    left: float
    right: float
    bottom: float
    dots: tuple[Dot, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def course_chart(trials: Sequence[SearchedTrial], metric: str) -> LineChart | None:
    """Lay out the metric of every trial over its steps, the best trial last, so that it lies on top; None without one.

    The best trial's line is named `best`, whatever the name of the trial.
    """
    ordered = sorted((trial for trial in trials if trial.course), key=lambda trial: trial.best)
    names = ["best" if trial.best else trial.name for trial in ordered]
    series = tuple(Series(name=name, points=trial.course) for name, trial in zip(names, ordered, strict=True))
    return line_chart(Curve(title=metric, series=series))


def parameter_charts(
    trials: Sequence[SearchedTrial], metric: str, width: float = 300.0, height: float = 180.0
) -> list[DotChart]:
    """Lay out one chart for each parameter of which the trials had more than one value, in the order of their names.

    Numbers stand on a linear scale, or a logarithmic one where they span much; other values side by side.

    Args:
        trials: Of a search; those without a value are left out.
        metric: What the trials were compared by, for the labels.
        width: Of a chart, in SVG units.
        height: Of a chart.
    """
    measured = [(trial, trial.value) for trial in trials if trial.value is not None and math.isfinite(trial.value)]
    charts = []
    for name in sorted({name for trial, _ in measured for name in trial.parameters}):
        with_it = [(trial, value) for trial, value in measured if name in trial.parameters]
        shown = [trial.parameters[name] for trial, _ in with_it]
        if len(set(shown)) < 2:
            continue
        y_ticks = nice_ticks(min(value for _, value in with_it), max(value for _, value in with_it), 4)
        y_of = Scale(y_ticks[0], y_ticks[-1], height - _BOTTOM, _TOP)
        places, x_ticks = _axis(shown, _LEFT, width - _RIGHT)
        charts.append(
            DotChart(
                title=name,
                width=width,
                height=height,
                left=_LEFT,
                right=width - _RIGHT,
                bottom=height - _BOTTOM,
                dots=tuple(
                    Dot(
                        places[trial.parameters[name]],
                        y_of(value),
                        f"{trial.name}: {name} {trial.parameters[name]}, {metric} {value:.4f}",
                        trial.best,
                        trial.status == "stopped early",
                    )
                    for trial, value in sorted(with_it, key=lambda pair: pair[0].best)
                ),
                x_ticks=x_ticks,
                y_ticks=tuple(Tick(y_of(tick), number(tick)) for tick in y_ticks),
            )
        )
    return charts


def _axis(shown: Sequence[str], start: float, end: float) -> tuple[dict[str, float], tuple[Tick, ...]]:
    """Return the place of every value, and labels for the axis."""
    room = (end - start) * 0.08  # no dot on the frame
    found = {text: _as_number(text) for text in dict.fromkeys(shown)}
    numbers = {text: value for text, value in found.items() if value is not None}
    if len(numbers) < len(found) or len(set(numbers.values())) < 2:
        ordered = sorted(found)
        scale = Scale(0.0, max(1.0, len(ordered) - 1.0), start + room, end - room)
        places = {text: scale(float(place)) for place, text in enumerate(ordered)}
        step = -(-len(ordered) // _LABELS)
        return places, tuple(Tick(places[text], text) for text in ordered[::step])
    low, high = min(numbers.values()), max(numbers.values())
    by_factors = low > 0 and high / low >= _LOGARITHMIC_FROM
    position = {text: math.log10(value) if by_factors else value for text, value in numbers.items()}
    scale = Scale(min(position.values()), max(position.values()), start + room, end - room)
    places = {text: scale(value) for text, value in position.items()}
    distinct = sorted(set(numbers.values()))
    if len(distinct) > _LABELS:
        distinct = [distinct[0], distinct[len(distinct) // 2], distinct[-1]]
    ticks = tuple(Tick(scale(math.log10(value) if by_factors else value), number(value)) for value in distinct)
    return places, ticks


def _as_number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
