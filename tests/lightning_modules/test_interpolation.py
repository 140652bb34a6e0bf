from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_modules.interpolation import choose_share, share_of_log
from lightning_modules.ranking_module import weights_of


def test_the_share_with_the_best_value_is_chosen_and_put_into_the_model() -> None:
    model = nn.Linear(1, 1, bias=False)
    base, trained = {"weight": torch.tensor([[0.0]])}, {"weight": torch.tensor([[4.0]])}
    chosen = choose_share(model, base, trained, (0.25, 0.5, 0.75, 1.0), lambda: -abs(model.weight.item() - 1.9))
    assert chosen.share == 0.5
    assert model.weight.item() == 2.0
    assert chosen.values == pytest.approx({0.25: -0.9, 0.5: -0.1, 0.75: -1.1, 1.0: -2.1})


def test_among_equal_values_the_trained_weights_win() -> None:
    model = nn.Linear(1, 1, bias=False)
    base, trained = {"weight": torch.tensor([[0.0]])}, {"weight": torch.tensor([[4.0]])}
    assert choose_share(model, base, trained, (0.5, 1.0), lambda: 1.0).share == 1.0
    assert model.weight.item() == 4.0


def test_frozen_weights_are_not_copied() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    assert set(weights_of(model)) == {"weight"}


@pytest.mark.parametrize(
    ("queries", "share"), [(1, 1 / 151), (150, 0.5), (600, 0.8), (1_000_000, pytest.approx(1, abs=2e-4))]
)
def test_more_is_kept_of_what_more_queries_taught(queries: int, share: float) -> None:
    assert share_of_log(queries) == share
