"""What a search plugin is to everything that serves it: one frozen value of typed parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, field_validator

from estudio_core.ids import PLUGIN_NAME, storable
from estudio_core.strict_model import StrictModel

if TYPE_CHECKING:
    from torch import nn

    from estudio_core.clickstream.converter import ClickstreamSessionConverter
    from estudio_core.clickstream.query_retriever import QueryRetriever
    from estudio_core.clickstream.ranking_data import RankingData
    from estudio_core.clickstream.session_files import StoredSessions
    from estudio_core.clickstream.sessions import SessionWithEvents
    from estudio_core.clickstream.splitter import TrainTestSplitter
    from estudio_core.evaluation.gate_settings import GateSettings
    from estudio_core.evaluation.judgments import Judgments
    from estudio_core.experiments.manager import ExperimentsManager
    from estudio_core.export.settings import ExportSettings
    from estudio_core.improvement.vectors_adjuster import VectorsAdjuster
    from estudio_core.models.embedding_model import EmbeddingModel
    from estudio_core.plugin.dag_settings import DagSettings
    from estudio_core.plugin.run_params import FineTuneParams
    from estudio_core.plugin.specs import CatalogPretraining
    from estudio_core.preprocessing.items_manager import ItemSetManager
    from estudio_core.sources.data_loader import DataLoader
    from estudio_core.vectordb.index_info import SearchIndexInfo
    from estudio_core.vectordb.optimization import Optimization
    from lightning_modules.config import TrainingConfig


class PluginMeta(StrictModel):
    """Identity of a plugin. The name becomes part of DAG ids, tables and model names."""

    name: str
    version: Annotated[str, AfterValidator(storable)] = "1.0.0"
    description: Annotated[str, AfterValidator(storable)] | None = None

    @field_validator("name")
    @classmethod
    def _usable_everywhere(cls, name: str) -> str:
        if not PLUGIN_NAME.fullmatch(name) or "__" in name or name.endswith("_"):
            raise ValueError(
                f"{name!r} cannot name a plugin: use a letter, then letters, digits and single underscores between "
                "them, 40 at most"
            )
        return name


being_made: ContextVar[list[Plugin] | None] = ContextVar("being_made", default=None)
"""Where it is set, all plugins that are made are added to it: whoever imports a file sees which of them it keeps."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Plugin:
    """A search plugin. `create_text_plugin` makes one; `tutorial.adapt` makes one of a class with ten methods.

    What DAGs and gate have to know is there from the start. Every other part is built by its function when it is first
    asked for, and kept: a plugin that is only made opens no network, no tokenizer and no database.
    """

    meta: PluginMeta
    dag: DagSettings
    gate: GateSettings
    export: ExportSettings
    fine_tune: FineTuneParams
    """Defaults of the form of `fine_tune`."""
    training: TrainingConfig
    """Parameters of training; those that are given hold in all trials, if neither form nor preset says otherwise."""
    base_model: Callable[[], EmbeddingModel]
    """Gives the model that the first training starts from; it is loaded anew each time."""
    make_loss: Callable[[], nn.Module]
    """Gives the loss that trials train with."""
    build_loader: Callable[[], DataLoader]
    build_item_texts: Callable[[], ItemSetManager]
    build_query_retriever: Callable[[], QueryRetriever]
    build_converter: Callable[[], ClickstreamSessionConverter]
    build_splitter: Callable[[], TrainTestSplitter]
    build_search_space: Callable[[], Mapping[str, Any]]
    build_experiments: Callable[[], ExperimentsManager]
    build_index: Callable[[], SearchIndexInfo]
    build_vectors_adjuster: Callable[[], VectorsAdjuster]
    build_optimizations: Callable[[], Sequence[Optimization]]
    build_judgments: Callable[[], Judgments | None]
    public: bool = False
    """Whether everybody may search it through the HTTP service, without a key."""
    pretrain: CatalogPretraining | None = None
    """How `initialize` adapts the base model to the catalog; None: it does not, unless a run asks for it."""

    def __post_init__(self) -> None:
        if (made := being_made.get()) is not None:
            made.append(self)

    @cached_property
    def loader(self) -> DataLoader:
        """The source of the items."""
        return self.build_loader()

    @cached_property
    def item_texts(self) -> ItemSetManager:
        """How items become texts, parts of texts and variants of them, in training and in the index alike."""
        return self.build_item_texts()

    @cached_property
    def query_retriever(self) -> QueryRetriever:
        """What reads the text of a query."""
        return self.build_query_retriever()

    @cached_property
    def converter(self) -> ClickstreamSessionConverter:
        """What makes training input of a session."""
        return self.build_converter()

    @cached_property
    def splitter(self) -> TrainTestSplitter:
        """What divides queries into train, dev and holdout."""
        return self.build_splitter()

    @cached_property
    def search_space(self) -> Mapping[str, Any]:
        """Values to try, by parameter name: lists, or Ray Tune domains."""
        return self.build_search_space()

    @cached_property
    def experiments(self) -> ExperimentsManager:
        """MLflow runs and registered versions."""
        return self.build_experiments()

    @cached_property
    def index(self) -> SearchIndexInfo:
        """How vectors are stored and compared."""
        return self.build_index()

    @cached_property
    def vectors_adjuster(self) -> VectorsAdjuster:
        """What moves vectors between two trainings."""
        return self.build_vectors_adjuster()

    @cached_property
    def optimizations(self) -> Sequence[Optimization]:
        """What is applied once to each new collection."""
        return self.build_optimizations()

    @cached_property
    def judgments(self) -> Judgments | None:
        """Human relevance judgments to evaluate on, where there are any."""
        return self.build_judgments()


def prepare(plugin: Plugin, sessions: Sequence[SessionWithEvents] | StoredSessions) -> RankingData:
    """Return the dataset that `sessions` make with the plugin's parts. Raises: as `prepare_data`."""
    from functools import partial

    from estudio_core.plugin.words import index_words
    from estudio_core.preprocessing.prepare_data import prepare_data

    lexical = plugin.index.lexical
    return prepare_data(
        sessions,
        plugin.converter,
        plugin.splitter,
        plugin.query_retriever,
        plugin.loader,
        plugin.item_texts,
        read_words=None if lexical is None else partial(index_words, plugin.index),
        lexical=lexical,
    )
