"""What every task does around its step: log lines with their context, metrics, buttons, notices."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from airflow.providers.standard.exceptions import HITLTimeoutError
from airflow.sdk import BaseNotifier, RetryAction
from airflow.sdk.observability import stats
from airflow.sdk.types import TaskInstanceKey
from structlog.testing import LogCapture

from estudio_core import PostgresItems, create_text_plugin
from estudio_core.dag_factory import links, notices
from estudio_core.dag_factory.forms import form
from estudio_core.dag_factory.metrics import emit_gauges
from estudio_core.dag_factory.steps import LONGEST_RUN_ID, RETRY_POLICY, Steps, plugin_dag
from estudio_core.errors import ConfigurationError
from estudio_core.log_context import bind_release, step_context
from estudio_core.plugin.dag_settings import DagSettings, Notice
from estudio_core.plugin.discovery import PluginCard
from estudio_core.plugin.run_params import RollbackParams
from estudio_core.settings import get_settings

HERE = __name__


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    """Log lines as structlog gives them to whoever writes them."""
    capture = LogCapture()
    before = structlog.get_config()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, capture], cache_logger_on_first_use=False)
    yield capture.entries
    structlog.configure(**before)


def test_lines_of_a_step_carry_plugin_run_step_and_release_and_the_next_ones_do_not(lines: list[Any]) -> None:
    logger = structlog.get_logger()
    bind_release(6)  # not in a step
    with step_context("shop", "run 1", "verify"):
        logger.info("before")
        bind_release(7)
        logger.info("after")
    logger.info("outside")
    with step_context("shop", "run 2", "switch", 8):
        logger.info("known")
    assert lines[0] == {"event": "before", "log_level": "info", "plugin": "shop", "run": "run 1", "step": "verify"}
    assert lines[1]["release"] == 7
    assert lines[2] == {"event": "outside", "log_level": "info"}
    assert lines[3]["release"] == 8


class Recorded:
    """A metrics backend of Airflow that keeps what it is given."""

    def __init__(self) -> None:
        self.gauges: dict[str, tuple[float, dict[str, str]]] = {}

    def gauge(self, stat: str, value: float, *, tags: dict[str, str]) -> None:
        self.gauges[stat] = (value, tags)


def test_gauges_are_named_for_backends_with_and_without_tags() -> None:
    backend = Recorded()
    stats.initialize(factory=lambda: backend, export_legacy_names=True)  # type: ignore[arg-type,return-value]
    emit_gauges("shop", 3, {"ndcg_at_10": 0.5})
    assert backend.gauges == {
        "estudio.ndcg_at_10": (0.5, {"plugin": "shop", "release": "3"}),
        "estudio.shop.ndcg_at_10": (0.5, {"release": "3"}),
    }


def address(link: Any, returned: dict[str, Any]) -> str:
    return str(link.address(returned, "manual__2026-01-01T00:00:00+00:00"))


def test_buttons_lead_to_run_report_and_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.org/ui/")
    monkeypatch.setenv("ESTUDIO_MLFLOW_TRACKING_URI", "http://mlflow:5000")
    get_settings.cache_clear()
    run = links.MLflowRunLink("shop")
    assert address(run, {"mlflow_run_id": "abc"}) == "http://mlflow:5000/#/runs/abc"
    monkeypatch.setenv("ESTUDIO_MLFLOW_URL", "https://mlflow.example.org/")
    get_settings.cache_clear()
    assert address(run, {"training": {"mlflow_run_id": "abc"}}) == "https://mlflow.example.org/#/runs/abc"
    monkeypatch.setenv("ESTUDIO_MLFLOW_URL", "")
    monkeypatch.setenv("ESTUDIO_MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    get_settings.cache_clear()
    assert address(run, {"mlflow_run_id": "abc"}) == ""  # a file has no pages
    page = "https://airflow.example.org/ui/estudio/plugins/shop"
    report = f"{page}/report?run_id=manual__2026-01-01T00%3A00%3A00%2B00%3A00"
    assert address(links.ReportLink("shop"), {"uri": "x"}) == report
    assert address(links.ReportLink("shop"), {}) == ""  # the task failed
    assert address(links.ImprovementLink("shop"), {"uri": "x"}) == report.replace("/report?", "/improvement?")
    assert address(links.ImprovementLink("shop"), {}) == ""  # too few sessions
    assert address(links.ModelLink("shop"), {"name": "shop_v3"}) == f"{page}/models/shop_v3"
    assert address(links.PageLink("shop"), {}) == page
    get_settings.cache_clear()


def test_a_question_nobody_answered_is_not_asked_again_and_a_lost_connection_is_tried_again() -> None:
    assert RETRY_POLICY.evaluate(HITLTimeoutError("seven days"), 1, 2).action is RetryAction.FAIL
    assert RETRY_POLICY.evaluate(ConfigurationError("wrong"), 1, 2).action is RetryAction.FAIL
    assert RETRY_POLICY.evaluate(ConnectionError("reset"), 1, 2).action is not RetryAction.FAIL


class Told(BaseNotifier):
    """A notifier that says whom it would tell what."""

    template_fields = ("text",)

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def notify(self, context: Any) -> None:
        logging.getLogger("told").warning("%s", self.text)

    async def async_notify(self, context: Any) -> None:
        self.notify(context)


def told(context: Any, name: str = "nobody") -> None:
    logging.getLogger("told").warning("%s is told of %s", name, context["drift"]["summary"])


def test_notifiers_and_functions_are_called_with_airflow_s_context(caplog: pytest.LogCaptureFixture) -> None:
    made = notices.callbacks(
        (
            Notice(call=f"{HERE}.Told", arguments={"text": "{{ drift.summary }}"}),
            Notice(call=f"{HERE}.told", arguments={"name": "ana"}),
        )
    )
    assert made is not None
    for call in made:
        call({"drift": {"summary": "clicks fall"}})
    assert [record.message for record in caplog.records] == ["clicks fall", "ana is told of clicks fall"]
    assert notices.callbacks(()) is None


def test_a_deadline_tells_each_notice_or_logs() -> None:
    settings = DagSettings(
        deadline_minutes={"fine_tune": 90}, on_late=(Notice(call=f"{HERE}.Told", arguments={"text": "late"}),)
    )
    [alert] = notices.deadlines(settings, "fine_tune") or []
    assert alert.interval.total_seconds() == 5400
    assert (alert.callback.path, alert.callback.kwargs) == (f"{HERE}.Told", {"text": "late"})
    assert notices.deadlines(settings, "release") is None
    [unnamed] = notices.deadlines(DagSettings(deadline_minutes={"sync": 5}), "sync") or []
    assert unnamed.callback.path == "estudio_core.dag_factory.notices.log_late"


def test_a_passed_deadline_is_logged_with_dag_and_run(lines: list[Any]) -> None:
    asyncio.run(notices.log_late(context={"dag_run": {"dag_id": "shop__sync", "dag_run_id": "r"}}))
    assert (lines[0]["event"], lines[0]["dag_id"], lines[0]["run"]) == ("deadline passed", "shop__sync", "r")


@pytest.mark.parametrize(
    ("notice", "message"),
    [
        ({"call": "no_such_package.Notifier"}, "nobody to tell at 'no_such_package.Notifier'.*installed where Airflow"),
        ({"call": "airflow.sdk.BaseNotifierr"}, "nobody to tell"),
        ({"call": f"{HERE}.HERE"}, "is a str; give a notifier class or a function"),
        ({"call": f"{HERE}.Told", "arguments": {"txt": "x"}}, "cannot be made: .*txt"),
    ],
)
def test_a_wrong_notice_is_named(notice: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        notices.callbacks((Notice.model_validate(notice),))


def test_settings_that_cannot_be_are_refused_when_the_plugin_is_written() -> None:
    with pytest.raises(ConfigurationError, match="call = 'nobody'"):
        Notice(call="nobody")
    with pytest.raises(ConfigurationError, match=r"deadline_minutes\.sync = 0: .*than or equal to 1"):
        DagSettings(deadline_minutes={"sync": 0})
    with pytest.raises(ConfigurationError, match=r"deadline_minutes\.fine_tun"):
        DagSettings(deadline_minutes={"fine_tun": 5})  # type: ignore[dict-item]
    with pytest.raises(ConfigurationError, match="'every moon' is no schedule"):
        DagSettings(watch_schedule="every moon")
    with pytest.raises(ConfigurationError, match="cannot tell of a deadline"):
        notices.deadlines(DagSettings(deadline_minutes={"sync": 5}, on_late=(Notice(call=f"{HERE}.told"),)), "sync")


def test_a_link_of_a_task_that_returned_nothing_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.execution_time.xcom import XCom

    monkeypatch.setattr(XCom, "get_value", classmethod(lambda cls, **kwargs: None))
    key = TaskInstanceKey(dag_id="shop__fine_tune", task_id="train", run_id="r", try_number=1, map_index=-1)
    assert links.MLflowRunLink("shop").get_link(None, ti_key=key) == ""  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("params", "run_id", "told"),
    [
        ({"target": "previous"}, "manual__2026-01-01T00:00:00+00:00", None),
        ({"target": "previous"}, "é" * LONGEST_RUN_ID, None),
        ({"target": "previous"}, "r" * 201, r"has 201 characters, 200 at most are legal.*shorter one than 'rrr"),
        ({"target": "2", "tagret": "3"}, "run", r"shop__rollback has no parameter 'tagret'\. Did you mean 'target'\?"),
        ({"target": "2", "keep_releases": 3}, "run", r"no parameter 'keep_releases'\. .*Legal names: 'target'"),
        ({"target": "2", "params": {"target": "2"}}, "run", "no parameter 'params'"),
        ({"target": "2", "": 1}, "run", "no parameter ''"),
    ],
)
def test_first_tasks_refuse_what_a_run_is_started_with_and_later_ones_go_on(
    monkeypatch: pytest.MonkeyPatch, params: dict[str, Any], run_id: str, told: str | None
) -> None:
    def rollback() -> str:
        """Do nothing."""
        return "done"

    def after() -> str:
        """Do nothing."""
        return "done"

    plugin = create_text_plugin("shop", items=PostgresItems(table="t", text="a"), model="m")
    card = PluginCard(plugin.meta, plugin.dag, plugin.fine_tune, "shop.py")
    with plugin_dag(card, "rollback", "Rollback", "", params=form(RollbackParams())) as dag:
        Steps(card)(rollback)() >> Steps(card)(after)()
    pushed = SimpleNamespace(
        dag_id=dag.dag_id, run_id=run_id, task_id="t", map_index=-1, xcom_push=lambda key, value: None
    )
    monkeypatch.setattr("estudio_core.dag_factory.progress_table.record_progress", lambda *where: nullcontext())
    for task in dag.tasks:
        context = {"ti": pushed, "task": task, "dag": dag, "params": params, "run_id": run_id}
        monkeypatch.setattr("estudio_core.dag_factory.steps.get_current_context", lambda found=context: found)
        if told is None or task.task_id == "after":
            assert task.python_callable() == "done"
        else:
            with pytest.raises(ConfigurationError, match=told):
                task.python_callable()
