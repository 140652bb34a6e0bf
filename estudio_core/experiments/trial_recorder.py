"""Trials of a search as child runs in MLflow, with their curves."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from estudio_core.errors import TrackingUnavailableError
from estudio_core.experiments.iteration import Iteration, TrialRun
from estudio_core.experiments.manager import ExperimentsManager
from estudio_core.experiments.trial import Point
from lightning_modules.config import TrainingConfig

logger = logging.getLogger(__name__)


class MLflowTrialRecorder:
    """Logs from the process that runs the search, so that workers need no way to the tracking server.

    Args:
        manager: Of the plugin's runs.
        iteration: Parent of the trials' runs.
        training: The parameters that all trials share; those of a trial go before them.

    A tracking server that is away for a while does not end a search: values wait, and are sent with the next ones.
    """

    def __init__(self, manager: ExperimentsManager, iteration: Iteration, training: TrainingConfig) -> None:
        self._manager = manager
        self._iteration = iteration
        self._training = training
        self._runs: dict[int, TrialRun] = {}

    def run_id(self, index: int) -> str:
        """Return the run of a trial."""
        return self._runs[index].run_id

    def start(self, index: int, params: dict[str, Any]) -> None:
        """Start the trial's run; one that an earlier attempt has finished stays as it is."""
        self._runs[index] = self._manager.start_trial(
            self._iteration, self._training.with_values(params), name=f"trial {index}"
        )

    def log(self, index: int, points: Sequence[Point]) -> None:
        """Log metrics of some steps."""
        run = self._runs[index]
        if run.finished:
            return
        for point in points:
            run.log(point.metrics, point.step)
        try:
            run.flush()
        except TrackingUnavailableError as error:
            logger.warning("Metrics of trial %d wait: %s", index, error)

    def end(self, index: int, quality: float | None, error: str | None) -> None:
        """Close the trial's run; one that was ended early has no quality, which only whole trainings have."""
        run = self._runs[index]
        if run.finished:
            return
        try:
            run.end(quality, error, pruned=quality is None and error is None)
        except TrackingUnavailableError as lost:
            logger.warning("The run of trial %d stays open: %s", index, lost)
