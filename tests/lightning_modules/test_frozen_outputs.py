from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from estudio_core.clickstream.ranking_data import RankingData
from estudio_core.models.embedding_model import EmbeddingModel
from lightning_modules import frozen_outputs
from lightning_modules.encoding import TextEncoder
from lightning_modules.text_bank import TextBank

PER_TOKEN = 32 * 4  # hidden size x float32


@pytest.fixture
def model(new_model: Callable[[], EmbeddingModel]) -> EmbeddingModel:
    model = new_model()
    model.freeze_layers(2)
    return model.eval()


@pytest.fixture
def bank(model: EmbeddingModel, ranking_data: RankingData) -> TextBank:
    return TextBank(model, ranking_data.splits["train"], ranking_data.items)


class Counting:
    """Counts the texts that go through the frozen layers."""

    def __init__(self, model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.texts = 0
        run = model.forward_lower

        def counted(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            self.texts += len(ids)
            return run(ids, mask)

        monkeypatch.setattr(model, "forward_lower", counted)


@pytest.mark.parametrize(("memory", "disk", "where"), [(1 << 20, 0, "memory"), (64, 1 << 20, "disk")])
def test_each_text_goes_through_the_frozen_layers_once(
    model: EmbeddingModel,
    bank: TextBank,
    monkeypatch: pytest.MonkeyPatch,
    memory: int,
    disk: int,
    where: str,
) -> None:
    whole = model.encode_tokens([bank.padded([row], 0)[0][0].tolist() for row in range(len(bank))])
    counting = Counting(model, monkeypatch)
    encoder = TextEncoder(model, bank, 64, memory, disk)
    assert encoder._frozen is not None
    assert encoder._frozen.where == where
    for _ in range(2):
        torch.testing.assert_close(encoder.vectors(range(len(bank))), whole, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(encoder.vectors([40, 3, 7]), whole[[40, 3, 7]], atol=1e-5, rtol=1e-4)
    assert counting.texts == len(bank)


def test_texts_beyond_the_bounds_are_computed_anew(
    model: EmbeddingModel, bank: TextBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = model.encode_tokens([bank.padded([row], 0)[0][0].tolist() for row in range(len(bank))])
    counting = Counting(model, monkeypatch)
    room = int(bank.lengths[:10].sum()) * PER_TOKEN
    encoder = TextEncoder(model, bank, 64, room)
    for _ in range(3):
        torch.testing.assert_close(encoder.vectors(range(len(bank))), whole, atol=1e-5, rtol=1e-4)
    assert counting.texts == len(bank) + 2 * (len(bank) - 10)


def test_where_others_took_the_room_on_disk_memory_is_used(
    model: EmbeddingModel, bank: TextBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    room = int(bank.lengths[:10].sum()) * PER_TOKEN
    counting = Counting(model, monkeypatch)
    encoder = TextEncoder(model, bank, 64, room, 1 << 20)
    assert encoder._frozen is not None
    assert encoder._frozen.where == "memory"
    for _ in range(2):
        encoder.vectors(range(len(bank)))
    assert counting.texts == len(bank) + len(bank) - 10


@pytest.mark.parametrize("memory", [0, 1])
def test_without_memory_or_disk_nothing_is_kept(
    model: EmbeddingModel, bank: TextBank, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    counting = Counting(model, monkeypatch)
    encoder = TextEncoder(model, bank, 4096, memory, disk_bytes=(1 << 20) if memory == 0 else 0)
    encoder.vectors(range(len(bank)))
    encoder.vectors(range(len(bank)))
    assert counting.texts == 2 * len(bank)


def test_the_file_has_no_name_and_goes_with_the_encoder(
    model: EmbeddingModel, bank: TextBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    encoder = TextEncoder(model, bank, 4096, cache_bytes=64, disk_bytes=1 << 20)
    encoder.vectors(range(len(bank)))
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    assert mapped
    assert all("(deleted)" in line for line in mapped)
    assert os.listdir(tmp_path) == []
    del encoder
    assert not [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]


def test_half_precision_keeps_half_as_much(model: EmbeddingModel, bank: TextBank) -> None:
    full, half = (TextEncoder(model, bank, 4096, 1 << 20, half=half) for half in (False, True))
    torch.testing.assert_close(
        half.vectors([1, 2, 50]), full.vectors([1, 2, 50]), atol=1e-5, rtol=1e-4
    )  # computed: nothing has been rounded yet
    torch.testing.assert_close(half.vectors([1, 2, 50]), full.vectors([1, 2, 50]), atol=2e-3, rtol=1e-2)
    assert half._frozen is not None
    assert full._frozen is not None
    assert half._frozen._states.nbytes * 2 == full._frozen._states.nbytes


@pytest.mark.skipif(not frozen_outputs._is_memory("/dev/shm"), reason="no tmpfs here")
def test_a_folder_that_is_memory_is_no_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/dev/shm")
    monkeypatch.setattr(frozen_outputs, "_OTHER_FOLDERS", (str(tmp_path),))
    assert frozen_outputs.folder_on_disk() == str(tmp_path)
    monkeypatch.setattr(frozen_outputs, "_OTHER_FOLDERS", ())
    assert frozen_outputs.folder_on_disk() is None


@pytest.mark.skipif(not frozen_outputs._is_memory("/dev/shm"), reason="no tmpfs here")
def test_where_there_is_no_disk_what_fits_is_kept_in_memory(
    model: EmbeddingModel, bank: TextBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/dev/shm")
    monkeypatch.setattr(frozen_outputs, "_OTHER_FOLDERS", ())
    encoder = TextEncoder(model, bank, 64, 40 * PER_TOKEN, 1 << 20)
    assert encoder._frozen is not None
    assert encoder._frozen.where == "memory"
