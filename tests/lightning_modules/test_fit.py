"""Training end to end on a tiny model: it learns, repeats, freezes, stops, and leaves nothing behind."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from estudio_core.clickstream.ranking_data import ItemsSet, RankingData
from estudio_core.errors import ConfigurationError, NotEnoughDataError
from estudio_core.models.embedding_model import EmbeddingModel
from estudio_core.progress import Progress, progress_to
from estudio_core.vectordb.index_info import MetricAggregationType
from lightning_modules.config import TrainingConfig
from lightning_modules.fit import FitResult, fit
from lightning_modules.losses import Annealing, CosineProbMarginRankingLoss

from .conftest import QUICK, session

NewModel = Callable[[], EmbeddingModel]


def weights(model: EmbeddingModel) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def test_training_puts_clicked_items_first_for_queries_it_never_saw(
    new_model: NewModel, ranking_data: RankingData
) -> None:
    model = new_model()
    result = fit(model, ranking_data, TrainingConfig(**QUICK))
    before = result.history[0][1]
    assert before["test_pool_ndcg@10"] < 0.8
    assert result.metrics["test_pool_ndcg@10"] > before["test_pool_ndcg@10"] + 0.1
    assert result.metrics["test_pairwise_accuracy"] > before["test_pairwise_accuracy"]
    assert result.best_step > 0
    assert not model.training


def test_the_same_seed_gives_the_same_metrics_and_another_seed_others(
    new_model: NewModel, ranking_data: RankingData
) -> None:
    def history(seed: int) -> list[tuple[int, dict[str, float]]]:
        return fit(new_model(), ranking_data, TrainingConfig(**QUICK | {"num_epochs": 2, "seed": seed})).history

    assert history(1) == history(1)
    assert history(1) != history(2)


def test_frozen_layers_stay_bitwise_and_the_others_change(new_model: NewModel, ranking_data: RankingData) -> None:
    model = new_model()
    before = weights(model)
    fit(model, ranking_data, TrainingConfig(**QUICK | {"num_epochs": 1, "num_fixed_layers": 2}))
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {n for n in before if n.startswith("backbone.encoder.layer.2.")}


def test_kept_outputs_of_frozen_layers_change_nothing(new_model: NewModel, ranking_data: RankingData) -> None:
    kept, anew = (
        fit(new_model(), ranking_data, TrainingConfig(**QUICK | {"num_epochs": 1, "cache_frozen_mb": mb}))
        for mb in (64, 0)
    )
    for (_, a), (_, b) in zip(kept.history, anew.history, strict=True):
        assert a == pytest.approx(b, abs=2e-4)


def test_a_model_of_which_nothing_would_be_trained_is_refused(new_model: NewModel, ranking_data: RankingData) -> None:
    model = new_model()
    for count in (4, 3):
        with pytest.raises(ConfigurationError, match=r"has 3 layers: none is left to train\. Use a number from 0 to 2"):
            fit(model, ranking_data, TrainingConfig(**QUICK | {"num_fixed_layers": count}))
    assert model.frozen_layers == 0, "what was refused has changed nothing"


def test_earlier_weights_are_put_back_when_training_ruins_the_model(
    new_model: NewModel, ranking_data: RankingData
) -> None:
    # Many dev queries, and a model that has learned them: its ruin is certain.
    known = RankingData(dict.fromkeys(("train", "dev"), ranking_data.splits["train"]), ranking_data.items)
    model = new_model()
    fit(model, known, TrainingConfig(**QUICK))
    # The rate rises to ruin over the first half, so that there is something to lose.
    ruinous = {"learning_rate": 1.0, "warmup_steps": 100, "max_steps": 1000, "num_epochs": 125}
    calm = {"patience": 2, "gradient_clip": 0, "test_each_n_sessions": 24, "query_passes": None, "keep_start": False}
    config = TrainingConfig(**QUICK | ruinous | calm)
    result = fit(model, known, config)
    values = {step: m[config.monitor] for step, m in result.history if config.monitor in m and step > 0}
    later = [value for step, value in values.items() if step > result.best_step]
    assert result.stopped_early
    assert len(later) == config.patience
    assert max(later) < max(values.values())
    assert result.steps < 1000
    assert result.metrics[config.monitor] == pytest.approx(values[result.best_step], abs=1e-6)


def test_without_dev_sessions_the_last_weights_are_taken(new_model: NewModel, ranking_data: RankingData) -> None:
    train_only = RankingData({"train": ranking_data.splits["train"]}, ranking_data.items)
    model = new_model()
    before = weights(model)
    config = QUICK | {"num_epochs": 1}
    result = fit(model, train_only, TrainingConfig(**config))
    assert result.metrics == {}
    assert result.interpolation.values == {}, "there is nothing to measure shares by"
    assert result.best_step == result.steps
    assert any(not torch.equal(p, before[n]) for n, p in model.named_parameters())
    mixed = new_model()
    assert fit(mixed, train_only, TrainingConfig(**config | {"interpolation": (0.5,)})).interpolation.share == 0.5
    for name, parameter in mixed.named_parameters():
        torch.testing.assert_close(parameter, before[name].lerp(dict(model.named_parameters())[name], 0.5))
    queries = len({each.query_key for each in ranking_data.splits["train"]})
    by_default = fit(new_model(), train_only, TrainingConfig(**config | {"interpolation": None}))
    assert by_default.interpolation.share == queries / (queries + 150)


def test_a_model_is_left_as_it_was_where_dev_clicks_speak_against_what_it_learned(
    new_model: NewModel, ranking_data: RankingData, caplog: pytest.LogCaptureFixture
) -> None:
    against = [
        session(
            s.session_id, s.query, list(s.results), [int(r not in s.events and r == s.results[-1]) for r in s.results]
        )
        for s in ranking_data.splits["train"]
    ]
    data = RankingData({"train": ranking_data.splits["train"], "dev": against}, ranking_data.items)
    model = new_model()
    before = weights(model)
    result = fit(model, data, TrainingConfig(**QUICK))
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert result.interpolation.share == 0
    assert result.interpolation.evidence is not None
    assert result.interpolation.evidence.z < result.interpolation.evidence.needed
    assert result.metrics["test_ndcg@10"] == pytest.approx(result.history[0][1]["test_ndcg@10"])
    assert "The model is left as it was: the clicks of 30 dev queries" in caplog.text
    kept = fit(new_model(), data, TrainingConfig(**QUICK, keep_start=False))
    assert kept.interpolation.share == 1


def test_metrics_are_called_back_with_their_steps(new_model: NewModel, ranking_data: RankingData) -> None:
    received: list[tuple[int, Mapping[str, float]]] = []
    result = fit(
        new_model(),
        ranking_data,
        TrainingConfig(**QUICK | {"test_each_n_sessions": 24, "num_epochs": 2}),
        on_metrics=lambda step, metrics: received.append((step, metrics)),
    )
    assert received == result.history
    names = {name for _, metrics in received for name in metrics}
    assert {"train_loss", "train_not_irrelevant_dist_shift", "train_pairwise_accuracy"} <= names
    assert {"test_loss", "test_not_irrelevant_dist_shift", "test_ndcg@10", "test_quality"} <= names
    tested = [step for step, metrics in received if "test_loss" in metrics]
    assert tested == [0, 2, 4, 6, 8, 10, 12, 14, 16]
    shift = received[0][1]["test_not_irrelevant_dist_shift"]
    assert shift == pytest.approx(0, abs=1e-5)  # nothing has moved before the first step


def test_an_exception_of_the_callback_ends_the_training(new_model: NewModel, ranking_data: RankingData) -> None:
    def stop(step: int, metrics: Mapping[str, float]) -> None:
        raise RuntimeError("trial pruned")

    with pytest.raises(RuntimeError, match="trial pruned"):
        fit(new_model(), ranking_data, TrainingConfig(**QUICK), on_metrics=stop)


def test_progress_is_reported(new_model: NewModel, ranking_data: RankingData) -> None:
    reports: list[Progress] = []
    with progress_to(reports.append):
        result = fit(new_model(), ranking_data, TrainingConfig(**QUICK | {"num_epochs": 1}))
    assert [p.done for p in reports] == list(range(1, result.steps + 1))
    assert {p.total for p in reports} == {result.steps}


def test_training_leaves_no_files_in_the_working_directory(
    new_model: NewModel, ranking_data: RankingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fit(new_model(), ranking_data, TrainingConfig(**QUICK | {"num_epochs": 1}))
    assert list(tmp_path.iterdir()) == []


def test_sessions_that_showed_their_click_alone_learn_from_the_items_of_other_queries(
    new_model: NewModel, ranking_data: RankingData
) -> None:
    alone = [
        replace(s, results=s.events, positions=(0,), ranks=(None,), click_weights=(1.0,))
        for s in ranking_data.splits["train"]
    ]
    data = RankingData({**ranking_data.splits, "train": alone}, ranking_data.items)
    result = fit(new_model(), data, TrainingConfig(**QUICK))
    assert result.metrics["test_pool_ndcg@10"] > result.history[0][1]["test_pool_ndcg@10"] + 0.1


def test_the_given_loss_is_not_changed(new_model: NewModel, ranking_data: RankingData) -> None:
    loss = CosineProbMarginRankingLoss(0.3)
    fit(new_model(), ranking_data, TrainingConfig(**QUICK | {"num_epochs": 1, "margin": 0.1}), loss=loss)
    assert loss.margin == 0.3


def test_sessions_without_clicks_alone_are_not_enough(new_model: NewModel) -> None:
    data = RankingData({"train": [session("1", "lamp", ["a"], [0])]}, ItemsSet({"a": ["lamp"]}))
    with pytest.raises(NotEnoughDataError, match="No training session has a click"):
        fit(new_model(), data, TrainingConfig(**QUICK))


def test_click_weights_of_zero_teach_nothing(new_model: NewModel, ranking_data: RankingData) -> None:
    model = new_model()
    before = weights(model)
    nothing = {s.session_id: (0.0,) * len(s.results) for s in ranking_data.splits["train"]}
    config = TrainingConfig(**QUICK | {"num_epochs": 1, "weight_decay": 0.0})
    fit(
        model,
        RankingData({"train": ranking_data.splits["train"]}, ranking_data.items),
        config,
        click_propensity=nothing,
    )
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_annealing_follows_the_steps_and_validations_use_the_last_values(
    new_model: NewModel, ranking_data: RankingData
) -> None:
    config = TrainingConfig(**QUICK | {"num_epochs": 1})
    steep, soft, course = (
        fit(new_model(), ranking_data, config, loss=CosineProbMarginRankingLoss(scale=scale, annealing=annealing))
        for scale, annealing in ((40.0, None), (2.0, None), (2.0, Annealing(scale=40.0)))
    )

    def values(result: FitResult, name: str) -> list[float]:
        return [metrics[name] for _, metrics in result.history if name in metrics]

    assert values(course, "test_loss")[0] == values(steep, "test_loss")[0] != values(soft, "test_loss")[0]
    assert values(steep, "train_loss") != values(course, "train_loss") != values(soft, "train_loss")


@pytest.mark.parametrize("order", [(2, 11), (10,), (6, 1, 8)])
def test_every_order_of_examples_trains(new_model: NewModel, ranking_data: RankingData, order: tuple[int, ...]) -> None:
    result = fit(new_model(), ranking_data, TrainingConfig(**QUICK | {"num_epochs": 1, "examples_order": order}))
    assert all(math.isfinite(v) for _, metrics in result.history for v in metrics.values())


def test_half_precision_trains(new_model: NewModel, ranking_data: RankingData) -> None:
    result = fit(new_model(), ranking_data, TrainingConfig(**QUICK | {"precision": "bf16"}))
    assert result.precision == "bf16-mixed"
    assert result.metrics["test_pool_ndcg@10"] > result.history[0][1]["test_pool_ndcg@10"]


def test_shares_of_trained_weights_are_tried_on_the_dev_split(new_model: NewModel, ranking_data: RankingData) -> None:
    model = new_model()
    before = weights(model)
    config = TrainingConfig(**QUICK | {"num_epochs": 1, "interpolation": (0.5, 1.0)})
    result = fit(model, ranking_data, config)
    assert set(result.interpolation.values) == {0.5, 1.0}
    assert result.metrics[config.monitor] == pytest.approx(max(result.interpolation.values.values()))
    trained = new_model()
    fit(trained, ranking_data, TrainingConfig(**QUICK | {"num_epochs": 1}))
    share = result.interpolation.share
    for name, parameter in trained.named_parameters():
        expected = before[name].lerp(parameter, share) if parameter.requires_grad else before[name]
        torch.testing.assert_close(dict(model.named_parameters())[name], expected)


@pytest.mark.parametrize("aggregation", ["min", "avg"])
def test_objects_of_several_parts_are_learned_under_both_aggregations(
    new_model: NewModel, ranking_data: RankingData, aggregation: str
) -> None:
    config = TrainingConfig(**QUICK, aggregation=MetricAggregationType(aggregation))
    result = fit(new_model(), ranking_data, config)
    assert result.metrics["test_quality"] > result.history[0][1]["test_quality"]
