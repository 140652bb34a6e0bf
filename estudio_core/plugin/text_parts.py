"""The built-in parts of a text plugin, each made of the arguments of `create_text_plugin`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from estudio_core.errors import ConfigurationError
from estudio_core.models.families import family_named
from estudio_core.plugin.specs import PostgresItems, TextIndex, TextModel, TextTraining
from estudio_core.vectordb.index_info import SearchIndexInfo
from lightning_modules.config import TrainingConfig, about

if TYPE_CHECKING:
    from torch import nn

    from estudio_core.clickstream.converter import ClickstreamSessionConverter
    from estudio_core.clickstream.query_retriever import QueryRetriever
    from estudio_core.clickstream.splitter import TrainTestSplitter
    from estudio_core.experiments.manager import ExperimentsManager
    from estudio_core.improvement.vectors_adjuster import VectorsAdjuster
    from estudio_core.models.embedding_model import EmbeddingModel
    from estudio_core.preprocessing.augmentations import ItemsSetAugmentationApplier
    from estudio_core.preprocessing.items_manager import ItemSetManager
    from estudio_core.preprocessing.preprocessor import ItemPreprocessor
    from estudio_core.preprocessing.splitters import ItemSplitter
    from estudio_core.sources.data_loader import DataLoader
    from estudio_core.sources.generator_factory import GeneratorArgument

_OF_LOSS = tuple(name for name in TrainingConfig.model_fields if about(name)["of_loss"])
"""Parameters that are values of the loss."""
_TRAIN_METRICS = ("loss", "not_irrelevant_dist_shift", "irrelevant_dist_shift")
_TEST_METRICS = (*_TRAIN_METRICS, "pairwise_accuracy", "ndcg@10", "pool_ndcg@10", "quality")


def postgres_loader(items: PostgresItems, query_generator: GeneratorArgument | None) -> DataLoader:
    """Return the loader of a table: of texts for one column, of dicts for several."""
    from estudio_core.sources.pgsql_multi_text_column_loader import PgsqlMultiTextColumnLoader
    from estudio_core.sources.pgsql_text_loader import PgsqlTextLoader

    source: dict[str, Any] = {
        "connection_string": items.url.get_secret_value() if items.url else None,
        "connection_id": items.connection_id,
        "table_name": items.table,
        "id_column": items.id_column,
        "schema": items.schema_name,
        "payload_columns": items.payload,
        "updated_at_column": items.updated_at,
        "change_queue": items.change_queue,
    }
    if query_generator is not None:
        source["query_generator"] = query_generator
    if isinstance(items.text, str):
        return PgsqlTextLoader(text_column=items.text, **source)
    return PgsqlMultiTextColumnLoader(text_columns=items.text, **source)


def item_texts(
    items: PostgresItems | DataLoader,
    model: TextModel,
    preprocessor: ItemPreprocessor | None,
    item_splitter: ItemSplitter | None,
    augmenter: ItemsSetAugmentationApplier | None,
) -> ItemSetManager:
    """Return how items become texts, and parts that fit the model."""
    from estudio_core.preprocessing.items_manager import ItemSetManager
    from estudio_core.preprocessing.preprocessor import ItemPreprocessor
    from estudio_core.preprocessing.splitters import DummySentenceSplitter, ItemsSetSplitter, TokenGroupTextSplitter

    table = items if isinstance(items, PostgresItems) else None
    preprocessor = preprocessor or ItemPreprocessor(
        fields=None if table is None else (table.text,) if isinstance(table.text, str) else table.text,
        separator=PostgresItems.model_fields["separator"].default if table is None else table.separator,
        field_names=False,
    )
    item_splitter = item_splitter or TokenGroupTextSplitter(
        tokenizer=lambda: _folder(model),
        blocks_splitter=DummySentenceSplitter(),
        max_tokens=model.max_tokens,
        prefix=family_named(model.family).item_prefix,
    )
    return ItemSetManager(preprocessor, ItemsSetSplitter(item_splitter), augmenter)


def query_retriever() -> QueryRetriever:
    """Return what reads queries that are a text."""
    from estudio_core.clickstream.text_query_retriever import TextQueryRetriever

    return TextQueryRetriever()


def converter(loader: DataLoader) -> ClickstreamSessionConverter:
    """Return what makes training input of sessions, with the metas that the loader wants."""
    from estudio_core.clickstream.converter import ClickstreamSessionConverter

    return ClickstreamSessionConverter(item_type=loader.item_meta_cls)


def splitter(training: TextTraining) -> TrainTestSplitter:
    """Return what divides the queries."""
    from estudio_core.clickstream.splitter import TrainTestSplitter

    return TrainTestSplitter(test_size_ratio=training.test_size_ratio, holdout_share=training.holdout_share)


def loss(training: TextTraining) -> nn.Module:
    """Return the loss that the plugin gives, or makes.

    Raises:
        ConfigurationError: it gives neither a module nor what returns one.
    """
    from torch import nn

    from lightning_modules.losses import default_loss

    given: Any = training.loss or default_loss({*training.given, *training.search_space})
    made = given() if callable(given) and not isinstance(given, nn.Module) else given
    if not isinstance(made, nn.Module):
        raise ConfigurationError(
            f"TextTraining(loss=...) gives {type(made).__name__}: give a torch.nn.Module over similarities, or a "
            "function without arguments that returns one."
        )
    return made


def search_space(training: TextTraining) -> dict[str, Any]:
    """Return the values to try: those of text models, but of what the plugin itself sets.

    The values of a loss of the plugin's own are its own affair, until the plugin names some to search.
    """
    from estudio_core.experiments.initial_params.text import INITIAL_PARAMS

    own = {*training.given, *(_OF_LOSS if training.loss is not None else ())}
    return {**{name: values for name, values in INITIAL_PARAMS.items() if name not in own}, **training.search_space}


def experiments(plugin_name: str) -> ExperimentsManager:
    """Return the plugin's runs and versions in MLflow, with the running means of training metrics."""
    from estudio_core.experiments.manager import ExperimentsManager
    from estudio_core.experiments.metrics_accumulator import MetricsAccumulator
    from estudio_core.experiments.shared import mlflow_client

    train = [MetricsAccumulator(f"train_{name}", calc_mean=True, calc_sliding=True) for name in _TRAIN_METRICS]
    return ExperimentsManager.from_wrapper(
        wrapper=mlflow_client(),
        main_metric="test_quality",
        plugin_name=plugin_name,
        accumulators=[*train, *(MetricsAccumulator(f"test_{name}") for name in _TEST_METRICS)],
    )


def vectors_adjuster(index: SearchIndexInfo) -> VectorsAdjuster:
    """Return what moves vectors by gradient steps."""
    from estudio_core.improvement.torch_based_adjuster import TorchBasedAdjuster

    return TorchBasedAdjuster(search_index_info=index)


def base_model(model: TextModel) -> EmbeddingModel:
    """Load the model to start from."""
    from estudio_core.models.embedding_model import EmbeddingModel

    return EmbeddingModel(_folder(model), max_length=model.max_tokens, family=model.family)


def index_info(model: TextModel, index: TextIndex) -> SearchIndexInfo:
    """Return how vectors are stored and compared; their length is the hidden size that the model's `config.json` names.

    Raises:
        ConfigurationError: the configuration cannot be read or names no hidden size.
    """
    config = _config(_folder(model))
    dimensions = next((int(config[name]) for name in ("hidden_size", "dim", "d_model") if name in config), None)
    if dimensions is None:
        raise ConfigurationError(f"{model.name!r}: config.json names no hidden size. Use a transformer encoder.")
    return SearchIndexInfo(
        dimensions=dimensions,
        metric_type=index.metric,
        metric_aggregation_type=index.aggregation,
        hnsw=index.hnsw,
        text_config=index.text_config,
        lexical=index.lexical,
    )


def _config(model: str) -> dict[str, Any]:
    file = Path(model) / "config.json"
    if file.is_file():
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return config
    from transformers import AutoConfig

    try:
        return dict(AutoConfig.from_pretrained(model).to_dict())
    except OSError as error:
        raise ConfigurationError(f"The model {model!r} cannot be read: {error}") from error


def _folder(model: TextModel) -> str:
    from estudio_core.experiments.shared import model_downloader

    return str(model_downloader().resolve(model.name))
