"""What a plugin says of its DAGs, beside what it does."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue, ValidationInfo, field_validator

from estudio_core.ids import storable
from estudio_core.plugin.run_params import WatchParams
from estudio_core.plugin.schedules import comes_true, problem_with
from estudio_core.strict_model import StrictModel

DagKind = Literal["experiment", "fine_tune", "improve", "initialize", "release", "rollback", "sync", "watch"]
"""What comes after `<plugin>__` in a DAG's id."""

_Minutes = Annotated[int, Field(ge=1, le=525_600)]
"""A year at most: a time limit beyond what clocks and databases can add up is none."""

_EVERY_SESSIONS = re.compile(r"every ([1-9][0-9]{0,8}) new sessions")


class Notice(StrictModel):
    """Somebody to tell: an Airflow notifier, or a function that takes Airflow's context, by its import path.

    It is imported by Airflow only, so a plugin file stays light.

    >>> smtp = "airflow.providers.smtp.notifications.smtp.SmtpNotifier"
    >>> Notice(call=smtp, arguments={"to": "search@example.org"}).arguments
    {'to': 'search@example.org'}
    """

    call: str = Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")
    """`package.module.Name` of a `BaseNotifier` class or of a function."""
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    """Arguments of the class, or of the function after the context: JSON values. Notifiers render templates in them."""


class DagSettings(StrictModel):
    """What Airflow has to know of a plugin before anything heavy is imported."""

    schedule: str | None = None
    """When `fine_tune` runs: a cron expression, or "every 500 new sessions"; None: by hand."""
    sync_schedule: str | None = None
    """Cron expression of `sync`; None: by hand."""
    improve_schedule: str | None = None
    """Cron expression of `improve`; None: by hand."""
    watch_schedule: str | None = "@daily"
    """Cron expression of `watch`; None: by hand."""
    watch: WatchParams = WatchParams()
    """Defaults of the `watch` form: thresholds of drift, and whether it trains or only notifies."""
    on_failure: tuple[Notice, ...] = ()
    """Whom to tell when a run of a DAG of this plugin fails."""
    on_success: tuple[Notice, ...] = ()
    """Whom to tell when a run of a DAG of this plugin succeeds."""
    on_drift: tuple[Notice, ...] = ()
    """Whom to tell of drift; templates find the `watch` run's findings under `drift`."""
    deadline_minutes: dict[DagKind, _Minutes] = Field(default_factory=dict)
    """Minutes by kind of DAG, such as `{"fine_tune": 480}`, within which a run should end once it is queued."""
    on_late: tuple[Notice, ...] = ()
    """Whom to tell when a deadline passes, from Airflow's triggerer: notifiers that work asynchronously, or coroutine
    functions. Without any, the triggerer logs a warning."""
    owner: Annotated[str, Field(min_length=1, max_length=500), AfterValidator(storable)] = "estudio"
    """Whom Airflow shows as owner of the DAGs."""
    tags: tuple[Annotated[str, Field(min_length=1, max_length=100), AfterValidator(storable)], ...] = ()
    """Tags of the DAGs in Airflow, beside `estudio` and the plugin's name."""
    shards: int = Field(default=4, ge=1, le=256)
    """Mapped tasks into which embedding of the items is divided, at least."""
    shard_items: int = Field(default=250_000, ge=1_000)
    """Most items of such a task, as long as there are no more than 1,000 of them."""
    retries: int = Field(default=2, ge=0, le=10)
    """Retries of a task after a connection error; wrong data is never retried."""
    task_timeout_minutes: _Minutes = 60
    """Time limit of a task. One that embeds items goes on where it was when it is tried again."""
    index_timeout_minutes: _Minutes = 720
    """Time limit of the task that builds the index: one statement, which begins anew when it is tried again."""
    training_timeout_minutes: _Minutes = 360
    """Time limit of the task that trains."""

    @property
    def every_sessions(self) -> int | None:
        """Number of new clicked sessions that start `fine_tune`; None where `schedule` says something else.

        >>> DagSettings(schedule="every 500 new sessions").every_sessions
        500
        """
        found = _EVERY_SESSIONS.fullmatch(self.schedule or "")
        return int(found[1]) if found else None

    def _contradiction(self) -> str | None:
        if self.on_late and not self.deadline_minutes:
            return "on_late tells of nothing without deadline_minutes, such as {'fine_tune': 480}"
        return None

    @field_validator("schedule", "sync_schedule", "improve_schedule", "watch_schedule")
    @classmethod
    def _cron_or_sessions(cls, schedule: str | None, info: ValidationInfo) -> str | None:
        if schedule is None or (info.field_name == "schedule" and _EVERY_SESSIONS.fullmatch(schedule)):
            return schedule
        problem = problem_with(schedule)
        if problem is None:
            return schedule
        also = ' or "every 500 new sessions"' if info.field_name == "schedule" else ""
        raise ValueError(
            f"{schedule!r} is no schedule that Airflow can carry out ({problem}): use a cron expression such as "
            f'"30 2 * * *"{also}'
        )

    @property
    def never(self) -> dict[str, str]:
        """Schedules by field that name no moment that ever comes, such as 30 February.

        >>> DagSettings(sync_schedule="0 0 30 2 *").never
        {'sync_schedule': '0 0 30 2 *'}
        """
        names = ("schedule", "sync_schedule", "improve_schedule", "watch_schedule")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.every_sessions is not None:
            del given["schedule"]
        return {name: value for name, value in given.items() if not comes_true(value)}
