from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

from estudio_core.errors import ModelError
from estudio_core.models.description import DESCRIPTION_FILE
from estudio_core.models.embedding_model import EmbeddingModel
from estudio_core.models.folder import read_folder
from estudio_core.models.storage import WEIGHTS_FILE, load_model, save_model

from .conftest import tiny_backbone, tiny_tokenizer

TEXTS = ["red lamp", "big blue chair for the garden"]


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    model = EmbeddingModel((tiny_backbone("bert"), tiny_tokenizer()), family="e5", max_length=20)
    save_model(model, tmp_path / "model")
    return tmp_path / "model"


def test_a_loaded_model_gives_the_same_vectors(architecture: str, tmp_path: Path) -> None:
    model = EmbeddingModel(
        (tiny_backbone(architecture), tiny_tokenizer()), family="e5", max_length=20, item_prefix="small "
    )
    save_model(model, tmp_path / "a" / "b")
    loaded = load_model(tmp_path / "a" / "b")
    assert (loaded.family, loaded.pooling) == ("e5", ("masked_mean",))
    assert (loaded.max_length, loaded.query_prefix, loaded.item_prefix) == (20, "query: ", "small ")
    torch.testing.assert_close(loaded.encode_items(TEXTS), model.encode_items(TEXTS), atol=1e-6, rtol=0)
    torch.testing.assert_close(loaded.encode_queries(TEXTS), model.encode_queries(TEXTS), atol=1e-6, rtol=0)


def test_a_frozen_model_is_stored_whole_and_loads_unfrozen(tmp_path: Path) -> None:
    model = EmbeddingModel((tiny_backbone("bert"), tiny_tokenizer()))
    model.freeze_layers(2)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.frozen_layers == 0
    assert all(p.requires_grad for p in loaded.parameters())
    torch.testing.assert_close(loaded.encode_items(TEXTS), model.encode_items(TEXTS), atol=1e-6, rtol=0)


def test_nothing_stored_is_a_pickle(stored: Path) -> None:
    assert {p.suffix for p in stored.iterdir()} <= {".json", ".safetensors"}


def test_a_copy_of_a_frozen_model_trains_apart_from_it(stored: Path) -> None:
    model = load_model(stored)
    model.freeze_layers(2)
    twin = copy.deepcopy(model)
    before = model.encode_items(TEXTS)
    with torch.no_grad():
        for parameter in twin.trainable_parameters():
            parameter.add_(torch.linspace(-1, 1, parameter.numel()).reshape(parameter.shape))
    torch.testing.assert_close(model.encode_items(TEXTS), before, atol=0, rtol=0)
    mask = torch.ones(1, 3, dtype=torch.long)
    ids = torch.tensor([[2, 5, 3]])
    torch.testing.assert_close(twin.eval().forward_upper(twin.forward_lower(ids, mask), mask), twin(ids, mask))


@pytest.mark.parametrize("name", [DESCRIPTION_FILE, WEIGHTS_FILE, "config.json", "tokenizer.json"])
def test_a_missing_file_is_a_model_error(stored: Path, name: str) -> None:
    (stored / name).unlink()
    with pytest.raises(ModelError):
        load_model(stored)


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b"\xff", b"[" * 100_000, b'{"head": [{"kind": "conv"}]}', b'{"pooling": 3}', b'{"head": 1}'],
    ids=range(7),
)
def test_a_damaged_description_is_told_with_its_file_whoever_reads_it(stored: Path, content: bytes) -> None:
    (stored / DESCRIPTION_FILE).write_bytes(content)
    for reading in (read_folder, load_model):
        with pytest.raises(ModelError, match=rf"{DESCRIPTION_FILE} is missing or unreadable: .*save_model") as told:
            reading(stored)
        assert str(stored) in str(told.value)


@pytest.mark.parametrize("name", [DESCRIPTION_FILE, WEIGHTS_FILE, "config.json", "tokenizer.json"])
def test_a_corrupt_file_is_a_model_error(stored: Path, name: str) -> None:
    (stored / name).write_bytes(b"\x00 not what it was")
    with pytest.raises(ModelError):
        load_model(stored)


def test_a_truncated_weights_file_is_a_model_error(stored: Path) -> None:
    whole = (stored / WEIGHTS_FILE).read_bytes()
    (stored / WEIGHTS_FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="missing or corrupt"):
        load_model(stored)


def test_weights_of_another_model_are_refused(stored: Path, tmp_path: Path) -> None:
    save_model(EmbeddingModel((tiny_backbone("distilbert"), tiny_tokenizer()), family="e5"), tmp_path / "other")
    (stored / WEIGHTS_FILE).write_bytes((tmp_path / "other" / WEIGHTS_FILE).read_bytes())
    with pytest.raises(ModelError, match="do not belong together"):
        load_model(stored)


@pytest.mark.parametrize(
    ("key", "value"), [("kind", "clip"), ("pooling", "median"), ("surprise", 1), ("dimensions", 17)]
)
def test_an_unknown_description_is_refused(stored: Path, key: str, value: object) -> None:
    description = json.loads((stored / DESCRIPTION_FILE).read_text())
    (stored / DESCRIPTION_FILE).write_text(json.dumps(description | {key: value}))
    with pytest.raises(ModelError):
        load_model(stored)
