"""A factory plugin is validated when it is written, and builds its parts when they are used."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from functools import partial
from pathlib import Path

import pytest
from torch import Tensor

from estudio_core import (
    CatalogPretraining,
    DagSettings,
    FineTuneParams,
    GateSettings,
    ItemPreprocessor,
    PluginMeta,
    PostgresItems,
    QueryGenerator,
    SearchIndexInfo,
    TextModel,
    TextTraining,
    TrainTestSplitter,
    create_text_plugin,
)
from estudio_core.errors import ConfigurationError
from estudio_core.experiments.search_space import SearchSpace
from estudio_core.plugin.plugin import Plugin
from estudio_core.plugin.run_params import InitializeParams, SyncParams
from estudio_core.sources.pgsql_text_loader import PgsqlTextLoader
from lightning_modules.losses import CosineProbMarginRankingLoss
from lightning_modules.losses.pair_loss import configured

ITEMS = PostgresItems(table="t", text="a")


def plugin_on(minilm: Path, **options: object) -> Plugin:
    return create_text_plugin(
        "shop",
        items=PostgresItems(table="products", text=("title", "body"), url="postgresql://u:p@127.0.0.1:1/x"),
        model=TextModel(name=str(minilm), max_tokens=64),
        **options,
    )


def test_constructing_opens_nothing_reads_no_model_and_imports_nothing_heavy() -> None:
    code = """
import socket, sys
def refuse(*_): raise RuntimeError("a connection was opened")
socket.socket.connect = refuse
from estudio_core import PostgresItems, create_text_plugin
items = PostgresItems(table="t", text="a", url="postgresql://u:p@127.0.0.1:1/x")
plugin = create_text_plugin("shop", items=items, model="/no/such/model")
assert plugin.loader is plugin.loader
print(sorted({"torch", "transformers", "tokenizers", "mlflow", "numpy", "pyarrow"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_plugin_cannot_be_changed() -> None:
    plugin = create_text_plugin("shop", items=ITEMS, model="m")
    for name in ("meta", "build_loader", "loader", "index"):
        with pytest.raises(FrozenInstanceError):
            setattr(plugin, name, None)


def test_a_part_can_be_exchanged_in_a_copy() -> None:
    plugin = create_text_plugin("shop", items=ITEMS, model="/no/such/model")
    other = replace(plugin, build_index=lambda: SearchIndexInfo(dimensions=3))
    assert other.index.dimensions == 3
    assert other.meta is plugin.meta
    with pytest.raises(ConfigurationError, match="cannot be read"):
        _ = plugin.index


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PostgresItems(table="t", text="a", payloads=("x",)), "Did you mean 'payload'"),
        (lambda: TextModel(name="m", max_token=5), "Did you mean 'max_tokens'"),
        (lambda: FineTuneParams(batchsize=5), "Did you mean 'batch_size'"),
        (
            lambda: create_text_plugin("s", items=ITEMS, model="m", augmentr=1),
            "Did you mean 'augmenter'",
        ),
        (lambda: create_text_plugin("s", items=ITEMS, model="m", data_loader=1), "Give the loader as items="),
        (
            lambda: create_text_plugin("s", items="products", model="m"),
            r"items is str: give PostgresItems\(\.\.\.\) or",
        ),
        (
            lambda: create_text_plugin(
                "s",
                items=PgsqlTextLoader("postgresql://h/d", table_name="t"),
                model="m",
                query_generator=QueryGenerator,
            ),
            "query_generator builds the SQL of PostgresItems",
        ),
        (
            lambda: create_text_plugin("s s", items=ITEMS, model="m"),
            "cannot name a plugin",
        ),
        (lambda: create_text_plugin("a__b", items=ITEMS, model="m"), "single underscores"),
        (lambda: GateSettings(confidence=0.9999), "confidence"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest_legal_one(call: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        call()  # type: ignore[operator]


def test_meta_refuses_names_that_break_dag_ids() -> None:
    for name in ("", "1a", "a-b", "a" * 41, "ä"):
        with pytest.raises((ConfigurationError, ValueError)):
            PluginMeta(name=name)


def test_index_takes_its_dimension_from_the_model(minilm_path: Path) -> None:
    assert plugin_on(minilm_path).index.dimensions == 384


def test_parts_fit_the_model_and_lose_nothing(minilm_path: Path) -> None:
    plugin = plugin_on(minilm_path)
    text = "A sentence about lamps. " * 60
    parts = plugin.item_texts.item_splitter(text)
    assert len(parts) > 3
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_columns_become_one_text_in_order(minilm_path: Path) -> None:
    preprocess = plugin_on(minilm_path).item_texts.preprocessor
    assert preprocess({"title": "Desk lamp", "body": ""}) == "Desk lamp"
    assert preprocess({"body": "LED", "title": "Desk lamp", "price": 5}) == "Desk lamp. LED"
    assert preprocess("Desk lamp") == "Desk lamp"


def test_a_preprocessor_of_ones_own_chooses_the_fields_of_any_loader(minilm_path: Path) -> None:
    loader = PgsqlTextLoader("postgresql://u:p@127.0.0.1:1/x", table_name="t")
    chosen = ItemPreprocessor(fields=("title",), field_names=False)
    plugin = create_text_plugin("shop", items=loader, model=str(minilm_path), preprocessor=chosen)
    assert plugin.loader is loader
    assert plugin.item_texts.preprocessor({"title": "Lamp", "price": 5}) == "Lamp"
    default = create_text_plugin("shop", items=loader, model=str(minilm_path)).item_texts.preprocessor
    assert default({"title": "Lamp", "price": 5}) == "Lamp. 5"


def test_a_given_component_takes_the_place_of_the_built_in_one(minilm_path: Path) -> None:
    marker = object()
    assert plugin_on(minilm_path, vectors_adjuster=marker).vectors_adjuster is marker


def test_a_search_varies_what_the_plugin_leaves_open_or_names(minilm_path: Path) -> None:
    training = TextTraining(learning_rate=3e-5, search_space={"margin": [0.1]}, num_epochs=2, mined_negatives=2)
    plugin = plugin_on(minilm_path, training=training)
    assert plugin.training.given == {"num_epochs": 2, "learning_rate": 3e-5, "mined_negatives": 2}
    assert "learning_rate" not in plugin.search_space
    assert plugin.search_space["margin"] == [0.1]
    usual = plugin_on(minilm_path).search_space
    assert usual["margin"] != [0.1]
    assert "learning_rate" in usual


@pytest.mark.filterwarnings("ignore:TextTraining:DeprecationWarning")
def test_settings_of_earlier_plugins_are_understood() -> None:
    assert TextTraining(settings={"mined_negatives": 2, "max_negatives": "all"}, margin=0.1).given == {
        "margin": 0.1, "max_negatives": None, "mined_negatives": 2,
    }  # fmt: skip


def test_a_loss_may_be_a_function_that_imports_what_it_needs(minilm_path: Path) -> None:
    def loss() -> object:
        from lightning_modules.losses import CosineProbMarginRankingLoss

        return CosineProbMarginRankingLoss(base_margin=0.07)

    assert plugin_on(minilm_path, training=TextTraining(loss=loss)).make_loss().margin == 0.07


def test_the_values_of_a_loss_of_the_plugins_own_are_searched_only_where_the_plugin_says_so(minilm_path: Path) -> None:
    from torch import nn

    class Mine(nn.Module):
        """A loss without a margin."""

        def forward(self, positive: Tensor, negative: Tensor) -> Tensor:
            """Return the mean difference."""
            return (negative - positive).mean()

    plugin = plugin_on(minilm_path, training=TextTraining(loss=Mine))
    assert "margin" not in plugin.search_space
    begun = SearchSpace(plugin.search_space, plugin.training).beginning([], {})
    assert isinstance(configured(plugin.make_loss(), plugin.training.with_values(begun)), Mine)
    named = plugin_on(minilm_path, training=TextTraining(loss=Mine, search_space={"margin": [0.1]}))
    assert named.search_space["margin"] == [0.1]


@pytest.mark.parametrize("unknown", ["catalogue", True, TextTraining()])
def test_an_unknown_pretraining_is_refused_with_what_is_legal(unknown: object) -> None:
    with pytest.raises(ConfigurationError, match=r'give "catalog", CatalogPretraining\(\.\.\.\), or None'):
        create_text_plugin("shop", items=ITEMS, model="m", pretrain=unknown)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="'off' or 'catalog'"):
        InitializeParams(pretrain="catalogue")  # type: ignore[arg-type]


def test_pretraining_is_off_until_the_plugin_or_a_run_says_otherwise() -> None:
    given = {
        name: create_text_plugin("shop", items=ITEMS, model="m", pretrain=name).pretrain for name in (None, "catalog")
    }
    assert given == {None: None, "catalog": CatalogPretraining()}
    own = CatalogPretraining(queries_per_item=5)
    assert create_text_plugin("shop", items=ITEMS, model="m", pretrain=own).pretrain is own
    assert InitializeParams().pretrain == "off"


def test_what_is_no_loss_is_refused_by_name(minilm_path: Path) -> None:
    assert plugin_on(minilm_path, training=TextTraining(loss=partial(CosineProbMarginRankingLoss, 0.1))).make_loss()
    with pytest.raises(ConfigurationError, match=r"gives str: give a torch\.nn\.Module"):
        plugin_on(minilm_path, training=TextTraining(loss="cosine")).make_loss()


@pytest.mark.parametrize(
    ("argument", "given", "told"),
    [
        ("dag", {"schedule": "@daily"}, r"dag is \{'schedule': '@daily'\}: give DagSettings"),
        ("training", {"num_epochs": 3}, "give TextTraining"),
        ("index", "cosine", "give TextIndex"),
        ("gate", {"confidence": 0.9}, "give GateSettings"),
        ("export", "int8", "give ExportSettings"),
        ("fine_tune", {"trials": 3}, "give FineTuneParams"),
        ("model", None, "give TextModel"),
        ("optimizations", "none", "optimizations is a list of objects"),
        ("optimizations", [3], r"optimizations\[0\] is 3"),
        ("judgments", "judgments.csv", "give a function that returns them"),
        ("splitter", TrainTestSplitter, "give an object that does the work"),
        ("sessions_converter", 3, "sessions_converter is 3"),
        ("vectors_adjuster", "torch", "vectors_adjuster is 'torch'"),
        ("query_generator", "SELECT 1", "give a class, an object or a function"),
    ],
)
def test_a_part_of_another_type_is_refused_when_the_plugin_is_written(argument: str, given: object, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        create_text_plugin("shop", **{"items": ITEMS, "model": "m", argument: given})  # type: ignore[arg-type]


def test_true_is_no_number_and_data_writes_no_queries() -> None:
    for refused in (
        lambda: DagSettings(retries=True),
        lambda: SyncParams.model_validate({"most_deleted_share": True}),
        lambda: FineTuneParams(learning_rate=True),
        lambda: GateSettings(minimum_gain=False),
    ):
        with pytest.raises(ConfigurationError, match=r"(True|False): Input should be a number"):
            refused()
    assert SyncParams.model_validate({"everything": True}).everything
    with pytest.raises(ConfigurationError, match=r"query_writer = 3: .*give an object"):
        CatalogPretraining(query_writer=3)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"task_timeout_minutes": 10**30}, "task_timeout_minutes = 1000.*less than or equal to 525600"),
        ({"training_timeout_minutes": 525_601}, "less than or equal to 525600"),
        ({"deadline_minutes": {"sync": 10**12}}, r"deadline_minutes\.sync = 1000"),
        ({"tags": ("a" * 101,)}, r"tags\.0 = .*at most 100 characters"),
        ({"tags": ("",)}, r"tags\.0 = ''"),
        ({"owner": "a\0b"}, "owner = .*NUL"),
        ({"owner": "a" * 501}, "at most 500"),
        ({"on_late": ({"call": "a.b"},)}, "on_late tells of nothing without deadline_minutes"),
        ({"on_failure": ({"call": "a.b", "arguments": {"to": object()}},)}, r"arguments\.to"),
        ({"schedule": "0 2 R * *"}, "another time at each parsing"),
        ({"schedule": "0 2 * * R(1-5)"}, "another time at each parsing"),
        ({"watch": {"new_querys": 0.1}}, "Did you mean 'new_queries'"),
    ],
)
def test_what_airflow_cannot_carry_out_is_refused_when_the_plugin_is_written(
    settings: dict[str, object], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        DagSettings(**settings)  # type: ignore[arg-type]


def test_schedules_that_have_letters_or_names_of_croniter_are_kept() -> None:
    for schedule in ("0 2 * MAR FRI", "0 2 * * THU", "@midnight", "@annually", "0 2 L * *"):
        assert DagSettings(schedule=schedule).never == {}


@pytest.mark.parametrize("given", [{"version": "1\0"}, {"description": "half \ud800"}, {"name": "shop_"}])
def test_a_card_that_a_database_cannot_hold_or_an_id_cannot_be_made_of_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=r"no database holds|single underscores between"):
        PluginMeta(**{"name": "shop", **given})
