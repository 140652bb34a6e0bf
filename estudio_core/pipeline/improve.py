"""Between two trainings: vectors of shown items moved by what was clicked, measured before anybody is served them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from estudio_core import database
from estudio_core.artifacts import ArtifactStore
from estudio_core.errors import NotEnoughDataError, ReleaseError
from estudio_core.improvement import ledger
from estudio_core.log_context import bind_release
from estudio_core.pipeline.improvement_report import write_report
from estudio_core.pipeline.manifests import ImprovementManifest
from estudio_core.pipeline.plugin_access import open_plugin
from estudio_core.plugin.run_params import ImproveParams
from estudio_core.progress import report
from estudio_core.vectordb.releases import Release, get_release, live_release

if TYPE_CHECKING:
    import psycopg

    from estudio_core.evaluation.bootstrap import Estimate
    from estudio_core.improvement.learning import Key, Vectors
    from estudio_core.plugin.contract import FineTuningMethod
    from estudio_core.preprocessing.ranking_data import FineTuningInput

METRIC = "shown_ndcg@10"
_FILE = "moved.npz"
_STEP = "improvement"


@dataclass(frozen=True)
class _Sessions:
    learned: list[FineTuningInput]
    held_out: list[FineTuningInput]


@dataclass(frozen=True)
class _Stored:
    """Vectors of the collection now, those the model gave, and the hash of what they were computed from."""

    now: dict[Key, Vectors]
    base: dict[Key, Vectors]
    hashes: dict[Key, str]


def adjust(plugin_name: str, run_id: str, params: dict[str, Any]) -> ImprovementManifest:
    """Move vectors by the sessions since the last run, measure them on held-out sessions, and decide.

    Sessions are divided by query as for training: those of the training side move vectors, those of the other side only
    measure, so that neither this nor the gate is asked about what was learned. Nothing is written to the collection.

    Raises:
        NotEnoughDataError: nothing is live, it was switched off, or there are too few sessions to learn or measure.
    """
    from estudio_core.evaluation.bootstrap import paired_gain
    from estudio_core.improvement.learning import move, ranked

    wanted = ImproveParams.model_validate(params)
    plugin = open_plugin(plugin_name)
    until = datetime.now(UTC)
    with database.connect() as connection:
        database.ensure_schema(connection)
        release, since = _place(connection, plugin_name, wanted)
        sessions = _sessions(connection, plugin, wanted, since, until)
        _check_enough(sessions, wanted, since)
        stored = _stored(connection, release, [*sessions.learned, *sessions.held_out], wanted.personal)
        connection.commit()
    queries = _queries(release, [*sessions.learned, *sessions.held_out])
    report("Improve", 0, len(sessions.learned), "sessions")
    moved = move(
        plugin.get_vectors_adjuster(),
        sessions.learned,
        queries,
        stored.now,
        stored.base,
        wanted.max_angle_degrees,
        wanted.personal,
    )
    report("Improve", len(sessions.learned), len(sessions.learned), "sessions")
    index = release.index_info
    results = {
        name: ranked(sessions.held_out, queries, vectors, index, wanted.personal)
        for name, vectors in (("base", stored.base), ("now", stored.now), ("moved", stored.now | moved))
    }
    if not results["base"].queries:
        raise NotEnoughDataError(
            "No held-out session shows both a clicked and a skipped item: nothing can be measured."
        )
    gains = {
        name: paired_gain(results["base"].values[METRIC], results[name].values[METRIC]) for name in ("now", "moved")
    }
    state, reason = _decide(gains, bool(moved))
    store = ArtifactStore()
    with store.publish(plugin_name, run_id, _STEP) as folder:
        _save(folder / _FILE, moved, stored)
        manifest = ImprovementManifest(
            uri=store.uri(plugin_name, run_id, _STEP),
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


def apply_improvement(plugin_name: str, run_id: str, adjusted: dict[str, Any]) -> str:
    """Do what was decided: write the moved vectors, leave all as it is, or take back what was moved. Return the reason.

    Vectors and decision are one transaction; repeating it changes nothing.

    Raises:
        ReleaseError: another release is live by now.
    """
    manifest = ImprovementManifest.model_validate(adjusted)
    with database.connect() as connection:
        release = get_release(connection, manifest.release_id)
        if any(done.run_id == run_id for done in ledger.history(connection, plugin_name)):
            return manifest.reason
        objects = 0
        if manifest.state == "applied":
            with ArtifactStore().fetch(manifest.uri) as folder:
                objects = ledger.apply(connection, release, read_moved(folder))
        elif manifest.state == "off":
            objects = ledger.take_back(connection, release)
        numbers = {name: getattr(manifest, name) for name in ("base", "gain", "gain_low", "gain_high")}
        until = datetime.fromisoformat(manifest.until)
        ledger.record(connection, release, run_id, manifest.state, until, objects, numbers, manifest.reason)
        connection.commit()
    return manifest.reason


def revert_improvements(plugin_name: str, run_id: str, actor: str) -> int:
    """Give all moved vectors of the live release back what the model gave them; return how many there were.

    Raises:
        ReleaseError: nothing is live.
    """
    with database.connect() as connection:
        database.ensure_schema(connection)
        release = live_release(connection, plugin_name)
        if release is None:
            raise ReleaseError(
                f"Nothing is live for plugin {plugin_name!r}. Run its DAG {plugin_name}__initialize first."
            )
        objects = ledger.take_back(connection, release)
        if not any(done.run_id == run_id for done in ledger.history(connection, plugin_name)):
            ledger.record(
                connection, release, run_id, "reverted", datetime.now(UTC), objects, {}, f"Taken back by {actor}."
            )
        connection.commit()
    return objects


def _place(connection: psycopg.Connection, plugin_name: str, wanted: ImproveParams) -> tuple[Release, datetime]:
    """Return the live release and the time from which its sessions have moved nothing yet."""
    release = live_release(connection, plugin_name)
    if release is None or release.live_at is None:
        raise NotEnoughDataError(f"Nothing is live for plugin {plugin_name!r}.")
    bind_release(release.release_id)
    before = ledger.history(connection, plugin_name, release.release_id)
    if before and before[0].state == "off":
        raise NotEnoughDataError(
            f"Switched off for release {release.release_id} since {before[0].at:%Y-%m-%d %H:%M}: {before[0].reason} "
            "The next release starts anew."
        )
    went_live = release.live_at - timedelta(days=wanted.before_release_days)
    return release, max([went_live, *(done.until for done in before[:1])])


def _sessions(
    connection: psycopg.Connection, plugin: FineTuningMethod, wanted: ImproveParams, since: datetime, until: datetime
) -> _Sessions:
    from estudio_core.clickstream.store import ClickstreamStore
    from estudio_core.errors import DataError
    from estudio_core.preprocessing.prepare_data import prepared
    from estudio_core.preprocessing.ranking_data import ItemsSet, RankingData

    with prepared(RankingData({}, ItemsSet({}))):
        builder = plugin.get_fine_tuning_builder([])
    inputs = []
    window = until - timedelta(days=wanted.window_days)
    for session in ClickstreamStore(connection).sessions(
        plugin.meta.name, since=min(window, since), until=until, limit=wanted.max_sessions
    ):
        try:
            converted = builder.clickstream_sessions_converter.convert(session, builder.query_retriever).input
        except DataError:
            continue  # training counts and logs them
        if not converted.is_irrelevant and (converted.user_id is not None or not wanted.personal):
            inputs.append(converted)
    sides = builder.clickstream_sessions_splitter.split(inputs)
    return _Sessions(
        [session for session in sides["train"] if session.timestamp >= since.timestamp()],
        [*sides["dev"], *sides["holdout"]],
    )


def _check_enough(sessions: _Sessions, wanted: ImproveParams, since: datetime) -> None:
    if len(sessions.learned) < wanted.min_sessions:
        raise NotEnoughDataError(
            f"{len(sessions.learned)} clicked sessions to learn from since {since:%Y-%m-%d %H:%M}; "
            f"{wanted.min_sessions} are needed."
        )
    queries = {session.query for session in sessions.held_out}
    if len(queries) < wanted.min_held_out_queries:
        raise NotEnoughDataError(
            f"{len(queries)} held-out queries in the last {wanted.window_days} days; {wanted.min_held_out_queries} are "
            "needed to measure whether moved vectors help. Widen the window, or wait for more sessions."
        )


def _stored(
    connection: psycopg.Connection, release: Release, sessions: Iterable[FineTuningInput], personal: bool
) -> _Stored:
    from estudio_core.improvement.learning import keys_of
    from estudio_core.vectordb.search import find_by_ids

    keys = dict.fromkeys(key for session in sessions for key in keys_of(session, personal))
    moved = ledger.base_vectors(connection, release)
    stored = _Stored({}, {}, {})
    own: dict[Key, Vectors] = {}
    for user in dict.fromkeys([None, *(user for _, user in keys)]):
        ids = [object_id for object_id, of_user in keys if of_user == user or user is None]
        for found in find_by_ids(connection, release.collection, ids, user_id=user, with_vectors=True):
            if found.vectors is None:
                continue
            key = (found.original_id or found.object_id, user)
            if user is None:
                content_hash, base = moved.get(found.object_id, ("", found.vectors))
                own[key] = base if content_hash == found.content_hash else found.vectors
            stored.now[key] = found.vectors
            stored.hashes[key] = found.content_hash
    for key in list(stored.now):
        if key not in keys:
            del stored.now[key]
            continue
        stored.base[key] = own[key[0], None]
        if stored.now[key].shape != stored.base[key].shape:  # a personal row of a text that has changed since
            stored.now[key] = stored.base[key]
    return stored


def _queries(release: Release, sessions: Iterable[FineTuningInput]) -> dict[str, Vectors]:
    from estudio_core.inference.opening import open_query_embedder

    texts = list(dict.fromkeys(session.query for session in sessions))
    return dict(zip(texts, open_query_embedder(release.model_name).embed_queries(texts), strict=True))


def _decide(gains: dict[str, Estimate], anything: bool) -> tuple[ledger.State, str]:
    """Harm is a mean below that of the model's own vectors: what is in doubt is not served."""
    if gains["now"].mean < 0:
        return (
            "off",
            f"What was moved before costs {-gains['now'].mean:.4f} {METRIC} on held-out queries; it is undone.",
        )
    if not anything:
        return "refused", "The adjuster moved nothing."
    if gains["moved"].mean < 0:
        return "refused", f"It would cost {-gains['moved'].mean:.4f} {METRIC} on held-out queries."
    return "applied", f"{METRIC} of held-out queries changes by {gains['moved']}."


def _save(file: Path, moved: dict[Key, Vectors], stored: _Stored) -> None:
    import numpy as np

    keys = sorted(moved, key=lambda key: (key[0], key[1] or ""))
    width = next(iter(stored.base.values())).shape[1] if stored.base else 0
    empty = np.empty((0, width), dtype=np.float32)
    np.savez(
        file,
        objects=np.array([key[0] for key in keys], dtype=np.str_),
        users=np.array([key[1] or "" for key in keys], dtype=np.str_),
        personal=np.array([key[1] is not None for key in keys], dtype=bool),
        hashes=np.array([stored.hashes[key] for key in keys], dtype=np.str_),
        counts=np.array([len(moved[key]) for key in keys], dtype=np.int64),
        base=np.concatenate([empty, *(stored.base[key] for key in keys)]),
        vectors=np.concatenate([empty, *(moved[key] for key in keys)]),
    )


def read_moved(folder: Path) -> list[ledger.MovedObject]:
    """Return the objects that `adjust` moved, from the folder that its manifest names."""
    import numpy as np

    with np.load(folder / _FILE, allow_pickle=False) as stored:
        read = {name: stored[name] for name in stored.files}
    ends = np.cumsum(read["counts"])
    names = zip(read["objects"], read["users"], read["personal"], read["hashes"], read["counts"], ends, strict=True)
    return [
        ledger.MovedObject(
            str(object_id),
            str(user) if personal else None,
            str(content_hash),
            read["base"][end - count : end],
            read["vectors"][end - count : end],
        )
        for object_id, user, personal, content_hash, count, end in names
    ]
