"""Is the candidate better than what serves now, on queries it saw and on queries it never saw?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from estudio_core import database
from estudio_core.artifacts import ArtifactStore
from estudio_core.clickstream.dataset_files import read_dataset
from estudio_core.evaluation.gate import decide
from estudio_core.lexical.settings import Fusion
from estudio_core.pipeline.evaluation.evaluation_set import EvaluationSet, ModelRanking
from estudio_core.pipeline.evaluation.questions import held_out_clicks, questions
from estudio_core.pipeline.evaluation.report import numbers_of, write_report
from estudio_core.pipeline.evaluation.unregistered import exported
from estudio_core.pipeline.items.parts import ItemParts
from estudio_core.pipeline.items.vector_store import VectorStore
from estudio_core.pipeline.manifests import EvaluationManifest, TrainingManifest
from estudio_core.plugin.registry import open_plugin
from estudio_core.vectordb.releases import live_release

if TYPE_CHECKING:
    from estudio_core.clickstream.click_log import ClickLog
    from estudio_core.evaluation.click_verdict import ClickVerdict
    from estudio_core.plugin.plugin import Plugin


def evaluate(plugin_name: str, run_id: str, trained: dict[str, Any]) -> EvaluationManifest:
    """Rank the catalog with candidate and champion for the same queries, decide, and write the report.

    The candidate is exported first and ranked as it would be served: one that was trained for queries alone with the
    items' vectors that are live. Item vectors of another are kept for the release.

    Raises:
        ExportError: the candidate cannot be exported.
        DataError: there is nothing to evaluate on.
    """
    training = TrainingManifest.model_validate(trained)
    plugin = open_plugin(plugin_name)
    store = ArtifactStore()
    with store.fetch(training.dataset.uri) as folder:
        data = read_dataset(folder)
    judgments, groups = questions(plugin.judgments, data)
    # All of them: in a sample that keeps what the champion showed, a candidate's own answers are mostly missing.
    items = list(ItemParts(plugin).of_rows(plugin.loader.iter_items()))
    clicks = held_out_clicks(data, {split.item.object_id for split in items})
    rated = plugin.judgments is not None
    evaluation_set = EvaluationSet(plugin.index, items, judgments, groups, rated, clicks)
    with store.fetch(training.uri) as trained_folder, store.publish(plugin_name, run_id, "evaluation") as folder:
        champion = _champion(evaluation_set, plugin, training)
        candidate = _candidate(
            evaluation_set, plugin, trained_folder / "model", folder / "scratch", training.item_version
        )
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
    return EvaluationManifest(
        uri=store.uri(plugin_name, run_id, "evaluation"),
        training=training,
        promoted=decision.promoted,
        reason=decision.reason,
        summary=summary,
        metrics=numbers_of(decision),
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
    from estudio_core.inference.model_store import entry_of
    from estudio_core.inference.opening import open_bulk_embedder
    from estudio_core.pipeline.publish_model import publish_model

    with database.connect() as connection:
        live = live_release(connection, plugin.meta.name)
    version = live.model_version if live else training.start_version
    published = publish_model(plugin.meta.name, version)
    items = published.item_name or published.name
    digest = entry_of(items).digest
    known = VectorStore.from_live_collection(plugin.meta.name, digest)
    fusion = published.ranking
    if live:  # built before words were ranked, it is served by vectors alone
        fusion = Fusion(weight=0) if live.index_info.lexical is None else live.ranking
    name = f"version {version}" + (f", items {published.item_version}" if published.item_version else "")
    return evaluation_set.rank_with(
        name, open_bulk_embedder(items), digest, known, fusion, open_bulk_embedder(published.name)
    )[0]


def _candidate(
    evaluation_set: EvaluationSet, plugin: Plugin, model_folder: Path, scratch: Path, item_version: str | None
) -> ModelRanking:
    """Rank with the candidate as it would be served, and keep its item vectors for the release."""
    from estudio_core.inference.opening import open_bulk_embedder
    from estudio_core.pipeline.publish_model import publish_model

    plugin_name = plugin.meta.name
    fusion = Fusion.of_model(model_folder)
    with exported(plugin, model_folder, scratch) as (embedder, digest):
        if item_version is None:
            known = VectorStore.load(plugin_name, digest)
            ranking, vectors = evaluation_set.rank_with("candidate", embedder, digest, known, fusion)
            VectorStore.save(plugin_name, digest, vectors)
        else:
            items = publish_model(plugin_name, item_version)
            known = VectorStore.from_live_collection(plugin_name, items.digest)
            name = f"candidate, items {item_version}"
            ranking, _ = evaluation_set.rank_with(
                name, open_bulk_embedder(items.name), items.digest, known, fusion, of_queries=embedder
            )
    return ranking
