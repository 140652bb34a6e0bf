"""What Airflow knows of plugins: their DAGs, what runs, what waits for a person, and what failed last.

Six queries, however many plugins there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, get_args

from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.pool import Pool
from airflow.models.taskinstance import TaskInstance
from sqlalchemy import func, select, tuple_

from estudio_core.airflow_ui.next_step import KINDS, Kind
from estudio_core.plugin.dag_settings import DagKind

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

LOOK_BACK_DAYS = 30
"""How far back failed runs are looked for."""
_UNDER_WAY = ("queued", "running")
_WAITING = ("awaiting_input", "deferred")


@dataclass(frozen=True)
class FailedRun:
    """The last failed run of a plugin's DAGs; `over` says that a later run of the same DAG succeeded."""

    dag_id: str
    run_id: str
    at: datetime
    over: bool
    task_id: str | None = None


@dataclass
class Runs:
    """Of one plugin. Fields as in `Situation`."""

    dags: dict[Kind, bool] = field(default_factory=dict)
    running: dict[Kind, str] = field(default_factory=dict)
    question: str | None = None
    failed: FailedRun | None = None


def plugins_with_dags(session: Session) -> set[str]:
    """Return the plugins that have a DAG `<plugin>__initialize`."""
    ending = "__initialize"
    found = session.scalars(
        select(DagModel.dag_id).where(DagModel.dag_id.endswith(ending, autoescape=True), DagModel.is_stale.is_(False))
    )
    return {dag_id.removesuffix(ending) for dag_id in found}


def missing_pools(session: Session) -> list[str]:
    """Return the pools of Estudio's tasks that Airflow has not, or without a slot: such tasks wait for ever."""
    from estudio_core.local.airflow_home import POOLS

    there = set(session.scalars(select(Pool.pool).where(Pool.pool.in_(POOLS), Pool.slots != 0)))
    return [name for name in POOLS if name not in there]


def runs_of(session: Session, plugins: Iterable[str]) -> dict[str, Runs]:
    """Return what Airflow knows of each of these plugins."""
    runs = {plugin: Runs() for plugin in plugins}
    moving = {f"{plugin}__{kind}": (found, kind) for plugin, found in runs.items() for kind in KINDS}
    paused = select(DagModel.dag_id, DagModel.is_paused).where(
        DagModel.dag_id.in_(moving), DagModel.is_stale.is_(False)
    )
    for dag_id, is_paused in session.execute(paused):
        found, kind = moving[dag_id]
        found.dags[kind] = is_paused
    under_way = (
        select(DagRun.dag_id, DagRun.run_id)
        .where(DagRun.dag_id.in_(moving), DagRun.state.in_(_UNDER_WAY))
        .order_by(DagRun.id)
    )
    for dag_id, run_id in session.execute(under_way):
        found, kind = moving[dag_id]
        found.running[kind] = run_id
    questions = (
        select(TaskInstance.dag_id, TaskInstance.run_id)
        .join(HITLDetail, HITLDetail.ti_id == TaskInstance.id)
        .where(
            TaskInstance.dag_id.in_([dag_id for dag_id, (_, kind) in moving.items() if kind == "fine_tune"]),
            TaskInstance.task_id == "approve",
            TaskInstance.state.in_(_WAITING),
            HITLDetail.responded_at.is_(None),
        )
    )
    for dag_id, run_id in session.execute(questions):
        moving[dag_id][0].question = run_id
    for plugin, failed in _last_failures(session, runs).items():
        runs[plugin].failed = failed
    return runs


def _last_failures(session: Session, plugins: Iterable[str]) -> dict[str, FailedRun]:
    owners = {f"{plugin}__{kind}": plugin for plugin in plugins for kind in get_args(DagKind)}
    latest = func.row_number().over(partition_by=(DagRun.dag_id, DagRun.state), order_by=DagRun.end_date.desc())
    ended = (
        select(DagRun.dag_id, DagRun.run_id, DagRun.state, DagRun.end_date, latest.label("nth"))
        .where(
            DagRun.dag_id.in_(owners),
            DagRun.state.in_(("success", "failed")),
            DagRun.end_date >= datetime.now(UTC) - timedelta(days=LOOK_BACK_DAYS),
        )
        .subquery()
    )
    rows = session.execute(select(ended).where(ended.c.nth == 1)).all()
    succeeded = {row.dag_id: row.end_date for row in rows if row.state == "success"}
    failures: dict[str, FailedRun] = {}
    for row in rows:
        plugin = owners[row.dag_id]
        if row.state == "failed" and (plugin not in failures or row.end_date > failures[plugin].at):
            over = row.dag_id in succeeded and succeeded[row.dag_id] > row.end_date
            failures[plugin] = FailedRun(row.dag_id, row.run_id, row.end_date, over)
    return _with_tasks(session, failures)


def _with_tasks(session: Session, failures: dict[str, FailedRun]) -> dict[str, FailedRun]:
    """Name the first task that failed in each run; a run can fail without one, by a time-out of its own."""
    names = [(failed.dag_id, failed.run_id) for failed in failures.values()]
    statement = (
        select(TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id)
        .where(tuple_(TaskInstance.dag_id, TaskInstance.run_id).in_(names), TaskInstance.state == "failed")
        .order_by(TaskInstance.end_date.desc())
    )
    tasks = {(dag_id, run_id): task_id for dag_id, run_id, task_id in session.execute(statement)} if names else {}
    return {
        plugin: replace(failed, task_id=tasks.get((failed.dag_id, failed.run_id)))
        for plugin, failed in failures.items()
    }
