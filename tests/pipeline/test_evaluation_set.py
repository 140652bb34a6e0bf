"""What a model is told of its ranking: by people's ratings, and by clicks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from estudio_core.evaluation.evaluate import FULL, OF_RATINGS
from estudio_core.evaluation.judgments import Judgments
from estudio_core.inference.model_store import entry_of
from estudio_core.inference.opening import open_bulk_embedder
from estudio_core.lexical.settings import Fusion
from estudio_core.pipeline.evaluate import _champion
from estudio_core.pipeline.evaluation.evaluation_set import EvaluationSet
from estudio_core.pipeline.evaluation.sample import sampled_items
from estudio_core.pipeline.items.vector_store import VectorStore
from estudio_core.pipeline.publish_model import publish_model
from estudio_core.pipeline.register_base_model import register_base_model
from estudio_core.plugin.registry import open_plugin
from tests.pipeline.conftest import KINDS, Shop
from tests.pipeline.steps import initialize

JUDGMENTS = Judgments({"lamp": {"0": 3, "1": 0}, "chair": {"1": 3, "7": 2, "2": 0}, "tent": {"5": 1}})


@pytest.mark.parametrize("rated", [True, False])
def test_each_group_has_its_queries_and_clicks_tell_nothing_of_ratings(shop: Shop, rated: bool) -> None:
    name = publish_model("shop", register_base_model("shop", "initialize-1", "ana")).name
    plugin, digest = open_plugin("shop"), entry_of(name).digest
    items = list(sampled_items(plugin, set(), 60))
    asked = EvaluationSet(plugin.index, items, JUDGMENTS, {"seen": ("tent",), "unseen": ("chair", "lamp")}, rated)
    embedder, known = open_bulk_embedder(name), VectorStore.load("shop", digest)
    ranking, vectors = asked.rank_with("base", embedder, digest, known, Fusion(weight=0))
    assert ranking.metrics is ranking.vectors_alone
    assert len(vectors) == 60
    assert {group: found.queries for group, found in ranking.metrics.items()} == asked.groups
    for found in ranking.metrics.values():
        assert FULL in found.values
        assert [name in found.values for name in OF_RATINGS] == [rated] * 3
    assert list(ranking.top) == ["tent", "chair", "lamp"]
    best = [JUDGMENTS["chair"].get(found, 0) for found in ranking.top["chair"]]
    assert (ranking.metrics["unseen"].values["mrr@10"][0] > 0) == any(best)
    # With much weight on words, what holds them is served first, and what vectors alone rank is told beside it.
    worded, _ = asked.rank_with("words", embedder, digest, known, Fusion(weight=100))
    assert {KINDS[int(found) % len(KINDS)] for found in worded.top["lamp"]} == {"lamp"}
    assert {KINDS[int(found) % len(KINDS)] for found in ranking.top["lamp"]} != {"lamp"}
    for group, of_vectors in ranking.metrics.items():
        assert worded.vectors_alone[group].values[FULL].tolist() == of_vectors.values[FULL].tolist()
    assert asked.words_alone["seen"].queries == ("tent",)


def test_a_champion_is_ranked_as_it_is_served(shop: Shop) -> None:
    initialize("shop")
    plugin = open_plugin("shop")
    asked = EvaluationSet(plugin.index, list(sampled_items(plugin, set(), 60)), JUDGMENTS, {"unseen": ("lamp",)}, True)
    training: Any = SimpleNamespace(start_version="1")
    champion = _champion(asked, plugin, training)
    assert champion.metrics is not champion.vectors_alone
    shop.sql("UPDATE estudio.deployments SET ranking = '{\"weight\": 50}'")
    assert {KINDS[int(found) % len(KINDS)] for found in _champion(asked, plugin, training).top["lamp"]} == {"lamp"}
    # As a version before words were ranked built it.
    shop.sql("UPDATE estudio.deployments SET index_info = index_info || '{\"lexical\": null}'")
    champion = _champion(asked, plugin, training)
    assert champion.metrics is champion.vectors_alone
