"""Between two trainings: vectors of shown items moved by what was clicked, measured before anybody is served them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from estudio_core import database
from estudio_core.artifacts import ArtifactStore
from estudio_core.errors import NotEnoughDataError
from estudio_core.improvement import ledger
from estudio_core.pipeline.improvement.moved_vectors import save_moved
from estudio_core.pipeline.improvement.report import IMPROVEMENT_STEP, write_report
from estudio_core.pipeline.improvement.sessions import check_enough, improvable_release, read_sessions
from estudio_core.pipeline.manifests import ImprovementManifest
from estudio_core.plugin.registry import open_plugin
from estudio_core.plugin.run_params import ImproveParams
from estudio_core.progress import report
from estudio_core.vectordb.releases import Release

if TYPE_CHECKING:
    import psycopg

    from estudio_core.clickstream.ranking_data import FineTuningInput
    from estudio_core.evaluation.bootstrap import Estimate
    from estudio_core.evaluation.gate_settings import GateSettings
    from estudio_core.improvement.learning import HeldOut, Key, Vectors

METRIC = "shown_ndcg@10"


@dataclass(frozen=True)
class _Stored:
    """Vectors of the collection now, those the model gave, and the hash of what they were computed from."""

    now: dict[Key, Vectors] = field(default_factory=dict)
    base: dict[Key, Vectors] = field(default_factory=dict)
    hashes: dict[Key, str] = field(default_factory=dict)


def adjust(plugin_name: str, run_id: str, params: dict[str, Any]) -> ImprovementManifest:
    """Move vectors by the sessions since the last run, measure them on held-out sessions, and decide.

    The newest sessions wait for a later run, until clicks on them have had `settle_minutes` to arrive.

    Sessions are divided by query as for training: those of the training side move vectors, those of the other side only
    measure, so that neither this nor the gate is asked about what was learned. Sessions that moved vectors served do
    not measure: their clicks stand where those vectors put them. Nothing is written to the collection.

    Raises:
        NotEnoughDataError: nothing is live, it was switched off, or there are too few sessions to learn or measure.
    """
    from estudio_core.improvement.learning import held_out, move

    wanted = ImproveParams.model_validate(params)
    plugin = open_plugin(plugin_name)
    until = datetime.now(UTC) - timedelta(minutes=wanted.settle_minutes)
    with database.connect() as connection:
        database.require_schema(connection)
        release, since = improvable_release(connection, plugin_name, wanted)
        sessions = read_sessions(connection, plugin, wanted, since, until)
        check_enough(sessions, wanted, since)
        stored = _stored(connection, release, [*sessions.learned, *sessions.held_out], wanted.personal)
        connection.commit()
    queries = _queries(release, [*sessions.learned, *sessions.held_out])
    words = _words(release, sessions.held_out)
    report("Improve", 0, len(sessions.learned), "sessions")
    moved = move(
        plugin.vectors_adjuster,
        sessions.learned,
        queries,
        stored.now,
        stored.base,
        wanted.max_angle_degrees,
        wanted.personal,
    )
    report("Improve", len(sessions.learned), len(sessions.learned), "sessions")
    ranked = {
        name: held_out(sessions.held_out, queries, vectors, release, words, wanted.personal)
        for name, vectors in (("base", stored.base), ("now", stored.now), ("moved", stored.now | moved))
    }
    results = {name: of_vectors.metrics() for name, of_vectors in ranked.items()}
    if not results["base"].queries:
        raise NotEnoughDataError(
            "No held-out session shows both a clicked and a skipped item: nothing can be measured."
        )
    gains = _gains(ranked, plugin.training.examination_exponent, plugin.gate)
    state, reason = _decide(gains, bool(moved))
    store = ArtifactStore()
    with store.publish(plugin_name, run_id, IMPROVEMENT_STEP) as folder:
        save_moved(folder, moved, stored.base, stored.hashes)
        manifest = ImprovementManifest(
            uri=store.uri(plugin_name, run_id, IMPROVEMENT_STEP),
            release_id=release.release_id,
            state=state,
            reason=reason,
            since=since.isoformat(),
            until=until.isoformat(),
            sessions=len(sessions.learned),
            held_out_queries=len(results["base"].queries),
            objects=len(moved),
            users=len({user for _, user in moved if user is not None}),
            metric=METRIC,
            base=float(results["base"].values[METRIC].mean()),
            gain=gains["moved"].mean,
            gain_low=gains["moved"].low,
            gain_high=gains["moved"].high,
        )
        write_report(folder, plugin_name, manifest, results)
    return manifest


def _stored(
    connection: psycopg.Connection, release: Release, sessions: Iterable[FineTuningInput], personal: bool
) -> _Stored:
    from estudio_core.improvement.learning import keys_of
    from estudio_core.vectordb.search import find_by_ids

    keys = dict.fromkeys(key for session in sessions for key in keys_of(session, personal))
    moved = ledger.base_vectors(connection, release)
    everybody = find_by_ids(connection, release.collection, [key[0] for key in keys], with_vectors=True)
    shared = {found.object_id: found for found in everybody if found.vectors is not None}
    stored = _Stored()
    for user in dict.fromkeys(user for _, user in keys):
        ids = [object_id for object_id, of_user in keys if of_user == user and object_id in shared]
        for found in find_by_ids(connection, release.collection, ids, user_id=user, with_vectors=True):
            own = shared[found.original_id or found.object_id]
            if found.user_id is not None and found.object_id not in moved:
                continue  # a personal row of the application's own
            current = found if found.content_hash == own.content_hash else own  # else made of an earlier text
            if current.vectors is None or own.vectors is None:
                continue
            key = (own.object_id, user)
            content_hash, base = moved.get(own.object_id, ("", own.vectors))
            stored.now[key] = current.vectors
            stored.base[key] = base if content_hash == own.content_hash else own.vectors
            stored.hashes[key] = own.content_hash
    return stored


def _queries(release: Release, sessions: Iterable[FineTuningInput]) -> dict[str, Vectors]:
    from estudio_core.inference.opening import open_query_embedder

    texts = list(dict.fromkeys(session.query for session in sessions))
    return dict(zip(texts, open_query_embedder(release.model_name).embed_queries(texts), strict=True))


def _words(release: Release, sessions: Iterable[FineTuningInput]) -> dict[str, dict[str, float]]:
    """Return BM25 of what each query's sessions showed."""
    from estudio_core.vectordb.search import word_scores

    shown: dict[str, set[str]] = {}
    for session in sessions:
        shown.setdefault(session.query, set()).update(session.results)
    with database.connect() as connection:
        return {query: word_scores(connection, release.collection, query, sorted(ids)) for query, ids in shown.items()}


def _gains(ranked: dict[str, HeldOut], exponent: float | None, settings: GateSettings) -> dict[str, Estimate]:
    """Return what vectors gain over the model's own, at the least, on what held-out sessions showed (`ClickGain`).

    At the evenest and at the steepest attention that the log allows, as the gate asks: the lesser of both.

    Raises:
        NotEnoughDataError: the log does not tell how attention falls.
    """
    from estudio_core.evaluation.click_gain import ClickGain

    log = ranked["base"].log()
    base = ranked["base"].shown(log)
    estimator = ClickGain(log, base.scores, exponent)
    attention = estimator.attention
    if not attention.is_known:
        raise NotEnoughDataError(
            "How attention falls with the position could not be estimated from the held-out clicks, so nothing says "
            "what moved vectors gain. Give `examination_exponent`, or collect more sessions."
        )
    found = {}
    for name in ("now", "moved"):
        shown = ranked[name].shown(log)
        gains = [estimator.at(base, shown, exponent) for exponent in (attention.lowest, attention.highest)]
        intervals = [estimator.interval(gain.low, gain.standard_error, settings.confidence) for gain in gains]
        found[name] = min(intervals, key=lambda interval: interval.low)
    return found


def _decide(gains: dict[str, Estimate], anything: bool) -> tuple[ledger.State, str]:
    """Nothing is written that is not certain to gain; what was moved before and costs in the mean is undone."""
    if gains["now"].mean < 0:
        return (
            "off",
            f"What was moved before costs {-gains['now'].mean:.4f} {METRIC} on held-out queries; it is undone.",
        )
    if not anything:
        return "refused", "The adjuster moved nothing."
    gain = gains["moved"]
    if not gain.low > 0:
        return "refused", (
            f"{METRIC} of held-out queries would change by {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}], and a "
            "gain has to be certain."
        )
    return "applied", f"{METRIC} of held-out queries changes by {gain}."
