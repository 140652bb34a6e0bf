"""How the live release does on fresh sessions, and whether users have moved away from what it was trained on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from estudio_core import database
from estudio_core.clickstream.forgetting import expire
from estudio_core.clickstream.query_retriever import query_key
from estudio_core.log_context import bind_release
from estudio_core.monitoring import ledger
from estudio_core.pipeline.evaluation.sample import hash_share
from estudio_core.pipeline.manifests import WatchManifest
from estudio_core.plugin.registry import open_plugin
from estudio_core.plugin.run_params import WatchParams
from estudio_core.progress import report
from estudio_core.promotion.trainings import trained_until
from estudio_core.settings import get_settings
from estudio_core.vectordb.releases import Release, require_live

if TYPE_CHECKING:
    import numpy as np
    import psycopg
    from numpy.typing import NDArray

    from estudio_core.clickstream.examination_curve import Examination
    from estudio_core.clickstream.ranking_data import FineTuningInput
    from estudio_core.plugin.plugin import Plugin

    Vectors = NDArray[np.float32]

RECALL_QUERIES = 100
"""Fresh queries with which recall is measured: each is compared with all objects."""
LATENCY_CALLS = 200
LATENCY_TIME_S = 5.0
"""Calls of one text each whose time is taken, and the time after which no further one is made."""
_STEPS = 4


@dataclass(frozen=True)
class _Seen:
    """Sessions since the last training, those that stand for it, and the plugin's model of examination."""

    fresh: list[FineTuningInput]
    reference: list[FineTuningInput]
    examination: Examination


def measure(plugin_name: str, run_id: str, params: dict[str, Any]) -> WatchManifest:
    """Measure the live release and its users, write the row, and say what follows. A rerun replaces the row.

    Searches and events that are older than `ESTUDIO_CLICKSTREAM_DAYS` are deleted first.

    Measured: sessions; click-through by position; nDCG@10 of what the live release answers to the queries of fresh
    sessions, with their clicks, corrected for position, as grades (`live_quality`); size of the index; recall@10 of the
    index against exact search on those queries, or where there are none on those of the last training; time to encode
    one text; drift (`monitoring.drift`).

    Raises:
        NothingLiveError: nothing is live.
        InferenceUnavailableError: the encoder does not answer.
    """
    wanted = WatchParams.model_validate(params)
    plugin = open_plugin(plugin_name)
    until = datetime.now(UTC)
    with database.connect(autocommit=True) as connection:
        database.require_schema(connection)
        if (kept := get_settings().clickstream_days) is not None:  # whether anything is live or not
            expire(connection, kept, plugin_name)
        release = require_live(connection, plugin_name)
        bind_release(release.release_id)
        trained = trained_until(connection, plugin_name)
        since = until - timedelta(days=wanted.window_days)
        if trained is not None:
            since = max(since, trained)
        seen = _sessions(connection, plugin, wanted, since, until, trained)
        report("Watch", 1, _STEPS, "steps", f"{len(seen.fresh)} sessions")
        numbers = _clicks(seen.fresh) | _encoder(release)
        report("Watch", 2, _STEPS, "steps", "encoder")
        numbers |= _index(connection, release, seen, wanted)
        report("Watch", 3, _STEPS, "steps", "index")
        measured, drift, findings = _drift(release, seen, wanted)
        numbers |= measured
        row = ledger.record(
            connection,
            release,
            run_id,
            since=since,
            until=until,
            trained_until=trained,
            sessions=len(seen.fresh),
            numbers=numbers,
            drift=drift,
            wanted=wanted.on_drift if drift else "none",
            summary=findings,
        )
    report("Watch", _STEPS, _STEPS, "steps", row.summary)
    return WatchManifest(
        release_id=release.release_id,
        model_version=release.model_version,
        since=since.isoformat(),
        until=until.isoformat(),
        sessions=len(seen.fresh),
        reference_sessions=len(seen.reference),
        numbers=numbers,
        drift=drift,
        reaction=row.reaction,
        summary=row.summary,
    )


def _sessions(
    connection: psycopg.Connection,
    plugin: Plugin,
    wanted: WatchParams,
    since: datetime,
    until: datetime,
    trained: datetime | None,
) -> _Seen:
    from estudio_core.clickstream.clients import counted_sessions
    from estudio_core.clickstream.converter import usable_inputs
    from estudio_core.clickstream.examination import estimate_examination
    from estudio_core.clickstream.ranking_data import with_one_spelling
    from estudio_core.clickstream.store import ClickstreamStore
    from estudio_core.errors import DataError
    from lightning_modules.evidence import examination_for

    store = ClickstreamStore(connection)

    def read(start: datetime, end: datetime) -> list[FineTuningInput]:
        sessions = store.sessions(plugin.meta.name, since=start, until=end, limit=wanted.max_sessions)
        return list(counted_sessions(usable_inputs(sessions, plugin.converter, plugin.query_retriever))[0])

    reference = [] if trained is None else read(trained - timedelta(days=wanted.reference_days), trained)
    # Both sides under one spelling: else a change of habit in spelling would be one in what is asked.
    both = list(with_one_spelling([*reference, *read(since, until)]))
    reference, fresh = both[: len(reference)], both[len(reference) :]
    known = reference or fresh
    try:
        examination = examination_for(plugin.training, known)
    except DataError:  # too few results at several positions for the estimate that training makes
        examination = estimate_examination(known)
    return _Seen(fresh, reference, examination)


def _clicks(fresh: list[FineTuningInput]) -> dict[str, float]:
    """Return shares of sessions and results that were clicked, in all and by position from 1."""
    from estudio_core.clickstream.position_bias import Impressions
    from estudio_core.monitoring.drift import rates_by_position

    if not fresh:
        return {}
    shown = Impressions.of(fresh)
    counts, rates = rates_by_position(shown)
    by_position = {f"click_rate_{place}": rate for place, rate in enumerate(rates, 1) if counts[place - 1]}
    clicked = sum(not session.is_clickless for session in fresh)
    return {"clicked_sessions": clicked / len(fresh), **by_position}


def _encoder(release: Release) -> dict[str, float]:
    """Return the time to encode one query, milliseconds, over the golden texts of the entry, after a first round."""
    import numpy as np

    from estudio_core.inference.model_store import entry_of
    from estudio_core.inference.opening import open_query_embedder

    texts = entry_of(release.model_name).golden.texts
    embedder = open_query_embedder(release.model_name)  # it has answered all of them once
    took: list[float] = []
    began = time.perf_counter()
    while len(took) < LATENCY_CALLS and time.perf_counter() - began < LATENCY_TIME_S:
        asked = time.perf_counter()
        embedder.embed_queries([texts[len(took) % len(texts)]])
        took.append(1000 * (time.perf_counter() - asked))
    p50, p99 = np.percentile(took, [50, 99])
    return {"encoder_p50_ms": float(p50), "encoder_p99_ms": float(p99)}


def _index(connection: psycopg.Connection, release: Release, seen: _Seen, wanted: WatchParams) -> dict[str, float]:
    """Return size of the index, its recall, and nDCG@10 of its answers to fresh queries."""
    from estudio_core.inference.opening import open_query_embedder
    from estudio_core.monitoring.live_quality import K, examined_grades, live_ndcg
    from estudio_core.vectordb.search import search
    from estudio_core.vectordb.verification import recall_at_10

    size = release.collection.stats(connection)
    numbers: dict[str, float] = {
        "index_rows": size.objects,
        "index_parts": size.parts,
        "index_bytes": size.size_bytes,
    }
    grades = examined_grades(seen.fresh, seen.examination)
    # Clicked queries first: only they can be judged. The order by lot is the same in every run.
    asked = sorted(
        {session.query for session in seen.fresh}, key=lambda query: (query not in grades, hash_share(query))
    )
    # Without fresh queries the index is still measured, with those of the last training.
    asked = (asked or sorted({session.query for session in seen.reference}, key=hash_share))[: wanted.max_queries]
    if not asked or not size.objects:
        return numbers
    vectors = open_query_embedder(release.model_name).embed_queries(asked)
    answers = {
        query: [
            hit.object_id
            for hit in search(
                connection, release.collection, vector, limit=K, text=query, weight=release.ranking.weight
            )
        ]
        for query, vector in zip(asked, vectors, strict=True)
        if query in grades
    }
    ndcg = live_ndcg(answers, grades)
    if ndcg is not None:
        numbers |= {"ndcg_at_10": ndcg.mean, "ndcg_at_10_low": ndcg.low, "ndcg_at_10_high": ndcg.high}
        numbers["judged_queries"] = ndcg.n
    numbers["recall_at_10"] = recall_at_10(connection, release.collection, vectors[:RECALL_QUERIES])
    return numbers


def _drift(release: Release, seen: _Seen, wanted: WatchParams) -> tuple[dict[str, float], list[str], str]:
    """Return the measures of drift, which of them are beyond their thresholds, and a sentence."""
    import numpy as np

    from estudio_core.clickstream.position_bias import Impressions
    from estudio_core.errors import DataError
    from estudio_core.monitoring.drift import click_change, new_query_share, query_shift

    if not seen.reference:
        return {}, [], "Nothing was trained yet, so there is nothing to have drifted from."
    if len(seen.fresh) < wanted.min_sessions:
        few = f"{len(seen.fresh)} sessions since the last training; drift is measured from {wanted.min_sessions} on."
        return {}, [], few
    numbers_of: dict[str, int] = {}
    reference, fresh = (
        np.array([numbers_of.setdefault(query_key(session.query), len(numbers_of)) for session in side])
        for side in (seen.reference, seen.fresh)
    )
    new = new_query_share(reference, fresh, confidence=wanted.confidence)
    shift = query_shift(*_drawn(release, seen, wanted.max_queries), confidence=wanted.confidence)
    numbers = {
        "new_queries": new.value,
        "new_queries_noise": new.noise,
        "query_shift": shift.value,
        "query_shift_noise": shift.noise,
    }
    found = {
        "new_queries": (
            new.excess > wanted.new_queries,
            f"{new.value:.0%} of sessions ask what training never saw (by chance up to {new.noise:.0%})",
        ),
        "query_shift": (
            shift.excess > wanted.query_shift,
            f"queries have shifted by {shift.value:.2f} (by chance up to {shift.noise:.2f})",
        ),
    }
    try:
        reference_log, fresh_log = (
            Impressions.of(session for session in side if session.by_relevance) for side in (seen.reference, seen.fresh)
        )
        clicks = click_change(reference_log, fresh_log, confidence=wanted.confidence)
    except DataError:
        pass  # no click, or nothing shown, on one of the sides: nothing to compare
    else:
        numbers |= {"click_change": clicks.mean, "click_change_low": clicks.low, "click_change_high": clicks.high}
        found["click_drop"] = (
            clicks.high < 1 - wanted.click_drop,
            f"clicks are {clicks.mean:.2f} [{clicks.low:.2f}, {clicks.high:.2f}] of those expected",
        )
    drift = [name for name, (beyond, _) in found.items() if beyond]
    if not drift:
        return numbers, [], "No drift: " + "; ".join(text for _, text in found.values()) + "."
    return numbers, drift, "Drift: " + "; ".join(found[name][1] for name in drift) + "."


def _drawn(release: Release, seen: _Seen, most: int) -> tuple[Any, Any, Vectors]:
    """Return up to `most` sessions of each side, drawn by lot, as rows of the vectors of their queries."""
    import numpy as np

    from estudio_core.inference.opening import open_query_embedder

    rows: dict[str, int] = {}
    sides = [
        np.array([rows.setdefault(session.query, len(rows)) for session in by_lot[:most]])
        for by_lot in (
            sorted(side, key=lambda session: hash_share(session.session_id)) for side in (seen.reference, seen.fresh)
        )
    ]
    return sides[0], sides[1], open_query_embedder(release.model_name).embed_queries(list(rows))
