"""Plugins that are a class with ten methods, as the tutorial writes them, and the `Plugin` that one of them makes.

Nothing else knows of this form. What it takes stands here: a plugin is asked for its parts once, with no sessions, and
`prepare_data` then notes what it was given; the base model is caught on its way to the registry; a search space that is
assigned becomes the plugin's own. What a class says and nothing would heed is refused.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from estudio_core.clickstream.ranking_data import ItemsSet, RankingData
from estudio_core.clickstream.text_query_retriever import TextQueryRetriever
from estudio_core.errors import ConfigurationError, NotEnoughDataError
from estudio_core.evaluation.gate_settings import GateSettings
from estudio_core.export.settings import ExportSettings
from estudio_core.plugin.dag_settings import DagSettings
from estudio_core.plugin.plugin import Plugin
from estudio_core.plugin.plugin import PluginMeta as PluginMeta
from estudio_core.plugin.run_params import FineTuneParams
from estudio_core.preprocessing.augmentations import ItemsSetAugmentationApplier
from estudio_core.preprocessing.items_manager import ItemSetManager
from estudio_core.preprocessing.preprocessor import ItemPreprocessor
from estudio_core.preprocessing.splitters import ItemSplitter, ItemsSetSplitter
from estudio_core.settings import get_settings
from lightning_modules.config import TrainingConfig
from lightning_modules.earlier_names import translated

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
    from estudio_core.models.embedding_model import EmbeddingModel
    from estudio_core.sources.data_loader import DataLoader
    from estudio_core.vectordb.index_info import SearchIndexInfo
    from estudio_core.vectordb.optimization import Optimization

ItemsDatasetDictPreprocessor = ItemPreprocessor
"""Its name in the tutorial."""


@dataclass(frozen=True)
class DatasetFieldsNormalizer:
    """Names of what a loader gives for an item. Every loader gives `item` and `item_id`, so nothing is renamed.

    Raises:
        ConfigurationError: another name is given.
    """

    item_field_name: str
    id_field_name: str

    def __post_init__(self) -> None:
        """Refuse names that no loader gives."""
        if (self.item_field_name, self.id_field_name) != ("item", "item_id"):
            raise ConfigurationError(
                f"{self}: loaders give 'item' and 'item_id'. Write DatasetFieldsNormalizer('item', 'item_id'); which "
                "column is the text, and which the id, are arguments of the loader."
            )


class TextItemSetManager(ItemSetManager):
    """Items that are a text.

    Args:
        field_normalizer: Accepted as the tutorial gives it.
        items_set_splitter: See the base class.
        augmenter: See the base class.
        do_augment_test: See the base class.
        transform: Applied to each text first, for instance to strip markup.
    """

    def __init__(
        self,
        field_normalizer: DatasetFieldsNormalizer | None = None,
        items_set_splitter: ItemsSetSplitter | None = None,
        augmenter: ItemsSetAugmentationApplier | None = None,
        do_augment_test: bool = False,
        transform: Callable[[str], str] | None = None,
    ) -> None:
        super().__init__(ItemPreprocessor(transform=transform), items_set_splitter, augmenter, do_augment_test)


class DictItemSetManager(ItemSetManager):
    """Items that are dicts: several columns, or a JSON object.

    Args:
        field_normalizer: Accepted as the tutorial gives it.
        items_set_splitter: See the base class.
        augmenter: See the base class.
        do_augment_test: See the base class.
        transform: Makes the text of an item; by default one `name: value` line per field.
        separator: Between two fields.
        field_names: False: values alone, without `name: `.
    """

    def __init__(
        self,
        field_normalizer: DatasetFieldsNormalizer | None = None,
        items_set_splitter: ItemsSetSplitter | None = None,
        augmenter: ItemsSetAugmentationApplier | None = None,
        do_augment_test: bool = False,
        transform: Callable[[Mapping[str, Any]], str] | None = None,
        separator: str = "\n",
        field_names: bool = True,
    ) -> None:
        preprocessor = ItemPreprocessor(transform=transform, separator=separator, field_names=field_names)
        super().__init__(preprocessor, items_set_splitter, augmenter, do_augment_test)


_NONE_IS_SAID = ("max_steps", "loss_func")


class FineTuningParams(TrainingConfig):
    """Parameters of a trial; `query_lr`, `items_lr` and further names of the tutorial are understood.

    None leaves a parameter to others, but for `max_steps`, where it means no limit.
    """

    @classmethod
    def _as_fields(cls, data: dict[Any, Any]) -> dict[Any, Any]:
        given = translated({name: value for name, value in data.items() if value is not None or name in _NONE_IS_SAID})
        cls.refuse_elsewhere(given, "plugin")
        return given


class FineTuningSettings(FineTuningParams):
    """Parameters of all trials of a plugin, and its loss; they go before those of the installation."""

    loss_func: Any
    """A loss over pairs, such as `CosineProbMarginRankingLoss()`; trials work on copies."""


@dataclass(frozen=True, kw_only=True)
class FineTuningBuilder:
    """Everything that training needs, put together by a plugin."""

    data_loader: DataLoader
    query_retriever: QueryRetriever
    clickstream_sessions_converter: ClickstreamSessionConverter
    clickstream_sessions_splitter: TrainTestSplitter
    dataset_fields_normalizer: DatasetFieldsNormalizer
    items_set_manager: ItemSetManager
    accumulators: Sequence[MetricsAccumulator]
    experiments_manager: ExperimentsManager
    fine_tuning_settings: FineTuningSettings
    initial_params: Mapping[str, Sequence[Any]]
    ranking_data: RankingData
    initial_max_evals: int | None = None
    """Number of trials where neither form nor preset says otherwise."""


class FineTuningMethod(ABC):
    """A search plugin. Subclass it, give `meta`, implement the ten methods.

    Constructing a plugin must be cheap where it can be; nothing here may change state.
    """

    meta: ClassVar[PluginMeta]
    dag_settings: ClassVar[DagSettings] = DagSettings()
    gate_settings: ClassVar[GateSettings] = GateSettings()
    export_settings: ClassVar[ExportSettings] = ExportSettings()
    fine_tune_params: ClassVar[FineTuneParams] = FineTuneParams()
    public: ClassVar[bool] = False

    def __setattr__(self, name: str, value: Any) -> None:
        # Plugins update their search space in place; what they assign is shared, or cannot be changed.
        super().__setattr__(name, _own(value) if name == "initial_params" else value)

    @abstractmethod
    def upload_initial_model(self) -> None:
        """Give the base model to `get_manager().upload_initial_model(model)`."""

    @abstractmethod
    def get_query_retriever(self) -> QueryRetriever:
        """Return what turns a session's query into the model's input."""

    @abstractmethod
    def get_items_preprocessor(self) -> ItemPreprocessor:
        """Return what turns a loaded item into text."""

    @abstractmethod
    def get_data_loader(self) -> DataLoader:
        """Return the loader of the items."""

    @abstractmethod
    def get_manager(self) -> ExperimentsManager:
        """Return the manager of MLflow runs and registered versions."""

    @abstractmethod
    def get_inference_client_factory(self) -> TritonClientFactory:
        """Return what opens a client for a served model version, as the installation's settings say."""

    @abstractmethod
    def get_fine_tuning_builder(self, clickstream: list[SessionWithEvents]) -> FineTuningBuilder:
        """Give the sessions to `prepare_data`, and return its result with everything else that training needs."""

    @abstractmethod
    def get_search_index_info(self) -> SearchIndexInfo:
        """Return how vectors are stored and compared."""

    @abstractmethod
    def get_vectors_adjuster(self) -> VectorsAdjuster:
        """Return what moves vectors between two trainings."""

    @abstractmethod
    def get_vectordb_optimizations(self) -> list[Optimization]:
        """Return what is applied once to each new collection."""

    def get_items_splitter(self) -> ItemSplitter | None:
        """Return what splits an item's text into parts; None: what the builder's `items_set_manager` has."""
        return None

    def get_judgments(self) -> Judgments | None:
        """Return human relevance judgments to evaluate on, where there are any."""
        return None


def _own(space: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy that shares nothing with `space`, with lists for its tuples."""
    return {
        name: list(values) if isinstance(values, tuple) else copy.deepcopy(values) for name, values in space.items()
    }


_Call = tuple[RankingData, tuple[object, ...]]
_noted: ContextVar[list[_Call] | None] = ContextVar("estudio_prepare_data_noted", default=None)
"""Results and arguments of `prepare_data` while a plugin is asked for its parts."""


def prepare_data(
    clickstream: Sequence[SessionWithEvents | Mapping[str, Any]],
    converter: ClickstreamSessionConverter,
    splitter: TrainTestSplitter,
    query_retriever: QueryRetriever,
    loader: DataLoader,
    items_set_manager: ItemSetManager,
) -> RankingData:
    """Return the dataset that `clickstream` makes; nothing while a plugin is asked for its parts.

    Raises: as `preprocessing.prepare_data.prepare_data`.
    """
    from estudio_core.preprocessing.prepare_data import prepare_data

    noted = _noted.get()
    if noted is None:
        return prepare_data(clickstream, converter, splitter, query_retriever, loader, items_set_manager)
    empty = RankingData({}, ItemsSet({}))
    noted.append((empty, (clickstream, converter, splitter, query_retriever, loader, items_set_manager)))
    return empty


def adapt(method: FineTuningMethod) -> Plugin:
    """Return the plugin that the ten methods describe.

    Raises:
        ConfigurationError: two of them contradict each other, or say what nothing would heed.
    """
    sessions: list[SessionWithEvents] = []
    noted: list[_Call] = []
    token = _noted.set(noted)
    try:
        builder = method.get_fine_tuning_builder(sessions)
    except NotEnoughDataError as error:
        raise ConfigurationError(
            f"Plugin {method.meta.name!r}: get_fine_tuning_builder([]) has to return the plugin's parts. It prepares "
            f"data in another way than by estudio_core's prepare_data: {error}"
        ) from error
    finally:
        _noted.reset(token)
    problem = next(_problems(method, builder, sessions, noted), None)
    if problem is not None:
        raise ConfigurationError(f"Plugin {method.meta.name!r}: {problem}")
    trials = {} if builder.initial_max_evals is None else {"trials": builder.initial_max_evals}
    return Plugin(
        meta=method.meta,
        dag=method.dag_settings,
        gate=method.gate_settings,
        export=method.export_settings,
        fine_tune=FineTuneParams(**method.fine_tune_params.filled_in | trials),
        training=builder.fine_tuning_settings,
        base_model=lambda: _base_model(method),
        make_loss=lambda: builder.fine_tuning_settings.loss_func,
        build_loader=lambda: builder.data_loader,
        build_item_texts=lambda: builder.items_set_manager,
        build_query_retriever=lambda: builder.query_retriever,
        build_converter=lambda: builder.clickstream_sessions_converter,
        build_splitter=lambda: builder.clickstream_sessions_splitter,
        build_search_space=lambda: translated(_own(builder.initial_params)),
        build_experiments=lambda: builder.experiments_manager,
        build_index=method.get_search_index_info,
        build_vectors_adjuster=method.get_vectors_adjuster,
        build_optimizations=method.get_vectordb_optimizations,
        build_judgments=method.get_judgments,
        public=method.public,
    )


def _problems(
    method: FineTuningMethod,
    builder: FineTuningBuilder,
    sessions: list[SessionWithEvents],
    noted: list[_Call],
) -> Iterator[str]:
    """Yield what contradicts the builder, or would be heeded by nothing."""
    texts, manager = builder.items_set_manager, builder.experiments_manager
    splitter = method.get_items_splitter()
    said = {
        "data_loader": (builder.data_loader, "get_data_loader()", method.get_data_loader()),
        "query_retriever": (builder.query_retriever, "get_query_retriever()", method.get_query_retriever()),
        "experiments_manager": (manager, "get_manager()", method.get_manager()),
        "items_set_manager.preprocessor": (
            texts.preprocessor, "get_items_preprocessor()", method.get_items_preprocessor(),
        ),
        "items_set_manager.item_splitter": (
            texts.item_splitter, "get_items_splitter()", texts.item_splitter if splitter is None else splitter,
        ),
    }  # fmt: skip
    for field, (built, name, returned) in said.items():
        if not _alike(built, returned):
            yield (
                f"the builder's {field} is not what {name} returns ({_shown(built)}, {_shown(returned)}). Training and "
                f"index share it: make it once, in __init__, and give it to both."
            )
    if [vars(each) for each in builder.accumulators] != [vars(each) for each in manager.accumulators]:
        yield "the builder's accumulators are not those of its experiments_manager, which logs. Give both the same."
    if type(builder.dataset_fields_normalizer) is not DatasetFieldsNormalizer:
        yield f"dataset_fields_normalizer is {_shown(builder.dataset_fields_normalizer)}, which nothing would call."
    own = builder.clickstream_sessions_converter.query_retriever
    if type(own) is not TextQueryRetriever and not _alike(own, builder.query_retriever):
        yield f"its converter's query_retriever is {_shown(own)}; the builder's reads the queries. Give both the same."
    if manager.plugin_name != method.meta.name:
        yield f"its experiments_manager is that of {manager.plugin_name!r}. Give it plugin_name=self.meta.name."
    parts = (
        builder.clickstream_sessions_converter, builder.clickstream_sessions_splitter, builder.query_retriever,
        builder.data_loader, texts,
    )  # fmt: skip
    given = next((arguments for returned, arguments in noted if returned is builder.ranking_data), None)
    if given is None:
        yield (
            "the builder's ranking_data is not what estudio_core's prepare_data returned. Return that; what sessions "
            "become is decided by converter, splitter and items_set_manager."
        )
    elif given[0] is not sessions:
        yield (
            "get_fine_tuning_builder gives prepare_data other sessions than it is given. Leave sessions out in the "
            "converter, by a DataError of its convert(): then improve and watch leave them out as well."
        )
    elif not all(map(_alike, given[1:], parts)):
        yield "prepare_data is given other parts than the builder. Give both the same."
    yield from _unheeded_client(method)
    trials, evaluations = method.fine_tune_params.filled_in.get("trials"), builder.initial_max_evals
    if None not in (trials, evaluations) and trials != evaluations:
        yield f"initial_max_evals is {evaluations}, trials of fine_tune_params {trials}. Give one of them."


def _unheeded_client(method: FineTuningMethod) -> Iterator[str]:
    """Yield in what the client factory differs from what searches open: the published entry, as the settings say."""
    from estudio_core.inference.clients import TritonClientFactory

    factory, settings = method.get_inference_client_factory(), get_settings()
    if type(factory) is not TritonClientFactory:
        yield (
            f"get_inference_client_factory() returns {_shown(factory)}. Searches open the published model themselves "
            "and would not use it: return a TritonClientFactory, or one of its families."
        )
        return
    if factory.plugin_name != method.meta.name:
        yield f"its inference client is that of {factory.plugin_name!r}. Give it plugin_name=self.meta.name."
    address = f"{settings.inference_host}:{settings.inference_grpc_port}"
    if settings.inference == "triton" and factory.url != address:
        yield (
            f"its inference client asks {factory.url}, searches ask {address}. Set ESTUDIO_INFERENCE_HOST and "
            "ESTUDIO_INFERENCE_GRPC_PORT."
        )
    if factory.repository is not None and factory.repository.resolve() != settings.triton_repository.resolve():
        yield f"its inference client reads {factory.repository}. Set ESTUDIO_TRITON_REPOSITORY instead."


def _base_model(method: FineTuningMethod) -> EmbeddingModel:
    """Return the model that the plugin would upload; it is registered by whoever asks for it."""
    manager = method.get_manager()
    models: list[EmbeddingModel] = []
    vars(manager)["upload_initial_model"] = models.append
    try:
        method.upload_initial_model()
    finally:
        del vars(manager)["upload_initial_model"]
    if not models:
        raise ConfigurationError(
            f"Plugin {method.meta.name!r}: upload_initial_model() gave get_manager() no model. Call "
            "self.manager.upload_initial_model(model)."
        )
    family = method.get_inference_client_factory().family
    if family not in (None, models[-1].family):
        raise ConfigurationError(
            f"Plugin {method.meta.name!r}: the base model is of the family {models[-1].family!r}, its inference client "
            f"is for {family!r}. Return the factory of the right family from get_inference_client_factory()."
        )
    return models[-1]


def _alike(one: object, other: object) -> bool:
    """Return whether two parts are one, or made alike, such as a retriever that a method makes anew at each call."""
    return one is other or (type(one) is type(other) and hasattr(one, "__dict__") and vars(one) == vars(other))


def _shown(part: object) -> str:
    return f"{type(part).__module__}.{type(part).__qualname__}"
