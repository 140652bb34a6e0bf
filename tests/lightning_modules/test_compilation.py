from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from estudio_core.clickstream.ranking_data import RankingData
from estudio_core.models.embedding_model import EmbeddingModel
from lightning_modules.compilation import choose_backend
from lightning_modules.encoding import TextEncoder
from lightning_modules.text_bank import TextBank


def test_cpus_are_left_alone_unless_asked() -> None:
    cpu = torch.device("cpu")
    assert choose_backend("auto", cpu, 10_000) is None
    assert choose_backend("off", cpu, 10_000) is None
    assert choose_backend("on", cpu, 1) == "inductor"


@pytest.mark.parametrize(
    ("capability", "steps", "expected"), [((9, 0), 5_000, "inductor"), ((9, 0), 50, None), ((6, 1), 5_000, None)]
)
def test_gpus_compile_long_trainings(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], steps: int, expected: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr("lightning_modules.compilation.find_spec", lambda name: object())
    assert choose_backend("auto", torch.device("cuda", 0), steps) == expected


def test_compiled_layers_give_the_same_vectors_for_chunks_of_any_shape(
    new_model: Callable[[], EmbeddingModel], ranking_data: RankingData
) -> None:
    model = new_model()
    model.freeze_layers(2)
    bank = TextBank(model, ranking_data.splits["train"], ranking_data.items)
    plain, compiled = (TextEncoder(model, bank, 40, 1 << 20, compile_with=backend) for backend in (None, "eager"))
    for rows in ([0, 40, 3, 55, 17, 41], [2, 44]):
        torch.testing.assert_close(compiled.vectors(rows), plain.vectors(rows))
