from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from estudio_core.clickstream.ranking_data import ItemsSet, RankingData
from estudio_core.models.embedding_model import EmbeddingModel
from lightning_modules.config import TrainingConfig
from lightning_modules.encoding import TextEncoder
from lightning_modules.fit import fit
from lightning_modules.gradient_cache import CachedGradients
from lightning_modules.text_bank import TextBank

NewModel = Callable[[], EmbeddingModel]


@pytest.mark.parametrize("share", [0.0, 0.5, 2.0])
def test_gradients_equal_those_of_one_pass_with_dropout_on(
    new_model: NewModel, ranking_data: RankingData, share: float
) -> None:
    model = new_model()
    bank = TextBank(model, ranking_data.splits["train"], ranking_data.items)
    encoder = TextEncoder(model, bank, batch_tokens=20)
    rows = torch.randperm(len(bank)).tolist()
    assert len(encoder.chunks(rows)) > 10
    target = torch.randn(len(rows), model.dimensions)
    model.train()
    bound = round(share * _kept_bytes(model, lambda: encoder(rows)))
    gradients = []
    for cached in (False, True):
        model.zero_grad()
        torch.manual_seed(9)
        cache = CachedGradients(encoder, bound)
        vectors = cache.encode(rows) if cached else encoder(rows)
        ((vectors @ vectors.T) * (vectors @ target.T)).sum().backward()
        if cached:
            cache.backward(nullcontext)
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) == len(list(model.parameters()))
    for one_pass, in_chunks in zip(*gradients, strict=True):
        torch.testing.assert_close(in_chunks, one_pass, atol=1e-5, rtol=1e-4)


def test_what_graphs_keep_stays_within_the_bound_and_is_used_to_the_full(
    new_model: NewModel, ranking_data: RankingData
) -> None:
    model = new_model().train()
    bank = TextBank(model, ranking_data.splits["train"], ranking_data.items)
    encoder = TextEncoder(model, bank, batch_tokens=8192)
    rows = list(range(len(bank)))
    whole = _kept_bytes(model, lambda: encoder(rows))
    for bound in (whole // 2, whole // 4):
        cache = CachedGradients(encoder, bound)
        for step in (partial(cache.encode, rows), partial(_step, cache, rows)):
            assert 0.7 * bound < _kept_bytes(model, step) < 1.1 * bound
    nothing = CachedGradients(encoder, 0)
    assert _kept_bytes(model, lambda: nothing.encode(rows)) == 8 * len(rows), "their order, and nothing else"


def _step(cache: CachedGradients, rows: list[int]) -> None:
    cache.encode(rows).sum().backward()
    cache.backward(nullcontext)


def _kept_bytes(model: EmbeddingModel, call: Callable[[], object]) -> int:
    """Return the most bytes that graphs made in a call keep at the same time; parameters are there anyway."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: Counter[tuple[int, int]] = Counter()
    most = 0

    class Kept:
        def __init__(self, tensor: torch.Tensor) -> None:
            nonlocal most
            self.tensor = tensor
            storage = tensor.untyped_storage()
            self.key = (storage.data_ptr(), storage.nbytes())
            kept[self.key] += storage.data_ptr() not in parameters
            most = max(most, sum(size for (_, size), graphs in kept.items() if graphs))

        def __del__(self) -> None:
            kept[self.key] -= 1

    with saved_tensors_hooks(Kept, lambda one: one.tensor):
        result = call()
    del result
    return most


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
        fit(new_model(), ranking_data, TrainingConfig(**quick, activations_mb=bound, encode_batch_tokens=64))
        for bound in (1024, 0)
    )
    assert len(plain.history) == len(cached.history)
    for (_, a), (_, b) in zip(plain.history, cached.history, strict=True):
        assert a == pytest.approx(b, abs=1e-3)
