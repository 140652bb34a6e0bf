"""One trial of a search: its parameters, its folder, and what it reports."""

from __future__ import annotations

import importlib
import json
import math
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from estudio_core.errors import ConfigurationError, DataError

Mode = Literal["max", "min"]
Status = Literal["completed", "stopped", "failed"]
REPORT_KEY = "estudio_report"
"""Key under which a report travels through Ray Tune, as JSON."""
_REPORTS = "reports.jsonl"
_END = "end.json"


@dataclass(frozen=True)
class Point:
    """Metrics at an optimiser step."""

    metrics: dict[str, float]
    step: int


@dataclass(frozen=True)
class Report:
    """What a validation says: its metrics, and the points logged since the one before.

    `final`: it is of what the trial leaves behind, and comes after all training.
    """

    validation: Point
    between: list[Point]
    final: bool = False

    @property
    def points(self) -> list[Point]:
        """The points between, then the validation."""
        return [*self.between, self.validation]

    def to_json(self) -> str:
        """Return the report as one line."""
        return json.dumps({"points": [[point.step, point.metrics] for point in self.points], "final": self.final})

    @classmethod
    def from_json(cls, line: str) -> Report:
        """Read what `to_json` wrote."""
        read = json.loads(line)
        points = [Point(metrics, step) for step, metrics in read["points"]]
        return cls(points[-1], points[:-1], read["final"])


@dataclass
class Trial:
    """What a trainable gets. A trial may be ended at any report that is not final.

    Attributes:
        index: Position in the search, from 0.
        params: The parameters to try.
        folder: The trial's own; the same in a rerun, which finds there what the attempt before has left.
        metric: Name of the metric by which trials are compared; part of every report.
    """

    index: int
    params: dict[str, Any]
    folder: Path
    metric: str
    send: Callable[[Report], None]
    reports: int = 0
    _between: list[Point] = field(default_factory=list)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Take note of metrics between validations; they travel with the next report."""
        self._between.append(Point(dict(metrics), step))

    def report(self, metrics: Mapping[str, float], step: int, *, final: bool = False) -> None:
        """Report a validation. By its last report a trial that completes is compared with others.

        Args:
            metrics: Values by name.
            step: Optimiser steps done.
            final: The metrics are of what is kept in `folder`. The trial is not ended for them: it has been trained.

        Raises:
            DataError: the metric is missing or not finite: training has diverged.
        """
        value = metrics.get(self.metric)
        if value is None or not math.isfinite(value):
            raise DataError(
                f"Trial {self.index} reports {self.metric} = {value} at step {step}; a finite number is needed. "
                f"Lower the learning rate, or take its parameters {self.params} out of the search space."
            )
        report = Report(Point({name: float(number) for name, number in metrics.items()}, step), self._between, final)
        self._between = []
        self.reports += 1
        with (self.folder / _REPORTS).open("a") as file:
            file.write(report.to_json() + "\n")
        self.send(report)


class Trainable(Protocol):
    """A function `train(config, trial)` that trains with `trial.params`, and reports each validation and its end."""

    def __call__(self, config: dict[str, Any], trial: Trial) -> None:
        """Train."""
        ...


@dataclass(frozen=True)
class TrialEnd:
    """How a trial ended."""

    status: Status
    error_type: str | None = None
    error: str | None = None
    traceback: str | None = None


def load_trainable(name: str) -> Trainable:
    """Return the function that `module:function` names.

    Raises:
        ConfigurationError: the name has another form, or there is no such function.

    >>> load_trainable("json:dumps").__name__
    'dumps'
    """
    module, _, function = name.partition(":")
    if not module or not function.isidentifier():
        raise ConfigurationError(f"{name!r} names no trainable; legal is 'package.module:function'.")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"The trainable {name!r} cannot be imported: {error}") from error
    return cast(Trainable, found)


def run_trial(trainable: str, config: dict[str, Any], trial: Trial) -> None:
    """Run a trial; one that has ended well before is replayed from its folder."""
    trial.folder.mkdir(parents=True, exist_ok=True)
    before = read_end(trial.folder)
    if before is not None and before.status != "failed":
        for report in read_reports(trial.folder):
            trial.send(report)
        return
    for leftover in (_REPORTS, _END):
        (trial.folder / leftover).unlink(missing_ok=True)
    try:
        load_trainable(trainable)(config, trial)
        if trial.reports == 0:
            raise ConfigurationError(f"The trainable {trainable!r} ended without a report: call trial.report(...).")
    except Exception as error:
        end = TrialEnd("failed", type(error).__name__, str(error), traceback.format_exc())
        write_end(trial.folder, end)
        raise
    write_end(trial.folder, TrialEnd("completed"))


def read_reports(folder: Path) -> list[Report]:
    """Return the reports of a trial; a last line cut off by a kill is left out."""
    file = folder / _REPORTS
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    return [Report.from_json(line) for line in lines]


def read_end(folder: Path) -> TrialEnd | None:
    """Return how a trial ended; None where it has not."""
    file = folder / _END
    return TrialEnd(**json.loads(file.read_text())) if file.exists() else None


def write_end(folder: Path, end: TrialEnd) -> None:
    """Write down how a trial ended, at once or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    staged = folder / f".{_END}.staged"
    staged.write_text(json.dumps(end.__dict__))
    staged.replace(folder / _END)
