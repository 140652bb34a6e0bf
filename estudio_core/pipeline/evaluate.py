"""Is the candidate better than what serves now, on queries it saw and on queries it never saw?"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from estudio_core import database
from estudio_core.artifacts import ArtifactStore
from estudio_core.clickstream.ranking_data import RankingData
from estudio_core.evaluation.gate import decide
from estudio_core.lexical.settings import Fusion
from estudio_core.pipeline.evaluation.evaluation_set import EvaluationSet, ModelRanking
from estudio_core.pipeline.evaluation.questions import held_out_clicks, questions
from estudio_core.pipeline.evaluation.report import write_report
from estudio_core.pipeline.items.parts import ItemParts
from estudio_core.pipeline.items.vector_store import VectorStore
from estudio_core.pipeline.manifests import EvaluationManifest, TrainingManifest
from estudio_core.plugin.registry import open_plugin
from estudio_core.vectordb.releases import live_release

if TYPE_CHECKING:
    from estudio_core.evaluation.click_log import ClickLog
    from estudio_core.evaluation.click_verdict import ClickVerdict
    from estudio_core.plugin.plugin import Plugin

_SCRATCH_VERSION = 0
"""Version under which a candidate that is not registered yet is exported, in a folder of its own."""


def evaluate(plugin_name: str, run_id: str, trained: dict[str, Any]) -> EvaluationManifest:
    """Rank the catalog with candidate and champion for the same queries, decide, and write the report.

    The candidate is exported first and ranked as it would be served. Its item vectors are kept for the release.

    Raises:
        ExportError: the candidate cannot be exported.
        DataError: there is nothing to evaluate on.
    """
    training = TrainingManifest.model_validate(trained)
    plugin = open_plugin(plugin_name)
    store = ArtifactStore()
    with store.fetch(training.dataset.uri) as folder:
        data = RankingData.load(folder)
    judgments, groups = questions(plugin.judgments, data)
    # All of them: in a sample that keeps what the champion showed, a candidate's own answers are mostly missing.
    items = list(ItemParts(plugin).of_rows(plugin.loader.iter_items()))
    clicks = held_out_clicks(data, {split.item.object_id for split in items})
    rated = plugin.judgments is not None
    evaluation_set = EvaluationSet(plugin.index, items, judgments, groups, rated, clicks)
    with store.fetch(training.uri) as trained_folder, store.publish(plugin_name, run_id, "evaluation") as folder:
        champion = _champion(evaluation_set, plugin, training)
        candidate = _candidate(evaluation_set, plugin, trained_folder / "model", folder / "scratch")
        decision = decide(
            champion.metrics,
            candidate.metrics,
            plugin.gate,
            champion_similarity=champion.random_similarity,
            candidate_similarity=candidate.random_similarity,
            clicks=_click_verdict(clicks, champion, candidate, plugin),
            rated=rated,
        )
        course = json.loads((trained_folder / "history.json").read_text())
        summary = write_report(folder, run_id, training, data, decision, evaluation_set, champion, candidate, course)
    numbers = {
        f"{group.group}_{comparison.metric}_{side}": getattr(comparison, side).mean
        for group in decision.groups
        for comparison in group.metrics
        for side in ("before", "after", "gain")
    } | {
        f"{group.group}_tax_{comparison.metric}": comparison.gain.mean
        for group in decision.groups
        for comparison in group.tax
    }
    if decision.clicks is not None:
        said = decision.clicks
        numbers |= {
            "clicks_gain": said.least.mean,
            "clicks_gain_low": said.least.low,
            "clicks_gain_high": said.most.high,
            "clicks_sessions": said.sessions,
        } | ({} if said.sessions_needed is None else {"clicks_sessions_needed": said.sessions_needed})
    return EvaluationManifest(
        uri=store.uri(plugin_name, run_id, "evaluation"),
        training=training,
        promoted=decision.promoted,
        reason=decision.reason,
        summary=summary,
        metrics=numbers,
        undecided=decision.undecided,
    )


def _click_verdict(
    clicks: ClickLog | None, champion: ModelRanking, candidate: ModelRanking, plugin: Plugin
) -> ClickVerdict | None:
    """Return what held-out clicks say; None without any."""
    from estudio_core.evaluation.click_gain import ClickGain
    from estudio_core.evaluation.click_verdict import judge_clicks

    if clicks is None or champion.pairs is None or candidate.pairs is None:
        return None
    estimator = ClickGain(clicks, champion.pairs.scores, plugin.training.examination_exponent)
    return judge_clicks(estimator, champion.pairs, candidate.pairs, plugin.gate)


def _champion(evaluation_set: EvaluationSet, plugin: Plugin, training: TrainingManifest) -> ModelRanking:
    """Rank with what serves now; before the first release, with the version that training started from."""
    from estudio_core.inference.manifest import entry_of
    from estudio_core.inference.opening import open_bulk_embedder
    from estudio_core.pipeline.publish_model import publish_model

    with database.connect() as connection:
        live = live_release(connection, plugin.meta.name)
    version = live.model_version if live else training.start_version
    published = publish_model(plugin.meta.name, version)
    digest = entry_of(published.name).digest
    known = VectorStore.from_live_collection(plugin.meta.name, digest)
    embedder = open_bulk_embedder(published.name)
    fusion = published.ranking
    if live:  # built before words were ranked, it is served by vectors alone
        fusion = Fusion(weight=0) if live.index_info.lexical is None else live.ranking
    return evaluation_set.rank_with(f"version {version}", embedder, digest, known, fusion)[0]


def _candidate(evaluation_set: EvaluationSet, plugin: Plugin, model_folder: Path, scratch: Path) -> ModelRanking:
    """Export the candidate, rank with it as it would be served, and keep its item vectors for the release."""
    from estudio_core.export.triton_repository import ExportOptions, publish_entry
    from estudio_core.inference.manifest import entry_name
    from estudio_core.inference.opening import open_scratch_embedder
    from estudio_core.models.storage import load_model

    plugin_name = plugin.meta.name
    name = entry_name(plugin_name, _SCRATCH_VERSION)
    # In the plugin's precision, so that its vectors can be used again; what that loses, the release measures.
    options = ExportOptions(precision=plugin.export.precision)
    entry = publish_entry(scratch, name, load_model(model_folder), options=options)
    embedder = open_scratch_embedder(name, repository=scratch)
    ranking, vectors = evaluation_set.rank_with(
        "candidate",
        embedder,
        entry.digest,
        VectorStore.load(plugin_name, entry.digest),
        Fusion.of_model(model_folder),
    )
    embedder.close()
    VectorStore.save(plugin_name, entry.digest, vectors)
    shutil.rmtree(scratch)
    return ranking
