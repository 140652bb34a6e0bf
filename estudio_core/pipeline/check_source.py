"""Is everything there that an index needs? Asked first, so that a mistake costs seconds and not hours."""

from __future__ import annotations

import logging

from estudio_core import database
from estudio_core.errors import DataError
from estudio_core.pipeline.items.preflight import preflight
from estudio_core.pipeline.manifests import SourceManifest
from estudio_core.plugin.registry import open_plugin

logger = logging.getLogger(__name__)


def check_source(plugin_name: str, limit_minutes: int | None = None) -> SourceManifest:
    """Check Estudio's tables and the item source, count its rows, and see whether their index can be built.

    `limit_minutes` is the time limit of the task that builds it; without it, nothing is refused for its size.

    Raises:
        SchemaVersionError: Estudio's tables are missing or of another version.
        SourceSchemaError: a table or column does not exist.
        DataError: the source has no items.
        ConfigurationError: the index would not fit its disk, or not be built in time.
        DatabaseUnavailableError: a database does not answer.
    """
    with database.connect() as connection:
        database.require_schema(connection)
    plugin = open_plugin(plugin_name)
    loader = plugin.loader
    loader.check()
    items = loader.total_count()
    if items == 0:
        raise DataError(f"The item source of plugin {plugin_name!r} has no rows. Fill the table, then run this again.")
    if limit_minutes is not None:
        needed = preflight(plugin, limit_minutes, items)
        logger.info("Needed: %s.", needed.told)
        needed.require_fit()
    return SourceManifest(items=items)
