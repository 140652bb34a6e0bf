"""What a training is told reaches its steps: epochs, mining, guard, curriculum, the loss's values, validations."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import pytest
import torch
from torch import Tensor

from estudio_core.clickstream.dataset_words import DatasetWords
from estudio_core.clickstream.ranking_data import FineTuningInput, ItemsSet, RankingData
from estudio_core.errors import ConfigurationError, DataError, ModelError
from estudio_core.models.embedding_model import EmbeddingModel
from estudio_core.vectordb.index_info import MetricAggregationType, MetricType
from lightning_modules.batches import BatchBuilder, SessionBatch
from lightning_modules.config import TrainingConfig
from lightning_modules.fit import fit
from lightning_modules.lexical_scores import LexicalScores
from lightning_modules.losses import CosineProbMarginRankingLoss

from .conftest import QUICK, session

NewModel = Callable[[], EmbeddingModel]
SHORT = QUICK | {"num_epochs": 3}


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, tuple[str, ...], dict[str, tuple[str, ...]]]]:
    """Epoch, session ids, and mined objects of every batch that a training builds."""
    batches: list[tuple[int, tuple[str, ...], dict[str, tuple[str, ...]]]] = []
    build = BatchBuilder.build

    def recorded(self: BatchBuilder, sessions: Sequence[FineTuningInput], epoch: int) -> SessionBatch:
        mined = {query: tuple(objects) for query, objects in self.mined.items()}
        batches.append((epoch, tuple(s.session_id for s in sessions), mined))
        return build(self, sessions, epoch)

    monkeypatch.setattr(BatchBuilder, "build", recorded)
    return batches


class Recorded(CosineProbMarginRankingLoss):
    """The loss, with what it was given at each training step."""

    calls: ClassVar[list[dict[str, Any]]] = []

    def forward(self, positive: Tensor, negative: Tensor, *rest: Any, **inputs: Any) -> Tensor:
        """Remember the differences of the pairs and the values of the loss."""
        if positive.requires_grad:  # a training step, no validation
            self.calls.append(
                {
                    "done": inputs["done"],
                    "positive": positive.detach(),
                    "difference": (positive - negative).detach(),
                    "margin": self.margin_at(inputs["done"]),
                    "thresholds": (self.min_abs_difference_threshold, self.max_abs_difference_threshold),
                    "confidence": inputs["confidences"].detach(),
                }
            )
        return super().forward(positive, negative, *rest, **inputs)


def steps_of(
    model: EmbeddingModel, data: RankingData, weights: dict[str, Any] | None = None, **config: object
) -> list[dict[str, Any]]:
    Recorded.calls.clear()
    fit(model, data, TrainingConfig(**SHORT | config), loss=Recorded(), **(weights or {}))
    return list(Recorded.calls)


def test_batches_are_put_together_anew_in_every_epoch(
    new_model: NewModel, ranking_data: RankingData, built: list[Any]
) -> None:
    fit(new_model(), ranking_data, TrainingConfig(**SHORT))
    epochs = [epoch for epoch, _, _ in built]
    assert epochs == sorted(epochs)
    assert set(epochs) == {0, 1, 2}
    batches = [[ids for epoch, ids, _ in built if epoch == number] for number in range(3)]
    assert len({frozenset(i for ids in of_epoch for i in ids) for of_epoch in batches}) == 1
    assert len({tuple(of_epoch) for of_epoch in batches}) == 3


def test_negatives_are_mined_anew_in_every_epoch(
    new_model: NewModel, ranking_data: RankingData, built: list[Any]
) -> None:
    fit(new_model(), ranking_data, TrainingConfig(**SHORT, mined_negatives=2))
    mined = {epoch: objects for epoch, _, objects in built}
    assert mined[0]
    assert len({tuple(sorted(objects.items())) for objects in mined.values()}) > 1


def test_the_guard_leaves_out_pairs(new_model: NewModel, ranking_data: RankingData) -> None:
    pairs = [
        len(steps_of(new_model(), ranking_data, max_steps=1, false_negative_guard=guard)[0]["difference"])
        for guard in (None, 2.0, -2.0)
    ]
    assert pairs[0] == pairs[1] > pairs[2] > 0


def test_each_stage_of_the_curriculum_trains_on_its_kind_of_pairs(
    new_model: NewModel, ranking_data: RankingData
) -> None:
    calls = steps_of(new_model(), ranking_data, examples_order=(2, 3))  # hard ones, then soft ones
    first, second = ([c for c in calls if (c["done"] < 0.5) is early] for early in (True, False))
    assert first
    assert second
    assert all((c["difference"].abs() < c["margin"]).all() for c in first)
    assert all((c["difference"].abs() >= 2 * c["margin"]).all() for c in second)
    assert any(len(c["difference"]) for c in second)


def test_margin_and_thresholds_of_the_configuration_reach_the_loss(
    new_model: NewModel, ranking_data: RankingData
) -> None:
    given = {"margin": 0.3, "min_abs_difference_threshold": 0.01, "max_abs_difference_threshold": 0.9}
    call = steps_of(new_model(), ranking_data, max_steps=1, **given)[0]
    assert (call["margin"], call["thresholds"]) == (0.3, (0.01, 0.9))


def test_thresholds_that_leave_no_pair_are_refused_wherever_they_come_from(
    new_model: NewModel, ranking_data: RankingData
) -> None:
    loss = CosineProbMarginRankingLoss(min_abs_difference_threshold=0.8)
    config = TrainingConfig(**SHORT, max_abs_difference_threshold=0.1)
    with pytest.raises(ConfigurationError, match=r"max_abs_difference_threshold \(0\.1\) is below"):
        fit(new_model(), ranking_data, config, loss=loss)


def test_a_training_shorter_than_an_epoch_is_validated_on_its_way(
    new_model: NewModel, ranking_data: RankingData
) -> None:
    config = TrainingConfig(**SHORT | {"max_steps": 4, "test_each_n_sessions": 0.5, "batch_size": 5})
    result = fit(new_model(), ranking_data, config)
    assert [step for step, metrics in result.history if "test_quality" in metrics] == [0, 2, 4]


@pytest.mark.parametrize("split", ["dev", "none"])
def test_a_training_that_diverges_is_an_error(new_model: NewModel, ranking_data: RankingData, split: str) -> None:
    splits = ("train", "dev") if split == "dev" else ("train",)
    data = RankingData({name: ranking_data.splits[name] for name in splits}, ranking_data.items)
    config = TrainingConfig(**SHORT | {"gradient_clip": 0, "num_epochs": 1})
    config = config.model_copy(update={"learning_rate": 1e30})  # beyond what is legal
    with pytest.raises(ModelError, match=r"diverged: after step \d+, .* not finite\. Lower learning_rate"):
        fit(new_model(), data, config)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize("name", ["click_propensity", "confidences"])
def test_weights_that_are_no_weights_are_refused(
    new_model: NewModel, ranking_data: RankingData, name: str, wrong: float
) -> None:
    first = ranking_data.splits["train"][0]
    weights = {first.session_id: [1.0] * (len(first.results) - 1) + [wrong]}
    with pytest.raises(DataError, match=rf"{name} of session .* legal are finite numbers >= 0"):
        fit(new_model(), ranking_data, TrainingConfig(**SHORT), **{name: weights})  # type: ignore[arg-type]


@pytest.mark.parametrize(("clicked", "skipped"), [(0.25, 0.5), (0.5, 0.25)])
def test_a_pair_counts_by_the_lower_of_its_confidences_times_the_weight_of_the_click(
    new_model: NewModel, ranking_data: RankingData, clicked: float, skipped: float
) -> None:
    train = ranking_data.splits["train"]
    weights = {
        "confidences": {s.session_id: [clicked if w > 0 else skipped for w in s.click_weights] for s in train},
        "click_propensity": {s.session_id: [2.0] * len(s.results) for s in train},
    }
    [call] = steps_of(new_model(), ranking_data, weights, max_steps=1, in_batch_negatives=False)
    assert len(call["confidence"])
    assert call["confidence"].tolist() == pytest.approx([0.5] * len(call["confidence"]))


def test_sessions_without_a_click_give_negatives_where_they_are_asked_for(
    new_model: NewModel, ranking_data: RankingData
) -> None:
    train = ranking_data.splits["train"]
    shown = {result for session in train for result in session.results}
    silent = [
        FineTuningInput(f"silent-{n}", s.query, rest, tuple(range(len(rest))), (None,) * len(rest), (0.0,) * len(rest))
        for n, s in enumerate(train)
        if len(rest := tuple(sorted(shown - set(s.results)))[:3])
    ]
    data = RankingData(ranking_data.splits | {"train": [*train, *silent]}, ranking_data.items)
    given = {"max_steps": 1, "in_batch_negatives": False, "max_negatives": None}
    pairs = [
        len(steps_of(new_model(), data, not_irrelevant_only=only, **given)[0]["difference"]) for only in (True, False)
    ]
    assert pairs[1] > pairs[0] > 0


def test_outputs_of_frozen_layers_are_kept_unless_there_is_no_room(
    new_model: NewModel, ranking_data: RankingData
) -> None:
    def texts_through_the_lower_layers(**config: object) -> int:
        model, count = new_model(), 0
        lower = model.forward_lower

        def counted(ids: Tensor, mask: Tensor) -> Tensor:
            nonlocal count
            count += len(ids)
            return lower(ids, mask)

        model.forward_lower = counted  # type: ignore[method-assign]
        fit(model, ranking_data, TrainingConfig(**SHORT | config))
        return count

    kept, anew = (texts_through_the_lower_layers(cache_frozen_mb=mb, cache_frozen_disk_mb=0) for mb in (16, 0))
    assert 0 < kept < anew / 2


@pytest.mark.parametrize(("chosen", "compiled"), [("on", True), ("off", False)])
def test_the_choice_of_compilation_reaches_the_encoder(
    new_model: NewModel, ranking_data: RankingData, monkeypatch: pytest.MonkeyPatch, chosen: str, compiled: bool
) -> None:
    asked: list[dict[str, Any]] = []

    def compile_nothing(function: Callable[..., Tensor], **options: Any) -> Callable[..., Tensor]:
        asked.append(options)
        return function

    monkeypatch.setattr("torch.compile", compile_nothing)
    fit(new_model(), ranking_data, TrainingConfig(**SHORT | {"compile": chosen, "max_steps": 1}))
    assert bool(asked) is compiled


def moved(new_model: NewModel, data: RankingData, **config: object) -> float:
    """Return how far a training moves the weights."""
    model = new_model()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    fit(model, data, TrainingConfig(**SHORT | config))
    return sum(float((value.detach() - before[name]).norm()) for name, value in model.named_parameters())


def test_gradients_are_clipped_weights_decay_and_drift_is_held(new_model: NewModel, ranking_data: RankingData) -> None:
    usual = moved(new_model, ranking_data)
    assert moved(new_model, ranking_data, gradient_clip=1e-12) < usual / 100  # below Adam's epsilon nothing moves
    assert moved(new_model, ranking_data, drift_penalty=1000.0) < 0.9 * usual
    assert moved(new_model, ranking_data, weight_decay=1.0) != pytest.approx(usual, rel=1e-3)


def test_training_compares_parts_as_the_index_does(new_model: NewModel, ranking_data: RankingData) -> None:
    two_parts = ItemsSet({key: (*ranking_data.items[key], "good old rug") for key in ranking_data.items})
    data = RankingData(ranking_data.splits, two_parts)
    first = {
        (aggregation, metric): steps_of(new_model(), data, max_steps=1, aggregation=aggregation, metric=metric)[0][
            "difference"
        ]
        for aggregation in MetricAggregationType
        for metric in (MetricType.COSINE, MetricType.EUCLID)
    }
    for one, other in itertools.combinations(first.values(), 2):
        assert not torch.allclose(one, other, atol=1e-3)


def test_half_precision_is_of_the_encoder_and_not_of_similarities(
    new_model: NewModel, ranking_data: RankingData
) -> None:
    calls = steps_of(new_model(), ranking_data, num_epochs=1, precision="bf16")
    similarities = torch.cat([call["positive"] for call in calls])
    rounded = similarities == similarities.to(torch.bfloat16).float()
    assert rounded.float().mean() < 0.2


def test_results_of_sessions_without_clicks_have_a_shift_where_they_are_trained_on(
    new_model: NewModel, ranking_data: RankingData
) -> None:
    train = ranking_data.splits["train"]
    shown = next(s for s in train if len(s.results) > 2)
    others = [o for o in ranking_data.items if o not in {r for s in train if s.query == shown.query for r in s.results}]
    rejecting = session("rejecting", shown.query, others[:2], [0, 0])
    data = replace(ranking_data, splits=dict(ranking_data.splits) | {"train": [*train, rejecting]})

    def names(*, clicked_only: bool) -> set[str]:
        config = TrainingConfig(**QUICK | {"num_epochs": 1, "not_irrelevant_only": clicked_only})
        return {name for _, metrics in fit(new_model(), data, config).history for name in metrics}

    assert "train_irrelevant_dist_shift" in names(clicked_only=False)
    assert "train_irrelevant_dist_shift" not in names(clicked_only=True)


def with_words(data: RankingData) -> RankingData:
    """The data with words, of which the wanted thing is the one that a query and its answer share."""
    items = {key: {key.split("-")[1]: 1.0, key: 1.0} for key in data.items}
    queries = {s.query: {s.query.split(" ")[1]: 1.0} for split in data.splits.values() for s in split}
    return replace(data, words=DatasetWords(items, queries), dataset_id="")


def test_the_loss_gets_the_share_that_was_asked_for_of_what_words_add(
    new_model: NewModel, ranking_data: RankingData
) -> None:
    alone = steps_of(new_model(), ranking_data, learning_rate=1e-30)[0]["difference"]
    given = {"learning_rate": 1e-30, "lexical_weight": 0.5}
    whole, half, none = (
        steps_of(new_model(), with_words(ranking_data), residual=share, **given)[0]["difference"] - alone
        for share in (1.0, 0.5, 0.0)
    )
    assert whole.abs().max() > 0.1
    torch.testing.assert_close(half, whole / 2, atol=1e-6, rtol=0)
    assert none.abs().max() < 1e-6
    pool = LexicalScores(cast(DatasetWords, with_words(ranking_data).words), 0.5)
    session = ranking_data.splits["train"][0]
    expected = pool([session.query], list(session.results))[0]
    same = [o.split("-")[1] == session.query.split(" ")[1] for o in session.results]
    assert [bool(value > 0) for value in expected] == same


def test_mined_negatives_are_those_of_the_sum(new_model: NewModel, ranking_data: RankingData, built: list[Any]) -> None:
    fit(new_model(), with_words(ranking_data), TrainingConfig(**SHORT, mined_negatives=2, lexical_weight=100.0))
    mined = built[0][2]
    assert mined
    assert all(query.split(" ")[1] == o.split("-")[1] for query, objects in mined.items() for o in objects)
