"""Training over several processes equals training in one."""

from __future__ import annotations

from collections.abc import Callable

import psutil
import pytest
import torch
from torch import distributed as dist
from torch import nn

from estudio_core.clickstream.ranking_data import RankingData
from estudio_core.errors import ConfigurationError, ModelError
from estudio_core.models.embedding_model import EmbeddingModel
from lightning_modules.config import TrainingConfig
from lightning_modules.fit import FitResult, fit
from lightning_modules.ranks import gathered, my_share, several_ranks

NewModel = Callable[[], EmbeddingModel]


def trained(new_model: NewModel, data: RankingData, devices: int) -> tuple[EmbeddingModel, FitResult]:
    model = new_model()
    for module in model.modules():  # each rank draws its own dropout
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    config = TrainingConfig(
        num_epochs=1,
        batch_size=12,
        sessions_per_query=2,
        learning_rate=5e-3,
        num_fixed_layers=1,
        mined_negatives=2,
        drift_penalty=0.1,
        precision="32",
        threads=1,
        devices=devices,
    )
    return model, fit(model, data, config)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the processes of this test share the CPU")
def test_two_processes_give_the_same_result_as_one_and_are_gone_then(
    new_model: NewModel, ranking_data: RankingData
) -> None:
    one, alone = trained(new_model, ranking_data, 1)
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    two, shared = trained(new_model, ranking_data, 2)
    assert shared.steps == alone.steps == 5
    assert (shared.sessions, shared.tokens) == (alone.sessions, alone.tokens)
    for name, parameter in one.named_parameters():
        torch.testing.assert_close(dict(two.named_parameters())[name], parameter, atol=1e-4, rtol=1e-3)
    for (step, a), (other_step, b) in zip(alone.history, shared.history, strict=True):
        assert step == other_step
        assert a == pytest.approx(b, abs=1e-4)
    assert not dist.is_initialized()
    left = {child.pid for child in psutil.Process().children(recursive=True)} - before
    assert [process for pid in left if "spawn_main" in " ".join((process := psutil.Process(pid)).cmdline())] == []


def gives_its_share(job: list[float], rank: int, join: Callable[[], None]) -> None:
    join()
    gathered(torch.tensor([job], requires_grad=True), 3)


def test_shares_are_gathered_in_order_and_their_gradients_sum_up_after_the_mean_of_ddp() -> None:
    mine = torch.tensor([[1.0, 1.5], [2.0, 2.5]], requires_grad=True)
    weights = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    with several_ranks(2, gives_its_share, [3.0, 3.5]) as ranks:
        ranks.join()
        assert my_share([7, 8, 9]) == [7, 9]
        vectors = gathered(mine, 3)
        (vectors * weights).sum().backward()
    assert vectors.tolist() == [[1.0, 1.5], [3.0, 3.5], [2.0, 2.5]]
    assert mine.grad is not None
    assert mine.grad.tolist() == [[2.0, 4.0], [10.0, 12.0]]
    assert my_share([7, 8, 9]) == [7, 8, 9]


def fails(job: str, rank: int, join: Callable[[], None]) -> None:
    raise ValueError(f"{job} of rank {rank}")


def test_a_process_that_fails_to_start_ends_the_training_with_its_error() -> None:
    with (
        pytest.raises(ModelError, match="ValueError: bad luck of rank 1"),
        several_ranks(2, fails, "bad luck") as ranks,
    ):
        ranks.join()


def test_a_bound_of_activations_and_several_devices_are_refused_together() -> None:
    with pytest.raises(ConfigurationError, match="activations_mb is legal on one device"):
        TrainingConfig(devices=2, activations_mb=0)
