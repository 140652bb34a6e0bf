from __future__ import annotations

import pytest

from estudio_core.errors import ConfigurationError
from lightning_modules.config import TrainingConfig
from lightning_modules.precision import choose_precision
from lightning_modules.ranking_module import rate_share


def test_an_unknown_name_is_refused_with_the_nearest_legal_one() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean 'batch_size'"):
        TrainingConfig.of(batch_sise=3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_epochs", 0),
        ("batch_size", -1),
        ("learning_rate", 0.0),
        ("items_lr", 0.0),
        ("negative_downsampling", 0.0),
        ("negative_downsampling", 1.1),
        ("max_negatives", 0),
        ("num_fixed_layers", -1),
        ("interpolation_shares", ()),
        ("interpolation_shares", (0.0,)),
        ("examples_order", (12,)),
        ("examples_order", ()),
        ("decay", "linaer"),
        ("compile", "yes"),
        ("precision", "fp32"),
        ("monitor", "test_qualty"),
        ("batch_size", 2.5),
        ("seed", -1),
        ("margin", float("nan")),
        ("learning_rate", float("inf")),
    ],
)
def test_values_out_of_range_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=name):
        TrainingConfig.of(**{name: value})


def test_learning_rate_holds_unless_the_tower_has_its_own() -> None:
    assert TrainingConfig(learning_rate=1e-5).tower_lr == 1e-5
    assert TrainingConfig(learning_rate=1e-5, items_lr=3e-5).tower_lr == 3e-5


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_the_rate_warms_up_and_ends_at_zero(decay: str) -> None:
    shares = [rate_share(step, 50, 5, decay) for step in range(51)]
    assert shares[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert shares[5:] == sorted(shares[5:], reverse=True)
    assert shares[50] == pytest.approx(0)


def test_a_short_training_warms_up_for_a_tenth_of_it() -> None:
    assert rate_share(0, 20, 10, "constant") == 0.5
    assert rate_share(2, 20, 10, "constant") == 1.0


def test_precision_follows_the_processor() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this host computes on its GPU")
    assert choose_precision("auto", {"avx512f", "amx_bf16"}) == "bf16-mixed"
    assert choose_precision("auto", {"avx512f", "avx512_bf16"}) == "bf16-mixed"
    assert choose_precision("auto", {"avx512f"}) == "32-true"
    assert choose_precision("bf16", set()) == "bf16-mixed"
    assert choose_precision("32", {"amx_bf16"}) == "32-true"
