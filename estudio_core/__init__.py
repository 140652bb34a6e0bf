"""Semantic search that learns from its users.

Names are imported when they are first used, so that `import estudio_core` costs nothing and
parsing a DAG file loads no machine-learning library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from estudio_core.clickstream.converter import ClickstreamSessionConverter as ClickstreamSessionConverter
    from estudio_core.clickstream.query_retriever import QueryRetriever as QueryRetriever
    from estudio_core.clickstream.ranking_data import FineTuningInput as FineTuningInput
    from estudio_core.clickstream.ranking_data import ItemsSet as ItemsSet
    from estudio_core.clickstream.ranking_data import RankingData as RankingData
    from estudio_core.clickstream.sessions import SessionWithEvents as SessionWithEvents
    from estudio_core.clickstream.splitter import TrainTestSplitter as TrainTestSplitter
    from estudio_core.clickstream.store import ClickstreamStore as ClickstreamStore
    from estudio_core.clickstream.text_query_retriever import TextQueryRetriever as TextQueryRetriever
    from estudio_core.context import context as context
    from estudio_core.errors import EstudioError as EstudioError
    from estudio_core.evaluation.gate_settings import GateSettings as GateSettings
    from estudio_core.evaluation.judgments import Judgments as Judgments
    from estudio_core.experiments.manager import ExperimentsManager as ExperimentsManager
    from estudio_core.experiments.metrics_accumulator import MetricsAccumulator as MetricsAccumulator
    from estudio_core.experiments.metrics_accumulator import MetricValue as MetricValue
    from estudio_core.export.settings import ExportSettings as ExportSettings
    from estudio_core.improvement.improvement_input import ImprovementElement as ImprovementElement
    from estudio_core.improvement.improvement_input import ImprovementInput as ImprovementInput
    from estudio_core.improvement.torch_based_adjuster import TorchBasedAdjuster as TorchBasedAdjuster
    from estudio_core.improvement.vectors_adjuster import VectorsAdjuster as VectorsAdjuster
    from estudio_core.inference.clients import TextToTextBertTritonClientFactory as TextToTextBertTritonClientFactory
    from estudio_core.inference.clients import TextToTextE5TritonClientFactory as TextToTextE5TritonClientFactory
    from estudio_core.inference.clients import TritonClientFactory as TritonClientFactory
    from estudio_core.inference.embedder import Embedder as Embedder
    from estudio_core.models.embedding_model import EmbeddingModel as EmbeddingModel
    from estudio_core.models.embedding_model import EmbeddingsModelInterface as EmbeddingsModelInterface
    from estudio_core.models.embedding_model import TextToTextBertModel as TextToTextBertModel
    from estudio_core.models.embedding_model import TextToTextE5Model as TextToTextE5Model
    from estudio_core.plugin.dag_settings import DagSettings as DagSettings
    from estudio_core.plugin.dag_settings import Notice as Notice
    from estudio_core.plugin.factory import create_text_plugin as create_text_plugin
    from estudio_core.plugin.plugin import Plugin as Plugin
    from estudio_core.plugin.plugin import PluginMeta as PluginMeta
    from estudio_core.plugin.registry import PluginManager as PluginManager
    from estudio_core.plugin.run_params import FineTuneParams as FineTuneParams
    from estudio_core.plugin.run_params import WatchParams as WatchParams
    from estudio_core.plugin.specs import CatalogPretraining as CatalogPretraining
    from estudio_core.plugin.specs import PostgresItems as PostgresItems
    from estudio_core.plugin.specs import TextIndex as TextIndex
    from estudio_core.plugin.specs import TextModel as TextModel
    from estudio_core.plugin.specs import TextTraining as TextTraining
    from estudio_core.plugin.tutorial import DatasetFieldsNormalizer as DatasetFieldsNormalizer
    from estudio_core.plugin.tutorial import DictItemSetManager as DictItemSetManager
    from estudio_core.plugin.tutorial import FineTuningBuilder as FineTuningBuilder
    from estudio_core.plugin.tutorial import FineTuningMethod as FineTuningMethod
    from estudio_core.plugin.tutorial import FineTuningParams as FineTuningParams
    from estudio_core.plugin.tutorial import FineTuningSettings as FineTuningSettings
    from estudio_core.plugin.tutorial import ItemsDatasetDictPreprocessor as ItemsDatasetDictPreprocessor
    from estudio_core.plugin.tutorial import TextItemSetManager as TextItemSetManager
    from estudio_core.plugin.tutorial import prepare_data as prepare_data
    from estudio_core.preprocessing.augmentations import (
        AugmentationsComposition as AugmentationsComposition,
    )
    from estudio_core.preprocessing.augmentations import (
        AugmentationWithRandomSelection as AugmentationWithRandomSelection,
    )
    from estudio_core.preprocessing.augmentations import ChangeCases as ChangeCases
    from estudio_core.preprocessing.augmentations import (
        ClickstreamQueryAugmentationApplier as ClickstreamQueryAugmentationApplier,
    )
    from estudio_core.preprocessing.augmentations import (
        ItemsSetAugmentationApplier as ItemsSetAugmentationApplier,
    )
    from estudio_core.preprocessing.augmentations import Misspellings as Misspellings
    from estudio_core.preprocessing.items_manager import ItemSetManager as ItemSetManager
    from estudio_core.preprocessing.preprocessor import ItemPreprocessor as ItemPreprocessor
    from estudio_core.preprocessing.splitters import DummySentenceSplitter as DummySentenceSplitter
    from estudio_core.preprocessing.splitters import ItemsSetSplitter as ItemsSetSplitter
    from estudio_core.preprocessing.splitters import TokenGroupTextSplitter as TokenGroupTextSplitter
    from estudio_core.searching import Hit as Hit
    from estudio_core.searching import SearchAnswer as SearchAnswer
    from estudio_core.searching import asearch as asearch
    from estudio_core.searching import search as search
    from estudio_core.settings import settings as settings
    from estudio_core.sources.data_loader import DataLoader as DataLoader
    from estudio_core.sources.item_meta import ItemMeta as ItemMeta
    from estudio_core.sources.item_meta import PgsqlFileMeta as PgsqlFileMeta
    from estudio_core.sources.pgsql_jsonb_loader import PgsqlJSONBLoader as PgsqlJSONBLoader
    from estudio_core.sources.pgsql_multi_text_column_loader import (
        PgsqlMultiTextColumnLoader as PgsqlMultiTextColumnLoader,
    )
    from estudio_core.sources.pgsql_text_loader import PgsqlTextLoader as PgsqlTextLoader
    from estudio_core.sources.query_generator import QueryGenerator as QueryGenerator
    from estudio_core.vectordb.index_info import MetricAggregationType as MetricAggregationType
    from estudio_core.vectordb.index_info import MetricType as MetricType
    from estudio_core.vectordb.index_info import SearchIndexInfo as SearchIndexInfo
    from estudio_core.vectordb.optimization import Optimization as Optimization
    from estudio_core.writing import ItemWrite as ItemWrite
    from estudio_core.writing import delete as delete
    from estudio_core.writing import refresh as refresh
    from estudio_core.writing import upsert as upsert
    from lightning_modules.losses import CosineProbMarginRankingLoss as CosineProbMarginRankingLoss
    from lightning_modules.losses import ProbMarginRankingLoss as ProbMarginRankingLoss
    from lightning_modules.losses import SoftmaxRankingLoss as SoftmaxRankingLoss

_MODULES: dict[str, tuple[str, ...]] = {
    "estudio_core.clickstream.converter": ("ClickstreamSessionConverter",),
    "estudio_core.clickstream.query_retriever": ("QueryRetriever",),
    "estudio_core.clickstream.sessions": ("SessionWithEvents",),
    "estudio_core.clickstream.splitter": ("TrainTestSplitter",),
    "estudio_core.clickstream.store": ("ClickstreamStore",),
    "estudio_core.clickstream.text_query_retriever": ("TextQueryRetriever",),
    "estudio_core.context": ("context",),
    "estudio_core.errors": ("EstudioError",),
    "estudio_core.evaluation.judgments": ("Judgments",),
    "estudio_core.experiments.initial_params.text": ("INITIAL_PARAMS",),
    "estudio_core.experiments.manager": ("ExperimentsManager",),
    "estudio_core.experiments.metrics_accumulator": ("MetricValue", "MetricsAccumulator"),
    "estudio_core.improvement.improvement_input": ("ImprovementElement", "ImprovementInput"),
    "estudio_core.improvement.torch_based_adjuster": ("TorchBasedAdjuster",),
    "estudio_core.improvement.vectors_adjuster": ("VectorsAdjuster",),
    "estudio_core.inference.clients": (
        "TextToTextBertTritonClientFactory",
        "TextToTextE5TritonClientFactory",
        "TritonClientFactory",
    ),
    "estudio_core.inference.embedder": ("Embedder",),
    "estudio_core.models.embedding_model": (
        "EmbeddingModel",
        "EmbeddingsModelInterface",
        "TextToTextBertModel",
        "TextToTextE5Model",
    ),
    "estudio_core.evaluation.gate_settings": ("GateSettings",),
    "estudio_core.export.settings": ("ExportSettings",),
    "estudio_core.plugin.dag_settings": ("DagSettings", "Notice"),
    "estudio_core.plugin.factory": ("create_text_plugin",),
    "estudio_core.plugin.plugin": ("Plugin", "PluginMeta"),
    "estudio_core.plugin.registry": ("PluginManager",),
    "estudio_core.plugin.run_params": ("FineTuneParams", "WatchParams"),
    "estudio_core.plugin.specs": ("CatalogPretraining", "PostgresItems", "TextIndex", "TextModel", "TextTraining"),
    "estudio_core.plugin.tutorial": (
        "DatasetFieldsNormalizer",
        "DictItemSetManager",
        "FineTuningBuilder",
        "FineTuningMethod",
        "FineTuningParams",
        "FineTuningSettings",
        "ItemsDatasetDictPreprocessor",
        "TextItemSetManager",
        "prepare_data",
    ),
    "estudio_core.preprocessing.augmentations": (
        "AugmentationWithRandomSelection",
        "AugmentationsComposition",
        "ChangeCases",
        "ClickstreamQueryAugmentationApplier",
        "ItemsSetAugmentationApplier",
        "Misspellings",
    ),
    "estudio_core.preprocessing.items_manager": ("ItemSetManager",),
    "estudio_core.preprocessing.preprocessor": ("ItemPreprocessor",),
    "estudio_core.clickstream.ranking_data": ("FineTuningInput", "ItemsSet", "RankingData"),
    "estudio_core.preprocessing.splitters": ("DummySentenceSplitter", "ItemsSetSplitter", "TokenGroupTextSplitter"),
    "estudio_core.searching": ("Hit", "SearchAnswer", "asearch", "search"),
    "estudio_core.settings": ("settings",),
    "estudio_core.sources.data_loader": ("DataLoader",),
    "estudio_core.sources.item_meta": ("ItemMeta", "PgsqlFileMeta"),
    "estudio_core.sources.pgsql_jsonb_loader": ("PgsqlJSONBLoader",),
    "estudio_core.sources.pgsql_multi_text_column_loader": ("PgsqlMultiTextColumnLoader",),
    "estudio_core.sources.pgsql_text_loader": ("PgsqlTextLoader",),
    "estudio_core.sources.query_generator": ("QueryGenerator",),
    "estudio_core.vectordb.index_info": ("MetricAggregationType", "MetricType", "SearchIndexInfo"),
    "estudio_core.vectordb.optimization": ("Optimization",),
    "estudio_core.writing": ("ItemWrite", "delete", "refresh", "upsert"),
    "lightning_modules.losses": ("CosineProbMarginRankingLoss", "ProbMarginRankingLoss", "SoftmaxRankingLoss"),
}

_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use."""
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'estudio_core' has no attribute {name!r}")
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return [*__all__, "__version__"]
