"""Training of queries alone: what moves, what stays, and what is encoded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from estudio_core.clickstream.ranking_data import RankingData
from estudio_core.errors import ConfigurationError
from estudio_core.models.embedding_model import EmbeddingModel
from lightning_modules.base_vectors import BaseVectors
from lightning_modules.config import TrainingConfig
from lightning_modules.encoding import TextEncoder
from lightning_modules.fit import fit
from lightning_modules.query_tower import QueryTower
from lightning_modules.text_bank import TextBank

from .conftest import QUICK

NewModel = Callable[[], EmbeddingModel]
QUERY = QUICK | {"train": "query"}


def weights(model: EmbeddingModel) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def test_queries_are_learned_while_the_items_model_stays_bitwise(
    new_model: NewModel, ranking_data: RankingData
) -> None:
    model, items = new_model(), new_model()
    before = weights(items)
    result = fit(model, ranking_data, TrainingConfig(**QUERY), item_model=items)
    assert all(torch.equal(parameter, before[name]) for name, parameter in items.named_parameters())
    changed = {name.partition("layer.")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert {"backbone.embeddings.word_embeddings.weight", "backbone.encoder."} <= changed, "no layer is frozen"
    assert result.metrics["test_pool_ndcg@10"] > result.history[0][1]["test_pool_ndcg@10"] + 0.1


def test_dev_queries_are_judged_against_the_vectors_that_items_keep(
    new_model: NewModel, ranking_data: RankingData
) -> None:
    other = new_model()
    with torch.no_grad():  # another space: what the items' model says of queries is of no consequence
        other.backbone.embeddings.word_embeddings.weight.normal_(std=0.05)
    config = TrainingConfig(**QUERY | {"num_epochs": 1})
    own = fit(new_model(), ranking_data, config)
    apart = fit(new_model(), ranking_data, config, item_model=other)
    assert own.history[0][1] != apart.history[0][1]
    assert own.history[0] == fit(new_model(), ranking_data, config, item_model=new_model()).history[0]


def test_items_are_looked_up_and_only_tokens_of_queries_are_encoded(
    new_model: NewModel, ranking_data: RankingData
) -> None:
    model = new_model().eval()
    bank = TextBank(model, ranking_data.splits["train"], ranking_data.items)
    vectors = torch.randn(len(bank), 32)
    tower = QueryTower(model, bank, BaseVectors(lambda rows: vectors[rows], len(bank)), batch_tokens=40)
    rows = [bank.query_count + 3, 2, bank.query_count, 0, 1]
    found = tower(rows)
    assert torch.equal(found[[0, 2]], vectors[[rows[0], rows[2]]])
    torch.testing.assert_close(found[[1, 3, 4]], TextEncoder(model, bank, 40)([2, 0, 1]))
    assert found.requires_grad
    assert tower.token_count(rows) == int(bank.lengths[[0, 1, 2]].sum())
    assert sorted(place for chunk in tower.chunks(rows) for place in chunk) == [0, 1, 2, 3, 4]


def test_drift_of_queries_alone_is_penalised(new_model: NewModel, ranking_data: RankingData) -> None:
    def moved(penalty: float) -> float:
        model = new_model()
        fit(model, ranking_data, TrainingConfig(**QUERY | {"drift_penalty": penalty, "keep_start": False}))
        texts = [session.query for session in ranking_data.splits["train"]]
        with torch.no_grad():
            now, then = (m.eval().encode_queries(texts) for m in (model, new_model()))
        return float((1 - (now * then).sum(-1)).mean())

    assert moved(20.0) < 0.5 * moved(0.0)


def test_the_gradient_cache_gives_the_same_metrics(new_model: NewModel, ranking_data: RankingData) -> None:
    plain, cached = (
        fit(
            new_model(),
            ranking_data,
            TrainingConfig(**QUERY | {"num_epochs": 1, "batch_size": 30}, activations_mb=bound, encode_batch_tokens=64),
        )
        for bound in (1024, 0)
    )
    for (_, a), (_, b) in zip(plain.history, cached.history, strict=True):
        assert a == pytest.approx(b, abs=1e-3)


def test_an_item_model_that_would_be_trained_is_refused(new_model: NewModel, ranking_data: RankingData) -> None:
    with pytest.raises(ConfigurationError, match="say train='query'"):
        fit(new_model(), ranking_data, TrainingConfig(**QUICK), item_model=new_model())
    with pytest.raises(ConfigurationError, match="query_fixed_layers is 3"):
        fit(new_model(), ranking_data, TrainingConfig(**QUERY | {"query_fixed_layers": 3}))
