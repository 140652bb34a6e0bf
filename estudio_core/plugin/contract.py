"""What a search plugin is: a name and the methods from which Estudio builds its DAGs."""

from __future__ import annotations

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationInfo, field_validator

from estudio_core.strict_model import StrictModel

if TYPE_CHECKING:
    from estudio_core.clickstream.query_retriever import QueryRetriever
    from estudio_core.clickstream.sessions import SessionWithEvents
    from estudio_core.evaluation.judgments import Judgments
    from estudio_core.experiments.manager import ExperimentsManager
    from estudio_core.improvement.vectors_adjuster import VectorsAdjuster
    from estudio_core.inference.clients import TritonClientFactory
    from estudio_core.preprocessing.preprocessor import ItemsDatasetDictPreprocessor
    from estudio_core.preprocessing.splitters import ItemSplitter
    from estudio_core.sources.data_loader import DataLoader
    from estudio_core.vectordb.index_info import SearchIndexInfo
    from estudio_core.vectordb.optimization import Optimization

_EVERY_SESSIONS = re.compile(r"every ([1-9][0-9]{0,8}) new sessions")
_PLUGIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")


class PluginMeta(StrictModel):
    """Identity of a plugin. The name becomes part of DAG ids, tables and model names."""

    name: str
    version: str = "1.0.0"
    description: str | None = None

    @field_validator("name")
    @classmethod
    def _usable_everywhere(cls, name: str) -> str:
        if not _PLUGIN_NAME.fullmatch(name) or "__" in name:
            raise ValueError(
                f"{name!r} cannot name a plugin: use a letter, then letters, digits and single underscores, 40 at most"
            )
        return name


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


def _in(section: str) -> dict[str, JsonValue]:
    """Return what puts a field into a section of the form."""
    return {"section": section}


PRESETS: dict[str, dict[str, Any]] = {
    "plugin": {},
    "quick": {"max_sessions": 5_000, "num_epochs": 1},
    "thorough": {"trials": 12},
}
"""Values by preset. quick: does it run, is there anything to learn? thorough: twelve combinations, for a night."""


class FineTuneParams(StrictModel):
    """Parameters of one `fine_tune` run: the form in the Airflow UI.

    A field without a value here (None) takes what the plugin says.
    """

    preset: Literal["plugin", "quick", "thorough"] = Field(
        default="plugin",
        title="Preset",
        description="quick: one epoch on the newest 5,000 sessions. thorough: twelve trials. "
        "Sets what is left at its default below; plugin: what the plugin says.",
    )
    window_days: int = Field(
        json_schema_extra=_in("Sessions"),
        default=90,
        ge=1,
        le=3650,
        title="Window of sessions",
        description="Days of clickstream to learn from.",
    )
    max_sessions: int = Field(
        json_schema_extra=_in("Sessions"),
        default=50_000,
        ge=1,
        le=10_000_000,
        title="Most sessions",
        description="The newest ones are taken.",
    )
    min_sessions: int = Field(
        json_schema_extra=_in("Sessions"),
        default=50,
        ge=1,
        title="Fewest sessions",
        description="With fewer clicked sessions the run is skipped.",
    )
    num_epochs: int | None = Field(
        json_schema_extra=_in("Training"),
        default=None,
        ge=1,
        le=1000,
        title="Epochs",
        description="Passes over the sessions.",
    )
    batch_size: int | None = Field(
        json_schema_extra=_in("Training"),
        default=None,
        ge=1,
        le=4096,
        title="Batch size",
        description="Sessions per step.",
    )
    learning_rate: float | None = Field(
        json_schema_extra=_in("Training"),
        default=None,
        gt=0,
        le=1,
        title="Learning rate",
        description="Peak rate, for queries and items.",
    )
    num_fixed_layers: int | None = Field(
        json_schema_extra=_in("Training"),
        default=None,
        ge=0,
        le=100,
        title="Frozen layers",
        description="Lowest transformer layers that are not trained.",
    )
    margin: float | None = Field(
        json_schema_extra=_in("Training"),
        default=None,
        ge=0,
        le=2,
        title="Margin",
        description="Wanted similarity gap of clicked over skipped items.",
    )
    trials: int = Field(
        json_schema_extra=_in("Training"),
        default=1,
        ge=1,
        le=1000,
        title="Trials",
        description="Hyper-parameter combinations to try.",
    )
    start_from: str = Field(
        json_schema_extra=_in("Training"),
        default="champion",
        title="Start from",
        description="Model version to train from: champion, base, or a version number.",
        pattern=r"^(champion|base|[1-9][0-9]*)$",
    )
    promotion: Literal["auto", "manual", "approval"] = Field(
        json_schema_extra=_in("Decision"),
        default="auto",
        title="Promotion",
        description="auto: release when the gate passes. manual: somebody moves the alias. approval: ask in this UI.",
    )
    seed: int = Field(
        json_schema_extra=_in("Training"), default=42, ge=0, title="Seed", description="Of split, batches and training."
    )
    dry_run: bool = Field(
        json_schema_extra=_in("Decision"),
        default=False,
        title="Dry run",
        description="Train and evaluate, but register and release nothing.",
    )

    def with_preset(self) -> Self:
        """Return the parameters with what the preset says, where they stand at the defaults of this class.

        >>> FineTuneParams(preset="quick").with_preset().num_epochs
        1
        >>> FineTuneParams(preset="quick", num_epochs=3).with_preset().num_epochs
        3
        """
        fields = type(self).model_fields
        changes = {
            name: value for name, value in PRESETS[self.preset].items() if getattr(self, name) == fields[name].default
        }
        return self.model_copy(update=changes)


class ReleaseParams(StrictModel):
    """Parameters of one `release` run."""

    version: str = Field(
        default="challenger",
        title="Model version",
        description="An alias (challenger, champion, base, previous) or a version number.",
        pattern=r"^(challenger|champion|base|previous|[1-9][0-9]*)$",
    )
    keep_releases: int = Field(
        default=2, ge=2, le=20, title="Releases to keep", description="The live one included; older ones are dropped."
    )


class InitializeParams(StrictModel):
    """Parameters of one `initialize` run."""

    keep_releases: int = Field(
        default=2, ge=2, le=20, title="Releases to keep", description="The live one included; older ones are dropped."
    )


class SyncParams(StrictModel):
    """Parameters of one `sync` run."""

    everything: bool = Field(
        default=False,
        title="Compare everything",
        description="Read all rows and compare them, not only those that say they changed.",
    )
    overlap_minutes: int = Field(
        default=10,
        ge=0,
        le=10_080,
        title="Overlap in minutes",
        description="Longest transaction of whoever writes items, and error of their clocks: a change may become "
        "visible so much later than its time of change. Rows changed that long before the last sync are looked at "
        "again.",
    )
    most_deleted_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        title="Most deletions",
        description="Share of the live items. A sync that would delete more is refused: the table was probably "
        "emptied or exchanged by mistake.",
    )


class ImproveParams(StrictModel):
    """Parameters of one `improve` run."""

    action: Literal["improve", "revert"] = Field(
        default="improve", title="Action", description="revert: give moved vectors back what the model gave them."
    )
    personal: bool = Field(
        default=False,
        title="For each user",
        description="Move the vectors that a user's own clicks are about for that user only; sessions need a user.",
    )
    max_angle_degrees: float = Field(
        default=10.0,
        gt=0,
        le=45,
        title="Greatest turn",
        description="Degrees by which a vector may lie from what the model gave, over all runs.",
    )
    min_sessions: int = Field(
        default=20, ge=1, title="Fewest sessions", description="With fewer new clicked sessions the run is skipped."
    )
    min_held_out_queries: int = Field(
        default=10,
        ge=2,
        title="Fewest held-out queries",
        description="With fewer, nothing is measured and nothing moved.",
    )
    window_days: int = Field(
        default=90, ge=1, le=3650, title="Window", description="Days whose held-out sessions measure the effect."
    )
    before_release_days: int = Field(
        default=0,
        ge=0,
        le=3650,
        title="Days before the release",
        description="Sessions from before the release that may move vectors too; its training has seen most of them.",
    )
    max_sessions: int = Field(
        default=50_000, ge=1, le=10_000_000, title="Most sessions", description="The newest ones are taken."
    )


class RollbackParams(StrictModel):
    """Parameters of one `rollback` run."""

    target: str = Field(
        default="previous",
        title="Release to go back to",
        description="previous, or the number of a release that is still kept.",
        pattern=r"^(previous|[1-9][0-9]*)$",
    )


class FineTuningBuilder(BaseModel):
    """Everything that training needs, put together by a plugin."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    data_loader: Any
    query_retriever: Any
    clickstream_sessions_converter: Any
    clickstream_sessions_splitter: Any
    dataset_fields_normalizer: Any
    items_set_manager: Any
    accumulators: Sequence[Any]
    experiments_manager: Any
    fine_tuning_settings: Any
    initial_params: dict[str, list[Any]]
    ranking_data: Any
    initial_max_evals: int = Field(default=100, ge=1)


class FineTuningMethod(ABC):
    """A search plugin. Subclass it, give `meta`, implement the ten methods.

    Constructing a plugin must be cheap where it can be; nothing here may change state.
    """

    meta: ClassVar[PluginMeta]
    dag_settings: ClassVar[DagSettings] = DagSettings()
    gate_settings: ClassVar[GateSettings] = GateSettings()
    fine_tune_params: ClassVar[FineTuneParams] = FineTuneParams()

    def __setattr__(self, name: str, value: Any) -> None:
        # Plugins update their search space in place; what they assign may be shared with others.
        super().__setattr__(name, copy.deepcopy(value) if name == "initial_params" else value)

    @abstractmethod
    def upload_initial_model(self) -> None:
        """Register the base model with `get_manager().upload_initial_model(model)`."""

    @abstractmethod
    def get_query_retriever(self) -> QueryRetriever:
        """Return what turns a session's query into the model's input."""

    @abstractmethod
    def get_items_preprocessor(self) -> ItemsDatasetDictPreprocessor:
        """Return what turns a loaded item into text."""

    @abstractmethod
    def get_data_loader(self) -> DataLoader:
        """Return the loader of the items."""

    @abstractmethod
    def get_manager(self) -> ExperimentsManager:
        """Return the manager of MLflow runs and registered versions."""

    @abstractmethod
    def get_inference_client_factory(self) -> TritonClientFactory:
        """Return what opens a client for a served model version."""

    @abstractmethod
    def get_fine_tuning_builder(self, clickstream: list[SessionWithEvents]) -> FineTuningBuilder:
        """Turn sessions into training data and everything else that training needs."""

    @abstractmethod
    def get_search_index_info(self) -> SearchIndexInfo:
        """Return how vectors are stored and compared."""

    @abstractmethod
    def get_vectors_adjuster(self) -> VectorsAdjuster:
        """Return what moves vectors between two trainings."""

    @abstractmethod
    def get_vectordb_optimizations(self) -> list[Optimization]:
        """Return what is applied once to each new collection."""

    def get_items_splitter(self) -> ItemSplitter:
        """Return what splits an item's text into parts; by default the one training uses.

        The same splitter has to serve training and index: `items_set_manager` of the plugin is asked for it.
        """
        from estudio_core.preprocessing.splitters import NoSplitter

        manager = getattr(self, "items_set_manager", None)
        return manager.item_splitter if manager is not None else NoSplitter()

    def get_judgments(self) -> Judgments | None:
        """Return human relevance judgments to evaluate on, where there are any."""
        return None
