"""From sessions to a training set: items loaded, queries divided, texts split, all stored under one hash."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from estudio_core.artifacts import ArtifactStore
from estudio_core.clickstream.ranking_data import SPLITS, RankingData
from estudio_core.errors import NotEnoughDataError
from estudio_core.pipeline.manifests import DatasetManifest, SessionsManifest
from estudio_core.pipeline.training.sessions import read_sessions
from estudio_core.plugin.plugin import prepare
from estudio_core.plugin.registry import open_plugin

if TYPE_CHECKING:
    from estudio_core.plugin.plugin import Plugin

logger = logging.getLogger(__name__)


def preprocess(plugin_name: str, run_id: str, sessions: dict[str, Any]) -> DatasetManifest:
    """Build and store the training set of the extracted sessions.

    Raises:
        NotEnoughDataError: no clicked session is left to train on, or to decide by where there are no judgments.
        DataError: sessions or items cannot be used.
    """
    from estudio_core.clickstream.splitter import items_on_both_sides

    extracted = SessionsManifest.model_validate(sessions)
    store = ArtifactStore()
    clickstream = read_sessions(store, extracted.uri)
    plugin = open_plugin(plugin_name)
    data = prepare(plugin, clickstream)
    if all(session.is_clickless for session in data.splits["train"]):
        raise NotEnoughDataError(
            f"None of the {len(data.splits['train'])} training sessions has a click on an item that still exists."
        )
    if all(session.is_clickless for session in data.splits["dev"]):
        raise NotEnoughDataError(
            f"None of the {len(data.splits['dev'])} development sessions has a click, so nothing can say when to "
            "stop training. Collect more sessions, or raise test_size_ratio."
        )
    if plugin.judgments is None:
        _check_held_out(data, plugin.gate.minimum_queries)
    needed = _sessions_for_decision(plugin, data)
    with store.publish(plugin_name, run_id, "dataset") as folder:
        data.save(folder)
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
        sessions_for_decision=needed,
    )


def _check_held_out(data: RankingData, fewest: int) -> None:
    """Refuse an empty held-out side, and warn of one on which no gate can decide, before anything is trained for it."""
    clicked = {
        split: len({session.query_key for session in data.splits[split] if not session.is_clickless})
        for split in SPLITS
    }
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

    log = held_out_clicks(data, set(data.items))
    needed = None if log is None else sessions_for_decision(log, plugin.gate, plugin.training.examination_exponent)
    if log is not None and needed is not None and needed > len(log.clients):
        logger.warning(
            "%d sessions are held out; to find a gain of %g by clicks about %d are needed.",
            len(log.clients),
            plugin.gate.told_gain,
            needed,
        )
    return needed
