"""What all tasks have in common: retries by kind of error, time limits, pools, progress, skipping."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, ExceptionRetryPolicy, Param, RetryAction, RetryRule, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException

from estudio_core.errors import NotEnoughDataError, NothingLiveError, SupersededError
from estudio_core.plugin.discovery import PluginCard

ERROR_KEY = "error"
"""Key of the XCom in which a failed task leaves its message."""

TRAINING_POOL = "estudio_training"
INDEX_POOL = "estudio_index"

_HOPELESS = ("ConfigurationError", "DataError", "ModelError", "ReleaseError")
RETRY_POLICY = ExceptionRetryPolicy(
    rules=[
        RetryRule(
            exception="estudio_core.errors.ConcurrentReleaseError",
            action=RetryAction.RETRY,
            reason="Another build or switch is under way; it will end.",
        ),
        *(
            RetryRule(
                exception=f"estudio_core.errors.{name}",
                action=RetryAction.FAIL,
                reason="A retry would fail the same way.",
            )
            for name in _HOPELESS
        ),
    ]
)
"""Wrong data and settings fail at once; everything else (a connection, a killed worker) is tried again."""


class Steps:
    """Makes tasks of one plugin: `steps(function, ...)` is `@task` with the plugin's settings."""

    def __init__(self, card: PluginCard) -> None:
        self.card = card

    def __call__(
        self, function: Callable[..., Any], *, pool: str | None = None, training: bool = False, **options: Any
    ) -> Any:
        """Return the task factory of `function`, whose id is the function's name."""
        minutes = self.card.dag_settings.training_timeout_minutes if training else None
        if pool is not None:
            options["pool"] = pool
        return task(**self._options(function, minutes), **options)(_inside_estudio(function))

    def branch(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the task factory of `function`, which returns the id of the task to go on with."""
        return task.branch(**self._options(function))(_inside_estudio(function))  # type: ignore[no-any-return]

    def _options(self, function: Callable[..., Any], minutes: int | None = None) -> dict[str, Any]:
        settings = self.card.dag_settings
        return {
            "task_id": function.__name__,
            "retries": settings.retries,
            "retry_delay": timedelta(seconds=10),
            "retry_exponential_backoff": 2.0,
            "max_retry_delay": timedelta(minutes=10),
            "retry_policy": RETRY_POLICY,
            "execution_timeout": timedelta(minutes=minutes or settings.task_timeout_minutes),
            "doc_md": function.__doc__,
        }


def plugin_dag(
    card: PluginCard, kind: str, title: str, doc: str, *, params: dict[str, Param], schedule: Any = None
) -> DAG:
    """Return the empty DAG `<plugin>__<kind>` with what all DAGs of a plugin share."""
    return DAG(
        dag_id=f"{card.meta.name}__{kind}",
        dag_display_name=f"{card.meta.name}: {title}",
        description=f"{title} ({card.meta.description or card.meta.name})",
        doc_md=_doc(card, title, doc),
        tags=["estudio", card.meta.name, *card.dag_settings.tags],
        default_args={"owner": card.dag_settings.owner},
        max_active_runs=1,
        catchup=False,
        schedule=schedule,
        params=params,
    )


def _doc(card: PluginCard, title: str, doc: str) -> str:
    """Return the text above the DAG's graph: what it does, what the plugin says, and where results are seen."""
    settings = card.dag_settings
    rows = {
        "Plugin": f"`{card.meta.name}` {card.meta.version}, `{card.source}`",
        "Fine-tuning": settings.schedule or "by hand",
        "Improvement": settings.improve_schedule or "by hand",
        "Shards of an index": str(settings.shards),
        "Retries": str(settings.retries),
        "Time limits": f"{settings.task_timeout_minutes} min a task, {settings.training_timeout_minutes} min training",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    about = f"{card.meta.description}.\n\n" if card.meta.description else ""
    return (
        f"### {title}\n\n{about}{doc.strip()}\n\n| | |\n|---|---|\n{table}\n\n"
        f"Releases, reports and rollback: [Estudio](/plugin/estudio)."
    )


def started_by(dag_run: Any) -> str:
    """Return who or what started a run, for the audit trail."""
    return str(dag_run.triggering_user_name or f"{dag_run.dag_id} {dag_run.run_id}")


def _inside_estudio(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run a task's function with Airflow's connections as item sources and progress that can be watched."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        from estudio_core.dag_factory.connections import use_airflow_connections
        from estudio_core.pipeline.progress_table import record_progress

        use_airflow_connections()
        context = get_current_context()
        instance = context["ti"]
        try:
            with record_progress(instance.dag_id, instance.run_id, instance.task_id, instance.map_index):
                return function(*args, **kwargs)
        except (NotEnoughDataError, NothingLiveError, SupersededError) as error:
            raise AirflowSkipException(str(error)) from error
        except Exception as error:
            # What a task that tells others about a failure reads; the next attempt clears it.
            instance.xcom_push(ERROR_KEY, f"{instance.task_id}: {error}")
            raise

    return run
