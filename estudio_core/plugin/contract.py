"""What a search plugin is: a name and the methods from which Estudio builds its DAGs."""

from __future__ import annotations

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from estudio_core.evaluation.gate_settings import GateSettings
from estudio_core.export.settings import ExportSettings
from estudio_core.plugin.dag_settings import DagSettings
from estudio_core.plugin.run_params import FineTuneParams
from estudio_core.strict_model import StrictModel

if TYPE_CHECKING:
    from estudio_core.clickstream.query_retriever import QueryRetriever
    from estudio_core.clickstream.sessions import SessionWithEvents
    from estudio_core.evaluation.judgments import Judgments
    from estudio_core.experiments.manager import ExperimentsManager
    from estudio_core.improvement.vectors_adjuster import VectorsAdjuster
    from estudio_core.inference.clients import TritonClientFactory
    from estudio_core.preprocessing.preprocessor import ItemsDatasetDictPreprocessor
    from estudio_core.preprocessing.splitters import ItemSplitter
    from estudio_core.sources.data_loader import DataLoader
    from estudio_core.vectordb.index_info import SearchIndexInfo
    from estudio_core.vectordb.optimization import Optimization

_PLUGIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")


class PluginMeta(StrictModel):
    """Identity of a plugin. The name becomes part of DAG ids, tables and model names."""

    name: str
    version: str = "1.0.0"
    description: str | None = None

    @field_validator("name")
    @classmethod
    def _usable_everywhere(cls, name: str) -> str:
        if not _PLUGIN_NAME.fullmatch(name) or "__" in name:
            raise ValueError(
                f"{name!r} cannot name a plugin: use a letter, then letters, digits and single underscores, 40 at most"
            )
        return name


class FineTuningBuilder(BaseModel):
    """Everything that training needs, put together by a plugin."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    data_loader: Any
    query_retriever: Any
    clickstream_sessions_converter: Any
    clickstream_sessions_splitter: Any
    dataset_fields_normalizer: Any
    items_set_manager: Any
    accumulators: Sequence[Any]
    experiments_manager: Any
    fine_tuning_settings: Any
    initial_params: dict[str, list[Any]]
    ranking_data: Any
    initial_max_evals: int = Field(default=100, ge=1)


class FineTuningMethod(ABC):
    """A search plugin. Subclass it, give `meta`, implement the ten methods.

    Constructing a plugin must be cheap where it can be; nothing here may change state.
    """

    meta: ClassVar[PluginMeta]
    dag_settings: ClassVar[DagSettings] = DagSettings()
    gate_settings: ClassVar[GateSettings] = GateSettings()
    export_settings: ClassVar[ExportSettings] = ExportSettings()
    fine_tune_params: ClassVar[FineTuneParams] = FineTuneParams()

    def __setattr__(self, name: str, value: Any) -> None:
        # Plugins update their search space in place; what they assign may be shared with others.
        super().__setattr__(name, copy.deepcopy(value) if name == "initial_params" else value)

    @abstractmethod
    def upload_initial_model(self) -> None:
        """Register the base model with `get_manager().upload_initial_model(model)`."""

    @abstractmethod
    def get_query_retriever(self) -> QueryRetriever:
        """Return what turns a session's query into the model's input."""

    @abstractmethod
    def get_items_preprocessor(self) -> ItemsDatasetDictPreprocessor:
        """Return what turns a loaded item into text."""

    @abstractmethod
    def get_data_loader(self) -> DataLoader:
        """Return the loader of the items."""

    @abstractmethod
    def get_manager(self) -> ExperimentsManager:
        """Return the manager of MLflow runs and registered versions."""

    @abstractmethod
    def get_inference_client_factory(self) -> TritonClientFactory:
        """Return what opens a client for a served model version."""

    @abstractmethod
    def get_fine_tuning_builder(self, clickstream: list[SessionWithEvents]) -> FineTuningBuilder:
        """Turn sessions into training data and everything else that training needs."""

    @abstractmethod
    def get_search_index_info(self) -> SearchIndexInfo:
        """Return how vectors are stored and compared."""

    @abstractmethod
    def get_vectors_adjuster(self) -> VectorsAdjuster:
        """Return what moves vectors between two trainings."""

    @abstractmethod
    def get_vectordb_optimizations(self) -> list[Optimization]:
        """Return what is applied once to each new collection."""

    def _builder(self) -> FineTuningBuilder:
        from estudio_core.clickstream.ranking_data import ItemsSet, RankingData
        from estudio_core.preprocessing.prepare_data import prepared

        with prepared(RankingData({}, ItemsSet({}))):
            return self.get_fine_tuning_builder([])

    @property
    def training_values(self) -> dict[str, Any]:
        """Parameters of training that the plugin sets."""
        return dict(self._builder().fine_tuning_settings.given)

    def make_loss(self) -> Any:
        """Return the loss that trials train with."""
        return self._builder().fine_tuning_settings.loss_func

    @property
    def search_space(self) -> dict[str, Any]:
        """Values to try, by parameter name."""
        from lightning_modules.earlier_names import translated

        return translated(self._builder().initial_params)

    def get_items_splitter(self) -> ItemSplitter:
        """Return what splits an item's text into parts; by default the one training uses.

        The same splitter has to serve training and index: `items_set_manager` of the plugin is asked for it.
        """
        from estudio_core.preprocessing.splitters import NoSplitter

        manager = getattr(self, "items_set_manager", None)
        return manager.item_splitter if manager is not None else NoSplitter()

    def get_judgments(self) -> Judgments | None:
        """Return human relevance judgments to evaluate on, where there are any."""
        return None
