"""Airflow's tables, in a database of their own, and a plugin with all that a page shows."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.models import import_all_models
from airflow.models.base import Base
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from sqlalchemy import create_engine, insert
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from estudio_core import database
from estudio_core.airflow_ui.next_step import KINDS
from estudio_core.artifacts import ArtifactStore
from estudio_core.improvement import ledger as improvements
from estudio_core.monitoring import ledger as monitoring
from estudio_core.promotion import ledger
from estudio_core.promotion.trainings import note_training
from estudio_core.settings import get_settings
from estudio_core.vectordb.index_info import SearchIndexInfo
from estudio_core.vectordb.releases import start_release

MARKUP = "<script>alert('x')</script>"


@dataclass(frozen=True)
class Airflow:
    """Airflow's metadata database, with DAGs and runs as a scheduler would leave them."""

    session: Session

    def dags(self, plugin: str, *, paused: bool = False, stale: bool = False) -> None:
        """Add the DAGs of a plugin."""
        for kind in KINDS:
            self._add(
                DagModel,
                dag_id=f"{plugin}__{kind}",
                is_paused=paused,
                is_stale=stale,
                bundle_name="dags",
                max_active_tasks=16,
                max_consecutive_failed_dag_runs=0,
                has_task_concurrency_limits=False,
            )

    def run(self, dag_id: str, run_id: str, state: str, ended: datetime | None = None) -> None:
        """Add a run."""
        now = datetime.now(UTC)
        self._add(
            DagRun,
            dag_id=dag_id,
            run_id=run_id,
            state=state,
            run_type="manual",
            run_after=now,
            start_date=now,
            end_date=ended,
            clear_number=0,
            span_status="not_started",
        )

    def task(self, dag_id: str, run_id: str, task_id: str, state: str) -> uuid.UUID:
        """Add a task of a run."""
        task = uuid.uuid4()
        self._add(
            TaskInstance,
            id=task,
            dag_id=dag_id,
            run_id=run_id,
            task_id=task_id,
            map_index=-1,
            state=state,
            pool="default_pool",
            pool_slots=1,
            try_number=1,
            max_tries=0,
            span_status="not_started",
        )
        return task

    def question(
        self, plugin: str, run_id: str, *, answered: datetime | None = None, state: str = "awaiting_input"
    ) -> None:
        """Have the run of `fine_tune` ask whether to promote."""
        task = self.task(f"{plugin}__fine_tune", run_id, "approve", state)
        self._add(HITLDetail, ti_id=task, options=["Promote"], subject="Promote?", params={}, responded_at=answered)

    def _add(self, model: Any, **values: Any) -> None:
        self.session.execute(insert(model.__table__).values(values))
        self.session.commit()


@pytest.fixture
def airflow() -> Iterator[Airflow]:
    import_all_models()
    engine = create_engine("sqlite://", connect_args={"check_same_thread": False}, poolclass=StaticPool)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        yield Airflow(session)
    engine.dispose()


@pytest.fixture
def filled(estudio_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two releases of `shop`, of which the second serves, with all that led there."""
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "shop.py").write_text(
        "from estudio_core import PostgresItems, create_text_plugin\n"
        "plugin = create_text_plugin('shop', items=PostgresItems(table='products', text='title'), model='none',"
        f" description={MARKUP!r})\n"
    )
    monkeypatch.setenv("ESTUDIO_PLUGINS_PATH", str(plugins))
    get_settings.cache_clear()
    now = datetime.now(UTC)
    with database.connect() as connection:
        made = []
        for number, state in ((1, "previous"), (2, "live")):
            run = f"run-{number}"
            release = start_release(
                connection, "shop", f"shop_v{number}", str(number), SearchIndexInfo(dimensions=2), run
            )
            connection.execute(
                "UPDATE estudio.deployments SET state = %s, reason = %s WHERE release_id = %s",
                (state, MARKUP, release.release_id),
            )
            made.append(release)
            numbers = {"unseen_ndcg_at_10_after": 0.2 + number / 10}
            promotion = ledger.request(connection, "shop", "gate", MARKUP, str(number), run_id=run, numbers=numbers)
            ledger.end(connection, promotion, "live", release_id=release.release_id)
        connection.execute(
            "INSERT INTO estudio.pointers (plugin, release_id, previous_release_id, switched_by)"
            " VALUES ('shop', %s, %s, 'test')",
            (made[1].release_id, made[0].release_id),
        )
        store = ArtifactStore()
        with store.publish("shop", "tune 1", "evaluation") as folder:
            (folder / "report.html").write_text("the report")
        note_training(
            connection,
            "shop",
            "tune 1",
            until=now,
            version="2",
            promoted=True,
            reason="better",
            report_uri=store.uri("shop", "tune 1", "evaluation"),
            numbers={},
        )
        improvements.record(connection, made[1], "improve 1", "applied", now, 7, {"gain": 0.0123}, "it helps")
        improvements.record(connection, made[1], "back", "reverted", now, 7, {}, "taken back")
        with store.publish("shop", "improve 1", "improvement") as folder:
            (folder / "report.html").write_text("what moved")
        for number, ndcg in enumerate((0.61, 0.64)):
            monitoring.record(
                connection,
                made[1],
                f"watch-{number}",
                since=now,
                until=now,
                trained_until=now,
                sessions=120,
                numbers={"ndcg_at_10": ndcg, "click_rate_3": 0.125, "index_rows": 60, "index_bytes": 262_144},
                drift=["click_drop"] if number else [],
                wanted="notify" if number else "none",
                summary=MARKUP,
            )
        connection.commit()
