"""From sessions to a training set: items loaded, queries divided, texts split, all stored under one hash."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from estudio_core.artifacts import ArtifactStore
from estudio_core.clickstream.dataset_files import write_dataset
from estudio_core.clickstream.ranking_data import SPLITS, RankingData
from estudio_core.errors import NotEnoughDataError
from estudio_core.pipeline.manifests import DatasetManifest, SessionsManifest
from estudio_core.pipeline.training.sessions import stored_sessions
from estudio_core.plugin.plugin import prepare
from estudio_core.plugin.registry import open_plugin

if TYPE_CHECKING:
    from estudio_core.plugin.plugin import Plugin

logger = logging.getLogger(__name__)

_ENOUGH_HELD_OUT = 200_000
"""Held-out sessions that say how many a decision needs; of more, those of queries drawn by lot do."""


def preprocess(plugin_name: str, run_id: str, sessions: dict[str, Any]) -> DatasetManifest:
    """Build and store the training set of the extracted sessions.

    Raises:
        NotEnoughDataError: no clicked session is left to train on, or to decide by where there are no judgments.
        DataError: sessions or items cannot be used.
    """
    from estudio_core.clickstream.splitter import items_on_both_sides

    extracted = SessionsManifest.model_validate(sessions)
    store = ArtifactStore()
    plugin = open_plugin(plugin_name)
    with stored_sessions(store, extracted.uri) as clickstream:
        data = prepare(plugin, clickstream)
    if not data.table("train").clicked.any():
        raise NotEnoughDataError(
            f"None of the {len(data.splits['train'])} training sessions has a click on an item that still exists."
        )
    if not data.table("dev").clicked.any():
        raise NotEnoughDataError(
            f"None of the {len(data.splits['dev'])} development sessions has a click, so nothing can say when to "
            "stop training. Collect more sessions, or raise test_size_ratio."
        )
    if plugin.judgments is None or plugin.gate.decided_by == "clicks":
        _check_held_out(data, plugin.gate.minimum_queries)
    needed = _sessions_for_decision(plugin, data)
    with store.publish(plugin_name, run_id, "dataset") as folder:
        write_dataset(data, folder)
    return DatasetManifest(
        plugin=plugin_name,
        uri=store.uri(plugin_name, run_id, "dataset"),
        sessions_uri=extracted.uri,
        dataset_id=data.dataset_id,
        sessions={split: len(data.splits[split]) for split in SPLITS},
        queries={split: len(data.queries(split)) for split in SPLITS},
        items=len(data.items),
        missing_items=len(data.missing_items),
        items_on_both_sides=len(items_on_both_sides(data)),
        simulated_sessions=extracted.simulated_sessions,
        left_out=dict(data.left_out),
        not_by_relevance=sum(int((~data.table(split).of_session("by_relevance")).sum()) for split in SPLITS),
        window_sessions=extracted.window_sessions,
        extracted_sessions=extracted.sessions,
        sessions_for_decision=needed,
    )


def _check_held_out(data: RankingData, fewest: int) -> None:
    """Refuse an empty held-out side, and warn of one on which no gate can decide, before anything is trained for it."""
    tables = {split: data.table(split) for split in SPLITS}
    clicked = {split: len(np.unique(table.where(table.clicked).keys)) for split, table in tables.items()}
    if clicked["holdout"] >= fewest:
        return
    said = (
        f"{clicked['holdout']} of {sum(clicked.values())} clicked queries are held out, and the gate needs "
        f"{fewest} to decide by clicks. Collect sessions of more queries, raise test_size_ratio, give the plugin "
        "judgments, or lower minimum_queries of its gate."
    )
    if not clicked["holdout"]:
        raise NotEnoughDataError(said)
    logger.warning("%s The model is trained and registered, and cannot be promoted by the gate.", said)


def _sessions_for_decision(plugin: Plugin, data: RankingData) -> int | None:
    """Return how many held-out sessions a decision by clicks is likely to need, and say where there are fewer."""
    from estudio_core.evaluation.click_verdict import sessions_for_decision
    from estudio_core.pipeline.evaluation.questions import held_out_clicks

    held_out = data.table("holdout").some_queries(_ENOUGH_HELD_OUT)
    nothing = held_out[:0]
    some = replace(data, splits={"train": nothing, "dev": nothing, "holdout": held_out})
    log = held_out_clicks(some, set(data.items))
    needed = None if log is None else sessions_for_decision(log, plugin.gate, plugin.training.examination_exponent)
    if log is None or needed is None:
        return None
    there = round(len(log.clients) * len(data.splits["holdout"]) / len(held_out))
    if needed > there:
        logger.warning(
            "%d sessions are held out; to find a gain of %g by clicks about %d are needed.",
            there,
            plugin.gate.told_gain,
            needed,
        )
    return needed
