"""Whom a plugin tells: Airflow's notifiers and callbacks by import path, and deadlines of runs."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import structlog
from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

from estudio_core.errors import ConfigurationError
from estudio_core.plugin.dag_settings import DagKind, DagSettings, Notice

logger = structlog.get_logger("estudio.notices")


def callbacks(notices: tuple[Notice, ...]) -> list[Callable[[Any], Any]] | None:
    """Return what Airflow calls with its context: notifiers, made anew, and functions; None for no notices.

    Raises:
        ConfigurationError: a path leads to nothing that can be called, or its arguments are wrong.
    """
    return [_callback(notice) for notice in notices] or None


def deadlines(settings: DagSettings, kind: DagKind) -> list[DeadlineAlert] | None:
    """Return the deadline of the runs of one DAG, once for each whom to tell; None where there is none.

    Raises:
        ConfigurationError: a path leads to nothing that can be awaited.
    """
    minutes = settings.deadline_minutes.get(kind)
    if minutes is None:
        return None
    told = settings.on_late or (Notice(call=f"{__name__}.{log_late.__name__}"),)
    return [
        DeadlineAlert(
            reference=DeadlineReference.DAGRUN_QUEUED_AT,
            interval=timedelta(minutes=minutes),
            callback=AsyncCallback(_awaitable(notice), kwargs=notice.arguments),
            name=f"{minutes} minutes",
        )
        for notice in told
    ]


async def log_late(context: Any = None, **_: Any) -> None:
    """Log that a run is late: what a deadline does where nobody is to be told."""
    run = (context or {}).get("dag_run") or {}
    logger.warning("deadline passed", dag_id=_field(run, "dag_id"), run=_field(run, "dag_run_id", "run_id"))


def _field(run: Any, *names: str) -> Any:
    values = (run.get(name) if isinstance(run, dict) else getattr(run, name, None) for name in names)
    return next((value for value in values if value is not None), None)


def _callback(notice: Notice) -> Callable[[Any], Any]:
    found = _found(notice)
    if not inspect.isclass(found):
        return functools.partial(found, **notice.arguments) if notice.arguments else found
    try:
        return cast("Callable[[Any], Any]", found(**notice.arguments))
    except TypeError as error:
        raise ConfigurationError(f"The notifier {notice.call!r} cannot be made: {error}.") from error


def _awaitable(notice: Notice) -> Callable[..., Any]:
    found = _found(notice)
    if not (inspect.iscoroutinefunction(found) or hasattr(found, "__await__")):
        raise ConfigurationError(
            f"{notice.call!r} cannot tell of a deadline: Airflow's triggerer awaits it. Give a coroutine function "
            "(async def) or a notifier."
        )
    return found


def _found(notice: Notice) -> Callable[..., Any]:
    module, _, name = notice.call.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"There is nobody to tell at {notice.call!r}: {error}. Give the import path of an Airflow notifier or of a "
            "function, in a package that is installed where Airflow runs."
        ) from error
    if not callable(found):
        raise ConfigurationError(f"{notice.call!r} is a {type(found).__name__}; give a notifier class or a function.")
    return found  # type: ignore[no-any-return]
