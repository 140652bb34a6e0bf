"""A registered version becomes an entry of the Triton model repository."""

from __future__ import annotations

from estudio_core import database
from estudio_core.lexical.settings import Fusion
from estudio_core.pipeline.manifests import PublishedManifest
from estudio_core.plugin.registry import open_plugin
from estudio_core.promotion.ledger import require_open_run
from estudio_core.settings import get_settings


def publish_model(plugin_name: str, version: str, run_id: str | None = None) -> PublishedManifest:
    """Export `version`, check it against the trained model, publish it, and try it with its golden texts.

    Publishing what is published already changes nothing.

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
    from estudio_core.errors import DimensionError
    from estudio_core.export.triton_repository import ExportOptions, publish_entry
    from estudio_core.inference.host import usable_cores
    from estudio_core.inference.manifest import entry_name
    from estudio_core.inference.opening import ensure_served
    from estudio_core.models.storage import load_model
    from estudio_core.pipeline.evaluation.export_quality import ranking_check

    if run_id is not None:
        with database.connect(autocommit=True) as connection:
            require_open_run(connection, plugin_name, run_id)
    plugin = open_plugin(plugin_name)
    manager = plugin.experiments
    number = manager.registry.resolve(version)
    folder = manager.download_model(number)
    model = load_model(folder)
    wanted = plugin.index.dimensions
    if model.dimensions != wanted:
        raise DimensionError(
            f"Version {number} of {plugin_name!r} gives vectors of {model.dimensions} dimensions; "
            f"the plugin's index has {wanted}. Correct the plugin's dimensions, or its model."
        )
    name = entry_name(plugin_name, number)
    settings = get_settings()
    precision, check = ranking_check(plugin, name)
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
    ensure_served(name)
    return PublishedManifest(
        name=name,
        version=str(number),
        digest=entry.digest,
        dimensions=entry.dimensions,
        ranking=Fusion.of_model(folder),
    )
