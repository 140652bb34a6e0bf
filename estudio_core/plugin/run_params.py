"""Parameters of a run, one class for each kind of DAG: what its form shows, with ranges and defaults that run."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, JsonValue

from estudio_core.strict_model import StrictModel


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
        description="Groups of sessions of a query per optimiser step.",
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
        json_schema_extra=_in("Training"),
        default=42,
        ge=0,
        title="Seed",
        description="Of batches and training. The split of the queries does not change with it.",
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
    keep_releases: int | None = Field(
        default=None,
        ge=2,
        le=20,
        title="Releases to keep",
        description="The live one included; older ones are dropped. Empty: ESTUDIO_KEEP_RELEASES, which is 2 unset.",
    )


class InitializeParams(StrictModel):
    """Parameters of one `initialize` run."""

    keep_releases: int | None = Field(
        default=None,
        ge=2,
        le=20,
        title="Releases to keep",
        description="The live one included; older ones are dropped. Empty: ESTUDIO_KEEP_RELEASES, which is 2 unset.",
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
        description="Share of the live items. A sync that would delete more, because rows are gone or cannot be used, "
        "is refused: the table was probably emptied or exchanged by mistake.",
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
    settle_minutes: int = Field(
        default=30,
        ge=0,
        le=10_080,
        title="Minutes to settle",
        description="Time within which clicks on a search arrive. Newer sessions wait for the next run.",
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


class WatchParams(StrictModel):
    """Parameters of one `watch` run; a plugin gives its own defaults by `DagSettings(watch=WatchParams(...))`."""

    on_drift: Literal["notify", "train"] = Field(
        default="notify",
        title="On drift",
        description="train: start fine_tune, once for the same drift, and notify. notify: only that.",
    )
    window_days: int = Field(
        json_schema_extra=_in("Sessions"),
        default=14,
        ge=1,
        le=3650,
        title="Window",
        description="Days of sessions to look at; of these, the ones since the last training.",
    )
    reference_days: int = Field(
        json_schema_extra=_in("Sessions"),
        default=90,
        ge=1,
        le=3650,
        title="Days of training",
        description="Days before the end of the last training whose sessions stand for what it saw.",
    )
    max_sessions: int = Field(
        json_schema_extra=_in("Sessions"),
        default=20_000,
        ge=100,
        le=1_000_000,
        title="Most sessions",
        description="Of each side; the newest are taken.",
    )
    min_sessions: int = Field(
        json_schema_extra=_in("Sessions"),
        default=100,
        ge=10,
        title="Fewest sessions",
        description="With fewer fresh sessions drift is not measured; everything else is.",
    )
    max_queries: int = Field(
        json_schema_extra=_in("Sessions"),
        default=1000,
        ge=10,
        le=100_000,
        title="Most queries",
        description="Queries that the live release answers and encodes, drawn by lot.",
    )
    new_queries: float = Field(
        json_schema_extra=_in("Drift"),
        default=0.2,
        ge=0,
        le=1,
        title="New queries",
        description="Share of sessions with a query that training never saw, beyond chance, that counts as drift.",
    )
    query_shift: float = Field(
        json_schema_extra=_in("Drift"),
        default=0.2,
        ge=0,
        le=2,
        title="Shift of queries",
        description="Move of the mean query vector, in mean distances of a query from it, beyond chance.",
    )
    click_drop: float = Field(
        json_schema_extra=_in("Drift"),
        default=0.2,
        ge=0,
        lt=1,
        title="Drop of clicks",
        description="Share of the clicks expected from training, position by position, that is certain to be missing.",
    )
    confidence: float = Field(
        json_schema_extra=_in("Drift"),
        default=0.99,
        ge=0.9,
        lt=1,
        title="Confidence",
        description="Level of what counts as chance.",
    )


class RollbackParams(StrictModel):
    """Parameters of one `rollback` run."""

    target: str = Field(
        default="previous",
        title="Release to go back to",
        description="previous, or the number of a release that is still kept.",
        pattern=r"^(previous|[1-9][0-9]*)$",
    )
