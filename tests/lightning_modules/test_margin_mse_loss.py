from __future__ import annotations

import pytest
import torch

from estudio_core.clickstream.ranking_data import FineTuningInput, ItemsSet
from estudio_core.models.embedding_model import EmbeddingModel
from lightning_modules.batches import BatchBuilder
from lightning_modules.config import TrainingConfig
from lightning_modules.losses.margin_mse_loss import margin_mse_loss
from lightning_modules.text_bank import TextBank


def test_it_pulls_a_difference_to_the_teacher_s_in_either_direction() -> None:
    positive = torch.tensor([0.6, 0.6], requires_grad=True)
    margin_mse_loss(positive, torch.tensor([0.2, 0.2]), torch.tensor([0.1, 0.9])).backward()
    assert positive.grad is not None
    assert positive.grad.tolist() == pytest.approx([0.3, -0.5])  # too far apart, not far enough


def test_what_the_teacher_did_not_score_has_no_gradient_and_nothing_at_all_is_a_zero() -> None:
    negative = torch.tensor([0.2, 0.9], requires_grad=True)
    margin_mse_loss(torch.tensor([0.6, 0.6]), negative, torch.tensor([0.1, torch.nan])).backward()
    assert negative.grad is not None
    assert negative.grad[1] == 0
    assert torch.isfinite(negative.grad).all()
    nothing = margin_mse_loss(torch.tensor([0.6, 0.6]), negative, torch.full((2,), torch.nan))
    nothing.backward()
    assert nothing.item() == 0


def test_a_batch_knows_with_which_score_a_session_showed_what(new_model: type[EmbeddingModel]) -> None:
    ids = ("a", "b", "c")
    items = ItemsSet(
        {key: [f"good {word}"] for key, word in zip((*ids, "d"), ["lamp", "rug", "vase", "chair"], strict=True)}
    )
    shown = FineTuningInput("1", "red lamp", ids, (0, 1, 2), (0.9, 0.25, None), (1.0, 0.0, 0.0))
    other = FineTuningInput("2", "red chair", ("d",), (0,), (0.5,), (1.0,))
    bank = TextBank(new_model(), [shown, other], items)
    batch = BatchBuilder(bank, [shown, other], TrainingConfig()).build([shown, other], 0)
    scores = [[round(value, 3) for value in row] for row in batch.shown_score.tolist()]
    expected = [[0.9, 0.25, None, None], [None, None, None, 0.5]]
    assert [[None if value != value else value for value in row] for row in scores] == expected
