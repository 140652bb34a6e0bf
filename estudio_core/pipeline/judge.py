"""Is the adapted model better than the base model, before anything is live?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from estudio_core.artifacts import ArtifactStore
from estudio_core.evaluation.gate import decide
from estudio_core.lexical.settings import Fusion
from estudio_core.pipeline.evaluation.evaluation_set import EvaluationSet, ModelRanking
from estudio_core.pipeline.evaluation.report import numbers_of, summary
from estudio_core.pipeline.evaluation.sample import hash_share, sampled_items
from estudio_core.pipeline.evaluation.unregistered import exported
from estudio_core.pipeline.items.vector_store import VectorStore
from estudio_core.pipeline.manifests import JudgedManifest, PretrainingManifest
from estudio_core.pipeline.pair_catalog import KNOWN_ITEMS_FILE
from estudio_core.pipeline.pretraining.report import write_report
from estudio_core.plugin.registry import open_plugin

if TYPE_CHECKING:
    from estudio_core.pipeline.items.parts import SplitItem
    from estudio_core.plugin.plugin import Plugin
    from estudio_core.preprocessing.catalog.known_items import KnownItem

MOST_ITEMS = 50_000
"""Items that both models rank by judgments; of larger catalogs the judged ones, and a fixed sample of about as many."""
MOST_TITLES = 4_000
"""Items that both models rank by known items, beside these: no release has a use for their vectors."""


def judge(plugin_name: str, run_id: str, pretrained: dict[str, Any]) -> JudgedManifest:
    """Rank known items with both models as they would be served, the plugin's judgments too, decide, and report.

    Known items (`preprocessing.catalog.known_items`) have to be found better for certain. Where the plugin has enough
    judgments, these have to gain in the mean besides, with a loss of more than the gate's `maximum_loss` ruled out, in
    the full and the judged figure.

    Raises:
        ExportError: a model cannot be exported.
    """
    from estudio_core.preprocessing.catalog.known_items import KnownItem

    training = PretrainingManifest.model_validate(pretrained)
    plugin = open_plugin(plugin_name)
    store = ArtifactStore()
    with store.fetch(training.pairs.uri) as folder:
        known = [KnownItem(**item) for item in json.loads((folder / KNOWN_ITEMS_FILE).read_text(encoding="utf-8"))]
    sets = _evaluation_sets(plugin, known)
    base_folder = plugin.experiments.download_model(training.base_version)
    with store.fetch(training.uri) as trained, store.publish(plugin_name, run_id, "evaluation") as folder:
        base = _ranked(plugin, sets, f"version {training.base_version}", base_folder, folder / "scratch")
        adapted = _ranked(plugin, sets, "adapted", trained / "model", folder / "scratch")
        before, after = ({g: m for one in side for g, m in one.metrics.items()} for side in (base, adapted))
        decision = decide(
            before,
            after,
            plugin.gate,
            champion_similarity=base[-1].random_similarity,
            candidate_similarity=adapted[-1].random_similarity,
        )
        history = json.loads((trained / "history.json").read_text(encoding="utf-8"))
        write_report(folder, plugin_name, run_id, training, decision, sets, base, adapted, history)
    return JudgedManifest(
        uri=store.uri(plugin_name, run_id, "evaluation"),
        training=training,
        promoted=decision.promoted,
        reason=decision.reason,
        summary=summary(decision),
        metrics=numbers_of(decision),
    )


def _evaluation_sets(plugin: Plugin, known: Sequence[KnownItem]) -> list[EvaluationSet]:
    """Return known items among others, all without title, and the judgments over the catalog, if there are enough."""
    from estudio_core.evaluation.judgments import Judgments

    human = plugin.judgments
    human = human.with_one_spelling().answerable() if human is not None else Judgments({})
    needed = human.object_ids | {item.object_id for item in known}
    items = list(sampled_items(plugin, needed, MOST_ITEMS))
    ids = {item.object_id for item in known}
    share = MOST_TITLES / max(len(items), 1)
    titleless = [
        without
        for split in items
        if split.item.object_id in ids or hash_share(split.item.object_id) < share
        if (without := _without_title(plugin, split)) is not None
    ]
    answers: dict[str, dict[str, float]] = {}
    for item in known:
        answers.setdefault(item.query, {})[item.object_id] = 1.0
    sets = [EvaluationSet(plugin.index, titleless, Judgments(answers), {"known": tuple(answers)}, rated=False)]
    if len(human) >= plugin.gate.minimum_queries:
        sets.append(EvaluationSet(plugin.index, items, human, {"unseen": tuple(human)}, rated=True))
    return sets


def _without_title(plugin: Plugin, split: SplitItem) -> SplitItem | None:
    """Return an item as known items are ranked: what a query would be drawn of is in neither text nor payload."""
    from estudio_core.preprocessing.catalog.pairs import cut

    pair = cut(split.item.object_id, split.item.data, plugin.item_texts.preprocessor, title=True)
    if pair is None:
        return None
    parts = plugin.item_texts.item_splitter(pair.rest)
    return replace(split, item=replace(split.item, payload={}), text=pair.rest, parts=parts)


def _ranked(
    plugin: Plugin, sets: Sequence[EvaluationSet], name: str, model_folder: Path, scratch: Path
) -> list[ModelRanking]:
    """Return how a model ranks each set; its vectors of the catalog as it is are kept for the release."""
    with exported(plugin, model_folder, scratch) as (embedder, digest):
        kept, fusion = VectorStore.load(plugin.meta.name, digest), Fusion.of_model(model_folder)
        found = [one.rank_with(name, embedder, digest, kept, fusion) for one in sets]
    if len(found) > 1:
        VectorStore.save(plugin.meta.name, digest, found[-1][1])
    return [ranking for ranking, _ in found]
