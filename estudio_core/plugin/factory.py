"""`create_text_plugin`: a whole search plugin from one typed call."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from estudio_core.errors import ConfigurationError, suggest
from estudio_core.evaluation.gate_settings import GateSettings
from estudio_core.export.settings import ExportSettings
from estudio_core.plugin.contract import PluginMeta
from estudio_core.plugin.dag_settings import DagSettings
from estudio_core.plugin.run_params import FineTuneParams
from estudio_core.plugin.specs import PostgresItems, TextIndex, TextModel, TextTraining
from estudio_core.plugin.text_plugin import TextPlugin

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


_SETTINGS = ("items", "model", "training", "index", "dag", "gate", "export", "fine_tune")


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
    export: ExportSettings | None = None,
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
        export: In how many bits models are served.
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
                f"create_text_plugin got an unknown argument {given!r}. " + suggest(given, [*COMPONENTS, *_SETTINGS])
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
        export=export or ExportSettings(),
        fine_tune=fine_tune or FineTuneParams(),
    )
