from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from estudio_core.clickstream.dataset_words import DatasetWords
from estudio_core.clickstream.evidence import weigh_dev_clicks, weigh_evidence
from estudio_core.clickstream.examination_curve import PowerLaw
from estudio_core.clickstream.ranking_data import ItemsSet
from estudio_core.models.embedding_model import EmbeddingModel
from lightning_modules import dev_evaluation
from lightning_modules.config import TrainingConfig
from lightning_modules.dev_evaluation import LEAST_QUERIES, DevEvaluation, ndcg, ndcg_among
from lightning_modules.lexical_scores import LexicalScores
from lightning_modules.losses import CosineProbMarginRankingLoss
from lightning_modules.losses.pair_loss import PairLossCall
from lightning_modules.text_bank import TextBank

from .conftest import session

NewModel = Callable[[], EmbeddingModel]


def reference_ndcg(scores: list[float], gains: list[float], k: int) -> float:
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]
    best = sorted(gains, reverse=True)[:k]
    reached = sum(gains[i] / math.log2(rank + 2) for rank, i in enumerate(order))
    return reached / sum(g / math.log2(rank + 2) for rank, g in enumerate(best))


def test_ndcg_equals_a_reference_that_loops() -> None:
    rng = np.random.default_rng(4)
    scores, gains = rng.normal(size=(20, 15)), rng.integers(0, 4, size=(20, 15)).astype(float)
    expected = [reference_ndcg(s.tolist(), g.tolist(), 10) for s, g in zip(scores, gains, strict=True)]
    np.testing.assert_allclose(ndcg(torch.tensor(scores).float(), torch.tensor(gains).float()), expected, atol=1e-5)


def unit(*angles: float) -> torch.Tensor:
    """Vectors on the circle, angles in degrees: cosine similarities are cosines of differences."""
    radians = torch.tensor(angles) * math.pi / 180
    return torch.stack([radians.cos(), radians.sin()], dim=1)


@pytest.fixture
def evaluation(new_model: NewModel) -> DevEvaluation:
    items = ItemsSet({"a": ["red lamp"], "b": ["blue lamp"], "c": ["green lamp"], "far": ["rug"]})
    dev = [session("1", "lamp", ["a", "b"], [0, 1]), session("2", "lamp", ["c"], [0])]
    bank = TextBank(new_model(), [session("0", "rug", ["far"], [1]), *dev], items)
    base = torch.zeros(len(bank), 2)
    base[:] = unit(0.0)[0]
    evaluation = DevEvaluation(bank, dev, base, TrainingConfig())
    assert len(evaluation.rows) == 5  # the query, three shown objects, and one of the training split
    return evaluation


def test_metrics_of_known_vectors(evaluation: DevEvaluation) -> None:
    vectors = unit(0.0, 10.0, 60.0, 90.0, 30.0)  # query, a (skipped), b (clicked), c (of a click-less session), far
    metrics = evaluation(vectors, PairLossCall(CosineProbMarginRankingLoss(0.2, scale=20.0)))
    cosine_a, cosine_b = math.cos(math.radians(10)), math.cos(math.radians(60))
    assert metrics["test_ndcg@10"] == pytest.approx(1 / math.log2(3))
    assert metrics["test_pool_ndcg@10"] == pytest.approx(1 / math.log2(4))  # a and the training object are nearer
    assert metrics["test_quality"] == pytest.approx((1 / math.log2(3) + 0.5) / 2)
    assert metrics["test_pairwise_accuracy"] == 0
    assert metrics["test_not_irrelevant_dist_shift"] == pytest.approx(cosine_b - 1, abs=1e-6)
    assert metrics["test_irrelevant_dist_shift"] == pytest.approx(1.0, abs=1e-6)
    assert metrics["test_loss"] == pytest.approx(math.log1p(math.exp(20 * (0.2 - cosine_b + cosine_a))) / 20, rel=1e-5)


def test_similarity_and_words_are_judged_together(new_model: NewModel) -> None:
    items = ItemsSet({"a": ["red lamp"], "b": ["blue lamp"], "far": ["rug"]})
    dev = [session("1", "lamp", ["a", "b"], [0, 1])]
    bank = TextBank(new_model(), [session("0", "rug", ["far"], [1]), *dev], items)
    words = DatasetWords({"a": {}, "b": {"lamp": 1.0}, "far": {"lamp": 3.0}}, {"lamp": {"lamp": 1.0}})
    vectors = unit(0.0, 10.0, 60.0, 90.0)  # query, a (skipped), b (clicked), far
    found = {
        weight: DevEvaluation(
            bank,
            dev,
            unit(0.0).expand(len(bank), 2),
            TrainingConfig(),
            lexical=LexicalScores(words, weight) if weight else None,
        )(vectors, PairLossCall(CosineProbMarginRankingLoss(0.2, scale=20.0)))
        for weight in (0.0, 2.0, 9.0)
    }
    assert found[0.0]["test_ndcg@10"] == pytest.approx(1 / math.log2(3))
    assert found[2.0]["test_ndcg@10"] == 1
    assert found[2.0]["test_pool_ndcg@10"] == 1
    assert found[9.0]["test_pool_ndcg@10"] == pytest.approx(1 / math.log2(3))  # far has the word more often
    assert found[9.0]["test_loss"] < found[2.0]["test_loss"] < found[0.0]["test_loss"]
    shifts = [metrics["test_not_irrelevant_dist_shift"] for metrics in found.values()]
    assert shifts == pytest.approx([math.cos(math.pi / 3) - 1] * 3)  # words move nothing


def test_a_better_space_has_better_metrics(evaluation: DevEvaluation) -> None:
    loss = PairLossCall(CosineProbMarginRankingLoss())
    worse, better = evaluation(unit(0, 10, 60, 90, 30), loss), evaluation(unit(0, 60, 10, 90, 120), loss)
    assert better["test_loss"] < worse["test_loss"]
    assert better["test_quality"] == pytest.approx(1.0)
    assert better["test_pairwise_accuracy"] == 1


def test_no_dev_sessions_give_no_metrics(new_model: NewModel) -> None:
    items = ItemsSet({"a": ["red lamp"]})
    bank = TextBank(new_model(), [session("0", "lamp", ["a"], [1])], items)
    evaluation = DevEvaluation(bank, [], torch.zeros(len(bank), 2), TrainingConfig())
    assert evaluation(torch.zeros(len(evaluation.rows), 2), PairLossCall(CosineProbMarginRankingLoss())) == {}


def test_a_click_far_down_counts_for_more_than_one_at_the_top(new_model: NewModel) -> None:
    items = ItemsSet({"a": ["red lamp"], "b": ["blue lamp"]})
    dev = [session("1", "lamp", ["a", "b"], [1, 0]), session("2", "lamp", ["a", "b"], [0, 1])]
    bank = TextBank(new_model(), dev, items)
    a_first, b_first = unit(0.0, 5.0, 50.0), unit(0.0, 50.0, 5.0)

    def values(exponent: float, given: dict[str, tuple[float, float]] | None = None) -> list[float]:
        config = TrainingConfig(examination_exponent=exponent)
        evaluation = DevEvaluation(bank, dev, a_first, config, given)
        return [evaluation(v, PairLossCall(CosineProbMarginRankingLoss()))["test_ndcg@10"] for v in (a_first, b_first)]

    assert values(0.0) == pytest.approx([1.0, 1.0])  # as many clicks on either
    weighted = 2.0**1.0
    assert values(1.0) == pytest.approx([(1 + weighted / math.log2(3)) / (weighted + 1 / math.log2(3)), 1.0], rel=1e-5)
    assert values(0.0, {"2": (1.0, 2.0)}) == pytest.approx(values(1.0))


def test_weights_leave_the_scale_of_the_loss_alone(new_model: NewModel) -> None:
    items = ItemsSet({"a": ["red lamp"], "b": ["blue lamp"]})
    dev = [session("1", "lamp", ["a", "b"], [0, 1])]
    bank = TextBank(new_model(), dev, items)
    vectors = unit(0.0, 5.0, 50.0)
    plain, weighted = (
        DevEvaluation(bank, dev, vectors, TrainingConfig(examination_exponent=e))(
            vectors, PairLossCall(CosineProbMarginRankingLoss())
        )
        for e in (0.0, 1.0)
    )
    assert plain["test_loss"] == pytest.approx(weighted["test_loss"])


def test_dev_clicks_weigh_by_their_position_with_a_wider_clip_than_in_training(new_model: NewModel) -> None:
    items = ItemsSet({str(i): [f"{colour} lamp"] for i, colour in enumerate(["red", "blue", "green"])})
    dev = [
        dataclasses.replace(session(str(place), f"lamp {place}", ["0", "1", "2"], [1, 0, 0]), positions=(place, 30, 31))
        for place in (0, 4, 19)
    ]
    bank = TextBank(new_model(), dev, items)
    exponent = 2.0  # 1, 25 and 400

    def losses(given: dict[str, tuple[float, ...]]) -> float:
        config = TrainingConfig(examination_exponent=exponent)
        evaluation = DevEvaluation(bank, dev, torch.zeros(len(bank), 2), config, given)
        return evaluation(unit(0, 40, 80, 10, 20, 30), PairLossCall(CosineProbMarginRankingLoss()))["test_loss"]

    weights = weigh_dev_clicks(dev, PowerLaw.given(exponent))
    assert [weights[s.session_id][0] for s in dev] == [1.0, 20.0, 20.0]
    assert losses({}) == losses(weights)
    assert losses({}) != losses(weigh_evidence(dev, PowerLaw.given(exponent)).click_weights)


def test_ndcg_of_a_few_among_many_equals_that_of_the_sorted_row() -> None:
    rng = np.random.default_rng(5)
    for _ in range(30):
        scores = torch.from_numpy(rng.integers(0, 12, size=40)).float()  # with many equal ones
        columns = torch.from_numpy(rng.choice(40, size=8, replace=False))
        gains = torch.from_numpy(rng.integers(0, 3, size=8)).float() + (torch.arange(8) == 0)
        everywhere = torch.zeros(1, 40)
        everywhere[0, columns] = gains
        assert ndcg_among(scores, columns, gains) == pytest.approx(float(ndcg(scores[None], everywhere)[0]), abs=1e-6)


def many(new_model: NewModel, queries: int, most_texts: int | None) -> DevEvaluation:
    items = ItemsSet({f"p{number}": [f"item {number}"] for number in range(2 * queries)})
    dev = [session(str(n), f"query {n}", [f"p{2 * n}", f"p{2 * n + 1}"], [n % 2, 1 - n % 2]) for n in range(queries)]
    bank = TextBank(new_model(), dev, items)
    return DevEvaluation(bank, dev, torch.nn.functional.normalize(torch.ones(len(bank), 8)), TrainingConfig(),
                         most_texts=most_texts)  # fmt: skip


def test_of_many_dev_queries_those_are_asked_that_there_is_time_for(new_model: NewModel) -> None:
    assert len(many(new_model, 500, None).rows) == 1_500
    assert len(many(new_model, 500, 1_200).rows) == 1_200  # 400 queries with two objects each
    assert len(many(new_model, 500, 10).rows) == 3 * LEAST_QUERIES
    assert len(many(new_model, 250, 10).rows) == 750
    assert many(new_model, 500, 1_200).rows == many(new_model, 500, 1_200).rows


def test_blocks_of_queries_give_what_all_at_once_do(new_model: NewModel, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = many(new_model, 40, None)
    drawn = np.random.default_rng(6).normal(size=(len(evaluation.rows), 8))
    vectors = torch.nn.functional.normalize(torch.from_numpy(drawn).float())
    call = PairLossCall(CosineProbMarginRankingLoss(0.2, scale=20.0))
    at_once = evaluation(vectors, call)
    monkeypatch.setattr(dev_evaluation, "_SCORES_AT_ONCE", 700)
    assert many(new_model, 40, None)(vectors, call) == pytest.approx(at_once, rel=1e-5)
