"""`create_text_plugin`: a whole search plugin from one typed call."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, SecretStr, ValidationError

from estudio_core.errors import ConfigurationError, suggest
from estudio_core.plugin.contract import (
    DagSettings,
    FineTuneParams,
    FineTuningBuilder,
    FineTuningMethod,
    GateSettings,
    PluginMeta,
)
from estudio_core.strict_model import StrictModel
from estudio_core.vectordb.index_info import HnswParameters, MetricAggregationType, MetricType, SearchIndexInfo

if TYPE_CHECKING:
    from estudio_core.clickstream.converter import ClickstreamSessionConverter
    from estudio_core.clickstream.query_retriever import QueryRetriever
    from estudio_core.clickstream.sessions import SessionWithEvents
    from estudio_core.clickstream.splitter import TrainTestSplitter
    from estudio_core.evaluation.judgments import Judgments
    from estudio_core.experiments.fine_tuning_settings import FineTuningSettings
    from estudio_core.experiments.manager import ExperimentsManager
    from estudio_core.experiments.metrics_accumulator import MetricsAccumulator
    from estudio_core.improvement.vectors_adjuster import VectorsAdjuster
    from estudio_core.inference.clients import TritonClientFactory
    from estudio_core.preprocessing.augmentations import ItemsSetAugmentationApplier
    from estudio_core.preprocessing.fields_normalizer import DatasetFieldsNormalizer
    from estudio_core.preprocessing.items_manager import ItemSetManager
    from estudio_core.preprocessing.preprocessor import ItemsDatasetDictPreprocessor
    from estudio_core.preprocessing.splitters import ItemSplitter
    from estudio_core.sources.data_loader import DataLoader
    from estudio_core.vectordb.optimization import Optimization


class PostgresItems(StrictModel):
    """Where the items are: a PostgreSQL table.

    Give `connection_id` (an Airflow connection) or `url`; with neither, Estudio's own database is read.
    """

    table: str
    text: str | tuple[str, ...]
    """Column, or columns, whose text is searched; several are joined by `separator`."""
    id_column: str = "id"
    schema_name: str | None = None
    payload: tuple[str, ...] = ()
    """Columns kept beside the vectors, for filters, sorting and display."""
    updated_at: str | None = None
    """Column with the time of the last change; lets `sync` read changed rows only."""
    connection_id: str | None = None
    url: SecretStr | None = None
    separator: str = ". "


class TextModel(StrictModel):
    """The embedding model to start from."""

    name: str
    """Folder, installed model package, or name on the model hub."""
    family: Literal["e5", "bert"] = "bert"
    """e5 adds "query: " and "passage: " to texts; bert adds nothing. Both pool by masked mean."""
    max_tokens: int = Field(default=128, ge=8, le=8192)
    """Longest part of an item, special tokens and prefix included; longer texts become several parts."""


class TextTraining(StrictModel):
    """How the model learns from clicks. What is None takes the measured default."""

    num_epochs: int | None = Field(default=None, ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    num_fixed_layers: int | None = Field(default=None, ge=0)
    margin: float | None = Field(default=None, ge=0)
    loss: Any = None
    """A loss of `lightning_modules.losses`; CosineProbMarginRankingLoss by default."""
    search_space: Mapping[str, Sequence[Any]] = Field(default_factory=dict)
    """Values to try, by parameter name, when a run asks for more than one trial."""
    test_size_ratio: float = Field(default=0.2, gt=0, lt=1)
    """Share of queries kept out of training: for early stopping and for the gate."""
    holdout_share: float = Field(default=0.5, ge=0, le=1)
    """Share of `test_size_ratio` that only the gate reads."""


class TextIndex(StrictModel):
    """How vectors are stored and compared. The dimension is the model's."""

    metric: MetricType = MetricType.COSINE
    aggregation: MetricAggregationType = MetricAggregationType.MIN
    hnsw: HnswParameters = HnswParameters()


class TextPlugin(FineTuningMethod):
    """The plugin that `create_text_plugin` returns. Parts are built on first use."""

    def __init__(
        self,
        meta: PluginMeta,
        items: PostgresItems,
        model: TextModel,
        training: TextTraining,
        index: TextIndex,
        *,
        components: Mapping[str, Any],
        dag: DagSettings,
        gate: GateSettings,
        fine_tune: FineTuneParams,
    ) -> None:
        self.meta = meta  # type: ignore[misc]  # a class attribute of hand-written plugins
        self.dag_settings = dag  # type: ignore[misc]
        self.gate_settings = gate  # type: ignore[misc]
        self.fine_tune_params = fine_tune  # type: ignore[misc]
        self.items = items
        self.model = model
        self.training = training
        self.index = index
        self._components = dict(components)

    # --- parts -------------------------------------------------------------------------------------

    @cached_property
    def data_loader(self) -> DataLoader:
        """Loader of the items table."""
        if "data_loader" in self._components:
            return self._components["data_loader"]  # type: ignore[no-any-return]
        from estudio_core.sources.pgsql_multi_text_column_loader import PgsqlMultiTextColumnLoader
        from estudio_core.sources.pgsql_text_loader import PgsqlTextLoader

        source: dict[str, Any] = {
            "connection_string": self.items.url.get_secret_value() if self.items.url else None,
            "connection_id": self.items.connection_id,
            "table_name": self.items.table,
            "id_column": self.items.id_column,
            "schema": self.items.schema_name,
            "payload_columns": self.items.payload,
            "updated_at_column": self.items.updated_at,
        }
        if "query_generator" in self._components:
            source["query_generator"] = self._components["query_generator"]
        if isinstance(self.items.text, str):
            return PgsqlTextLoader(text_column=self.items.text, **source)
        return PgsqlMultiTextColumnLoader(text_columns=list(self.items.text), **source)

    @cached_property
    def retriever(self) -> QueryRetriever:
        """What reads the query text of a session."""
        from estudio_core.clickstream.text_query_retriever import TextQueryRetriever

        return self._components.get("query_retriever") or TextQueryRetriever()

    @cached_property
    def sessions_converter(self) -> ClickstreamSessionConverter:
        """Sessions to training input."""
        from estudio_core.clickstream.converter import ClickstreamSessionConverter
        from estudio_core.sources.item_meta import PgsqlFileMeta

        return self._components.get("sessions_converter") or ClickstreamSessionConverter(item_type=PgsqlFileMeta)

    @cached_property
    def splitter(self) -> TrainTestSplitter:
        """Division of the queries into train, dev and holdout."""
        from estudio_core.clickstream.splitter import TrainTestSplitter

        return self._components.get("splitter") or TrainTestSplitter(
            test_size_ratio=self.training.test_size_ratio, holdout_share=self.training.holdout_share
        )

    @cached_property
    def normalizer(self) -> DatasetFieldsNormalizer:
        """Column names of loaded items."""
        from estudio_core.preprocessing.fields_normalizer import DatasetFieldsNormalizer

        return DatasetFieldsNormalizer("item", "item_id")

    @cached_property
    def items_set_manager(self) -> ItemSetManager:
        """Item texts, split into parts that fit the model; training and index share it."""
        from estudio_core.preprocessing.items_manager import DictItemSetManager, TextItemSetManager
        from estudio_core.preprocessing.splitters import DummySentenceSplitter, ItemsSetSplitter, TokenGroupTextSplitter

        item_splitter: ItemSplitter = self._components.get("item_splitter") or TokenGroupTextSplitter(
            tokenizer=self._model_folder,
            blocks_splitter=DummySentenceSplitter(),
            max_tokens=self.model.max_tokens,
            prefix="passage: " if self.model.family == "e5" else "",
        )
        augmenter: ItemsSetAugmentationApplier | None = self._components.get("augmenter")
        options: dict[str, Any] = {"items_set_splitter": ItemsSetSplitter(item_splitter), "augmenter": augmenter}
        if isinstance(self.items.text, str):
            return TextItemSetManager(self.normalizer, **options)
        return DictItemSetManager(self.normalizer, separator=self.items.separator, field_names=False, **options)

    @cached_property
    def accumulators(self) -> list[MetricsAccumulator]:
        """Training metrics that reach MLflow."""
        from estudio_core.experiments.metrics_accumulator import MetricsAccumulator

        names = (
            "loss",
            "not_irrelevant_dist_shift",
            "irrelevant_dist_shift",
            "pairwise_accuracy",
            "ndcg@10",
            "pool_ndcg@10",
            "quality",
        )
        train = [MetricsAccumulator(f"train_{name}", calc_mean=True, calc_sliding=True) for name in names[:3]]
        return [*train, *(MetricsAccumulator(f"test_{name}") for name in names)]

    @cached_property
    def manager(self) -> ExperimentsManager:
        """MLflow runs and registered versions."""
        from estudio_core.context import context
        from estudio_core.experiments.manager import ExperimentsManager

        return ExperimentsManager.from_wrapper(
            wrapper=context.mlflow_client,
            main_metric="test_quality",
            plugin_name=self.meta.name,
            accumulators=self.accumulators,
        )

    @cached_property
    def settings(self) -> FineTuningSettings:
        """Loss, epochs and batch size of training."""
        from estudio_core.experiments.fine_tuning_settings import FineTuningSettings
        from lightning_modules.losses import CosineProbMarginRankingLoss

        given = {
            name: value for name in ("num_epochs", "batch_size") if (value := getattr(self.training, name)) is not None
        }
        return FineTuningSettings(loss_func=self.training.loss or CosineProbMarginRankingLoss(), **given)

    @cached_property
    def initial_params(self) -> dict[str, list[Any]]:
        """Values to try, by parameter name."""
        from estudio_core.experiments.initial_params.text import INITIAL_PARAMS

        space = INITIAL_PARAMS
        space.update({name: list(values) for name, values in self.training.search_space.items()})
        for name in ("learning_rate", "num_fixed_layers", "margin"):
            value = getattr(self.training, name)
            if value is not None:
                space[name] = [value]
        return space

    def _model_folder(self) -> str:
        from estudio_core.context import context

        return str(context.model_downloader.resolve(self.model.name))

    # --- the ten methods ---------------------------------------------------------------------------

    def upload_initial_model(self) -> None:
        """Register the base model."""
        from estudio_core.models.bert import TextToTextBertModel
        from estudio_core.models.e5 import TextToTextE5Model

        kind = TextToTextE5Model if self.model.family == "e5" else TextToTextBertModel
        self.manager.upload_initial_model(kind(self._model_folder(), max_length=self.model.max_tokens))

    def get_query_retriever(self) -> QueryRetriever:
        """Return what turns a session's query into text."""
        return self.retriever

    def get_items_preprocessor(self) -> ItemsDatasetDictPreprocessor:
        """Return what turns a loaded row into text."""
        return self.items_set_manager.preprocessor

    def get_data_loader(self) -> DataLoader:
        """Return the loader of the items table."""
        return self.data_loader

    def get_manager(self) -> ExperimentsManager:
        """Return the manager of MLflow runs and versions."""
        return self.manager

    def get_inference_client_factory(self) -> TritonClientFactory:
        """Return what opens a client for a served version."""
        from estudio_core.inference.clients import TextToTextBertTritonClientFactory, TextToTextE5TritonClientFactory
        from estudio_core.settings import settings

        kind = TextToTextE5TritonClientFactory if self.model.family == "e5" else TextToTextBertTritonClientFactory
        return kind(
            f"{settings.INFERENCE_HOST}:{settings.INFERENCE_GRPC_PORT}",
            plugin_name=self.meta.name,
            preprocessor=self.items_set_manager.preprocessor,
            model_name=self.model.name,
        )

    def get_fine_tuning_builder(self, clickstream: list[SessionWithEvents]) -> FineTuningBuilder:
        """Turn sessions into training data, with everything training needs."""
        from estudio_core.preprocessing.prepare_data import prepare_data

        return FineTuningBuilder(
            data_loader=self.data_loader,
            query_retriever=self.retriever,
            clickstream_sessions_converter=self.sessions_converter,
            clickstream_sessions_splitter=self.splitter,
            dataset_fields_normalizer=self.normalizer,
            items_set_manager=self.items_set_manager,
            accumulators=self.accumulators,
            experiments_manager=self.manager,
            fine_tuning_settings=self.settings,
            initial_params=self.initial_params,
            ranking_data=prepare_data(
                clickstream,
                self.sessions_converter,
                self.splitter,
                self.retriever,
                self.data_loader,
                self.items_set_manager,
            ),
            initial_max_evals=self.fine_tune_params.trials,
        )

    @cached_property
    def _index_info(self) -> SearchIndexInfo:
        return SearchIndexInfo(
            dimensions=model_dimensions(self._model_folder()),
            metric_type=self.index.metric,
            metric_aggregation_type=self.index.aggregation,
            hnsw=self.index.hnsw,
        )

    def get_search_index_info(self) -> SearchIndexInfo:
        """Return how vectors are stored and compared; the dimension is read from the model."""
        return self._index_info

    def get_vectors_adjuster(self) -> VectorsAdjuster:
        """Return what moves vectors between two trainings."""
        from estudio_core.improvement.torch_based_adjuster import TorchBasedAdjuster

        return self._components.get("vectors_adjuster") or TorchBasedAdjuster(
            search_index_info=self.get_search_index_info()
        )

    def get_vectordb_optimizations(self) -> list[Optimization]:
        """Return what is applied once to each new collection."""
        return list(self._components.get("optimizations", ()))

    def get_judgments(self) -> Judgments | None:
        """Return the human judgments the plugin was given, if any."""
        load: Callable[[], Judgments] | None = self._components.get("judgments")
        return load() if load is not None else None


def model_dimensions(model: str) -> int:
    """Return the length of a transformer's vectors, from its `config.json` (or the model hub's).

    Raises:
        ConfigurationError: the configuration cannot be read or names no hidden size.
    """
    file = Path(model) / "config.json"
    if file.is_file():
        config = json.loads(file.read_text(encoding="utf-8"))
    else:
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(model).to_dict()
        except OSError as error:
            raise ConfigurationError(f"The model {model!r} cannot be read: {error}") from error
    for name in ("hidden_size", "dim", "d_model"):
        if name in config:
            return int(config[name])
    raise ConfigurationError(f"{model!r}: config.json names no hidden size. Use a transformer encoder.")


COMPONENTS = (
    "augmenter",
    "data_loader",
    "item_splitter",
    "judgments",
    "optimizations",
    "query_generator",
    "query_retriever",
    "sessions_converter",
    "splitter",
    "vectors_adjuster",
)
"""Parts of a text plugin that may be replaced: each is passed on as it is."""


def create_text_plugin(
    name: str,
    *,
    items: PostgresItems,
    model: TextModel | str,
    training: TextTraining | None = None,
    index: TextIndex | None = None,
    description: str | None = None,
    version: str = "1.0.0",
    dag: DagSettings | None = None,
    gate: GateSettings | None = None,
    fine_tune: FineTuneParams | None = None,
    **components: Any,
) -> TextPlugin:
    """Return a text search plugin. Nothing is read or opened before the plugin is used.

    Args:
        name: Letters, digits and single underscores; part of DAG ids, tables and model names.
        items: Where the items are.
        model: The embedding model to start from; a string is its name.
        training: How the model learns from clicks.
        index: How vectors are stored and compared.
        description: One line about the plugin.
        version: Version of the plugin.
        dag: Schedule, shards, retries and time limits of the DAGs.
        gate: When a candidate may replace the champion.
        fine_tune: Defaults of the `fine_tune` form.
        **components: Parts to use in place of the built-in ones, by name (see `COMPONENTS`).
            `judgments` is a function without arguments that returns `Judgments`.

    Raises:
        ConfigurationError: an argument is unknown or has an illegal value.

    >>> plugin = create_text_plugin("shop", items=PostgresItems(table="products", text="title"), model="my-model")
    >>> plugin.meta.name
    'shop'
    """
    for given in components:
        if given not in COMPONENTS:
            raise ConfigurationError(
                f"create_text_plugin got an unknown argument {given!r}. "
                + suggest(given, [*COMPONENTS, "items", "model", "training", "index", "dag", "gate", "fine_tune"])
            )
    try:
        meta = PluginMeta(name=name, version=version, description=description)
        text_model = TextModel(name=model) if isinstance(model, str) else model
    except ValidationError as error:
        raise ConfigurationError(f"create_text_plugin: {error}") from error
    return TextPlugin(
        meta,
        items,
        text_model,
        training or TextTraining(),
        index or TextIndex(),
        components=components,
        dag=dag or DagSettings(),
        gate=gate or GateSettings(),
        fine_tune=fine_tune or FineTuneParams(),
    )
