"""What a search is: its trials and their outcomes, what they may take, when they are ended, and who is told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from estudio_core.experiments.trial import Mode, Point, Status, read_end, read_reports


@dataclass(frozen=True)
class Resources:
    """What one trial takes, and how many run at a time.

    Attributes:
        threads: CPU threads of a training process; None: every core that this process may use and a machine of Ray has,
            divided among the trials that are to run at once.
        gpus_per_trial: GPUs, parts allowed; None: `devices` where Ray finds any.
        max_concurrent: Most trials at a time; None: as many as fit.
        devices: GPUs of one training; without a GPU, its processes.
    """

    threads: int | None = None
    gpus_per_trial: float | None = None
    max_concurrent: int | None = None
    devices: int = 1


@dataclass(frozen=True)
class Pruning:
    """When a trial that does worse than others is ended (asynchronous successive halving).

    Attributes:
        grace_reports: Validations that every trial gets. Three are a little more than an epoch by default, when the
            rate has passed its peak: before, trials tell little of what they will come to.
        reduction_factor: At each rung (`grace_reports`, times the factor, and so on) the best 1/reduction_factor of
            the trials go on. No number of validations ends a trial by itself.
    """

    grace_reports: int = 3
    reduction_factor: int = 3


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial went. `value` is the metric in its last report, after `steps` optimiser steps; None without one."""

    index: int
    params: dict[str, Any]
    status: Status
    value: float | None
    steps: int | None
    reports: int
    folder: Path
    error: str | None


@dataclass(frozen=True)
class SearchOutcome:
    """All trials in the order of the search, and the best of those that completed.

    Values of trials that were ended early are of different lengths of training, and are not compared with those of
    completed ones.
    """

    trials: list[TrialOutcome]
    best: TrialOutcome

    @property
    def failed(self) -> list[TrialOutcome]:
        """Trials that failed."""
        return [trial for trial in self.trials if trial.status == "failed"]


class TrialRecorder(Protocol):
    """Is told, in the process that runs the search, what trials do; `log` and `end` bear a lost connection."""

    def start(self, index: int, params: dict[str, Any]) -> None:
        """A trial starts, or starts again."""
        ...

    def log(self, index: int, points: Sequence[Point]) -> None:
        """A trial has new metrics."""
        ...

    def end(self, index: int, quality: float | None, error: str | None) -> None:
        """A trial has ended; once per trial. It was ended early where there is neither quality nor error."""
        ...


class NoRecorder:
    """Takes note of nothing."""

    def start(self, index: int, params: dict[str, Any]) -> None:
        """Ignore the start."""

    def log(self, index: int, points: Sequence[Point]) -> None:
        """Ignore the metrics."""

    def end(self, index: int, quality: float | None, error: str | None) -> None:
        """Ignore the end."""


@dataclass(frozen=True)
class SearchPlan:
    """Everything that decides a search; two searches with the same `id` are the same, wherever their files are."""

    trainable: str
    config: dict[str, Any]
    candidates: list[dict[str, Any]]
    metric: str
    mode: Mode
    storage: Path
    name: str
    paths: dict[str, str] = field(default_factory=dict)

    @property
    def inputs(self) -> dict[str, Any]:
        """What the trainable gets as `config`."""
        return self.config | self.paths

    @property
    def id(self) -> str:
        """Name of the search with a hash of what is tried."""
        what = json.dumps([self.trainable, self.config, self.candidates, self.metric, self.mode], sort_keys=True)
        return f"{self.name}-{hashlib.sha256(what.encode()).hexdigest()[:10]}"

    def folder(self, index: int) -> Path:
        """Folder of a trial."""
        return self.storage / self.id / f"trial_{index:03d}"

    def outcome(self, index: int) -> TrialOutcome:
        """Return how a trial went, from its folder."""
        folder = self.folder(index)
        reports = read_reports(folder)
        last = reports[-1].validation if reports else None
        end = read_end(folder)
        return TrialOutcome(
            index=index,
            params=self.candidates[index],
            status="failed" if end is None else end.status,
            value=None if last is None else last.metrics[self.metric],
            steps=None if last is None else last.step,
            reports=len(reports),
            folder=folder,
            error="it was killed" if end is None else end.traceback or end.error,
        )
