"""Releases: one row per served model and the collection that it is served with, from `building` to `retired`.

building ─► built ─► verified ─► live ⇄ previous ─► retired
    │          │         │ └─► challenger ─┴─► live, or retired
    └──────────┴─────────┴─► failed ─► building (its own run starts again)

A challenger answers searches beside the live release, in an experiment (`comparing`). It is kept, and follows writes,
as one that a rollback may go to.

A release has two towers: a model that encodes queries, and one that encoded the items of its collection. Where only
queries get another model, the release takes the collection that is live, and begins as `built`.

Their table is called `estudio.deployments`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal, LiteralString

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from estudio_core.errors import NothingLiveError, ReleaseError, suggest
from estudio_core.lexical.settings import Fusion
from estudio_core.vectordb.cluster import settle_cluster
from estudio_core.vectordb.collection import Collection
from estudio_core.vectordb.index_build import index_is_valid
from estudio_core.vectordb.index_info import SearchIndexInfo, VectorStorage
from estudio_core.vectordb.loading import create_marks, drop_marks
from estudio_core.vectordb.locks import own_start, share_switch, try_own_build

State = Literal["building", "built", "verified", "challenger", "live", "previous", "retired", "failed"]
DEFAULT_ACTOR = "estudio"

_COLUMNS = (
    "release_id, plugin, model_name, model_version,"
    " coalesce(item_model_name, model_name) AS item_model_name,"
    " coalesce(item_model_version, model_version) AS item_model_version,"
    " collection_id, (SELECT min(o.release_id) FROM estudio.deployments o"
    " WHERE o.collection_id = deployments.collection_id) AS built_by, state, index_info, ranking, item_texts, stats,"
    " run_id, reason, applied_seq, created_at, built_at, verified_at, live_at, previous_at, retired_at, failed_at,"
    " challenger_at"
)
RELEASE = f"SELECT {_COLUMNS} FROM estudio.deployments WHERE release_id = %s".encode()  # noqa: S608 (constants)
"""Statement of the row of a release, by its number, in the order of the fields of `Release`."""
POINTER = (
    f"SELECT {_COLUMNS}, switched_at FROM estudio.deployments JOIN estudio.pointers USING (plugin, release_id)"  # noqa: S608
    " WHERE plugin = %s"
).encode()
"""Statement of the row of the live release of a plugin, and when the pointer was moved to it."""
OTHERS = b"SELECT plugin FROM estudio.pointers ORDER BY plugin LIMIT 1000"
"""Statement of the plugins that have a live release."""
INDEXED_FIELDS = "0005"
"""The migration that has the functions of indexed fields; code from then on knows how vectors may be stored."""
EXPERIMENTS = "0007"
"""The migration that knows challengers."""
TWO_TOWERS = "0003"
"""The migration that tells the two models of a release apart."""


@dataclass(frozen=True)
class ItemModel:
    """What encodes the items of a release: an entry of the model repository, and its version in the registry."""

    name: str
    version: str


@dataclass(frozen=True)
class Release:
    """A served model and the collection that it is served with, as its row says.

    Attributes:
        release_id: Number of the release, ascending.
        plugin: Its plugin.
        model_name: Entry of the model repository that encodes queries.
        model_version: Its version in the registry, which is that of the release.
        item_model_name: Entry whose vectors the collection holds; mostly the same.
        item_model_version: Its version in the registry.
        collection_id: The collection.
        built_by: The release that the collection was built for.
        state: See the module.
        index_info: How the vectors are stored and compared.
        ranking: How words and vectors are put together.
        item_texts: How items become texts and parts, as `pipeline.items.recipe` has it; None: the plugin's own code.
        stats: What build and verification measured; `ef_search` is what searches use.
        run_id: The run that builds it.
        reason: Why it failed.
        applied_seq: Everything in the change log up to here is in the collection.
        created_at: And the other times: when the state was last reached.
    """

    release_id: int
    plugin: str
    model_name: str
    model_version: str
    item_model_name: str
    item_model_version: str
    collection_id: str
    built_by: int
    state: State
    index_info: SearchIndexInfo
    ranking: Fusion
    item_texts: dict[str, Any] | None
    stats: dict[str, Any]
    run_id: str
    reason: str | None
    applied_seq: int
    created_at: datetime
    built_at: datetime | None
    verified_at: datetime | None
    live_at: datetime | None
    previous_at: datetime | None
    retired_at: datetime | None
    failed_at: datetime | None
    challenger_at: datetime | None

    @property
    def models(self) -> tuple[str, ...]:
        """The entries that it needs: what encodes queries, then what encodes items where that is another."""
        return tuple(dict.fromkeys((self.model_name, self.item_model_name)))

    @property
    def collection(self) -> Collection:
        """The collection, searched with the breadth that verification chose."""
        return Collection(self.collection_id, self.index_info, self.stats.get("ef_search"))


def start_release(
    conn: psycopg.Connection,
    plugin: str,
    model_name: str,
    model_version: str,
    index_info: SearchIndexInfo,
    run_id: str,
    *,
    ranking: Fusion = Fusion(),  # noqa: B008 (frozen)
    items: ItemModel | None = None,
    item_texts: Mapping[str, Any] | None = None,
    over: Release | None = None,
    actor: str = DEFAULT_ACTOR,
) -> Release:
    """Return the release of this run, with its empty or half-filled collection; start it where there is none.

    Repeating it for the same (plugin, run_id) returns the same release; one that failed begins again, empty.
    Unfinished releases of other runs are given up (`failed`). Read the items from their source only after this call:
    what is written from now on is in the change log, what was written before has to be in the source.

    Args:
        conn: Connection.
        plugin: Name of the plugin.
        model_name: Entry that encodes queries.
        model_version: Its version in the registry.
        index_info: How vectors are stored and compared.
        run_id: The run.
        ranking: How words and vectors are put together.
        items: What encodes the items, where that is another model.
        item_texts: How items become texts and parts; None: the plugin's own code alone knows.
        over: The live release, to take its collection as it is: the release begins as `built`.
        actor: For the audit trail.

    Raises:
        ConcurrentReleaseError: another process builds a release of this plugin (see `build_lock`).
        ReleaseError: this run has a release of another model or index, or `over` is not live any more.
    """
    items = items or ItemModel(model_name, model_version)
    given = (model_name, model_version, items, index_info, ranking)
    settle_cluster(conn)
    with conn.transaction():
        own_start(conn, plugin)
        found = release_of_run(conn, plugin, run_id)
        if found is not None:
            return _started_before(conn, found, given, actor)
        try_own_build(conn, plugin)
        given_up = _select(conn, "plugin = %s AND state IN ('building', 'built', 'verified')", (plugin,))
        for other in given_up:
            fail_release(conn, other, f"given up for run {run_id!r}", actor=actor)
        if items.name != model_name:  # code that knows one model only would write wrong vectors
            conn.execute("UPDATE estudio.alembic_version SET serves_from = greatest(serves_from, %s)", (TWO_TOWERS,))
        # What code of the version before cannot read.
        if index_info.fields or index_info.storage != VectorStorage.VECTOR:
            conn.execute(
                "UPDATE estudio.alembic_version SET serves_from = greatest(serves_from, %s)", (INDEXED_FIELDS,)
            )
        row = conn.execute(
            "INSERT INTO estudio.deployments (plugin, model_name, model_version, item_model_name, item_model_version,"
            " collection_id, index_info, ranking, item_texts, run_id, applied_seq, applied_xid)"
            " VALUES (%s, %s, %s, %s, %s, gen_random_uuid()::text, %s, %s, %s, %s, 0, '0') RETURNING release_id",
            (
                plugin,
                model_name,
                model_version,
                items.name,
                items.version,
                Jsonb(index_info.model_dump(mode="json")),
                Jsonb(ranking.model_dump(mode="json")),
                None if item_texts is None else Jsonb(dict(item_texts)),
                run_id,
            ),
        ).fetchone()
        assert row is not None
        release = get_release(conn, row[0])
        if over is None:
            conn.execute(
                "UPDATE estudio.deployments SET collection_id = %s WHERE release_id = %s",
                (f"{plugin}_{release.release_id}", release.release_id),
            )
            release = _emptied(conn, get_release(conn, release.release_id))
        else:
            release = _over(conn, release, over.collection_id)
        record_event(conn, release, "started", actor, {"run_id": run_id, "model": model_name})
        return release


def _over(conn: psycopg.Connection, release: Release, collection_id: str) -> Release:
    """Give a release the collection that is live, with what was measured of it and the marks of what it has."""
    live = live_for_write(conn, release.plugin)
    wanted = (collection_id, release.item_model_name, release.index_info)
    if live is None or (live.collection_id, live.item_model_name, live.index_info) != wanted:
        raise ReleaseError(
            f"Collection {collection_id!r} of plugin {release.plugin!r} is not live any more, or holds vectors of "
            f"another model than {release.item_model_name!r}: release {release.release_id} cannot take it. Start a new "
            "release run."
        )
    conn.execute(
        "UPDATE estudio.deployments d SET collection_id = o.collection_id, stats = o.stats,"
        " applied_seq = o.applied_seq, applied_xid = o.applied_xid, built_at = clock_timestamp(), state = 'built'"
        " FROM estudio.deployments o WHERE o.release_id = %s AND d.release_id = %s",
        (live.release_id, release.release_id),
    )
    return get_release(conn, release.release_id)


def _emptied(conn: psycopg.Connection, release: Release) -> Release:
    """Give a release an empty collection that lacks nothing but the writes from now on."""
    release.collection.drop(conn)
    release.collection.create(conn)
    create_marks(conn, release.collection)
    # Transactions that have ended are left to the source; of all others nothing is assumed.
    conn.execute(
        "UPDATE estudio.deployments SET applied_seq = 0, applied_xid = pg_snapshot_xmin(pg_current_snapshot()),"
        " stats = '{}', reason = NULL WHERE release_id = %s",
        (release.release_id,),
    )
    return get_release(conn, release.release_id)


def _started_before(
    conn: psycopg.Connection,
    release: Release,
    given: tuple[str, str, ItemModel, SearchIndexInfo, Fusion],
    actor: str,
) -> Release:
    items = ItemModel(release.item_model_name, release.item_model_version)
    if given != (release.model_name, release.model_version, items, release.index_info, release.ranking):
        raise ReleaseError(
            f"Run {release.run_id!r} has already started release {release.release_id} of model {release.model_name!r} "
            f"version {release.model_version}; given {given[0]!r} version {given[1]}, or another index. "
            "Start a new run for another model."
        )
    if release.state != "failed":
        return release
    try_own_build(conn, release.plugin)
    reason = release.reason
    release = set_state(conn, release, "building", ("failed",))
    if release.built_by == release.release_id:
        release = _emptied(conn, release)
    else:
        release = _over(conn, release, release.collection_id)
    record_event(conn, release, "restarted", actor, {"failed_because": reason})
    return release


def release_of_run(conn: psycopg.Connection, plugin: str, run_id: str) -> Release | None:
    """Return the release that a run has started; None before that."""
    found = _select(conn, "plugin = %s AND run_id = %s", (plugin, run_id))
    return found[0] if found else None


def get_release(conn: psycopg.Connection, release_id: int) -> Release:
    """Return a release by its number.

    Raises:
        ReleaseError: there is none.
    """
    found = _select(conn, "release_id = %s", (release_id,))
    if not found:
        raise ReleaseError(f"There is no release {release_id}. See: estudio releases")
    return found[0]


def list_releases(conn: psycopg.Connection, plugin: str | None = None) -> list[Release]:
    """Return the releases of a plugin, or of all, newest first."""
    return _select(conn, "%s::text IS NULL OR plugin = %s", (plugin, plugin))[::-1]


def live_release(conn: psycopg.Connection, plugin: str) -> Release | None:
    """Return the release that the pointer of `plugin` names: model and collection in one read."""
    found = _select(conn, "release_id = (SELECT release_id FROM estudio.pointers WHERE plugin = %s)", (plugin,))
    return found[0] if found else None


def require_live(conn: psycopg.Connection, plugin: str) -> Release:
    """Return the live release of `plugin`.

    Raises:
        NothingLiveError: there is none yet.
    """
    return live_pointer(conn, plugin)[0]


def live_pointer(conn: psycopg.Connection, plugin: str) -> tuple[Release, datetime]:
    """Return the live release of `plugin` and when the pointer was moved to it.

    Raises:
        NothingLiveError: there is none yet.
    """
    row = conn.execute(POINTER, (plugin,)).fetchone()
    if row is None:
        raise nothing_live(plugin, [each[0] for each in conn.execute(OTHERS).fetchall()])
    return release_of(row[:-1]), row[-1]


def nothing_live(plugin: str, others: Sequence[str] = ()) -> NothingLiveError:
    """Return the error of a plugin that has no live release yet; `others` are those that have one, where known."""
    meant = f" Live are others: {suggest(plugin, others)}" if others else ""
    return NothingLiveError(
        f"Nothing is live for plugin {plugin!r}.{meant} If there is such a plugin (estudio plugins list), run its "
        f"DAG {plugin}__initialize first."
    )


def previous_release(conn: psycopg.Connection, plugin: str) -> Release | None:
    """Return the release to which a rollback goes."""
    found = _select(
        conn, "release_id = (SELECT previous_release_id FROM estudio.pointers WHERE plugin = %s)", (plugin,)
    )
    return found[0] if found else None


def mark_built(
    conn: psycopg.Connection, release: Release, stats: Mapping[str, Any] | None = None, *, actor: str = DEFAULT_ACTOR
) -> Release:
    """Note that the collection is loaded and indexed; add `stats` to the release's.

    Raises:
        ReleaseError: the vector index is missing or invalid, or the release is not being built.
    """
    settle_cluster(conn)
    with conn.transaction():
        current = get_release(conn, release.release_id)
        if current.state in ("verified", "challenger", "live", "previous"):
            return current
        if current.state not in ("building", "built"):
            raise _wrong_state(current, ("building", "built"))
        if not index_is_valid(conn, current.collection):
            raise ReleaseError(
                f"Release {release.release_id} has no valid vector index. Run build_index on its collection first."
            )
        current = set_state(conn, current, "built", ("building", "built"))
        drop_marks(conn, current.collection)
        current = add_stats(conn, current, stats or {})
        record_event(conn, current, "built", actor, dict(stats or {}))
        return current


def fail_release(conn: psycopg.Connection, release: Release, reason: str, *, actor: str = DEFAULT_ACTOR) -> Release:
    """Give up a release that is not live yet; the live one keeps serving.

    Raises:
        ReleaseError: it is live, previous or retired.
    """
    with conn.transaction():
        failed = set_state(conn, release, "failed", ("building", "built", "verified", "failed"))
        conn.execute("UPDATE estudio.deployments SET reason = %s WHERE release_id = %s", (reason, release.release_id))
        record_event(conn, failed, "failed", actor, {"reason": reason})
        return get_release(conn, release.release_id)


def stand(conn: psycopg.Connection, release: Release, *, actor: str = DEFAULT_ACTOR) -> Release:
    """Let a verified release stand beside the live one as its challenger; one that stands already does.

    Raises:
        ReleaseError: it is neither, or another release of the plugin is its challenger.
    """
    with conn.transaction():
        own_start(conn, release.plugin)
        others = _select(
            conn, "plugin = %s AND state = 'challenger' AND release_id <> %s", (release.plugin, release.release_id)
        )
        if others:
            raise ReleaseError(
                f"Release {others[0].release_id} of {release.plugin!r} is a challenger already. Wait for its "
                "experiment, or stop that: estudio experiments stop"
            )
        current = get_release(conn, release.release_id)
        if current.state == "challenger":
            return current
        conn.execute("UPDATE estudio.alembic_version SET serves_from = greatest(serves_from, %s)", (EXPERIMENTS,))
        current = set_state(conn, current, "challenger", ("verified",))
        record_event(conn, current, "stands as challenger", actor)
        return current


def require_state(conn: psycopg.Connection, release: Release, states: tuple[State, ...]) -> Release:
    """Return the release as it is now and keep its state until this transaction ends.

    Raises:
        ReleaseError: it is in none of `states`.
    """
    conn.execute("SELECT 1 FROM estudio.deployments WHERE release_id = %s FOR SHARE", (release.release_id,))
    current = get_release(conn, release.release_id)
    if current.state not in states:
        raise _wrong_state(current, states)
    return current


def set_state(conn: psycopg.Connection, release: Release, state: State, allowed: tuple[State, ...]) -> Release:
    """Move a release to `state` from one of `allowed`.

    Raises:
        ReleaseError: it is in none of them.
    """
    stamp = sql.Identifier("created_at" if state == "building" else f"{state}_at")
    moved = conn.execute(
        sql.SQL(
            "UPDATE estudio.deployments SET state = %s, {} = clock_timestamp()"
            " WHERE release_id = %s AND state = ANY(%s)"
        ).format(stamp),
        (state, release.release_id, list(allowed)),
    ).rowcount
    current = get_release(conn, release.release_id)
    if not moved:
        raise _wrong_state(current, allowed)
    return current


def add_stats(conn: psycopg.Connection, release: Release, stats: Mapping[str, Any]) -> Release:
    """Merge `stats` into those of the release."""
    conn.execute(
        "UPDATE estudio.deployments SET stats = stats || %s WHERE release_id = %s",
        (Jsonb(dict(stats)), release.release_id),
    )
    return get_release(conn, release.release_id)


def record_event(
    conn: psycopg.Connection, release: Release, event: str, actor: str, details: Mapping[str, Any] | None = None
) -> None:
    """Add a line to the audit trail `estudio.release_events`, in the caller's transaction."""
    conn.execute(
        "INSERT INTO estudio.release_events (plugin, release_id, event, actor, details) VALUES (%s, %s, %s, %s, %s)",
        (release.plugin, release.release_id, event, actor, Jsonb(dict(details or {}))),
    )


def live_for_write(conn: psycopg.Connection, plugin: str) -> Release | None:
    """Return the live release and keep it live until this transaction ends."""
    share_switch(conn, plugin)
    return live_release(conn, plugin)


def _wrong_state(release: Release, allowed: tuple[State, ...]) -> ReleaseError:
    because = f" ({release.reason})" if release.reason and release.state == "failed" else ""
    return ReleaseError(
        f"Release {release.release_id} of plugin {release.plugin!r} is {release.state}{because}; "
        f"this needs one that is {' or '.join(allowed)}."
    )


@lru_cache(maxsize=16)
def _selection(condition: LiteralString) -> bytes:
    """Return the statement, put together once."""
    statement = sql.SQL("SELECT {} FROM estudio.deployments WHERE {} ORDER BY release_id")
    return statement.format(sql.SQL(_COLUMNS), sql.SQL(condition)).as_bytes(None)


def _select(conn: psycopg.Connection, condition: LiteralString, values: tuple[Any, ...]) -> list[Release]:
    return [release_of(row) for row in conn.execute(_selection(condition), values).fetchall()]


def release_of(row: Sequence[Any]) -> Release:
    """Return what a row says, with its columns in the order of the fields of `Release`."""
    named = dict(zip(_FIELDS, row, strict=True))
    named["index_info"] = SearchIndexInfo.model_validate(named["index_info"])
    named["ranking"] = Fusion.model_validate(named["ranking"])
    return Release(**named)


_FIELDS = tuple(each.name for each in fields(Release))
