"""`create_text_plugin`: a whole search plugin from one typed call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from estudio_core.errors import ConfigurationError, shown, suggest
from estudio_core.evaluation.gate_settings import GateSettings
from estudio_core.export.settings import ExportSettings
from estudio_core.ids import listed
from estudio_core.plugin import text_parts
from estudio_core.plugin.dag_settings import DagSettings
from estudio_core.plugin.plugin import Plugin, PluginMeta
from estudio_core.plugin.run_params import FineTuneParams
from estudio_core.plugin.specs import CatalogPretraining, PostgresItems, TextIndex, TextModel, TextTraining, is_data
from estudio_core.sources.data_loader import DataLoader

if TYPE_CHECKING:
    from estudio_core.clickstream.converter import ClickstreamSessionConverter
    from estudio_core.clickstream.query_retriever import QueryRetriever
    from estudio_core.clickstream.splitter import TrainTestSplitter
    from estudio_core.evaluation.judgments import Judgments
    from estudio_core.improvement.vectors_adjuster import VectorsAdjuster
    from estudio_core.preprocessing.augmentations import ItemsSetAugmentationApplier
    from estudio_core.preprocessing.preprocessor import ItemPreprocessor
    from estudio_core.preprocessing.splitters import ItemSplitter
    from estudio_core.sources.generator_factory import GeneratorArgument
    from estudio_core.vectordb.index_info import SearchIndexInfo
    from estudio_core.vectordb.optimization import Optimization


def create_text_plugin(
    name: str,
    *,
    items: PostgresItems | DataLoader,
    model: TextModel | str,
    training: TextTraining | None = None,
    index: TextIndex | None = None,
    description: str | None = None,
    version: str = "1.0.0",
    dag: DagSettings | None = None,
    gate: GateSettings | None = None,
    export: ExportSettings | None = None,
    fine_tune: FineTuneParams | None = None,
    augmenter: ItemsSetAugmentationApplier | None = None,
    item_splitter: ItemSplitter | None = None,
    judgments: Callable[[], Judgments] | None = None,
    optimizations: Sequence[Optimization] = (),
    preprocessor: ItemPreprocessor | None = None,
    public: bool = False,
    pretrain: Literal["catalog"] | CatalogPretraining | None = None,
    query_generator: GeneratorArgument | None = None,
    query_retriever: QueryRetriever | None = None,
    sessions_converter: ClickstreamSessionConverter | None = None,
    splitter: TrainTestSplitter | None = None,
    vectors_adjuster: VectorsAdjuster | None = None,
    **unknown: object,
) -> Plugin:
    """Return a text search plugin. Nothing is read or opened before the plugin is used.

    Args:
        name: Letters, digits and single underscores; part of DAG ids, tables and model names.
        items: Where the items are: a table of PostgreSQL, or a loader of any other source.
        model: The embedding model to start from; a string is its name.
        training: How the model learns from clicks.
        index: How vectors are stored and compared.
        description: One line about the plugin.
        version: Version of the plugin.
        dag: Schedule, shards, retries and time limits of the DAGs.
        gate: When a candidate may replace the champion.
        export: In how many bits models are served.
        fine_tune: Defaults of the `fine_tune` form.
        augmenter: Makes variants of the texts of items for training.
        item_splitter: Cuts the text of an item into parts; by default into parts that fit the model.
        judgments: Returns human relevance judgments to evaluate on.
        optimizations: Applied once to each new collection.
        preprocessor: Turns what the loader gives for an item into its text; by default a text stays as it is, and the
            fields of a dict (the text columns of the table) are joined.
        public: Whether everybody may search it through the HTTP service, without a key: it is then as open as a page of
            a website.
        pretrain: "catalog": `initialize` adapts the base model to the items' texts, and serves that where it is better;
            `CatalogPretraining(...)` says how, with a teacher if there is one. None: only where a run asks for it.
        query_generator: Builds the SQL of `PostgresItems`.
        query_retriever: Reads the text of a query.
        sessions_converter: Makes training input of a session.
        splitter: Divides queries into train, dev and holdout, in place of what `training` says.
        vectors_adjuster: Moves vectors between two trainings.
        **unknown: Refused, with the nearest legal name.

    Raises:
        ConfigurationError: an argument is unknown or has an illegal value.

    >>> plugin = create_text_plugin("shop", items=PostgresItems(table="products", text="title"), model="my-model")
    >>> plugin.meta.name
    'shop'
    """
    for given in unknown:
        legal = [name for name in inspect.signature(create_text_plugin).parameters if name != "unknown"]
        hint = "Give the loader as items=." if given == "data_loader" else suggest(given, legal)
        raise ConfigurationError(f"create_text_plugin got an unknown argument {given!r}. {hint}")
    for argument, part, kind in (
        ("model", TextModel(name=model) if isinstance(model, str) else model, TextModel),
        ("training", training, TextTraining),
        ("index", index, TextIndex),
        ("dag", dag, DagSettings),
        ("gate", gate, GateSettings),
        ("export", export, ExportSettings),
        ("fine_tune", fine_tune, FineTuneParams),
    ):
        if not isinstance(part, kind if argument == "model" else kind | None):
            raise ConfigurationError(f"{argument} is {shown(part)}: give {kind.__name__}(...).")
    for argument, part in (
        ("augmenter", augmenter),
        ("item_splitter", item_splitter),
        ("preprocessor", preprocessor),
        ("query_retriever", query_retriever),
        ("sessions_converter", sessions_converter),
        ("splitter", splitter),
        ("vectors_adjuster", vectors_adjuster),
        *(
            (f"optimizations[{place}]", part)
            for place, part in enumerate(listed(optimizations, "optimizations", "objects"))
        ),
    ):
        if is_data(part) or isinstance(part, type):
            raise ConfigurationError(f"{argument} is {shown(part)}: give an object that does the work.")
    if is_data(query_generator):
        raise ConfigurationError(f"query_generator is {shown(query_generator)}: give a class, an object or a function.")
    if not (judgments is None or callable(judgments)):
        raise ConfigurationError(f"judgments is {shown(judgments)}: give a function that returns them.")
    if not isinstance(items, PostgresItems | DataLoader):
        raise ConfigurationError(f"items is {type(items).__name__}: give PostgresItems(...) or a DataLoader.")
    if query_generator is not None and not isinstance(items, PostgresItems):
        raise ConfigurationError(f"query_generator builds the SQL of PostgresItems; items is {type(items).__name__}.")
    if not (pretrain is None or pretrain == "catalog" or isinstance(pretrain, CatalogPretraining)):
        raise ConfigurationError(
            f'pretrain is {pretrain!r}: give "catalog", CatalogPretraining(...), or None for the base model as it is.'
        )
    if not isinstance(public, bool):
        raise ConfigurationError(f"public is {public!r}: give True, or False for plugins that are searched with a key.")
    try:
        meta = PluginMeta(name=name, version=version, description=description)
        base = TextModel(name=model) if isinstance(model, str) else model
    except ValidationError as error:
        raise ConfigurationError(f"create_text_plugin: {error}") from error
    learning = training or TextTraining()

    @cache
    def loader() -> DataLoader:
        return text_parts.postgres_loader(items, query_generator) if isinstance(items, PostgresItems) else items

    @cache
    def vectors() -> SearchIndexInfo:
        return text_parts.index_info(base, index or TextIndex())

    return Plugin(
        meta=meta,
        dag=dag or DagSettings(),
        gate=gate or GateSettings(),
        export=export or ExportSettings(),
        fine_tune=fine_tune or FineTuneParams(),
        training=learning,
        base_model=lambda: text_parts.base_model(base),
        make_loss=lambda: text_parts.loss(learning),
        build_loader=loader,
        build_item_texts=lambda: text_parts.item_texts(items, base, preprocessor, item_splitter, augmenter),
        build_query_retriever=lambda: query_retriever or text_parts.query_retriever(),
        build_converter=lambda: sessions_converter or text_parts.converter(loader()),
        build_splitter=lambda: splitter or text_parts.splitter(learning),
        build_search_space=lambda: text_parts.search_space(learning),
        build_experiments=lambda: text_parts.experiments(name),
        build_index=vectors,
        build_vectors_adjuster=lambda: vectors_adjuster or text_parts.vectors_adjuster(vectors()),
        build_optimizations=lambda: tuple(optimizations),
        build_judgments=lambda: judgments() if judgments is not None else None,
        public=public,
        pretrain=CatalogPretraining() if pretrain == "catalog" else pretrain,
    )
