"""What tasks hand to each other: ids, URIs, counts and metrics, never data."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from estudio_core.lexical.settings import Fusion


class Manifest(BaseModel):
    """Base of all manifests: small, immutable, JSON-able."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    def as_dict(self) -> dict[str, Any]:
        """Return the manifest as plain JSON types, which is all that travels between tasks."""
        return self.model_dump(mode="json")


class SourceManifest(Manifest):
    """The item source is reachable and complete."""

    items: int


class SessionsManifest(Manifest):
    """Extracted sessions: those of the window, or so many of them as a run takes."""

    uri: str
    sessions: int
    clicked_sessions: int
    simulated_sessions: int
    since: str
    until: str
    """End of the window: sessions that are younger had not settled."""
    window_sessions: int = 0
    """All sessions of the window, of which `sessions` were taken."""
    waiting_sessions: int = 0
    """Those that had not settled: they wait for the next run."""
    queries: int = 0
    """Distinct queries of the sessions taken."""
    first: str | None = None
    """Time of the earliest session taken, ISO 8601; None without any."""
    last: str | None = None


class DatasetManifest(Manifest):
    """A stored training set."""

    plugin: str
    uri: str
    sessions_uri: str
    dataset_id: str
    sessions: dict[str, int]
    queries: dict[str, int]
    items: int
    missing_items: int
    items_on_both_sides: int
    simulated_sessions: int
    left_out: dict[str, int] = {}
    """Sessions that were extracted and not used, by reason."""
    not_by_relevance: int = 0
    """Sessions among those used whose lists were sorted otherwise, filtered, or a further page: clicks alone count."""
    window_sessions: int = 0
    """Sessions of the window; 0: not known."""
    extracted_sessions: int = 0
    """Those of them that were taken."""
    sessions_for_decision: int | None = None
    """Held-out sessions that a decision by clicks is likely to need; None where nothing says."""


class TrainingManifest(Manifest):
    """A trained candidate."""

    uri: str
    """Folder with `model/` and `history.json`."""
    dataset: DatasetManifest
    start_version: str
    item_version: str | None = None
    """Version whose vectors items keep, where queries alone were trained."""
    mlflow_run_id: str
    metrics: dict[str, float]
    params: dict[str, Any]
    seconds: float


class EvaluationManifest(Manifest):
    """Candidate and champion, compared."""

    uri: str
    """Folder with `report.html` and `report.json`."""
    training: TrainingManifest
    promoted: bool
    reason: str
    summary: str
    metrics: dict[str, float]
    undecided: bool = False
    """Whether there are but clicks, and they cannot tell."""


NextStep = Literal["request_release", "approve", "compare", "keep_champion"]
"""Id of the task that follows the registration."""


class RegistrationManifest(Manifest):
    """The candidate in the registry, and what happens next."""

    version: str | None
    promoted: bool
    reason: str
    summary: str
    next_step: NextStep
    report_uri: str


class PairsManifest(Manifest):
    """What a catalog alone gives to learn from and to judge by."""

    uri: str
    """Folder with the dataset, and `known_items.json`."""
    dataset_id: str
    items: int
    pairs: int
    """Queries with the item that each was made of."""
    known_items: int
    taught: bool
    """Whether a teacher scored the pairs, and others beside."""


class PretrainingManifest(Manifest):
    """A base model adapted to the catalog."""

    uri: str
    """Folder with `model/` and `history.json`."""
    pairs: PairsManifest
    base_version: str
    mlflow_run_id: str
    steps: int
    seconds: float


class JudgedManifest(Manifest):
    """Adapted and base model, compared."""

    uri: str
    """Folder with `report.html` and `report.json`."""
    training: PretrainingManifest
    promoted: bool
    reason: str
    summary: str
    metrics: dict[str, float]


class ImprovementManifest(Manifest):
    """Vectors that were moved by clicks, what they are worth on held-out sessions, and what is done with them."""

    uri: str
    """Folder with `report.html`, `report.json` and the vectors."""
    release_id: int
    state: Literal["applied", "refused", "off", "reverted"]
    reason: str
    since: str
    until: str
    sessions: int
    held_out_queries: int
    objects: int
    users: int
    metric: str
    base: float
    gain: float
    gain_low: float
    gain_high: float


class WatchManifest(Manifest):
    """What a watch saw of the live release and of its users, and what follows."""

    release_id: int
    model_version: str
    since: str
    until: str
    sessions: int
    reference_sessions: int
    """Sessions that stand for what training saw; 0 before the first training."""
    numbers: dict[str, float]
    """Measures by name; what could not be measured is absent."""
    drift: list[str]
    """Names of the measures beyond their thresholds."""
    reaction: Literal["none", "notify", "train"]
    summary: str


class PublishedManifest(Manifest):
    """A published entry of the model repository."""

    name: str
    version: str
    digest: str
    dimensions: int
    item_name: str | None = None
    """What encodes items, where that is another entry; and its version."""
    item_version: str | None = None
    ranking: Fusion = Fusion()
    """What the model was judged with beside words."""


class ShardManifest(Manifest):
    """One range of items to embed into a collection."""

    label: str
    release_id: int
    after: str | None
    until: str | None
    count: int


class LoadedShard(Manifest):
    """A shard whose items are in the collection."""

    release_id: int
    label: str
    items: int
    parts: int
    reused: int
    invalid: dict[str, str]
    """The first of the unusable items, by id, with the reason."""
    invalid_items: int
    seconds: float


class BuiltManifest(Manifest):
    """A collection with its index."""

    release_id: int
    items: int
    parts: int
    invalid_items: int
    seconds: float


class VerifiedManifest(Manifest):
    """A collection that passed its checks."""

    release_id: int
    recall_at_10: float
    ef_search: int
    golden_queries: int


class LiveManifest(Manifest):
    """A release that serves."""

    release_id: int
    previous_release_id: int | None
    version: str
    took_ms: float
    note: str = ""
    """What could not be done beside it, and is mended later."""


class ExperimentManifest(Manifest):
    """An experiment, and the releases that it compares."""

    experiment_id: str
    champion: int
    challenger: int


class SyncManifest(Manifest):
    """Live items that follow their source again."""

    release_id: int
    method: Literal["queue", "updated_at", "everything"]
    """How changes were found."""
    compared_at: str
    """When all rows were compared last, ISO 8601."""
    compare_hours: float
    """After how many hours they are again: no difference between table and live items stays for longer."""
    note: str
    """What keeps changes from being found sooner, and what to do; empty: nothing."""
    read: int
    """Rows that were looked at."""
    embedded: int
    payload_only: int
    """Items of unchanged text: their vectors stayed."""
    unchanged: int
    deleted: int
    invalid: dict[str, str]
    """The first of the unusable items, by id, with the reason; they are not found any more."""
    invalid_items: int
    seconds: float


class CleanUpManifest(Manifest):
    """What was dropped."""

    retired_releases: list[int]
    removed_models: list[str]
