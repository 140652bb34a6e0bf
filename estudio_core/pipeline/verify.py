"""Last writes applied, then the checks that a collection has to pass before anybody searches in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from estudio_core import database
from estudio_core.errors import ReleaseError, VerificationError
from estudio_core.log_context import bind_release
from estudio_core.pipeline.items.embed_writes import embed_writes
from estudio_core.pipeline.manifests import BuiltManifest, VerifiedManifest
from estudio_core.promotion.ledger import require_open_run
from estudio_core.vectordb.catching_up import catch_up
from estudio_core.vectordb.locks import build_lock
from estudio_core.vectordb.releases import get_release, release_of_run
from estudio_core.vectordb.verification import verify_release

if TYPE_CHECKING:
    from estudio_core.plugin.plugin import Plugin

SAMPLE_QUERIES = 100
"""Vectors with which recall is measured: the plugin's judged queries, and items of the collection to fill up."""
NEWEST_SESSIONS = 500
"""Sessions whose queries stand in for judged ones."""


def verify(plugin_name: str, built: dict[str, Any] | None, run_id: str | None = None) -> VerifiedManifest:
    """Catch up with writes, and check counts, dimensions, recall@10 and the golden texts of the encoder.

    A release that is verified or live already is left as it is. Of one over the live collection, for which nothing was
    built, `built` is None and `run_id` is given; its encoder and recall are checked alone.

    Raises:
        SupersededError: a later promotion has taken the place of this run's.
        VerificationError: a check failed; the live release keeps serving.
        ModelError: the encoder does not give its golden vectors.
    """
    from estudio_core.inference.golden import check_golden
    from estudio_core.inference.model_store import entry_of
    from estudio_core.inference.opening import ensure_served, open_query_embedder

    manifest = None if built is None else BuiltManifest.model_validate(built)
    with database.connect(autocommit=True) as connection, build_lock(connection, plugin_name):
        if manifest is not None:
            release = get_release(connection, manifest.release_id)
        else:
            found = release_of_run(connection, plugin_name, str(run_id))
            if found is None:
                raise ReleaseError(
                    f"Run {run_id!r} has started no release of {plugin_name!r}. Start a new release run."
                )
            release = found
        require_open_run(connection, plugin_name, release.run_id)
        bind_release(release.release_id)
        for name in release.models:
            ensure_served(name)
        entry = entry_of(release.model_name)
        if release.state == "built":
            # Asked anew: an encoder that this process opened long ago proves nothing about now.
            check_golden(open_query_embedder(release.model_name), entry, where="What will encode queries")
            catch_up(connection, release, embed_writes(plugin_name))
            samples = _samples(connection, plugin_name, release)
            verify_release(connection, release, samples, None if manifest is None else manifest.items)
            release = get_release(connection, release.release_id)
    if release.state not in {"verified", "challenger", "live", "previous"}:
        raise VerificationError(
            f"Release {release.release_id} of {plugin_name!r} is {release.state}; only a built one can be verified. "
            "Start a new release run."
        )
    return VerifiedManifest(
        release_id=release.release_id,
        recall_at_10=release.stats["recall_at_10"],
        ef_search=release.stats["ef_search"],
        golden_queries=len(entry.golden.texts),
    )


def _samples(connection: Any, plugin_name: str, release: Any) -> Any:
    """Return up to `SAMPLE_QUERIES` query vectors: real queries where there are any, filled up with item vectors.

    Over a collection that serves, where queries have a new model, those of the newest sessions count as real ones too;
    and item vectors are taken as they come: a draw by lot reads all of them.
    """
    import numpy as np
    from psycopg import sql

    from estudio_core.inference.opening import open_query_embedder
    from estudio_core.plugin.registry import open_plugin
    from estudio_core.vectordb.collection import register_vectors

    plugin = open_plugin(plugin_name)
    shares = release.built_by != release.release_id
    texts = sorted(plugin.judgments or (_newest_queries(connection, plugin) if shares else ()))
    vectors = list(open_query_embedder(release.model_name).embed_queries(texts[:SAMPLE_QUERIES]))
    if len(vectors) < SAMPLE_QUERIES:
        register_vectors(connection)
        by_lot = sql.SQL("" if shares else "ORDER BY md5(object_id), part")
        rows = connection.execute(
            sql.SQL("SELECT embedding FROM {} WHERE user_id IS NULL {} LIMIT %s").format(
                release.collection.parts, by_lot
            ),
            (SAMPLE_QUERIES - len(vectors),),
        ).fetchall()
        vectors += [np.asarray(row[0].to_numpy() if hasattr(row[0], "to_numpy") else row[0]) for row in rows]
    return np.stack(vectors).astype(np.float32) if vectors else np.empty((0, release.index_info.dimensions))


def _newest_queries(connection: Any, plugin: Plugin) -> set[str]:
    from estudio_core.clickstream.converter import usable_inputs
    from estudio_core.clickstream.store import ClickstreamStore

    sessions = ClickstreamStore(connection).sessions(plugin.meta.name, limit=NEWEST_SESSIONS)
    return {session.query for session in usable_inputs(sessions, plugin.converter, plugin.query_retriever)}
