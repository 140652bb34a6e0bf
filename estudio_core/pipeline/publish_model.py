"""A registered version becomes an entry of the Triton model repository."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from estudio_core import database
from estudio_core.lexical.settings import Fusion
from estudio_core.models.towers import Towers
from estudio_core.pipeline.manifests import PublishedManifest
from estudio_core.plugin.registry import open_plugin
from estudio_core.promotion.ledger import require_open_run
from estudio_core.settings import get_settings

if TYPE_CHECKING:
    from estudio_core.inference.manifest import EntryManifest
    from estudio_core.plugin.plugin import Plugin


def publish_model(plugin_name: str, version: str, run_id: str | None = None) -> PublishedManifest:
    """Export `version`, check it against the trained model, publish it, and try it with its golden texts.

    Publishing what is published already changes nothing. Of a version that encodes queries alone, the items' model is
    published too, where it is not there.

    Args:
        plugin_name: The plugin.
        version: Number or alias.
        run_id: The release run that it is for; None for an evaluation.

    Raises:
        SupersededError: a later promotion has taken the place of the run's.
        ExportError: the graph does not compute what the model computes, or in fewer bits ranks worse than allowed.
        RepositoryError: the repository cannot be written, or the name holds another model.
        DimensionError: the model's vectors do not fit the plugin's index.
    """
    if run_id is not None:
        with database.connect(autocommit=True) as connection:
            require_open_run(connection, plugin_name, run_id)
    plugin = open_plugin(plugin_name)
    number = plugin.experiments.registry.resolve(version)
    folder = plugin.experiments.download_model(number)
    towers = Towers.of_model(folder)
    items = None if towers is None else _published(plugin, towers.item_version, only_missing=True)
    entry = _published(plugin, number, items=items)
    return PublishedManifest(
        name=entry.name,
        version=str(number),
        digest=entry.digest,
        dimensions=entry.dimensions,
        item_name=None if items is None else items.name,
        item_version=None if towers is None else str(towers.item_version),
        ranking=Fusion.of_model(folder),
    )


def _published(
    plugin: Plugin, number: int, *, items: EntryManifest | None = None, only_missing: bool = False
) -> EntryManifest:
    """Publish a version and have it served; `items` is what encodes items beside it, where that is another entry."""
    from estudio_core.errors import DimensionError, RepositoryError
    from estudio_core.export.triton_repository import ExportOptions, publish_entry
    from estudio_core.inference.host import usable_cores
    from estudio_core.inference.manifest import entry_name
    from estudio_core.inference.model_store import entry_of, local_entry, push_entry
    from estudio_core.inference.opening import ensure_served
    from estudio_core.models.storage import load_model
    from estudio_core.pipeline.evaluation.export_quality import ranking_check

    plugin_name = plugin.meta.name
    name = entry_name(plugin_name, number)
    if only_missing:
        with contextlib.suppress(RepositoryError):  # not there, or damaged: it is made
            ensure_served(name)
            push_entry(name)
            return entry_of(name)
    folder = plugin.experiments.download_model(number)
    model = load_model(folder)
    wanted = plugin.index.dimensions
    if model.dimensions != wanted:
        raise DimensionError(
            f"Version {number} of {plugin_name!r} gives vectors of {model.dimensions} dimensions; "
            f"the plugin's index has {wanted}. Correct the plugin's dimensions, or its model."
        )
    settings = get_settings()
    local_entry(name)  # published elsewhere before, it need not be made again
    precision, check = ranking_check(plugin, name, None if items is None else items.name)
    entry = publish_entry(
        settings.triton_repository,
        name,
        model,
        {"registered_version": number},
        options=ExportOptions(
            precision=precision,
            instances=settings.triton_instances,
            threads=settings.triton_threads or usable_cores(),
        ),
        ranking_check=check,
    )
    push_entry(name)
    ensure_served(name)
    return entry
