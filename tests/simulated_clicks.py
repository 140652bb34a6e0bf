"""Simulated sessions of the demo's catalog, written past the service: where a test wants sessions and no people."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg

from estudio_core.clickstream.replay import replay_clicks
from estudio_core.clickstream.store import ClickstreamStore
from estudio_core.demo.catalog import load_judgments
from estudio_core.searching import search


def log_simulated_sessions(connection: psycopg.Connection, plugin: str, sessions: int) -> None:
    """Log searches of the rated queries over what the live release of `plugin` finds; the caller commits."""
    judgments = load_judgments().answerable()
    found = {query: [(hit.object_id, hit.score) for hit in search(plugin, query, limit=20).hits] for query in judgments}
    replay = replay_clicks(
        judgments.only(query for query, hits in found.items() if len(hits) > 1),
        found,
        sessions=sessions,
        application=plugin,
        end=datetime.now(UTC),
        seed=42,
    )
    store = ClickstreamStore(connection)
    store.log_queries(replay.queries)
    store.log_events(replay.events)
