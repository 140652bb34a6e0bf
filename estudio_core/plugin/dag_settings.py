"""What a plugin says of its DAGs, of the gate and of how its models are served, beside what it does."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from estudio_core.strict_model import StrictModel

_EVERY_SESSIONS = re.compile(r"every ([1-9][0-9]{0,8}) new sessions")


class GateSettings(StrictModel):
    """When a candidate may replace the champion."""

    metric: Literal["ndcg@10", "mrr@10", "recall@10"] = "ndcg@10"
    minimum_gain: float = Field(default=0.0, ge=-1, le=1, title="Least gain")
    """What the gain has to exceed for certain (lower end of its confidence interval), in units of the metric."""
    maximum_loss: float = Field(default=0.03, ge=0, le=1, title="Largest loss that may remain possible")
    """For queries training never saw, beside enough that it did: their mean gain has to exceed `minimum_gain`, and its
    interval has to rule out a loss of more than this, in units of the metric. A few dozen judged queries can seldom
    prove a gain, and can prove that nothing is ruined. 0: the gain has to be certain there too."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Level of the paired bootstrap interval."""
    minimum_queries: int = Field(default=10, ge=2)
    """Fewer evaluated queries than this in a group, and the group decides nothing."""


class ExportSettings(StrictModel):
    """In how many bits a plugin's models are served."""

    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    """int8, per channel, doubles the speed of queries on CPUs at a loss that is measured; fp16 is for GPUs."""
    maximum_ndcg_loss: float = Field(default=0.005, ge=0, le=1)
    """Largest loss of nDCG@10 on held-out queries, against fp32, at which a model in fewer bits is published."""


class DagSettings(StrictModel):
    """What Airflow has to know of a plugin before anything heavy is imported."""

    schedule: str | None = None
    """When `fine_tune` runs: a cron expression, or "every 500 new sessions"; None: by hand."""
    sync_schedule: str | None = None
    """Cron expression of `sync`; None: by hand."""
    improve_schedule: str | None = None
    """Cron expression of `improve`; None: by hand."""
    owner: str = "estudio"
    tags: tuple[str, ...] = ()
    shards: int = Field(default=4, ge=1, le=256)
    """Mapped tasks into which embedding of the items is divided."""
    retries: int = Field(default=2, ge=0, le=10)
    """Retries of a task after a connection error; wrong data is never retried."""
    task_timeout_minutes: int = Field(default=60, ge=1)
    training_timeout_minutes: int = Field(default=360, ge=1)

    @property
    def every_sessions(self) -> int | None:
        """Number of new clicked sessions that start `fine_tune`; None where `schedule` says something else.

        >>> DagSettings(schedule="every 500 new sessions").every_sessions
        500
        """
        found = _EVERY_SESSIONS.fullmatch(self.schedule or "")
        return int(found[1]) if found else None

    @field_validator("schedule", "improve_schedule")
    @classmethod
    def _cron_or_sessions(cls, schedule: str | None, info: ValidationInfo) -> str | None:
        by_sessions = info.field_name == "schedule" and _EVERY_SESSIONS.fullmatch(schedule or "")
        if schedule is None or by_sessions or schedule.startswith("@") or len(schedule.split()) == 5:
            return schedule
        also = ' or "every 500 new sessions"' if info.field_name == "schedule" else ""
        raise ValueError(f'{schedule!r} is no schedule: use a cron expression such as "30 2 * * *"{also}')
