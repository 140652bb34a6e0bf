"""A class with ten methods becomes a plugin; what it says and nothing would heed is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from estudio_core import (
    ClickstreamSessionConverter,
    DatasetFieldsNormalizer,
    ExperimentsManager,
    FineTuneParams,
    FineTuningBuilder,
    FineTuningMethod,
    FineTuningSettings,
    ItemMeta,
    ItemPreprocessor,
    MetricsAccumulator,
    PgsqlTextLoader,
    PluginMeta,
    SearchIndexInfo,
    TextItemSetManager,
    TextQueryRetriever,
    TextToTextBertTritonClientFactory,
    TextToTextE5TritonClientFactory,
    TrainTestSplitter,
    TritonClientFactory,
    prepare_data,
)
from estudio_core.context import context
from estudio_core.errors import ConfigurationError
from estudio_core.experiments.initial_params.clip import INITIAL_PARAMS
from estudio_core.plugin.precedence import resolve
from estudio_core.plugin.registry import PluginManager
from estudio_core.plugin.tutorial import adapt
from estudio_core.plugin.validation import validate_plugin
from estudio_core.preprocessing.splitters import DummySentenceSplitter
from estudio_core.settings import get_settings


class Shop(FineTuningMethod):
    """A plugin whose parts a test may exchange."""

    meta = PluginMeta(name="Shop")
    further: ClassVar[dict[str, Callable[[Shop], Any]]] = {}

    def __init__(self) -> None:
        self.data_loader = PgsqlTextLoader("postgresql://u:p@127.0.0.1:1/x", table_name="products")
        self.converter = ClickstreamSessionConverter(item_type=PgsqlTextLoader.item_meta_cls)
        self.splitter = TrainTestSplitter()
        self.items_set_manager = TextItemSetManager(DatasetFieldsNormalizer("item", "item_id"))
        self.accumulators = [MetricsAccumulator("train_loss", calc_mean=True)]
        self.manager = ExperimentsManager.from_wrapper(
            context.mlflow_client, "test_quality", self.meta.name, self.accumulators
        )
        self.initial_params = INITIAL_PARAMS
        self.initial_params.update({"batch_size": [16, 32]})
        self.settings = FineTuningSettings(loss_func=None)
        self.model: Any = None

    def upload_initial_model(self) -> None:
        self.manager.upload_initial_model(self.model)

    def get_query_retriever(self) -> TextQueryRetriever:
        return TextQueryRetriever()

    def get_items_preprocessor(self) -> ItemPreprocessor:
        return self.items_set_manager.preprocessor

    def get_data_loader(self) -> Any:
        return self.data_loader

    def get_manager(self) -> ExperimentsManager:
        return self.manager

    def get_inference_client_factory(self) -> TritonClientFactory:
        return TextToTextBertTritonClientFactory("127.0.0.1:8001", plugin_name=self.meta.name)

    def prepared(self, clickstream: Any) -> Any:
        retriever = self.get_query_retriever()
        return prepare_data(
            clickstream, self.converter, self.splitter, retriever, self.data_loader, self.items_set_manager
        )

    def get_fine_tuning_builder(self, clickstream: Any) -> FineTuningBuilder:
        return FineTuningBuilder(**self.parts(clickstream))

    def parts(self, clickstream: Any) -> dict[str, Any]:
        return {
            "data_loader": self.data_loader,
            "query_retriever": self.get_query_retriever(),
            "clickstream_sessions_converter": self.converter,
            "clickstream_sessions_splitter": self.splitter,
            "dataset_fields_normalizer": DatasetFieldsNormalizer("item", "item_id"),
            "items_set_manager": self.items_set_manager,
            "accumulators": self.accumulators,
            "experiments_manager": self.manager,
            "fine_tuning_settings": self.settings,
            "initial_params": self.initial_params,
            "ranking_data": self.prepared(clickstream),
            **{name: make(self) for name, make in self.further.items()},
        }

    def get_search_index_info(self) -> SearchIndexInfo:
        return SearchIndexInfo(dimensions=3)

    def get_vectors_adjuster(self) -> Any:
        raise AssertionError("built before it is asked for")

    def get_vectordb_optimizations(self) -> list[Any]:
        return []


@pytest.fixture(autouse=True)
def _no_shared_client() -> Iterator[None]:
    yield
    context.reset()


def test_the_parts_are_those_of_the_builder_and_of_the_methods() -> None:
    shop = Shop()
    plugin = adapt(shop)
    assert plugin.meta is shop.meta
    assert plugin.loader is shop.data_loader
    assert plugin.item_texts is shop.items_set_manager
    assert plugin.converter is shop.converter
    assert plugin.splitter is shop.splitter
    assert plugin.training is shop.settings
    assert plugin.experiments is shop.manager
    assert plugin.index.dimensions == 3
    assert plugin.search_space == shop.initial_params
    assert plugin.search_space["batch_size"] == [16, 32]
    with pytest.raises(AssertionError):
        _ = plugin.vectors_adjuster


def test_plugins_that_share_one_import_of_a_space_stay_apart() -> None:
    one, other = Shop(), Shop()
    one.initial_params["margin"].append(9.0)
    assert 9.0 not in other.initial_params["margin"]
    assert 9.0 not in INITIAL_PARAMS["margin"]
    assert "batch_size" not in INITIAL_PARAMS


def test_the_base_model_is_caught_and_not_registered(minilm_path: Path) -> None:
    from estudio_core.models.embedding_model import EmbeddingModel

    shop = Shop()
    shop.model = EmbeddingModel(minilm_path)
    assert adapt(shop).base_model() is shop.model
    assert "upload_initial_model" not in vars(shop.manager)


def test_a_plugin_that_uploads_nothing_says_so() -> None:
    class Idle(Shop):
        def upload_initial_model(self) -> None:
            pass

    with pytest.raises(ConfigurationError, match="gave get_manager\\(\\) no model"):
        adapt(Idle()).base_model()


def test_a_client_for_another_family_than_the_base_model_is_refused(minilm_path: Path) -> None:
    from estudio_core.models.embedding_model import EmbeddingModel

    class WrongFamily(Shop):
        def get_inference_client_factory(self) -> TritonClientFactory:
            return TextToTextE5TritonClientFactory("127.0.0.1:8001", plugin_name=self.meta.name)

    shop = WrongFamily()
    shop.model = EmbeddingModel(minilm_path)
    with pytest.raises(ConfigurationError, match=r"family 'bert'.*is for 'e5'"):
        adapt(shop).base_model()


def with_part(**exchanged: Callable[[Shop], Any]) -> FineTuningMethod:
    """Return a shop whose builder has other parts."""
    return with_method("further", exchanged)


def with_method(name: str, method: Any) -> FineTuningMethod:
    """Return a shop of another class, which has another method or attribute."""
    overridden: FineTuningMethod = type("Overridden", (Shop,), {name: method})()
    return overridden


class Both(Shop):
    """Says twice how many trials there are."""

    fine_tune_params = FineTuneParams(trials=3)
    further: ClassVar[dict[str, Callable[[Shop], Any]]] = {"initial_max_evals": lambda _: 7}


class OtherRetriever(TextQueryRetriever):
    """Reads queries in another way."""


class OwnNormalizer(DatasetFieldsNormalizer):
    """Renames in a way of its own."""


class OwnClients(TritonClientFactory):
    """Asks a server of its own."""


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        (
            lambda: with_part(data_loader=lambda _: PgsqlTextLoader("postgresql://h/x", table_name="other")),
            r"data_loader is not what get_data_loader\(\) returns",
        ),
        (
            lambda: with_part(query_retriever=lambda _: OtherRetriever()),
            r"query_retriever is not what get_query_retriever\(\) returns",
        ),
        (
            lambda: with_part(experiments_manager=lambda shop: Shop().manager),
            r"experiments_manager is not what get_manager\(\) returns",
        ),
        (
            lambda: with_method("get_items_preprocessor", lambda self: ItemPreprocessor(separator="; ")),
            r"preprocessor is not what get_items_preprocessor\(\) returns",
        ),
        (
            lambda: with_method("get_items_splitter", lambda self: DummySentenceSplitter()),
            r"item_splitter is not what get_items_splitter\(\) returns .*NoSplitter, .*DummySentenceSplitter",
        ),
        (
            lambda: with_part(
                clickstream_sessions_converter=lambda _: ClickstreamSessionConverter(ItemMeta, OtherRetriever())
            ),
            "converter's query_retriever is .*OtherRetriever; the builder's reads the queries",
        ),
        (
            lambda: with_part(dataset_fields_normalizer=lambda _: OwnNormalizer("item", "item_id")),
            "dataset_fields_normalizer is .*OwnNormalizer, which nothing would call",
        ),
        (
            lambda: with_part(accumulators=lambda _: [MetricsAccumulator("train_loss")]),
            "accumulators are not those of its experiments_manager",
        ),
        (lambda: with_part(ranking_data=lambda _: object()), "ranking_data is not what .*prepare_data returned"),
        (
            lambda: with_method("prepared", lambda self, clickstream: Shop.prepared(self, [*clickstream])),
            "other sessions than it is given. Leave sessions out in the converter",
        ),
        (
            lambda: with_part(clickstream_sessions_splitter=lambda _: TrainTestSplitter(test_size_ratio=0.4)),
            "prepare_data is given other parts than the builder",
        ),
        (
            lambda: Both(),
            "initial_max_evals is 7, trials of fine_tune_params 3",
        ),
        (
            lambda: with_method(
                "get_inference_client_factory", lambda self: OwnClients("127.0.0.1:8001", plugin_name="Shop")
            ),
            r"returns .*OwnClients\. Searches open the published model themselves",
        ),
        (
            lambda: with_method(
                "get_inference_client_factory", lambda self: TritonClientFactory("127.0.0.1:8001", plugin_name="Books")
            ),
            "inference client is that of 'Books'",
        ),
        (
            lambda: with_method(
                "get_inference_client_factory",
                lambda self: TritonClientFactory("127.0.0.1:8001", plugin_name="Shop", repository=Path("/elsewhere")),
            ),
            "reads /elsewhere. Set ESTUDIO_TRITON_REPOSITORY",
        ),
    ],
)  # fmt: skip
def test_what_nothing_would_heed_is_refused(plugin: Callable[[], FineTuningMethod], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"Plugin 'Shop': .*{message}"):
        adapt(plugin())


def test_a_manager_of_another_plugin_is_refused() -> None:
    class Renamed(Shop):
        meta = PluginMeta(name="Renamed")

        def __init__(self) -> None:
            super().__init__()
            self.manager = Shop().manager

    with pytest.raises(ConfigurationError, match="experiments_manager is that of 'Shop'"):
        adapt(Renamed())


def test_a_client_of_another_server_is_refused_where_triton_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = with_method(
        "get_inference_client_factory", lambda self: TritonClientFactory("10.0.0.9:1", plugin_name="Shop")
    )
    adapt(elsewhere)
    monkeypatch.setenv("ESTUDIO_INFERENCE", "triton")
    get_settings.cache_clear()
    try:
        with pytest.raises(ConfigurationError, match=r"asks 10\.0\.0\.9:1, searches ask 127\.0\.0\.1:8001"):
            adapt(elsewhere)
    finally:
        monkeypatch.undo()
        get_settings.cache_clear()


def test_data_prepared_without_our_function_is_no_reason_to_skip() -> None:
    from estudio_core.preprocessing.prepare_data import prepare_data as other

    def prepared(self: Any, clickstream: Any) -> Any:
        retriever = self.get_query_retriever()
        return other(clickstream, self.converter, self.splitter, retriever, self.data_loader, self.items_set_manager)

    with pytest.raises(ConfigurationError, match="in another way than by estudio_core's prepare_data"):
        adapt(with_method("prepared", prepared))


def test_initial_max_evals_is_the_number_of_trials_where_nobody_says_otherwise() -> None:
    assert adapt(Shop()).fine_tune.filled_in == {}
    plugin = adapt(with_part(initial_max_evals=lambda _: 5))
    assert resolve({}, plugin=plugin.fine_tune).trials == 5
    assert resolve({"trials": 1}, plugin=plugin.fine_tune).trials == 1
    assert resolve({"preset": "thorough"}, plugin=plugin.fine_tune).trials == 12
    with pytest.raises(ConfigurationError, match="trials"):
        adapt(with_part(initial_max_evals=lambda _: 0))


def test_the_author_gets_the_object_and_the_core_the_value_and_validation_says_what_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from estudio_core import PluginMeta, MetricsAccumulator\n"
        "from tests.plugin.test_tutorial import Shop\n"
        "class Mine(Shop):\n"
        "    meta = PluginMeta(name='Mine')\n"
        "class Wrong(Shop):\n"
        "    meta = PluginMeta(name='Wrong')\n"
        "    def parts(self, clickstream):\n"
        "        return super().parts(clickstream) | {'accumulators': [MetricsAccumulator('other')]}\n"
    )
    manager = PluginManager(tmp_path, used=[])
    assert manager.plugin_names == ["Mine", "Wrong"]
    mine = manager.get_plugin("Mine")
    assert isinstance(mine, FineTuningMethod)
    assert manager.open_plugin("Mine") is manager.open_plugin("Mine")
    assert manager.open_plugin("Mine").loader is mine.get_data_loader()
    [check] = validate_plugin(manager, "Wrong")
    assert not check.passed
    assert "accumulators" in check.detail


def test_the_tutorials_settings_take_what_is_a_plugins_to_set_and_none_leaves_it_to_others() -> None:
    settings = FineTuningSettings(loss_func=None, max_negatives=None, dropout=None, batch_size=None, max_steps=None)
    assert settings.given == {"max_steps": None}
    assert FineTuningSettings(loss_func=None, max_negatives="all").given == {"max_negatives": None}
    for name, value in (("threads", 2), ("devices", 2), ("monitor", "test_loss"), ("metric", "dot")):
        with pytest.raises(ConfigurationError, match=f"{name} is not set here"):
            FineTuningSettings(**{"loss_func": None, name: value})
