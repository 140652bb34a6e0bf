"""What all tasks have in common: retries by kind of error, time limits, pools, progress, skipping."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any

import structlog
from airflow.sdk import (
    DAG,
    BaseOperatorLink,
    ExceptionRetryPolicy,
    Param,
    RetryAction,
    RetryRule,
    get_current_context,
    task,
)
from airflow.sdk.exceptions import AirflowSkipException

from estudio_core.dag_factory.notices import callbacks, deadlines
from estudio_core.errors import (
    ConfigurationError,
    ExperimentEndedError,
    NotEnoughDataError,
    NothingLiveError,
    SupersededError,
    suggest,
)
from estudio_core.experiments.alias_audit import cleaned
from estudio_core.log_context import step_context
from estudio_core.plugin.dag_settings import DagKind, DagSettings
from estudio_core.plugin.discovery import PluginCard

logger = structlog.get_logger("estudio.steps")

ERROR_KEY = "error"
"""Key of the XCom in which a failed task leaves its message."""

LONGEST_RUN_ID = 200
"""Characters: Airflow and MLflow have 250 for the ids and names of what a run starts, and these add to its own."""

TRAINING_POOL = "estudio_training"
INDEX_POOL = "estudio_index"

URGENT: dict[str, Any] = {"priority_weight": 1000, "weight_rule": "absolute"}
"""Options of short tasks on which it hangs what is served: they go before every task that waits for a slot."""

_HOPELESS = ("ConfigurationError", "DataError", "ModelError", "ReleaseError")
RETRY_POLICY = ExceptionRetryPolicy(
    rules=[
        RetryRule(
            exception="estudio_core.errors.ConcurrentReleaseError",
            action=RetryAction.RETRY,
            reason="Another build or switch is under way; it will end.",
        ),
        RetryRule(
            exception="airflow.providers.standard.exceptions.HITLTimeoutError",
            action=RetryAction.FAIL,
            reason="Nobody answered in time; asking again would put the decision off for as long again.",
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
        self,
        function: Callable[..., Any],
        *,
        pool: str | None = None,
        training: bool = False,
        minutes: int | None = None,
        links: Collection[BaseOperatorLink] = (),
        **options: Any,
    ) -> Any:
        """Return the task factory of `function`, whose id is the function's name.

        `links` are buttons of the task; `minutes` is its time limit, where it has one of its own.
        """
        if training:
            minutes = self.card.dag_settings.training_timeout_minutes
        if pool is not None:
            options["pool"] = pool
        factory = task(**self._options(function, minutes), **options)(self._inside_estudio(function))
        return _linked(factory, links) if links else factory

    def branch(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the task factory of `function`, which returns the id of the task to go on with, or several."""
        return task.branch(**self._options(function))(self._inside_estudio(function))  # type: ignore[no-any-return]

    def sensor(self, function: Callable[..., Any], *, every_s: float, most_s: float) -> Callable[..., Any]:
        """Return the task factory of `function`, which is asked again and again, and holds no slot between."""
        options = {**self._options(function), "poke_interval": every_s, "timeout": most_s, "mode": "reschedule"}
        return task.sensor(**options)(self._inside_estudio(function))  # type: ignore[no-any-return]

    def _inside_estudio(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return _inside_estudio(function, self.card.meta.name)

    def _options(self, function: Callable[..., Any], minutes: int | None = None) -> dict[str, Any]:
        return {
            "task_id": function.__name__,
            "execution_timeout": timedelta(minutes=minutes or self.card.dag_settings.task_timeout_minutes),
            "doc_md": function.__doc__,
        }


def plugin_dag(
    card: PluginCard, kind: DagKind, title: str, doc: str, *, params: dict[str, Param], schedule: Any = None
) -> DAG:
    """Return the empty DAG `<plugin>__<kind>` with what all DAGs of a plugin share.

    A schedule that never comes is none: Airflow would look for its next moment in vain.
    """
    if schedule in card.dag_settings.never.values():
        schedule = None
    return DAG(
        dag_id=f"{card.meta.name}__{kind}",
        dag_display_name=f"{card.meta.name}: {title}",
        description=f"{title} ({card.meta.description or card.meta.name})",
        doc_md=_doc(card, title, doc),
        tags=["estudio", card.meta.name, *card.dag_settings.tags],
        default_args=_of_every_task(card.dag_settings),
        max_active_runs=1,
        catchup=False,
        schedule=schedule,
        params=params,
        on_failure_callback=callbacks(card.dag_settings.on_failure),
        on_success_callback=callbacks(card.dag_settings.on_success),
        deadline=deadlines(card.dag_settings, kind),
    )


def _of_every_task(settings: DagSettings) -> dict[str, Any]:
    """Return the options of all tasks of a DAG, those that `Steps` makes and operators alike."""
    return {
        "owner": settings.owner,
        "retries": settings.retries,
        "retry_delay": timedelta(seconds=10),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": timedelta(minutes=10),
        "retry_policy": RETRY_POLICY,
    }


def _doc(card: PluginCard, title: str, doc: str) -> str:
    """Return the text above the DAG's graph: what it does, what the plugin says, and where results are seen."""
    settings = card.dag_settings
    never = {f"`{value}` never comes" for value in settings.never.values()}
    rows = {
        "Plugin": f"`{card.meta.name}` {card.meta.version}, `{card.source}`",
        "Fine-tuning": settings.schedule or "by hand",
        "Improvement": settings.improve_schedule or "by hand",
        "Watching": settings.watch_schedule or "by hand",
        "Drift": "starts a training" if settings.watch.on_drift == "train" else "is told of",
        "Deadlines": ", ".join(f"{kind} {m} min" for kind, m in sorted(settings.deadline_minutes.items())) or "none",
        **({"By hand, because": ", ".join(sorted(never))} if never else {}),
        "Shards of an index": f"{settings.shards} or more, of {settings.shard_items:,} items at most",
        "Retries": str(settings.retries),
        "Time limits": f"{settings.task_timeout_minutes} min a task, {settings.training_timeout_minutes} min training, "
        f"{settings.index_timeout_minutes} min index",
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


def _linked(factory: Callable[..., Any], links: Collection[BaseOperatorLink]) -> Callable[..., Any]:
    """Give the task that `factory` makes its links: a TaskFlow task takes none as an argument."""

    def make(*args: Any, **kwargs: Any) -> Any:
        made = factory(*args, **kwargs)
        made.operator.operator_extra_links = tuple(links)
        return made

    return make


def _inside_estudio(function: Callable[..., Any], plugin: str) -> Callable[..., Any]:
    """Run a task's function with Airflow's connections, progress to be watched and log lines with a context."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        from estudio_core.dag_factory.connections import use_airflow_connections
        from estudio_core.dag_factory.progress_table import record_progress

        use_airflow_connections()
        context = get_current_context()
        instance = context["ti"]
        _refuse_early(context)
        began = time.monotonic()

        def ended(outcome: str, **numbers: Any) -> None:
            logger.info("step ended", outcome=outcome, seconds=round(time.monotonic() - began, 3), **numbers)

        with step_context(plugin, instance.run_id, function.__name__, _release([*args, *kwargs.values()])):
            try:
                with record_progress(instance.dag_id, instance.run_id, instance.task_id, instance.map_index):
                    returned = function(*args, **kwargs)
            except (ExperimentEndedError, NotEnoughDataError, NothingLiveError, SupersededError) as error:
                ended("skipped", reason=str(error))
                raise AirflowSkipException(str(error)) from error
            except Exception as error:
                ended("failed", error=type(error).__name__, reason=str(error))
                # What a task that tells others about a failure reads; the next attempt clears it.
                instance.xcom_push(ERROR_KEY, cleaned(f"{instance.task_id}: {error}"))
                raise
            ended("success", **_numbers(returned))
            return returned

    return run


def _refuse_early(context: Any) -> None:
    """Refuse a run with parameters that its DAG has not, or too long an id, at its first tasks: Airflow takes any.

    Raises:
        ConfigurationError: there is one; the message names the nearest legal name.
    """
    if context["task"].upstream_task_ids:
        return
    run_id = context["run_id"]
    if len(run_id) > LONGEST_RUN_ID:
        raise ConfigurationError(
            f"The id of this run has {len(run_id)} characters, {LONGEST_RUN_ID} at most are legal: what it starts is "
            f"called after it. Start it anew with a shorter one than {run_id[:40]!r}…"
        )
    legal = list(context["dag"].params)
    unknown = [name for name in context["params"] if name not in legal]
    if unknown:
        raise ConfigurationError(
            f"{context['dag'].dag_id} has no parameter {unknown[0]!r}. {suggest(unknown[0], legal)}"
        )


def _release(arguments: list[Any]) -> int | None:
    """Return the release that a manifest among the arguments of a step is about."""
    found = (argument.get("release_id") for argument in arguments if isinstance(argument, dict))
    return next((release for release in found if isinstance(release, int)), None)


def _numbers(returned: Any) -> dict[str, Any]:
    """Return the counts of a manifest, for the log: `release_id` is bound to every line as `release` already."""
    if not isinstance(returned, dict):
        return {}
    return {
        name: value
        for name, value in returned.items()
        if isinstance(value, int | float) and name not in {"release_id", "seconds"}
    }
