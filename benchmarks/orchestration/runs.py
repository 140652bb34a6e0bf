"""A finished DAG run in numbers: when it began, when its tasks ran, and what of it was not theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from estudio_core.local.runs import AirflowApi


@dataclass(frozen=True)
class Task:
    """A task instance that ran; times are seconds since the epoch, of Airflow's own record."""

    task_id: str
    started: float
    ended: float

    @property
    def seconds(self) -> float:
        """Time from start to end."""
        return self.ended - self.started


@dataclass(frozen=True)
class Run:
    """A finished run: `downstream` names the tasks that wait for a task."""

    asked_for: float
    started: float
    ended: float
    tasks: Sequence[Task]
    downstream: Mapping[str, Sequence[str]]

    @property
    def to_first_task(self) -> float:
        """Seconds from the request to the start of the first task."""
        return min(task.started for task in self.tasks) - self.asked_for

    @property
    def wall(self) -> float:
        """Seconds from the request to the end of the run."""
        return self.ended - self.asked_for

    @property
    def critical_path(self) -> float:
        """Sum of the tasks' own seconds on the longest way through the graph."""
        own = dict.fromkeys(self.downstream, 0.0)
        for task in self.tasks:  # of a mapped task, the slowest instance holds up what follows
            own[task.task_id] = max(own[task.task_id], task.seconds)
        longest: dict[str, float] = {}

        def from_here(name: str) -> float:
            if name not in longest:
                longest[name] = own[name] + max(map(from_here, self.downstream[name]), default=0.0)
            return longest[name]

        return max(from_here(name) for name in self.downstream)

    @property
    def overhead(self) -> float:
        """Seconds of the run in which no step of the critical path was at work."""
        return self.wall - self.critical_path


def finished_run(api: AirflowApi, dag_id: str, run_id: str, asked_for: float | None = None) -> Run:
    """Return a run that has ended; it was asked for at `asked_for`, or where None when Airflow queued it."""
    row = api.json("GET", f"/dags/{dag_id}/dagRuns/{run_id}")
    rows = api.json("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances", params={"limit": 100})["task_instances"]
    graph = api.json("GET", f"/dags/{dag_id}/tasks")["tasks"]
    return Run(
        asked_for=asked_for if asked_for is not None else _seconds(row["queued_at"]),
        started=_seconds(row["start_date"]),
        ended=_seconds(row["end_date"]),
        tasks=[_task(task) for task in rows if task["start_date"] and task["end_date"] and task["pid"]],
        downstream={task["task_id"]: task["downstream_task_ids"] for task in graph},
    )


def _task(row: Mapping[str, Any]) -> Task:
    return Task(row["task_id"], _seconds(row["start_date"]), _seconds(row["end_date"]))


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
