"""What a model's folder says is done as sentence-transformers does it, in torch and once exported, or refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Pooling, WordWeights
from torch import nn

from estudio_core.errors import ConfigurationError, EstudioError, ModelError
from estudio_core.export.onnx_export import export_onnx
from estudio_core.export.triton_repository import model_digest
from estudio_core.inference.onnx_session import open_session
from estudio_core.models.embedding_model import EmbeddingModel
from estudio_core.models.folder import FolderSays, open_tokenizer, read_folder
from estudio_core.models.storage import load_model, save_model
from estudio_core.models.transformer_layers import pad
from estudio_core.plugin import text_parts
from estudio_core.plugin.specs import TextIndex, TextModel
from estudio_core.preprocessing.splitters.tokenizers import LazyTokenizer

from .conftest import tiny_backbone, tiny_tokenizer

TEXTS = ["red lamp", "big blue chair for the garden", "Table"]
QUERY, PASSAGE = "query : ", "passage : "

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transformer")
    tiny_backbone("bert").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def make(transformer: Path, tmp_path: Path) -> Make:
    """Save a SentenceTransformer of the given modules after the transformer."""

    def saved(*modules: Any, **options: Any) -> Path:
        torch.manual_seed(3)
        folder = tmp_path / "model"
        made = [module() if isinstance(module, type(lambda: 0)) else module for module in modules]
        SentenceTransformer(modules=[Transformer(str(transformer)), *made], device="cpu", **options).save(str(folder))
        return folder

    return saved


def change(folder: Path, file: str, **values: Any) -> None:
    path = folder / file
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | values))


def require_same(ours: EmbeddingModel, reference: SentenceTransformer, tmp_path: Path | None = None) -> None:
    wanted = torch.tensor(reference.encode_query(TEXTS, normalize_embeddings=True))
    torch.testing.assert_close(ours.encode_queries(TEXTS), wanted, atol=1e-5, rtol=0)
    items = torch.tensor(reference.encode_document(TEXTS, normalize_embeddings=True))
    torch.testing.assert_close(ours.encode_items(TEXTS), items, atol=1e-5, rtol=0)
    assert ours.dimensions == wanted.shape[1] == reference.get_embedding_dimension()
    if tmp_path is None:
        return
    save_model(ours, tmp_path / "stored")
    again = load_model(tmp_path / "stored")
    torch.testing.assert_close(again.encode_items(TEXTS), items, atol=1e-5, rtol=0)
    assert model_digest(again) == model_digest(ours)
    torch.testing.assert_close(EmbeddingModel(tmp_path / "stored").encode_queries(TEXTS), wanted, atol=1e-5, rtol=0)
    export_onnx(ours, tmp_path / "model.onnx")
    ids, mask = pad(ours.tokenize_items(TEXTS), ours.padding_id)
    (vectors,) = open_session(tmp_path / "model.onnx").run(
        None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
    )
    np.testing.assert_allclose(vectors, items.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "mode",
    ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", ("cls", "mean"), ("max", "lasttoken")],
)
def test_every_pooling_is_the_models_own(make: Make, mode: Any) -> None:
    folder = make(Pooling(16, mode), Normalize())
    reference = SentenceTransformer(str(folder), device="cpu")
    require_same(EmbeddingModel(folder), reference)
    require_same(EmbeddingModel(reference), reference)


def test_several_poolings_and_layers_after_them_are_stored_exported_and_served(make: Make, tmp_path: Path) -> None:
    folder = make(
        Pooling(16, ("weightedmean", "max", "lasttoken", "mean_sqrt_len_tokens")),
        Dropout(0.5),
        Normalize(),
        lambda: Dense(64, 24, activation_function=nn.GELU(), use_residual=True),
        lambda: LayerNorm(24),
        lambda: Dense(24, 8, bias=False, activation_function=None),
    )
    reference = SentenceTransformer(str(folder), device="cpu")
    ours = EmbeddingModel(folder)
    require_same(ours, reference, tmp_path)
    assert text_parts.index_info(TextModel(name=str(folder)), TextIndex()).dimensions == 8
    assert [layer.kind for layer in ours.head_layers] == ["normalize", "dense", "layer_norm", "dense"]
    require_same(EmbeddingModel(reference), reference)
    ours.freeze_layers(2)
    ids, mask = pad(ours.tokenize_items(TEXTS), ours.padding_id)
    ours.eval()
    torch.testing.assert_close(ours.forward_upper(ours.forward_lower(ids, mask), mask), ours(ids, mask))
    assert {id(p) for p in ours.head.parameters()} <= {id(p) for p in ours.trainable_parameters()}


def test_a_folder_of_an_older_version_is_read_alike(make: Make) -> None:
    folder = make(Pooling(16, ("cls", "mean")), lambda: Dense(32, 8), Normalize())
    wanted = SentenceTransformer(str(folder), device="cpu")
    old = {"word_embedding_dimension": 16, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(old))
    weights = nn.Module()
    weights.linear = nn.Linear(32, 8)
    weights.linear.load_state_dict(wanted[2].linear.state_dict())
    (folder / "2_Dense" / "model.safetensors").unlink()
    torch.save(weights.state_dict(), folder / "2_Dense" / "pytorch_model.bin")
    (folder / "config_sentence_transformers.json").write_text('{"__version__": {"sentence_transformers": "2.0.0"}}')
    modules = json.loads((folder / "modules.json").read_text())
    for module, name in zip(modules, ("Transformer", "Pooling", "Dense", "Normalize"), strict=True):
        module["type"] = f"sentence_transformers.models.{name}"
    (folder / "modules.json").write_text(json.dumps(modules))
    require_same(EmbeddingModel(folder), SentenceTransformer(str(folder), device="cpu"))
    require_same(EmbeddingModel(folder), wanted)


def test_encoder_and_tokenizer_may_lie_in_a_folder_of_their_own(make: Make, tmp_path: Path) -> None:
    folder = make(Pooling(16, "cls"), Normalize())
    wanted = SentenceTransformer(str(folder), device="cpu")
    (folder / "0_Transformer").mkdir()
    for file in list(folder.iterdir()):
        if file.is_file() and file.name not in {"modules.json", "config_sentence_transformers.json", "README.md"}:
            shutil.move(file, folder / "0_Transformer" / file.name)
    change(folder / "0_Transformer", "sentence_bert_config.json", max_seq_length=6)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))
    wanted.max_seq_length = 6
    require_same(EmbeddingModel(folder), wanted)
    assert LazyTokenizer(folder).limit(None) == 6
    assert text_parts.index_info(TextModel(name=str(folder)), TextIndex()).dimensions == 16


@pytest.mark.parametrize(
    ("prompts", "default", "query", "item"),
    [
        ({"query": QUERY, "document": PASSAGE}, None, QUERY, PASSAGE),
        ({"query": QUERY}, None, QUERY, ""),
        ({"query": QUERY}, "query", QUERY, ""),
        ({"query": QUERY, "clustering": "red "}, None, QUERY, ""),
        ({"query": QUERY, "document": "", "passage": PASSAGE}, None, QUERY, ""),
        ({"query": QUERY, "red": "blue "}, "red", QUERY, ""),
        ({"query": "", "document": ""}, None, "", ""),
    ],
)
def test_prompts_stand_before_queries_and_items(
    make: Make, prompts: dict[str, str], default: str | None, query: str, item: str
) -> None:
    folder = make(Pooling(16), Normalize(), prompts=prompts, default_prompt_name=default)
    reference = SentenceTransformer(str(folder), device="cpu")
    ours = EmbeddingModel(folder)
    assert (ours.query_prefix, ours.item_prefix) == (query, item)
    require_same(ours, reference)
    require_same(EmbeddingModel(reference), reference)
    of_plugin = text_parts.item_texts(_items(), TextModel(name=str(folder)), None, None, None).item_splitter
    assert getattr(of_plugin, "item_splitter", of_plugin).prefix == item


def test_a_default_prompt_that_is_neither_is_for_both(make: Make) -> None:
    folder = make(Pooling(16), Normalize(), prompts={"any": "big "}, default_prompt_name="any")
    wanted = torch.tensor(SentenceTransformer(str(folder), device="cpu").encode(TEXTS))
    ours = EmbeddingModel(folder)
    torch.testing.assert_close(ours.encode_queries(TEXTS), wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.encode_items(TEXTS), wanted, atol=1e-5, rtol=0)


def test_letters_are_written_small_where_the_folder_says_so_and_in_the_exported_tokenizer(
    make: Make, tmp_path: Path
) -> None:
    folder = make(Pooling(16), Normalize())
    plain = EmbeddingModel(folder)
    change(folder, "sentence_bert_config.json", do_lower_case=True, max_seq_length=12)
    ours, reference = EmbeddingModel(folder), SentenceTransformer(str(folder), device="cpu")
    require_same(ours, reference)
    assert ours.tokenize_items(["TABLE"]) == ours.tokenize_items(["table"]) != plain.tokenize_items(["TABLE"])
    save_model(ours, tmp_path / "stored")
    assert load_model(tmp_path / "stored").tokenize_items(["TABLE"]) == ours.tokenize_items(["table"])
    assert open_tokenizer(folder)("TABLE")["input_ids"] == ours.tokenize_items(["table"])[0]


def test_the_longest_input_is_the_folders(make: Make) -> None:
    folder = make(Pooling(16), Normalize())
    change(folder, "sentence_bert_config.json", max_seq_length=8)
    long = ["red " * 30]
    reference = SentenceTransformer(str(folder), device="cpu")
    ours = EmbeddingModel(folder)
    assert ours.max_length == 8
    torch.testing.assert_close(
        ours.encode_items(long), torch.tensor(reference.encode_document(long)), atol=1e-5, rtol=0
    )
    assert text_parts.base_model(TextModel(name=str(folder))).max_length == 8
    with pytest.raises(ConfigurationError, match="takes 8 tokens"):
        text_parts.base_model(TextModel(name=str(folder), max_tokens=20))


def test_a_model_without_a_list_of_modules_is_averaged_as_sentence_transformers_does(transformer: Path) -> None:
    require_same(EmbeddingModel(transformer), SentenceTransformer(str(transformer), device="cpu"))


def test_prefixes_of_the_plugin_go_before_those_of_the_folder(make: Make) -> None:
    folder = make(Pooling(16), Normalize(), prompts={"search": "red ", "sort": "blue "})
    with pytest.raises(ConfigurationError, match=r"search, sort.*TextModel\(query_prefix="):
        EmbeddingModel(folder)
    ours = text_parts.base_model(TextModel(name=str(folder), query_prefix="red ", item_prefix="", max_tokens=20))
    assert (ours.query_prefix, ours.item_prefix) == ("red ", "")


def test_a_family_is_no_excuse_for_pooling_otherwise_than_the_folder_says(make: Make) -> None:
    folder = make(Pooling(16, "cls"), Normalize())
    with pytest.raises(ConfigurationError, match="pools by cls, its family 'e5' by masked_mean"):
        EmbeddingModel(folder, family="e5")
    assert EmbeddingModel(folder, family="bge").pooling == ("cls",)


def test_a_family_is_no_excuse_for_other_prompts(make: Make) -> None:
    folder = make(Pooling(16), Normalize(), prompts={"query": "red "})
    with pytest.raises(ConfigurationError, match="puts 'red ' before query texts, its family 'e5' 'query: '"):
        EmbeddingModel(folder, family="e5")
    assert EmbeddingModel(folder, family="e5", query_prefix="red ").item_prefix == "passage: "


REFUSED: dict[str, tuple[tuple[Any, ...], dict[str, Any], Callable[[Path], None], str]] = {
    "dot product": ((Pooling(16),), {"similarity_fn_name": "dot"}, lambda f: None, "compared by 'dot'"),
    "manhattan": ((Pooling(16), Normalize()), {"similarity_fn_name": "manhattan"}, lambda f: None, "'manhattan'"),
    "prompt outside of pooling": (
        (Pooling(16, include_prompt=False), Normalize()),
        {"prompts": {"query": "red "}},
        lambda f: None,
        "include_prompt",
    ),
    "token weights": ((WordWeights(["red"], {"red": 2.0}), Pooling(16)), {}, lambda f: None, "second module"),
    "a class of its own": (
        (Pooling(16), Normalize()),
        {},
        lambda f: _retype(f, 2, "custom_module.Shift"),
        "custom_module.Shift",
    ),
    "a module that is none": (
        (Pooling(16), Normalize()),
        {},
        lambda f: _retype(f, 2, "sentence_transformers.models.LSTM"),
        "module LSTM after pooling",
    ),
    "no pooling": ((Pooling(16), Normalize()), {}, lambda f: _retype(f, 1, "sentence_transformers.models.CNN"), "CNN"),
    "a router": (
        (Pooling(16), Normalize()),
        {},
        lambda f: _retype(f, 0, "sentence_transformers.models.Router"),
        "first module .* is Router",
    ),
    "an unknown pooling": (
        (Pooling(16), Normalize()),
        {},
        lambda f: change(f, "1_Pooling/config.json", pooling_mode="median"),
        "pools by 'median'",
    ),
    "an unknown key of pooling": (
        (Pooling(16), Normalize()),
        {},
        lambda f: change(f, "1_Pooling/config.json", pooling_mode_first=True),
        "pooling_mode_first",
    ),
    "code as an activation": (
        (Pooling(16), lambda: Dense(16, 8)),
        {},
        lambda f: change(f, "2_Dense/config.json", activation_function="os.system"),
        "os.system",
    ),
    "an activation that learns": (
        (Pooling(16), lambda: Dense(16, 8)),
        {},
        lambda f: change(f, "2_Dense/config.json", activation_function="torch.nn.modules.activation.PReLU"),
        "PReLU",
    ),
    "a layer on tokens": (
        (Pooling(16), lambda: Dense(16, 8)),
        {},
        lambda f: change(f, "2_Dense/config.json", module_input_name="token_embeddings"),
        "token_embeddings",
    ),
    "a layer of another width": (
        (Pooling(16), lambda: Dense(16, 8)),
        {},
        lambda f: change(f, "2_Dense/config.json", in_features=24),
        "takes vectors of 24",
    ),
    "weights of another layer": (
        (Pooling(16), lambda: Dense(16, 8)),
        {},
        lambda f: change(f, "2_Dense/config.json", out_features=9),
        "do not agree",
    ),
    "no weights": (
        (Pooling(16), lambda: Dense(16, 8)),
        {},
        lambda f: (f / "2_Dense" / "model.safetensors").unlink(),
        "missing or corrupt",
    ),
    "another task": (
        (Pooling(16), Normalize()),
        {},
        lambda f: change(f, "sentence_bert_config.json", transformer_task="fill-mask"),
        "transformer_task",
    ),
    "options of the tokenizer": (
        (Pooling(16), Normalize()),
        {},
        lambda f: change(f, "sentence_bert_config.json", tokenizer_args={"strip_accents": True}),
        "strip_accents",
    ),
    "options of the configuration": (
        (Pooling(16), Normalize()),
        {},
        lambda f: change(f, "sentence_bert_config.json", config_args={"is_causal": True}),
        "is_causal",
    ),
    "query expansion": (
        (Pooling(16), Normalize()),
        {},
        lambda f: change(f, "sentence_bert_config.json", query_expansion={"length": 32}),
        "query_expansion",
    ),
    "no number of tokens": (
        (Pooling(16), Normalize()),
        {},
        lambda f: change(f, "sentence_bert_config.json", max_seq_length="long"),
        "max_seq_length",
    ),
    "a default prompt that is none": (
        (Pooling(16), Normalize()),
        {"prompts": {"query": "red "}},
        lambda f: change(f, "config_sentence_transformers.json", default_prompt_name="querry"),
        "querry.*query",
    ),
    "prompts that are no texts": (
        (Pooling(16), Normalize()),
        {},
        lambda f: change(f, "config_sentence_transformers.json", prompts={"query": 3}),
        "no texts by name",
    ),
    "another kind of model": (
        (Pooling(16), Normalize()),
        {},
        lambda f: change(f, "config_sentence_transformers.json", model_type="SparseEncoder"),
        "SparseEncoder",
    ),
    "an adapter": ((Pooling(16), Normalize()), {}, lambda f: change(f, "adapter_config.json", r=8), "adapter"),
    "one tower of two": ((Pooling(16), Normalize()), {}, lambda f: change(f, "towers.json", item_version=1), "towers"),
    "a pooling that is listed nowhere": (
        (Pooling(16, "cls"), Normalize()),
        {},
        lambda f: (f / "modules.json").unlink(),
        "1_Pooling, and no modules.json",
    ),
    "a list that is none": (
        (Pooling(16), Normalize()),
        {},
        lambda f: (f / "modules.json").write_text('{"0": 1}') and None,
        "cannot be read as a list",
    ),
    "shortened vectors": (
        (Pooling(16), Normalize()),
        {"truncate_dim": 4},
        lambda f: None,
        "truncate_dim = 4",
    ),
    "poolings in a list of lists": (
        (Pooling(16), Normalize()),
        {},
        lambda f: change(f, "1_Pooling/config.json", pooling_mode=[["cls"]]),
        r"pools by \['cls'\]",
    ),
    "no pooling in the list": (
        (Pooling(16), Normalize()),
        {},
        lambda f: change(f, "1_Pooling/config.json", pooling_mode=[]),
        r"pools by \[\]",
    ),
    "a number as pooling": (
        (Pooling(16), Normalize()),
        {},
        lambda f: change(f, "1_Pooling/config.json", pooling_mode=3),
        "pools by 3",
    ),
    "no file of pooling": (
        (Pooling(16), Normalize()),
        {},
        lambda f: shutil.rmtree(f / "1_Pooling"),
        "1_Pooling/config.json is missing",
    ),
    "an empty list of modules": (
        (Pooling(16), Normalize()),
        {},
        lambda f: (f / "modules.json").write_text("[]") and None,
        "cannot be read as a list of modules",
    ),
    "a path that is no text": (
        (Pooling(16), Normalize()),
        {},
        lambda f: _retype(f, 1, "sentence_transformers.models.Pooling", 3),
        "with a type and a path",
    ),
    "a list as default prompt": (
        (Pooling(16), Normalize()),
        {"prompts": {"query": "red "}},
        lambda f: change(f, "config_sentence_transformers.json", default_prompt_name=["query"]),
        "default prompt",
    ),
    "a list as similarity": (
        (Pooling(16), Normalize()),
        {},
        lambda f: change(f, "config_sentence_transformers.json", similarity_fn_name=["cosine"]),
        "legal are",
    ),
    "a list as options": (
        (Pooling(16), Normalize()),
        {},
        lambda f: change(f, "sentence_bert_config.json", model_args=["x"]),
        "names no options",
    ),
    "no width": (
        (Pooling(16), Normalize()),
        {},
        lambda f: change(f, "config.json", hidden_size=None) or change(f, "config.json", hidden_size="x"),
        "vectors of 'x'",
    ),
    "weights of another vocabulary": (
        (Pooling(16), Normalize()),
        {},
        lambda f: change(f, "config.json", vocab_size=5),
        "No model can be loaded",
    ),
    "a weight that is missing": (
        (Pooling(16), Normalize()),
        {},
        lambda f: _without_a_weight(f / "model.safetensors"),
        "no weights for 1 parameters of its encoder, embeddings.LayerNorm.bias",
    ),
    "a folder outside": (
        (Pooling(16), Normalize()),
        {},
        lambda f: _retype(f, 1, "sentence_transformers.models.Pooling", "../elsewhere"),
        "not inside",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_heeded_is_refused_by_name(make: Make, case: str) -> None:
    modules, options, spoil, message = REFUSED[case]
    folder = make(*modules, **options)
    spoil(folder)
    with pytest.raises(EstudioError, match=message) as told:
        EmbeddingModel(folder)
    assert isinstance(told.value, ConfigurationError | ModelError)


def test_a_sentence_transformer_with_code_of_its_own_is_refused(transformer: Path) -> None:
    class Shift(nn.Module):
        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            return features

    made = SentenceTransformer(modules=[Transformer(str(transformer)), Pooling(16), Shift()], device="cpu")
    with pytest.raises(ConfigurationError, match=r"class of its own, .*Shift"):
        EmbeddingModel(made)


def test_a_name_on_the_hub_is_used_as_its_folder_says(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(Pooling(16, "cls"), lambda: Dense(16, 8), prompts={"query": "red "})
    cache = tmp_path / "hub" / "models--some--model"
    shutil.copytree(folder, cache / "snapshots" / ("a" * 40))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("a" * 40)
    for module in ("huggingface_hub.constants", "transformers.utils.hub"):
        monkeypatch.setattr(f"{module}.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    monkeypatch.setattr("huggingface_hub._snapshot_download.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    assert read_folder("some/model").dimensions == 8
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="No model can be loaded from 'some/other'"):
        read_folder("some/other")


def test_a_pair_says_nothing() -> None:
    model = EmbeddingModel((tiny_backbone("bert"), tiny_tokenizer()), pooling="lasttoken")
    assert (model.pooling, model.query_prefix, model.head_layers) == (("lasttoken",), "", ())
    assert FolderSays().used_as("bert").pooling == ("masked_mean",)


def _without_a_weight(file: Path) -> None:
    weights = load_file(file)
    del weights["embeddings.LayerNorm.bias"]
    save_file(weights, file, metadata={"format": "pt"})


def _retype(folder: Path, place: int, kind: str, path: Any = None) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules[place]["type"] = kind
    if path is not None:
        modules[place]["path"] = path
    (folder / "modules.json").write_text(json.dumps(modules))


def _items() -> Any:
    from estudio_core.plugin.specs import PostgresItems

    return PostgresItems(table="products", text="title")
