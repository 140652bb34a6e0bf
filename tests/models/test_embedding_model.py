from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer

from estudio_core.errors import ConfigurationError, ModelError
from estudio_core.models.embedding_model import EmbeddingModel
from estudio_core.models.transformer_layers import find_layers, pad

from .conftest import tiny_backbone, tiny_tokenizer

TEXTS = ["red lamp", "big blue chair for the garden", "table"]


@pytest.fixture
def model(architecture: str) -> EmbeddingModel:
    return EmbeddingModel((tiny_backbone(architecture), tiny_tokenizer())).eval()


def test_padding_never_changes_a_vector(model: EmbeddingModel) -> None:
    ids = model.tokenize_items(TEXTS)
    alone = torch.cat([model(*pad([one], model.padding_id)) for one in ids])
    together = model(*pad(ids, model.padding_id))
    extra = [one + [model.padding_id] * 9 for one in ids]
    mask = torch.tensor([[1] * len(one) + [0] * (15 - len(one)) for one in ids])
    longer = model(torch.tensor([(one + [0] * 15)[:15] for one in extra]), mask)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(longer, alone, atol=1e-5, rtol=0)


def test_vectors_have_unit_length_and_come_back_in_the_order_given(model: EmbeddingModel) -> None:
    vectors = model.encode_items(TEXTS, batch_size=2)
    assert vectors.shape == (3, 16)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(vectors[1], model.encode_items(TEXTS[1:2])[0], atol=1e-5, rtol=0)


def test_no_texts_give_no_vectors(model: EmbeddingModel) -> None:
    assert model.encode_queries([]).shape == (0, 16)


def test_pooling_is_the_mean_of_real_tokens_normalised(model: EmbeddingModel) -> None:
    (ids,) = model.tokenize_items([TEXTS[1]])
    hidden = model.backbone(input_ids=torch.tensor([ids])).last_hidden_state[0]
    expected = hidden.mean(dim=0) / hidden.mean(dim=0).norm()
    torch.testing.assert_close(model.encode_items([TEXTS[1]])[0], expected.detach(), atol=1e-5, rtol=0)


def test_lower_and_upper_layers_together_are_the_model(model: EmbeddingModel) -> None:
    model.freeze_layers(2)
    ids, mask = pad(model.tokenize_items(TEXTS), model.padding_id)
    hidden = model.forward_lower(ids, mask)
    assert not hidden.requires_grad
    torch.testing.assert_close(model.forward_upper(hidden, mask), model(ids, mask), atol=1e-6, rtol=0)


def test_freezing_removes_embeddings_and_lowest_layers_from_training(model: EmbeddingModel) -> None:
    everything = sum(p.numel() for p in model.parameters())
    layers = model.backbone.get_submodule(find_layers(model.backbone))
    per_layer = sum(p.numel() for p in layers[0].parameters())  # type: ignore[index, union-attr]  # a ModuleList
    model.freeze_layers(3)
    trainable = sum(p.numel() for p in model.trainable_parameters())
    assert trainable == per_layer
    assert trainable < everything


def test_a_step_leaves_frozen_layers_bitwise_unchanged_and_changes_the_others(model: EmbeddingModel) -> None:
    model.freeze_layers(2)
    model.train()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.trainable_parameters(), lr=0.01, weight_decay=0.1)
    ids, mask = pad(model.tokenize_items(TEXTS), model.padding_id)
    vectors = model.forward_upper(model.forward_lower(ids, mask), mask)
    (vectors[0] @ vectors[1] - vectors[0] @ vectors[2]).backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        same = torch.equal(before[name], parameter)
        assert same is not parameter.requires_grad, name


def test_frozen_modules_have_no_dropout_while_training(model: EmbeddingModel) -> None:
    model.freeze_layers(2)
    model.train()
    ids, mask = pad(model.tokenize_items(TEXTS), model.padding_id)
    torch.testing.assert_close(model.forward_lower(ids, mask), model.forward_lower(ids, mask), atol=0, rtol=0)
    assert not torch.equal(model(ids, mask), model(ids, mask))


def test_freezing_is_for_good(model: EmbeddingModel) -> None:
    model.freeze_layers(3)
    frozen = len(model.trainable_parameters())
    model.freeze_layers(0)
    assert model.frozen_layers == 3
    assert len(model.trainable_parameters()) == frozen


@pytest.mark.parametrize("count", [-1, 5])
def test_layers_that_do_not_exist_are_refused(model: EmbeddingModel, count: int) -> None:
    with pytest.raises(ConfigurationError, match="has 4 layers"):
        model.freeze_layers(count)


def test_split_without_frozen_layers_is_refused(model: EmbeddingModel) -> None:
    with pytest.raises(ConfigurationError, match="freeze_layers"):
        model.forward_lower(torch.tensor([[2, 3]]), torch.tensor([[1, 1]]))


def test_long_texts_are_cut_with_prefix_and_special_tokens_counted() -> None:
    model = EmbeddingModel((tiny_backbone("bert"), tiny_tokenizer()), family="e5", max_length=8)
    (ids,) = model.tokenize_items(["red " * 50])
    assert len(ids) == 8
    assert model.tokenizer.convert_ids_to_tokens(ids)[:3] == ["[CLS]", "passage", ":"]
    assert model.tokenizer.convert_ids_to_tokens(ids)[-1] == "[SEP]"


def test_e5_puts_its_prefixes_before_queries_and_items() -> None:
    model = EmbeddingModel((tiny_backbone("xlm-roberta"), tiny_tokenizer()), family="e5")
    query, item = model.tokenize_queries(["red lamp"])[0], model.tokenize_items(["red lamp"])[0]
    assert model.tokenizer.decode(query, skip_special_tokens=True).split()[0] == "query"
    assert model.tokenizer.decode(item, skip_special_tokens=True).split()[0] == "passage"


def test_bert_adds_no_prefix() -> None:
    model = EmbeddingModel((tiny_backbone("bert"), tiny_tokenizer()))
    assert model.tokenize_queries(["red"]) == model.tokenize_items(["red"])


@pytest.mark.parametrize("length", [1, 33])
def test_a_length_without_positions_is_refused(length: int) -> None:
    with pytest.raises(ConfigurationError, match="max_length"):
        EmbeddingModel((tiny_backbone("bert"), tiny_tokenizer()), max_length=length)


def test_roberta_positions_behind_the_padding_id_are_counted() -> None:
    assert EmbeddingModel((tiny_backbone("bert"), tiny_tokenizer()), family="e5").max_length == 24  # the tokenizer's
    with pytest.raises(ConfigurationError, match="2 to 31 tokens"):
        EmbeddingModel((tiny_backbone("xlm-roberta"), tiny_tokenizer()), family="e5", max_length=32)


def test_another_kind_of_model_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="SentenceTransformer"):
        EmbeddingModel(object(), family="e5")


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No model can be loaded"):
        EmbeddingModel(tmp_path)


def test_real_model_from_folder_or_sentence_transformer_equals_sentence_transformers(minilm_path: Path) -> None:
    reference = SentenceTransformer(os.fspath(minilm_path), device="cpu")
    texts = ["wireless mouse", "A laser printer with duplex unit and 500-sheet tray, 42 pages per minute"]
    expected = torch.tensor(reference.encode(texts, normalize_embeddings=True))
    from_folder = EmbeddingModel(minilm_path)
    wrapped = EmbeddingModel(reference)
    assert (from_folder.dimensions, from_folder.num_layers, from_folder.max_length) == (384, 6, 256)
    torch.testing.assert_close(from_folder.encode_items(texts), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(wrapped.encode_items(texts), expected, atol=1e-5, rtol=0)


def test_tutorial_wraps_a_sentence_transformer_as_e5(minilm_path: Path) -> None:
    model = EmbeddingModel(SentenceTransformer(os.fspath(minilm_path), device="cpu"), family="e5")
    assert model.encode_queries(["lamp"]).shape == (1, 384)
    assert not torch.equal(model.encode_queries(["lamp"]), model.encode_items(["lamp"]))


def test_a_family_pools_and_prefixes_as_its_line_of_the_table_says() -> None:
    model = EmbeddingModel((tiny_backbone("bert"), tiny_tokenizer()), family="bge").eval()
    ids, mask = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    with torch.no_grad():
        hidden = model.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
        torch.testing.assert_close(model(ids, mask), torch.nn.functional.normalize(hidden[:, 0], dim=-1))
    assert (model.query_prefix[:9], model.item_prefix) == ("Represent", "")
    with pytest.raises(ConfigurationError, match=r"There is no model family 'bgee'.*bge"):
        EmbeddingModel((tiny_backbone("bert"), tiny_tokenizer()), family="bgee")


def test_a_new_family_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from estudio_core.models.families import FAMILIES, Family
    from estudio_core.models.storage import load_model, save_model
    from estudio_core.plugin.specs import TextModel

    monkeypatch.setitem(FAMILIES, "mine", Family("ask: ", "tell: ", "cls"))
    save_model(EmbeddingModel((tiny_backbone("bert"), tiny_tokenizer()), family="mine"), tmp_path)
    loaded = load_model(tmp_path)
    assert (loaded.family, loaded.query_prefix, loaded.item_prefix, loaded.pooling) == (
        "mine",
        "ask: ",
        "tell: ",
        ("cls",),
    )
    assert TextModel(name="somewhere", family="mine").family == "mine"
