from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch

from estudio_core.clickstream.ranking_data import ItemsSet, RankingData
from estudio_core.models.embedding_model import EmbeddingModel
from lightning_modules.config import TrainingConfig
from lightning_modules.encoding import TextEncoder
from lightning_modules.fit import fit
from lightning_modules.gradient_cache import CachedGradients
from lightning_modules.text_bank import TextBank

NewModel = Callable[[], EmbeddingModel]


def test_gradients_equal_those_of_one_pass_with_dropout_on(new_model: NewModel, ranking_data: RankingData) -> None:
    model = new_model()
    bank = TextBank(model, ranking_data.splits["train"], ranking_data.items)
    encoder = TextEncoder(model, bank, batch_tokens=20)
    rows = [0, 40, 3, 55, 17, 41]
    assert len(encoder.chunks(rows)) > 1
    target = torch.randn(len(rows), model.dimensions)
    model.train()
    gradients = []
    for cached in (False, True):
        model.zero_grad()
        torch.manual_seed(9)
        cache = CachedGradients(encoder)
        vectors = cache.encode(rows) if cached else encoder(rows)
        assert vectors.is_leaf is cached, "what a kept graph needs in memory grows with the batch"
        ((vectors @ vectors.T) * (vectors @ target.T)).sum().backward()
        if cached:
            cache.backward(nullcontext)
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) == len(list(model.parameters()))
    for one_pass, in_chunks in zip(*gradients, strict=True):
        torch.testing.assert_close(in_chunks, one_pass, atol=1e-5, rtol=1e-4)


def test_short_texts_are_not_padded_to_the_length_of_long_ones(new_model: NewModel, ranking_data: RankingData) -> None:
    model = new_model()
    long = {
        key: (" ".join([*ranking_data.items[key], *["good"] * (n % 9)]),) for n, key in enumerate(ranking_data.items)
    }
    bank = TextBank(model, ranking_data.splits["train"], ItemsSet(long))
    encoder = TextEncoder(model, bank, batch_tokens=40)
    rows = list(range(len(bank)))
    padded = sum(len(chunk) * max(int(bank.lengths[rows[i]]) for i in chunk) for chunk in encoder.chunks(rows))
    real = bank.token_count(rows)
    assert sorted(i for chunk in encoder.chunks(rows) for i in chunk) == rows
    assert real <= padded < 1.1 * real


def test_training_with_it_gives_the_same_metrics(new_model: NewModel, ranking_data: RankingData) -> None:
    quick = {"num_epochs": 1, "batch_size": 30, "learning_rate": 5e-3, "num_fixed_layers": 1, "precision": "32"}
    plain, cached = (
        fit(new_model(), ranking_data, TrainingConfig(**quick, gradient_cache=on, encode_batch_tokens=64))
        for on in (False, True)
    )
    assert len(plain.history) == len(cached.history)
    for (_, a), (_, b) in zip(plain.history, cached.history, strict=True):
        assert a == pytest.approx(b, abs=1e-3)
