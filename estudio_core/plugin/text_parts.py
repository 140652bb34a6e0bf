"""The built-in parts of a text plugin, each made of the arguments of `create_text_plugin`."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from estudio_core.errors import ConfigurationError
from estudio_core.models.folder import FolderSays, read_folder
from estudio_core.plugin.specs import PostgresItems, TextIndex, TextModel, TextTraining
from estudio_core.vectordb.index_info import IndexedField, SearchIndexInfo
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
    if item_splitter is not None:
        return ItemSetManager(preprocessor, ItemsSetSplitter(item_splitter), augmenter)
    says = _says(_folder(model))
    item_splitter = TokenGroupTextSplitter(
        tokenizer=lambda: _folder(model),
        blocks_splitter=DummySentenceSplitter(),
        max_tokens=_max_tokens(model, says),
        prefix=says.used_as(model.family, model.query_prefix, model.item_prefix).item_prefix,
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

    folder = _folder(model)
    return EmbeddingModel(
        folder,
        max_length=_max_tokens(model, _says(folder)),
        family=model.family,
        query_prefix=model.query_prefix,
        item_prefix=model.item_prefix,
    )


def index_info(model: TextModel, index: TextIndex) -> SearchIndexInfo:
    """Return how vectors are stored and compared; their length is what the model's folder says.

    Raises:
        ConfigurationError: it names no hidden size, or something else that cannot be heeded.
    """
    dimensions = _says(_folder(model)).dimensions
    if dimensions is None:
        raise ConfigurationError(f"{model.name!r}: config.json names no hidden size. Use a transformer encoder.")
    return SearchIndexInfo(
        dimensions=dimensions,
        metric_type=index.metric,
        metric_aggregation_type=index.aggregation,
        hnsw=index.hnsw,
        storage=index.storage,
        text_config=index.text_config,
        lexical=index.lexical,
        fields=tuple(IndexedField(name=name, kind=kind) for name, kind in index.fields.items()),
    )


def _says(folder: str | Path) -> FolderSays:
    """Return what a model says of its use, read once: the hub is asked for its files each time otherwise."""
    files = sorted(Path(folder).rglob("*.json")) if Path(folder).is_dir() else []
    return _read(folder, tuple((file, file.stat().st_mtime_ns) for file in files))


@lru_cache(maxsize=32)
def _read(folder: str | Path, files: tuple[tuple[Path, int], ...]) -> FolderSays:
    return read_folder(folder)


def _max_tokens(model: TextModel, says: FolderSays) -> int:
    """Return the longest input: what the plugin says, else its default, or less where the model takes less."""
    if "max_tokens" in model.model_fields_set or says.max_length is None:
        return model.max_tokens
    return min(model.max_tokens, says.max_length)


def _folder(model: TextModel) -> str:
    from estudio_core.experiments.shared import model_downloader

    return str(model_downloader().resolve(model.name))
