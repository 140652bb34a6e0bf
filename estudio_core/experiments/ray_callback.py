"""What Ray Tune tells the process that runs a search; imported by `ray_search` inside functions only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ray.tune import Callback  # noqa: TID253 (the base class is needed; nothing imports this module before Ray is)

from estudio_core.experiments.search_plan import SearchPlan, TrialRecorder
from estudio_core.experiments.trial import REPORT_KEY, Point, Report, TrialEnd, read_end, read_reports, write_end
from estudio_core.progress import report as report_progress

if TYPE_CHECKING:
    from ray.tune.experiment import Trial as RayTrial


class SearchWatch:
    """Passes on to a recorder what the trials of a plan do."""

    def __init__(self, plan: SearchPlan, recorder: TrialRecorder) -> None:
        self._plan = plan
        self._recorder = recorder
        self._ended: set[int] = set()

    def start(self, index: int) -> None:
        """A trial starts."""
        self._recorder.start(index, self._plan.candidates[index])

    def log(self, index: int, points: list[Point]) -> None:
        """A trial has new metrics."""
        self._recorder.log(index, points)

    def end(self, index: int, error: str | None) -> None:
        """A trial has ended."""
        folder = self._plan.folder(index)
        if read_end(folder) is None:
            # Ended by the scheduler, or its process died: neither could write down how it ended.
            stopped = TrialEnd("stopped") if error is None else TrialEnd("failed", "WorkerDied", error, error)
            write_end(folder, stopped)
        outcome = self._plan.outcome(index)
        quality = outcome.value if outcome.status == "completed" else None
        self._recorder.end(index, quality, outcome.error if outcome.status == "failed" else None)
        self._ended.add(index)
        report_progress("search", len(self._ended), len(self._plan.candidates), "trials")

    def catch_up(self, index: int) -> None:
        """Tell the recorder of a trial that ended before the search was interrupted."""
        if index in self._ended or read_end(self._plan.folder(index)) is None:
            return
        self.start(index)
        for report in read_reports(self._plan.folder(index)):
            self.log(index, report.points)
        self.end(index, None)


_watches: list[SearchWatch] = []
# Ray stores callbacks in its state file, so what they work with is kept beside them.


@contextmanager
def watching(plan: SearchPlan, recorder: TrialRecorder) -> Iterator[SearchWatch]:
    """Let `SearchCallback` report to `recorder` inside the block."""
    watch = SearchWatch(plan, recorder)
    _watches.append(watch)
    try:
        yield watch
    finally:
        _watches.remove(watch)


class SearchCallback(Callback):  # type: ignore[misc]  # Ray has no types
    """Tells the current `SearchWatch` what Tune does; carries no state of its own."""

    def on_trial_start(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        """A trial starts."""
        _watches[-1].start(_index(trial))

    def on_trial_result(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial has reported."""
        if REPORT_KEY in result:
            report = Report.from_json(result[REPORT_KEY])
            _watches[-1].log(_index(trial), report.points)

    def on_trial_complete(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        """A trial has ended, by itself or by the scheduler."""
        _watches[-1].end(_index(trial), None)

    def on_trial_error(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        """A trial has failed."""
        _watches[-1].end(_index(trial), f"{trial.get_error() or 'its process died'}")


def _index(trial: RayTrial) -> int:
    return int(trial.config["candidate"]["index"])
