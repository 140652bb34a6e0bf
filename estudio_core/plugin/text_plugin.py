"""The plugin that `create_text_plugin` returns: the ten methods over typed arguments."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from estudio_core.errors import ConfigurationError
from estudio_core.evaluation.gate_settings import GateSettings
from estudio_core.export.settings import ExportSettings
from estudio_core.models.families import family_named
from estudio_core.plugin.contract import FineTuningBuilder, FineTuningMethod, PluginMeta
from estudio_core.plugin.dag_settings import DagSettings
from estudio_core.plugin.run_params import FineTuneParams
from estudio_core.plugin.specs import PostgresItems, TextIndex, TextModel, TextTraining
from estudio_core.plugin.tutorial_training import FineTuningSettings
from estudio_core.vectordb.index_info import SearchIndexInfo

if TYPE_CHECKING:
    from estudio_core.clickstream.converter import ClickstreamSessionConverter
    from estudio_core.clickstream.query_retriever import QueryRetriever
    from estudio_core.clickstream.sessions import SessionWithEvents
    from estudio_core.clickstream.splitter import TrainTestSplitter
    from estudio_core.evaluation.judgments import Judgments
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
        export: ExportSettings,
        fine_tune: FineTuneParams,
    ) -> None:
        self.meta = meta  # type: ignore[misc]  # a class attribute of hand-written plugins
        self.dag_settings = dag  # type: ignore[misc]
        self.gate_settings = gate  # type: ignore[misc]
        self.export_settings = export  # type: ignore[misc]
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
            "change_queue": self.items.change_queue,
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
            prefix=family_named(self.model.family).item_prefix,
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
        from estudio_core.experiments.manager import ExperimentsManager
        from estudio_core.experiments.shared import mlflow_client

        return ExperimentsManager.from_wrapper(
            wrapper=mlflow_client(),
            main_metric="test_quality",
            plugin_name=self.meta.name,
            accumulators=self.accumulators,
        )

    @property
    def training_values(self) -> dict[str, Any]:
        """Parameters of training that the plugin sets."""
        return self.training.given

    def make_loss(self) -> Any:
        """Return the loss that trials train with."""
        from lightning_modules.losses import CosineProbMarginRankingLoss

        loss = self.training.loss or CosineProbMarginRankingLoss
        return loss() if inspect.isroutine(loss) or inspect.isclass(loss) else loss

    @cached_property
    def search_space(self) -> dict[str, Any]:
        """Values to try, by parameter name: those of text models, but of what the plugin itself sets."""
        from estudio_core.experiments.initial_params.text import INITIAL_PARAMS

        usual = {name: values for name, values in INITIAL_PARAMS.items() if name not in self.training_values}
        return usual | dict(self.training.search_space)

    def _model_folder(self) -> str:
        from estudio_core.experiments.shared import model_downloader

        return str(model_downloader().resolve(self.model.name))

    # --- the ten methods ---------------------------------------------------------------------------

    def upload_initial_model(self) -> None:
        """Register the base model."""
        from estudio_core.models.embedding_model import EmbeddingModel

        model = EmbeddingModel(self._model_folder(), max_length=self.model.max_tokens, family=self.model.family)
        self.manager.upload_initial_model(model)

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
        from estudio_core.inference.clients import TritonClientFactory
        from estudio_core.settings import settings

        return TritonClientFactory(
            f"{settings.INFERENCE_HOST}:{settings.INFERENCE_GRPC_PORT}",
            plugin_name=self.meta.name,
            preprocessor=self.items_set_manager.preprocessor,
            model_name=self.model.name,
            family=self.model.family,
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
            fine_tuning_settings=FineTuningSettings(loss_func=self.make_loss(), **self.training_values),
            initial_params=self.search_space,
            ranking_data=prepare_data(
                clickstream,
                self.sessions_converter,
                self.splitter,
                self.retriever,
                self.data_loader,
                self.items_set_manager,
            ),
            initial_max_evals=self.fine_tune_params.filled_in.get("trials", 1),
        )

    @cached_property
    def _index_info(self) -> SearchIndexInfo:
        return SearchIndexInfo(
            dimensions=model_dimensions(self._model_folder()),
            metric_type=self.index.metric,
            metric_aggregation_type=self.index.aggregation,
            hnsw=self.index.hnsw,
            text_config=self.index.text_config,
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
