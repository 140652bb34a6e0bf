"""Parameters of a run, one class for each kind of DAG: what its form shows, with ranges and defaults that run."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, JsonValue, create_model
from pydantic.fields import FieldInfo

from estudio_core.clickstream.sessions import SETTLE_MINUTES
from estudio_core.comparing.settings import ExperimentSettings, Form
from estudio_core.lexical.settings import MOST_WEIGHT
from estudio_core.strict_model import StrictModel
from lightning_modules.config import TrainingConfig


def _in(section: str) -> dict[str, JsonValue]:
    """Return what puts a field into a section of the form."""
    return {"section": section}


def _of_experiment(name: str, description: str) -> Any:
    """Return a field of the form that sets one of `ExperimentSettings`: range and default are said there."""
    field = copy(ExperimentSettings.model_fields[name])
    field.description = description
    return field


PRESETS: dict[str, dict[str, Any]] = {
    "plugin": {},
    "quick": {"max_sessions": 5_000, "num_epochs": 1},
    "thorough": {"trials": 12},
}
"""Values by preset. quick: does it run, is there anything to learn? thorough: twelve combinations, for a night."""


class _FineTune(StrictModel):
    """What a run of `fine_tune` does beside training."""

    preset: Literal["plugin", "quick", "thorough"] = Field(
        default="plugin",
        title="Preset",
        description="quick: one epoch on 5,000 sessions. thorough: twelve trials. "
        "Sets what is left empty below; plugin: what the plugin says.",
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
        description="Of more, these are drawn by lot from the whole window, and no query takes the place of others.",
    )
    settle_minutes: int = Field(
        json_schema_extra=_in("Sessions"),
        default=SETTLE_MINUTES,
        ge=0,
        le=10_080,
        title="Minutes to settle",
        description="Time within which clicks on a search arrive. Newer sessions wait for the next run.",
    )
    min_sessions: int = Field(
        json_schema_extra=_in("Sessions"),
        default=50,
        ge=1,
        title="Fewest sessions",
        description="With fewer clicked sessions the run is skipped.",
    )
    trials: int = Field(
        json_schema_extra=_in("Training"),
        default=1,
        ge=1,
        le=1000,
        title="Trials",
        description="Combinations of parameters to try.",
    )
    start_from: str = Field(
        json_schema_extra=_in("Training"),
        default="champion",
        title="Start from",
        description="Model version to train from: champion, base, or a version number.",
        pattern=r"^(champion|base|[1-9][0-9]{0,17})$",
    )
    promotion: Literal["auto", "manual", "approval", "experiment"] = Field(
        json_schema_extra=_in("Decision"),
        default="auto",
        title="Promotion",
        description="auto: release when the gate passes. manual: somebody moves the alias. approval: ask in this UI. "
        "experiment: as auto, and where clicks cannot tell, users decide between both releases.",
    )
    dry_run: bool = Field(
        json_schema_extra=_in("Decision"),
        default=False,
        title="Dry run",
        description="Train and evaluate, but register and release nothing.",
    )


class FineTuneRun(_FineTune):
    """What one run of `fine_tune` does, everything decided: see `precedence.resolve`."""

    training: TrainingConfig
    of_plugin: tuple[str, ...] = ()
    """Parameters of training that the plugin sets: a search begins with their values."""
    of_form: tuple[str, ...] = ()
    """Parameters of training that form, plugin's defaults of the form, or preset set: a search leaves them alone."""


class _Form(StrictModel):
    """Parameters of one `fine_tune` run: the form in the Airflow UI.

    What is left empty (None), the preset decides, then the plugin, then the installation.
    """

    left_empty: ClassVar[dict[str, Any]] = {}
    """Fields that the form shows empty, with what holds where nobody says otherwise: those that a preset may set, and
    the parameters of training. Of a field that was filled in beforehand nobody could tell who wants its value."""

    @property
    def filled_in(self) -> dict[str, Any]:
        """The values that were given, by name."""
        return {name: value for name in self.model_fields_set if (value := getattr(self, name)) is not None}


def _form_fields() -> dict[str, Any]:
    """Return the form's fields in their order: parameters of training stand before what else belongs to training."""
    by_presets = {name for values in PRESETS.values() for name in values}
    fields: dict[str, Any] = {}
    for name, field in _FineTune.model_fields.items():
        if name == "trials":
            for parameter in TrainingConfig.settable("form"):
                fields[parameter] = _empty(parameter, TrainingConfig.model_fields[parameter], "Training")
        fields[name] = _empty(name, field, None) if name in by_presets else (field.annotation, field)
    return fields


def _empty(name: str, field: FieldInfo, section: str | None) -> tuple[Any, FieldInfo]:
    """Return a field that may be left empty; `left_empty` keeps its default."""
    _Form.left_empty[name] = field.default
    extra = field.json_schema_extra if section is None else _in(section)
    annotated: Any = Annotated
    annotation: Any = annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    empty: Any = Field(default=None, title=field.title, description=field.description, json_schema_extra=extra)
    return annotation | None, empty


if TYPE_CHECKING:

    class FineTuneParams(_Form):
        """Parameters of one `fine_tune` run: those of `_FineTune`, and of training those whose place is the form."""

        def __init__(self, **values: Any) -> None: ...

else:
    FineTuneParams = create_model("FineTuneParams", __base__=_Form, __doc__=_Form.__doc__, **_form_fields())


KeepReleases = Annotated[
    int | None,
    Field(
        ge=2,
        le=20,
        title="Releases to keep",
        description="The live one included; older ones are dropped. Empty: ESTUDIO_KEEP_RELEASES, which is 2 unset.",
    ),
]


_VERSION = r"^(challenger|champion|base|previous|[1-9][0-9]{0,17})$"
"""A version of a model, by its alias or its number."""


class ReleaseParams(StrictModel):
    """Parameters of one `release` run."""

    version: str = Field(
        default="challenger",
        title="Model version",
        description="An alias (challenger, champion, base, previous) or a version number.",
        pattern=_VERSION,
    )
    keep_releases: KeepReleases = None


class InitializeParams(StrictModel):
    """Parameters of one `initialize` run."""

    pretrain: Literal["off", "catalog"] = Field(
        default="off",
        title="Pretraining",
        description="catalog: adapt the base model to the items' texts first, and serve that where it is better on "
        "items that it has not seen, and by judgments where there are some. off: serve the base model as it is.",
    )
    keep_releases: KeepReleases = None


class ExperimentParams(StrictModel):
    """Parameters of one `experiment` run."""

    version: str = Field(
        default="challenger",
        title="Model version",
        description="What is compared with the live release: an alias or a version number. 'champion' with another "
        "weight of words compares two settings of what is live.",
        pattern=_VERSION,
    )
    words_weight: float | None = Field(
        default=None,
        title="Weight of words",
        description="Of BM25 beside similarity, for the challenger. Empty: what the version was trained for.",
        ge=0,
        le=MOST_WEIGHT,
    )
    name: str = Field(
        default="",
        title="Name",
        description="Of the experiment: letters, digits and _.+:-. Empty: that of the run.",
        max_length=200,
        pattern=r"^([A-Za-z0-9][A-Za-z0-9_.+:-]*)?$",
    )
    form: Form = Field(
        default="interleaving",
        title="Form",
        description="interleaving: both releases' results in one list. ab: each client is served by one of them.",
    )
    confidence: float = _of_experiment("confidence", "Level of the verdict, whenever one looks.")
    minimum_visits: int = _of_experiment("minimum_visits", "That decide, before a challenger may be called better.")
    harm_bound: float = _of_experiment("harm_bound", "Credit below minus this, likely, ends the experiment at once.")
    harm_confidence: float = _of_experiment("harm_confidence", "Level at which that is likely.")
    equal_within: float = _of_experiment("equal_within", "Credit certainly nearer to zero is no difference. 0: never.")
    most_days: float = _of_experiment("most_days", "Then it ends and the champion stays.")
    settle_minutes: float = _of_experiment("settle_minutes", "Time within which clicks arrive; length of a visit.")
    share: float = _of_experiment("share", "Of searches, or of clients, that take part.")
    usual_success: float = _of_experiment("usual_success", "For ab: share of searches that are clicked, about.")

    @property
    def settings(self) -> dict[str, float]:
        """Those that are of the experiment itself."""
        return {name: getattr(self, name) for name in ExperimentSettings.model_fields if hasattr(self, name)}


class SyncParams(StrictModel):
    """Parameters of one `sync` run."""

    everything: bool = Field(
        default=False,
        title="Compare everything",
        description="Read all rows and compare them, not only those that say they changed.",
    )
    compare_hours: float = Field(
        default=24,
        ge=0,
        le=8_760,
        title="Compare everything after, hours",
        description="Longest time between two syncs that compare all rows, however changes are found otherwise: some "
        "come without firing a trigger or moving a time, such as those of a detached partition. 0: each compares all.",
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
        default=SETTLE_MINUTES,
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
        pattern=r"^(previous|[1-9][0-9]{0,17})$",
    )
